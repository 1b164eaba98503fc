// Finds the files of a checkpoint under the address of a folder: their names, sizes and versions.
//
// A manifest beside the files, `fovea.json`, lists them with the hash of every chunk; `fovea-web-bundle --manifest` writes it.
// Without a manifest, every possible file name of a checkpoint is requested.

import { unlike } from './error.js';
import { INDEX, SETTINGS, SINGLE, belongs } from './models.js';
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
const HUB = 'https://huggingface.co';
// A repository's id, optionally with a revision: ORG/NAME@REVISION.
const REPOSITORY = /^([A-Za-z0-9_][\w.-]*\/[A-Za-z0-9_][\w.-]*)(?:@([\w.-]+))?$/;
// The path of a repository's page on the hub.
const PAGE = /^\/([^/]+\/[^/]+)(?:\/(?:tree|blob|resolve)\/([^/]+).*)?\/?$/;

// The normal form of an address: from a folder's address, a repository's page on the hub, or its id.
//
// Errors: `address` if a page can't fetch from it.
export function address(text) {
  const [, id, revision = 'main'] = REPOSITORY.exec(text.trim()) ?? [];
  if (id) return `${HUB}/${id}/resolve/${revision}/`;
  let url;
  try {
    url = new URL(text);
  } catch {
    throw unlike('address', 'the address', 'ORG/NAME, or an address such as https://example.org/model/', `\`${text}\``);
  }
  if (url.protocol !== 'https:' && url.origin !== self.location.origin) {
    throw unlike('address', 'the address', 'https', url.protocol, 'A page can fetch only from https addresses and its own server.');
  }
  const [, page, at = 'main'] = (url.origin === HUB && PAGE.exec(url.pathname)) || [];
  if (page) return `${HUB}/${page}/resolve/${at}/`;
  return `${url.origin}${url.pathname.replace(/\/*$/, '/')}`;
}

// The files of a checkpoint, small ones first: { name, size, chunk, validator, hashes }. `hashes` are the SHA-256 of the chunks
// from the manifest. Without a manifest they are null, and the `validator`, if the server sends one, detects a changed file.
//
// Errors: `missing` if a required file is missing, `manifest` or `checkpoint` if a list of files is broken, `server` if a size
// is unknown, and those of `RemoteFile`.
export async function plan(url, signal) {
  const [manifest] = await look(url, [MANIFEST], signal);
  const files = manifest.size ? await listed(url, manifest, signal) : await found(url, signal);
  return files.sort((a, b) => a.size - b.size);
}

// Files on a server as a source for the engine, like `source` in models.js.
export const remote = (url, files, signal) => ({
  sizes: new Map(files.map(({ name, size }) => [name, size])),
  async read(name, offset, length) {
    const bytes = new Uint8Array(length);
    const file = new RemoteFile(`${url}${name}`, null, signal);
    await file.fill(bytes, offset);
    file.close();
    return bytes;
  },
});

// Sizes and validators of files; for a missing file only its `status`.
function look(url, names, signal) {
  return Promise.all(names.map(async (name) => {
    // With a range, the server reports the size of the file, not of a compressed response.
    const answer = await request(`${url}${name}`, { method: 'HEAD', range: '0-', signal });
    const { ok, status, headers } = answer;
    if (!ok) return { name, status };
    const length = headers.get('content-length');
    const size = Number(length);
    if (!Number.isSafeInteger(size) || size < 1) {
      throw unlike('server', `${url}${name}`, 'a size as Content-Length', length ?? 'none');
    }
    return { name, size, validator: validator(answer), chunk: CHUNK, hashes: null };
  }));
}

async function found(url, signal) {
  const looked = new Map((await look(url, [...SETTINGS, SINGLE, INDEX], signal)).map((file) => [file.name, file]));
  const there = () => [...looked.values()].filter(({ size }) => size);
  const weights = await weightFiles(remote(url, there(), signal));
  const shards = weights.filter((name) => !looked.has(name));
  for (const file of await look(url, shards, signal)) looked.set(file.name, file);
  // Beside a single weights file, an index belongs to another copy.
  if (weights.includes(SINGLE)) looked.delete(INDEX);
  for (const name of [...NEEDED, ...weights]) {
    const { size, status } = looked.get(name);
    if (!size) throw unlike('missing', `${url}${name}`, 'a file', `status ${status}`, HINT);
  }
  return there();
}

async function listed(url, { size }, signal) {
  const broken = (expected, got) => unlike('manifest', `${url}${MANIFEST}`, expected, got);
  if (size > MOST) throw broken(`at most ${MOST} bytes`, size);
  const text = new TextDecoder().decode(await remote(url, [], signal).read(MANIFEST, 0, size));
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
    wanted.set(name, { name, size, validator: null, chunk, hashes: chunks });
  }
  const missing = NEEDED.find((name) => !wanted.has(name));
  if (missing) throw broken(missing, 'a list without it');
  return [...wanted.values()];
}

const isHash = (text) => typeof text === 'string' && /^[0-9a-f]{64}$/.test(text);
