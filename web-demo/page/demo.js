// The checkpoint that comes with the page, fetched once: another engine in place of a lost one needs no network.

import { FoveaError } from './error.js';

const FOLDER = new URL('./demo/', import.meta.url);
const FILES = [
  'config.json',
  'model.safetensors',
  'tokenizer.json',
  'tokenizer_config.json',
  'chat_template.jinja',
  'processor_config.json',
  'generation_config.json',
];

let files = null;

// Blobs by name.
export function demo() {
  files ??= Promise.all(FILES.map(async (name) => [name, await fetched(name)])).then((all) => new Map(all));
  // Whoever asks next tries again.
  files.catch(() => { files = null; });
  return files;
}

async function fetched(name) {
  const fail = (got) => new FoveaError(`The demo model's ${name}: expected it to be sent, got ${got}.`, 'checkpoint');
  const answer = await fetch(new URL(name, FOLDER)).catch((why) => { throw fail(why.message); });
  if (!answer.ok) throw fail(answer.status);
  return answer.blob();
}
