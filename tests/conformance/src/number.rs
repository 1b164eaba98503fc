//! Numbers in JSON, which has no NaN and no infinities: these are written as text.

use serde::{Deserialize, Deserializer, Serializer, de::Error};

#[derive(Deserialize)]
#[serde(untagged)]
enum Either {
    Number(f64),
    Text(String),
}

/// Writes a number, or the text `NaN`, `inf` or `-inf`.
pub(crate) fn serialize<S: Serializer>(value: &f64, to: S) -> Result<S::Ok, S::Error> {
    if value.is_finite() { to.serialize_f64(*value) } else { to.serialize_str(&value.to_string()) }
}

/// Reads what [`serialize`] writes.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    match Either::deserialize(from)? {
        Either::Number(value) => Ok(value),
        Either::Text(text) => {
            text.parse().map_err(|_| D::Error::custom(format!("expected a number, NaN, inf or -inf, got `{text}`")))
        }
    }
}
