//! Reports to JavaScript listeners.

use js_sys::Function;
use serde_json::Value;
use wasm_bindgen::JsValue;

/// Calls a JavaScript listener with `what` as JSON text. An error that the listener throws is ignored.
pub fn report(listener: &Function, what: &Value) {
    let _ = listener.call1(&JsValue::NULL, &JsValue::from_str(&what.to_string()));
}
