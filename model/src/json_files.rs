//! Reads the JSON files of a checkpoint like Python. Input: a file. Output: its value.

use fovea_runtime::{json, source::Source, weights::other_content};
use serde_json::Value;

use crate::error::Error;

/// Largest config or template, in bytes.
pub(crate) const MAX_CONFIG: u64 = 4 << 20;

/// The JSON value of a file.
///
/// # Errors
/// [`Error::Config`] if it is not JSON; an I/O error if it cannot be read.
pub(crate) async fn read_json(source: &Source, file: &str) -> Result<Value, Error> {
    let bytes = source.read(file, MAX_CONFIG).await?;
    json::from_slice(&bytes).map_err(|e| {
        let why = match other_content(&bytes) {
            Some(other) => format!("expected JSON, got {other}"),
            None => format!("expected JSON, got an error: {e}"),
        };
        Error::Config { key: file.to_owned(), why }
    })
}

/// Like [`read_json`], but null if the file does not exist.
pub(crate) async fn read_optional_json(source: &Source, file: &str) -> Result<Value, Error> {
    if source.contains(file) { read_json(source, file).await } else { Ok(Value::Null) }
}
