// The downloaded models in the browser's file system (OPFS): under `models` one folder per model, named after its address,
// with the checkpoint's files and a journal for each.

import { FoveaError, unlike } from './error.js';
import { JournalledFile, SUFFIX, count, nameOf, parse } from './journal.js';

// All models: `url`, `total` bytes, bytes that are `there`, and whether the model is `whole`.
export async function list() {
  const models = [];
  for await (const [name, folder] of (await shelf()).entries()) {
    if (folder.kind !== 'directory') continue;
    const journals = await read(folder);
    const sum = (of) => journals.reduce((bytes, journal) => bytes + of(journal), 0);
    models.push({
      url: decodeURIComponent(name),
      total: sum(({ head }) => head?.size ?? 0),
      there: sum(({ there }) => there),
      whole: journals.length > 0 && journals.every(({ head, hashes }) => head && hashes.size === count(head)),
    });
  }
  return models.sort((a, b) => a.url.localeCompare(b.url));
}

// The files of a whole model, by name.
//
// Errors: `missing` if a file has another length than it should.
export async function files(url) {
  const folder = await (await shelf()).getDirectoryHandle(nameOf(url));
  const found = new Map();
  for (const { name, head } of await read(folder)) {
    const file = await (await folder.getFileHandle(nameOf(name))).getFile();
    if (file.size !== head?.size) {
      throw unlike('missing', name, `${head?.size} bytes`, `${file.size}`, 'Resume the download, or delete the model.');
    }
    found.set(name, file);
  }
  return found;
}

// Deletes a model.
//
// Errors: `busy` if it is being written.
export async function remove(url) {
  try {
    await (await shelf()).removeEntry(nameOf(url), { recursive: true });
  } catch (why) {
    if (why.name !== 'NoModificationAllowedError') throw why;
    throw unlike('busy', url, 'a model without a running download', 'one with a download', 'Stop the download first.');
  }
}

// Opens the files of a plan, and deletes all others in the model's folder. All journals are written before the first chunk, so
// an incomplete model is never regarded as whole.
//
// Errors: `busy` if another tab writes one of them.
export async function open(url, plan) {
  const folder = await (await shelf()).getDirectoryHandle(nameOf(url), { create: true });
  const opened = [];
  try {
    for (const file of plan) opened.push(await JournalledFile.open(folder, file));
    const wanted = new Set(plan.flatMap(({ name }) => [nameOf(name), nameOf(name + SUFFIX)]));
    const others = [];
    for await (const name of folder.keys()) if (!wanted.has(name)) others.push(name);
    for (const name of others) await folder.removeEntry(name, { recursive: true });
    return opened;
  } catch (why) {
    for (const file of opened) file.close();
    throw why;
  }
}

async function shelf() {
  let root;
  try {
    root = await navigator.storage.getDirectory();
  } catch (why) {
    const sentence = `This browser does not store files for this page (${why.message}). Use https or localhost, and no private window.`;
    throw new FoveaError(sentence, 'storage');
  }
  return root.getDirectoryHandle('models', { create: true });
}

// The parsed journals of a folder, each with the `name` of its file.
async function read(folder) {
  const journals = [];
  for await (const [name, handle] of folder.entries()) {
    if (!name.endsWith(SUFFIX)) continue;
    const bytes = new Uint8Array(await (await handle.getFile()).arrayBuffer());
    journals.push({ name: decodeURIComponent(name.slice(0, -SUFFIX.length)), ...parse(bytes) });
  }
  return journals;
}
