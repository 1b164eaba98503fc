// Checks of the demo page in headless Chromium, with the actions of a user: keyboard only, stop and ask again, several turns, pointer,
// methods of compression, camera, threads, quantised weights, KV cache, memory limit, what is remembered, no network, a phone, full
// storage, models from the Hugging Face hub and in GGUF, a server's engine, no WebGPU, no WebAssembly, lost GPU, accessibility (axe).
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
import { proxy } from './proxy.mjs';
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
const shownTurns = (page) => page.locator('.turn').count();
const lastAnswer = (page) => page.textContent('.turn:last-child .text');

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
  assert.equal(await lastAnswer(page), ANSWER, 'the answer (got, expected)');
}

// Presses a button of a turn; -1 is the last one.
const inTurn = (page, index, name) => page.locator('.turn').nth(index).getByRole('button', { name, exact: true }).click();

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
  assert.equal(await page.textContent('.turn:last-child .note'), 'Stopped.', 'the mark of the answer (got, expected)');

  await page.focus('#question');
  await page.keyboard.press('ArrowUp');
  assert.equal(await page.inputValue('#question'), QUESTION, 'the question after Arrow Up (got, expected)');
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
  // The legend is before the picture.
  for (let i = 0; i < 2; i += 1) await page.keyboard.press('Tab');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'probe', 'what follows the legend (got, expected)');
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

// The pixels of the overlays of a comparison, as addresses of data.
const drawings = (page) => page.locator('#overlays img').evaluateAll((images) => images.map((image) => {
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  canvas.getContext('2d').drawImage(image, 0, 0);
  return canvas.toDataURL();
}));

// Another method: the next question uses it, and the overlay of the last question follows. A wrong compression is an error. Two
// methods are compared, then one method with two settings.
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
  // Until then the status has the error of the question.
  await page.waitForFunction(() => document.getElementById('status').textContent.startsWith('The overlay shows'), null, SLOW);

  await page.fill('#spec', 'Stride + FASTV');
  await page.press('#spec', 'Enter');
  await spelled('stride+fastv');
  assert.equal(await page.inputValue('#method'), '', 'the list for two methods (got, expected)');
  await page.selectOption('#other', 'random');
  await page.click('#compare');
  await says(page, 'Compared.');
  assert.match(await text(page, 'comparison'), /compression\s*stride\+fastv\s*random/, 'the comparison');
  assert.match(await text(page, 'overlays'), /^As set \(stride\+fastv\).+ \(random\)$/, 'the captions of the overlays');
  const differ = async () => {
    const drawn = await drawings(page);
    assert.equal(drawn.length, 2, 'overlays (got, expected)');
    assert.ok(drawn[0] !== drawn[1], 'expected two overlays that differ, got the same');
  };
  await differ();
  await scan(page, 'a comparison');
  await page.fill('#other-spec', 'fastv:layer=99');
  await page.press('#other-spec', 'Enter');
  await page.waitForFunction(() => document.getElementById('other-spec-error').textContent !== '', null, SLOW);
  await page.waitForFunction(() => document.getElementById('status').dataset.kind === 'fail', null, SLOW);
  assert.equal(await text(page, 'status'), await text(page, 'other-spec-error'), 'the error of the comparison (got, expected)');
  await scan(page, 'a wrong compression to compare with');
  await ready(page);
  await page.fill('#other-spec', 'Stride:rows=3 + FASTV');
  await page.press('#other-spec', 'Enter');
  await page.waitForFunction(() => document.getElementById('status').textContent === 'Compared.', null, SLOW);
  assert.match(await text(page, 'comparison'), /compression\s*stride\+fastv\s*stride:rows=3\+fastv/, 'the comparison of two settings');
  assert.deepEqual([await page.inputValue('#other'), await text(page, 'other-spec-error')], ['', ''], 'the list and the error (got, expected)');
  await differ();
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

// Opens the page with a server on this machine as the hub.
function openWithHub(browser, served) {
  // The policy of the worker allows only https on other hosts.
  const before = (page) => page.route(/\/store-worker\.js/, async (route) => {
    const response = await route.fetch();
    const policy = response.headers()['content-security-policy']?.replace('https:', 'https: http:') ?? '';
    await route.fulfill({ response, headers: { ...response.headers(), 'content-security-policy': policy } });
  });
  // Chromium regards a changed script as one from the internet, which needs this permission to reach a server on this machine.
  return open(browser, address, `index.html?hub=${served.address}`, { before, permissions: ['local-network-access'] });
}

// Types an address into the section "Another model".
async function look(page, words) {
  await page.fill('#address', words);
  await page.press('#address', 'Enter');
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
  const { page, close } = await openWithHub(browser, served);
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

  const refusals = {
    'fixtures/none': 'expected a repository of this name and revision, got status 404. Check both on',
    'fixtures/tiny-0@other': 'fixtures/tiny-0@other: expected a repository of this name and revision, got status 404',
    'fixtures/gated': `got a gated one. Open ${served.address}/fixtures/gated and accept its terms`,
    'fixtures/private': 'got status 401. There is no such repository, or it is private or gated',
    'fixtures/busy': 'got status 429. The server limits the number of requests',
    'no id': 'expected ORG/NAME, or an address such as',
  };
  for (const [given, words] of Object.entries(refusals)) {
    await look(page, given);
    await modelSays(page, words);
  }
  await scan(page, 'a refusal of the hub');

  await look(page, id);
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

  await look(page, 'fixtures/wrong');
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
  await page.fill('#question', 'Is this kept?');
  await page.click('#examples button[aria-pressed="false"]');
  await says(page, 'Ready.');
  await ready(page);
  assert.equal(await shownTurns(page), 0, 'turns beside another picture (got, expected)');
  assert.equal(await page.inputValue('#question'), 'Is this kept?', 'the typed question (got, expected)');
  await page.fill('#question', '   ');
  await page.press('#question', 'Enter');
  assert.equal(await shownTurns(page), 0, 'turns after an empty question (got, expected)');
  await page.fill('#question', QUESTION);
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
  await page.waitForFunction(() => /^Ready: fovea-\w+, on CPU/.test(document.getElementById('status').textContent), null, SLOW);
  await asked(page);
  await answered(page);
  await close();
  await browser.close();
}

// A checkpoint in GGUF answers, from a folder, from dropped files, and from the hub, where one of several text models is chosen. Files
// that are no checkpoint are refused before they are loaded or downloaded, and the demo model stays.
async function inGguf() {
  const fixture = join(dirname(fileURLToPath(import.meta.url)), '../../tests/fixtures/gguf/qwen2-0');
  const [words, vision] = await Promise.all(['text.gguf', 'mmproj.gguf'].map((name) => readFile(join(fixture, name))));
  const several = { 'llava.Q8_0.gguf': words, 'llava.Q4_K_M.gguf': words, 'mmproj-F16.gguf': vision, 'mmproj-F32.gguf': vision };
  const id = 'fixtures/gguf';
  const served = await hub(id, { ...several, 'config.json': Buffer.from('{}'), 'README.md': Buffer.from('no') });
  const browser = await launch('--disable-gpu');
  const { page, complaints, close } = await openWithHub(browser, served);
  await ready(page);
  await page.click('#another summary');
  const answers = async () => {
    await page.waitForFunction(() => document.getElementById('demo-note').hidden, null, SLOW);
    await ready(page);
    await page.waitForFunction(() => document.getElementById('status').textContent.includes(' of weights in q8,'), null, SLOW);
    await asked(page);
    await says(page, 'Answered');
    await ready(page);
  };
  const refused = [
    [several, /: expected one text model, got 2\. The GGUF files are .*llava\.Q8_0\.gguf.* Open a folder with one text model and its mmproj file/],
    [{ 'a.gguf': words }, /: expected one mmproj file, got none/],
    [{ 'a.gguf': words, 'b.gguf': words }, /: expected one text model and one mmproj file, got 2 and 0/],
    [{ 'a.gguf': words.subarray(0, 100_000), 'mmproj.gguf': vision }, /^a\.gguf: expected at least \d+ bytes, got 100000\. The file is truncated/],
    [{ 'a.gguf': Buffer.from('no model'), 'mmproj.gguf': vision }, /^a\.gguf: expected a GGUF file/],
  ];
  for (const [files, sentence] of refused) {
    await page.setInputFiles('#folder', await folderOf(files));
    await page.waitForFunction(() => document.getElementById('model-status').dataset.kind === 'fail' && !document.getElementById('shelf').disabled, null, SLOW);
    assert.match(await text(page, 'model-status'), sentence, 'the refusal');
    assert.equal(await page.isVisible('#demo-note'), true, 'the note about the demo model (got, expected)');
  }
  await scan(page, 'a refused folder');
  // config.json is not read.
  await page.setInputFiles('#folder', await folderOf({ 'a.gguf': words, 'mmproj.gguf': vision, 'config.json': 'no' }));
  await answers();
  assert.match(await text(page, 'candidate-needs'), /in f32\s*0\.9 MiB.*in q8 \(used\)\s*0\.3 MiB/, 'what the model needs');

  const use = (title) => page.locator('#kept li', { hasText: title }).getByRole('button', { name: 'Use' }).click();
  await use('The demo model');
  await page.waitForSelector('#demo-note:visible');
  await ready(page);
  await page.evaluate((files) => {
    const dataTransfer = new DataTransfer();
    for (const [name, text] of Object.entries(files)) {
      dataTransfer.items.add(new File([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))], name));
    }
    document.body.dispatchEvent(new DragEvent('drop', { dataTransfer, bubbles: true, cancelable: true }));
  }, { 'a.gguf': words.toString('base64'), 'mmproj.gguf': vision.toString('base64') });
  await answers();

  await look(page, id);
  await modelSays(page, `${id}: expected one text model, got 2. The GGUF files are`);
  assert.match(await text(page, 'model-status'), /Choose one with ORG\/NAME:FILE/, 'what to do');
  await look(page, `${id}:Q2_K`);
  await modelSays(page, 'expected one text model with the name `Q2_K`, got none');
  await look(page, `${id}:q8_0`);
  await modelSays(page, `${id}:q8_0: the files have 0.3 MiB in all`);
  await page.click('#download');
  await modelSays(page, `${id}:q8_0 is downloaded`);
  assert.deepEqual([...served.sent].sort(), ['llava.Q8_0.gguf', 'mmproj-F16.gguf'], 'fetched files (got, expected)');
  await use('The demo model');
  await page.waitForSelector('#demo-note:visible');
  await ready(page);
  await use(`${id}:q8_0`);
  await answers();
  assert.deepEqual(complaints, [], 'complaints of the browser (got, expected)');
  await close();
  await browser.close();
  served.close();
}

// Quantised weights: the status names them, q8 gives the answer of f32, and q4 gives an answer.
async function quantised(browser) {
  const { page, complaints, close } = await open(browser, address, PAGE);
  await ready(page);
  const sizes = [];
  // The page begins with f32: this GPU has no f16.
  for (const weights of ['f32', 'q8', 'q4']) {
    if (weights !== 'f32') await page.selectOption('#weights', weights);
    await page.waitForFunction((end) => document.getElementById('status').textContent.includes(end), ` of weights in ${weights},`, SLOW);
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

// The KV cache in f16 needs less memory than in f32, with the same answer. A text that is no size, and a memory limit that is too
// small, are errors; without a limit the model is loaded again. The choices are remembered.
async function limited() {
  const browser = await launch('--disable-gpu');
  const { page, complaints, close } = await open(browser, address, 'index.html');
  await ready(page);
  const shows = (words) => page.waitForFunction((some) => document.getElementById('status').textContent.includes(some), words, SLOW);
  const limit = async (size) => {
    await page.fill('#memory', size);
    await page.press('#memory', 'Enter');
  };
  const caches = [];
  for (const cache of ['f16', 'f32']) {
    await page.selectOption('#cache', cache);
    await shows(`KV cache in ${cache}.`);
    await ready(page);
    await asked(page);
    await answered(page);
    const done = JSON.parse(await text(page, 'json'));
    assert.equal(done.cache, cache, 'the KV cache of the answer (got, expected)');
    caches.push(done.memory_bytes.kv_cache);
  }
  assert.ok(caches[0] < caches[1], `expected fewer bytes in f16 than in f32, got ${caches}`);

  await limit('6X');
  await page.waitForFunction(() => document.getElementById('memory-error').textContent !== '', null, SLOW);
  assert.match(await text(page, 'memory-error'), /^memory: expected a number of bytes, or .* such as 6GB or 500MiB, got 6X\.$/, 'the error');
  assert.equal(await page.getAttribute('#memory', 'aria-invalid'), 'true', 'the state of the field (got, expected)');
  await scan(page, 'a memory limit that is no size');
  await limit('1MB');
  await page.waitForFunction(() => document.getElementById('status').dataset.kind === 'fail', null, SLOW);
  assert.match(await text(page, 'status'), /^not enough memory for .*: needs .*, available 976\.5 KiB; .* larger --memory$/, 'the status');
  assert.equal(await text(page, 'memory-error'), '', 'the error after another limit (got, expected)');
  await limit('1 GiB');
  await shows('KV cache in f32, at most 1.00 GiB of memory.');
  await page.reload();
  await shows('KV cache in f32, at most 1.00 GiB of memory.');
  await ready(page);
  assert.deepEqual([await page.inputValue('#cache'), await page.inputValue('#memory')], ['f32', '1 GiB'], 'after a reload (got, expected)');
  await limit('');
  await shows('KV cache in f32.');
  const code = await page.evaluate(async () => {
    const { Fovea } = await import(new URL('fovea.js', document.baseURI).href);
    return Fovea.create({ cpu: true, memory: 1e6 }).then(() => 'none', (why) => why.code);
  });
  assert.equal(code, 'memory', 'the code of the error (got, expected)');
  assert.deepEqual(complaints, [], 'complaints of the browser (got, expected)');
  await close();
  await browser.close();
}

// An engine on the CPU with two threads gives the answer of one with one thread, where the page is isolated from other origins.
// Elsewhere there is one thread. The page shows how many there are.
async function threads() {
  const browser = await launch('--disable-gpu');
  const asks = (page, each) => page.evaluate(async ([threads, question]) => {
    const { Fovea } = await import(new URL('fovea.js', document.baseURI).href);
    const engine = await Fovea.create({ cpu: true, dtype: 'f32', threads });
    const sight = await engine.lookAt(await (await fetch('pictures/rack.jpg')).blob());
    let done;
    for await (const event of sight.ask(question, { maxNewTokens: 16 })) done = event.done ?? done;
    engine.dispose();
    const { about } = engine;
    return { threads: about.threads, device: about.device, done };
  }, [each, QUESTION]);
  const isolated = (page) => page.evaluate(() => globalThis.crossOriginIsolated);

  const { page, complaints, close } = await open(browser, address, 'index.html?threads=2');
  await says(page, 'Ready: the demo model, on CPU, 2 threads');
  await ready(page);
  assert.equal(await isolated(page), true, 'the isolation of the page (got, expected)');
  await asked(page);
  await answered(page);
  assert.match(await text(page, 'cost'), /CPU, 2 threads/, 'the device in the table');
  const [one, two] = [await asks(page, 1), await asks(page, 2)];
  assert.deepEqual([one.threads, two.threads], [1, 2], 'threads (got, expected)');
  assert.deepEqual([one.device, two.device, two.done.device], ['CPU, 1 thread', 'CPU, 2 threads', 'CPU, 2 threads'], 'devices (got, expected)');
  assert.equal(one.done.answer.trim(), ANSWER, 'the answer (got, expected)');
  const same = ({ answer, answer_ids, tokens }) => ({ answer, answer_ids, tokens });
  assert.deepEqual(same(two.done), same(one.done), 'the answer with two threads (got, expected)');
  const refused = await page.evaluate(async () => {
    const { Fovea } = await import(new URL('fovea.js', document.baseURI).href);
    return Fovea.create({ cpu: true, threads: 0 }).then(() => null, ({ message, code }) => ({ message, code }));
  });
  assert.deepEqual(refused, { message: 'threads: expected a whole number from 1 to 64, got 0.', code: 'option' }, 'no thread (got, expected)');
  // The demo model is too small for threads that nobody asked for.
  assert.equal((await asks(page)).threads, 1, 'threads for a small model (got, expected)');
  assert.deepEqual(complaints, [], 'complaints of the browser (got, expected)');
  await close();

  // Without a helper's script the engine works alone.
  const before = (page) => page.route('**/helpers.js', async (route) => {
    const response = await route.fetch();
    await route.fulfill({ response, body: (await response.text()).replace('./helper-worker.js', './none.js') });
  });
  const alone = await open(browser, address, 'index.html', { before });
  await ready(alone.page);
  const { threads: left, done } = await asks(alone.page, 2);
  assert.deepEqual([left, done.answer.trim()], [1, ANSWER], 'threads and answer without helpers (got, expected)');
  await alone.close();

  const served = await proxy(address);
  const elsewhere = await open(browser, served.address, 'index.html');
  await ready(elsewhere.page);
  assert.equal(await isolated(elsewhere.page), false, 'the isolation of the page (got, expected)');
  assert.equal((await asks(elsewhere.page, 2)).threads, 1, 'threads of a page that is not isolated (got, expected)');
  await elsewhere.close();
  await browser.close();
  served.close();
}

// While a buffer is mapped, Firefox gets empty submits, and no other browser does.
async function readBacks(browser) {
  for (const [userAgent, wanted] of [['Mozilla/5.0 Gecko/20100101 Firefox/153.0', true], [undefined, false]]) {
    const { page, complaints, close } = await open(browser, address, 'conformance.html', { userAgent });
    const [during, after] = await page.evaluate(async () => {
      await import(new URL('readback.js', document.baseURI).href);
      const device = await (await navigator.gpu.requestAdapter()).requestDevice();
      let empty = 0;
      const { submit } = GPUQueue.prototype;
      GPUQueue.prototype.submit = function count(lists) {
        empty += Number(lists.length === 0);
        return submit.call(this, lists);
      };
      // Takes a second on a software GPU.
      const code = `@group(0) @binding(0) var<storage, read_write> out: array<u32>;
        @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) at: vec3<u32>) {
          var x = at.x;
          for (var i = 0u; i < 4000000u + at.x; i++) { x = x * 1664525u + i; }
          out[at.x] = x;
        }`;
      const module = device.createShaderModule({ code });
      const pipeline = await device.createComputePipelineAsync({ layout: 'auto', compute: { module } });
      const buffer = (usage) => device.createBuffer({ size: 1024, usage });
      const out = buffer(GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC);
      const read = buffer(GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST);
      const entries = [{ binding: 0, resource: { buffer: out } }];
      const encoder = device.createCommandEncoder();
      const pass = encoder.beginComputePass();
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }));
      pass.dispatchWorkgroups(4);
      pass.end();
      encoder.copyBufferToBuffer(out, 0, read, 0, 1024);
      device.queue.submit([encoder.finish()]);
      await read.mapAsync(GPUMapMode.READ);
      const during = empty;
      await new Promise((ended) => { setTimeout(ended, 100); });
      return [during, empty - during];
    });
    assert.equal(during > 0, wanted, `${userAgent}: empty submits while a buffer is mapped (${during})`);
    assert.equal(after, 0, `${userAgent}: empty submits afterwards (got, expected)`);
    assert.deepEqual(complaints, [], 'complaints of the browser (got, expected)');
    await close();
  }
}

// A picture from the camera is opened.
async function photographed() {
  const browser = await launch('--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream');
  const { page, complaints, close } = await open(browser, address, 'index.html');
  // Afterwards the loading does not set the status any more.
  await ready(page);
  await page.click('#webcam');
  await page.waitForFunction(() => document.getElementById('viewed').videoWidth > 0, null, SLOW);
  const light = await page.evaluateHandle(() => document.getElementById('viewed').srcObject.getTracks()[0]);
  await page.click('#snap');
  await page.waitForFunction(() => document.getElementById('picture').alt === 'Your picture from the camera', null, SLOW);
  assert.ok(await page.evaluate(() => document.getElementById('picture').naturalWidth) > 0, 'expected a picture from the camera');
  assert.equal(await light.evaluate((track) => track.readyState), 'ended', 'the camera afterwards (got, expected)');
  // By its address, pasted outside of a field.
  const pasted = (text) => page.evaluate((words) => {
    const clipboardData = new DataTransfer();
    clipboardData.setData('text/plain', words);
    document.body.dispatchEvent(new ClipboardEvent('paste', { clipboardData, bubbles: true, cancelable: true }));
  }, text);
  const example = await page.evaluate(() => new URL(document.querySelector('#examples img').src).href);
  await pasted(example);
  await page.waitForFunction((name) => document.getElementById('picture').alt === `Your picture ${name}`, example.split('/').at(-1), SLOW);
  await pasted(`${address}none.png`);
  await page.waitForFunction(() => /none\.png: expected a picture, got the status 404/.test(document.getElementById('status').textContent), null, SLOW);
  assert.deepEqual(complaints.filter((words) => !words.includes('404')), [], 'complaints of the browser (got, expected)');
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

// A file of the engine or the model does not arrive: the page says so, plays no recording, and tries again.
async function unreachable() {
  const browser = await launch('--disable-gpu');
  for (const file of ['**/engine-worker.js', '**/*.wasm', '**/demo/model.safetensors']) {
    const { page, close } = await open(browser, address, 'index.html', { before: (page) => page.route(file, (route) => route.abort()) });
    await page.waitForSelector('#retry:visible');
    assert.match(await text(page, 'status'), /expected .* got .*\. Check the connection, then try again\.$/, file);
    assert.deepEqual([await page.isVisible('#recording'), await page.isVisible('#cpu')], [false, false], `${file}: recording and CPU (got, expected)`);
    await page.unroute(file);
    await page.click('#retry');
    await ready(page);
    await asked(page);
    await answered(page);
    await close();
  }
  await browser.close();
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
  await page.waitForFunction((answer) => document.querySelector('.turn .text')?.textContent === answer, ANSWER, SLOW);
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

// Several turns: the model reads the turns so far only if it shall. A question is edited, an answer copied and computed again.
async function conversation() {
  const browser = await launch('--disable-gpu');
  const before = (page) => page.addInitScript(() => {
    globalThis.asked = [];
    const post = Worker.prototype.postMessage;
    Worker.prototype.postMessage = function postMessage(message, ...rest) {
      if (message.call === 'ask') globalThis.asked.push({ messages: JSON.parse(message.messages), options: JSON.parse(message.options) });
      post.call(this, message, ...rest);
    };
  });
  const permissions = ['clipboard-read', 'clipboard-write'];
  const { page, complaints, close } = await open(browser, address, 'index.html', { before, permissions });
  await ready(page);
  const until = async (act) => {
    const count = await page.evaluate(() => globalThis.asked.length);
    await act();
    await page.waitForFunction((most) => globalThis.asked.length > most, count, SLOW);
    await says(page, 'Answered');
    await ready(page);
  };
  const ask = (question) => until(async () => {
    await page.fill('#question', question);
    await page.press('#question', 'Enter');
  });
  const sent = () => page.evaluate(() => globalThis.asked.at(-1));
  const roles = async () => (await sent()).messages.map(({ role }) => role).join(' ');
  await page.uncheck('#remembers');
  await ask(QUESTION);
  assert.equal(await page.inputValue('#question'), '', 'the field after a question (got, expected)');
  await ask('How many triangles are there?');
  assert.equal(await roles(), 'user', 'messages without memory (got, expected)');
  await page.check('#remembers');
  await ask('Is there a red circle?');
  assert.equal(await roles(), 'user assistant user assistant user', 'messages with memory (got, expected)');
  const { messages } = await sent();
  assert.deepEqual(messages.slice(0, 2).map(({ content }) => content.trim()), [QUESTION, ANSWER], 'the first turn (got, expected)');
  assert.equal(await shownTurns(page), 3, 'turns (got, expected)');
  await scan(page, 'a conversation');

  await inTurn(page, 0, 'Copy');
  await page.locator('.turn').first().getByRole('button', { name: 'Copied' }).waitFor();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), ANSWER, 'the copied answer (got, expected)');
  await inTurn(page, 1, 'Edit');
  assert.equal(await page.inputValue('#question'), 'How many triangles are there?', 'the question to edit (got, expected)');
  await page.press('#question', 'Escape');
  assert.equal(await page.isVisible('#editing'), false, 'the editing after Escape (got, expected)');
  await inTurn(page, 1, 'Edit');
  await ask('How many stars are there?');
  assert.deepEqual([await shownTurns(page), await roles()], [2, 'user assistant user'], 'after an edited question (got, expected)');
  await page.click('#answering summary');
  await page.fill('#system', 'Answer with one word.');
  await page.fill('#length', '1');
  await page.fill('#temperature', '0.5');
  await until(() => inTurn(page, -1, 'Ask again'));
  assert.deepEqual([await shownTurns(page), await roles()], [2, 'system user assistant user'], 'an answer again (got, expected)');
  const { options } = await sent();
  assert.deepEqual([options.max_new_tokens, options.temperature], [1, 0.5], 'the options (got, expected)');
  assert.ok(Number.isSafeInteger(options.seed), `expected a seed, got ${options.seed}`);
  assert.match(await page.textContent('.turn:last-child .note'), /^Cut off/, 'the mark of a cut answer');
  await scan(page, 'answer settings');
  await page.click('#begin-again');
  await says(page, 'A new conversation.');
  assert.equal(await shownTurns(page), 0, 'turns of a new conversation (got, expected)');
  assert.deepEqual(complaints, [], 'complaints of the browser (got, expected)');
  await close();
  await browser.close();
}

// An AVIF file of 2x2 pixels, which the engine does not decode.
const AVIF = `AAAAIGZ0eXBhdmlmAAAAAGF2aWZtaWYxbWlhZk1BMUIAAADybWV0YQAAAAAAAAAoaGRscgAAAAAAAAAAcGljdAAAAAAAAAAAAAAAAGxpYmF2aWYAAAAADnBpdG0A
AAAAAAEAAAAeaWxvYwAAAABEAAABAAEAAAABAAABGgAAAB0AAAAoaWluZgAAAAAAAQAAABppbmZlAgAAAAABAABhdjAxQ29sb3IAAAAAamlwcnAAAABLaXBjbwAAABRp
c3BlAAAAAAAAAAIAAAACAAAAEHBpeGkAAAAAAwgICAAAAAxhdjFDgQ0MAAAAABNjb2xybmNseAACAAIAAYAAAAAXaXBtYQAAAAAAAAABAAEEAQKDBAAAACVtZGF0EgAK
CBgANogQEAwgMg8f8D///8WfhwB8+ErK42A=`;

// After a reload the page has the same picture, conversation and settings; all of it can be deleted. Without storage the page
// works, too. A picture in a format of the browser is opened.
async function remembered() {
  const browser = await launch('--disable-gpu');
  const { page, complaints, close } = await open(browser, address, 'index.html');
  await ready(page);
  await page.setInputFiles('#file', { name: 'small.avif', mimeType: 'image/avif', buffer: Buffer.from(AVIF, 'base64') });
  await page.waitForFunction(() => document.getElementById('picture').alt === 'Your picture small.avif', null, SLOW);
  await ready(page);
  await page.fill('#question', QUESTION);
  await page.press('#question', 'Enter');
  await says(page, 'Answered');
  await ready(page);
  await page.selectOption('#method', 'none');
  await page.click('#answering summary');
  await page.fill('#length', '7');
  await page.reload();
  await ready(page);
  await page.waitForFunction(() => document.getElementById('picture').alt === 'Your picture small.avif', null, SLOW);
  assert.equal(await shownTurns(page), 1, 'turns after a reload (got, expected)');
  const kept = [await page.inputValue('#length'), await page.inputValue('#spec'), await page.inputValue('#question')];
  assert.deepEqual(kept, ['7', 'none', ''], 'length, compression and question after a reload (got, expected)');
  await page.click('#stored summary');
  await page.locator('#stored-list').getByRole('button', { name: 'Forget: The conversation' }).click();
  await page.waitForFunction(() => !document.getElementById('stored-list').textContent.includes('conversation'), null, SLOW);
  assert.match(await text(page, 'stored-list'), /Settings\d+ KiB.*The picture small\.avif\d+ KiB/, 'what is stored');
  await scan(page, 'what is stored');
  page.once('dialog', (dialog) => dialog.accept());
  await page.click('#forget');
  await page.waitForFunction(() => document.getElementById('stored-list').children.length === 0, null, SLOW);
  await page.reload();
  await ready(page);
  assert.deepEqual([await shownTurns(page), await page.inputValue('#length')], [0, '256'], 'turns and length at first (got, expected)');
  assert.deepEqual(complaints, [], 'complaints of the browser (got, expected)');
  await close();

  const before = (page) => page.addInitScript(() => {
    for (const name of ['localStorage', 'indexedDB', 'caches']) {
      Object.defineProperty(globalThis, name, { get() { throw new DOMException('no storage', 'SecurityError'); } });
    }
    navigator.storage.getDirectory = () => Promise.reject(new DOMException('no storage', 'SecurityError'));
  });
  const without = await open(browser, address, 'index.html', { before });
  await ready(without.page);
  await asked(without.page);
  await answered(without.page);
  await without.page.click('#stored summary');
  await without.page.waitForSelector('#stored-nothing:not([hidden])');
  assert.deepEqual(without.complaints, [], 'complaints of a browser without storage (got, expected)');
  await without.close();
  await browser.close();
}

// After the first visit the page answers without a network, from a folder of a host. A new version is stored beside the old one,
// and used from the next load.
async function offline() {
  const served = await proxy(address);
  const browser = await launch('--disable-gpu');
  const { page, complaints, close } = await open(browser, served.address, '', { serviceWorkers: 'allow' });
  await ready(page);
  await page.waitForSelector('#offline:not([hidden])');
  assert.match(await text(page, 'offline-is'), /works without a network/, 'the note about the network');
  served.cut(true);
  await page.reload();
  await ready(page);
  await asked(page);
  await answered(page);
  await page.click('#stored summary');
  await page.waitForFunction(() => document.getElementById('stored-list').children.length > 0, null, SLOW);
  assert.match(await text(page, 'stored-list'), /The page, for use without a network.*MiB/, 'what is stored');
  served.cut(false);

  const list = await (await fetch(new URL('files.json', address))).json();
  const changed = (await (await fetch(new URL('index.html', address))).text()).replace('<title>', '<title>New: ');
  served.own['files.json'] = () => ({ headers: { 'content-type': 'application/json' }, body: JSON.stringify({ ...list, version: 'new' }) });
  served.own['index.html'] = () => ({ headers: { 'content-type': 'text/html' }, body: changed });
  await page.reload();
  await page.waitForSelector('#renew:not([hidden])');
  assert.match(await text(page, 'offline-is'), /^A new version/, 'the note about a new version');
  assert.ok(!(await page.title()).startsWith('New'), 'expected the old version until the next load');
  await page.click('#renew');
  await page.waitForFunction(() => document.title.startsWith('New'), null, SLOW);
  await ready(page);
  assert.equal(await lastAnswer(page), ANSWER, 'the remembered answer (got, expected)');
  assert.deepEqual(complaints.filter((line) => !line.includes('ERR_')), [], 'complaints of the browser (got, expected)');
  await close();
  await browser.close();
  served.close();
}

// On a phone, the question is on the first screen, and the answer after it; nothing is wider than the screen, and every target is
// large enough for a finger.
async function phone() {
  const browser = await launch('--disable-gpu');
  const size = { width: 390, height: 844 };
  const { page, close } = await open(browser, address, 'index.html', { viewport: size, hasTouch: true, isMobile: true });
  await ready(page);
  const onScreen = async (selector) => {
    const { x, y, width, height } = await page.locator(selector).boundingBox();
    assert.ok(x >= 0 && y >= 0 && x + width <= size.width && y + height <= size.height, `expected ${selector} on the first screen, got ${[x, y, width, height]}`);
    return y;
  };
  await onScreen('#picture');
  await onScreen('#ask');
  await asked(page);
  await answered(page);
  await page.waitForFunction(() => !document.getElementById('overlay').hidden, null, SLOW);
  for (const selector of ['#overlay', '.turn .text', '#question']) await onScreen(selector);
  // The sticky field does not cover the answer.
  const covers = await page.evaluate(() => {
    const { bottom } = document.getElementById('turns').getBoundingClientRect();
    return bottom > document.getElementById('form').getBoundingClientRect().top;
  });
  assert.equal(covers, false, 'whether the field covers the answer (got, expected)');
  await page.click('#compare');
  await says(page, 'Compared.');
  const [one, two] = [await page.locator('#overlays img').first().boundingBox(), await page.locator('#overlays img').last().boundingBox()];
  assert.ok(two.y >= one.y + one.height, `expected one overlay above the other, got ${JSON.stringify([one, two])}`);
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), size.width, 'the width of the page (got, expected)');
  for (const id of ['answering', 'another', 'stored']) await page.click(`#${id} > summary`);
  const small = await page.evaluate(() => [...document.querySelectorAll('button, .button, select, summary, nav a, input:not(.unseen, .switch input, .check input), .check')]
    .filter((element) => element.checkVisibility()).map((element) => [element.id || element.textContent.trim(), element.getBoundingClientRect()])
    .filter(([, { width, height }]) => height < 44 || width < 44).map(([name, { width, height }]) => `${name}: ${width} x ${height}`));
  assert.deepEqual(small, [], 'targets below 44 pixels (got, expected)');
  assert.equal(await page.locator('#webcam:visible, #camera-label:visible').count(), 1, 'camera buttons (got, expected)');
  await scan(page, 'a phone');
  await close();
  await browser.close();
}

// The engine of the server that sends the page: the picture goes with the first question, and the answer streams back.
async function fromServer() {
  const json = { 'content-type': 'application/json' };
  let body = null;
  const chunk = (choices, more) => `data: ${JSON.stringify({ object: 'chat.completion.chunk', choices, ...more })}\n\n`;
  const png = Buffer.from('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==', 'base64');
  const refusal = { error: { message: 'Expected an API key, got none.', type: 'authentication_error', param: null, code: 'key' } };
  const open1 = ({ headers }) => headers.authorization === 'Bearer secret';
  const served = await proxy(address, {
    'fovea-server.json': () => ({ headers: json, body: JSON.stringify({ models: ['large'], api: 'v1', key: true }) }),
    'v1/models/large': (request) => (open1(request) ? { headers: json, body: '{"id":"large"}' } : { status: 401, headers: json, body: JSON.stringify(refusal) }),
    'v1/chat/completions'(request, text) {
      body = JSON.parse(text);
      // With `none`, an overlay that the server does not have.
      const overlay = `/v1/overlay/${body.compression === 'none' ? 'none' : 'a'}`;
      const seen = { kept: [{ grid: [4, 6], tokens: 24, kept: [1, 2] }], overlay };
      const parts = [chunk([{ delta: { role: 'assistant' } }]), chunk([], { fovea: seen }), chunk([{ delta: { content: 'ex' } }]),
        chunk([{ delta: { content: 'it' } }]), chunk([{ delta: {}, finish_reason: 'stop' }]),
        chunk([], { usage: { visual_tokens: { all: 40, compressed: 24, kept: 2 }, equivalent_share: 0.3 } }), 'data: [DONE]\n\n'];
      return { headers: { 'content-type': 'text/event-stream' }, body: parts.join('') };
    },
    'v1/overlay/a': () => ({ headers: { 'content-type': 'image/png' }, body: png }),
  });
  const browser = await launch('--disable-gpu');
  const { page, close } = await open(browser, served.address, 'index.html');
  await ready(page);
  await page.selectOption('#engine', 'large');
  await says(page, 'Expected an API key').catch(() => {});
  assert.equal(await text(page, 'status'), refusal.error.message, 'the status without a key (got, expected)');
  await page.fill('#key', 'secret');
  await page.press('#key', 'Tab');
  await says(page, 'Ready: large, on this server');
  await ready(page);
  await asked(page);
  await answered(page);
  const [{ type, image_url: { url } }, words] = body.messages[0].content;
  assert.deepEqual([type, url.slice(0, 23), words.text], ['image_url', 'data:image/jpeg;base64,', QUESTION], 'the first message (got, expected)');
  assert.deepEqual([body.model, body.stream, body.max_tokens], ['large', true, 256], 'the request (got, expected)');
  assert.match(await text(page, 'tokens'), /40.*24.*2$/, 'the tokens');
  assert.equal(await page.evaluate(() => document.getElementById('overlay').naturalWidth), 1, 'the overlay (got, expected)');
  await scan(page, 'a server');
  await page.click('#compare');
  await says(page, 'Compared.');
  assert.equal(body.compression, 'none', 'the compression of the second request (got, expected)');
  assert.match(await text(page, 'comparison'), /answer\s*exit\s*exit/, 'the compared answers');
  assert.equal((await drawings(page)).length, 1, 'overlays of a server that has one (got, expected)');
  await page.selectOption('#engine', '');
  await says(page, 'Ready: the demo model');
  await close();
  await browser.close();
  served.close();
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
  byKeyboard, conversation, remembered, offline, phone, fromServer, methods, unblocked, hurried, quantised, limited, withoutRoom, fromHub, folders, inGguf, threads, readBacks, photographed, withoutGpu, unreachable, withoutEngine, lostWhileAnswering, lostBetweenQuestions, accessible,
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
