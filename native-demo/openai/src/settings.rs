//! The options of a request. Input: a JSON object. Output: [`AskOptions`].

use fovea_model::{AskOptions, Compression, Error};
use serde_json::{Map, Value};

use crate::{
    error::RequestError,
    keys::{get, number, text, whole},
};

/// Reads `temperature`, `top_p`, `top_k`, `repetition_penalty`, `seed`, `stop`, `compression`, and the largest number of new
/// tokens, whose names are `longest`; the first one that is set counts. The others are those of `usual`.
///
/// Only types are checked here: [`AskOptions::check`] checks ranges.
///
/// # Errors
/// `request` for a wrong type, `option` for an unknown compression.
pub fn settings(of: &Map<String, Value>, longest: &[&str], usual: &AskOptions) -> Result<AskOptions, RequestError> {
    let mut options = usual.clone();
    if let Some(spec) = text(of, "compression")? {
        let compression = spec.parse::<Compression>();
        let refused = |why: Error| RequestError::new("option", Some("compression"), why.to_string());
        options.compression = Some(compression.map_err(refused)?);
    }
    for key in longest.iter().rev() {
        if let Some(tokens) = whole(of, key)? {
            options.max_new_tokens = size(tokens);
        }
    }
    if let Some(value) = get(of, "stop") {
        let texts = match value {
            Value::String(one) if one.is_empty() => Some(Vec::new()),
            Value::String(one) => Some(vec![one.clone()]),
            Value::Array(all) => all.iter().map(|one| one.as_str().map(str::to_owned)).collect(),
            _ => None,
        };
        options.stop = texts.ok_or_else(|| RequestError::wrong("a text or a list of texts", "stop", Some(value)))?;
    }
    let pick = &mut options.pick;
    pick.temperature = number(of, "temperature")?.unwrap_or(pick.temperature);
    pick.top_p = number(of, "top_p")?.unwrap_or(pick.top_p);
    pick.top_k = whole(of, "top_k")?.map_or(pick.top_k, size);
    pick.repetition_penalty = number(of, "repetition_penalty")?.or(pick.repetition_penalty);
    pick.seed = whole(of, "seed")?.unwrap_or(pick.seed);
    Ok(options)
}

fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
