// A worker as promises: a call goes in, events come on the way, a result or an error at the end.

import { FoveaError } from './error.js';

export class Link {
  #worker;
  #open = new Map();
  #count = 0;
  #ended = null;

  // `onLine` is told what the worker's console says.
  constructor(worker, onLine = () => {}) {
    this.#worker = worker;
    worker.addEventListener('message', ({ data }) => {
      if ('line' in data) onLine(data.line);
      else if ('broken' in data) this.#lose(data.broken);
      else this.#hear(data);
    });
    // What the worker could not tell itself: it did not load, or it could not be understood.
    worker.addEventListener('error', (event) => this.#lose(`The worker stopped: ${event.message || 'it did not load'}.`));
    worker.addEventListener('messageerror', () => this.#lose('The worker told something that can\'t be read.'));
  }

  // Ends the worker. Every call that is open is rejected with `why`, and so is every later one.
  end(why) {
    if (this.#ended !== null) return;
    this.#ended = why;
    this.#worker.terminate();
    for (const { reject } of this.#open.values()) reject(why);
  }

  // One call. An abort stops it within a layer or a token where it can be stopped, and rejects with the signal's reason.
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

  // One call, as the events that come on its way. Who leaves early stops it.
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

  #hear({ id, event, error, ...ended }) {
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
