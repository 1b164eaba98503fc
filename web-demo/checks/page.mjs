// Checks of the demo page in headless Chromium, with the actions of a user: keyboard only, stop and ask again, pointer, methods of
// compression, camera, quantised weights, full storage, models from the Hugging Face hub, no WebGPU, no WebAssembly, lost GPU, accessibility (axe).
//
//     node page.mjs ADDRESS [--only NAME] [--shots FOLDER]
//
// ADDRESS is the served page, NAME a function below; the screenshot web-answer.png is written to FOLDER. Needs the packages
// playwright-core and axe-core in the current directory, and Chromium in PATH.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readFile, readdir, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { GPU, SLOW, axe, launch, open } from './chromium.mjs';
import { hub } from './hub.mjs';
import { shoot } from './shot.mjs';

const { values: { only, shots }, positionals: [address] } = parseArgs({
  allowPositionals: true,
  options: { only: { type: 'string' }, shots: { type: 'string' } },
});
const QUESTION = 'What word is on the blue sign?';
const ANSWER = 'exit';
// Uses the software GPU, which the page otherwise ignores.
const PAGE = 'index.html?gpu';

const ready = (page) => page.waitForFunction(() => document.body.dataset.state === 'ready', null, SLOW);
const text = (page, id) => page.textContent(`#${id}`);

// Waits until the status begins with `words`, or shows an error.
async function says(page, words) {
  await page.waitForFunction((start) => {
    const { textContent, dataset } = document.getElementById('status');
    return textContent.startsWith(start) || dataset.kind === 'fail';
  }, words, SLOW);
  const status = await text(page, 'status');
  assert.ok(status.startsWith(words), `expected the status to begin with ${words}, got ${status}`);
}

// Waits until the status of the section "Another model" contains `words`.
async function modelSays(page, words) {
  await page.waitForFunction((some) => document.getElementById('model-status').textContent.includes(some), words, SLOW);
}

async function asked(page) {
  await page.fill('#question', QUESTION);
  await page.press('#question', 'Enter');
}

// Waits for the answer, and checks whether the engine was restarted for it.
async function answered(page, restarted = false) {
  await says(page, 'Answered');
  const status = await text(page, 'status');
  assert.equal(status.includes('The engine was restarted'), restarted, `a restart (got, expected): ${status}`);
  await ready(page);
  assert.equal(await text(page, 'answer'), ANSWER, 'the answer (got, expected)');
}

async function byKeyboard(browser) {
  const { page, complaints, close } = await open(browser, address, PAGE);
  await page.waitForFunction(() => document.querySelectorAll('#examples img').length > 0, null, SLOW);
  await page.waitForFunction(() => [...document.images].every(({ id, naturalWidth }) => naturalWidth > 0 || id === 'overlay'), null, SLOW);
  await ready(page);
  await scan(page, 'ready');
  const focused = () => page.evaluate(() => document.activeElement?.id ?? '');
  for (let i = 0; i < 40 && await focused() !== 'question'; i += 1) await page.keyboard.press('Tab');
  assert.equal(await focused(), 'question', 'what Tab reaches (got, expected)');
  await page.keyboard.press('ControlOrMeta+A');
  await page.keyboard.type(QUESTION);

  // Stopped during the answer: the first one takes seconds, to compile shaders.
  await page.keyboard.press('Enter');
  await page.waitForFunction(() => document.body.dataset.state === 'busy', null, SLOW);
  await page.click('#stop');
  await ready(page);
  assert.equal(await text(page, 'status'), 'Stopped.', 'the status after a stop (got, expected)');

  await page.focus('#question');
  await page.keyboard.press('Enter');
  await answered(page);
  await page.check('#show-overlay', { force: true });
  await page.waitForFunction(() => document.getElementById('overlay').naturalWidth > 0, null, SLOW);
  await pointed(page);
  if (shots) {
    await page.evaluate(() => scrollTo(0, 0));
    await shoot(page, join(shots, 'web-answer.png'));
  }
  await scan(page, 'an answer');

  // A smaller gamma keeps fewer tokens.
  const kept = async () => Number((await text(page, 'tokens')).match(/\d+$/)[0]);
  const before = await kept();
  await page.focus('#gamma');
  for (let i = 0; i < 8; i += 1) await page.keyboard.press('PageDown');
  await says(page, 'The overlay shows');
  assert.ok(await kept() < before, `expected fewer tokens than ${before}, got ${await kept()}`);

  await page.setInputFiles('#file', { name: 'notes.txt', mimeType: 'image/png', buffer: Buffer.from('no picture') });
  await page.waitForFunction(() => document.getElementById('status').dataset.kind === 'fail', null, SLOW);
  await scan(page, 'an error');
  assert.deepEqual(complaints, [], 'complaints of the browser (got, expected)');
  await close();
}

// The page's thread has no task above 50 ms while it loads, answers and draws, by PerformanceObserver. The engine and the
// software GPU use the same cores, so a task can take longer than its own work. A task counts only if the thread itself ran for
// 50 ms, according to a trace.
async function unblocked(browser) {
  const { page, longTasks, close } = await open(browser, address, 'icon.svg');
  await browser.startTracing(page, { categories: ['toplevel'] });
  await page.goto(new URL(PAGE, address).href);
  await ready(page);
  await asked(page);
  await answered(page);
  await page.focus('#gamma');
  await page.keyboard.press('PageDown');
  await says(page, 'The overlay shows');
  const before = (await longTasks()).length;
  // Blocks on purpose, to test that long tasks are reported.
  await page.evaluate(() => new Promise((done) => setTimeout(() => {
    for (const end = performance.now() + 300; performance.now() < end;);
    done();
  })));
  await page.waitForFunction((known) => globalThis.longTasks.length > known, before, SLOW);
  const observed = await longTasks();
  const { traceEvents: events } = JSON.parse(await browser.stopTracing());
  const main = new Set(events.filter(({ name, args }) => name === 'thread_name' && args.name === 'CrRendererMain').map(({ pid, tid }) => `${pid} ${tid}`));
  const tasks = events.filter(({ name, pid, tid }) => name.endsWith('RunTask') && main.has(`${pid} ${tid}`));
  assert.ok(tasks.length > 100, `expected the tasks of the page's thread, got ${tasks.length}`);
  // The traced task with the duration that the observer reports.
  const traced = ({ ms }) => tasks.reduce((best, task) => (off(task, ms) < off(best, ms) ? task : best));
  const off = ({ dur = 0 }, ms) => Math.abs(dur / 1000 - ms);
  const long = observed.map((task) => ({ ...task, ran: (traced(task).tdur ?? 0) / 1000 }));
  console.log(`longtask: of ${tasks.length} tasks ${JSON.stringify(long)}, the last on purpose`);
  assert.ok(long.pop().ran >= 50, 'expected the task that was blocked on purpose to have run for 50 ms');
  assert.deepEqual(long.filter(({ ran }) => ran >= 50), [], 'tasks that ran for 50 ms (got, expected)');
  await close();
}

// The details of a token, by keyboard and by pointer: position, importance, and whether it was kept.
async function pointed(page) {
  const details = () => text(page, 'token');
  const rank = async () => Number((await details()).match(/rank (\d+) of/)?.[1]);
  const press = async (key) => {
    await page.keyboard.press(key);
    return details();
  };
  await page.focus('#show-overlay');
  await page.keyboard.press('Tab');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'probe', 'what follows the switch (got, expected)');
  const first = await details();
  const whole = /^Token \d+ of \d+, kept: patch rows? .*, columns? .* \(pixels \d+ to \d+ across, \d+ to \d+ down\), scale \dx\d, importance [\d.]+ %, rank \d+ of \d+\.$/;
  assert.match(first, whole, 'the most important token');
  const most = await rank();
  await press('PageDown');
  assert.ok(await rank() > most, `expected a rank below ${most}, got ${await details()}`);
  assert.equal(await press('PageUp'), first, 'the token before (got, expected)');
  // To the edge and back, in each direction.
  let moved = 0;
  for (const [there, back] of [['Right', 'Left'], ['Left', 'Right'], ['Down', 'Up'], ['Up', 'Down']]) {
    const seen = [first];
    for (let now = await press(`Arrow${there}`); now !== seen.at(-1); now = await press(`Arrow${there}`)) seen.push(now);
    moved += seen.length - 1;
    // Also over tokens of other sizes.
    for (const before of seen.slice(0, -1).reverse()) {
      assert.equal(await press(`Arrow${back}`), before, `the token before, going ${back} (got, expected)`);
    }
  }
  assert.ok(moved >= 4, `expected at least four tokens around, got ${moved}`);
  assert.match(await press('End'), /dropped/, 'the least important token');
  assert.equal(await press('Escape'), '', 'the details after Escape (got, expected)');

  const { x, y, width, height } = await page.locator('#probe').boundingBox();
  for (const [across, down] of [[0.02, 0.02], [0.3, 0.6], [0.8, 0.15]]) {
    const at = [x + across * width, y + down * height];
    await page.mouse.move(...at);
    const [left, right, top, bottom] = (await details()).match(/pixels (\d+) to (\d+) across, (\d+) to (\d+) down/).slice(1).map(Number);
    const mark = await page.locator('#probe .mark').boundingBox();
    const inside = mark.x - 1 <= at[0] && at[0] <= mark.x + mark.width + 1 && mark.y - 1 <= at[1] && at[1] <= mark.y + mark.height + 1;
    assert.ok(inside, `expected the mark around ${at}, got ${JSON.stringify(mark)}`);
    const shown = [(right - left) / (bottom - top), mark.width / mark.height];
    assert.ok(Math.abs(shown[0] / shown[1] - 1) < 0.1, `expected the mark in the shape of its pixels, got ${shown}`);
  }
}

// Another method: the next question uses it, and the overlay of the last question follows. A wrong compression is an error. Two
// methods are compared.
async function methods(browser) {
  const { page, complaints, close } = await open(browser, address, PAGE);
  await ready(page);
  const counts = async () => (await text(page, 'tokens')).match(/\d+/g).map(Number);
  const kept = (is) => page.waitForFunction((words) => document.getElementById('tokens').textContent.endsWith(words), `layer${is}`, SLOW);
  const spelled = (is) => page.waitForFunction((words) => document.getElementById('spec').value === words, is, SLOW);
  assert.deepEqual([await page.inputValue('#method'), await page.inputValue('#spec')], ['focus', 'focus'], 'the default (got, expected)');
  await page.selectOption('#method', 'fastv');
  assert.deepEqual([await page.isVisible('#gamma'), await page.isVisible('#budget')], [false, true], 'the sliders of FastV (got, expected)');
  await asked(page);
  await says(page, 'Answered');
  await ready(page);
  assert.match(await text(page, 'cost'), /compression\s*fastv/, 'the compression in the table');
  const [all, compressed, half] = await counts();
  assert.ok(all === compressed && half < all, `expected tokens that FastV drops, got ${await counts()}`);
  await page.focus('#budget');
  await page.keyboard.press('PageDown');
  await says(page, 'The overlay shows');
  assert.match(await page.inputValue('#spec'), /^fastv:.*keep=0\.4/, 'the compression after the slider');
  assert.ok((await counts())[2] < half, `expected fewer tokens than ${half}, got ${await counts()}`);

  await page.fill('#spec', 'fastv:layer=99');
  await page.press('#spec', 'Enter');
  await page.waitForFunction(() => document.getElementById('spec-error').textContent !== '', null, SLOW);
  assert.match(await text(page, 'spec-error'), /^compress: expected .*layer.*, got .*99/, 'the error');
  assert.equal(await page.getAttribute('#spec', 'aria-invalid'), 'true', 'the state of the field (got, expected)');
  await scan(page, 'a wrong compression');
  await asked(page);
  await page.waitForFunction(() => document.getElementById('status').dataset.kind === 'fail', null, SLOW);
  assert.equal(await text(page, 'status'), await text(page, 'spec-error'), 'the error of the question (got, expected)');
  await ready(page);
  await page.selectOption('#method', 'none');
  assert.equal(await text(page, 'spec-error'), '', 'the error after another choice (got, expected)');
  await kept(all);

  await page.fill('#spec', 'Stride + FASTV');
  await page.press('#spec', 'Enter');
  await spelled('stride+fastv');
  assert.equal(await page.inputValue('#method'), '', 'the list for two methods (got, expected)');
  await page.selectOption('#other', 'random');
  await page.click('#compare');
  await says(page, 'Compared.');
  assert.match(await text(page, 'comparison'), /compression\s*stride\+fastv\s*random/, 'the comparison');
  await scan(page, 'a comparison');
  assert.deepEqual(complaints, [], 'complaints of the browser (got, expected)');
  await close();
}

// A download without room reports an error, and can be resumed once there is room. Chromium's estimate ignores the limit that
// this check sets.
async function withoutRoom(browser) {
  const { page, complaints, close } = await open(browser, address, PAGE);
  await ready(page);
  const devtools = await page.context().newCDPSession(page);
  const limit = (quotaSize) => devtools.send('Storage.overrideQuotaForOrigin', { origin: new URL(address).origin, quotaSize });
  await limit(1 << 20);
  await page.click('#another summary');
  await page.fill('#address', new URL('demo/', address).href);
  await page.press('#address', 'Enter');
  await page.click('#download');
  await modelSays(page, 'expected room for');
  assert.match(await text(page, 'model-status'), /expected room for 4\.7 MiB more, got none\. What is downloaded is kept/, 'the error');
  await limit(undefined);
  const kept = page.locator('#kept li', { hasText: '/demo' });
  await kept.getByRole('button', { name: 'Resume' }).click();
  await modelSays(page, 'is downloaded');
  await kept.getByRole('button', { name: 'Delete' }).click();
  await modelSays(page, 'is deleted');
  assert.deepEqual(complaints, [], 'complaints of the browser (got, expected)');
  await close();
}

// Downloads a model by its id from a server that plays the hub: the size is shown first, only needed files are fetched, their
// hashes are checked, and the model answers. Every refusal of the hub has its own message.
async function fromHub() {
  const folder = join(dirname(fileURLToPath(import.meta.url)), '../../tests/fixtures/tiny-0');
  const files = {};
  for (const name of await readdir(folder)) files[name] = await readFile(join(folder, name));
  files['additional_chat_templates/default.jinja'] = files['chat_template.jinja'];
  delete files['chat_template.jinja'];
  const needed = Object.keys(files).sort();
  const size = Object.values(files).reduce((bytes, { length }) => bytes + length, 0);
  // Files of the same repository that the engine does not read.
  for (const name of ['README.md', 'model-00001-of-00002.safetensors', 'pytorch_model.bin', 'onnx/model.onnx']) files[name] = Buffer.from('no');
  const id = 'fixtures/tiny-0';
  const served = await hub(id, files);
  const browser = await launch('--disable-gpu');
  // The policy of the worker allows only https on other hosts.
  const before = (page) => page.route(/\/store-worker\.js/, async (route) => {
    const response = await route.fetch();
    const policy = response.headers()['content-security-policy']?.replace('https:', 'https: http:') ?? '';
    await route.fulfill({ response, headers: { ...response.headers(), 'content-security-policy': policy } });
  });
  // Chromium regards a changed script as one from the internet, which needs this permission to reach a server on this machine.
  const permissions = ['local-network-access'];
  const { page, close } = await open(browser, address, `index.html?hub=${served.address}`, { before, permissions });
  await ready(page);
  await page.click('#another summary');
  const list = page.locator('#published li');
  assert.equal(await list.count(), 4, 'published models (got, expected)');
  for (const item of await list.allTextContents()) {
    assert.match(item, /^[\w-]+\/[\w.-]+About [\d.]+ [MG]B\. .*(licence|Apache-2\.0).* tiles?, .*tokens/, 'a published model');
  }
  await scan(page, 'the published models');
  await list.getByRole('button', { name: 'Check: HuggingFaceTB/SmolVLM-256M-Instruct' }).click();
  await modelSays(page, 'HuggingFaceTB/SmolVLM-256M-Instruct: expected a repository of this name and revision, got status 404');

  const look = async (words) => {
    await page.fill('#address', words);
    await page.press('#address', 'Enter');
  };
  const refusals = {
    'fixtures/none': 'expected a repository of this name and revision, got status 404. Check both on',
    'fixtures/tiny-0@other': 'fixtures/tiny-0@other: expected a repository of this name and revision, got status 404',
    'fixtures/gated': `got a gated one. Open ${served.address}/fixtures/gated and accept its terms`,
    'fixtures/private': 'got status 401. There is no such repository, or it is private or gated',
    'fixtures/busy': 'got status 429. The server limits the number of requests',
    'no id': 'expected ORG/NAME, or an address such as',
  };
  for (const [given, words] of Object.entries(refusals)) {
    await look(given);
    await modelSays(page, words);
  }
  await scan(page, 'a refusal of the hub');

  await look(id);
  const words = `${(size / 2 ** 20).toFixed(1)} MiB`;
  await modelSays(page, `${id}: the files have ${words} in all`);
  assert.equal(await text(page, 'download'), `Download ${words}`, 'the button (got, expected)');
  assert.deepEqual([...served.sent], ['model.safetensors'], 'files of which the start is read before the download (got, expected)');
  await scan(page, 'what a model needs');
  await page.click('#download');
  await modelSays(page, `${id} is downloaded`);
  assert.deepEqual([...served.sent].sort(), needed, 'fetched files (got, expected)');
  const kept = page.locator('#kept li', { hasText: id });
  await kept.getByRole('button', { name: 'Use' }).click();
  await page.waitForFunction(() => document.getElementById('demo-note').hidden, null, SLOW);
  await ready(page);
  await asked(page);
  await says(page, 'Answered');

  await look('fixtures/wrong');
  await modelSays(page, 'fixtures/wrong: the files have');
  await page.click('#download');
  await modelSays(page, `model.safetensors: expected ${createHash('sha256').update('another file').digest('hex')}, got`);
  const wrong = page.locator('#kept li', { hasText: 'fixtures/wrong' });
  assert.equal(await wrong.getByRole('button', { name: 'Use' }).count(), 0, 'buttons to use a file with a wrong hash (got, expected)');

  served.close();
  await kept.getByRole('button', { name: 'Verify' }).click();
  await modelSays(page, 'Check the connection');
  await close();
  await browser.close();
}

// Opens another picture during an answer, then asks three questions at once: the final status must match the page's state.
async function hurried(browser) {
  const { page, complaints, close } = await open(browser, address, PAGE);
  await ready(page);
  await asked(page);
  await page.waitForFunction(() => document.body.dataset.state === 'busy', null, SLOW);
  await page.click('#examples button[aria-pressed="false"]');
  await says(page, 'Ready.');
  await ready(page);
  assert.equal(await text(page, 'answer'), '', 'the answer beside another picture (got, expected)');
  for (let i = 0; i < 3; i += 1) await page.press('#question', 'Enter');
  await page.click('#stop');
  await says(page, 'Stopped.');
  await ready(page);
  assert.deepEqual(complaints, [], 'complaints of the browser (got, expected)');
  await close();
}

// A folder with `files` by path: each is its content, or { start, size } for a sparse file with `size` zeros after `start`.
async function folderOf(files) {
  const folder = await mkdtemp(join(tmpdir(), 'fovea-'));
  for (const [path, content] of Object.entries(files)) {
    await mkdir(dirname(join(folder, path)), { recursive: true });
    await writeFile(join(folder, path), content.start ?? content);
    if (content.size) await truncate(join(folder, path), content.start.length + content.size);
  }
  return folder;
}

// A safetensors file with one bf16 tensor of `size` bytes, all zeros.
function zeros(size) {
  const header = Buffer.from(JSON.stringify({ 'language_model.model.embed_tokens.weight': { dtype: 'BF16', shape: [size / 128, 64], data_offsets: [0, size] } }));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  return { start: Buffer.concat([length, header]), size };
}

// A model that does not fit is refused before it is read, and the demo model stays. A model in a folder of the Hugging Face
// cache is found.
async function folders() {
  const browser = await launch('--disable-gpu');
  const { page, close } = await open(browser, address, 'index.html');
  await ready(page);
  await page.click('#another summary');
  const seven = await folderOf({ 'config.json': '{}', 'tokenizer.json': '{}', 'model.safetensors': zeros(13.9e9) });
  await page.setInputFiles('#folder', seven);
  await page.waitForFunction(() => document.getElementById('model-status').textContent.includes('does not fit'), null, SLOW);
  assert.match(await text(page, 'candidate-todo'), /needs 6\.88 GiB in q4, and WebAssembly has 4\.00 GiB/, 'the hint for the model');
  assert.equal(await page.evaluate(() => document.body.dataset.state), 'ready', 'the state (got, expected)');
  // The table has a row for each way to store the weights: 2 bytes per value, and 34 bits per 32 values in a quantised table.
  const table = await text(page, 'candidate-needs');
  for (const row of [/in f32\s*25\.89 GiB/, /in f16\s*12\.95 GiB/, /in q8\s*6\.88 GiB/, /in q4 \(used\)\s*6\.88 GiB/]) {
    assert.match(table, row, 'what the model needs');
  }

  const demo = join(dirname(fileURLToPath(import.meta.url)), '../../model/demo');
  const files = { 'refs/main': 'abc\n', 'snapshots/def/config.json': '{}' };
  for (const name of await readdir(demo)) files[`snapshots/abc/${name}`] = await readFile(join(demo, name));
  await page.setInputFiles('#folder', await folderOf(files));
  // The status of the demo model is the same, so wait for the other model first.
  await page.waitForFunction(() => document.getElementById('demo-note').hidden, null, SLOW);
  await ready(page);
  await says(page, 'Ready, on CPU');
  await asked(page);
  await answered(page);
  await close();
  await browser.close();
}

// Quantised weights: the status names them, q8 gives the answer of f32, and q4 gives an answer.
async function quantised(browser) {
  const { page, complaints, close } = await open(browser, address, PAGE);
  await ready(page);
  const sizes = [];
  // The page begins with f32: this GPU has no f16.
  for (const weights of ['f32', 'q8', 'q4']) {
    if (weights !== 'f32') await page.selectOption('#weights', weights);
    await page.waitForFunction((end) => document.getElementById('status').textContent.includes(end), ` of weights in ${weights}.`, SLOW);
    sizes.push(Number((await text(page, 'status')).match(/([\d.]+) MiB of weights/)[1]));
    await ready(page);
    await asked(page);
    if (weights === 'q4') await says(page, 'Answered');
    else await answered(page);
    assert.match(await text(page, 'cost'), new RegExp(`MiB \\(${weights}\\)`), 'the weights in the table');
  }
  assert.ok(sizes[0] > sizes[1] && sizes[1] > sizes[2], `expected fewer MiB from f32 to q4, got ${sizes}`);
  await scan(page, 'quantised weights');
  assert.deepEqual(complaints, [], 'complaints of the browser (got, expected)');
  await close();
}

// A picture from the camera is opened.
async function photographed() {
  const browser = await launch('--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream');
  const { page, complaints, close } = await open(browser, address, 'index.html');
  await page.click('#webcam');
  await page.waitForFunction(() => document.getElementById('viewed').videoWidth > 0, null, SLOW);
  const light = await page.evaluateHandle(() => document.getElementById('viewed').srcObject.getTracks()[0]);
  await page.click('#snap');
  await page.waitForFunction(() => document.getElementById('picture').alt === 'Your picture from the camera', null, SLOW);
  assert.ok(await page.evaluate(() => document.getElementById('picture').naturalWidth) > 0, 'expected a picture from the camera');
  assert.equal(await light.evaluate((track) => track.readyState), 'ended', 'the camera afterwards (got, expected)');
  assert.deepEqual(complaints, [], 'complaints of the browser (got, expected)');
  await close();
  await browser.close();
}

// Without WebGPU, or with a software GPU, the page shows a hint and answers on the CPU.
async function withoutGpu() {
  const cases = [
    [['--disable-gpu'], /^No WebGPU here: .*Answers are computed on the CPU, which is slower/],
    [GPU, /only a software GPU, so answers are computed on the CPU/],
  ];
  for (const [flags, words] of cases) {
    const browser = await launch(...flags);
    const { page, close } = await open(browser, address, 'index.html');
    await ready(page);
    assert.match(await text(page, 'gpu-hint'), words, 'the hint about the GPU');
    await asked(page);
    await answered(page);
    assert.match(await text(page, 'cost'), /CPU, 1 thread/, 'the device');
    await close();
    await browser.close();
  }
}

// Without WebAssembly a recording is played, marked as a recording.
async function withoutEngine(browser) {
  const before = (page) => page.addInitScript(() => { delete globalThis.WebAssembly; });
  const { page, complaints, close } = await open(browser, address, 'index.html', { before });
  await page.waitForFunction(() => document.getElementById('overlay').naturalWidth > 0, null, SLOW);
  assert.match(await text(page, 'status'), /expected WebAssembly, got none/, 'the status');
  assert.match(await text(page, 'recording'), /nothing is computed here.*recorded/s, 'the note about the recording');
  for (const id of ['recording', 'recorded']) assert.ok(await page.isVisible(`#${id}`), `expected ${id} to be visible`);
  assert.ok(await page.isDisabled('#question'), 'expected a disabled question');
  await page.click(`#recording-questions button:text-is("${QUESTION}")`);
  await page.waitForFunction((answer) => document.getElementById('answer').textContent === answer, ANSWER, SLOW);
  await page.waitForFunction(() => document.getElementById('overlay').alt.startsWith('Recorded'), null, SLOW);
  await scan(page, 'a recording');
  assert.deepEqual(complaints, [], 'complaints of the browser (got, expected)');
  await close();
}

// Destroys the worker's GPU device after the first token of an answer. `route` puts this before the script of the first worker.
const DESTROYED = `{
  const devices = [];
  const request = GPUAdapter.prototype.requestDevice;
  GPUAdapter.prototype.requestDevice = async function (...given) {
    const device = await request.apply(this, given);
    devices.push(device);
    return device;
  };
  const send = self.postMessage.bind(self);
  self.postMessage = (message, ...rest) => {
    send(message, ...rest);
    if (message.event?.token) devices.forEach((device) => device.destroy());
  };
}`;

async function lostWhileAnswering(browser) {
  let workers = 0;
  const before = (page) => page.route('**/engine-worker.js', async (route) => {
    workers += 1;
    if (workers > 1) return route.continue();
    const response = await route.fetch();
    return route.fulfill({ response, body: `${DESTROYED}${await response.text()}` });
  });
  const { page, close } = await open(browser, address, PAGE, { before });
  await ready(page);
  await asked(page);
  await answered(page, true);
  assert.equal(workers, 2, 'workers (got, expected)');
  await close();
}

// The browser's GPU process crashes while the page waits for a question.
async function lostBetweenQuestions() {
  const browser = await launch(...GPU);
  let workers = 0;
  const before = async (page) => page.on('worker', () => { workers += 1; });
  const { page, close } = await open(browser, address, PAGE, { before });
  await ready(page);
  await asked(page);
  await answered(page);
  const started = workers;
  await (await browser.newBrowserCDPSession()).send('Browser.crashGpuProcess');
  await asked(page);
  await page.waitForFunction(() => document.body.dataset.state === 'busy', null, SLOW);
  await answered(page, true);
  assert.equal(workers - started, 1, 'workers after the crash (got, expected)');
  await close();
  await browser.close();
}

// Fails on anything that axe reports, in light and dark mode.
async function scan(page, where) {
  // Evaluated, because the page's policy blocks it as a script.
  await page.evaluate(await readFile(axe(), 'utf8'));
  for (const colorScheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
    const wrong = await page.evaluate(async () => (await globalThis.axe.run()).violations.map(
      ({ id, impact, nodes }) => ({ id, impact, where: nodes.map(({ html }) => html) }),
    ));
    assert.deepEqual(wrong, [], `${where}, ${colorScheme}: what axe finds (got, expected)`);
  }
  await page.emulateMedia({ colorScheme: null, reducedMotion: null });
}

// Scans the states that no other check scans.
async function accessible(browser) {
  for (const name of [PAGE, 'conformance.html']) {
    const { page, close } = await open(browser, address, name);
    await scan(page, `${name} as it loads`);
    if (name === PAGE) {
      await page.evaluate(() => document.getElementById('viewfinder').showModal());
      await scan(page, 'the camera');
    }
    await close();
  }
}

const checks = {
  byKeyboard, methods, unblocked, hurried, quantised, withoutRoom, fromHub, folders, photographed, withoutGpu, withoutEngine, lostWhileAnswering, lostBetweenQuestions, accessible,
};
assert.ok(!only || only in checks, `expected --only to be one of ${Object.keys(checks).join(', ')}, got ${only}`);
const browser = await launch(...GPU);
try {
  for (const [name, check] of Object.entries(checks)) {
    if (only && only !== name) continue;
    const started = performance.now();
    await check(browser);
    console.log(`${name}: ok, ${((performance.now() - started) / 1000).toFixed(1)} s`);
  }
  console.log('page: ok');
} finally {
  await browser.close();
}
