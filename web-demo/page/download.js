// Downloads a model into the browser's storage, chunk by chunk: each is fetched, hashed, written, and noted in a journal
// before the next. Chunks of an earlier download are verified by their hashes; only missing or wrong ones are fetched.

import { unlike } from './error.js';
import { count, span } from './journal.js';
import { size as words } from './numbers.js';
import { RemoteFile } from './range.js';
import { plan } from './remote.js';
import { Sha256, blobId, hex } from './sha.js';
import { open } from './shelf.js';

// Attempts per chunk until its hash is right.
const TRIES = 3;
// Digits of the hash of a file in LFS, a SHA-256; the id of a git blob is a SHA-1.
const LFS = 64;
// Milliseconds between progress events, and the window for the rate.
const TICK = 100;
const WINDOW = 5000;

// Downloads the model under `url`, or the rest of it.
//
// `emit` receives { stage, name, there, total, rate, eta }: the stage (`checking`, then `fetching`; for files with a hash of the
// hub then `checking` again), the current file, bytes present and in total, bytes per second and seconds left; the last two are
// null if unknown.
//
// Errors: those of `plan`; `network`, after which the same call resumes; `hash` if the server repeatedly sends a chunk that
// differs from the manifest, or a file that differs from the hub's hash; `quota` if there is no room; `busy`. Downloaded chunks
// are kept, except those of a file with a wrong hash.
export async function download(url, { signal, emit }) {
  try {
    await once(url, signal, emit);
  } catch (why) {
    // The files changed during the download, so it starts again. A second change is the server's fault.
    if (why.code !== 'changed') throw why;
    await once(url, signal, emit);
  }
}

async function once(url, signal, emit) {
  const wanted = await plan(url, signal);
  const total = wanted.reduce((bytes, { size }) => bytes + size, 0);
  const meter = new Meter(total, emit);
  let files = [];
  const missing = () => files.reduce((bytes, { there }) => bytes - there, total);
  try {
    files = await open(url, wanted);
    for (const file of files) await check(file, meter, signal);
    await fits(missing());
    meter.begin('fetching');
    for (const file of files) await complete(file, meter, signal);
    // The id of a git blob needs all bytes at once. The hub keeps large files in LFS.
    const hashed = files.filter(({ file: { oid, size, chunk } }) => oid?.length === LFS || (oid && size <= chunk));
    if (hashed.length > 0) meter.begin('checking', 0);
    for (const file of hashed) await compare(file, meter, signal);
  } catch (why) {
    throw why.name === 'QuotaExceededError' ? full(missing(), 'none') : why;
  } finally {
    meter.end();
    for (const file of files) file.close();
  }
}

// Verifies every present chunk: against its hash when it was written, and against the manifest.
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

// Fetches the missing chunks.
async function complete(file, meter, signal) {
  const { name, url, chunk, size, validator } = file.file;
  const remote = new RemoteFile(url, validator, signal);
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

  // Fetches a chunk until its hash is right; returns the hash.
  async function fill(bytes, from, index) {
    const expected = file.file.hashes?.[index];
    for (let tries = 1; ; tries += 1) {
      await remote.fill(bytes, from, (more) => meter.add(more, name));
      const got = await sha256(bytes);
      if (!expected || got === expected) return got;
      remote.close();
      meter.add(-bytes.length, name);
      const todo = 'The server\'s file differs from its manifest: report it to the owner of the server.';
      if (tries === TRIES) throw unlike('hash', `chunk ${index} of ${url}`, expected, got, todo);
    }
  }
}

// Compares a whole file with the hub's hash.
async function compare(file, meter, signal) {
  const { name, url, chunk, size, oid } = file.file;
  const buffer = new Uint8Array(Math.min(chunk, size));
  const hash = new Sha256();
  for (let index = 0; index < count(file.file); index += 1) {
    const [from, to] = span(file.file, index);
    const bytes = buffer.subarray(0, to - from);
    file.read(index, bytes);
    hash.add(bytes);
    meter.add(bytes.length, name);
    // Lets the worker receive "stop".
    await new Promise((resolve) => { setTimeout(resolve); });
    signal.throwIfAborted();
  }
  const got = oid.length === LFS ? hash.end() : await blobId(buffer);
  if (got === oid) return;
  for (let index = 0; index < count(file.file); index += 1) file.forget(index);
  throw unlike('hash', url, oid, got, 'The file is not used: download it again.');
}

const sha256 = async (bytes) => hex(new Uint8Array(await crypto.subtle.digest('SHA-256', bytes)));

// Refuses a download that does not fit. If the browser does not report its quota, the download is tried.
async function fits(missing) {
  const { quota = Infinity, usage = 0 } = await navigator.storage.estimate();
  if (quota - usage < missing) throw full(missing, words(quota - usage));
}

function full(missing, got) {
  const todo = 'What is downloaded is kept: delete other models or free disk space, then resume.';
  return unlike('quota', 'the browser\'s storage', `room for ${words(missing)} more`, got, todo);
}

// Progress and rate; reports also while nothing arrives.
class Meter {
  #emit;
  #total;
  #there = 0;
  #name = null;
  #stage;
  // Past times with the bytes present then, within the window.
  #past;
  #timer;

  constructor(total, emit) {
    this.#total = total;
    this.#emit = emit;
    this.begin('checking');
    this.#timer = setInterval(() => this.#say(), TICK);
  }

  begin(stage, there = this.#there) {
    this.#stage = stage;
    this.#there = there;
    this.#past = [[performance.now(), this.#there]];
  }

  // Adds bytes of a file.
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
    this.#emit({
      stage: this.#stage,
      name: this.#name,
      there: this.#there,
      total: this.#total,
      rate: rate || null,
      eta: rate ? (this.#total - this.#there) / rate : null,
    });
  }
}
