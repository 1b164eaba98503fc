// Models on the way into this browser, and those that it keeps. All work is done by a worker of its own.
//
// What rejects is a `FoveaError` with one of these codes: `address`, `missing`, `manifest`, `checkpoint`, `server`, `network`,
// `changed`, `hash`, `quota`, `busy`, `storage`; `worker` where the worker broke, after which the next call starts another.
// Where a value was wrong it has `expected` and `got`. An abort rejects with the signal's reason.

import { Link } from './link.js';

export class Store {
  #link = null;

  // The models that are kept: { url, total, there, whole }, in bytes.
  list() {
    return this.#call({ call: 'list' });
  }

  // The files of a model that is whole: a Map of names to Files, for `Fovea.create`. They need no network.
  files(url) {
    return this.#call({ call: 'files', url });
  }

  remove(url) {
    return this.#call({ call: 'remove', url });
  }

  // What the weights among these Blobs take: { largest, values, all, half }. See `safetensors.js`.
  weigh(files, { signal } = {}) {
    return this.#call({ call: 'weigh', files }, { signal });
  }

  // What lies under an address, before any of it is downloaded: { url, total, missing, weights }.
  survey(address, { signal } = {}) {
    return this.#call({ call: 'survey', address }, { signal });
  }

  // Downloads what is not there yet. `onProgress` is told { stage, name, there, total, rate, eta }; see `download.js`.
  download(url, { signal, onProgress } = {}) {
    // Some browsers ask their user, who may let them wait; what is not granted may be thrown away when the disk is full.
    navigator.storage?.persist?.().catch(() => {});
    return this.#call({ call: 'download', url }, { signal, onEvent: onProgress });
  }

  // Bytes that the browser would still keep for this page, as far as it says.
  async room() {
    const { quota = Infinity, usage = 0 } = await navigator.storage?.estimate() ?? { quota: 0 };
    return Math.max(0, quota - usage);
  }

  async #call(message, options) {
    this.#link ??= new Link(new Worker(new URL('./store-worker.js', import.meta.url), { type: 'module' }));
    try {
      return await this.#link.call(message, options);
    } catch (why) {
      if (why?.code === 'worker') this.#link = null;
      throw why;
    }
  }
}
