//! The vector instructions of the browser.

use wasm_bindgen::prelude::*;

/// Computes with relaxed SIMD from now on. Call it once, before anything else, and only if the browser has these
/// instructions.
#[wasm_bindgen(js_name = useRelaxedSimd)]
pub fn use_relaxed_simd() {
    #[cfg(target_arch = "wasm32")]
    fovea_runtime::use_relaxed_simd();
}
