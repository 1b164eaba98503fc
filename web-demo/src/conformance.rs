//! The conformance suite on the browser's GPU.

use fovea_conformance::{Depth, Options, conformance as check, golden::Fixtures};
use fovea_runtime::{DeviceChoice, OpenDevice};
use js_sys::{Date, Function, Map, Reflect};
use wasm_bindgen::prelude::*;

use crate::{failure::sentence, files::copied};

/// Tests all operations and whole runs on the browser's GPU, and returns the report as JSON.
///
/// `files` maps a fixture's name, with slashes, to its bytes; if it is empty, only operations are tested. `on_progress` is
/// called with a line before each case.
///
/// # Errors
/// Rejects with a sentence if there is no GPU, or the fixtures are invalid. Wrong results are in the report, not an error.
#[wasm_bindgen]
pub async fn conformance(files: Map, on_progress: Function) -> Result<String, JsValue> {
    let fixtures = Fixtures::new(copied(&files)?);
    let open = OpenDevice::open(&DeviceChoice::Wgpu).await.map_err(sentence)?;
    // Seconds since 1970; JavaScript has milliseconds.
    let date = (Date::now() / 1e3) as u64;
    let options = Options { depth: Depth::Quick, date, ..Options::default() };
    // An error of the page's callback does not matter here.
    let progress = |line: String| on_progress.call1(&JsValue::NULL, &JsValue::from_str(&line)).map_or((), |_| ());
    let mut report = check(&open, &fixtures, &options, progress).await;
    // Browsers hide the adapter's name; the browser's own name is the better description.
    report.platform = user_agent().unwrap_or(report.platform);
    serde_json::to_string(&report).map_err(sentence)
}

fn user_agent() -> Option<String> {
    let navigator = Reflect::get(&js_sys::global(), &"navigator".into()).ok()?;
    Reflect::get(&navigator, &"userAgent".into()).ok()?.as_string()
}
