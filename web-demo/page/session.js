// An engine and the picture that it looks at, kept alive: where the GPU or the worker is lost, both come back once, and
// what was asked is asked again.

import { Fovea } from './fovea.js';

const GONE = ['device-lost', 'worker'];
// Why work ends that something else took the place of.
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

  // `onRestart` is told why the engine is started again.
  constructor(onRestart) {
    this.#onRestart = onRestart;
  }

  // Whether there is a picture to ask about.
  get isOpen() {
    return this.#sight !== null;
  }

  // Starts an engine by these options, which may be promised, instead of any before it: one that is still starting rejects
  // with `REPLACED`, and so does what waited for it. Returns what it is. All else waits for it.
  start(options) {
    this.#leave.abort(REPLACED);
    this.#leave = new AbortController();
    this.#options = options;
    // Whoever waits is told how it ended; there may be nobody yet.
    this.#starting.catch(() => {});
    this.#starting = this.#start(this.#leave.signal);
    this.#begin(this.#starting);
    return this.#starting;
  }

  // Opens a picture. One that is refused leaves the one before it open.
  async open(picture) {
    await this.#steadily(async () => {
      const sight = await this.#engine.lookAt(picture);
      this.#sight?.close();
      this.#sight = sight;
    });
    this.#picture = picture;
  }

  // Computes what no question changes. Where that fails, or the engine is lost meanwhile, the question finds out.
  async prepare(options) {
    await this.#starting;
    await this.#sight?.prepare(options);
  }

  // Answers a question; returns the whole answer.
  ask(question, options, onEvent) {
    return this.#steadily(() => answer(this.#sight, question, options, onEvent));
  }

  look(question, options) {
    return this.#steadily(() => this.#sight.look(question, options));
  }

  keep(gamma) {
    return this.#sight.keep(gamma);
  }

  overlay() {
    return this.#sight.overlay();
  }

  // Answers a question once with each of these options, from the picture on, so that nothing is reused.
  compare(question, options) {
    return this.#steadily(async () => {
      const answers = [];
      for (const each of options) {
        const sight = await this.#engine.lookAt(this.#picture);
        try {
          answers.push(await answer(sight, question, each, () => {}));
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
    const engine = await Fovea.create({ ...await this.#options, signal });
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

async function answer(sight, question, options, onEvent) {
  let done = null;
  for await (const event of sight.ask(question, options)) {
    done = event.done ?? done;
    onEvent(event);
  }
  return done;
}
