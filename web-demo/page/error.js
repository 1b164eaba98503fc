// Errors of the pages and of the API.

// A sentence, a `code` for the kind of error, and, for a wrong value, what was `expected` and what it `got`.
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
