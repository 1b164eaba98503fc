// Benchmark: time to the first token, and tokens per second, in browsers and with the native binary.
//
//     node bench.mjs [FOLDER] [--fovea FILE] [--browsers chromium,firefox] [--devices gpu,cpu] [--repeat N] [--json FILE]
//
// FOLDER is the output of fovea-web-bundle (target/page), FILE the command line's binary (target/debug/fovea). Browsers must be
// in PATH; they run headless. Nothing else should run at the same time. The README explains the numbers.

import { execFileSync, spawn } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { serve } from './served.mjs';

const PICTURE = 'rack.jpg';
const QUESTION = 'What word is on the blue sign?';
// Otherwise Mesa would cache pipelines between runs, and a first question would be too fast.
const ENVIRONMENT = { ...process.env, MESA_SHADER_CACHE_DISABLE: 'true' };
// Time limit for one browser, in milliseconds.
const LIMIT = 900_000;

const CHROMIUM = ['--headless', '--no-sandbox', '--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader',
  '--disable-gpu-watchdog', '--disable-dev-shm-usage', '--disable-quic', '--disable-background-networking',
  '--disable-component-update', '--disable-extensions', '--disable-sync', '--no-first-run'];
const FIREFOX = {
  'dom.webgpu.enabled': true, 'gfx.webgpu.ignore-blocklist': true, 'dom.ipc.processHangMonitor': false,
  'browser.aboutwelcome.enabled': false, 'browser.shell.checkDefaultBrowser': false, 'app.update.disabledForTesting': true,
  'datareporting.policy.dataSubmissionEnabled': false, 'termsofuse.bypassNotification': true,
  'network.captive-portal-service.enabled': false, 'network.connectivity-service.enabled': false,
};

const root = fileURLToPath(new URL('../../', import.meta.url));
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    fovea: { type: 'string', default: join(root, 'target/debug/fovea') },
    browsers: { type: 'string', default: 'chromium,firefox' },
    devices: { type: 'string', default: 'gpu,cpu' },
    repeat: { type: 'string', default: '5' },
    json: { type: 'string' },
  },
});
const folder = resolve(positionals[0] ?? join(root, 'target/page'));
const devices = values.devices.split(',');
const repeat = Number(values.repeat);

const own = (name) => readFile(new URL(`bench/${name}`, import.meta.url), 'utf8');
const script = (body) => ({ type: 'text/javascript', body });

// The commands that open an address in a browser with a new profile.
const COMMANDS = {
  chromium: async (home, url) => ['chromium', ...CHROMIUM, `--user-data-dir=${home}`, url],
  firefox: async (home, url) => {
    const prefs = Object.entries(FIREFOX).map(([name, value]) => `user_pref("${name}", ${value});\n`);
    await writeFile(join(home, 'user.js'), prefs.join(''));
    return ['firefox', '--headless', '--no-remote', '--profile', home, url];
  },
};

async function inBrowser(name) {
  let report;
  const reported = new Promise((settle) => { report = settle; });
  const { address, close } = await serve(folder, async (path, posted) => {
    if (path === 'bench.html') return { type: 'text/html', body: '<!doctype html><title>bench</title><script type="module" src="bench-page.js"></script>' };
    if (path === 'bench-page.js') return script(await own('page.js'));
    if (path === 'engine-worker.js') return script(`{${await own('counted.js')}}\n${await readFile(join(folder, path), 'utf8')}`);
    if (path === 'line') console.error(`${name}: ${JSON.parse(posted)}`);
    if (path === 'result') report(JSON.parse(posted));
    return posted === null ? null : { type: 'text/plain', body: '' };
  });
  const home = await mkdtemp(join(tmpdir(), 'bench-'));
  const asked = new URLSearchParams({ picture: `pictures/${PICTURE}`, question: QUESTION, repeat, on: devices.join(',') });
  const [program, ...args] = await COMMANDS[name](home, `${address}bench.html?${asked}`);
  const browser = spawn(program, args, { detached: true, stdio: 'ignore', env: { ...ENVIRONMENT, HOME: home } });
  const ended = new Promise((settle) => {
    browser.on('error', (why) => settle({ error: `expected to start ${program}, got ${why.message}` }));
    browser.on('exit', (code) => settle({ error: `expected a result, got the end of ${program} with ${code}` }));
  });
  let timer;
  const late = new Promise((settle) => { timer = setTimeout(() => settle({ error: `expected a result within ${LIMIT / 1000} s, got none` }), LIMIT); });
  const result = await Promise.race([reported, ended, late]);
  clearTimeout(timer);
  // Ends the whole process group: browsers have child processes.
  try { process.kill(-browser.pid, 'SIGKILL'); } catch { /* It has ended already. */ }
  close();
  await rm(home, { recursive: true, force: true, maxRetries: 10, retryDelay: 200 });
  return result;
}

// The same for the native binary: one process asks all questions, like the browser's engine.
function native(on) {
  const device = { gpu: 'wgpu', cpu: 'cpu' }[on];
  const questions = Array(repeat + 1).fill(QUESTION);
  const args = ['ask', join(root, 'native-demo/pictures', PICTURE), ...questions, '--json', '--device', device, '--weights', 'f32'];
  const started = performance.now();
  const lines = execFileSync(values.fovea, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'], env: ENVIRONMENT }).trim().split('\n');
  const runs = lines.map((line) => JSON.parse(line)).map(({ answer, device: name, timing_ms: timing, tokens_per_second: rate }) => (
    { answer, device: name, first_token_ms: timing.first_token, tokens_per_second: rate }
  ));
  return { whole_ms: performance.now() - started, first: runs[0], later: runs.slice(1) };
}

const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
const rates = (runs) => runs.map(({ tokens_per_second: rate }) => rate).filter((rate) => rate !== null);
const ms = (value) => (value < 1000 ? `${value.toPrecision(3)} ms` : `${(value / 1000).toFixed(2)} s`);
const ratio = (value, of) => (of ? `${Number((value / of).toPrecision(2))}x` : '–');

function row(where, { first, later, again, prepare_ms: prepare, prepared, load_ms: load }, base) {
  const steady = median(later.map(({ first_token_ms: each }) => each));
  const rate = median(rates(later));
  return [
    where, first.device, first.answer.trim(),
    load ? ms(load) : '–',
    `${ms(first.first_token_ms)} (${ratio(first.first_token_ms, base?.first.first_token_ms)})`,
    again ? ms(again.first_token_ms) : '–',
    `${ms(steady)} (${ratio(steady, base && median(base.later.map(({ first_token_ms: each }) => each)))})`,
    prepare ? `${ms(prepare)}, then ${ms(prepared.first_token_ms)}` : '–',
    `${rate.toFixed(1)} (${ratio(rate, base && median(rates(base.later)))})`,
  ];
}

const COLUMNS = ['where', 'device', 'answer', 'load', 'first question', 'same picture again', 'later questions', 'prepared', 'tokens/s'];
const COUNTS = ['shaders', 'pipelines', 'buffers', 'groups', 'writes', 'passes', 'dispatches', 'submits', 'reads'];

const table = (columns, rows) => [columns, columns.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
const shown = (value) => (Number.isInteger(value) ? String(value) : value.toFixed(1));

function counts(where, { first, later, again, prepared }) {
  const line = (what, counted) => counted && [
    where, what, ...COUNTS.map((key) => shown(counted[key])), ms(counted.waited),
  ];
  return [
    line('first question, to its first token', first.to_first),
    line('same picture again', again.to_first),
    line('prepared, then to the first token', prepared.to_first),
    line('later question, to its first token', later.at(-1).to_first),
    line('each token after the first', later.at(-1).per_token),
  ].filter(Boolean);
}

const all = { native: {} };
for (const on of devices) {
  try {
    all.native[on] = native(on);
  } catch (why) {
    console.error(`native ${on}: ${why.message.split('\n')[0]}`);
  }
}
for (const name of values.browsers.split(',')) {
  const { found, error } = await inBrowser(name);
  if (error) console.error(`${name}: ${error}`);
  else all[name] = found;
}
if (values.json) await writeFile(values.json, JSON.stringify(all, null, 1));
const rows = [];
for (const on of devices) {
  for (const [where, found] of Object.entries(all)) if (found[on]) rows.push(row(where, found[on], all.native[on]));
}
console.log(`${table(COLUMNS, rows)}\n`);
const counted = Object.entries(all).filter(([where, found]) => where !== 'native' && found.gpu);
console.log(table(['where', 'for', ...COUNTS, 'waited for reads'], counted.flatMap(([where, found]) => counts(where, found.gpu))));
