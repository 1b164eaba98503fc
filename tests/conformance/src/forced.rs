//! Forced decoding: the model gets the reference's answer token by token, and at every step its most likely next token
//! must be the reference's.
//!
//! In a greedy run, all steps after one different token differ. Forced decoding judges every step separately.

use fovea_model::{AskOptions, trace::Value};
use serde::{Deserialize, Serialize};

use crate::{
    golden::{Case, Trace},
    row::Outcome,
};

/// Top-1 agreement of one case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecodingRow {
    /// The case.
    pub case: String,
    /// Number of steps in the reference's answer.
    pub steps: usize,
    /// Number of steps whose most likely token is the reference's.
    pub agree: usize,
    /// The outcome. One different token is a failure, since the best two logits of every step are far apart.
    pub outcome: Outcome,
}

/// Options that force the reference's answer.
///
/// # Errors
/// A message, if the trace has no answer.
pub fn options(case: &Case, reference: &Trace) -> Result<AskOptions, String> {
    let Some(Value::I64 { data, .. }) = reference.get("answer_ids") else {
        return Err("answer_ids: expected ids in PyTorch's trace, got none".to_owned());
    };
    let forced = data.iter().map(|&id| u32::try_from(id).map_err(|_| format!("answer_ids: expected an id, got {id}")));
    let forced: Vec<u32> = forced.collect::<Result<_, _>>()?;
    Ok(AskOptions { max_new_tokens: forced.len(), forced, ..case.options() })
}

/// Compares the most likely tokens of a forced run with the reference's.
pub fn check(case: &Case, reference: &Trace, got: &Trace) -> DecodingRow {
    let row = |steps, agree, outcome| DecodingRow { case: case.name.clone(), steps, agree, outcome };
    let (expected, got) = match (best_tokens(reference), best_tokens(got)) {
        (Ok(expected), Ok(got)) => (expected, got),
        (Err(why), _) | (_, Err(why)) => return row(0, 0, Outcome::Fail { why }),
    };
    let agree = expected.iter().zip(&got).filter(|(a, b)| a == b).count();
    let outcome = if expected == got {
        Outcome::Pass
    } else {
        Outcome::Fail { why: format!("expected the most likely tokens {expected:?}, got {got:?}") }
    };
    row(expected.len(), agree, outcome)
}

/// The row of a case that did not complete.
pub(crate) fn failed(case: &Case, why: String) -> DecodingRow {
    DecodingRow { case: case.name.clone(), steps: 0, agree: 0, outcome: Outcome::Fail { why } }
}

/// The most likely token of every step; the first one if logits are equal.
fn best_tokens(trace: &Trace) -> Result<Vec<usize>, String> {
    let Some(Value::F32 { shape, data }) = trace.get("step_logits") else {
        return Err("step_logits: expected logits, got none".to_owned());
    };
    match shape.as_slice() {
        &[steps, vocabulary] if vocabulary > 0 && steps * vocabulary == data.len() => {
            let first_best = |logits: &[f32]| (0..vocabulary).fold(0, |b, i| if logits[i] > logits[b] { i } else { b });
            Ok(data.chunks_exact(vocabulary).map(first_best).collect())
        }
        other => Err(format!("step_logits: expected (steps, vocabulary), got {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use fovea_model::Compression;

    use super::*;

    #[test]
    fn one_different_token_fails_and_the_others_are_counted() {
        let case = Case {
            name: "c".into(),
            model: "m".into(),
            picture: "p".into(),
            prompt: "?".into(),
            compression: Compression::focus(),
            new: 2,
        };
        let trace = |data: Vec<f32>| Trace::from([("step_logits".to_owned(), Value::F32 { shape: vec![2, 2], data })]);
        let reference = trace(vec![0.0, 1.0, 3.0, 2.0]);
        assert_eq!(check(&case, &reference, &reference).outcome, Outcome::Pass);
        let row = check(&case, &reference, &trace(vec![1.0, 0.0, 3.0, 2.0]));
        assert_eq!((row.steps, row.agree, row.outcome.word()), (2, 1, "FAIL"));
        assert_eq!(check(&case, &reference, &Trace::new()).outcome.word(), "FAIL");
        assert!(options(&case, &Trace::new()).is_err());
    }
}
