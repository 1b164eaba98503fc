//! Golden cases and PyTorch's traces for them, read from files in memory. The files come from a directory, are
//! embedded, or come from a browser.

use std::{borrow::Cow, collections::BTreeMap};

use fovea_model::{AskOptions, Before, Compression, TextGuided, Within, trace::Value};
use fovea_runtime::source::Source;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

pub use fovea_model::trace::Trace;

/// One case: a model, a picture, a question, and a compression.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its name, and the name of its trace file.
    pub name: String,
    /// The checkpoint's directory.
    pub model: String,
    /// The picture's file in `pictures/`.
    pub picture: String,
    /// The question.
    pub prompt: String,
    /// Which visual tokens the text model reads.
    pub compression: Compression,
    /// Maximum number of new tokens.
    pub new: usize,
}

impl Case {
    /// The case's options: greedy decoding, logits kept.
    pub fn options(&self) -> AskOptions {
        AskOptions {
            compression: Some(self.compression.clone()),
            max_new_tokens: self.new,
            keep_logits: true,
            ..AskOptions::default()
        }
    }
}

/// A missing or broken fixture.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("fixture {file}: {why}")]
pub struct FixtureError {
    /// The file's name.
    pub file: String,
    /// What was expected, and what was found.
    pub why: String,
}

impl FixtureError {
    pub(crate) fn new(file: &str, why: impl Into<String>) -> Self {
        Self { file: file.to_owned(), why: why.into() }
    }
}

/// The fixtures' files by path, with slashes: `cases.json`, `pictures/200x200-0.png`, `traces/tiny-both.safetensors`,
/// `tiny-0/config.json`, `compressed/cases.json`.
#[derive(Clone, Debug, Default)]
pub struct Fixtures(BTreeMap<String, Cow<'static, [u8]>>);

impl Fixtures {
    /// Fixtures from these files.
    pub fn new(files: impl IntoIterator<Item = (String, Cow<'static, [u8]>)>) -> Self {
        Self(files.into_iter().collect())
    }

    /// Whether there are no files. Then only kernels can be checked.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A file's bytes.
    ///
    /// # Errors
    /// [`FixtureError`] if it is missing.
    pub fn file(&self, name: &str) -> Result<&[u8], FixtureError> {
        let found = self.0.get(name).map(AsRef::as_ref);
        found.ok_or_else(|| FixtureError::new(name, format!("expected it among {} files, got none", self.0.len())))
    }

    /// All cases.
    ///
    /// # Errors
    /// [`FixtureError`] if the table is missing or broken.
    pub fn cases(&self) -> Result<Vec<Case>, FixtureError> {
        cases(self.file(CASES)?)
    }

    /// PyTorch's trace of a case.
    ///
    /// # Errors
    /// [`FixtureError`] if the trace is missing or broken.
    pub fn trace(&self, case: &str) -> Result<Trace, FixtureError> {
        let name = format!("traces/{case}.safetensors");
        trace(&name, self.file(&name)?)
    }

    /// The bytes of a case's picture.
    ///
    /// # Errors
    /// [`FixtureError`] if it is missing.
    pub fn picture(&self, case: &Case) -> Result<&[u8], FixtureError> {
        self.file(&format!("pictures/{}", case.picture))
    }

    /// The files of one checkpoint.
    ///
    /// # Errors
    /// [`FixtureError`] if there are none.
    pub fn checkpoint(&self, name: &str) -> Result<Source, FixtureError> {
        let files: Vec<_> = self.inside(name).map(|(file, bytes)| (file.to_owned(), bytes.clone())).collect();
        if files.is_empty() {
            return Err(FixtureError::new(&format!("{name}/"), "expected a checkpoint's files, got none"));
        }
        Ok(Source::memory(name, files))
    }

    /// The files of a folder, by their names in it.
    pub(crate) fn inside<'a>(&'a self, folder: &'a str) -> impl Iterator<Item = (&'a str, &'a Cow<'static, [u8]>)> {
        self.0.iter().filter_map(move |(file, bytes)| Some((file.strip_prefix(folder)?.strip_prefix('/')?, bytes)))
    }
}

/// The file of the table of cases.
pub const CASES: &str = "cases.json";

/// A row of the table.
#[derive(Deserialize)]
struct Line {
    case: String,
    model: String,
    image: String,
    prompt: String,
    off: Vec<String>,
    new: usize,
}

impl From<Line> for Case {
    fn from(line: Line) -> Self {
        let on = |sampler: &str| !line.off.iter().any(|off| off == sampler);
        let compression = Compression {
            before: if on("vision") { Before::Vision { random: None } } else { Before::Every },
            within: if on("text") { Within::Text(TextGuided::default()) } else { Within::Every },
        };
        Self {
            compression,
            picture: line.image.strip_prefix("pictures/").unwrap_or(&line.image).to_owned(),
            name: line.case,
            model: line.model,
            prompt: line.prompt,
            new: line.new,
        }
    }
}

/// Parses the table of cases.
///
/// # Errors
/// [`FixtureError`] if it is broken or empty.
pub fn cases(table: &[u8]) -> Result<Vec<Case>, FixtureError> {
    let lines: Vec<Line> = serde_json::from_slice(table)
        .map_err(|e| FixtureError::new(CASES, format!("expected a list of cases, got: {e}")))?;
    if lines.is_empty() {
        return Err(FixtureError::new(CASES, "expected cases, got none"));
    }
    Ok(lines.into_iter().map(Case::from).collect())
}

/// Parses a trace. `name` is its file name, for errors.
///
/// # Errors
/// [`FixtureError`] if it is broken or has types other than F32 and I64.
pub fn trace(name: &str, bytes: &[u8]) -> Result<Trace, FixtureError> {
    let tensors = SafeTensors::deserialize(bytes)
        .map_err(|e| FixtureError::new(name, format!("expected a safetensors file, got: {e}")))?;
    let value = |stage: &str, dtype: Dtype, shape: Vec<usize>, bytes: &[u8]| match dtype {
        Dtype::F32 => {
            let data = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
            Ok(Value::F32 { shape, data })
        }
        Dtype::I64 => {
            let data = bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect();
            Ok(Value::I64 { shape, data })
        }
        other => Err(FixtureError::new(name, format!("{stage}: expected F32 or I64, got {other:?}"))),
    };
    let stages = tensors.iter().map(|(stage, view)| {
        let value = value(stage, view.dtype(), view.shape().to_vec(), view.data())?;
        Ok((stage.to_owned(), value))
    });
    stages.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_missing_and_broken_files() {
        let none = Fixtures::default();
        assert!(none.is_empty() && none.cases().is_err_and(|e| e.to_string().contains("cases.json")));
        assert!(none.checkpoint("tiny-1").is_err_and(|e| e.to_string().contains("tiny-1/")));
        assert!(none.trace("x").is_err_and(|e| e.to_string().contains("traces/x.safetensors")));
        assert!(cases(b"[]").is_err_and(|e| e.why.contains("got none")));
        assert!(cases(b"{").is_err_and(|e| e.why.contains("expected a list")));
        assert!(trace("x", b"").is_err_and(|e| e.why.contains("expected a safetensors file")));
    }

    #[test]
    fn a_row_of_the_table_is_a_case() {
        let table =
            br#"[{"case": "c", "model": "m", "image": "pictures/p.png", "prompt": "?", "off": ["text"], "new": 3}]"#;
        let [case] = cases(table).unwrap().try_into().unwrap();
        assert_eq!((case.picture.as_str(), case.compression.to_string().as_str(), case.new), ("p.png", "vision", 3));
        let fixtures = Fixtures::new([("m/config.json".to_owned(), Cow::Borrowed(b"{}".as_slice()))]);
        assert_eq!(fixtures.checkpoint("m").unwrap().files().collect::<Vec<_>>(), ["config.json"]);
        assert!(fixtures.checkpoint("mm").is_err());
    }
}
