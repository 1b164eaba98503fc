//! The table of cases and the traces that PyTorch wrote for them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use fovea_model::{
    AskOptions, Error, Model,
    trace::{Value, trace},
};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value as Json;

use crate::run;

/// All stages of one run, by name.
pub type Trace = BTreeMap<String, Value>;

/// One case: a model, a picture, a question, and which samplers are on.
#[derive(Clone, Debug)]
pub struct Case {
    /// What it is called; also its trace's file.
    pub name: String,
    /// The checkpoint's directory.
    pub model: String,
    /// The picture's file in `pictures/`.
    pub picture: String,
    /// The question.
    pub prompt: String,
    /// Whether the vision-guided sampler is on.
    pub vision: bool,
    /// Whether the text-guided sampler is on.
    pub text: bool,
    /// Most tokens of the answer.
    pub new: usize,
}

impl Case {
    /// The settings of the case.
    pub fn options(&self) -> AskOptions {
        AskOptions { vision: self.vision, text: self.text, ..run::options(self.new) }
    }
}

/// Where the fixtures lie.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// A JSON file of the fixtures.
///
/// # Panics
/// Where it is missing or broken.
pub fn json(file: &str) -> Json {
    let path = fixtures().join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("expected {}, got: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{file}: expected JSON, got: {e}"))
}

/// The rows of a JSON file that holds a list.
///
/// # Panics
/// As [`json`], or where it holds something else, or nothing.
pub fn rows(file: &str) -> Vec<Json> {
    match json(file) {
        Json::Array(rows) if !rows.is_empty() => rows,
        other => panic!("{file}: expected a list with rows, got {other}"),
    }
}

/// A text of a row.
///
/// # Panics
/// Where it is not there.
pub fn text<'a>(row: &'a Json, key: &str) -> &'a str {
    row[key].as_str().unwrap_or_else(|| panic!("expected a text `{key}`, got {row}"))
}

/// A count of a row.
///
/// # Panics
/// Where it is not there.
pub fn count(row: &Json, key: &str) -> usize {
    let found = row[key].as_u64().and_then(|n| usize::try_from(n).ok());
    found.unwrap_or_else(|| panic!("expected a count `{key}`, got {row}"))
}

/// Every case.
///
/// # Panics
/// Where `cases.json` is missing or broken.
pub fn cases() -> Vec<Case> {
    rows("cases.json").iter().map(case).collect()
}

fn case(row: &Json) -> Case {
    let off: Vec<&str> = row["off"].as_array().into_iter().flatten().filter_map(Json::as_str).collect();
    let picture = text(row, "image");
    Case {
        name: text(row, "case").to_owned(),
        model: text(row, "model").to_owned(),
        picture: picture.strip_prefix("pictures/").unwrap_or(picture).to_owned(),
        prompt: text(row, "prompt").to_owned(),
        vision: !off.contains(&"vision"),
        text: !off.contains(&"text"),
        new: count(row, "new"),
    }
}

/// What PyTorch computed for a case.
///
/// # Panics
/// Where the trace is missing, broken, or of other types than F32 and I64.
pub fn reference(case: &str) -> Trace {
    let path = fixtures().join("traces").join(format!("{case}.safetensors"));
    let bytes = fs::read(&path).unwrap_or_else(|e| panic!("expected {}, got: {e}", path.display()));
    let tensors = SafeTensors::deserialize(&bytes).unwrap_or_else(|e| panic!("{case}: expected a trace, got: {e}"));
    tensors
        .iter()
        .map(|(name, view)| {
            let (shape, bytes) = (view.shape().to_vec(), view.data());
            let value = match view.dtype() {
                Dtype::F32 => Value::F32 {
                    shape,
                    data: bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
                },
                Dtype::I64 => Value::I64 {
                    shape,
                    data: bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect(),
                },
                other => panic!("{case}: {name}: expected F32 or I64, got {other:?}"),
            };
            (name.to_owned(), value)
        })
        .collect()
}

/// Runs a case.
///
/// # Errors
/// As [`fovea_model::Conversation::ask`].
pub fn run_case(model: &Arc<Model>, case: &Case) -> Result<Trace, Error> {
    let mut conversation = model.look_at(run::picture(&case.picture));
    pollster::block_on(trace(&mut conversation, &case.prompt, &case.options()))
}

/// The numbers of an F32 stage and its shape.
///
/// # Panics
/// Where it is not there or of another type.
pub fn floats<'a>(trace: &'a Trace, stage: &str) -> (&'a [usize], &'a [f32]) {
    match trace.get(stage) {
        Some(Value::F32 { shape, data }) => (shape, data),
        other => panic!("{stage}: expected F32, got {other:?}"),
    }
}

/// The numbers of an I64 stage, as indices.
///
/// # Panics
/// Where it is not there, of another type, or below zero.
pub fn indices(trace: &Trace, stage: &str) -> Vec<usize> {
    match trace.get(stage) {
        Some(Value::I64 { data, .. }) => {
            data.iter().map(|&i| usize::try_from(i).expect("an index of at least 0")).collect()
        }
        other => panic!("{stage}: expected I64, got {other:?}"),
    }
}
