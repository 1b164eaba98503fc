// All wasm and GPU work: finds the GPU, fetches the fixtures, runs the engine over them.
//
// Tells the page objects with one key: `line` and `device` as it goes, and one `report` (JSON as text) or `error` (a
// sentence) at the end.

const tell = (what) => self.postMessage(what);

// A panic in wasm is a line on the console and then a bare trap, so that line belongs to the sentence about it. And
// nobody reads the console of a browser without a window.
let complaint = '';
for (const level of ['error', 'warn']) {
  const original = console[level].bind(console);
  console[level] = (...words) => {
    original(...words);
    const text = words.map(String).join(' ');
    if (level === 'error') complaint = text;
    tell({ line: `console: ${text}` });
  };
}

function fail(why) {
  const words = why instanceof Error ? `${why.name}: ${why.message}` : String(why);
  tell({ error: complaint && !words.includes(complaint) ? `${words} (the console says: ${complaint})` : words });
}

// A trap in a future leaves its promise open for ever; it shows up only here.
self.addEventListener('error', (event) => {
  event.preventDefault();
  fail(event.error ?? event.message);
});
self.addEventListener('unhandledrejection', (event) => {
  event.preventDefault();
  fail(event.reason);
});

// The name of the GPU, as far as the browser tells it.
async function device() {
  if (!navigator.gpu) {
    throw 'This browser has no WebGPU here: expected navigator.gpu, got nothing. It needs https or localhost, and a browser that has it switched on.';
  }
  const adapter = await navigator.gpu.requestAdapter();
  if (!adapter) throw 'This browser has WebGPU, but no adapter: expected one, got null.';
  const { vendor, architecture, device, description, isFallbackAdapter } = adapter.info;
  const name = [vendor, architecture, device, description].filter(Boolean).join(' ') || 'a GPU that the browser does not name';
  const has = ['shader-f16', 'subgroups'].map((feature) => `${feature} ${adapter.features.has(feature) ? 'yes' : 'no'}`);
  const binding = `largest binding ${adapter.limits.maxStorageBufferBindingSize / 2 ** 20} MiB`;
  return [name, isFallbackAdapter ? 'software' : 'hardware', ...has, binding].join(', ');
}

// A file that was sent with the page; null where it was not.
async function get(name) {
  const address = `fixtures/${name.split('/').map(encodeURIComponent).join('/')}`;
  const answer = await fetch(address);
  if (answer.status === 404) return null;
  if (!answer.ok) throw new Error(`${address}: expected it to be sent, got ${answer.status}`);
  return new Uint8Array(await answer.arrayBuffer());
}

// Every fixture by name; none where the page came without them.
async function fixtures() {
  const index = await get('index.json');
  if (index === null) {
    tell({ line: 'no fixtures: the page came without them' });
    return new Map();
  }
  const names = JSON.parse(new TextDecoder().decode(index));
  const files = new Map(await Promise.all(names.map(async (name) => {
    const bytes = await get(name);
    if (bytes === null) throw new Error(`fixtures/${name}: named in index.json, but not there`);
    return [name, bytes];
  })));
  const bytes = [...files.values()].reduce((sum, file) => sum + file.length, 0);
  tell({ line: `fixtures: ${files.size} files, ${(bytes / 2 ** 20).toFixed(1)} MiB` });
  return files;
}

try {
  tell({ device: await device() });
  const { default: start, conformance } = await import('./pkg/fovea_web.js');
  await start();
  const files = await fixtures();
  tell({ report: await conformance(files, (text) => tell({ line: String(text) })) });
} catch (why) {
  fail(why);
}
