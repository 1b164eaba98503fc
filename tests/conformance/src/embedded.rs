//! Embedded fixtures: the smallest set that covers every stage and every method of compression. Two checkpoints with 0.36
//! million weights each, eight pictures, 15 traces.

use std::borrow::Cow;

use fovea_model::METHODS;
use serde_json::Value;

use crate::{
    compressed::{COMPRESSED, parsed},
    golden::{CASES, FixtureError, Fixtures},
};

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_bytes!(concat!("../../fixtures/", $name)).as_slice())),*]
    };
}

/// The checkpoint whose golden cases are embedded.
const MODEL: &str = "tiny-1";

/// Cases `tiny-older-emoji`, `tiny-older-thin` and `tiny-older-none`, and one case per method: the one with its name. FocusLLaVA's
/// first sampler has golden cases only.
///
/// # Errors
/// [`FixtureError`] if the table is broken, which the tests exclude.
pub fn fixtures() -> Result<Fixtures, FixtureError> {
    let broken = |e: serde_json::Error| FixtureError::new(CASES, e.to_string());
    let mut compressed: Vec<Value> = parsed(include_bytes!("../../fixtures/compressed/cases.json"))?;
    compressed.retain(|line| METHODS.iter().any(|method| line["case"] == method.name));
    let compressed = serde_json::to_vec(&compressed).map_err(broken)?;
    let mut lines: Vec<Value> = serde_json::from_slice(include_bytes!("../../fixtures/cases.json")).map_err(broken)?;
    lines.retain(|line| line["model"] == MODEL);
    let table = serde_json::to_vec(&lines).map_err(broken)?;
    let files = files!(
        "tiny-1/chat_template.json",
        "tiny-1/config.json",
        "tiny-1/generation_config.json",
        "tiny-1/model.safetensors",
        "tiny-1/preprocessor_config.json",
        "tiny-1/processor_config.json",
        "tiny-1/tokenizer.json",
        "tiny-1/tokenizer_config.json",
        "pictures/400x300-0.png",
        "pictures/17x211-0.png",
        "pictures/150x9-0.png",
        "traces/tiny-older-emoji.safetensors",
        "traces/tiny-older-thin.safetensors",
        "traces/tiny-older-none.safetensors",
        "tiny-0/chat_template.jinja",
        "tiny-0/config.json",
        "tiny-0/generation_config.json",
        "tiny-0/model.safetensors",
        "tiny-0/processor_config.json",
        "tiny-0/tokenizer.json",
        "tiny-0/tokenizer_config.json",
        "compressed/meteor-tiny-0/config.json",
        "compressed/meteor-tiny-0/meteor.safetensors",
        "pictures/111x73-0.png",
        "pictures/130x130-0.png",
        "pictures/150x90-0.png",
        "pictures/150x90-1.png",
        "pictures/150x90-2.png",
        "compressed/traces/cd-pruner.safetensors",
        "compressed/traces/div-prune.safetensors",
        "compressed/traces/faster-vlm.safetensors",
        "compressed/traces/fastv.safetensors",
        "compressed/traces/heuristic.safetensors",
        "compressed/traces/hired.safetensors",
        "compressed/traces/meteor.safetensors",
        "compressed/traces/pyramid-drop.safetensors",
        "compressed/traces/random.safetensors",
        "compressed/traces/stride.safetensors",
        "compressed/traces/text.safetensors",
        "compressed/traces/vision-zip.safetensors",
    );
    let files = files.map(|(name, bytes)| (name.to_owned(), Cow::Borrowed(bytes)));
    let tables = [(CASES, table), (COMPRESSED, compressed)].map(|(name, table)| (name.to_owned(), Cow::Owned(table)));
    Ok(Fixtures::new(files.into_iter().chain(tables)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_has_its_files() {
        let fixtures = fixtures().unwrap();
        let cases = fixtures.cases().unwrap();
        assert_eq!(cases.len(), 3);
        for case in cases {
            assert!(!fixtures.picture(&case).unwrap().is_empty());
            assert!(fixtures.trace(&case.name).unwrap().contains_key("step_logits"), "{}", case.name);
            assert!(fixtures.checkpoint(&case.model).unwrap().contains("config.json"));
        }
        let cases = fixtures.compressed().unwrap();
        assert_eq!(cases.len(), METHODS.len() - 1);
        for case in cases {
            assert!(!fixtures.picture(&case.case).unwrap().is_empty());
            assert!(case.trace(&fixtures).unwrap().contains_key("step_logits"), "{}", case.case.name);
            assert!(case.source(&fixtures).unwrap().contains("config.json"));
        }
    }
}
