// What this browser has, and what a model needs, before anything is loaded or downloaded.

import { make, table } from './dom.js';
import { size } from './numbers.js';
import { DTYPES } from './safetensors.js';

// The binding size that every WebGPU device supports.
const BINDING = 128 << 20;
// The address space of WebAssembly.
const WASM = 4 * 2 ** 30;
const BOUND = 'Largest GPU buffer binding';

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

// Rows for a GPU, the `weights` of a model (see `safetensors.js`) that are loaded as `dtype` into at most `memory` bytes, and for
// a download the `missing` bytes and the `room` for them. If something is missing, `todo` says what to do.
export function needs(gpu, { weights, dtype = 'auto', memory, missing, room } = {}) {
  const have = gpu.why ? 'none' : `${gpu.name}${gpu.software ? ' (software, slow)' : ''}`;
  const rows = [{ what: 'WebGPU', need: 'optional', have }];
  if (!gpu.why) rows.push({ what: 'f16', need: 'optional (halves the memory for weights)', have: gpu.f16 ? 'yes' : 'no' });
  if (weights) {
    rows.push(...usable(gpu) ? onGpu(gpu, weights, dtype, memory) : onCpu(weights, dtype, memory));
  } else if (!gpu.why) {
    rows.push({ what: BOUND, need: size(BINDING), have: size(gpu.binding) });
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

function onGpu({ f16, binding }, { bytes, largest, stored }, dtype, memory = Infinity) {
  const usual = stored === 'f16' && !f16 ? 'f32' : stored;
  const used = dtype === 'auto' ? automatic(bytes, usual, memory, f16) : dtype;
  const most = largest.bytes[used];
  return [{
    what: BOUND,
    need: size(Math.max(BINDING, most)),
    have: size(binding),
    todo: binding < most
      && `The tensor ${largest.name} is larger than this GPU can bind: choose a smaller model, or run on the CPU.`,
  }, ...ways('GPU memory', bytes, used, memory === Infinity ? 'unknown' : size(memory))];
}

// On the CPU `auto` is f32, or the way of a quantised file, or if that does not fit the most exact way that fits.
function onCpu({ bytes, stored }, dtype, memory = WASM) {
  const most = Math.min(memory, WASM);
  const auto = automatic(bytes, stored === 'f16' ? 'f32' : stored, most);
  const used = dtype === 'auto' ? auto : dtype;
  const rows = ways('WebAssembly memory, on the CPU', bytes, used, size(most));
  if (bytes[used] <= most) return rows;
  const limited = most < WASM;
  const short = `The model needs ${size(bytes[used])} in ${used}, and ${limited ? 'the memory limit is' : 'WebAssembly has'} ${size(most)}`;
  const todo = bytes[auto] <= most ? `${short}: choose ${auto} for the weights.`
    : limited ? `${short}: choose a smaller model, or a larger memory limit.`
      : `${short}: it cannot run on the CPU in a browser. Choose a smaller model, or a browser with a GPU.`;
  Object.assign(rows.find(({ way }) => way === used), { todo, fits: false });
  return rows;
}

// The usual way if it fits into `most` bytes, else the most exact way that fits, else q4.
const automatic = (bytes, usual, most, f16 = true) => (
  [usual, 'f16', 'q8', 'q4'].find((way) => bytes[way] <= most && (f16 || way !== 'f16')) ?? 'q4'
);

// One row per way to store the weights; the one that is used is marked.
const ways = (where, bytes, used, have) => DTYPES.map((way) => ({
  way, what: `${where}, for weights in ${way}${way === used ? ' (used)' : ''}`, need: size(bytes[way]), have,
}));
