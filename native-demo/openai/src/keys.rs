//! Typed values of a JSON object. Input: an object and a key. Output: its value, or an error with the key, the expected and the
//! given value. A key that is null counts as missing.

use serde_json::{Map, Value};

use crate::error::RequestError;

/// Longest quotation of a request in an error, characters.
const LONGEST_QUOTE: usize = 80;

/// A key that is set.
pub fn get<'a>(of: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    of.get(key).filter(|value| !value.is_null())
}

/// A text.
///
/// # Errors
/// For another type.
pub fn text<'a>(of: &'a Map<String, Value>, key: &str) -> Result<Option<&'a str>, RequestError> {
    typed(of, key, "a text", Value::as_str)
}

/// A whole number from 0 to 2^64 - 1.
///
/// # Errors
/// For another type, and for another number.
pub fn whole(of: &Map<String, Value>, key: &str) -> Result<Option<u64>, RequestError> {
    typed(of, key, "a whole number, 0 or more", Value::as_u64)
}

/// A number.
///
/// # Errors
/// For another type.
pub fn number(of: &Map<String, Value>, key: &str) -> Result<Option<f64>, RequestError> {
    typed(of, key, "a number", Value::as_f64)
}

/// A truth value; false if it is missing.
///
/// # Errors
/// For another type.
pub fn flag(of: &Map<String, Value>, key: &str) -> Result<bool, RequestError> {
    Ok(typed(of, key, "true or false", Value::as_bool)?.unwrap_or(false))
}

fn typed<'a, T>(
    of: &'a Map<String, Value>,
    key: &str,
    expected: &str,
    read: impl Fn(&'a Value) -> Option<T>,
) -> Result<Option<T>, RequestError> {
    get(of, key).map(|value| read(value).ok_or_else(|| RequestError::wrong(expected, key, Some(value)))).transpose()
}

/// Checks that `of` has no key that could change the answer, except the keys in `known`. `path` is the beginning of a key's
/// name in the error, such as `messages[0].`.
///
/// # Errors
/// For the first other key whose value is not null, false, 0 or empty.
pub fn only(of: &Map<String, Value>, known: &[&str], path: &str) -> Result<(), RequestError> {
    let refused = of.iter().find(|(key, value)| !known.contains(&key.as_str()) && !is_neutral(value));
    refused.map_or(Ok(()), |(key, _)| {
        let key = path.to_owned() + &quoted(key);
        Err(RequestError::new("request", Some(&key), format!("expected no `{key}`, which is not supported")))
    })
}

/// Whether the value of a key has no effect.
fn is_neutral(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// A value, for messages.
pub fn short(value: &Value) -> String {
    match value {
        // Printed, they could be as long as the request.
        Value::Array(all) => format!("a list of {}", all.len()),
        Value::Object(_) => "an object".to_owned(),
        Value::String(text) => format!("{:?}", quoted(text)),
        other => other.to_string(),
    }
}

/// The beginning of a text, for messages.
pub fn quoted(text: &str) -> String {
    let mut short: String = text.chars().take(LONGEST_QUOTE).collect();
    if short.len() < text.len() {
        short.push_str("...");
    }
    short
}
