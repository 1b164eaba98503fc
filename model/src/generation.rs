//! Input: `generation_config.json`, `config.json` and the tokenizer's special tokens. Output: the ids that end an answer,
//! and the repetition penalty. Source: Hugging Face's `generation/configuration_utils.py` and `logits_process.py`.
//!
//! The caller chooses how tokens are sampled ([`crate::Pick`]). Such settings in the file only give a note.

use serde_json::{Map, Value};

use crate::error::Error;

const FILE: &str = "generation_config.json";

/// A checkpoint's settings for generation.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// Ids that end an answer.
    pub stop_ids: Vec<u32>,
    /// Divides positive logits and multiplies negative ones of every token that already occurs in the prompt or the answer;
    /// 1 changes nothing.
    pub repetition_penalty: f32,
    /// Notes for the user, one sentence each.
    pub notes: Vec<String>,
}

/// Settings that would change a greedy answer, and the value with which each has no effect.
const NOT_SUPPORTED: [(&str, f64); 19] = [
    ("bad_words_ids", 0.0),
    ("begin_suppress_tokens", 0.0),
    ("dola_layers", 0.0),
    ("encoder_repetition_penalty", 1.0),
    ("exponential_decay_length_penalty", 0.0),
    ("forced_bos_token_id", f64::NAN),
    ("forced_eos_token_id", f64::NAN),
    ("guidance_scale", 1.0),
    ("min_length", 0.0),
    ("min_new_tokens", 0.0),
    ("no_repeat_ngram_size", 0.0),
    ("num_beam_groups", 1.0),
    ("num_beams", 1.0),
    ("penalty_alpha", 0.0),
    ("sequence_bias", 0.0),
    ("stop_strings", 0.0),
    ("suppress_tokens", 0.0),
    ("token_healing", 0.0),
    ("watermarking_config", 0.0),
];

impl Generation {
    /// Reads the settings. `id_of` returns the id of a token's text.
    ///
    /// Stop ids are `eos_token_id` of generation_config.json, else of config.json, else of its text model, else the
    /// tokenizer's `eos_token`, with a note. A negative id means none.
    ///
    /// # Errors
    /// [`Error::Config`] for ids that are not whole numbers, and for a penalty that is not above zero.
    pub(crate) fn read(
        generation: &Value,
        config: &Value,
        special: &Map<String, Value>,
        id_of: impl Fn(&str) -> Option<u32>,
    ) -> Result<Self, Error> {
        let mut notes = Vec::new();
        let stop_ids = match stop_ids(generation, config)? {
            ids if !ids.is_empty() => ids,
            _ => {
                let token = special.get("eos_token").and_then(Value::as_str);
                let found = token.and_then(|token| Some((token, id_of(token)?)));
                notes.push(match found {
                    Some((token, id)) => format!(
                        "neither {FILE} nor config.json names a stop id: answers end at the tokenizer's eos_token {token:?} ({id})"
                    ),
                    None => "no file names a stop id: every answer has the largest allowed length".to_owned(),
                });
                found.map(|(_, id)| id).into_iter().collect()
            }
        };
        let penalty = match generation.get("repetition_penalty").filter(|v| !v.is_null()) {
            None => 1.0,
            Some(value) => {
                value.as_f64().filter(|p| *p > 0.0 && (*p as f32).is_finite()).ok_or_else(|| Error::Config {
                    key: format!("{FILE}: repetition_penalty"),
                    why: format!("expected a number above 0, got {value}"),
                })?
            }
        };
        if penalty != 1.0 {
            notes.push(format!("{FILE} sets repetition_penalty {penalty}, which is applied"));
        }
        if generation.get("do_sample").and_then(Value::as_bool) == Some(true) {
            notes.push(format!(
                "{FILE} sets do_sample, which is ignored: answers are greedy unless you set a temperature"
            ));
        }
        notes.extend(NOT_SUPPORTED.iter().filter_map(|(key, neutral)| {
            let value = generation.get(*key).filter(|value| !is_neutral(value, *neutral))?;
            Some(format!("{FILE} sets {key} {value}, which is not supported: answers may differ from Hugging Face's"))
        }));
        Ok(Self { stop_ids, repetition_penalty: penalty as f32, notes })
    }
}

/// Whether a setting has no effect: null, false, empty, or the neutral number.
fn is_neutral(value: &Value, neutral: f64) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(neutral),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// The ids of the first `eos_token_id` that has one.
fn stop_ids(generation: &Value, config: &Value) -> Result<Vec<u32>, Error> {
    let text = |key: &str| config.get(key).and_then(|text| text.get("eos_token_id"));
    let places = [
        (FILE, generation.get("eos_token_id")),
        ("config.json", config.get("eos_token_id")),
        ("config.json: text_config", text("text_config")),
    ];
    for (file, found) in places {
        let Some(value) = found.filter(|v| !v.is_null()) else { continue };
        let listed = match value {
            Value::Array(all) => all.as_slice(),
            one => std::slice::from_ref(one),
        };
        let mut ids = Vec::new();
        for id in listed.iter().filter(|id| id.as_i64().is_none_or(|id| id >= 0)) {
            let id = id.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| Error::Config {
                key: format!("{file}: eos_token_id"),
                why: format!("expected an id or a list of ids, got {value}"),
            })?;
            ids.push(id);
        }
        if !ids.is_empty() {
            return Ok(ids);
        }
    }
    Ok(Vec::new())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(generation: Value, config: Value, eos: Option<&str>) -> Result<Generation, Error> {
        let mut special = Map::new();
        if let Some(eos) = eos {
            special.insert("eos_token".into(), eos.into());
        }
        Generation::read(&generation, &config, &special, |token| (token == "</s>").then_some(2))
    }

    fn stops(generation: Value, config: Value, eos: Option<&str>) -> (Vec<u32>, usize) {
        let read = read(generation, config, eos).expect("settings");
        (read.stop_ids, read.notes.len())
    }

    #[test]
    fn stop_ids_come_from_the_first_file_that_names_some() {
        let text = |id: Value| json!({"text_config": {"eos_token_id": id}});
        assert_eq!(stops(json!({"eos_token_id": 5}), json!({"eos_token_id": 6}), None), (vec![5], 0));
        assert_eq!(stops(json!({"eos_token_id": [5, 7]}), json!({}), None), (vec![5, 7], 0));
        assert_eq!(stops(json!({"eos_token_id": [-1, 7]}), json!({}), None), (vec![7], 0));
        for none in [json!({}), json!({"eos_token_id": null}), json!({"eos_token_id": -1}), json!({"eos_token_id": []})]
        {
            assert_eq!(stops(none.clone(), json!({"eos_token_id": 6}), Some("</s>")), (vec![6], 0), "{none}");
            assert_eq!(stops(none.clone(), text(json!([8, 9])), Some("</s>")), (vec![8, 9], 0), "{none}");
            assert_eq!(stops(none.clone(), text(json!(-1)), Some("</s>")), (vec![2], 1), "{none}");
            assert_eq!(stops(none.clone(), json!({}), Some("other")), (vec![], 1), "{none}");
        }
    }

    #[test]
    fn a_value_that_is_not_an_id_is_refused() {
        for wrong in [json!("</s>"), json!(1.5), json!([2, null]), json!({"a": 1}), json!(1u64 << 40)] {
            let why = read(json!({"eos_token_id": wrong}), json!({}), None).unwrap_err().to_string();
            assert!(why.contains("eos_token_id: expected an id or a list of ids"), "{why}");
        }
    }

    #[test]
    fn the_penalty_is_read_and_ignored_settings_give_notes() {
        let read = |generation| read(generation, json!({"eos_token_id": 2}), None);
        let plain =
            read(json!({"num_beams": 1, "no_repeat_ngram_size": 0, "min_length": 0, "do_sample": false})).unwrap();
        assert_eq!((plain.repetition_penalty, plain.notes.len()), (1.0, 0));
        let penalty = read(json!({"repetition_penalty": 1.3})).unwrap();
        assert_eq!((penalty.repetition_penalty, penalty.notes.len()), (1.3, 1));
        for wrong in [json!(0), json!(-1.0), json!("Infinity"), json!("1.2")] {
            assert!(read(json!({"repetition_penalty": wrong})).is_err(), "{wrong}");
        }
        let many = read(json!({"num_beams": 4, "no_repeat_ngram_size": 3, "suppress_tokens": [1], "do_sample": true}))
            .unwrap();
        assert_eq!(many.notes.len(), 4, "{:?}", many.notes);
        assert!(many.notes.iter().any(|note| note.contains("num_beams 4")), "{:?}", many.notes);
    }
}
