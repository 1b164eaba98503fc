// All wasm and GPU work of `fovea.js`: one engine and the pictures that it looks at.
//
// Hears { id, call, ...what it takes }, does one after another, and tells { id, event } on the way, then { id, result } or
// { id, error }. { stop: id } is heard at any time. Also tells { line } of the console, and { broken }, a sentence, once
// it is of no more use.

import { held } from './held.js';
import { source } from './models.js';
import { onTrap, overhear, sentence } from './worker-common.js';

const tell = (what, transfer = []) => self.postMessage(what, transfer);
const broken = (why) => tell({ broken: sentence(why) });
overhear((line) => tell({ line }));
onTrap(broken);

// Fetched and compiled while the page still finds the model's files. Whether that went well is told by `create`.
const loading = (async () => {
  const wasm = await import('./pkg/fovea_web.js');
  return { wasm, memory: (await wasm.default()).memory };
})();
loading.catch(() => {});

let wasm;
let memory;
let engine;
let count = 0;
const sights = new Map();
const stops = new Map();

const calls = {
  async create({ cpu, dtype, files }, event) {
    ({ wasm, memory } = await loading);
    const { sizes, read } = source(files);
    engine = await wasm.Engine.open(sizes, read, cpu, dtype, (text) => event(JSON.parse(text)));
    return JSON.parse(engine.about());
  },

  lookAt({ picture }) {
    const sight = count++;
    sights.set(sight, engine.lookAt(picture));
    return sight;
  },

  prepare({ sight, options }, event, stop) {
    return at(sight).prepare(options, stop);
  },

  ask({ sight, question, options }, event, stop) {
    return at(sight).ask(question, options, stop, (text) => {
      const told = JSON.parse(text);
      if (told.done) Object.assign(told.done.memory_bytes, { gpu: held(), wasm: memory.buffer.byteLength });
      event(told);
    });
  },

  async look({ sight, question, options }, event, stop) {
    return JSON.parse(await at(sight).look(question, options, stop));
  },

  keep({ sight, gamma }) {
    return JSON.parse(at(sight).keep(gamma));
  },

  overlay({ sight }) {
    return at(sight).overlay();
  },

  close({ sight }) {
    at(sight).free();
    sights.delete(sight);
  },
};

// A picture that was opened.
function at(sight) {
  const found = sights.get(sight);
  if (!found) throw 'expected a picture that is open, got one that was closed';
  return found;
}

async function run({ id, call, ...given }) {
  try {
    const result = await calls[call](given, (event) => tell({ id, event }), stops.get(id));
    tell({ id, result }, result instanceof Uint8Array ? [result.buffer] : []);
  } catch (why) {
    // After a trap nothing in wasm can be trusted any more.
    if (why instanceof WebAssembly.RuntimeError) broken(why);
    else tell({ id, error: { message: sentence(why), code: why?.code ?? 'engine' } });
  } finally {
    stops.get(id)?.free();
    stops.delete(id);
  }
}

// A method of wasm that is under way holds its object, so the next call waits for it; what stops it does not.
let last = Promise.resolve();
self.addEventListener('message', ({ data }) => {
  if ('stop' in data) {
    stops.get(data.stop)?.stop();
    return;
  }
  if (['prepare', 'ask', 'look'].includes(data.call)) stops.set(data.id, new wasm.Stop());
  last = last.then(() => run(data));
});
