//! Embedded fixtures: the smallest set that covers every stage. One checkpoint with 0.36 million weights, three
//! pictures, three traces.

use std::borrow::Cow;

use serde_json::Value;

use crate::golden::{CASES, FixtureError, Fixtures};

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_bytes!(concat!("../../fixtures/", $name)).as_slice())),*]
    };
}

/// The checkpoint whose cases are embedded.
const MODEL: &str = "tiny-1";

/// Cases `tiny-older-emoji`, `tiny-older-thin` and `tiny-older-none`.
///
/// # Errors
/// [`FixtureError`] if the table is broken, which the tests exclude.
pub fn fixtures() -> Result<Fixtures, FixtureError> {
    let broken = |e: serde_json::Error| FixtureError::new(CASES, e.to_string());
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
    );
    let files = files.map(|(name, bytes)| (name.to_owned(), Cow::Borrowed(bytes)));
    Ok(Fixtures::new(files.into_iter().chain([(CASES.to_owned(), Cow::Owned(table))])))
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
    }
}
