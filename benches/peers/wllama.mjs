// Runs Fovea's page and wllama (llama.cpp in WebAssembly) on the same weights in the same Chromium, with one wasm thread or more and
// with WebGPU, and prints their speeds in one table.
//
//     node wllama.mjs PAGE CHECKPOINT GGUF... [--node FOLDER] [--dtypes f32,f16] [--devices cpu,gpu] [--threads 1,2] [--new 64]
//         [--repeat 3] [--gpu-flags=FLAGS]
//
// PAGE is the output of fovea-web-bundle, CHECKPOINT that of `fovea-benches checkpoint DIR --size small`. Each GGUF is its text
// model as compare.py converts it, with its name: text-f32.gguf, text-q8_0.gguf. FOLDER has the npm packages @wllama/wllama and
// playwright-core in node_modules; Chromium is in PATH. `--dtypes` is how Fovea stores the weights: each has a line, with ratios
// to the fastest line of wllama with as many threads and the same bits, or else with the first GGUF. In wllama on the CPU f32 is much faster than f16,
// so give both; and decoding is faster without flash attention and with KV in f32 than by default, so there are lines with both.
//
// Nothing else should run at the same time. WebGPU runs on SwiftShader, which is Chromium's GPU in software, or on the GPU that
// Chromium opens with `--gpu-flags`. SwiftShader has no f16 in shaders, which wllama needs: there it would silently use the CPU,
// so it has no numbers. Nothing is fetched from another machine. A program that fails has a line with the reason. The answers
// are not compared: the weights are random.

import { createReadStream } from 'node:fs';
import { readFile, readdir, stat } from 'node:fs/promises';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { basename, dirname, extname, join, normalize, resolve } from 'node:path';
import { parseArgs } from 'node:util';

// A strip: its few visual tokens are mostly those of the thumbnail, which is always whole.
const STRIP = [672, 14];
// One token for the tokenizer of these checkpoints; their template adds <user> and <assistant>.
const QUESTION = 'what';
const TEXT_TOKENS = 3;
// The length of wllama's prompt if Fovea does not run.
const PROMPT = 677;
// The kind of GGUF with the same bits.
const SAME = { f32: 'f32', f16: 'f16', q8: 'q8_0', q4: 'q4_0' };
// Settings of wllama by device.
const FLASH = { cpu: [true, false], gpu: [true] };
// Time limit for opening an engine and for a run, in milliseconds.
const LIMIT = 900_000;
const TYPES = { '.js': 'text/javascript', '.json': 'application/json', '.wasm': 'application/wasm' };
// No name is looked up: a request to another machine fails.
const ALONE = '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    node: { type: 'string', default: '.' },
    dtypes: { type: 'string', default: 'f32,f16' },
    devices: { type: 'string', default: 'cpu,gpu' },
    threads: { type: 'string', default: '1' },
    new: { type: 'string', default: '64' },
    repeat: { type: 'string', default: '3' },
    'gpu-flags': { type: 'string' },
  },
});
if (positionals.length < 3) throw new Error(`expected PAGE, CHECKPOINT and GGUF, got ${positionals.length} arguments`);
const [page, checkpoint, ...models] = positionals.map((path) => resolve(path));
const [fresh, repeat] = [Number(values.new), Number(values.repeat)];
if (!(fresh > 1 && repeat > 0)) throw new Error(`expected --new above 1, --repeat above 0, got ${values.new}, ${values.repeat}`);
const counts = values.threads.split(',').map(Number);
if (!counts.every((count) => Number.isInteger(count) && count > 0)) {
  throw new Error(`expected --threads with whole numbers above 0, got ${values.threads}`);
}
// chromium.mjs finds playwright-core from the current directory.
process.chdir(values.node);
const wllama = dirname(createRequire(join(process.cwd(), 'bench.mjs')).resolve('@wllama/wllama/package.json'));
const { GPU, launch } = await import(new URL('../../web-demo/checks/chromium.mjs', import.meta.url));

// Without these headers neither program can have more threads.
const ISOLATED = { 'cross-origin-opener-policy': 'same-origin', 'cross-origin-embedder-policy': 'require-corp' };

// Serves each folder or file under its name, on 127.0.0.1. There is no policy: wllama starts workers from blobs.
async function serve(places) {
  const server = createServer(async (request, response) => {
    const [, name, ...rest] = decodeURIComponent(new URL(request.url, 'http://localhost').pathname).split('/');
    const path = normalize(rest.join('/'));
    if (name === '') return response.writeHead(200, { ...ISOLATED, 'content-type': 'text/html' }).end('<!doctype html><title>bench</title>');
    try {
      if (!(name in places) || path.startsWith('..')) throw new Error('not served');
      const file = join(places[name], path);
      const { size } = await stat(file);
      const type = TYPES[extname(file)] ?? 'application/octet-stream';
      response.writeHead(200, { ...ISOLATED, 'content-type': type, 'content-length': size });
      createReadStream(file).pipe(response);
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise((listening) => { server.listen(0, '127.0.0.1', listening); });
  server.unref();
  return `http://127.0.0.1:${server.address().port}/`;
}

// These functions run in the page. One opens an engine and keeps a function that runs it, the other calls that function. A run
// returns its numbers of tokens, the times by the clock of the engine, and `whole`: prefill and decoding by the clock of the page.

async function openFovea({ key, cpu, threads, dtype, files, strip: [width, height], question, text, fresh }) {
  const { Fovea } = await import('/page/fovea.js');
  const blob = async (name) => [name, await (await fetch(`/checkpoint/${name}`)).blob()];
  const engine = await Fovea.create({ cpu, threads, dtype, files: new Map(await Promise.all(files.map(blob))) });
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext('2d').fillRect(0, 0, width / 2, height);
  const picture = await canvas.convertToBlob();
  (globalThis.runs ??= {})[key] = async () => {
    // A new picture: nothing of an earlier run is reused.
    const sight = await engine.lookAt(picture);
    const started = performance.now();
    let done;
    for await (const event of sight.ask(question, { compression: 'none', maxNewTokens: fresh })) done = event.done ?? done;
    const took = performance.now() - started;
    await sight.close();
    const { timing_ms: ms, tokens, answer_ids: ids } = done;
    const stages = (...names) => names.reduce((sum, name) => sum + (ms[name] ?? 0), 0);
    return {
      prompt: tokens.compressed + text, made: ids.length,
      prefill: stages('image_prefill', 'prune', 'prefill'), decode: ms.decode,
      whole: took - stages('prompt', 'tiles', 'vision_tower', 'compress'),
    };
  };
  return { dtype: engine.about.dtype, cache: engine.about.cache, device: engine.about.device };
}

async function openWllama({ key, cpu, threads, f16, model, flash, prompt, fresh }) {
  const { Wllama } = await import('/wllama/index.js');
  const lines = [];
  const keep = (...words) => lines.push(words.map(String).join(' '));
  const config = { logger: { debug: keep, log: keep, warn: keep, error: keep } };
  const engine = new Wllama({ default: '/wllama/wasm/wllama.wasm' }, config);
  // Otherwise a browser without some features would fetch another build from a network.
  engine.setCompat(null);
  const file = await (await fetch(`/${model}`)).blob();
  const attention = flash ? {} : { flash_attn: false, cache_type_k: 'f32', cache_type_v: 'f32' };
  const n_ctx = 256 * Math.ceil((prompt + fresh + 1) / 256);
  // With 0 layers no GPU is opened.
  const n_gpu_layers = cpu ? 0 : 99_999;
  await engine.loadModel([file], { ...attention, n_ctx, n_parallel: 1, n_threads: threads, n_gpu_layers });
  const said = (pattern) => lines.map((line) => pattern.exec(line)).find(Boolean);
  const [, on, all] = said(/offloaded (\d+)\/(\d+) layers to GPU/) ?? [];
  if (!cpu && !(on > 0)) {
    await engine.exit();
    throw new Error(`expected layers on the GPU, got none; f16 in shaders: ${f16 ? 'yes' : 'no, but wllama needs it'}`);
  }
  // In the stand-in tokenizer each letter is a token. The numbers of its ids mean nothing here.
  const letters = Array.from({ length: prompt }, (_, at) => String.fromCharCode(97 + (at * 7) % 26)).join('');
  (globalThis.runs ??= {})[key] = async () => {
    const started = performance.now();
    const given = { prompt: letters, max_tokens: fresh, temperature: 0, ignore_eos: true, cache_prompt: false };
    const { timings: its } = await engine.createCompletion(given);
    const whole = performance.now() - started;
    return { prompt: its.prompt_n, made: its.predicted_n, prefill: its.prompt_ms, decode: its.predicted_ms, whole };
  };
  const cache = `${said(/K \((\w+)\):/)?.[1]}${flash ? '' : ', no flash attention'}`;
  return { cache, device: cpu ? 'CPU' : `${on} of ${all} layers on the GPU` };
}

const run = (key) => globalThis.runs[key]();

// The name of the GPU, and whether it has f16.
const gpu = async () => {
  const found = await navigator.gpu?.requestAdapter();
  return [found ? `${found.info.vendor} ${found.info.architecture}`.trim() : 'none', Boolean(found?.features.has('shader-f16'))];
};

const within = (promise) => Promise.race([promise, new Promise((_, fail) => {
  setTimeout(fail, LIMIT, new Error(`expected an end within ${LIMIT / 1000} s, got none`)).unref();
})]);

// Opens all engines in one page, runs each once to warm up (with WebGPU it compiles the shaders), then all of them in turn.
async function measure(on, address) {
  const cpu = on === 'cpu';
  const flags = cpu ? ['--disable-gpu'] : values['gpu-flags']?.split(' ') ?? GPU;
  const browser = await launch(ALONE, ...flags);
  const opened = await browser.newPage();
  await opened.goto(address);
  const [name, f16] = await opened.evaluate(gpu);
  const where = (threads) => (cpu ? `${threads} wasm thread${threads === 1 ? '' : 's'}` : `WebGPU (${name})`);
  const rows = [];
  const attempt = async (row, work) => {
    try {
      await work();
    } catch (why) {
      row.failed = why.message.replace(/^page\.evaluate: (Error: )?/, '').split('\n')[0];
      console.error(`${row.where}, ${row.program}: ${row.failed}`);
    }
  };
  const start = async (row, open, given) => {
    rows.push(Object.assign(row, { where: where(given.threads), runs: [] }));
    const key = String(rows.length);
    await attempt(row, async () => {
      Object.assign(row, { key, ...await within(opened.evaluate(open, { ...given, key, cpu, fresh })) });
      row.warm = await within(opened.evaluate(run, key));
      console.error(`${row.where}, ${row.program}: ${row.device}; to warm up ${JSON.stringify(row.warm)}`);
    });
  };
  const files = (await readdir(checkpoint)).filter((name) => /\.(json|jinja|safetensors)$/.test(name));
  const used = cpu ? counts : [1];
  for (const threads of used) {
    for (const dtype of values.dtypes.split(',')) {
      const given = { threads, dtype, files, strip: STRIP, question: QUESTION, text: TEXT_TOKENS };
      await start({ program: 'Fovea', dtype }, openFovea, given);
    }
  }
  const prompt = rows.find(({ warm }) => warm)?.warm.prompt ?? PROMPT;
  for (const [at, path] of models.entries()) {
    const dtype = basename(path, '.gguf').replace(/^text-/, '');
    for (const threads of used) {
      const given = { threads, f16, model: `model-${at}`, prompt };
      for (const flash of FLASH[on]) await start({ program: 'wllama', dtype }, openWllama, { ...given, flash });
    }
  }
  for (let round = 0; round < repeat; round += 1) {
    for (const row of rows.filter(({ failed }) => !failed)) {
      await attempt(row, async () => { row.runs.push(await within(opened.evaluate(run, row.key))); });
    }
  }
  const chromium = browser.version();
  await browser.close();
  return { chromium, rows };
}

const COLUMNS = 'where,program,weights,KV,prompt,prefill,prefill tokens/s,ratio,tokens/s,ratio,whole'.split(',');
// The first token is part of the prefill.
const SPEEDS = {
  prefill: ({ prompt, prefill }) => 1000 * prompt / prefill,
  decode: ({ made, decode }) => 1000 * (made - 1) / decode,
};

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;
}

const shown = (value) => (value >= 100 ? value.toFixed(0) : value.toPrecision(3));
const ms = (value) => (value < 1000 ? `${shown(value)} ms` : `${(value / 1000).toPrecision(3)} s`);
const spread = (values, show) => `${show(median(values))} (${show(Math.min(...values))} to ${show(Math.max(...values))})`;

function line(row, rows) {
  if (row.failed) return [row.where, row.program, row.dtype, `failed: ${row.failed}`];
  const others = rows.filter(({ program, where, failed }) => program !== 'Fovea' && where === row.where && !failed);
  const peer = (others.find(({ dtype }) => dtype === SAME[row.dtype]) ?? others[0])?.dtype;
  const speed = ({ runs }, what) => median(runs.map(SPEEDS[what]));
  const best = (what) => Math.max(...others.filter(({ dtype }) => dtype === peer).map((other) => speed(other, what)));
  const ratio = (what) => (row.program === 'Fovea' && peer ? `${(speed(row, what) / best(what)).toFixed(2)}x ${peer}` : '-');
  const [{ prompt, made }] = row.runs;
  const of = (take, show) => spread(row.runs.map(take), show);
  return [
    row.where, row.program, row.dtype, row.cache, prompt, ms(median(row.runs.map(({ prefill }) => prefill))),
    of(SPEEDS.prefill, shown), ratio('prefill'), of(SPEEDS.decode, shown), ratio('decode'),
    `${of(({ whole }) => whole, ms)}${made === fresh ? '' : `, only ${made} new tokens`}`,
  ];
}

const served = Object.fromEntries(models.map((path, at) => [`model-${at}`, path]));
const address = await serve({ page, checkpoint, wllama: join(wllama, 'esm'), ...served });
const results = [];
for (const on of values.devices.split(',')) results.push(await measure(on, address));
const { version } = JSON.parse(await readFile(join(wllama, 'package.json'), 'utf8'));
const lines = results.flatMap(({ rows }) => rows.map((row) => line(row, rows)));
console.log([COLUMNS, COLUMNS.map(() => '---'), ...lines].map((cells) => `| ${cells.join(' | ')} |`).join('\n'));
console.log(`
wllama ${version}, Chromium ${results[0].chromium}; ${fresh} new tokens; median of ${repeat} runs in turn (least to most), one before to warm up.
ratio: speed relative to the fastest line of wllama with these weights; above 1 Fovea is faster. whole: prefill and new tokens by
the clock of the page; the other columns are by each engine's own. What differs: Fovea's prompt is a picture of ${STRIP.join('x')}
pixels and ${TEXT_TOKENS} text tokens, without compression, and without the time before its prefill (tiles, vision tower);
wllama's is as many text tokens. Weights and KV cache are stored as the table says.`);
