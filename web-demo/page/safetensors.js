// The memory that the weights of a checkpoint need, from the headers of their files. A `source` has `sizes` by name and
// `read(name, offset, length)`.

import { unlike } from './error.js';
import { isGguf } from './gguf-files.js';
import { inGguf } from './gguf.js';
import { INDEX, SINGLE, isShard } from './models.js';

// The format's own limit.
const MAX_HEADER = 100_000_000;
// The ways to store matrices on a device, the most exact first.
export const DTYPES = ['f32', 'f16', 'q8', 'q4'];
// Matrices that can be quantised, by their names in every layout: the decoder's, and the tables, which have 8 bits also in q4.
const LAYER = /(?:(?<!encoder)\.layers\.\d+\.(?:self_attn|mlp)\.\w+_proj|^blk\.\d+\.(?:attn|ffn)_(?:q|k|v|output|gate|up|down))\.weight$/;
const TABLE = /(?:embed_tokens|lm_head|^token_embd|^output)\.weight$/;
// Bytes per value: 8 or 4 bits, and a scale of 16 bits for each group of values.
const GROUP = 32;
const [Q8, Q4] = [8, 4].map((bits) => bits / 8 + 2 / GROUP);
// Scales and minimums in the file of a quantised tensor.
const SCALES = /\.(?:scales|biases|weight_scale|weight_zero_point|weight_shape)$/;
// Strings, and Python's words for non-finite numbers, which are not JSON.
const NOT_FINITE = /"(?:[^"\\]|\\.)*"|-?Infinity|NaN/g;

// The names of the weights files: the single file, or else those that the index names, or else the GGUF files. The engine has the
// same rule.
//
// Errors: `checkpoint` if the index is broken.
export async function weightFiles(source) {
  if (source.sizes.has(SINGLE)) return [SINGLE];
  if (!source.sizes.has(INDEX)) {
    const gguf = [...source.sizes.keys()].filter(isGguf);
    return gguf.length > 0 ? gguf : [SINGLE];
  }
  const { weight_map: map } = await json(source, INDEX, 0, source.sizes.get(INDEX));
  if (typeof map !== 'object' || map === null) throw unlike('checkpoint', INDEX, 'an object `weight_map`', typeof map);
  const files = [...new Set(Object.values(map))];
  const odd = files.find((name) => !isShard(name));
  if (odd !== undefined) throw unlike('checkpoint', INDEX, 'shards named [A-Za-z0-9._-]+.safetensors', `\`${odd}\``);
  return files;
}

// The bytes that all tensors need on a device, as `bytes` by the names in `DTYPES`, the same of the `largest` tensor and its
// `name`, and how most bytes are `stored` in the files.
//
// Errors: `missing` if a file is missing, `checkpoint` if a header is broken; those of `source.read`.
export async function weigh(source) {
  const bytes = { f32: 0, f16: 0, q8: 0, q4: 0 };
  const files = { ...bytes };
  let largest = { name: '', bytes: { ...bytes } };
  const names = await weightFiles(source);
  for (const tensor of await (names.some(isGguf) ? inGguf : inSafetensors)(source, names)) {
    const needed = onDevice(tensor);
    for (const way of DTYPES) bytes[way] += needed[way];
    if (needed.f32 > largest.bytes.f32) largest = { name: tensor.name, bytes: needed };
    files[tensor.stored] += tensor.bytes;
  }
  const floats = files.f16 > files.f32 ? 'f16' : 'f32';
  const codes = files.q4 > files.q8 ? 'q4' : 'q8';
  return { bytes, largest, stored: files[codes] > 0 ? codes : floats };
}

// The tensors of safetensors files: { name, shape, stored, bytes }, as of `inGguf`.
async function inSafetensors(source, files) {
  const found = [];
  let bitsOf = null;
  for (const file of files) {
    const { __metadata__: _, ...tensors } = await header(source, file);
    for (const [tensor, entry] of Object.entries(tensors)) {
      const { dtype, shape, data_offsets: span } = entry ?? {};
      if (!lengths(shape) || !lengths(span) || span.length !== 2) {
        throw unlike('checkpoint', `tensor \`${tensor}\` in ${file}`, 'a shape and data_offsets', 'something else');
      }
      if (SCALES.test(tensor)) continue;
      const name = tensor.replace(/\.weight_packed$/, '.weight');
      const bytes = span[1] - span[0];
      // Codes of MLX and of compressed-tensors, several in a word.
      if (dtype === 'U32' || dtype === 'I32') {
        bitsOf ??= await quantisation(source);
        const bits = bitsOf(name.replace(/\.weight$/, ''));
        found.push({ name, shape: [...shape.slice(0, -1), shape.at(-1) * 32 / bits], stored: bits === 4 ? 'q4' : 'q8', bytes });
      } else {
        found.push({ name, shape, stored: dtype === 'F16' || dtype === 'BF16' ? 'f16' : 'f32', bytes });
      }
    }
  }
  return found;
}

// Bytes of a tensor on a device.
function onDevice({ name, shape }) {
  const values = shape.reduce((product, side) => product * side, 1);
  const fits = shape.length === 2 && shape[1] % GROUP === 0;
  const q8 = fits && (LAYER.test(name) || TABLE.test(name)) ? Q8 : 2;
  const q4 = fits && LAYER.test(name) ? Q4 : q8;
  return { f32: 4 * values, f16: 2 * values, q8: q8 * values, q4: q4 * values };
}

// A function that gives the bits per value of a quantised module, from the config.json of MLX or of compressed-tensors.
async function quantisation(source) {
  const config = source.sizes.has('config.json') ? await json(source, 'config.json', 0, source.sizes.get('config.json')) : {};
  const found = config.quantization ?? config.quantization_config ?? config.text_config?.quantization_config ?? {};
  const [group] = Object.values(found.config_groups ?? {});
  const own = (module) => found[module] ?? found[module.replace(/^language_model\./, '')];
  return (module) => own(module)?.bits ?? found.bits ?? group?.weights?.num_bits ?? 4;
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
