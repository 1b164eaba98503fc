//! Converts errors for JavaScript: into a sentence, or into an `Error` with a `code`.

use fovea_model::Error;
use js_sys::Reflect;
use wasm_bindgen::prelude::*;

/// An error's sentence, as a JavaScript string.
pub fn sentence(error: impl std::fmt::Display) -> JsValue {
    JsValue::from_str(&error.to_string())
}

/// An error of the engine, as an `Error` with its `code`.
pub fn failure(error: impl Into<Error>) -> JsValue {
    let error = error.into();
    let thrown = JsValue::from(js_sys::Error::new(&error.to_string()));
    // Cannot fail on a new object.
    let _ = Reflect::set(&thrown, &"code".into(), &error.kind().name().into());
    thrown
}
