// Numbers for readers: sizes, also typed ones, durations, what an answer cost, and a comparison of answers.

import { at, make, table } from './dom.js';
import { unlike } from './error.js';

export const STAGES = {
  prompt: 'question to tokens',
  tiles: 'picture to tiles',
  vision_tower: 'vision tower',
  compress: 'choice of the tokens that enter the text model',
  image_prefill: 'picture through the lower decoder layers',
  prune: 'choice of the tokens that stay',
  prefill: 'the rest of the decoder, to the first token',
};

const COUNTS = { all: 'all visual tokens', compressed: 'entering the text model', kept: 'in its last layer' };

export const duration = (ms) => (ms < 1000 ? `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms` : `${(ms / 1000).toFixed(2)} s`);
export const size = (bytes) => (bytes < 2 ** 16 ? `${Math.ceil(bytes / 2 ** 10)} KiB` : bytes < 2 ** 30 ? `${(bytes / 2 ** 20).toFixed(1)} MiB` : `${(bytes / 2 ** 30).toFixed(2)} GiB`);

// The bytes of a typed size, such as 6GB, 6G, 1.5 GiB, 500000000 or 5e8, as on the command line (`size` in
// runtime/src/memory/size.rs); undefined for an empty text. `what` is the name of the option.
export function bytesOf(what, text) {
  const given = text.trim();
  if (!given) return undefined;
  const [, number, unit, binary] = /^((?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*(?:([kmgt]?)b?|([kmgt])ib)$/i.exec(given) ?? [];
  const power = ' kmgt'.indexOf((binary || unit || ' ').toLowerCase());
  const bytes = Math.floor(Number(number) * (binary ? 1024 : 1000) ** power);
  if (bytes < 2 ** 64) return bytes;
  const expected = bytes >= 2 ** 64
    ? 'less than 2^64 bytes (16777216 TiB), the most that this program can count'
    : 'a number of bytes, or a number with kB, MB, GB, TB (or k, M, G, T), KiB, MiB, GiB or TiB, such as 6GB or 500MiB';
  throw unlike('option', what, expected, given);
}

// A remaining time in seconds, rounded.
export function wait(seconds) {
  if (seconds < 90) return `${Math.ceil(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

const percent = (share) => `${(100 * share).toFixed(1)} %`;
const rate = (perSecond) => (perSecond === null ? '–' : perSecond.toFixed(1));

// Shows how many visual tokens there are, and how many remain.
export function showTokens(tokens) {
  at('tokens').replaceChildren(...Object.entries(COUNTS).map(([key, words]) => {
    const bar = make('span', { className: 'bar' });
    bar.style.setProperty('--share', tokens[key] / tokens.all);
    return make('div', {}, make('dt', {}, words), make('dd', {}, bar, make('b', {}, String(tokens[key]))));
  }));
}

// The attention overlay in words.
export const overlayOf = (question, { all, kept }) => `Attention overlay for "${question}": the last layer reads ${kept} of ${all} visual tokens (bright); parts without one are dark.`;

// What an answer cost.
export function showCost(done) {
  const { first_token: first, ...stages } = done.timing_ms;
  const named = Object.entries(STAGES).filter(([key]) => key in stages);
  // A server does not report its memory, a recording not how the answer ended.
  const { weights, kv_cache: cache, wasm, gpu } = done.memory_bytes ?? {};
  const ended = { stop: 'by itself', length: 'cut off at the largest length' }[done.finish_reason];
  table(at('cost'), [
    ['compression', done.compression],
    ['work left: mean visual tokens per layer, as a share of all', percent(done.equivalent_share)],
    ['time to the first token', duration(first)],
    ...named.map(([key, words]) => [`… ${words}`, duration(stages[key])]),
    ['tokens per second after it', rate(done.tokens_per_second)],
    ...(ended ? [['the answer ended', ended]] : []),
    ...(weights ? [['weights and KV cache', `${size(weights)} (${done.dtype}), ${size(cache)}`]] : []),
    // The first is absent on the CPU, both in a recording.
    ...(gpu ? [['GPU buffers', size(gpu)]] : []),
    ...(wasm ? [['WebAssembly memory', size(wasm)]] : []),
    ['device', done.device],
  ]);
}

// Shows answers side by side, each under its name.
export function showComparison(names, answers) {
  const row = (words, of) => [words, ...answers.map(of)];
  table(at('comparison'), [
    row('answer', ({ answer }) => answer.trim() || '(nothing)'),
    row('compression', ({ compression }) => compression),
    row('visual tokens', ({ tokens: { compressed, kept } }) => `${compressed} → ${kept}`),
    row('work left', (done) => percent(done.equivalent_share)),
    row('time to the first token', ({ timing_ms: timing }) => duration(timing.first_token)),
    row('… of which text model', ({ timing_ms: timing }) => duration(text(timing))),
    row('tokens per second', (done) => rate(done.tokens_per_second)),
    row('KV cache', ({ memory_bytes: memory }) => (memory ? size(memory.kv_cache) : '–')),
  ], ['', ...names]);
}

// The text model's time to the first token, with the choice of the tokens that stay.
const text = ({ image_prefill: image = 0, prune = 0, prefill = 0 }) => image + prune + prefill;
