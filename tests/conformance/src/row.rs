//! What came of one case of one operation.

use serde::{Deserialize, Serialize};

use crate::{
    bound::{Bad, Held},
    number,
};

/// How a row ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "lowercase")]
pub enum Outcome {
    /// All as expected.
    Pass,
    /// Not as expected.
    Fail {
        /// The whole sentence.
        why: String,
    },
    /// Not run.
    Skipped {
        /// What the device lacks.
        why: String,
    },
    /// Not as expected, and known to be so on this device.
    Known {
        /// What is known.
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

    /// The sentence that goes with it; none with a pass.
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
    /// The whole case: `fovea conformance --cases` takes it, or a part of it.
    pub case: String,
    /// Why it is in the table.
    pub why: String,
    /// What is stored: f32 or f16. Sums are f32.
    pub dtype: String,
    /// `wgsl` or `tensor ops`.
    pub path: String,
    /// What it is held to, and why that is enough.
    pub tolerance: String,
    /// The worst of its stages.
    #[serde(with = "number")]
    pub nmse: f64,
    /// The worst of its stages.
    #[serde(with = "number")]
    pub max_abs: f64,
    /// The number that is wrong.
    pub first_bad: Option<Bad>,
    /// Decisions that differ from the twin's where the margin is too small to tell; not a failure.
    pub flips: usize,
    /// Buffers of kernels that lay between sentinels, inputs not counted.
    pub buffers_guarded: usize,
    /// Whether the second run gave the same bits.
    pub bit_identical: bool,
    /// Both runs, uploads and read-backs included.
    pub milliseconds: f64,
    /// How it ended.
    pub outcome: Outcome,
}

impl Row {
    /// Takes over the worst of what was held. The first fault is the row's.
    pub(crate) fn take(&mut self, held: Vec<Held>) {
        for one in held {
            self.nmse = self.nmse.max(one.nmse);
            self.max_abs = self.max_abs.max(one.max_abs);
            self.flips += one.flips;
            if let Some((bad, why)) = one.fault {
                self.first_bad.get_or_insert(bad);
                self.fail(why);
            }
        }
    }

    /// Fails, unless it has already: the first reason counts.
    pub(crate) fn fail(&mut self, why: String) {
        if self.outcome == Outcome::Pass {
            self.outcome = Outcome::Fail { why };
        }
    }
}
