//! Options of a question, read from JSON, and a handle that stops an answer.

use fovea_model::{AskOptions, Cancel, Error};
use fovea_runtime::Keep;
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
    vision: Option<bool>,
    text: Option<bool>,
    gamma: Option<f64>,
    layer: Option<usize>,
    max_new_tokens: usize,
}

impl Default for Asked {
    fn default() -> Self {
        let AskOptions { vision, text, layer, max_new_tokens, .. } = AskOptions::default();
        Self { vision, text, gamma: None, layer, max_new_tokens }
    }
}

/// Reads the options of a question from JSON. Their values are checked when the question is asked.
///
/// # Errors
/// [`Error::Option`] if the JSON is not an object, or has an unknown key or a value of the wrong type.
pub fn options(json: &str, stop: &Stop) -> Result<AskOptions, Error> {
    let asked: Asked = serde_json::from_str(json).map_err(|why| Error::Option {
        option: "options",
        expected: "an object of vision, text, gamma, layer and max_new_tokens".into(),
        got: why.to_string(),
    })?;
    Ok(AskOptions {
        vision: asked.vision,
        text: asked.text,
        keep: asked.gamma.map(Keep::Gamma),
        layer: asked.layer,
        max_new_tokens: asked.max_new_tokens,
        cancel: stop.cancel.clone(),
        ..AskOptions::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_keys_have_defaults_and_errors_name_the_key() {
        let read = |json| options(json, &Stop::default());
        let default = read("{}").expect("options");
        assert_eq!((default.vision, default.text, default.layer, default.keep), (None, None, None, None));
        let some = read(r#"{"vision": false, "gamma": 0.5, "layer": 3, "max_new_tokens": 7}"#).expect("options");
        assert_eq!((some.vision, some.text, some.layer), (Some(false), None, Some(3)));
        assert_eq!((some.keep, some.max_new_tokens), (Some(Keep::Gamma(0.5)), 7));
        let wrong = [("", "EOF"), ("7", "invalid type"), (r#"{"gama": 1}"#, "gama"), (r#"{"layer": -1}"#, "-1")];
        for (json, named) in wrong {
            let why = read(json).expect_err(json).to_string();
            assert!(why.starts_with("options: expected an object") && why.contains(named), "{json}: {why}");
        }
    }
}
