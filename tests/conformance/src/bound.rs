//! Bounds on the error of a stage, and the result of a comparison.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{closeness::compare, number};

/// The bound on the error of a stage.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// Equal bits.
    Exact,
    /// Normalized mean square error, at most this.
    Nmse(f64),
    /// Largest absolute error, at most this.
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

/// A wrong number: the first one if the bound is [`Bound::Exact`], else the worst.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bad {
    /// The stage.
    pub stage: String,
    /// Its index.
    pub index: usize,
    /// The expected value.
    #[serde(with = "number")]
    pub expected: f64,
    /// The computed value.
    #[serde(with = "number")]
    pub got: f64,
}

/// The result of comparing one stage.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// Normalized mean square error; infinite if a value is not finite or the counts differ.
    pub nmse: f64,
    /// Largest absolute error; infinite in the same cases.
    pub max_abs: f64,
    /// The wrong number and an error message; None if the bound holds.
    pub fault: Option<(Bad, String)>,
    /// Decisions that differ from the twin's at a margin too small to decide. They are no faults.
    pub flips: usize,
}

impl Bound {
    /// Compares `got` with `expected`.
    pub fn check<A, B>(self, stage: &str, expected: &[A], got: &[B]) -> Comparison
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
        Comparison { nmse: report.nmse, max_abs: report.worst, fault, flips: 0 }
    }
}

/// The first pair whose bits differ or that is not finite.
fn first_other(pairs: impl Iterator<Item = (f64, f64)>) -> Option<(usize, f64, f64)> {
    let other = |(a, b): &(f64, f64)| a.to_bits() != b.to_bits() || !a.is_finite();
    pairs.enumerate().find(|(_, pair)| other(pair)).map(|(index, (a, b))| (index, a, b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_reports_the_first_wrong_number_and_other_bounds_the_worst() {
        let (expected, got) = ([1.0, 2.0, 3.0], [1.0, 2.5, 9.0]);
        let checked = Bound::Exact.check("x", &expected, &got);
        assert_eq!(checked.fault.unwrap().0, Bad { stage: "x".into(), index: 1, expected: 2.0, got: 2.5 });
        let checked = Bound::Abs(0.1).check("x", &expected, &got);
        assert_eq!((checked.max_abs, checked.fault.unwrap().0.index), (6.0, 2));
        assert_eq!(Bound::Abs(6.0).check("x", &expected, &got).fault, None);
    }

    #[test]
    fn nan_missing_numbers_and_another_sign_are_faults() {
        for (expected, got) in [
            (vec![1.0], vec![f64::NAN]),
            (vec![f64::NAN], vec![f64::NAN]),
            (vec![1.0], vec![]),
            (vec![0.0], vec![-0.0]),
        ] {
            let checked = Bound::Exact.check("x", &expected, &got);
            assert!(checked.fault.is_some(), "{expected:?} and {got:?}: expected a fault, got none");
        }
        assert!(Bound::Nmse(1e300).check("x", &[1.0], &[f64::INFINITY]).fault.is_some());
    }
}
