//! What a promise is rejected with: a sentence, and for the engine's own errors a `code` to tell them apart by.

use fovea_model::Error;
use fovea_runtime::Error as RuntimeError;
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
    let _ = Reflect::set(&thrown, &"code".into(), &code(&error).into());
    thrown
}

fn code(error: &Error) -> &'static str {
    match error {
        Error::Runtime(error) => runtime_code(error),
        Error::Config { .. } | Error::Tokenizer { .. } => "checkpoint",
        Error::Picture(_) => "picture",
        Error::Option { .. } => "option",
        Error::TooLong { .. } => "too-long",
        Error::Cancelled => "stopped",
        _ => "engine",
    }
}

fn runtime_code(error: &RuntimeError) -> &'static str {
    match error {
        RuntimeError::NoAdapter { .. } | RuntimeError::MissingFeature { .. } | RuntimeError::SelfTest { .. } => {
            "device"
        }
        RuntimeError::OutOfMemory { .. } => "memory",
        RuntimeError::DeviceLost(_) => "device-lost",
        RuntimeError::Io { .. } | RuntimeError::WeightFile { .. } | RuntimeError::Tensor { .. } => "checkpoint",
        _ => "engine",
    }
}
