//! What a stage is held to, and what came of holding it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{closeness::compare, number};

/// What a stage is held to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// The same bits.
    Exact,
    /// Normalised mean square error.
    Nmse(f64),
    /// Largest absolute error.
    Abs(f64),
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact => f.write_str("exact"),
            Self::Nmse(bound) => write!(f, "NMSE {bound:e}"),
            Self::Abs(bound) => write!(f, "max abs {bound:e}"),
        }
    }
}

/// A number that is wrong: the first where all must be equal, else the worst.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bad {
    /// Of what it is one.
    pub stage: String,
    /// Its index.
    pub index: usize,
    /// What was expected there.
    #[serde(with = "number")]
    pub expected: f64,
    /// What came.
    #[serde(with = "number")]
    pub got: f64,
}

/// How one stage did.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    /// Normalised mean square error; infinite where something is not finite or the counts differ.
    pub nmse: f64,
    /// Largest absolute error; infinite likewise.
    pub max_abs: f64,
    /// The number that is wrong, and the sentence about it; None where all is well.
    pub fault: Option<(Bad, String)>,
    /// Decisions that differ from the twin's where the margin is too small to tell.
    pub flips: usize,
}

impl Bound {
    /// Compares `got` with `expected`.
    pub fn hold<A, B>(self, stage: &str, expected: &[A], got: &[B]) -> Held
    where
        A: Copy + Into<f64>,
        B: Copy + Into<f64>,
    {
        let report = compare(stage, expected, got);
        let bad = |index, expected, got| Bad { stage: stage.to_owned(), index, expected, got };
        let worst = || bad(report.at, report.expected, report.got);
        let fault = match self {
            Self::Exact if report.counts.0 == report.counts.1 => {
                let pairs = expected.iter().zip(got).map(|(&a, &b)| (a.into(), b.into()));
                first_other(pairs).map(|(index, a, b)| {
                    (bad(index, a, b), format!("{stage}: expected {a} at {index}, got {b}; {report}"))
                })
            }
            Self::Exact => Some((worst(), report.to_string())),
            Self::Nmse(bound) => report.nmse_within(bound).err().map(|why| (worst(), why)),
            Self::Abs(bound) => report.abs_within(bound).err().map(|why| (worst(), why)),
        };
        Held { nmse: report.nmse, max_abs: report.worst, fault, flips: 0 }
    }
}

/// The first pair with other bits, or that is no number.
fn first_other(pairs: impl Iterator<Item = (f64, f64)>) -> Option<(usize, f64, f64)> {
    let other = |(a, b): &(f64, f64)| a.to_bits() != b.to_bits() || !a.is_finite();
    pairs.enumerate().find(|(_, pair)| other(pair)).map(|(index, (a, b))| (index, a, b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_names_the_first_that_differs_and_the_others_the_worst() {
        let (expected, got) = ([1.0, 2.0, 3.0], [1.0, 2.5, 9.0]);
        let held = Bound::Exact.hold("x", &expected, &got);
        assert_eq!(held.fault.unwrap().0, Bad { stage: "x".into(), index: 1, expected: 2.0, got: 2.5 });
        let held = Bound::Abs(0.1).hold("x", &expected, &got);
        assert_eq!((held.max_abs, held.fault.unwrap().0.index), (6.0, 2));
        assert_eq!(Bound::Abs(6.0).hold("x", &expected, &got).fault, None);
    }

    #[test]
    fn what_is_no_number_not_there_or_of_another_sign_is_a_fault() {
        for (expected, got) in [
            (vec![1.0], vec![f64::NAN]),
            (vec![f64::NAN], vec![f64::NAN]),
            (vec![1.0], vec![]),
            (vec![0.0], vec![-0.0]),
        ] {
            let held = Bound::Exact.hold("x", &expected, &got);
            assert!(held.fault.is_some(), "{expected:?} and {got:?}: expected a fault, got none");
        }
        assert!(Bound::Nmse(1e300).hold("x", &[1.0], &[f64::INFINITY]).fault.is_some());
    }
}
