// One file on its way into the browser's own file system (OPFS): its bytes, and beside them a journal of the chunks that
// are there.
//
// A journal is lines of JSON: what the file is to be, then `{"chunk", "sha256"}` for each chunk as it came; the hash is null
// for one that was found broken later. A line is written after its chunk, so what it says is true however the writing ended; only the last may be torn, and is cut off.

import { unlike } from './error.js';

export const SUFFIX = '.journal';

// How long a file may stay locked: the tab that wrote it may just be going away.
const PATIENCE = 15_000;
const STEP = 100;

const LINE = '\n'.charCodeAt(0);
const decoder = new TextDecoder();
const encoder = new TextEncoder();

// How many chunks a file has, and where one of them lies: its first byte, and the first after it.
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

// What a journal says: `head`, what the file is to be, or null; the `hashes` of its chunks by index; the bytes that are
// `there`; and the `end` of what can be read of the journal itself.
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

// Writes all of these bytes, and has them on the disk.
function write(handle, bytes, at) {
  const written = handle.write(bytes, { at });
  // Where there is no room, Chromium returns its error, below zero, as a count that is huge.
  const got = written > bytes.length ? 0 : written;
  if (got !== bytes.length) throw new DOMException(`${got} of ${bytes.length} bytes`, 'QuotaExceededError');
  handle.flush();
}

// A file and its journal, locked for this worker until they are closed.
export class JournalledFile {
  #file;
  #bytes;
  #journal;
  #hashes;
  #end;

  // Opens a `file` of a plan. What lies there goes on to be used if it is of the same file, and is thrown away if not.
  //
  // Errors: `busy` where it is being written elsewhere.
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
    const { size, chunk, validator } = file;
    const wanted = { size, chunk, validator };
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

  // How many bytes are there.
  get there() {
    return bytesOf(this.#file, this.#hashes.keys());
  }

  // The hash of a chunk as it was written; undefined where it is not there.
  hash(index) {
    return this.#hashes.get(index);
  }

  // Reads a chunk; says whether all of it could be read.
  read(index, into) {
    return this.#bytes.read(into, { at: span(this.#file, index)[0] }) === into.length;
  }

  // Writes a chunk, and then that it is there.
  //
  // Errors: a `QuotaExceededError` of the browser, where there is no room.
  write(index, bytes, sha256) {
    write(this.#bytes, bytes, span(this.#file, index)[0]);
    this.#note({ chunk: index, sha256 });
    this.#hashes.set(index, sha256);
  }

  // Takes a chunk for one that is not there, also after this.
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
  const handle = await folder.getFileHandle(name, { create: true });
  for (let waited = 0; ; waited += STEP) {
    try {
      return await handle.createSyncAccessHandle();
    } catch (why) {
      if (why.name !== 'NoModificationAllowedError') throw why;
      const todo = 'Stop that download, or wait for it.';
      if (waited >= PATIENCE) throw unlike('busy', name, 'that nobody else writes it', 'another tab that does', todo);
      await new Promise((resolve) => { setTimeout(resolve, STEP); });
    }
  }
}
