// What a worker with an engine in it tells of its troubles.
//
// A panic in wasm is a line on the console and then a bare trap, so that line belongs to the sentence about it. And
// nobody reads the console of a browser without a window.

let complaint = '';

// Passes on what is written on the console, line by line.
export function overhear(tell) {
  for (const level of ['error', 'warn']) {
    const original = console[level].bind(console);
    console[level] = (...words) => {
      original(...words);
      const text = words.map(String).join(' ');
      if (level === 'error') complaint = text;
      tell(`console: ${text}`);
    };
  }
}

// A sentence about what was thrown. An error of the engine has a code, and its message says all.
export function sentence(why) {
  if (why instanceof Error && 'code' in why) return why.message;
  const words = why instanceof Error ? `${why.name}: ${why.message}` : String(why);
  return complaint && !words.includes(complaint) ? `${words} (the console says: ${complaint})` : words;
}

// A trap in a future leaves its promise open for ever; it shows up only here.
export function onTrap(fail) {
  self.addEventListener('error', (event) => {
    event.preventDefault();
    fail(event.error ?? event.message);
  });
  self.addEventListener('unhandledrejection', (event) => {
    event.preventDefault();
    fail(event.reason);
  });
}
