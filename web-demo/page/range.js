// A file on a server, read from any byte.
//
// Each read is a plain `Range` request. If the connection breaks, the next request begins at the first missing byte. If a server
// ignores ranges and sends the whole file, the bytes before are skipped, and later reads use the same stream.

import { unlike } from './error.js';

// Attempts without a byte until a read fails, and the first pause between them in milliseconds; each pause doubles.
const TRIES = 5;
const PAUSE = 500;

const NOTHING = new Uint8Array();

// Identifies a version of the file, if the server sends one of these headers.
export const validator = ({ headers }) => headers.get('etag') ?? headers.get('last-modified');

// Requests a file, or a `range` of it, such as `0-7` or `0-`. The caller checks the status.
//
// Errors: `network` if there is no answer, or the server is busy.
export async function request(url, { method = 'GET', range, signal }) {
  let answer;
  try {
    // The page keeps the file itself, so the browser's cache must not.
    answer = await fetch(url, { method, headers: range ? { range: `bytes=${range}` } : {}, cache: 'no-store', signal });
  } catch (why) {
    signal.throwIfAborted();
    const todo = navigator.onLine === false ? 'This device is offline: connect it, then try again.'
      : 'Check the connection. If it works, the server does not allow other sites to read its files (CORS).';
    throw unlike('network', url, 'an answer', why.message, todo);
  }
  if (answer.status === 408 || answer.status === 429 || answer.status >= 500) {
    const todo = answer.status === 429 ? 'The server limits the number of requests: wait some minutes, then try again.'
      : 'Wait a little, then try again.';
    throw unlike('network', url, 'bytes', `status ${answer.status}`, todo);
  }
  return answer;
}

export class RemoteFile {
  #url;
  #validator;
  #signal;
  #reader = null;
  // Received but unread bytes, and the position of the next byte in the file.
  #rest = NOTHING;
  #at = NaN;

  // `validator` identifies the expected version of the file; null if unknown.
  constructor(url, validator, signal) {
    this.#url = url;
    this.#validator = validator;
    this.#signal = signal;
  }

  // Fills `into` with the bytes from `offset`; `came` receives the number of bytes of each piece.
  //
  // Errors: `network` after several attempts without a byte, `changed` if the file is another version, `server` if the answer
  // is invalid.
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

  // Ends the stream, if one is open. The next read sends a new request.
  close() {
    // Cancelling a broken stream rejects again.
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
    // The range is beyond the end: the file is shorter than before.
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
    return unlike('network', this.#url, `bytes from ${this.#at}`, got, 'Check the connection, then resume.');
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
