// A file that is being downloaded into the browser's file system (OPFS), and beside it a journal of its finished chunks.
//
// A journal is lines of JSON: first the description of the file, then `{"chunk", "sha256"}` for each written chunk; a null
// hash marks a chunk as broken. A line is written after its chunk, so it is true even after a crash. Only the last line can be
// incomplete; it is then cut off.

import { unlike } from './error.js';

export const SUFFIX = '.journal';

// The name under which a file or folder is stored: a name in OPFS has no slash.
export const nameOf = encodeURIComponent;

// How long to wait for a locked file, in milliseconds: the tab that wrote it may be closing.
const PATIENCE = 15_000;
const STEP = 100;

const LINE = '\n'.charCodeAt(0);
const decoder = new TextDecoder();
const encoder = new TextEncoder();

// The number of chunks of a file, and the byte range of one: first byte, and first byte after it.
export const count = ({ size, chunk }) => Math.ceil(size / chunk);
export const span = ({ size, chunk }, index) => [index * chunk, Math.min((index + 1) * chunk, size)];

function bytesOf(file, chunks) {
  let bytes = 0;
  for (const index of chunks) {
    const [from, to] = span(file, index);
    bytes += to - from;
  }
  return bytes;
}

// Parses a journal: `head`, the description of the file, or null; the `hashes` of its chunks by index; how many bytes are
// `there`; and the `end` of the journal's readable part.
export function parse(bytes) {
  let head = null;
  let end = 0;
  const hashes = new Map();
  for (let stop = bytes.indexOf(LINE); stop >= 0; stop = bytes.indexOf(LINE, end)) {
    let line;
    try {
      line = JSON.parse(decoder.decode(bytes.subarray(end, stop)));
    } catch {
      break;
    }
    if (head === null) head = line;
    else if (line.sha256 === null) hashes.delete(line.chunk);
    else hashes.set(line.chunk, line.sha256);
    end = stop + 1;
  }
  return { head, hashes, there: bytesOf(head, hashes.keys()), end };
}

// Writes all bytes, and flushes them to the disk.
function write(handle, bytes, at) {
  const written = handle.write(bytes, { at });
  // Without room, Chromium returns its negative error code as a huge count.
  if (written !== bytes.length) throw new DOMException('The storage is full.', 'QuotaExceededError');
  handle.flush();
}

// A file and its journal, locked by this worker until closed.
export class JournalledFile {
  #file;
  #bytes;
  #journal;
  #hashes;
  #end;

  // Opens a `file` of a plan. Existing chunks are used if they belong to the same file, else deleted.
  //
  // Errors: `busy` if another tab writes it.
  static async open(folder, file) {
    const handles = [];
    try {
      for (const name of [file.name, file.name + SUFFIX]) handles.push(await locked(folder, name));
      return new JournalledFile(file, ...handles);
    } catch (why) {
      for (const handle of handles) handle.close();
      throw why;
    }
  }

  constructor(file, bytes, journal) {
    this.#file = file;
    this.#bytes = bytes;
    this.#journal = journal;
    const written = new Uint8Array(journal.getSize());
    journal.read(written, { at: 0 });
    const { head, hashes, end } = parse(written);
    const { size, chunk, validator, oid } = file;
    const wanted = { size, chunk, validator: oid ?? validator };
    const same = JSON.stringify(head) === JSON.stringify(wanted);
    this.#hashes = same ? hashes : new Map();
    this.#end = same ? end : 0;
    journal.truncate(this.#end);
    if (!same) {
      bytes.truncate(0);
      this.#note(wanted);
    }
  }

  get file() {
    return this.#file;
  }

  // The number of present bytes.
  get there() {
    return bytesOf(this.#file, this.#hashes.keys());
  }

  // The hash of a written chunk; undefined if it is missing.
  hash(index) {
    return this.#hashes.get(index);
  }

  // Reads a chunk; returns whether it is complete.
  read(index, into) {
    return this.#bytes.read(into, { at: span(this.#file, index)[0] }) === into.length;
  }

  // Writes a chunk, then its line of the journal.
  //
  // Errors: `QuotaExceededError` if there is no room.
  write(index, bytes, sha256) {
    write(this.#bytes, bytes, span(this.#file, index)[0]);
    this.#note({ chunk: index, sha256 });
    this.#hashes.set(index, sha256);
  }

  // Marks a chunk as missing, also in the journal.
  forget(index) {
    this.#note({ chunk: index, sha256: null });
    this.#hashes.delete(index);
  }

  close() {
    this.#bytes.close();
    this.#journal.close();
  }

  #note(line) {
    const text = encoder.encode(`${JSON.stringify(line)}\n`);
    write(this.#journal, text, this.#end);
    this.#end += text.length;
  }
}

async function locked(folder, name) {
  const handle = await folder.getFileHandle(nameOf(name), { create: true });
  for (let waited = 0; ; waited += STEP) {
    try {
      return await handle.createSyncAccessHandle();
    } catch (why) {
      if (why.name !== 'NoModificationAllowedError') throw why;
      const todo = 'Stop the other download, or wait for it.';
      if (waited >= PATIENCE) throw unlike('busy', name, 'an unlocked file', 'one that another tab writes', todo);
      await new Promise((resolve) => { setTimeout(resolve, STEP); });
    }
  }
}
