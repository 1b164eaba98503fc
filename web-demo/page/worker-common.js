// Error reports of a worker with an engine.
//
// A panic in wasm prints a line on the console, then traps without a message. So the line is added to the error's sentence.

let complaint = '';

// Passes on each line of the console.
export function overhear(emit) {
  for (const level of ['error', 'warn']) {
    const original = console[level].bind(console);
    console[level] = (...words) => {
      original(...words);
      const text = words.map(String).join(' ');
      if (level === 'error') complaint = text;
      emit(`console: ${text}`);
    };
  }
}

// A sentence about a thrown value. An error of the engine has a code and a complete message.
export function sentence(why) {
  if (why instanceof Error && 'code' in why) return why.message;
  const words = why instanceof Error ? `${why.name}: ${why.message}` : String(why);
  return complaint && !words.includes(complaint) ? `${words} (the console says: ${complaint})` : words;
}

// A trap in a future leaves its promise pending for ever; only these events report it.
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
