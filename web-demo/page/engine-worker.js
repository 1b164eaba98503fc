// The worker of `fovea.js`, with all wasm and GPU work: one engine and its open pictures.
//
// Receives { id, call, ...arguments } and runs the calls one after another. Sends { id, event } on the way, then { id, result }
// or { id, error }. { stop: id } is received at any time. Also sends { line } for each line of the console, and { broken }, a
// sentence, when the worker can no longer be used.

import { FoveaError } from './error.js';
import { held } from './held.js';
import { source } from './models.js';
import { onTrap, overhear, sentence } from './worker-common.js';

const send = (what, transfer = []) => self.postMessage(what, transfer);
const broken = (why) => send({ broken: sentence(why) });
overhear((line) => send({ line }));
onTrap(broken);

// Fetched and compiled while the page still collects the model's files. `create` reports errors.
const loading = (async () => {
  try {
    const wasm = await import('./pkg/fovea_web.js');
    return { wasm, memory: (await wasm.default()).memory };
  } catch (why) {
    // How browsers report that a file did not arrive.
    if (!(why instanceof TypeError)) throw why;
    throw new FoveaError(`The engine: expected its files, got ${why.message}. Check the connection, then try again.`, 'network');
  }
})();
loading.catch(() => {});

let wasm;
let memory;
let engine;
let count = 0;
const sights = new Map();
const stops = new Map();

const calls = {
  async create({ cpu, dtype, cache, memory: limit, files }, event) {
    ({ wasm, memory } = await loading);
    const { sizes, read } = source(files);
    engine = await wasm.Engine.open(sizes, read, cpu, dtype, cache, limit, (text) => event(JSON.parse(text)));
    return JSON.parse(engine.about());
  },

  check({ compression }) {
    return engine.check(compression);
  },

  lookAt({ picture }) {
    const sight = count++;
    sights.set(sight, engine.lookAt(picture));
    return sight;
  },

  prepare({ sight, options }, event, stop) {
    return at(sight).prepare(options, stop);
  },

  ask({ sight, messages, options }, event, stop) {
    return at(sight).ask(messages, options, stop, (text) => {
      const found = JSON.parse(text);
      if (found.done) Object.assign(found.done.memory_bytes, { gpu: held(), wasm: memory.buffer.byteLength });
      event(found);
    });
  },

  async look({ sight, messages, options }, event, stop) {
    return JSON.parse(await at(sight).look(messages, options, stop));
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

// An open picture.
function at(sight) {
  const found = sights.get(sight);
  if (!found) throw 'expected an open picture, got a closed one';
  return found;
}

async function run({ id, call, ...given }) {
  try {
    const result = await calls[call](given, (event) => send({ id, event }), stops.get(id));
    send({ id, result }, result instanceof Uint8Array ? [result.buffer] : []);
  } catch (why) {
    // After a trap the wasm module must not be used again.
    if (why instanceof WebAssembly.RuntimeError) broken(why);
    else send({ id, error: { message: sentence(why), code: why?.code ?? 'engine' } });
  } finally {
    stops.get(id)?.free();
    stops.delete(id);
  }
}

// A running wasm method borrows its object, so the next call waits. Stop messages do not.
let last = Promise.resolve();
self.addEventListener('message', ({ data }) => {
  if ('stop' in data) {
    stops.get(data.stop)?.stop();
    return;
  }
  if (['prepare', 'ask', 'look'].includes(data.call)) stops.set(data.id, new wasm.Stop());
  last = last.then(() => run(data));
});
