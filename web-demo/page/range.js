// A file on a server, read from any byte on.
//
// Each read is a plain `Range` request; where a connection breaks, the next one goes on at the byte that is missing. A
// server that ignores ranges sends the whole file: what lies before is skipped, and what comes after is read from the
// same stream.

import { unlike } from './error.js';

// How often in a row nothing may come, and how long the first pause after that is, in milliseconds.
const TRIES = 5;
const PAUSE = 500;

const NOTHING = new Uint8Array();

// What tells a file from another one under the same address, where the server says.
export const validator = ({ headers }) => headers.get('etag') ?? headers.get('last-modified');

// One request for `range`, such as `0-7` or `0-`. Whether it was granted is for the caller to see.
//
// Errors: `network` where nothing is answered, or only that the server can't just now.
export async function request(url, { method = 'GET', range, signal }) {
  let answer;
  try {
    // What is kept is kept by us, not by the browser's cache as well.
    answer = await fetch(url, { method, headers: { range: `bytes=${range}` }, cache: 'no-store', signal });
  } catch (why) {
    signal.throwIfAborted();
    const todo = 'Either there is no connection, or the server does not let other sites read its files (CORS).';
    throw unlike('network', url, 'an answer', why.message, todo);
  }
  if (answer.status === 408 || answer.status === 429 || answer.status >= 500) {
    throw unlike('network', url, 'bytes', `status ${answer.status}`, 'Wait a little, then go on.');
  }
  return answer;
}

export class RemoteFile {
  #url;
  #validator;
  #signal;
  #reader = null;
  // What was sent and not yet read; the byte of the file that comes next.
  #rest = NOTHING;
  #at = NaN;

  // `validator` is what the file had when it was looked at; null where that is not known.
  constructor(url, validator, signal) {
    this.#url = url;
    this.#validator = validator;
    this.#signal = signal;
  }

  // Fills `into` with the bytes from `offset` on; `came` is told how many more there are as they come.
  //
  // Errors: `network` once nothing has come for several tries, `changed` where it is another file by now, `server` where
  // the answer makes no sense.
  async fill(into, offset, came = () => {}) {
    let filled = 0;
    let failed = 0;
    while (filled < into.length) {
      try {
        if (this.#at !== offset + filled) await this.#open(offset + filled, offset + into.length);
        const piece = await this.#next(into.length - filled);
        into.set(piece, filled);
        filled += piece.length;
        failed = 0;
        came(piece.length);
      } catch (why) {
        this.close();
        this.#signal.throwIfAborted();
        failed += 1;
        if (why.code !== 'network' || failed === TRIES) throw why;
        await pause(PAUSE * 2 ** (failed - 1), this.#signal);
      }
    }
  }

  // Ends the stream, if one is open. The next read asks anew.
  close() {
    // Who cancels a stream that broke is told again that it did.
    this.#reader?.cancel().catch(() => {});
    this.#reader = null;
    this.#rest = NOTHING;
    this.#at = NaN;
  }

  async #open(from, to) {
    this.close();
    const answer = await request(this.#url, { range: `${from}-${to - 1}`, signal: this.#signal });
    const { status, headers } = answer;
    const bytes = `bytes ${from} to ${to - 1}`;
    // Beyond the end there is nothing: it has become shorter.
    if (status === 416) throw unlike('changed', this.#url, bytes, 'a shorter file');
    if (status !== 200 && status !== 206) throw unlike('server', this.#url, bytes, `status ${status}`);
    this.#reader = answer.body.getReader();
    this.#at = status === 206 ? from : 0;
    const now = validator(answer);
    if (this.#validator && now && now !== this.#validator) throw unlike('changed', this.#url, this.#validator, now);
    const sent = headers.get('content-range');
    if (status === 206 && sent && !sent.startsWith(`bytes ${from}-`)) throw unlike('server', this.#url, bytes, sent);
    while (this.#at < from) await this.#next(from - this.#at);
  }

  // The next bytes of the stream, at least one and at most `most`.
  async #next(most) {
    while (this.#rest.length === 0) {
      let next;
      try {
        next = await this.#reader.read();
      } catch (why) {
        throw this.#cut(why.message);
      }
      if (next.done) throw this.#cut('the end of the answer');
      this.#rest = next.value;
    }
    const piece = this.#rest.subarray(0, most);
    this.#rest = this.#rest.subarray(piece.length);
    this.#at += piece.length;
    return piece;
  }

  #cut(got) {
    return unlike('network', this.#url, `byte ${this.#at} and on`, got, 'Look at the connection, then go on.');
  }
}

function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener('abort', () => {
      clearTimeout(timer);
      reject(signal.reason);
    }, { once: true });
  });
}
