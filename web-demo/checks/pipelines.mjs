// Compile time of each pipeline of a question, in Chromium on a software GPU.
//
//     node pipelines.mjs [FOLDER]
//
// FOLDER is the output of fovea-web-bundle (target/page). It needs the npm package `playwright-core` in the current directory.
// One page answers a question, and its texts are collected; a new one compiles them one after another. Prints milliseconds.

import { readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

import { GPU, SLOW, launch } from './chromium.mjs';
import { serve } from './served.mjs';

const folder = resolve(process.argv[2] ?? fileURLToPath(new URL('../../target/page', import.meta.url)));

// Runs before the worker: every event of the engine gets the pipelines so far.
const COLLECT = `{
  const codes = new WeakMap();
  const pipelines = [];
  const module = GPUDevice.prototype.createShaderModule;
  GPUDevice.prototype.createShaderModule = function (given) {
    const made = module.call(this, given);
    codes.set(made, given.code);
    return made;
  };
  for (const name of ['createComputePipeline', 'createComputePipelineAsync']) {
    const make = GPUDevice.prototype[name];
    GPUDevice.prototype[name] = function (given) {
      const { module, entryPoint, constants } = given.compute;
      pipelines.push({ code: codes.get(module), entryPoint, constants });
      return make.call(this, given);
    };
  }
  const post = self.postMessage.bind(self);
  self.postMessage = (message, ...rest) => {
    if (message.event) message.event.pipelines = pipelines;
    post(message, ...rest);
  };
}`;

const { address, close } = await serve(folder, async (path, posted) => {
  if (path === 'empty.html') return { type: 'text/html', body: '<!doctype html><title>pipelines</title>' };
  if (path === 'engine-worker.js') return { type: 'text/javascript', body: `${COLLECT}\n${await readFile(join(folder, path), 'utf8')}` };
  return posted === null ? null : { type: 'text/plain', body: '' };
});
const browser = await launch(...GPU);
const opened = async () => {
  const page = await browser.newPage();
  page.setDefaultTimeout(SLOW.timeout);
  await page.goto(`${address}empty.html`);
  return page;
};
const asking = await opened();
const pipelines = await asking.evaluate(async () => {
  const { Fovea } = await import('./fovea.js');
  const fovea = await Fovea.create({ cpu: false });
  const sight = await fovea.lookAt(await (await fetch('pictures/rack.jpg')).blob());
  let found = [];
  for await (const event of sight.ask('What word is on the blue sign?')) found = event.pipelines ?? found;
  return found;
});
await asking.close();
const compiling = await opened();
const times = await compiling.evaluate(async (all) => {
  const device = await (await navigator.gpu.requestAdapter()).requestDevice();
  const taken = [];
  for (const { code, entryPoint, constants } of all) {
    const from = performance.now();
    const module = device.createShaderModule({ code });
    await device.createComputePipelineAsync({ layout: 'auto', compute: { module, entryPoint, constants } });
    taken.push(performance.now() - from);
  }
  return taken;
}, pipelines);
await browser.close();
close();

// The first comment that is not about the storage, and the values of the constants; burn's kernels have a name.
function words(code) {
  const constants = [...code.matchAll(/^const ([A-Z]+): u32 = (\d+)u/gm)].map(([, name, value]) => `${name}=${value}`);
  return [/fn (\w+_\w+)\(@builtin/.exec(code)?.[1] ?? code.split('\n').filter((line) => line.startsWith('// '))[3] ?? '', ...constants].join(' ');
}
const rows = pipelines.map(({ code }, i) => [times[i], words(code)]).sort(([a], [b]) => b - a);
for (const [ms, what] of rows) console.log(ms.toFixed(0).padStart(6), what);
console.log(`${(times.reduce((sum, ms) => sum + ms, 0) / 1000).toFixed(1)} s for ${rows.length} pipelines`);
