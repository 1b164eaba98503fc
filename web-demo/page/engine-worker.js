// The worker of `fovea.js`, with all wasm and GPU work: one engine and its open pictures.
//
// Receives { id, call, ...arguments } and runs the calls one after another. Sends { id, event } on the way, then { id, result }
// or { id, error }. { stop: id } is received at any time. Also sends { line } for each line of the console, and { broken }, a
// sentence, when the worker can no longer be used.

import { load } from './engine-module.js';
import { unlike } from './error.js';
import { held } from './held.js';
import { helpers } from './helpers.js';
import { source } from './models.js';
import './readback.js';
import { onTrap, overhear, sentence } from './worker-common.js';

const send = (what, transfer = []) => self.postMessage(what, transfer);
const broken = (why) => send({ broken: words(why) });
overhear((line) => send({ line }));
onTrap(broken);

// Fetched and compiled while the page still collects the model's files. `create` reports errors.
const loading = load();
loading.catch(() => {});

// The most threads of an engine, and without a choice.
const [MOST, USUAL] = [64, 8];
// Fewest bytes of a checkpoint for which threads are worth their start, without a choice.
const LARGE = 32 << 20;

let wasm;
let memory;
let engine;
// The helpers of the engine, if it has some.
let team = null;
let count = 0;
const sights = new Map();
const stops = new Map();

const calls = {
  async create({ cpu, dtype, cache, memory: limit, threads, files }, event) {
    const { sizes, read } = source(files);
    const bytes = [...sizes.values()].reduce((sum, size) => sum + size, 0);
    const wanted = threadsFor(cpu, threads, bytes);
    const loaded = await loading;
    ({ wasm, memory } = loaded);
    if (wanted > 1) team = await helpers(loaded.module, wanted - 1);
    if (team) wasm.useHelpers(team);
    engine = await wasm.Engine.open(sizes, read, cpu, dtype, cache, limit, (text) => event(JSON.parse(text)));
    const about = JSON.parse(engine.about());
    return { ...about, device: onThreads(about.device), threads: threadsUsed() };
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
      if (found.done) {
        found.done.device = onThreads(found.done.device);
        Object.assign(found.done.memory_bytes, { gpu: held(), wasm: memory.buffer.byteLength + (team?.memory() ?? 0) });
      }
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

// How many threads an engine for a checkpoint of `bytes` bytes shall have. Only an isolated page may share memory between workers.
function threadsFor(cpu, threads, bytes) {
  const asked = threads ?? null;
  if (asked !== null && !(Number.isInteger(asked) && asked >= 1 && asked <= MOST)) {
    throw unlike('option', 'threads', `a whole number from 1 to ${MOST}`, asked);
  }
  if (!cpu || !self.crossOriginIsolated || typeof SharedArrayBuffer === 'undefined') return 1;
  return asked ?? (bytes < LARGE ? 1 : Math.min(navigator.hardwareConcurrency ?? 1, USUAL));
}

const threadsUsed = () => 1 + (team?.count() ?? 0);

// The engine's module knows only its own thread.
const onThreads = (device) => (team ? device.replace(/\b1 thread\b/, `${threadsUsed()} threads`) : device);

// A sentence about an error, with that of the helper that caused it.
function words(why) {
  const text = sentence(why);
  return !team?.failed || text.includes(team.failed) ? text : `${text} (${team.failed})`;
}

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
    else send({ id, error: { message: words(why), code: why?.code ?? 'engine' } });
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
