// What a model needs and what this browser has, before anything is loaded or downloaded.

import { make, table } from './dom.js';
import { size } from './numbers.js';

// What every WebGPU lets a kernel bind.
const BINDING = 128 << 20;
// What WebAssembly can address.
const WASM = 4 * 2 ** 30;

// Shows `rows` in a table, and under it a sentence for each thing that is missing.
export function showNeeds(element, list, rows) {
  table(element, rows.map(({ what, need, have }) => [what, need, have]), ['', 'needed', 'there is']);
  list.replaceChildren(...rows.filter(({ todo }) => todo).map(({ todo }) => make('li', {}, todo)));
}

// Rows for a GPU (see `gpu.js`), the `weights` of a model (see `safetensors.js`), and where it is to be downloaded the
// bytes that are `missing` and the `room` for them. Where something is missing, `todo` says what to do.
export function needs(gpu, { weights, missing, room } = {}) {
  const rows = [{
    what: 'WebGPU',
    need: 'any',
    have: gpu.why ? 'none' : `${gpu.name}${gpu.software ? ', which is drawn by the CPU, and slow' : ''}`,
    todo: gpu.why && `${gpu.why} Without it the model runs on the CPU: the same answers, slower.`,
  }];
  if (!gpu.why) rows.push(...ofGpu(gpu, weights));
  if (weights && !usable(gpu)) {
    // The CPU keeps weights in f16 where f32 does not fit.
    const [all, half] = [4, 2].map((bytes) => weights.all * bytes);
    rows.push({
      what: 'Memory of WebAssembly, on the CPU',
      need: all <= WASM ? size(all) : `${size(half)} in f16, ${size(all)} in f32`,
      have: size(WASM),
      fits: half < WASM,
      todo: half >= WASM
        && `The model needs ${size(half)}, and WebAssembly has ${size(WASM)}: it cannot run on the CPU of a browser. Choose a smaller one, or a browser with a GPU.`,
    });
  }
  if (missing !== undefined) rows.push({
    what: 'Storage, for the download',
    need: size(missing),
    have: room === Infinity ? 'the browser does not say' : size(room),
    todo: room < missing
      && `There is no room for ${size(missing - room)} of it: delete models that you do not need, or make room on the disk.`,
  });
  return rows;
}

// Whether the engine would use this GPU: `anyGpu` where one that the CPU draws counts as well.
export const usable = (gpu, anyGpu = new URLSearchParams(location.search).has('gpu')) => !gpu.why && (!gpu.software || anyGpu);

function ofGpu({ f16, binding }, weights) {
  const rows = [{ what: 'f16', need: 'no, but it halves the weights', have: f16 ? 'yes' : 'no' }];
  // What the engine's `auto` chooses.
  const bytes = f16 && weights?.half ? 2 : 4;
  const largest = (weights?.values ?? 0) * bytes;
  rows.push({
    what: 'Largest binding',
    need: size(Math.max(BINDING, largest)),
    have: size(binding),
    todo: binding < largest
      && `The tensor ${weights.largest} is larger than this GPU lets a kernel bind: choose a smaller model, or run on the CPU.`,
  });
  if (weights) rows.push({ what: 'GPU memory, for weights', need: size(weights.all * bytes), have: 'no browser says' });
  return rows;
}
