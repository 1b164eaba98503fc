// The API of Fovea for any page: an engine in its own worker, pictures, questions, and the attention of the model. Types are in
// fovea.d.ts; `index.html` uses it.

import { demo } from './demo.js';
import { FoveaError } from './error.js';
import { Link } from './link.js';

export { FoveaError };

// Features that the engine requires.
const NEEDED = ['WebAssembly', 'Worker'];

export class Fovea {
  #link;
  about;

  constructor(link, about) {
    this.#link = link;
    this.about = about;
  }

  static async create({ cpu = false, dtype = 'auto', cache = 'auto', memory, threads, files, signal, onProgress, onLine } = {}) {
    signal?.throwIfAborted();
    const missing = NEEDED.find((name) => !(name in globalThis));
    if (missing) throw new FoveaError(`This browser can't run the engine: expected ${missing}, got none. Use a newer browser.`, 'unsupported');
    const worker = new Worker(new URL('./engine-worker.js', import.meta.url), { type: 'module' });
    const link = new Link(worker, onLine);
    const leave = () => link.end(signal.reason);
    signal?.addEventListener('abort', leave);
    try {
      const call = { call: 'create', cpu, dtype, cache, memory, threads, files: files ?? await demo() };
      return new Fovea(link, await link.call(call, { onEvent: onProgress }));
    } catch (why) {
      link.end(why);
      throw why;
    } finally {
      signal?.removeEventListener('abort', leave);
    }
  }

  async lookAt(picture, { signal } = {}) {
    // A copy is transferred to the worker; the caller keeps its bytes.
    const bytes = new Uint8Array(picture instanceof Blob ? await picture.arrayBuffer() : picture.slice(0));
    const call = { call: 'lookAt', picture: bytes };
    return new Sight(this.#link, await this.#link.call(call, { signal, transfer: [bytes.buffer] }));
  }

  check(compression) {
    return this.#link.call({ call: 'check', compression: String(compression) });
  }

  dispose() {
    this.#link.end(new FoveaError('The engine was disposed of: create another one.', 'disposed'));
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
    return this.#link.events({ ...this.#asked('ask', options), messages: messages(question) }, { signal });
  }

  look(question, { signal, ...options } = {}) {
    return this.#link.call({ ...this.#asked('look', options), messages: messages(question) }, { signal });
  }

  keep(gamma) {
    return this.#link.call({ call: 'keep', sight: this.#sight, gamma });
  }

  async overlay() {
    const png = await this.#link.call({ call: 'overlay', sight: this.#sight });
    return new Blob([png], { type: 'image/png' });
  }

  // If the engine is gone, so is the picture.
  close() {
    return this.#link.call({ call: 'close', sight: this.#sight }).catch(() => {});
  }

  #asked(call, { maxNewTokens, topP, ...options }) {
    return { call, sight: this.#sight, options: JSON.stringify({ ...options, max_new_tokens: maxNewTokens, top_p: topP }) };
  }
}

// The messages as JSON. A text is one question.
const messages = (question) => JSON.stringify(Array.isArray(question) ? question : [{ role: 'user', content: String(question) }]);
