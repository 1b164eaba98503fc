// The browser's part of `bench.mjs`: asks questions and posts the measured times. Parameters of the address: `picture`,
// `question`, `repeat`, and `on`, the devices.

import { Fovea } from './fovea.js';

const given = new URLSearchParams(location.search);
const question = given.get('question');
const picture = await (await fetch(given.get('picture'))).blob();

const post = (to, what) => fetch(to, { method: 'POST', body: JSON.stringify(what) });

// Measures one answer: time to the first token as the page sees it, tokens per second, and WebGPU calls up to the first token
// and per token after it.
async function time(sight) {
  const started = performance.now();
  const tokens = [];
  let done;
  // The first event comes after tokenization; almost nothing is counted before.
  let begun;
  for await (const event of sight.ask(question)) {
    begun ??= event.counted;
    if (event.token) tokens.push({ at: performance.now() - started, counted: event.counted });
    if (event.done) done = event.done;
  }
  const [first, last] = [tokens[0], tokens.at(-1)];
  const more = tokens.length - 1;
  return {
    answer: done.answer,
    device: done.device,
    first_token_ms: first.at,
    tokens_per_second: more > 0 ? 1000 * more / (last.at - first.at) : null,
    to_first: difference(begun, first.counted, 1),
    per_token: more > 0 ? difference(first.counted, last.counted, more) : null,
    wasm: done.memory_bytes.wasm,
  };
}

const difference = (from, to, by) => Object.fromEntries(Object.entries(to).map(([key, value]) => [key, (value - from[key]) / by]));

async function measure(cpu) {
  const started = performance.now();
  const engine = await Fovea.create({ cpu, dtype: 'f32' });
  const load_ms = performance.now() - started;
  const sight = await engine.lookAt(picture);
  const first = await time(sight);
  const later = [];
  for (let i = 0; i < Number(given.get('repeat')); i += 1) later.push(await time(sight));
  // Everything is computed again, but all pipelines exist.
  const again = await time(await engine.lookAt(picture));
  engine.dispose();
  const other = await Fovea.create({ cpu, dtype: 'f32' });
  const ahead = await other.lookAt(picture);
  const from = performance.now();
  await ahead.prepare();
  const prepare_ms = performance.now() - from;
  const prepared = await time(ahead);
  other.dispose();
  return { load_ms, first, later, again, prepare_ms, prepared };
}

try {
  const found = {};
  for (const on of given.get('on').split(',')) {
    await post('line', `on the ${on}`);
    found[on] = await measure(on === 'cpu');
  }
  await post('result', { found, agent: navigator.userAgent });
} catch (why) {
  await post('result', { error: why.message });
}
