// What goes wrong on a page.

// A sentence, a code to tell kinds apart by, and, where it is about a value, what was expected and what came.
export class FoveaError extends Error {
  constructor(message, code, { expected, got } = {}) {
    super(message);
    this.name = 'FoveaError';
    this.code = code;
    this.expected = expected;
    this.got = got;
  }
}

// An error about `what`. `todo` is a sentence that says what to do.
export function unlike(code, what, expected, got, todo = '') {
  return new FoveaError(`${what}: expected ${expected}, got ${got}.${todo && ` ${todo}`}`, code, { expected, got });
}
