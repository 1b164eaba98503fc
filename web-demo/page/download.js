// From the address of a folder to a model on the shelf, chunk by chunk: each is fetched, hashed, written and journalled
// before the next. What an earlier download left is held to its hashes, and only what is not there or not right is fetched.

import { unlike } from './error.js';
import { count, span } from './journal.js';
import { size as words } from './numbers.js';
import { RemoteFile } from './range.js';
import { plan } from './remote.js';
import { open } from './shelf.js';

// How often a chunk may hash to something else than it should.
const TRIES = 3;
// Milliseconds between two words about how it goes, and over which the rate is taken.
const TICK = 100;
const WINDOW = 5000;

// Downloads the model under `url`, or the rest of it.
//
// `tell` hears { stage, name, there, total, rate, eta }: the stage (`checking` what is there, then `fetching`), the file
// under way, the bytes there are and there will be, bytes a second and the seconds left; the last two null where not known.
//
// Errors: those of `plan`; `network`, after which the same call goes on where this one was; `hash` where a server
// keeps sending a chunk that is not the manifest's; `quota` where there is no room, and `busy`. What has come stays.
export async function download(url, { signal, tell }) {
  try {
    await once(url, signal, tell);
  } catch (why) {
    // Files changed under way: what is of the new ones stays, and the rest is fetched. Twice in a row is the server's fault.
    if (why.code !== 'changed') throw why;
    await once(url, signal, tell);
  }
}

async function once(url, signal, tell) {
  const wanted = await plan(url, signal);
  const total = wanted.reduce((bytes, { size }) => bytes + size, 0);
  const meter = new Meter(total, tell);
  let files = [];
  const missing = () => files.reduce((bytes, { there }) => bytes - there, total);
  try {
    files = await open(url, wanted);
    for (const file of files) await check(file, meter, signal);
    await fits(missing());
    meter.begin('fetching');
    for (const file of files) await complete(file, url, meter, signal);
  } catch (why) {
    throw why.name === 'QuotaExceededError' ? full(missing(), why.message) : why;
  } finally {
    meter.end();
    for (const file of files) file.close();
  }
}

// Holds every chunk that is there to its hashes: what it was when it was written, and what it should be.
async function check(file, meter, signal) {
  const { name, chunk, size, hashes } = file.file;
  const buffer = new Uint8Array(Math.min(chunk, size));
  for (let index = 0; index < count(file.file); index += 1) {
    signal.throwIfAborted();
    const written = file.hash(index);
    if (!written) continue;
    const [from, to] = span(file.file, index);
    const bytes = buffer.subarray(0, to - from);
    const right = file.read(index, bytes) && (await sha256(bytes)) === written && (hashes?.[index] ?? written) === written;
    if (right) meter.add(to - from, name);
    else file.forget(index);
  }
}

// Fetches the chunks that are not there.
async function complete(file, url, meter, signal) {
  const { name, chunk, size, validator } = file.file;
  const remote = new RemoteFile(`${url}${name}`, validator, signal);
  const buffer = new Uint8Array(Math.min(chunk, size));
  try {
    for (let index = 0; index < count(file.file); index += 1) {
      if (file.hash(index)) continue;
      const [from, to] = span(file.file, index);
      const bytes = buffer.subarray(0, to - from);
      file.write(index, bytes, await fill(bytes, from, index));
    }
  } finally {
    remote.close();
  }

  // Fetches a chunk until it is the right one; returns its hash.
  async function fill(bytes, from, index) {
    const expected = file.file.hashes?.[index];
    for (let tries = 1; ; tries += 1) {
      await remote.fill(bytes, from, (more) => meter.add(more, name));
      const got = await sha256(bytes);
      if (!expected || got === expected) return got;
      remote.close();
      meter.add(-bytes.length, name);
      const todo = 'The server sends something else than its manifest says.';
      if (tries === TRIES) throw unlike('hash', `chunk ${index} of ${url}${name}`, expected, got, todo);
    }
  }
}

async function sha256(bytes) {
  const hash = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
  return Array.from(hash, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

// Refuses what would not fit before it is fetched. A browser that does not say what it has is tried.
async function fits(missing) {
  const { quota = Infinity, usage = 0 } = await navigator.storage.estimate();
  if (quota - usage < missing) throw full(missing, words(quota - usage));
}

function full(missing, got) {
  const todo = 'What has come is kept: delete other models, or make room on the disk, then go on.';
  return unlike('quota', 'the browser\'s storage', `room for ${words(missing)} more`, got, todo);
}

// How far it is, and how fast; tells it also while nothing comes.
class Meter {
  #tell;
  #total;
  #there = 0;
  #name = null;
  #stage;
  // Past moments and what was there then, within the window.
  #past;
  #timer;

  constructor(total, tell) {
    this.#total = total;
    this.#tell = tell;
    this.begin('checking');
    this.#timer = setInterval(() => this.#say(), TICK);
  }

  begin(stage) {
    this.#stage = stage;
    this.#past = [[performance.now(), this.#there]];
  }

  // So many bytes more of a file are there.
  add(bytes, name) {
    this.#there += bytes;
    this.#name = name;
  }

  end() {
    clearInterval(this.#timer);
    this.#say();
  }

  #say() {
    if (this.#name === null) return;
    const now = performance.now();
    this.#past.push([now, this.#there]);
    while (this.#past[0][0] < now - WINDOW) this.#past.shift();
    const [at, there] = this.#past[0];
    const rate = now > at ? Math.max(0, this.#there - there) / ((now - at) / 1000) : 0;
    this.#tell({
      stage: this.#stage,
      name: this.#name,
      there: this.#there,
      total: this.#total,
      rate: rate || null,
      eta: rate ? (this.#total - this.#there) / rate : null,
    });
  }
}
