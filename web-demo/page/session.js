// An engine and its open picture. If the GPU or the worker is lost, the engine is restarted once, the picture is opened again,
// and the question is repeated.

import { Fovea } from './fovea.js';

const GONE = ['device-lost', 'worker'];
// The reason with which replaced work ends.
export const REPLACED = new DOMException('Something else was begun.', 'AbortError');

export class Session {
  #options;
  #onRestart;
  #begin;
  #leave = new AbortController();
  #starting = new Promise((resolve) => { this.#begin = resolve; });
  #engine = null;
  #picture = null;
  #sight = null;

  // `onRestart` receives the reason for a restart.
  constructor(onRestart) {
    this.#onRestart = onRestart;
  }

  // Whether a picture is open.
  get isOpen() {
    return this.#sight !== null;
  }

  // Starts an engine with these options (or a promise of them), in place of the engine before. If that one is still starting, it
  // and all work that waits for it reject with `REPLACED`. Returns the engine's description. All other work waits for it.
  start(options) {
    this.#leave.abort(REPLACED);
    this.#leave = new AbortController();
    this.#options = options;
    // Avoids an unhandled rejection if nothing waits yet.
    this.#starting.catch(() => {});
    this.#starting = this.#start(this.#leave.signal);
    this.#begin(this.#starting);
    return this.#starting;
  }

  // Checks whether a compression fits the model; returns its shortest spelling.
  async check(compression) {
    await this.#starting;
    return this.#engine.check(compression);
  }

  // Opens a picture. If it is refused, the picture before stays open.
  async open(picture) {
    await this.#steadily(async () => {
      const sight = await this.#engine.lookAt(picture);
      this.#sight?.close();
      this.#sight = sight;
    });
    this.#picture = picture;
  }

  // Does the work that does not depend on the question. Does not restart a lost engine: the question will.
  async prepare(options) {
    await this.#starting;
    await this.#sight?.prepare(options);
  }

  // Answers the last of these messages; returns the whole answer.
  ask(messages, options, onEvent) {
    return this.#steadily(() => answer(this.#sight, messages, options, onEvent));
  }

  look(messages, options) {
    return this.#steadily(() => this.#sight.look(messages, options));
  }

  keep(gamma) {
    return this.#sight.keep(gamma);
  }

  overlay() {
    return this.#sight.overlay();
  }

  // Answers a question once with each of these options, each time from scratch. Returns { done, overlay } for each; `overlay` is
  // null if there is none.
  compare(messages, options) {
    return this.#steadily(async () => {
      const answers = [];
      // A compression that does not fit is refused before the first answer.
      for (const { compression } of options) if (compression) await this.#engine.check(compression);
      for (const each of options) {
        const sight = await this.#engine.lookAt(this.#picture);
        try {
          const done = await answer(sight, messages, each, () => {});
          // A server may have no overlay, or not keep it; the answer is shown without it.
          answers.push({ done, overlay: await sight.overlay().catch(() => null) });
        } finally {
          sight.close();
        }
      }
      return answers;
    });
  }

  async #start(signal) {
    this.#engine?.dispose();
    this.#sight = null;
    // Another engine has the same methods.
    const { create = Fovea.create, ...options } = await this.#options;
    const engine = await create({ ...options, signal });
    if (signal.aborted) {
      engine.dispose();
      throw signal.reason;
    }
    this.#engine = engine;
    return this.#engine.about;
  }

  async #steadily(work) {
    await this.#starting;
    try {
      return await work();
    } catch (why) {
      if (!GONE.includes(why?.code)) throw why;
      this.#onRestart(why.message);
      await this.start(this.#options);
      if (this.#picture) this.#sight = await this.#engine.lookAt(this.#picture);
      return work();
    }
  }
}

async function answer(sight, messages, options, onEvent) {
  let done = null;
  for await (const event of sight.ask(messages, options)) {
    done = event.done ?? done;
    onEvent(event);
  }
  return done;
}
