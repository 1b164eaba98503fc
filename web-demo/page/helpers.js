// Helpers of the engine: workers that hold rows of weights, each in its own wasm memory, and multiply them at the same time as the
// engine. The engine's worker starts them and blocks while it waits for their replies.

import { FAILED, IDLE, Mail, REPLY, REQUEST, ROOM } from './mail.js';
import { sentence } from './worker-common.js';

// Time limit for the start of a helper, in milliseconds.
const LIMIT = 20_000;
// And for a reply: a browser may end a helper without a word.
const LONGEST = 120_000;

// Starts `count` helpers with the engine's compiled `module`. Null if one of them does not start: the engine can work alone.
export async function helpers(module, count) {
  const workers = [];
  try {
    const mails = [];
    for (let i = 0; i < count; i += 1) {
      workers.push(new Worker(new URL('./helper-worker.js', import.meta.url), { type: 'module' }));
      mails.push(new Mail());
    }
    await Promise.all(workers.map((worker, i) => started(worker, module, mails[i])));
    return new Helpers(workers, mails);
  } catch (why) {
    for (const worker of workers) worker.terminate();
    console.warn(`The engine runs on one thread, because its helpers did not start: ${sentence(why)}`);
    return null;
  }
}

// Ends when the helper is ready.
function started(worker, module, { buffer }) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`expected a helper within ${LIMIT / 1000} s, got none`)), LIMIT);
    const settle = (finish, value) => {
      clearTimeout(timer);
      finish(value);
    };
    worker.addEventListener('message', ({ data: { failed } }) => {
      if (failed) settle(reject, new Error(failed));
      else settle(resolve);
    });
    worker.addEventListener('error', (event) => {
      // Otherwise it is an error of this worker too.
      event.preventDefault();
      settle(reject, new Error(event.message || 'expected the script of a helper, got none'));
    });
    worker.postMessage({ module, buffer });
  });
}

// The engine's module calls these methods; `src/helpers.rs` describes them.
class Helpers {
  #workers;
  #mails;
  // The sentence of the last helper that failed.
  failed = null;

  constructor(workers, mails) {
    // Kept, so that no browser collects them.
    this.#workers = workers;
    this.#mails = mails;
  }

  count() {
    return this.#mails.length;
  }

  room() {
    return ROOM;
  }

  send(helper, head, body) {
    const mail = this.#mails[helper];
    if (mail.state !== IDLE) throw new Error(`helper ${helper + 1}: expected a free helper, got a busy one`);
    mail.put(REQUEST, head, body);
  }

  receive(helper, reply) {
    const mail = this.#mails[helper];
    if (mail.state === IDLE) throw new Error(`helper ${helper + 1}: expected a request before its reply, got none`);
    const state = mail.until([REPLY, FAILED], LONGEST);
    if (state === null) throw new Error(`helper ${helper + 1}: expected a reply within ${LONGEST / 1000} s, got none`);
    const { bytes } = mail;
    try {
      if (state === FAILED) {
        // Text is decoded only from memory that is not shared.
        this.failed = `helper ${helper + 1} failed: ${new TextDecoder().decode(bytes.slice())}`;
        throw new Error(this.failed);
      }
      if (bytes.length !== reply.length) {
        throw new Error(`helper ${helper + 1}: expected a reply of ${reply.length} bytes, got ${bytes.length}`);
      }
      reply.set(bytes);
    } finally {
      mail.clear();
    }
  }

  // Bytes of wasm memory of all helpers.
  memory() {
    return this.#mails.reduce((sum, { memory }) => sum + memory, 0);
  }
}
