//! What is known to be wrong on some device: the one place where a failure is let pass, each with its measure and reason.
//!
//! A row that stands here and does not fail any more is reported, so that the list cannot rot.

use fovea_runtime::DeviceInfo;

use crate::{report::Report, row::Outcome};

/// A failure that is known.
#[derive(Clone, Copy, Debug)]
pub struct KnownIssue {
    /// The operation or stage.
    pub what: &'static str,
    /// The backend, as [`DeviceInfo::backend`] says it; none: any.
    pub backend: Option<&'static str>,
    /// A part of the adapter's name, in any case; none: any.
    pub adapter: Option<&'static str>,
    /// A part of the case.
    pub case: &'static str,
    /// What is wrong, and why it is borne.
    pub why: &'static str,
    /// The error measured: the worst NMSE.
    pub measured: &'static str,
    /// A failure with a larger NMSE is another one.
    pub at_most: f64,
}

/// All that are known.
pub const KNOWN: &[KnownIssue] = &[
    tf32("scale_select", " f32", "1.3e-6", 5e-6),
    tf32("text_score", " f32", "1.3e-7", 5e-7),
    tf32("thumbnail", "", "1.1e-6", 5e-6),
    tf32("feature_map", "", "1.3e-6", 5e-6),
    tf32("scale_logits", "", "6.0e-6", 3e-5),
    tf32("visual_tokens", "", "1.0e-6", 5e-6),
    tf32("importance", "", "9.4e-6", 5e-5),
    tf32("prefill_logits", "", "4.5e-5", 2e-4),
    tf32("step_logits", "", "1.8e-5", 1e-4),
];

/// cubek 0.3 takes tensor cores for every product in f32 that they can run, and rounds its factors to TF32 for it (`adjust_dtypes`
/// in its `multi_level/definition/blueprint.rs`); burn 0.22 has no setting against it. Factors that are stored in f16 are TF32
/// numbers already, so products with matrices in f16, which CUDA takes by default, lose nothing; attention, in f32, does.
/// Decisions and answers were equal to the reference's on all fixtures. Measured on an H100.
const fn tf32(what: &'static str, case: &'static str, measured: &'static str, at_most: f64) -> KnownIssue {
    let why = "products in f32 run on CUDA's tensor cores in TF32, with 10 bits of fraction";
    KnownIssue { what, backend: Some("cuda"), adapter: None, case, why, measured, at_most }
}

impl KnownIssue {
    /// Whether it is about this device.
    pub fn is_on(&self, device: &DeviceInfo) -> bool {
        let name = device.name.to_lowercase();
        self.backend.is_none_or(|backend| backend == device.backend)
            && self.adapter.is_none_or(|part| name.contains(&part.to_lowercase()))
    }

    /// Whether it is about this row.
    pub fn is_about(&self, what: &str, case: &str) -> bool {
        self.what == what && case.contains(self.case)
    }
}

impl std::fmt::Display for KnownIssue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let about = format!("{} {}", self.what, self.case.trim());
        write!(f, "{}: {}; measured {}", about.trim_end(), self.why, self.measured)
    }
}

/// Marks the failures that `known` names. Returns those issues whose rows ran and did not fail.
pub(crate) fn mark(report: &mut Report, known: &[KnownIssue]) -> Vec<String> {
    let kernels = report.kernels.iter_mut().map(|row| (row.op.as_str(), row.case.as_str(), row.nmse, &mut row.outcome));
    let stages =
        report.stages.iter_mut().map(|row| (row.stage.as_str(), row.case.as_str(), row.nmse, &mut row.outcome));
    // An answer is another one or it is not.
    let decoding = report.decoding.iter_mut().map(|row| (DECODING, row.case.as_str(), 0.0, &mut row.outcome));
    let mut rows: Vec<(&str, &str, f64, &mut Outcome)> = kernels.chain(stages).chain(decoding).collect();
    let mut gone = Vec::new();
    for issue in known.iter().filter(|issue| issue.is_on(&report.device)) {
        let (mut ran, mut failed) = (false, false);
        for (what, case, nmse, outcome) in &mut rows {
            if !issue.is_about(what, case) {
                continue;
            }
            ran |= !matches!(outcome, Outcome::Skipped { .. });
            failed |= matches!(outcome, Outcome::Known { .. });
            if let Outcome::Fail { why } = &**outcome
                && *nmse <= issue.at_most
            {
                failed = true;
                **outcome = Outcome::Known { issue: format!("{issue}{NOW}{why}") };
            }
        }
        if ran && !failed {
            gone.push(format!("known issue no longer seen: {issue}"));
        }
    }
    gone
}

/// Between what is known of a failure and what it says of itself in a report.
pub(crate) const NOW: &str = "; now: ";

/// What a [`KnownIssue`] calls forced decoding.
pub const DECODING: &str = "decoding";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    #[test]
    fn a_known_failure_is_marked_and_one_that_is_gone_is_told() {
        let issue = KnownIssue {
            what: "top_k",
            backend: Some("vulkan"),
            adapter: Some("LLVM"),
            case: "n=3",
            why: "a test",
            measured: "1",
            at_most: f64::INFINITY,
        };
        let mut failing = report(&[("top_k", "top_k n=3 f32", Outcome::Fail { why: "x".into() })]);
        assert_eq!(mark(&mut failing, &[issue]), Vec::<String>::new());
        assert_eq!(failing.kernels[0].outcome.word(), "known");
        let mut passing = report(&[("top_k", "top_k n=3 f32", Outcome::Pass)]);
        assert_eq!(mark(&mut passing, &[issue]).len(), 1);
        for other in [
            KnownIssue { case: "n=4", ..issue },
            KnownIssue { what: "compact", ..issue },
            KnownIssue { backend: Some("metal"), ..issue },
            KnownIssue { adapter: Some("RTX"), ..issue },
        ] {
            let mut failing = report(&[("top_k", "top_k n=3 f32", Outcome::Fail { why: "x".into() })]);
            assert_eq!(mark(&mut failing, &[other]), Vec::<String>::new());
            assert_eq!(failing.kernels[0].outcome.word(), "FAIL");
        }
        for (nmse, word) in [(1e-7, "known"), (1e-5, "FAIL"), (f64::INFINITY, "FAIL"), (f64::NAN, "FAIL")] {
            let mut failing = report(&[("top_k", "top_k n=3 f32", Outcome::Fail { why: "x".into() })]);
            failing.kernels[0].nmse = nmse;
            mark(&mut failing, &[KnownIssue { at_most: 1e-6, ..issue }]);
            assert_eq!(failing.kernels[0].outcome.word(), word, "an NMSE of {nmse}");
        }
    }
}
