//! Options of a question, read from JSON, and a handle that stops an answer.

use fovea_model::{AskOptions, Cancel, Error};
use serde::Deserialize;
use wasm_bindgen::prelude::*;

/// Stops an answer within a layer or a token.
#[wasm_bindgen]
#[derive(Default)]
pub struct Stop {
    cancel: Cancel,
}

#[wasm_bindgen]
impl Stop {
    /// A handle that has not been used.
    #[wasm_bindgen(constructor)]
    pub fn new() -> Stop {
        Stop::default()
    }

    /// Stops the answer.
    pub fn stop(&self) {
        self.cancel.cancel();
    }
}

/// The JSON object. Defaults are those of [`AskOptions`].
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Asked {
    /// Not a `Compression`: serde would replace the error of its parser.
    compression: Option<String>,
    max_new_tokens: usize,
}

impl Default for Asked {
    fn default() -> Self {
        Self { compression: None, max_new_tokens: AskOptions::default().max_new_tokens }
    }
}

/// Reads the options of a question from JSON. Whether they fit the checkpoint is checked when the question is asked.
///
/// # Errors
/// [`Error::Option`] if the JSON is not an object, has an unknown key or a value of the wrong type, or if `compression` is not
/// the spelling of a compression.
pub fn options(json: &str, stop: &Stop) -> Result<AskOptions, Error> {
    let asked: Asked = serde_json::from_str(json).map_err(|why| Error::Option {
        option: "options",
        expected: "an object of compression and max_new_tokens".into(),
        got: why.to_string(),
    })?;
    Ok(AskOptions {
        compression: asked.compression.map(|spec| spec.parse()).transpose()?,
        max_new_tokens: asked.max_new_tokens,
        cancel: stop.cancel.clone(),
        ..AskOptions::default()
    })
}

#[cfg(test)]
mod tests {
    use fovea_model::Compression;

    use super::*;

    #[test]
    fn missing_keys_have_defaults_and_errors_name_the_key() {
        let read = |json: &str| options(json, &Stop::default());
        let default = read("{}").expect("options");
        assert_eq!((default.compression, default.max_new_tokens), (None, 128), "(got, expected)");
        let some = read(r#"{"compression": "vision+text", "max_new_tokens": 7}"#).expect("options");
        assert_eq!((some.compression, some.max_new_tokens), (Some(Compression::focus()), 7), "(got, expected)");
        let wrong = [("", "EOF"), ("7", "invalid type"), (r#"{"gamma": 1}"#, "gamma"), (r#"{"compression": 1}"#, "1")];
        for (json, named) in wrong {
            let why = read(json).expect_err(json).to_string();
            assert!(why.starts_with("options: expected an object") && why.contains(named), "{json}: {why}");
        }
        for (spec, named) in [("fastw", "fastw"), ("fastv:keap=.5", "keap"), ("fastv:keep=most", "most")] {
            let why = read(&format!(r#"{{"compression": "{spec}"}}"#)).expect_err(spec).to_string();
            assert!(why.starts_with("compress: expected") && why.contains(named), "{spec}: {why}");
        }
    }
}
