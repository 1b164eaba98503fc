//! The result of one case of one operation.

use serde::{Deserialize, Serialize};

use crate::{
    bound::{Bad, Comparison},
    number,
};

/// The outcome of a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "lowercase")]
pub enum Outcome {
    /// All results are as expected.
    Pass,
    /// A result is not as expected.
    Fail {
        /// The error message.
        why: String,
    },
    /// Not run.
    Skipped {
        /// The reason, for example a missing feature.
        why: String,
    },
    /// A known failure on this device.
    Known {
        /// The known issue.
        issue: String,
    },
}

impl Outcome {
    /// One word.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail { .. } => "FAIL",
            Self::Skipped { .. } => "skipped",
            Self::Known { .. } => "known",
        }
    }

    /// Its message; empty for a pass.
    pub fn sentence(&self) -> &str {
        match self {
            Self::Pass => "",
            Self::Fail { why } | Self::Skipped { why } => why,
            Self::Known { issue } => issue,
        }
    }
}

/// The row of one case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The operation.
    pub op: String,
    /// The case's text, for `fovea conformance --cases`.
    pub case: String,
    /// Its purpose.
    pub why: String,
    /// The stored type: f32 or f16. Sums are in f32.
    pub dtype: String,
    /// `wgsl` or `tensor ops`.
    pub path: String,
    /// The bound, and why it is strict enough.
    pub tolerance: String,
    /// The worst NMSE of its outputs.
    #[serde(with = "number")]
    pub nmse: f64,
    /// The worst absolute error of its outputs.
    #[serde(with = "number")]
    pub max_abs: f64,
    /// The first wrong number.
    pub first_bad: Option<Bad>,
    /// Decisions that differ from the twin's at a margin too small to decide; not a failure.
    pub flips: usize,
    /// Number of kernel buffers that had sentinels, without inputs.
    pub buffers_guarded: usize,
    /// Whether both runs gave equal bits.
    pub bit_identical: bool,
    /// Time of both runs, with uploads and read-backs.
    pub milliseconds: f64,
    /// The outcome.
    pub outcome: Outcome,
}

impl Row {
    /// Adds the results of comparisons: the worst errors, and the first fault.
    pub(crate) fn add(&mut self, comparisons: Vec<Comparison>) {
        for one in comparisons {
            self.nmse = self.nmse.max(one.nmse);
            self.max_abs = self.max_abs.max(one.max_abs);
            self.flips += one.flips;
            if let Some((bad, why)) = one.fault {
                self.first_bad.get_or_insert(bad);
                self.fail(why);
            }
        }
    }

    /// Marks the row as failed. The first reason is kept.
    pub(crate) fn fail(&mut self, why: String) {
        if self.outcome == Outcome::Pass {
            self.outcome = Outcome::Fail { why };
        }
    }
}
