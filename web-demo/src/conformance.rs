//! The conformance suite on the browser's GPU.

use fovea_conformance::{Depth, Options, conformance as hold, golden::Fixtures};
use fovea_runtime::{DeviceChoice, OpenDevice};
use js_sys::{Date, Function, Map, Reflect};
use wasm_bindgen::prelude::*;

use crate::{failure::sentence, files::copied};

/// Holds the browser's GPU to the table of operations and to whole runs, and returns the report as JSON.
///
/// `files` maps a fixture's name, with slashes, to its bytes; where it is empty, no whole run is checked. `on_progress` is
/// called with a line before each case.
///
/// # Errors
/// Rejects with a sentence where there is no GPU, or the files are no fixtures. What a GPU gets wrong is in the report.
#[wasm_bindgen]
pub async fn conformance(files: Map, on_progress: Function) -> Result<String, JsValue> {
    let fixtures = Fixtures::new(copied(&files)?);
    let open = OpenDevice::open(&DeviceChoice::Wgpu).await.map_err(sentence)?;
    // Milliseconds since 1970, and never before.
    let date = (Date::now() / 1e3) as u64;
    let options = Options { depth: Depth::Quick, date, ..Options::default() };
    // A page that does not want to hear of it misses nothing.
    let tell = |line: String| on_progress.call1(&JsValue::NULL, &JsValue::from_str(&line)).map_or((), |_| ());
    let mut report = hold(&open, &fixtures, &options, tell).await;
    // A browser hides its adapter's name; what the browser itself is says more than the target.
    report.platform = user_agent().unwrap_or(report.platform);
    serde_json::to_string(&report).map_err(sentence)
}

fn user_agent() -> Option<String> {
    let navigator = Reflect::get(&js_sys::global(), &"navigator".into()).ok()?;
    Reflect::get(&navigator, &"userAgent".into()).ok()?.as_string()
}
