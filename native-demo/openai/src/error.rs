//! Why a request is refused, and OpenAI's JSON for it.

use serde_json::{Value, json};

use crate::keys::short;

/// Longest message of an error, in characters: it may quote the request.
const LONGEST_MESSAGE: usize = 1000;

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RequestError {
    /// A stable name: `json`, `request`, `option`, or that of another [`fovea_model::ErrorKind`].
    pub code: &'static str,
    /// The key, such as `messages[1].content`, if one is at fault.
    pub param: Option<String>,
    /// Expected, got, and what to do. At most 1000 characters.
    pub message: String,
}

impl RequestError {
    /// An error. A message that is too long is cut.
    pub fn new(code: &'static str, param: Option<&str>, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if let Some((end, _)) = message.char_indices().nth(LONGEST_MESSAGE) {
            message.truncate(end);
        }
        Self { code, param: param.map(str::to_owned), message }
    }

    /// A key whose value is not as documented.
    pub fn wrong(expected: &str, key: &str, got: Option<&Value>) -> Self {
        let got = got.map_or("nothing".to_owned(), short);
        Self::new("request", Some(key), format!("expected {expected} for `{key}`, got {got}"))
    }
}

/// OpenAI's object of an error. `kind` is its `type`, such as `invalid_request_error`.
pub fn error_body(why: &RequestError, kind: &str) -> Value {
    json!({ "error": { "message": why.message, "type": kind, "param": why.param, "code": why.code } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_the_form_of_openai_and_is_not_long() {
        let why = RequestError::wrong("a number", "seed", Some(&json!("\u{e4}".repeat(5000))));
        let message = format!("expected a number for `seed`, got \"{}...\"", "\u{e4}".repeat(80));
        let error = json!({"message": message, "type": "invalid_request_error", "param": "seed", "code": "request"});
        assert_eq!(error_body(&why, "invalid_request_error"), json!({ "error": error }), "(got, expected)");
        let long = RequestError::new("json", None, "\u{e4}".repeat(5000));
        assert_eq!((long.message.chars().count(), long.param), (1000, None), "(got, expected)");
    }
}
