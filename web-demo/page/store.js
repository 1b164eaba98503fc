// Downloads models into this browser, and lists the downloaded ones. A worker does the work.
//
// Calls reject with a `FoveaError` with one of these codes: `address`, `missing`, `manifest`, `checkpoint`, `server`, `network`,
// `changed`, `hash`, `quota`, `busy`, `storage`, `access`; `worker` if the worker failed, after which the next call starts a new one. For
// a wrong value it has `expected` and `got`. An abort rejects with the signal's reason.

import { Link } from './link.js';

export class Store {
  #link = null;

  // The downloaded models: { url, total, there, whole }, in bytes.
  list() {
    return this.#call({ call: 'list' });
  }

  // The files of a whole model: a Map of names to Files, for `Fovea.create`.
  files(url) {
    return this.#call({ call: 'files', url });
  }

  remove(url) {
    return this.#call({ call: 'remove', url });
  }

  // The size of the weights among these Blobs: { bytes, largest, stored }. See `safetensors.js`.
  weigh(files, { signal } = {}) {
    return this.#call({ call: 'weigh', files }, { signal });
  }

  // The model under an address, or in a repository of the hub, before the download: { url, total, missing, weights }.
  survey(address, { signal } = {}) {
    return this.#call({ call: 'survey', address }, { signal });
  }

  // Downloads what is missing. `onProgress` receives { stage, name, there, total, rate, eta }; see `download.js`.
  download(url, { signal, onProgress } = {}) {
    // Not awaited: some browsers ask the user. Without permission, the browser may delete the files when the disk is full.
    navigator.storage?.persist?.().catch(() => {});
    return this.#call({ call: 'download', url }, { signal, onEvent: onProgress });
  }

  // Bytes that the browser can still store for this page, as far as it reports.
  async room() {
    const { quota = Infinity, usage = 0 } = await navigator.storage?.estimate() ?? { quota: 0 };
    return Math.max(0, quota - usage);
  }

  async #call(message, options) {
    // The worker reads the parameter `hub` of the page.
    const worker = () => new Worker(new URL(`./store-worker.js${location.search}`, import.meta.url), { type: 'module' });
    if (!this.#link || this.#link.ended) this.#link = new Link(worker());
    return this.#link.call(message, options);
  }
}
