//! Compares every stage of a run with PyTorch's trace.
//!
//! To find a bug, start at the first failed stage in data flow order: later stages inherit its error.

use fovea_model::trace::Value;
use serde::{Deserialize, Serialize};

use crate::{
    bound::{Bad, Bound, Comparison},
    golden::{Case, Trace},
    number,
    row::Outcome,
};

/// All stages in data flow order, with their bounds.
///
/// The bound for features is NMSE 1e-8 (vision tower and projector, f32). `visual_tokens` are copies and maxima of
/// features,
/// `scale_logits` one product with them, and `importance` the result of a few layers on them: each inherits their error
/// and adds less than 1e-9. Decisions are exact, because every case has a margin far above these errors. The share is a
/// quotient of counts, stored in f32.
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
    /// The stage; `run` if there is no trace to compare.
    pub stage: String,
    /// The bound.
    pub tolerance: String,
    /// Normalized mean square error.
    #[serde(with = "number")]
    pub nmse: f64,
    /// Largest absolute error.
    #[serde(with = "number")]
    pub max_abs: f64,
    /// The first wrong number.
    pub first_bad: Option<Bad>,
    /// The outcome.
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

    /// The row of two lists of numbers.
    pub(crate) fn compared<A, B>(case: &Case, stage: &str, bound: Bound, expected: &[A], got: &[B]) -> Self
    where
        A: Copy + Into<f64>,
        B: Copy + Into<f64>,
    {
        Self::checked(case, stage, bound, bound.check(stage, expected, got))
    }

    fn checked(case: &Case, stage: &str, bound: Bound, checked: Comparison) -> Self {
        let mut row = Self::new(case, stage, bound.to_string());
        (row.nmse, row.max_abs) = (checked.nmse, checked.max_abs);
        if let Some((bad, why)) = checked.fault {
            row.first_bad = Some(bad);
            row.outcome = Outcome::Fail { why };
        }
        row
    }

    /// The row of a stage that could not be compared.
    pub(crate) fn failed(case: &Case, stage: &str, why: String) -> Self {
        let (nmse, max_abs) = (f64::INFINITY, f64::INFINITY);
        Self { nmse, max_abs, outcome: Outcome::Fail { why }, ..Self::new(case, stage, "a run".into()) }
    }
}

/// Compares a trace with the reference's: one row per stage of the list that either of them has. A run has more stages, which
/// describe a compression; [`compressed::check`](crate::compressed::check) compares them.
pub fn check(case: &Case, expected: &Trace, got: &Trace) -> Vec<StageRow> {
    if let Some(stage) = expected.keys().find(|name| STAGES.iter().all(|(stage, _)| stage != name)) {
        let why = format!("{stage}: expected a stage of the list `STAGES`, got another");
        return vec![StageRow::failed(case, stage, why)];
    }
    let compared = |(stage, bound): (&str, Bound)| row(case, stage, bound, expected.get(stage), got.get(stage));
    STAGES.into_iter().filter_map(compared).collect()
}

/// The row of one stage; None if neither trace has it.
pub(crate) fn row(
    case: &Case,
    stage: &str,
    bound: Bound,
    expected: Option<&Value>,
    got: Option<&Value>,
) -> Option<StageRow> {
    match (expected, got) {
        (None, None) => None,
        (Some(_), None) => Some(StageRow::failed(case, stage, format!("{stage}: expected this stage, got none"))),
        (None, Some(_)) => Some(StageRow::failed(case, stage, format!("{stage}: expected no such stage, got one"))),
        (Some(expected), Some(got)) => Some(match compare(stage, bound, expected, got) {
            Ok(checked) => StageRow::checked(case, stage, bound, checked),
            Err(why) => StageRow::failed(case, stage, why),
        }),
    }
}

/// Compares two stages. The error is a message that shapes or types differ.
fn compare(stage: &str, bound: Bound, expected: &Value, got: &Value) -> Result<Comparison, String> {
    let shapes = |a: &[usize], b: &[usize]| {
        if a == b { Ok(()) } else { Err(format!("{stage}: expected the shape {a:?}, got {b:?}")) }
    };
    match (expected, got) {
        (Value::I64 { shape: a, data: x }, Value::I64 { shape: b, data: y }) => {
            shapes(a, b)?;
            // Ids and indices are far below 2^53.
            let wide = |values: &[i64]| values.iter().map(|&i| i as f64).collect::<Vec<f64>>();
            Ok(bound.check(stage, &wide(x), &wide(y)))
        }
        (Value::F32 { shape: a, data: x }, Value::F32 { shape: b, data: y }) => {
            shapes(a, b)?;
            Ok(bound.check(stage, x, y))
        }
        _ => Err(format!("{stage}: expected the type of PyTorch's trace, got another type")),
    }
}

#[cfg(test)]
mod tests {
    use fovea_model::Compression;

    use super::*;

    fn case() -> Case {
        let name = || "c".to_owned();
        Case { name: name(), model: name(), picture: name(), prompt: name(), compression: Compression::focus(), new: 1 }
    }

    fn trace(stage: &str, value: Value) -> Trace {
        Trace::from([(stage.to_owned(), value)])
    }

    fn floats(data: &[f32]) -> Value {
        Value::F32 { shape: vec![data.len()], data: data.to_vec() }
    }

    #[test]
    fn wrong_missing_and_extra_stages_and_types_fail() {
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
