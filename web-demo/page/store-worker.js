// The worker of `store.js`: it surveys addresses, and downloads, hashes and writes files.
//
// Receives { id, call, ...arguments }, sends { id, event } on the way, then { id, result } or { id, error }. { stop: id } ends a
// call.

import { download } from './download.js';
import { source } from './models.js';
import { address, plan, remote } from './remote.js';
import { weigh } from './safetensors.js';
import { files, list, remove } from './shelf.js';

const stops = new Map();

const calls = {
  list,
  files: ({ url }) => files(url),
  remove: ({ url }) => remove(url),
  weigh: ({ files: blobs }) => weigh(source(blobs)),
  download: ({ url }, options) => download(url, options),

  async survey({ address: text }, { signal }) {
    const url = address(text);
    const found = await plan(url, signal);
    const kept = (await list()).find((model) => model.url === url);
    const total = found.reduce((bytes, { size }) => bytes + size, 0);
    const weights = await weigh(remote(found, signal));
    return { url, total, missing: Math.max(0, total - (kept?.there ?? 0)), weights };
  },
};

self.addEventListener('message', async ({ data: { id, stop, call, ...given } }) => {
  if (stop !== undefined) {
    stops.get(stop)?.abort();
    return;
  }
  const leave = new AbortController();
  stops.set(id, leave);
  try {
    const emit = (event) => self.postMessage({ id, event });
    self.postMessage({ id, result: await calls[call](given, { signal: leave.signal, emit }) });
  } catch (why) {
    const { message = String(why), code = 'storage', expected, got } = why ?? {};
    // The numeric code of a DOMException is useless.
    self.postMessage({ id, error: { message, code: typeof code === 'string' ? code : 'storage', expected, got } });
  }
  stops.delete(id);
});
