// Mail between the engine's worker and one of its helpers, in memory that both can reach: a header of whole numbers, then the bytes
// of a request, or of its reply in the same place.

// Most bytes of a request, and of a reply.
export const ROOM = 16 << 20;
// The states. The engine turns IDLE into REQUEST; the helper turns that into REPLY or FAILED, with a sentence as its bytes.
export const [IDLE, REQUEST, REPLY, FAILED] = [0, 1, 2, 3];

const HEADER = 64;
// What the header has: the state, the bytes in use, and the pages of the helper's wasm memory.
const [STATE, LENGTH, PAGES] = [0, 1, 2];
const PAGE = 64 << 10;
// Products follow each other quickly, and a sleeping thread needs long to wake up: so many milliseconds it looks instead.
const SPIN = 0.03;

export class Mail {
  #header;
  #bytes;

  // `buffer` is that of the other side.
  constructor(buffer = new SharedArrayBuffer(HEADER + ROOM)) {
    this.buffer = buffer;
    this.#header = new Int32Array(buffer, 0, HEADER / 4);
    this.#bytes = new Uint8Array(buffer, HEADER);
  }

  get state() {
    return Atomics.load(this.#header, STATE);
  }

  // The bytes of the request or the reply, where they are.
  get bytes() {
    return this.#bytes.subarray(0, Atomics.load(this.#header, LENGTH));
  }

  // Bytes of the helper's wasm memory.
  get memory() {
    return Atomics.load(this.#header, PAGES) * PAGE;
  }

  set memory(bytes) {
    Atomics.store(this.#header, PAGES, bytes / PAGE);
  }

  // Writes the pieces one after another, and wakes the other side with the new state.
  put(state, ...pieces) {
    const length = pieces.reduce((sum, piece) => sum + piece.length, 0);
    if (length > ROOM) throw new Error(`expected at most ${ROOM} bytes of mail, got ${length}`);
    let at = 0;
    for (const piece of pieces) {
      this.#bytes.set(piece, at);
      at += piece.length;
    }
    Atomics.store(this.#header, LENGTH, length);
    Atomics.store(this.#header, STATE, state);
    Atomics.notify(this.#header, STATE);
  }

  // The engine has read the reply.
  clear() {
    Atomics.store(this.#header, STATE, IDLE);
  }

  // Blocks this thread until the state is one of these, and returns it; null after `limit` milliseconds without a change.
  until(states, limit = Infinity) {
    const end = performance.now() + SPIN;
    // Some browsers have a clock with coarse steps, so the number of rounds is limited too.
    for (let round = 0; round < 100 && performance.now() < end; round += 1) {
      for (let looks = 0; looks < 100; looks += 1) if (states.includes(this.state)) return this.state;
    }
    for (;;) {
      const { state } = this;
      if (states.includes(state)) return state;
      // Returns at once if the state has changed meanwhile.
      if (Atomics.wait(this.#header, STATE, state, limit) === 'timed-out') return null;
    }
  }
}
