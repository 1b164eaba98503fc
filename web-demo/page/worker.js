// All wasm and GPU work of the conformance page: finds the GPU, fetches the fixtures, runs the engine over them.
//
// Tells the page objects with one key: `line` and `device` as it goes, and one `report` (JSON as text) or `error` (a
// sentence) at the end.

import { gpu } from './gpu.js';
import { onTrap, overhear, sentence } from './worker-common.js';

const tell = (what) => self.postMessage(what);
const fail = (why) => tell({ error: sentence(why) });
overhear((line) => tell({ line }));
onTrap(fail);

// The GPU in words, as far as the browser tells.
async function device() {
  const { why, name, software, f16, subgroups, binding } = await gpu();
  if (why) throw why;
  const has = Object.entries({ 'shader-f16': f16, subgroups }).map(([feature, there]) => `${feature} ${there ? 'yes' : 'no'}`);
  return [name, software ? 'software' : 'hardware', ...has, `largest binding ${binding / 2 ** 20} MiB`].join(', ');
}

// A file that was sent with the page; null where it was not.
async function get(name) {
  const address = `fixtures/${name.split('/').map(encodeURIComponent).join('/')}`;
  const answer = await fetch(address);
  if (answer.status === 404) return null;
  if (!answer.ok) throw new Error(`${address}: expected it to be sent, got ${answer.status}`);
  return new Uint8Array(await answer.arrayBuffer());
}

// Every fixture by name; none where the page came without them.
async function fixtures() {
  const index = await get('index.json');
  if (index === null) {
    tell({ line: 'no fixtures: the page came without them' });
    return new Map();
  }
  const names = JSON.parse(new TextDecoder().decode(index));
  const files = new Map(await Promise.all(names.map(async (name) => {
    const bytes = await get(name);
    if (bytes === null) throw new Error(`fixtures/${name}: named in index.json, but not there`);
    return [name, bytes];
  })));
  const bytes = [...files.values()].reduce((sum, file) => sum + file.length, 0);
  tell({ line: `fixtures: ${files.size} files, ${(bytes / 2 ** 20).toFixed(1)} MiB` });
  return files;
}

try {
  tell({ device: await device() });
  const { default: start, conformance } = await import('./pkg/fovea_web.js');
  await start();
  const files = await fixtures();
  tell({ report: await conformance(files, (text) => tell({ line: String(text) })) });
} catch (why) {
  fail(why);
}
