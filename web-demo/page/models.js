// What a model is to a page: a name, and the files of a checkpoint, each a Blob under its name. A Blob is read by range, so
// nothing of a model is ever whole in memory. Taken are the files that the engine may ask for: of a folder, or of the
// snapshot in a folder of the model hub's cache.

export const SINGLE = 'model.safetensors';
export const INDEX = 'model.safetensors.index.json';

// Everything but weights, as the table in the README has it.
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

// How far below a folder its files may be: snapshots/REVISION/additional_chat_templates.
const DEEPEST = 3;

// Whether weights may lie in a file of this name; the engine has the same rule.
export const isShard = (name) => /^[A-Za-z0-9_-][A-Za-z0-9._-]*\.safetensors$/.test(name);

export const belongs = (name) => SETTINGS.includes(name) || name === INDEX || isShard(name);

const model = (name, files) => ({
  name,
  files: new Map(files.filter(({ path }) => belongs(path)).map(({ path, file }) => [path, file])),
});

// The model in a folder `name`, of whose files each `path` begins with that name.
async function within(name, files) {
  const below = files.map(({ path, file }) => ({ path: path.slice(path.indexOf('/') + 1), file }));
  if (below.some(({ path }) => path === 'config.json')) return model(name, below);
  // A repository in the model hub's cache: refs/main names the snapshot.
  const revisions = new Set(below.map(({ path }) => /^snapshots\/([^/]+)\//.exec(path)?.[1]).filter(Boolean));
  const main = below.find(({ path }) => path === 'refs/main');
  const revision = revisions.size === 1 ? [...revisions][0] : (await main?.file.text())?.trim();
  const start = `snapshots/${revision}/`;
  const snapshot = below.filter(({ path }) => path.startsWith(start)).map(({ path, file }) => ({ path: path.slice(start.length), file }));
  const id = name.replace(/^models--/, '').replace('--', '/');
  return snapshot.length > 0 ? model(id, snapshot) : model(name, below);
}

// A promise of the model in a folder that was picked: the files of an input with `webkitdirectory`.
export function picked(list) {
  const files = [...list].map((file) => ({ path: file.webkitRelativePath, file }));
  return within(files[0]?.path.split('/')[0] ?? 'the folder', files);
}

// A promise of the model that was dropped, as a folder or as its files; null where something else was. To be called while
// the event lasts.
export function dropped(transfer) {
  const entries = [...(transfer?.items ?? [])].map((item) => item.webkitGetAsEntry?.());
  const folder = entries.find((entry) => entry?.isDirectory);
  if (folder) return entered(folder).then((files) => within(folder.name, files));
  const files = [...(transfer?.files ?? [])].map((file) => ({ path: file.name, file }));
  return files.some(({ path }) => path === 'config.json') ? Promise.resolve(model('the dropped files', files)) : null;
}

// The files of a folder that was dropped, and of those below it that a checkpoint may have.
async function entered(folder, start = folder.name, depth = 0) {
  const reader = folder.createReader();
  const found = [];
  for (;;) {
    // Entries come some at a time, until none do.
    const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (entries.length === 0) return (await Promise.all(found)).flat();
    for (const entry of entries) {
      const path = `${start}/${entry.name}`;
      if (entry.isFile) found.push(new Promise((resolve, reject) => entry.file((file) => resolve({ path, file }), reject)));
      else if (depth < DEEPEST && entry.name !== 'blobs') found.push(entered(entry, path, depth + 1));
    }
  }
}

// Blobs as the engine reads a checkpoint: sizes by name, and a read of `length` bytes from `offset` on.
export const source = (files) => ({
  sizes: new Map([...files].map(([name, file]) => [name, file.size])),
  async read(name, offset, length) {
    return new Uint8Array(await files.get(name).slice(offset, offset + length).arrayBuffer());
  },
});
