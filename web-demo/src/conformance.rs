//! The conformance suite on the browser's GPU.

use std::borrow::Cow;

use fovea_conformance::{Depth, Options, conformance as hold, golden::Fixtures};
use fovea_runtime::{DeviceChoice, OpenDevice};
use js_sys::{Array, Date, Function, Map, Reflect, Uint8Array};
use wasm_bindgen::prelude::*;

use crate::error;

/// Holds the browser's GPU to the table of operations and to whole runs, and returns the report as JSON.
///
/// `files` maps a fixture's name, with slashes, to its bytes; where it is empty, no whole run is checked. `on_progress` is
/// called with a line before each case.
///
/// # Errors
/// Rejects with a sentence where there is no GPU, or the files are no fixtures. What a GPU gets wrong is in the report.
#[wasm_bindgen]
pub async fn conformance(files: Map, on_progress: Function) -> Result<String, JsValue> {
    let fixtures = fixtures(&files)?;
    let open = OpenDevice::open(&DeviceChoice::Wgpu).await.map_err(error)?;
    // Milliseconds since 1970, and never before.
    let date = (Date::now() / 1e3) as u64;
    let options = Options { depth: Depth::Quick, date, ..Options::default() };
    // A page that does not want to hear of it misses nothing.
    let tell = |line: String| on_progress.call1(&JsValue::NULL, &JsValue::from_str(&line)).map_or((), |_| ());
    let mut report = hold(&open, &fixtures, &options, tell).await;
    // A browser hides its adapter's name; what the browser itself is says more than the target.
    report.platform = user_agent().unwrap_or(report.platform);
    serde_json::to_string(&report).map_err(error)
}

fn user_agent() -> Option<String> {
    let navigator = Reflect::get(&js_sys::global(), &"navigator".into()).ok()?;
    Reflect::get(&navigator, &"userAgent".into()).ok()?.as_string()
}

/// The map's files. What is still needed of JavaScript is copied, so nothing of it is held over an await.
fn fixtures(files: &Map) -> Result<Fixtures, JsValue> {
    let unlike = || error("expected a Map of names to Uint8Arrays");
    let mut found = Vec::new();
    for entry in files.entries() {
        let entry = Array::from(&entry?);
        let name = entry.get(0).as_string().ok_or_else(unlike)?;
        let bytes = entry.get(1).dyn_into::<Uint8Array>().map_err(|_| unlike())?;
        found.push((name, Cow::Owned(bytes.to_vec())));
    }
    Ok(Fixtures::new(found))
}
