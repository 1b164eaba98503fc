// Promises for calls of a worker: a call is sent, events arrive on the way, then a result or an error.

import { FoveaError } from './error.js';

export class Link {
  #worker;
  #open = new Map();
  #count = 0;
  #ended = null;

  // `onLine` receives the lines of the worker's console.
  constructor(worker, onLine = () => {}) {
    this.#worker = worker;
    worker.addEventListener('message', ({ data }) => {
      if ('line' in data) onLine(data.line);
      else if ('broken' in data) this.#lose(data.broken);
      else this.#receive(data);
    });
    // Failures that the worker cannot report itself.
    worker.addEventListener('error', (event) => {
      if (event.message) this.#lose(`The worker stopped: ${event.message}.`);
      else this.end(new FoveaError('The worker: expected its script, got none. Check the connection, then try again.', 'network'));
    });
    worker.addEventListener('messageerror', () => this.#lose('The worker sent a message that can\'t be read.'));
  }

  get ended() {
    return this.#ended !== null;
  }

  // Ends the worker. All open and later calls are rejected with `why`.
  end(why) {
    if (this.#ended !== null) return;
    this.#ended = why;
    this.#worker.terminate();
    for (const { reject } of this.#open.values()) reject(why);
  }

  // Sends a call. An abort stops it, if it can be stopped, within a layer or a token, and rejects with the signal's reason.
  call(message, { signal, onEvent = () => {}, transfer = [] } = {}) {
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      if (this.#ended !== null) throw this.#ended;
      const id = this.#count++;
      const stop = () => this.#worker.postMessage({ stop: id });
      const settle = (finish) => (value) => {
        signal?.removeEventListener('abort', stop);
        this.#open.delete(id);
        finish(value);
      };
      signal?.addEventListener('abort', stop);
      this.#open.set(id, { resolve: settle(resolve), reject: settle(reject), onEvent, signal });
      this.#worker.postMessage({ id, ...message }, transfer);
    });
  }

  // Sends a call, and yields its events. Leaving the loop stops the call.
  async *events(message, { signal } = {}) {
    const leave = new AbortController();
    const come = [];
    let over = false;
    let wake = () => {};
    const call = this.call(message, {
      signal: AbortSignal.any([leave.signal, ...(signal ? [signal] : [])]),
      onEvent: (event) => {
        come.push(event);
        wake();
      },
    });
    const end = () => {
      over = true;
      wake();
    };
    call.then(end, end);
    try {
      for (;;) {
        while (come.length > 0) yield come.shift();
        if (over) break;
        await new Promise((resolve) => { wake = resolve; });
      }
      await call;
    } finally {
      leave.abort();
    }
  }

  #receive({ id, event, error, ...ended }) {
    const open = this.#open.get(id);
    if (!open) return;
    if (event) open.onEvent(event);
    else if (error) open.reject(open.signal?.aborted ? open.signal.reason : new FoveaError(error.message, error.code, error));
    else open.resolve(ended.result);
  }

  #lose(sentence) {
    this.end(new FoveaError(sentence, 'worker'));
  }
}
