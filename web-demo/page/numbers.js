// Numbers as people read them: what an answer cost, and two answers side by side.

import { at, make, table } from './dom.js';

export const STAGES = {
  prompt: 'question to tokens',
  tiles: 'picture to tiles',
  vision_tower: 'vision tower',
  vision_sampler: 'vision-guided sampler',
  image_prefill: 'picture through the lower layers',
  text_sampler: 'text-guided sampler',
  prefill: 'the rest, to the first token',
};

const KEPT = { stock: 'LLaVA-NeXT', vision: 'after the vision-guided sampler', text: 'after the text-guided sampler' };

export const duration = (ms) => (ms < 1000 ? `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms` : `${(ms / 1000).toFixed(2)} s`);
export const mebibytes = (bytes) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
export const size = (bytes) => (bytes < 2 ** 30 ? mebibytes(bytes) : `${(bytes / 2 ** 30).toFixed(2)} GiB`);

// Seconds, for who waits for them.
export function wait(seconds) {
  if (seconds < 90) return `${Math.ceil(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

const percent = (share) => `${(100 * share).toFixed(1)} %`;
const rate = (perSecond) => (perSecond === null ? '–' : perSecond.toFixed(1));

// How many visual tokens there would be, and how many each sampler leaves.
export function showTokens(tokens) {
  at('tokens').replaceChildren(...Object.entries(KEPT).map(([key, words]) => {
    const bar = make('span', { className: 'bar' });
    bar.style.setProperty('--share', tokens[key] / tokens.stock);
    return make('div', {}, make('dt', {}, words), make('dd', {}, bar, make('b', {}, String(tokens[key]))));
  }));
}

// What an answer cost.
export function showCost(done) {
  const { first_token: first, ...stages } = done.timing_ms;
  const named = Object.entries(STAGES).filter(([key]) => key in stages);
  const { weights, kv_cache: cache, wasm, gpu } = done.memory_bytes;
  table(at('cost'), [
    ['equivalent share of the tokens', percent(done.equivalent_share)],
    ['to the first token', duration(first)],
    ...named.map(([key, words]) => [`… ${words}`, duration(stages[key])]),
    ['tokens a second after it', rate(done.tokens_per_second)],
    ['weights and KV cache', `${mebibytes(weights)} (${done.dtype}), ${mebibytes(cache)}`],
    // On the CPU there is no GPU's, and a recorded run has neither.
    ...(gpu ? [['buffers on the GPU', mebibytes(gpu)]] : []),
    ...(wasm ? [['memory of wasm', mebibytes(wasm)]] : []),
    ['device', done.device],
  ]);
}

// Answers side by side, each under its name.
export function showComparison(names, answers) {
  const row = (words, of) => [words, ...answers.map(of)];
  table(at('comparison'), [
    row('answer', ({ answer }) => answer.trim() || '(nothing)'),
    row('visual tokens', ({ tokens }) => `${tokens.vision} → ${tokens.text}`),
    row('equivalent share', (done) => percent(done.equivalent_share)),
    row('to the first token', ({ timing_ms: timing }) => duration(timing.first_token)),
    row('… of it the text model', ({ timing_ms: timing }) => duration(text(timing))),
    row('tokens a second', (done) => rate(done.tokens_per_second)),
    row('KV cache', ({ memory_bytes: memory }) => mebibytes(memory.kv_cache)),
  ], ['', ...names]);
}

// What the text model takes to the first token, and what prunes it.
const text = ({ image_prefill: image = 0, text_sampler: sampler = 0, prefill = 0 }) => image + sampler + prefill;
