// The memory that the weights of a checkpoint need, from the headers of their files. A `source` has `sizes` by name and
// `read(name, offset, length)`.

import { unlike } from './error.js';
import { INDEX, SINGLE, isShard } from './models.js';

// The format's own limit.
const MAX_HEADER = 100_000_000;
// Strings, and Python's words for non-finite numbers, which are not JSON.
const NOT_FINITE = /"(?:[^"\\]|\\.)*"|-?Infinity|NaN/g;

// The names of the weights files: the single file, or else those that the index names. The engine has the same rule.
//
// Errors: `checkpoint` if the index is broken.
export async function weightFiles(source) {
  if (source.sizes.has(SINGLE) || !source.sizes.has(INDEX)) return [SINGLE];
  const { weight_map: map } = await json(source, INDEX, 0, source.sizes.get(INDEX));
  if (typeof map !== 'object' || map === null) throw unlike('checkpoint', INDEX, 'an object `weight_map`', typeof map);
  const files = [...new Set(Object.values(map))];
  const odd = files.find((name) => !isShard(name));
  if (odd !== undefined) throw unlike('checkpoint', INDEX, 'shards named [A-Za-z0-9._-]+.safetensors', `\`${odd}\``);
  return files;
}

// The `largest` tensor and its number of `values`, the number of values in `all` tensors, and whether most bytes are 16-bit
// values (`half`).
//
// Errors: `missing` if a file is missing, `checkpoint` if a header is broken; those of `source.read`.
export async function weigh(source) {
  const weights = { largest: '', values: 0, all: 0 };
  let [bytes, short] = [0, 0];
  for (const file of await weightFiles(source)) {
    const { __metadata__: _, ...tensors } = await header(source, file);
    for (const [tensor, entry] of Object.entries(tensors)) {
      const { dtype, shape, data_offsets: span } = entry ?? {};
      if (!lengths(shape) || !lengths(span) || span.length !== 2) {
        throw unlike('checkpoint', `tensor \`${tensor}\` in ${file}`, 'a shape and data_offsets', 'something else');
      }
      const values = shape.reduce((product, side) => product * side, 1);
      if (values > weights.values) Object.assign(weights, { largest: tensor, values });
      weights.all += values;
      bytes += span[1] - span[0];
      if (dtype === 'F16' || dtype === 'BF16') short += span[1] - span[0];
    }
  }
  return { ...weights, half: 2 * short > bytes };
}

const lengths = (list) => Array.isArray(list) && list.every((n) => Number.isSafeInteger(n) && n >= 0);

async function header(source, file) {
  const size = source.sizes.get(file);
  if (size === undefined) throw unlike('missing', file, 'a file', 'none of this name');
  if (size < 8) throw unlike('checkpoint', file, 'at least 8 bytes', size);
  const start = await source.read(file, 0, 8);
  const length = Number(new DataView(start.buffer, start.byteOffset).getBigUint64(0, true));
  const most = Math.min(MAX_HEADER, size - 8);
  if (length > most) throw unlike('checkpoint', file, `a header of at most ${most} bytes`, length);
  return json(source, file, 8, length);
}

async function json(source, file, offset, length) {
  if (length > MAX_HEADER) throw unlike('checkpoint', file, `at most ${MAX_HEADER} bytes`, length);
  const text = new TextDecoder().decode(await source.read(file, offset, length));
  let value;
  try {
    value = JSON.parse(text.replace(NOT_FINITE, (word) => (word.startsWith('"') ? word : `"${word}"`)));
  } catch (why) {
    throw unlike('checkpoint', file, 'JSON', why.message);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw unlike('checkpoint', file, 'an object', text.slice(0, 40));
  return value;
}
