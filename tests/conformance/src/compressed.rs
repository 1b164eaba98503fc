//! Cases of every compression, and their comparison with PyTorch's traces. Input: `compressed/` of the fixtures, written by
//! `tests/reference/make_compressed.py`. Output: rows of the report.

use std::{borrow::Cow, collections::BTreeMap, iter::once};

use fovea_model::{Compression, Looked, Origin, Turn, trace::Value};
use fovea_runtime::source::Source;
use safetensors::SafeTensors;
use serde::Deserialize;
use serde_json::Value as Json;

use crate::{
    bound::Bound,
    golden::{self, Case, FixtureError, Fixtures, Trace},
    stages::{STAGES, StageRow, row},
};

/// The file of the table of cases.
pub const COMPRESSED: &str = "compressed/cases.json";

/// The row of the second run in the same conversation.
const AGAIN: &str = "second_run";
/// Bound for logits that only another order of summation changes.
const SAME: Bound = Bound::Nmse(1e-10);

/// One case of a compression.
#[derive(Clone, Debug)]
pub struct CompressedCase {
    /// Model, picture, question and compression. The name starts with `compressed/`.
    pub case: Case,
    /// Changed keys of `meteor` in config.json. Null: the checkpoint has no tensors of LLaVA-Meteor.
    pub fusion: Json,
    /// The expected [`equivalent_share`](fovea_model::Statistics::equivalent_share).
    pub share: f64,
}

/// A row of the table.
#[derive(Deserialize)]
struct Line {
    case: String,
    model: String,
    #[serde(default)]
    fusion: Json,
    picture: String,
    prompt: String,
    spec: String,
    share: f64,
    answer: Vec<u32>,
}

impl Line {
    fn case(self) -> Result<CompressedCase, FixtureError> {
        let compression = self.spec.parse::<Compression>().map_err(|e| {
            FixtureError::new(COMPRESSED, format!("{}: expected a compression, got {}: {e}", self.case, self.spec))
        })?;
        let case = Case {
            name: format!("compressed/{}", self.case),
            model: self.model,
            picture: self.picture,
            prompt: self.prompt,
            compression,
            new: self.answer.len(),
        };
        Ok(CompressedCase { case, fusion: self.fusion, share: self.share })
    }
}

/// The rows of the table.
pub(crate) fn parsed<T: for<'a> Deserialize<'a>>(table: &[u8]) -> Result<Vec<T>, FixtureError> {
    serde_json::from_slice(table)
        .map_err(|e| FixtureError::new(COMPRESSED, format!("expected a list of cases, got: {e}")))
}

impl Fixtures {
    /// The cases of all compressions. Those of one checkpoint are adjacent.
    ///
    /// # Errors
    /// [`FixtureError`] if the table is missing or broken.
    pub fn compressed(&self) -> Result<Vec<CompressedCase>, FixtureError> {
        let lines: Vec<Line> = parsed(self.file(COMPRESSED)?)?;
        let mut cases: Vec<CompressedCase> = lines.into_iter().map(Line::case).collect::<Result<_, _>>()?;
        cases.sort_by_cached_key(CompressedCase::checkpoint);
        Ok(cases)
    }

    /// A checkpoint's files with the tensors of `compressed/meteor-MODEL`, and keys of `meteor` in config.json changed to those of
    /// `fusion`.
    ///
    /// # Errors
    /// [`FixtureError`] if a file is missing or broken.
    pub fn with_meteor(&self, model: &str, fusion: &Json) -> Result<BTreeMap<String, Vec<u8>>, FixtureError> {
        let folder = meteor(model);
        let broken = |why: String| FixtureError::new(&folder, why);
        let (mut files, mut weights) = (BTreeMap::new(), Vec::new());
        for (name, bytes) in self.inside(model).chain(self.inside(&folder)) {
            if name.ends_with(".safetensors") {
                weights.extend(SafeTensors::deserialize(bytes).map_err(|e| broken(e.to_string()))?.tensors());
            } else {
                files.insert(name.to_owned(), bytes.to_vec());
            }
        }
        let weights = safetensors::serialize(weights, None).map_err(|e| broken(e.to_string()))?;
        files.insert("model.safetensors".to_owned(), weights);
        let config = files.get("config.json").map(Vec::as_slice).unwrap_or_default();
        let mut config: Json = serde_json::from_slice(config).map_err(|e| broken(format!("config.json: {e}")))?;
        let Some(settings) = config.get_mut("meteor").and_then(Json::as_object_mut) else {
            return Err(broken("expected `meteor` in config.json, got none".to_owned()));
        };
        settings.extend(fusion.as_object().cloned().unwrap_or_default());
        files.insert("config.json".to_owned(), config.to_string().into_bytes());
        Ok(files)
    }
}

/// The folder with the tensors of LLaVA-Meteor for a checkpoint.
fn meteor(model: &str) -> String {
    format!("compressed/meteor-{model}")
}

impl CompressedCase {
    /// Text that is equal for cases of the same checkpoint.
    pub(crate) fn checkpoint(&self) -> String {
        format!("{} {}", self.case.model, self.fusion)
    }

    /// The folders of its checkpoint.
    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn folders(&self) -> impl Iterator<Item = String> {
        let fusion = (!self.fusion.is_null()).then(|| meteor(&self.case.model));
        once(self.case.model.clone()).chain(fusion)
    }

    /// The files of its checkpoint.
    ///
    /// # Errors
    /// [`FixtureError`] if a file is missing or broken.
    pub fn source(&self, fixtures: &Fixtures) -> Result<Source, FixtureError> {
        let model = &self.case.model;
        if self.fusion.is_null() {
            return fixtures.checkpoint(model);
        }
        let files = fixtures.with_meteor(model, &self.fusion)?;
        Ok(Source::memory(model, files.into_iter().map(|(name, bytes)| (name, Cow::Owned(bytes)))))
    }

    /// PyTorch's trace.
    ///
    /// # Errors
    /// [`FixtureError`] if it is missing or broken.
    pub fn trace(&self, fixtures: &Fixtures) -> Result<Trace, FixtureError> {
        let name = self.case.name.replacen('/', "/traces/", 1) + ".safetensors";
        golden::trace(&name, fixtures.file(&name)?)
    }
}

/// Compares a run and a second one in the same conversation with PyTorch's trace. One row per stage of PyTorch's trace, then
/// `origins`, `equivalent_share` and `second_run`.
///
/// Indices, ids and counts are exact: every case has a margin above 1e-6 in the unit of its scores, and f32 has an error of about
/// 1e-8. The bound of scores is NMSE 1e-8, as of [`STAGES`]; the share is a quotient of counts in f64.
pub fn check(compressed: &CompressedCase, expected: &Trace, got: &Trace, again: &Turn) -> Vec<StageRow> {
    let CompressedCase { case, share, .. } = compressed;
    let listed = STAGES.into_iter().filter(|(stage, _)| expected.contains_key(*stage));
    // The places of tokens are in the row `origins`.
    let other = |stage: &str| stage != "token_place" && STAGES.iter().all(|(listed, _)| *listed != stage);
    let others = expected.iter().filter(|(stage, _)| other(stage)).map(|(stage, value)| match value {
        Value::F32 { .. } => (stage.as_str(), Bound::Nmse(1e-8)),
        Value::I64 { .. } => (stage.as_str(), Bound::Exact),
    });
    let compared = |(stage, bound): (&str, Bound)| row(case, stage, bound, expected.get(stage), got.get(stage));
    let mut rows: Vec<StageRow> = listed.chain(others).filter_map(compared).collect();

    let found: Vec<Vec<i64>> = again.looked.iter().flat_map(|looked| origins(looked)).collect();
    rows.push(match expected_origins(expected) {
        Some(origins) => StageRow::compared(case, "origins", Bound::Exact, &flat(&origins), &flat(&found)),
        None => StageRow::failed(case, "origins", "expected one place per token in PyTorch's trace, got others".into()),
    });
    let found = again.statistics.equivalent_share;
    rows.push(StageRow::compared(case, "equivalent_share", Bound::Abs(1e-9), &[*share], &[found]));
    rows.push(match got.get("step_logits") {
        _ if again.compression != case.compression => {
            let why = format!("expected the compression {}, got {}", case.compression, again.compression);
            StageRow::failed(case, AGAIN, why)
        }
        Some(Value::F32 { data, .. }) => StageRow::compared(case, AGAIN, SAME, data, &again.step_logits.concat()),
        _ => StageRow::failed(case, AGAIN, "expected logits of the first run, got none".into()),
    });
    rows
}

/// What each visual token is made of, as in the specification: stock indices, rising. A class token has its place instead,
/// which is -1 or at least the number of tokens of the family.
fn origins(looked: &Looked) -> Vec<Vec<i64>> {
    let grid = &looked.grid;
    let (first, line) = (grid.patches * grid.patches, grid.width + 1);
    let stock = (first + grid.height * line) as i64;
    let of = |origin: &Origin| -> Vec<i64> {
        let mut own: Vec<i64> = match origin {
            Origin::Thumbnail(patches) => patches.iter().map(|&patch| patch as i64).collect(),
            Origin::Map(boxes) => {
                let patches = |&[top, left, bottom, right]: &[usize; 4]| {
                    (top..bottom).flat_map(move |y| (left..right).map(move |x| (first + y * line + x) as i64))
                };
                boxes.iter().flat_map(patches).collect()
            }
            Origin::Newline([y, ..]) => vec![(first + y * line + grid.width) as i64],
            Origin::Class(0) => vec![-1],
            Origin::Class(tile) => vec![stock + *tile as i64 - 1],
        };
        own.sort_unstable();
        own
    };
    looked.origins.iter().map(of).collect()
}

/// As [`origins`], of PyTorch's trace; None if its stages do not fit together.
fn expected_origins(trace: &Trace) -> Option<Vec<Vec<i64>>> {
    let whole = |name: &str| match trace.get(name) {
        Some(Value::I64 { data, .. }) => Some(data.as_slice()),
        _ => None,
    };
    let (places, index, offsets) = (whole("token_place")?, whole("origin_index")?, whole("origin_offsets")?);
    let of = |(two, &place): (&[i64], &i64)| {
        let own = index.get(usize::try_from(two[0]).ok()?..usize::try_from(two[1]).ok()?)?;
        Some(if own.is_empty() { vec![place] } else { own.to_vec() })
    };
    offsets.windows(2).zip(places).map(of).collect()
}

/// Lists as one list: the length of each before its numbers, which are far below 2^53.
fn flat(lists: &[Vec<i64>]) -> Vec<f64> {
    lists.iter().flat_map(|list| once(list.len() as f64).chain(list.iter().map(|&i| i as f64))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_the_table_is_a_case_and_errors_name_the_file() {
        let fixtures = |spec: &str| {
            let row = serde_json::json!([{
                "case": "c", "model": "m", "picture": "p.png", "prompt": "?", "spec": spec, "share": 0.5, "answer": [1, 2],
            }]);
            Fixtures::new([(COMPRESSED.to_owned(), Cow::Owned(row.to_string().into_bytes()))])
        };
        let right = fixtures("fastv");
        let [one] = right.compressed().unwrap().try_into().unwrap();
        assert_eq!((one.case.name.as_str(), one.case.new, one.checkpoint().as_str()), ("compressed/c", 2, "m null"));
        assert!(one.trace(&right).is_err_and(|e| e.file == "compressed/traces/c.safetensors"));
        assert!(right.with_meteor("m", &one.fusion).is_err_and(|e| e.file == "compressed/meteor-m"));
        assert!(fixtures("nonsense").compressed().is_err_and(|e| e.why.contains("nonsense")));
        assert!(Fixtures::default().compressed().is_err_and(|e| e.file == COMPRESSED));
    }
}
