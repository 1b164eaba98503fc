// The tensors of GGUF files, from their headers, with the limits of the engine (`runtime/src/gguf.rs`). A `source` has `sizes` by
// name and `read(name, offset, length)`.
//
// A tensor of another type than those below is refused if its name is one that the engine reads, and left out if not.
//
// The length of a header is not in the file, so it is read in growing pieces. All counts and lengths are checked before use.

import { unlike } from './error.js';

// Longest header in bytes. Vocabularies of published files need up to 20 MiB.
const MAX_HEADER = 256 << 20;
// The first piece in bytes; each further read makes the piece four times as long.
const FIRST_PIECE = 1 << 20;
// Most values in the metadata, elements of lists included, most tensors, most lists in lists, and most dimensions.
const [MAX_VALUES, MAX_TENSORS, MAX_DEPTH, MAX_DIMS] = [1 << 22, 1 << 17, 4, 4];
// Bytes of a value of the metadata, by its type; texts and lists have their own length.
const BYTES = { 0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8 };
const [TEXT, LIST] = [8, 9];
// Types of tensors by ggml's number: name, values and bytes of a block, and how the engine stores it.
const TYPES = {
  0: ['F32', 1, 4, 'f32'], 1: ['F16', 1, 2, 'f16'], 30: ['BF16', 1, 2, 'f16'],
  2: ['Q4_0', 32, 18, 'q4'], 3: ['Q4_1', 32, 20, 'q4'],
  6: ['Q5_0', 32, 22, 'q8'], 7: ['Q5_1', 32, 24, 'q8'], 8: ['Q8_0', 32, 34, 'q8'],
  12: ['Q4_K', 256, 144, 'q4'], 13: ['Q5_K', 256, 176, 'q8'], 14: ['Q6_K', 256, 210, 'q8'],
};
// Names of types that can't be read, for messages.
const OTHERS = {
  10: 'Q2_K', 11: 'Q3_K', 16: 'IQ2_XXS', 17: 'IQ2_XS', 18: 'IQ3_XXS', 19: 'IQ1_S', 20: 'IQ4_NL', 21: 'IQ3_S', 22: 'IQ2_S',
  23: 'IQ4_XS', 29: 'IQ1_M', 34: 'TQ1_0', 35: 'TQ2_0', 39: 'MXFP4', 40: 'NVFP4',
};
// The names of the tensors that the engine reads (`model/src/gguf/names.rs`).
const TEXT_MODEL = /^(?:token_embd|output_norm|output|blk\.\d+\.(?:attn_(?:norm|q|k|v|output)|ffn_(?:norm|gate|up|down)))\.(?:weight|bias)$/;
const VISION = /^(?:v|mm)\.|^model\.image_newline$/;
const decoder = new TextDecoder();
// Thrown if there are too few bytes: more must be read.
const SHORT = Symbol('short');

// The tensors of a text model and its mmproj file: { name, shape, stored, bytes }, where `stored` is a name in `DTYPES` and `bytes`
// is the size in the file.
//
// Errors: `checkpoint` if a header is broken, or if the files are not such a pair; those of `source.read`.
export async function inGguf(source, files) {
  const headers = [];
  for (const file of files) headers.push(await header(source, file));
  // Only an mmproj file has the architecture `clip`.
  const clips = headers.filter(({ architecture }) => architecture === 'clip').length;
  if (headers.length !== 2 || clips !== 1) {
    const got = `${headers.length - clips} and ${clips}`;
    throw unlike('checkpoint', files.join(', '), 'one text model and one mmproj file', got, 'A model is a text model and its mmproj file.');
  }
  return headers.flatMap(({ tensors }) => tensors);
}

async function header(source, file) {
  const size = source.sizes.get(file);
  let bytes = new Uint8Array();
  for (let piece = FIRST_PIECE; ; piece *= 4) {
    const longer = new Uint8Array(Math.min(size, piece));
    longer.set(bytes);
    longer.set(await source.read(file, bytes.length, longer.length - bytes.length), bytes.length);
    bytes = longer;
    try {
      return parse(file, bytes, size);
    } catch (why) {
      if (why !== SHORT) throw why;
    }
    if (bytes.length === size) throw truncated(file, `more than ${size} bytes`, size);
    if (piece >= MAX_HEADER) throw unlike('checkpoint', file, `a header of at most ${MAX_HEADER} bytes`, 'a longer one');
  }
}

const truncated = (file, expected, got) => unlike('checkpoint', file, expected, got, 'The file is truncated: download it again.');

// Reads a header from the first bytes of a file of `size` bytes: its architecture and its tensors.
function parse(file, bytes, size) {
  const view = new DataView(bytes.buffer);
  const wrong = (expected, got, todo) => unlike('checkpoint', file, expected, got, todo);
  let at = 0;
  let left = MAX_VALUES;
  // Skips `count` bytes, and returns their position.
  const take = (count) => {
    if (count > MAX_HEADER) throw wrong(`texts and lists of at most ${MAX_HEADER} bytes`, count);
    if (at + count > bytes.length) throw SHORT;
    at += count;
    return at - count;
  };
  const u32 = () => view.getUint32(take(4), true);
  // Inexact above 2^53, which is above every limit.
  const u64 = () => u32() + u32() * 2 ** 32;
  const text = () => {
    const length = u64();
    const from = take(length);
    return decoder.decode(bytes.subarray(from, from + length));
  };
  // Skips `count` values of a type of metadata.
  const skip = (type, count, depth) => {
    if (count > left) throw wrong(`metadata of at most ${MAX_VALUES} values`, 'more');
    left -= count;
    if (type in BYTES) take(count * BYTES[type]);
    else if (type === TEXT) for (let i = 0; i < count; i += 1) take(u64());
    else if (type === LIST && depth < MAX_DEPTH) for (let i = 0; i < count; i += 1) skip(u32(), u64(), depth + 1);
    else throw wrong('types of metadata from 0 to 12', type);
  };

  if (view.byteLength >= 4 && view.getUint32(0) !== 0x47475546) throw wrong('a GGUF file', 'one that does not start with GGUF');
  take(4);
  const version = u32();
  if (version !== 2 && version !== 3) {
    throw wrong('GGUF version 2 or 3 in little endian', version >> 16 ? 'big endian' : version, 'Convert the model again.');
  }
  const [count, keys] = [u64(), u64()];
  if (count > MAX_TENSORS || keys > MAX_VALUES) {
    throw wrong(`at most ${MAX_TENSORS} tensors and ${MAX_VALUES} keys`, `${count} and ${keys}`);
  }
  let architecture = null;
  for (let i = 0; i < keys; i += 1) {
    const key = text();
    const type = u32();
    if (key === 'general.architecture' && type === TEXT) architecture = text();
    else skip(type, 1, 0);
  }
  const tensors = [];
  let end = 0;
  for (let i = 0; i < count; i += 1) {
    const name = text();
    const what = `tensor \`${name.slice(0, 80)}\` in ${file}`;
    const dims = u32();
    if (dims < 1 || dims > MAX_DIMS) throw unlike('checkpoint', what, `1 to ${MAX_DIMS} dimensions`, dims);
    // In the file the shortest stride is first.
    const shape = Array.from({ length: dims }, u64).reverse();
    const [type, offset] = [u32(), u64()];
    const values = shape.reduce((product, side) => product * side, 1);
    if (!Number.isSafeInteger(values) || values < 1) {
      throw unlike('checkpoint', what, 'dimensions from 1, with a product below 2^53', shape.join(' x '));
    }
    if (!(type in TYPES) && !(architecture === 'clip' ? VISION : TEXT_MODEL).test(name)) continue;
    if (!(type in TYPES)) {
      const names = Object.values(TYPES).map(([known]) => known).join(', ');
      const todo = 'Use a file of another quantisation, such as Q4_K_M or Q8_0.';
      throw unlike('checkpoint', what, `a type of ${names}`, OTHERS[type] ?? `type ${type}`, todo);
    }
    const [kind, block, size, stored] = TYPES[type];
    if (shape.at(-1) % block !== 0) {
      throw unlike('checkpoint', what, `rows of whole blocks of ${block} values (${kind})`, shape.join(' x '));
    }
    tensors.push({ name, shape, stored, bytes: values / block * size });
    end = Math.max(end, offset + tensors.at(-1).bytes);
  }
  if (at + end > size) throw truncated(file, `at least ${at + end} bytes`, size);
  return { architecture, tensors };
}
