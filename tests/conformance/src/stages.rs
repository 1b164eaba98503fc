//! Every stage of a run against the trace that PyTorch wrote for it.
//!
//! The first stage that is off, in the order of the data, is where to look: what comes after it is off by inheritance.

use fovea_model::trace::Value;
use serde::{Deserialize, Serialize};

use crate::{
    bound::{Bad, Bound, Held},
    golden::{Case, Trace},
    number,
    row::Outcome,
};

/// Every stage in the order of the data, with its bound.
///
/// Features are held to 1e-8 (vision tower and projector, f32). `visual_tokens` are copies and maxima of them,
/// `scale_logits` one product of them, and `importance` comes out of a few layers over them: each may be off by what it
/// got, and adds less of its own (1e-9). Decisions are exact, because every case has a margin far above these errors.
/// The share is a quotient of counts, written in f32.
pub const STAGES: [(&str, Bound); 15] = [
    ("pixel_values", Bound::Exact),
    ("thumbnail", Bound::Nmse(1e-8)),
    ("feature_map", Bound::Nmse(1e-8)),
    ("scale_logits", Bound::Nmse(1e-8)),
    ("scale_choice", Bound::Exact),
    ("token_boxes", Bound::Exact),
    ("visual_tokens", Bound::Nmse(1e-8)),
    ("input_ids", Bound::Exact),
    ("importance", Bound::Nmse(1e-8)),
    ("kept_visual", Bound::Exact),
    ("prefill_logits", Bound::Abs(1e-3)),
    ("step_logits", Bound::Abs(1e-3)),
    ("answer_ids", Bound::Exact),
    ("token_counts", Bound::Exact),
    ("equivalent_share", Bound::Abs(1e-6)),
];

/// The row of one stage of one case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageRow {
    /// The case.
    pub case: String,
    /// Its checkpoint.
    pub model: String,
    /// The stage; `run` where there is no trace to compare.
    pub stage: String,
    /// What it is held to.
    pub tolerance: String,
    /// Normalised mean square error.
    #[serde(with = "number")]
    pub nmse: f64,
    /// Largest absolute error.
    #[serde(with = "number")]
    pub max_abs: f64,
    /// The number that is wrong.
    pub first_bad: Option<Bad>,
    /// How it ended.
    pub outcome: Outcome,
}

impl StageRow {
    fn new(case: &Case, stage: &str, tolerance: String) -> Self {
        Self {
            case: case.name.clone(),
            model: case.model.clone(),
            stage: stage.to_owned(),
            tolerance,
            nmse: 0.0,
            max_abs: 0.0,
            first_bad: None,
            outcome: Outcome::Pass,
        }
    }

    fn held(case: &Case, stage: &str, bound: Bound, held: Held) -> Self {
        let mut row = Self::new(case, stage, bound.to_string());
        (row.nmse, row.max_abs) = (held.nmse, held.max_abs);
        if let Some((bad, why)) = held.fault {
            row.first_bad = Some(bad);
            row.outcome = Outcome::Fail { why };
        }
        row
    }

    /// A case that gave nothing to compare.
    pub(crate) fn failed(case: &Case, stage: &str, why: String) -> Self {
        let (nmse, max_abs) = (f64::INFINITY, f64::INFINITY);
        Self { nmse, max_abs, outcome: Outcome::Fail { why }, ..Self::new(case, stage, "a run".into()) }
    }
}

/// Holds a trace to the reference's: a row for every stage that either has.
pub fn check(case: &Case, expected: &Trace, got: &Trace) -> Vec<StageRow> {
    let unknown = |trace: &Trace| trace.keys().find(|name| STAGES.iter().all(|(stage, _)| stage != name)).cloned();
    if let Some(stage) = unknown(expected).or_else(|| unknown(got)) {
        return vec![StageRow::failed(case, &stage, format!("{stage}: expected a bound for every stage, got none"))];
    }
    let row = |(stage, bound): (&str, Bound)| match (expected.get(stage), got.get(stage)) {
        (None, None) => None,
        (Some(_), None) => Some(StageRow::failed(case, stage, format!("{stage}: expected it, got none"))),
        (None, Some(_)) => Some(StageRow::failed(case, stage, format!("{stage}: expected none, got one"))),
        (Some(expected), Some(got)) => Some(match compare(stage, bound, expected, got) {
            Ok(held) => StageRow::held(case, stage, bound, held),
            Err(why) => StageRow::failed(case, stage, why),
        }),
    };
    STAGES.into_iter().filter_map(row).collect()
}

/// The sentence, where the two cannot be compared number by number.
fn compare(stage: &str, bound: Bound, expected: &Value, got: &Value) -> Result<Held, String> {
    let shapes = |a: &[usize], b: &[usize]| {
        if a == b { Ok(()) } else { Err(format!("{stage}: expected the shape {a:?}, got {b:?}")) }
    };
    match (expected, got) {
        (Value::I64 { shape: a, data: x }, Value::I64 { shape: b, data: y }) => {
            shapes(a, b)?;
            // Ids and indices are far below 2^53.
            let wide = |values: &[i64]| values.iter().map(|&i| i as f64).collect::<Vec<f64>>();
            Ok(bound.hold(stage, &wide(x), &wide(y)))
        }
        (Value::F32 { shape: a, data: x }, Value::F32 { shape: b, data: y }) => {
            shapes(a, b)?;
            Ok(bound.hold(stage, x, y))
        }
        _ => Err(format!("{stage}: expected the type of PyTorch's trace, got the other")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case() -> Case {
        let name = || "c".to_owned();
        Case { name: name(), model: name(), picture: name(), prompt: name(), vision: true, text: true, new: 1 }
    }

    fn trace(stage: &str, value: Value) -> Trace {
        Trace::from([(stage.to_owned(), value)])
    }

    fn floats(data: &[f32]) -> Value {
        Value::F32 { shape: vec![data.len()], data: data.to_vec() }
    }

    #[test]
    fn what_is_off_missing_extra_or_of_another_kind_fails() {
        let whole = Value::I64 { shape: vec![1], data: vec![1] };
        let good = trace("thumbnail", floats(&[1.0, 2.0]));
        let rows = |expected: &Trace, got: &Trace| {
            let rows = check(&case(), expected, got);
            assert_eq!(rows.len(), 1);
            rows[0].outcome == Outcome::Pass
        };
        assert!(rows(&good, &good));
        assert!(rows(&good, &trace("thumbnail", floats(&[1.0, 2.000_01]))));
        for bad in [
            trace("thumbnail", floats(&[1.0, 2.1])),
            trace("thumbnail", floats(&[1.0, f32::NAN])),
            trace("thumbnail", floats(&[1.0])),
            trace("thumbnail", whole.clone()),
            trace("nonsense", whole.clone()),
            Trace::new(),
        ] {
            assert!(!rows(&good, &bad), "{bad:?}: expected a failure");
        }
        assert!(!rows(&Trace::new(), &good));
        assert!(!rows(
            &trace("kept_visual", whole),
            &trace("kept_visual", Value::I64 { shape: vec![1], data: vec![2] })
        ));
    }
}
