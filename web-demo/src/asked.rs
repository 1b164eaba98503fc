//! A question: its messages and options, read from JSON, and a handle that stops the answer.

use fovea_model::{AskOptions, Cancel, Error, Messages, Pick};
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
    temperature: f64,
    top_p: f64,
    seed: u64,
    stop: Vec<String>,
}

impl Default for Asked {
    fn default() -> Self {
        let AskOptions { max_new_tokens, pick, stop, .. } = AskOptions::default();
        let Pick { temperature, top_p, seed, .. } = pick;
        Self { compression: None, max_new_tokens, temperature, top_p, seed, stop }
    }
}

/// Reads the messages up to the question from JSON: `[{"role", "content"}]`.
///
/// # Errors
/// [`Error::Option`] if the JSON is something else.
pub fn messages(json: &str) -> Result<Messages, Error> {
    serde_json::from_str(json).map_err(|why| Error::Option {
        option: "messages",
        expected: "a list of messages, each with a role and a content".into(),
        got: why.to_string(),
    })
}

/// Reads the options of a question from JSON. Whether they fit the checkpoint is checked when the question is asked.
///
/// # Errors
/// [`Error::Option`] if the JSON is not an object, has an unknown key or a value of the wrong type, or if `compression` is not
/// the spelling of a compression.
pub fn options(json: &str, stop: &Stop) -> Result<AskOptions, Error> {
    let asked: Asked = serde_json::from_str(json).map_err(|why| Error::Option {
        option: "options",
        expected: "an object of compression, max_new_tokens, temperature, top_p, seed and stop".into(),
        got: why.to_string(),
    })?;
    Ok(AskOptions {
        compression: asked.compression.map(|spec| spec.parse()).transpose()?,
        max_new_tokens: asked.max_new_tokens,
        pick: Pick { temperature: asked.temperature, top_p: asked.top_p, seed: asked.seed, ..Pick::default() },
        stop: asked.stop,
        cancel: stop.cancel.clone(),
        ..AskOptions::default()
    })
}

#[cfg(test)]
mod tests {
    use fovea_model::{Compression, Message};

    use super::*;

    #[test]
    fn missing_keys_have_defaults_and_errors_name_the_key() {
        let read = |json: &str| options(json, &Stop::default());
        let default = read("{}").expect("options");
        assert_eq!((default.compression, default.max_new_tokens), (None, 128), "(got, expected)");
        let some = read(r#"{"compression": "vision+text", "max_new_tokens": 7}"#).expect("options");
        assert_eq!((some.compression, some.max_new_tokens), (Some(Compression::focus()), 7), "(got, expected)");
        assert_eq!((default.pick, default.stop), (Pick::default(), Vec::new()), "(got, expected)");
        let random = read(r#"{"temperature": 0.7, "top_p": 0.9, "seed": 3, "stop": ["."]}"#).expect("options");
        let pick = Pick { temperature: 0.7, top_p: 0.9, seed: 3, ..Pick::default() };
        assert_eq!((random.pick, random.stop), (pick, vec![".".to_owned()]), "(got, expected)");
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

    #[test]
    fn messages_are_a_list_of_roles_and_contents() {
        let json = r#"[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What?"}]"#;
        let expected = Messages(vec![Message::system("Be brief."), Message::user("What?")]);
        assert_eq!(messages(json).expect("messages"), expected, "(got, expected)");
        for json in ["", "{}", "\"What?\"", r#"[{"role": "robot", "content": "What?"}]"#] {
            let why = messages(json).expect_err(json).to_string();
            assert!(why.starts_with("messages: expected a list of messages"), "{json}: {why}");
        }
    }
}
