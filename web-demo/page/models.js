// A model on a page: a name, and the checkpoint's files as Blobs by name. Blobs are read by range, so a file is never whole in
// memory. Only files that the engine may read are taken, from a folder, or from the snapshot in a folder of the Hugging Face
// cache.

import { choose, isGguf } from './gguf-files.js';

export const SINGLE = 'model.safetensors';
export const INDEX = 'model.safetensors.index.json';

// All files but the weights, as listed in the README.
export const SETTINGS = [
  'config.json',
  'tokenizer.json',
  'chat_template.jinja',
  'chat_template.json',
  'processor_config.json',
  'preprocessor_config.json',
  'generation_config.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'quantize_config.json',
  'quant_config.json',
  'hf_quant_config.json',
  'additional_chat_templates/default.jinja',
];

// Depth of the deepest file: snapshots/REVISION/additional_chat_templates.
const DEEPEST = 3;

// Whether this is a valid name of a weights file; the engine has the same rule.
export const isShard = (name) => /^[A-Za-z0-9_-][A-Za-z0-9._-]*\.safetensors$/.test(name);

export const belongs = (name) => SETTINGS.includes(name) || name === INDEX || isShard(name) || isGguf(name);

// Of all `names`, those that the engine reads. Without safetensors, or if some are `wanted`, it is two GGUF files, which also
// contain the settings.
//
// Errors: those of `choose`.
export function taken(names, wanted, where, todo) {
  const files = names.filter(belongs);
  const gguf = files.filter(isGguf);
  const others = files.filter((name) => !isGguf(name));
  const without = gguf.length === 0 || others.includes(SINGLE) || others.includes(INDEX);
  return wanted.length === 0 && without ? others : choose(gguf, wanted, where, todo);
}

const ALONE = 'Open a folder with one text model and its mmproj file, or drop these two files.';

function model(name, files) {
  const names = taken(files.map(({ path }) => path), [], name, ALONE);
  return { name, files: new Map(files.filter(({ path }) => names.includes(path)).map(({ path, file }) => [path, file])) };
}

// Whether these are the files of a model.
const whole = (files) => files.some(({ path }) => path === 'config.json' || isGguf(path));

// The model in the folder `name`; each `path` begins with that name.
async function within(name, files) {
  const below = files.map(({ path, file }) => ({ path: path.slice(path.indexOf('/') + 1), file }));
  if (whole(below)) return model(name, below);
  // A repository in the Hugging Face cache: refs/main names the snapshot.
  const revisions = new Set(below.map(({ path }) => /^snapshots\/([^/]+)\//.exec(path)?.[1]).filter(Boolean));
  const main = below.find(({ path }) => path === 'refs/main');
  const revision = revisions.size === 1 ? [...revisions][0] : (await main?.file.text())?.trim();
  const start = `snapshots/${revision}/`;
  const snapshot = below.filter(({ path }) => path.startsWith(start)).map(({ path, file }) => ({ path: path.slice(start.length), file }));
  const id = name.replace(/^models--/, '').replace('--', '/');
  return snapshot.length > 0 ? model(id, snapshot) : model(name, below);
}

// A promise of the model in a picked folder: the files of an input with `webkitdirectory`.
export function picked(list) {
  const files = [...list].map((file) => ({ path: file.webkitRelativePath, file }));
  return within(files[0]?.path.split('/')[0] ?? 'the folder', files);
}

// A promise of a dropped model, as a folder or as files; null if no model was dropped. Must be called inside the event
// handler.
export function dropped(transfer) {
  const entries = [...(transfer?.items ?? [])].map((item) => item.webkitGetAsEntry?.());
  const folder = entries.find((entry) => entry?.isDirectory);
  if (folder) return entered(folder).then((files) => within(folder.name, files));
  const files = [...(transfer?.files ?? [])].map((file) => ({ path: file.name, file }));
  return whole(files) ? within('the dropped files', files) : null;
}

// The files of a dropped folder and its subfolders.
async function entered(folder, start = folder.name, depth = 0) {
  const reader = folder.createReader();
  const found = [];
  for (;;) {
    // Entries arrive in batches; an empty batch is the end.
    const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (entries.length === 0) return (await Promise.all(found)).flat();
    for (const entry of entries) {
      const path = `${start}/${entry.name}`;
      if (entry.isFile) found.push(new Promise((resolve, reject) => entry.file((file) => resolve({ path, file }), reject)));
      else if (depth < DEEPEST && entry.name !== 'blobs') found.push(entered(entry, path, depth + 1));
    }
  }
}

// Blobs as a source for the engine: sizes by name, and a function that reads `length` bytes at `offset`.
export const source = (files) => ({
  sizes: new Map([...files].map(([name, file]) => [name, file.size])),
  async read(name, offset, length) {
    return new Uint8Array(await files.get(name).slice(offset, offset + length).arrayBuffer());
  },
});
