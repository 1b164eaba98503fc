//! Reads the repository's fixtures with `fovea_conformance::golden`. Missing and broken files panic.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use fovea_conformance::golden::{self, CASES, Fixtures};
use fovea_model::{
    Conversation, Error, Model,
    trace::{Value, trace},
};
use serde_json::Value as Json;

use crate::run;

pub use fovea_conformance::golden::{Case, Trace};

/// The directory of the fixtures.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// A JSON file of the fixtures.
///
/// # Panics
/// If it is missing or broken.
pub fn json(file: &str) -> Json {
    let path = fixtures().join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("expected {}, got: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{file}: expected JSON, got: {e}"))
}

/// The rows of a JSON file that contains a list.
///
/// # Panics
/// As [`json`], or if it contains no list, or an empty one.
pub fn rows(file: &str) -> Vec<Json> {
    match json(file) {
        Json::Array(rows) if !rows.is_empty() => rows,
        other => panic!("{file}: expected a list with rows, got {other}"),
    }
}

/// A text of a row.
///
/// # Panics
/// If it is missing.
pub fn text<'a>(row: &'a Json, key: &str) -> &'a str {
    row[key].as_str().unwrap_or_else(|| panic!("expected a text `{key}`, got {row}"))
}

/// A count of a row.
///
/// # Panics
/// If it is missing.
pub fn count(row: &Json, key: &str) -> usize {
    let found = row[key].as_u64().and_then(|n| usize::try_from(n).ok());
    found.unwrap_or_else(|| panic!("expected a count `{key}`, got {row}"))
}

/// All fixtures that whole runs need: cases, pictures, traces and checkpoints.
///
/// # Panics
/// If one is missing.
pub fn everything() -> Fixtures {
    Fixtures::directory(&fixtures()).unwrap_or_else(|e| panic!("expected the fixtures, got: {e}"))
}

/// All cases.
///
/// # Panics
/// If `cases.json` is missing or broken.
pub fn cases() -> Vec<Case> {
    golden::cases(&bytes(CASES)).unwrap_or_else(|e| panic!("expected the cases, got: {e}"))
}

/// PyTorch's trace of a case.
///
/// # Panics
/// If the trace is missing, broken, or has types other than F32 and I64.
pub fn reference(case: &str) -> Trace {
    stored(&format!("traces/{case}.safetensors"))
}

/// A trace of the fixtures, by its file.
///
/// # Panics
/// As [`reference()`].
pub fn stored(file: &str) -> Trace {
    golden::trace(file, &bytes(file)).unwrap_or_else(|e| panic!("expected a trace, got: {e}"))
}

fn bytes(file: &str) -> Vec<u8> {
    let path = fixtures().join(file);
    fs::read(&path).unwrap_or_else(|e| panic!("expected {}, got: {e}", path.display()))
}

/// Runs a case.
///
/// # Errors
/// As [`fovea_model::Conversation::ask`].
pub fn run_case(model: &Arc<Model>, case: &Case) -> Result<Trace, Error> {
    let mut conversation = Conversation::new(model, run::picture(&case.picture));
    pollster::block_on(trace(&mut conversation, &case.prompt, &case.options()))
}

/// Shape and numbers of an F32 stage.
///
/// # Panics
/// If it is missing or has another type.
pub fn floats<'a>(trace: &'a Trace, stage: &str) -> (&'a [usize], &'a [f32]) {
    match trace.get(stage) {
        Some(Value::F32 { shape, data }) => (shape, data),
        other => panic!("{stage}: expected F32, got {other:?}"),
    }
}

/// The numbers of an I64 stage, as indices.
///
/// # Panics
/// If it is missing, has another type, or a number is negative.
pub fn indices(trace: &Trace, stage: &str) -> Vec<usize> {
    match trace.get(stage) {
        Some(Value::I64 { data, .. }) => {
            data.iter().map(|&i| usize::try_from(i).expect("an index of at least 0")).collect()
        }
        other => panic!("{stage}: expected I64, got {other:?}"),
    }
}
