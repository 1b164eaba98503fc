// The page as a person uses it, in headless Chromium: by keyboard alone, stopped and asked again, and free of what axe
// finds wrong. `node page.mjs ADDRESS [FOLDER]` of a served page; screenshots go to the folder. Needs the packages
// playwright-core and axe-core, and Chromium in PATH.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const [address, folder] = process.argv.slice(2);
// The packages lie where this is run from.
const { resolve } = createRequire(join(process.cwd(), 'page.mjs'));
const { chromium } = (await import(pathToFileURL(resolve('playwright-core')))).default;
const FLAGS = ['--no-sandbox', '--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader', '--disable-gpu-watchdog',
  '--disable-dev-shm-usage', '--disable-quic', '--disable-background-networking', '--disable-component-update',
  '--disable-extensions', '--disable-sync', '--no-first-run'];
// Two cores draw what a GPU would.
const SLOW = { timeout: 300_000 };

const executablePath = execFileSync('which', ['chromium'], { encoding: 'utf8' }).trim();
const browser = await chromium.launch({ executablePath, args: FLAGS });

// A page of the folder; complaints of the browser, such as about its policy, are collected.
async function open(name, options) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  context.setDefaultTimeout(SLOW.timeout);
  context.setDefaultNavigationTimeout(SLOW.timeout);
  const page = await context.newPage();
  const complaints = [];
  page.on('pageerror', (why) => complaints.push(why.message));
  page.on('console', (message) => message.type() === 'error' && complaints.push(message.text()));
  await page.goto(new URL(name, address).href);
  return { page, complaints, close: () => context.close() };
}

const ready = (page) => page.waitForFunction(() => document.body.dataset.state === 'ready', null, SLOW);
const shot = (page, name) => folder && page.screenshot({ path: join(folder, `${name}.png`), fullPage: true });

async function byKeyboard() {
  const { page, complaints, close } = await open('index.html');
  await shot(page, 'loading');
  await ready(page);
  await shot(page, 'start');
  const focused = () => page.evaluate(() => document.activeElement?.id ?? '');
  for (let i = 0; i < 40 && await focused() !== 'question'; i += 1) await page.keyboard.press('Tab');
  assert.equal(await focused(), 'question', 'what Tab reaches (got, expected)');
  await page.keyboard.press('ControlOrMeta+A');
  await page.keyboard.type('What word is on the blue sign?');

  // Stopped while it is answered, which the first time takes seconds of compiling shaders.
  await page.keyboard.press('Enter');
  await page.waitForFunction(() => document.body.dataset.state === 'busy', null, SLOW);
  await page.click('#stop');
  await ready(page);
  assert.equal(await page.textContent('#status'), 'Stopped.', 'the status after a stop (got, expected)');

  await page.focus('#question');
  await page.keyboard.press('Enter');
  await page.waitForFunction(() => document.getElementById('status').textContent.startsWith('Answered'), null, SLOW);
  await ready(page);
  assert.equal(await page.textContent('#answer'), 'exit', 'the answer (got, expected)');
  await page.check('#show-overlay', { force: true });
  await page.waitForFunction(() => document.getElementById('overlay').naturalWidth > 0, null, SLOW);
  await shot(page, 'answer');

  // A smaller gamma keeps fewer tokens, at once.
  const kept = async () => Number((await page.textContent('#tokens')).match(/\d+$/)[0]);
  const before = await kept();
  await page.focus('#gamma');
  for (let i = 0; i < 8; i += 1) await page.keyboard.press('PageDown');
  await page.waitForFunction(() => document.getElementById('status').textContent.startsWith('Shown'), null, SLOW);
  assert.ok(await kept() < before, `expected fewer tokens than ${before}, got ${await kept()}`);

  await page.setInputFiles('#file', { name: 'notes.txt', mimeType: 'image/png', buffer: Buffer.from('no picture') });
  await page.waitForFunction(() => document.getElementById('status').dataset.kind === 'fail', null, SLOW);
  await shot(page, 'error');
  assert.deepEqual(complaints, [], 'complaints of the browser (got, expected)');
  await close();
}

async function accessible() {
  for (const colorScheme of ['light', 'dark']) {
    for (const name of ['index.html', 'conformance.html']) {
      // The scanner is a script that the page's policy would refuse.
      const { page, close } = await open(name, { colorScheme, bypassCSP: true });
      if (name === 'index.html') await ready(page);
      await page.addScriptTag({ path: resolve('axe-core/axe.min.js') });
      const wrong = await page.evaluate(async () => (await globalThis.axe.run()).violations.map(
        ({ id, impact, nodes }) => ({ id, impact, where: nodes.map(({ html }) => html) }),
      ));
      assert.deepEqual(wrong, [], `${name}, ${colorScheme}: what axe finds (got, expected)`);
      await close();
    }
  }
}

try {
  await byKeyboard();
  await accessible();
  console.log('page: ok');
} finally {
  await browser.close();
}
