// The models that this browser keeps, in its own file system (OPFS): under `models` a folder for each, called by the address
// that it came from, with the checkpoint's files and a journal beside each of them.

import { FoveaError, unlike } from './error.js';
import { JournalledFile, SUFFIX, count, parse } from './journal.js';

const nameOf = encodeURIComponent;
const urlOf = decodeURIComponent;

// Every model: its `url`, how many bytes it has (`total`), how many of them are `there`, and whether it is `whole`.
export async function list() {
  const models = [];
  for await (const [name, folder] of (await shelf()).entries()) {
    if (folder.kind !== 'directory') continue;
    const journals = await read(folder);
    const sum = (of) => journals.reduce((bytes, journal) => bytes + of(journal), 0);
    models.push({
      url: urlOf(name),
      total: sum(({ head }) => head?.size ?? 0),
      there: sum(({ there }) => there),
      whole: journals.length > 0 && journals.every(({ head, hashes }) => head && hashes.size === count(head)),
    });
  }
  return models.sort((a, b) => a.url.localeCompare(b.url));
}

// The files of a model that is whole, by name.
//
// Errors: `missing` where one of them is not as long as it was.
export async function files(url) {
  const folder = await (await shelf()).getDirectoryHandle(nameOf(url));
  const found = new Map();
  for (const { name, head } of await read(folder)) {
    const file = await (await folder.getFileHandle(name)).getFile();
    if (file.size !== head?.size) {
      throw unlike('missing', name, `${head?.size} bytes`, `${file.size}`, 'Download the rest, or delete the model.');
    }
    found.set(name, file);
  }
  return found;
}

// Deletes a model.
//
// Errors: `busy` where it is being written.
export async function remove(url) {
  try {
    await (await shelf()).removeEntry(nameOf(url), { recursive: true });
  } catch (why) {
    if (why.name !== 'NoModificationAllowedError') throw why;
    throw unlike('busy', url, 'that nobody writes it', 'a download of it', 'Stop that first.');
  }
}

// Makes place for the files of a plan, and opens them; what else lies in the model's folder goes. Every journal is there
// before the first byte is, so a model is never taken for whole that is not.
//
// Errors: `busy` where one of them is being written elsewhere.
export async function open(url, plan) {
  const folder = await (await shelf()).getDirectoryHandle(nameOf(url), { create: true });
  const opened = [];
  try {
    for (const file of plan) opened.push(await JournalledFile.open(folder, file));
    const wanted = new Set(plan.flatMap(({ name }) => [name, name + SUFFIX]));
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
    const sentence = `This browser keeps no files for this page (${why.message}). It needs https or localhost, and no private window.`;
    throw new FoveaError(sentence, 'storage');
  }
  return root.getDirectoryHandle('models', { create: true });
}

// What the journals of a folder say, each with the `name` of its file.
async function read(folder) {
  const journals = [];
  for await (const [name, handle] of folder.entries()) {
    if (!name.endsWith(SUFFIX)) continue;
    const bytes = new Uint8Array(await (await handle.getFile()).arrayBuffer());
    journals.push({ name: name.slice(0, -SUFFIX.length), ...parse(bytes) });
  }
  return journals;
}
