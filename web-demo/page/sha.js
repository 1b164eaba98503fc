// Hashes of whole files, as the Hugging Face hub lists them.

const PRIMES = [];
for (let n = 2; PRIMES.length < 64; n += 1) if (PRIMES.every((prime) => n % prime)) PRIMES.push(n);
// The first 32 bits of the fractions of roots: FIPS 180-4, sections 4.2.2 and 5.3.3.
const fraction = (root) => Math.floor((root % 1) * 2 ** 32) | 0;
const ROUNDS = Int32Array.from(PRIMES, (prime) => fraction(Math.cbrt(prime)));
const START = Int32Array.from(PRIMES.slice(0, 8), (prime) => fraction(Math.sqrt(prime)));

const BLOCK = 64;

export const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');

// SHA-256 piece by piece. The browser's own needs all bytes in one buffer, and a file of weights is too large for that.
export class Sha256 {
  #state = START.slice();
  #words = new Int32Array(64);
  #rest = new Uint8Array();
  #length = 0;

  // Adds a piece. Only the last piece may have a length that is not a multiple of 64.
  add(bytes) {
    const whole = bytes.length - bytes.length % BLOCK;
    this.#blocks(bytes, whole);
    this.#rest = bytes.slice(whole);
    this.#length += bytes.length;
  }

  // The hash as hexadecimal digits. Nothing can be added afterwards.
  end() {
    const rest = this.#rest.length;
    const padded = new Uint8Array(rest + 9 > BLOCK ? 2 * BLOCK : BLOCK);
    padded.set(this.#rest);
    padded[rest] = 0x80;
    new DataView(padded.buffer).setBigUint64(padded.length - 8, BigInt(this.#length) * 8n);
    this.#blocks(padded, padded.length);
    const digest = new DataView(new ArrayBuffer(32));
    this.#state.forEach((word, index) => digest.setInt32(4 * index, word));
    return hex(new Uint8Array(digest.buffer));
  }

  // FIPS 180-4, section 6.2.2.
  #blocks(bytes, length) {
    const w = this.#words;
    const s = this.#state;
    const view = new DataView(bytes.buffer, bytes.byteOffset, length);
    for (let at = 0; at < length; at += BLOCK) {
      for (let t = 0; t < 16; t += 1) w[t] = view.getInt32(at + 4 * t);
      for (let t = 16; t < 64; t += 1) {
        const x = w[t - 15];
        const y = w[t - 2];
        const s0 = (x >>> 7 | x << 25) ^ (x >>> 18 | x << 14) ^ x >>> 3;
        const s1 = (y >>> 17 | y << 15) ^ (y >>> 19 | y << 13) ^ y >>> 10;
        w[t] = w[t - 16] + s0 + w[t - 7] + s1 | 0;
      }
      // Destructuring is three times slower.
      let a = s[0];
      let b = s[1];
      let c = s[2];
      let d = s[3];
      let e = s[4];
      let f = s[5];
      let g = s[6];
      let h = s[7];
      for (let t = 0; t < 64; t += 1) {
        const s1 = (e >>> 6 | e << 26) ^ (e >>> 11 | e << 21) ^ (e >>> 25 | e << 7);
        const t1 = h + s1 + (g ^ e & (f ^ g)) + ROUNDS[t] + w[t] | 0;
        const s0 = (a >>> 2 | a << 30) ^ (a >>> 13 | a << 19) ^ (a >>> 22 | a << 10);
        const t2 = s0 + (a & b | c & (a | b)) | 0;
        h = g;
        g = f;
        f = e;
        e = d + t1 | 0;
        d = c;
        c = b;
        b = a;
        a = t1 + t2 | 0;
      }
      s[0] += a;
      s[1] += b;
      s[2] += c;
      s[3] += d;
      s[4] += e;
      s[5] += f;
      s[6] += g;
      s[7] += h;
    }
  }
}

// The id of a git blob with these bytes.
export async function blobId(bytes) {
  const head = new TextEncoder().encode(`blob ${bytes.length}\0`);
  return hex(new Uint8Array(await crypto.subtle.digest('SHA-1', await new Blob([head, bytes]).arrayBuffer())));
}
