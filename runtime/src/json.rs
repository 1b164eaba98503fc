//! JSON as Python's `json.loads` reads it: standard JSON, and the words `NaN`, `Infinity` and `-Infinity`.
//!
//! Hugging Face writes and reads its configuration files with Python. There a number too large for f64 is `Infinity`. A
//! number that is not finite becomes its name as a string. So a setting that needs a number reports an error with this
//! name, and a setting that is not read does no harm.

use std::borrow::Cow;

use serde::de::DeserializeOwned;

/// The words. `-Infinity` is first because it contains `Infinity`.
const WORDS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];

/// Reads `text` as Python does.
///
/// # Errors
/// The error of `serde_json` where the text is not JSON, or does not have the structure of `T`.
pub fn from_slice<T: DeserializeOwned>(text: &[u8]) -> serde_json::Result<T> {
    serde_json::from_slice(text).or_else(|plain| match std::str::from_utf8(text).map(quoted) {
        Ok(Cow::Owned(quoted)) => serde_json::from_str(&quoted),
        _ => Err(plain),
    })
}

/// The text, with each number that is not finite as a string.
fn quoted(text: &str) -> Cow<'_, str> {
    let mut out = String::new();
    // The start of the text that is not copied yet.
    let mut copied = 0;
    let mut at = 0;
    let bytes = text.as_bytes();
    while at < bytes.len() {
        if bytes[at] == b'"' {
            at = string_end(bytes, at);
            continue;
        }
        let Some(length) = not_finite(&text[at..]) else {
            at += number_length(&bytes[at..]).max(1);
            while !text.is_char_boundary(at) {
                at += 1;
            }
            continue;
        };
        out.push_str(&text[copied..at]);
        let word = WORDS.into_iter().find(|word| text[at..].starts_with(word));
        let sign = if bytes[at] == b'-' { "-Infinity" } else { "Infinity" };
        out.push('"');
        out.push_str(word.unwrap_or(sign));
        out.push('"');
        at += length;
        copied = at;
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[copied..]);
    Cow::Owned(out)
}

/// The position after the string that starts at `at`; the end of the text where the string does not end.
fn string_end(bytes: &[u8], at: usize) -> usize {
    let mut next = at + 1;
    while let Some(&byte) = bytes.get(next) {
        match byte {
            b'"' => return next + 1,
            b'\\' => next += 2,
            _ => next += 1,
        }
    }
    bytes.len()
}

/// The length of a number that is not finite at the start of `text`.
fn not_finite(text: &str) -> Option<usize> {
    if let Some(word) = WORDS.into_iter().find(|word| text.starts_with(word)) {
        return Some(word.len());
    }
    let length = number_length(text.as_bytes());
    let number: f64 = text.get(..length)?.parse().ok()?;
    number.is_infinite().then_some(length)
}

/// The number of bytes at the start of a text that can belong to a number.
fn number_length(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|b| b.is_ascii_digit() || b"+-.eE".contains(b)).count()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(text: &str) -> Value {
        from_slice(text.as_bytes()).unwrap_or_else(|why| panic!("{text}: {why}"))
    }

    #[test]
    fn numbers_that_are_not_finite_are_read_as_their_names() {
        assert_eq!(
            read(r#"{"a": NaN, "b": [Infinity, -Infinity]}"#),
            json!({"a": "NaN", "b": ["Infinity", "-Infinity"]})
        );
        assert_eq!(read(r#"{"a":1e999,"b":-1E+999,"c":1e30}"#), json!({"a": "Infinity", "b": "-Infinity", "c": 1e30}));
        assert_eq!(read("NaN"), json!("NaN"));
    }

    #[test]
    fn text_is_left_alone() {
        let quotes = r#"{"é NaN \" Infinity": "\\", "b": NaN, "c": "-Infinity ü"}"#;
        assert_eq!(read(quotes), json!({"é NaN \" Infinity": "\\", "b": "NaN", "c": "-Infinity ü"}));
        assert_eq!(read("[1.5, -2, 3e2, true, null]"), json!([1.5, -2, 3e2, true, null]));
    }

    #[test]
    fn text_that_is_not_json_is_an_error() {
        for text in
            ["", "{", "[nan]", "[Nan]", "[+Infinity]", "[Infinityx]", "[--Infinity]", "{\"a\": NaN", "\"NaN", "é"]
        {
            assert!(from_slice::<Value>(text.as_bytes()).is_err(), "{text}");
        }
    }
}
