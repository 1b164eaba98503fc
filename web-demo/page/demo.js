// The demo checkpoint, which is part of the page. It is fetched once, so an engine can be restarted without a network.

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
  // After a failure the next call tries again.
  files.catch(() => { files = null; });
  return files;
}

async function fetched(name) {
  const fail = (got) => new FoveaError(`The demo model's ${name}: expected the file, got ${got}. Check the connection, then try again.`, 'network');
  const answer = await fetch(new URL(name, FOLDER)).catch((why) => { throw fail(why.message); });
  if (!answer.ok) throw fail(answer.status);
  return answer.blob();
}
