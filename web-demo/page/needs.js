// What this browser has, and what a model needs, before anything is loaded or downloaded.

import { make, table } from './dom.js';
import { size } from './numbers.js';

// The binding size that every WebGPU device supports.
const BINDING = 128 << 20;
// The address space of WebAssembly.
const WASM = 4 * 2 ** 30;

// The browser's GPU: its name and features, or `why` there is none.
export async function gpu() {
  if (!navigator.gpu) return { why: 'No WebGPU here: it needs https or localhost, and a browser that supports it.' };
  const adapter = await navigator.gpu.requestAdapter({ powerPreference: 'high-performance' });
  if (!adapter) return { why: 'No WebGPU here: the browser found no GPU that it can use (see chrome://gpu or about:support).' };
  const { vendor, architecture, device, description, isFallbackAdapter } = adapter.info;
  return {
    name: [vendor, architecture, device, description].filter(Boolean).join(' ') || 'a GPU (the browser hides its name)',
    software: Boolean(isFallbackAdapter),
    f16: adapter.features.has('shader-f16'),
    subgroups: adapter.features.has('subgroups'),
    binding: adapter.limits.maxStorageBufferBindingSize,
  };
}

// Whether the engine uses this GPU. A software GPU counts only with `anyGpu`.
export const usable = (gpu, anyGpu = new URLSearchParams(location.search).has('gpu')) => !gpu.why && (!gpu.software || anyGpu);

// Shows `rows` in a table, and in `list`, if there is one, what to do about each missing thing.
export function showNeeds(element, rows, list) {
  table(element, rows.map(({ what, need, have }) => [what, need, have]), ['', 'needed', 'available']);
  list?.replaceChildren(...rows.filter(({ todo }) => todo).map(({ todo }) => make('li', {}, todo)));
}

// Rows for a GPU, the `weights` of a model (see `safetensors.js`), and for a download the `missing` bytes and the `room` for
// them. If something is missing, `todo` says what to do.
export function needs(gpu, { weights, missing, room } = {}) {
  const have = gpu.why ? 'none' : `${gpu.name}${gpu.software ? ' (software, slow)' : ''}`;
  const rows = [{ what: 'WebGPU', need: 'optional', have }];
  if (!gpu.why) rows.push(...ofGpu(gpu, weights));
  if (weights && !usable(gpu)) {
    // On the CPU, weights that do not fit in f32 are kept in f16.
    const [all, half] = [4, 2].map((bytes) => weights.all * bytes);
    rows.push({
      what: 'WebAssembly memory, on the CPU',
      need: all <= WASM ? size(all) : `${size(half)} in f16, ${size(all)} in f32`,
      have: size(WASM),
      fits: half < WASM,
      todo: half >= WASM
        && `The model needs ${size(half)}, and WebAssembly has ${size(WASM)}: it cannot run on the CPU in a browser. Choose a smaller model, or a browser with a GPU.`,
    });
  }
  if (missing !== undefined) rows.push({
    what: 'Storage, for the download',
    need: size(missing),
    have: room === Infinity ? 'unknown' : size(room),
    todo: room < missing
      && `${size(missing - room)} of storage is missing: delete models that you do not need, or free disk space.`,
  });
  return rows;
}

function ofGpu({ f16, binding }, weights) {
  const rows = [{ what: 'f16', need: 'optional (halves the memory for weights)', have: f16 ? 'yes' : 'no' }];
  // The same choice as the engine's `auto`.
  const bytes = f16 && weights?.half ? 2 : 4;
  const largest = (weights?.values ?? 0) * bytes;
  rows.push({
    what: 'Largest GPU buffer binding',
    need: size(Math.max(BINDING, largest)),
    have: size(binding),
    todo: binding < largest
      && `The tensor ${weights.largest} is larger than this GPU can bind: choose a smaller model, or run on the CPU.`,
  });
  if (weights) rows.push({ what: 'GPU memory, for weights', need: size(weights.all * bytes), have: 'unknown' });
  return rows;
}
