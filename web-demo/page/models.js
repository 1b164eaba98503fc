// What a model is to a page: a name, and the files of a checkpoint, each a Blob under its name. A Blob is read by range, so
// nothing of a model ever lies whole in memory. Taken are the files that the engine may ask for; folders below are not seen.

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
];

// Whether weights may lie in a file of this name; the engine has the same rule.
export const isShard = (name) => /^[A-Za-z0-9_-][A-Za-z0-9._-]*\.safetensors$/.test(name);

export const belongs = (name) => SETTINGS.includes(name) || name === INDEX || isShard(name);

const model = (name, files) => ({
  name,
  files: new Map(files.filter((file) => belongs(file.name)).map((file) => [file.name, file])),
});

// The model in a folder that was picked: the files of an input with `webkitdirectory`.
export function picked(list) {
  const top = [...list].filter((file) => file.webkitRelativePath.split('/').length === 2);
  return model(top[0]?.webkitRelativePath.split('/')[0] ?? 'the folder', top);
}

// A promise of the model that was dropped, as a folder or as its files; null where something else was. To be called while
// the event lasts.
export function dropped(transfer) {
  const entries = [...(transfer?.items ?? [])].map((item) => item.webkitGetAsEntry?.());
  const folder = entries.find((entry) => entry?.isDirectory);
  if (folder) return within(folder);
  const files = [...(transfer?.files ?? [])];
  return files.some(({ name }) => name === 'config.json') ? Promise.resolve(model('the dropped files', files)) : null;
}

async function within(folder) {
  const reader = folder.createReader();
  const files = [];
  for (;;) {
    // Entries come some at a time, until none do.
    const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (entries.length === 0) return model(folder.name, files);
    const wanted = entries.filter((entry) => entry.isFile && belongs(entry.name));
    files.push(...await Promise.all(wanted.map((entry) => new Promise((resolve, reject) => entry.file(resolve, reject)))));
  }
}

// Blobs as the engine reads a checkpoint: sizes by name, and a read of `length` bytes from `offset` on.
export const source = (files) => ({
  sizes: new Map([...files].map(([name, file]) => [name, file.size])),
  async read(name, offset, length) {
    return new Uint8Array(await files.get(name).slice(offset, offset + length).arrayBuffer());
  },
});
