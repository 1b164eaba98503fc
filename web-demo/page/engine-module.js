// The module of the engine: downloaded, compiled, started.
//
// The loops on the CPU are in it twice, with relaxed SIMD and without. A browser without relaxed SIMD refuses a module with such
// instructions, although it would never reach them. There they are overwritten before the module is compiled; `pkg/relaxed.json`
// says where they are.

import { FoveaError } from './error.js';

const MODULE = new URL('./pkg/fovea_web_bg.wasm', import.meta.url);
const PLACES = new URL('./pkg/relaxed.json', import.meta.url);

// `unreachable` and two `nop`: valid in place of any instruction.
const TRAP = [0, 1, 1];

// Whether the browser has relaxed SIMD: a module with one function, whose last instruction is `i8x16.relaxed_swizzle`.
const relaxed = WebAssembly.validate(new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0,
  10, 15, 1, 13, 0, 65, 0, 253, 15, 65, 0, 253, 15, 253, 128, 2, 11,
]));

// Loads the engine's module: { wasm, memory, module }. `wasm` are the bindings (pkg/fovea_web.js, initialised), `module` the
// compiled WebAssembly.Module. With `module` given (from another worker) nothing is downloaded or compiled again.
export async function load(module) {
  try {
    const [wasm, compiled] = await Promise.all([import('./pkg/fovea_web.js'), module ?? compile()]);
    const { memory } = await wasm.default({ module_or_path: compiled });
    if (relaxed) wasm.useRelaxedSimd();
    return { wasm, memory, module: compiled };
  } catch (why) {
    // How browsers report that a file did not arrive.
    if (!(why instanceof TypeError)) throw why;
    throw new FoveaError(`The engine: expected its files, got ${why.message}. Check the connection, then try again.`, 'network');
  }
}

async function compile() {
  const [response, places] = await Promise.all([fetch(MODULE), relaxed ? [] : relaxedPlaces()]);
  if (!response.ok) throw new Error(`${MODULE}: expected the engine, got status ${response.status} ${response.statusText}`);
  // Browsers compile while they download only what has exactly this type.
  if (!places.length && response.headers.get('Content-Type') === 'application/wasm') {
    return WebAssembly.compileStreaming(response);
  }
  const bytes = new Uint8Array(await response.arrayBuffer());
  let at = 0;
  for (const distance of places) {
    at += distance;
    // A cache can have files of two versions.
    const [prefix, low, high] = bytes.subarray(at, at + 3);
    if (prefix !== 0xfd || low < 0x80 || low > 0x93 || high !== 2) {
      throw new FoveaError('The engine: expected files of one version, got several. Load the page again.', 'network');
    }
    bytes.set(TRAP, at);
  }
  return WebAssembly.compile(bytes);
}

// From the start of the file to the first relaxed instruction, then from each to the next.
async function relaxedPlaces() {
  const response = await fetch(PLACES);
  if (response.status === 404) return [];
  if (!response.ok) throw new Error(`${PLACES}: expected a list, got status ${response.status} ${response.statusText}`);
  return response.json();
}
