//! What a promise is rejected with: a sentence, and for the engine's own errors a `code` to tell them apart by.

use fovea_model::Error;
use js_sys::Reflect;
use wasm_bindgen::prelude::*;

/// Anything that has a sentence, as text.
pub fn sentence(error: impl std::fmt::Display) -> JsValue {
    JsValue::from_str(&error.to_string())
}

/// An error of the engine, as an `Error` with a `code`.
pub fn failure(error: impl Into<Error>) -> JsValue {
    let error = error.into();
    let thrown = JsValue::from(js_sys::Error::new(&error.to_string()));
    // A new object takes any key.
    let _ = Reflect::set(&thrown, &"code".into(), &error.code().into());
    thrown
}
