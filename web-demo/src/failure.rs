//! Converts errors for JavaScript: into a sentence, or into an `Error` with a `code`. And what JavaScript throws into a sentence.

use fovea_model::Error;
use js_sys::Reflect;
use wasm_bindgen::prelude::*;

/// An error's sentence, as a JavaScript string.
pub fn sentence(error: impl std::fmt::Display) -> JsValue {
    JsValue::from_str(&error.to_string())
}

/// The sentence of a thrown value.
pub fn thrown(why: &JsValue) -> String {
    why.dyn_ref::<js_sys::Error>().map_or_else(|| format!("{why:?}"), |error| String::from(error.message()))
}

/// An error of the engine, as an `Error` with its `code`.
pub fn failure(error: impl Into<Error>) -> JsValue {
    let error = error.into();
    let thrown = JsValue::from(js_sys::Error::new(&error.to_string()));
    // Cannot fail on a new object.
    let _ = Reflect::set(&thrown, &"code".into(), &error.kind().name().into());
    thrown
}
