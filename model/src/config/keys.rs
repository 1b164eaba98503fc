//! Reads the keys of a JSON object with bounds. A missing key has a default; a wrong value is an error with file, key, the
//! expected and the found value.

use serde_json::Value;

use crate::error::Error;

/// Largest dimension of a matrix.
pub(super) const WIDEST: usize = 1 << 17;
/// Largest number of layers.
pub(super) const DEEPEST: usize = 1024;
/// Largest side of a tile or a canvas, in pixels.
pub(super) const LONGEST_SIDE: usize = 16384;

/// An object of a configuration file, with the path to it for messages.
pub(crate) struct Keys<'a> {
    pub(crate) value: Option<&'a Value>,
    pub(crate) path: String,
}

impl<'a> Keys<'a> {
    pub(crate) fn new(file: &str, value: &'a Value) -> Result<Self, Error> {
        match value {
            Value::Object(_) => Ok(Self { value: Some(value), path: format!("{file}: ") }),
            other => Err(Error::Config { key: file.to_owned(), why: format!("expected an object, got {other}") }),
        }
    }

    pub(crate) fn object(&self, key: &str) -> Result<Self, Error> {
        let path = format!("{}{key}.", self.path);
        match self.get(key) {
            None => Ok(Self { value: None, path }),
            Some(value @ Value::Object(_)) => Ok(Self { value: Some(value), path }),
            Some(other) => Err(self.wrong(key, "an object", other)),
        }
    }

    /// The value, if it is present and not null.
    pub(crate) fn get(&self, key: &str) -> Option<&'a Value> {
        self.value?.get(key).filter(|v| !v.is_null())
    }

    pub(crate) fn wrong(&self, key: &str, expected: &str, got: &Value) -> Error {
        let mut got = got.to_string();
        if got.len() > 80 {
            got = got.chars().take(80).collect::<String>() + "...";
        }
        Error::Config { key: format!("{}{key}", self.path), why: format!("expected {expected}, got {got}") }
    }

    pub(crate) fn count(&self, key: &str, default: usize, most: usize) -> Result<usize, Error> {
        self.count_in(key, default, 1, most)
    }

    pub(crate) fn count_in(&self, key: &str, default: usize, least: usize, most: usize) -> Result<usize, Error> {
        let Some(value) = self.get(key) else { return Ok(default) };
        let found = value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| (least..=most).contains(n));
        found.ok_or_else(|| self.wrong(key, &format!("a whole number from {least} to {most}"), value))
    }

    pub(crate) fn number(&self, key: &str, default: f64, least: f64, most: f64) -> Result<f64, Error> {
        let Some(value) = self.get(key) else { return Ok(default) };
        let found = value.as_f64().filter(|n| (least..=most).contains(n));
        found.ok_or_else(|| self.wrong(key, &format!("a number from {least} to {most}"), value))
    }

    pub(crate) fn flag(&self, key: &str, default: bool) -> Result<bool, Error> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_bool().ok_or_else(|| self.wrong(key, "true or false", value))
    }

    pub(crate) fn text(&self, key: &str, default: &'a str) -> Result<&'a str, Error> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_str().ok_or_else(|| self.wrong(key, "a text", value))
    }

    pub(crate) fn one_of<T: Copy>(&self, key: &str, default: T, known: &[(&str, T)]) -> Result<T, Error> {
        let Some(value) = self.get(key) else { return Ok(default) };
        let found = known.iter().find(|(name, _)| value.as_str() == Some(name)).map(|(_, v)| *v);
        found.ok_or_else(|| {
            let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
            self.wrong(key, &names.join(" or "), value)
        })
    }

    pub(crate) fn pairs(&self, key: &str, least: usize, most: usize) -> Result<Option<Vec<(usize, usize)>>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let pair = |v: &Value| -> Option<(usize, usize)> {
            let [a, b] = v.as_array()?.as_slice() else { return None };
            let number = |v: &Value| v.as_u64().and_then(|n| usize::try_from(n).ok());
            let (a, b) = (number(a)?, number(b)?);
            ((least..=most).contains(&a) && (least..=most).contains(&b)).then_some((a, b))
        };
        let found: Option<Vec<_>> = value.as_array().and_then(|all| all.iter().map(pair).collect());
        match found {
            Some(pairs) if !pairs.is_empty() && pairs.len() <= 1024 => Ok(Some(pairs)),
            _ => Err(self.wrong(
                key,
                &format!("a list of 1 to 1024 pairs of whole numbers from {least} to {most}"),
                value,
            )),
        }
    }
}
