// The worker of the conformance page: finds the GPU, fetches the fixtures, runs the suite.
//
// Sends the page objects with one key: `line` and `device` on the way, then one `report` (JSON as text) or `error` (a sentence).

import { load } from './engine-module.js';
import { gpu } from './needs.js';
import { size } from './numbers.js';
import './readback.js';
import { onTrap, overhear, sentence } from './worker-common.js';

const send = (what) => self.postMessage(what);
const fail = (why) => send({ error: sentence(why) });
overhear((line) => send({ line }));
onTrap(fail);

// The GPU in words, as far as the browser reports.
async function device() {
  const { why, name, software, f16, subgroups, binding } = await gpu();
  if (why) throw why;
  const has = Object.entries({ 'shader-f16': f16, subgroups }).map(([feature, there]) => `${feature} ${there ? 'yes' : 'no'}`);
  return [name, software ? 'software' : 'hardware', ...has, `largest binding ${size(binding)}`].join(', ');
}

// A fixture; null if it is missing.
async function get(name) {
  const address = `fixtures/${name.split('/').map(encodeURIComponent).join('/')}`;
  const answer = await fetch(address);
  if (answer.status === 404) return null;
  if (!answer.ok) throw new Error(`${address}: expected a file, got status ${answer.status}`);
  return new Uint8Array(await answer.arrayBuffer());
}

// All fixtures by name. A published page has none.
async function fixtures() {
  const index = await get('index.json');
  if (index === null) {
    send({ line: 'no fixtures on this server: only single operations are tested' });
    return new Map();
  }
  const names = JSON.parse(new TextDecoder().decode(index));
  const files = new Map(await Promise.all(names.map(async (name) => {
    const bytes = await get(name);
    if (bytes === null) throw new Error(`fixtures/${name}: expected the file that index.json names, got none`);
    return [name, bytes];
  })));
  const bytes = [...files.values()].reduce((sum, file) => sum + file.length, 0);
  send({ line: `fixtures: ${files.size} files, ${size(bytes)}` });
  return files;
}

try {
  send({ device: await device() });
  const { wasm } = await load();
  const files = await fixtures();
  send({ report: await wasm.conformance(files, (text) => send({ line: String(text) })) });
} catch (why) {
  fail(why);
}
