// Finds the files of a checkpoint under the address of a folder: their names, sizes and versions.
//
// The Hugging Face hub lists the files of a repository. Elsewhere a manifest beside the files, `fovea.json`, lists them with the
// hash of every chunk; `fovea-web-bundle --manifest` writes it. Without a manifest, every possible file name of a checkpoint is
// requested; GGUF files can have any name, so they are found only in a list.

import { unlike } from './error.js';
import { isGguf } from './gguf-files.js';
import { HUB, filesOf, folderOf, inUrl, repositoryOf } from './hub.js';
import { INDEX, SETTINGS, SINGLE, belongs, isShard, taken } from './models.js';
import { RemoteFile, request, validator } from './range.js';
import { weightFiles } from './safetensors.js';

const MANIFEST = 'fovea.json';
// Largest manifest in bytes.
const MOST = 32 << 20;

// Bytes per chunk, and the limits for a manifest's own chunk size.
const CHUNK = 16 << 20;
const [FEWEST_BYTES, MOST_BYTES] = [64 << 10, 32 << 20];

const NEEDED = ['config.json', 'tokenizer.json'];
const HINT = 'Give a repository on Hugging Face, such as ORG/NAME, or the address of a folder.';
const HUB_HINT = 'Fovea needs config.json, tokenizer.json and safetensors, or two GGUF files. Look for a conversion with these files, such as one by llava-hf.';
const CHOOSE = 'Choose one with ORG/NAME:FILE, where FILE is the name of a file or its quantisation, such as Q4_K_M.';
const ALONE = 'List only one text model and its mmproj file.';

// The normal form of an address: from a folder's address, a repository's page on the hub, or its id.
//
// Errors: `address` if a page can't fetch from it.
export function address(text) {
  const repository = folderOf(text.trim());
  if (repository) return repository;
  let url;
  try {
    url = new URL(text);
  } catch {
    throw unlike('address', 'the address', 'ORG/NAME, or an address such as https://example.org/model/', `\`${text}\``);
  }
  if (url.protocol !== 'https:' && ![self.location.origin, HUB].includes(url.origin)) {
    throw unlike('address', 'the address', 'https', url.protocol, 'A page can fetch only from https addresses and its own server.');
  }
  return `${url.origin}${url.pathname.replace(/\/*$/, '/')}`;
}

// The files of a checkpoint, small ones first: { name, url, size, chunk, hashes, oid, validator }. One of the last three
// identifies a version; the others are null. `hashes` are the SHA-256 of the chunks from the manifest, `oid` is the hub's hash of
// the file, and a `validator`, if the server sends one, detects a changed file.
//
// Errors: `missing` if a required file is missing, `manifest` or `checkpoint` if a list of files is broken, `server` if a size
// is unknown, and those of `filesOf` and `RemoteFile`.
export async function plan(url, signal) {
  const files = await filesUnder(url, signal);
  return files.sort((a, b) => a.size - b.size);
}

async function filesUnder(url, signal) {
  const repository = repositoryOf(url);
  if (repository) return published(repository, signal);
  const [manifest] = await look(url, [MANIFEST], signal);
  return manifest.size ? listed(url, manifest, signal) : found(url, signal);
}

// Files on a server as a source for the engine, like `source` in models.js.
export const remote = (files, signal) => ({
  sizes: new Map(files.map(({ name, size }) => [name, size])),
  async read(name, offset, length) {
    const bytes = new Uint8Array(length);
    const file = new RemoteFile(files.find((one) => one.name === name).url, null, signal);
    await file.fill(bytes, offset);
    file.close();
    return bytes;
  },
});

// Sizes and validators of files; for a missing file only its `status`.
function look(folder, names, signal) {
  return Promise.all(names.map(async (name) => {
    const url = `${folder}${name}`;
    // With a range, the server reports the size of the file, not of a compressed response.
    const answer = await request(url, { method: 'HEAD', range: '0-', signal });
    const { ok, status, headers } = answer;
    if (!ok) return { name, status };
    const length = headers.get('content-length');
    const size = Number(length);
    if (!Number.isSafeInteger(size) || size < 1) throw unlike('server', url, 'a size as Content-Length', length ?? 'none');
    return { name, url, size, chunk: CHUNK, hashes: null, oid: null, validator: validator(answer) };
  }));
}

async function found(url, signal) {
  const looked = await look(url, [...SETTINGS, SINGLE, INDEX], signal);
  const weights = await weightFiles(remote(looked.filter(({ size }) => size), signal));
  const shards = weights.filter((name) => name !== SINGLE);
  return needed([...looked, ...await look(url, shards, signal)], weights, url, HINT);
}

async function published(repository, signal) {
  const all = (await filesOf(repository, signal)).filter(({ size }) => size > 0);
  const names = taken(all.map(({ name }) => name), repository.wanted, repository.name, CHOOSE);
  const files = all.filter(({ name }) => names.includes(name)).map((file) => ({ ...file, chunk: CHUNK, hashes: null, validator: null }));
  return needed(files, await weightFiles(remote(files, signal)), `${repository.name}: `, HUB_HINT);
}

// The files that the engine reads, of those that were looked for.
function needed(looked, weights, where, hint) {
  for (const name of weights.some(isGguf) ? weights : [...NEEDED, ...weights]) {
    const { size, status } = looked.find((file) => file.name === name) ?? {};
    if (!size) throw unlike('missing', `${where}${name}`, 'a file', status ? `status ${status}` : 'none', hint);
  }
  // Other weights, and an index beside a single file, belong to another copy.
  const single = weights.includes(SINGLE);
  return looked.filter(({ name, size }) => size && (isShard(name) ? weights.includes(name) : !(single && name === INDEX)));
}

async function listed(url, file, signal) {
  const broken = (expected, got) => unlike('manifest', file.url, expected, got);
  if (file.size > MOST) throw broken(`at most ${MOST} bytes`, file.size);
  const text = new TextDecoder().decode(await remote([file], signal).read(MANIFEST, 0, file.size));
  let manifest;
  try {
    manifest = JSON.parse(text);
  } catch (why) {
    throw broken('JSON', why.message);
  }
  const { chunk = CHUNK, files } = manifest ?? {};
  if (!Number.isInteger(chunk) || chunk < FEWEST_BYTES || chunk > MOST_BYTES) {
    throw broken(`a \`chunk\` of ${FEWEST_BYTES} to ${MOST_BYTES} bytes`, chunk);
  }
  if (!Array.isArray(files)) throw broken('a list `files`', typeof files);
  const wanted = new Map();
  for (const { name, size, chunks } of files.filter((file) => belongs(file?.name))) {
    const hashed = Array.isArray(chunks) && chunks.length === Math.ceil(size / chunk) && chunks.every(isHash);
    if (!Number.isSafeInteger(size) || size < 1 || !hashed) {
      throw broken(`for ${name} a \`size\`, and in \`chunks\` the SHA-256 of every ${chunk} bytes`, 'something else');
    }
    wanted.set(name, { name, url: `${url}${inUrl(name)}`, size, chunk, hashes: chunks, oid: null, validator: null });
  }
  const names = taken([...wanted.keys()], [], file.url, ALONE);
  const missing = names.some(isGguf) ? undefined : NEEDED.find((name) => !wanted.has(name));
  if (missing) throw broken(missing, 'a list without it');
  return names.map((name) => wanted.get(name));
}

const isHash = (text) => typeof text === 'string' && /^[0-9a-f]{64}$/.test(text);
