// Fovea for any page: an engine in a worker of its own, pictures, questions, and what was looked at. Its types are in
// fovea.d.ts; `index.html` is made with it.

import { demo } from './demo.js';
import { FoveaError } from './error.js';
import { Link } from './link.js';

export { FoveaError };
export { visualTokens } from './tokens.js';

// What no engine runs without.
const NEEDED = ['WebAssembly', 'Worker'];

export class Fovea {
  #link;
  about;

  constructor(link, about) {
    this.#link = link;
    this.about = about;
  }

  static async create({ cpu = false, dtype = 'auto', files, signal, onProgress, onLine } = {}) {
    signal?.throwIfAborted();
    const missing = NEEDED.find((name) => !(name in globalThis));
    if (missing) throw new FoveaError(`This browser can't run the engine: expected ${missing}, got nothing.`, 'unsupported');
    const worker = new Worker(new URL('./engine-worker.js', import.meta.url), { type: 'module' });
    const link = new Link(worker, onLine);
    const leave = () => link.end(signal.reason);
    signal?.addEventListener('abort', leave);
    try {
      const call = { call: 'create', cpu, dtype, files: files ?? await demo() };
      return new Fovea(link, await link.call(call, { onEvent: onProgress }));
    } catch (why) {
      link.end(why);
      throw why;
    } finally {
      signal?.removeEventListener('abort', leave);
    }
  }

  async lookAt(picture, { signal } = {}) {
    // A copy, which the worker gets; the caller keeps its own.
    const bytes = new Uint8Array(picture instanceof Blob ? await picture.arrayBuffer() : picture.slice(0));
    const call = { call: 'lookAt', picture: bytes };
    return new Sight(this.#link, await this.#link.call(call, { signal, transfer: [bytes.buffer] }));
  }

  dispose() {
    this.#link.end(new FoveaError('The engine was disposed of.', 'disposed'));
  }
}

// A picture that can be asked about.
class Sight {
  #link;
  #sight;

  constructor(link, sight) {
    this.#link = link;
    this.#sight = sight;
  }

  prepare({ signal, ...options } = {}) {
    return this.#link.call(this.#asked('prepare', options), { signal });
  }

  ask(question, { signal, ...options } = {}) {
    return this.#link.events({ ...this.#asked('ask', options), question: String(question) }, { signal });
  }

  look(question, { signal, ...options } = {}) {
    return this.#link.call({ ...this.#asked('look', options), question: String(question) }, { signal });
  }

  keep(gamma) {
    return this.#link.call({ call: 'keep', sight: this.#sight, gamma });
  }

  async overlay() {
    const png = await this.#link.call({ call: 'overlay', sight: this.#sight });
    return new Blob([png], { type: 'image/png' });
  }

  // With the engine gone the picture is as well.
  close() {
    return this.#link.call({ call: 'close', sight: this.#sight }).catch(() => {});
  }

  #asked(call, { maxNewTokens, ...options }) {
    return { call, sight: this.#sight, options: JSON.stringify({ ...options, max_new_tokens: maxNewTokens }) };
  }
}
