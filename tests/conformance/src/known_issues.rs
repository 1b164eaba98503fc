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
    /// The error measured.
    pub measured: &'static str,
}

/// All that are known. None so far.
pub const KNOWN: &[KnownIssue] = &[];

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
        write!(f, "{} {}: {}; measured {}", self.what, self.case, self.why, self.measured)
    }
}

/// Marks the failures that `known` names. Returns those issues whose rows ran and did not fail.
pub(crate) fn mark(report: &mut Report, known: &[KnownIssue]) -> Vec<String> {
    let kernels = report.kernels.iter_mut().map(|row| (row.op.as_str(), row.case.as_str(), &mut row.outcome));
    let stages = report.stages.iter_mut().map(|row| (row.stage.as_str(), row.case.as_str(), &mut row.outcome));
    let decoding = report.decoding.iter_mut().map(|row| (DECODING, row.case.as_str(), &mut row.outcome));
    let mut rows: Vec<(&str, &str, &mut Outcome)> = kernels.chain(stages).chain(decoding).collect();
    let mut gone = Vec::new();
    for issue in known.iter().filter(|issue| issue.is_on(&report.device)) {
        let (mut ran, mut failed) = (false, false);
        for (what, case, outcome) in &mut rows {
            if !issue.is_about(what, case) {
                continue;
            }
            ran |= !matches!(outcome, Outcome::Skipped { .. });
            failed |= matches!(outcome, Outcome::Known { .. });
            if let Outcome::Fail { why } = &**outcome {
                failed = true;
                **outcome = Outcome::Known { issue: format!("{issue}; now: {why}") };
            }
        }
        if ran && !failed {
            gone.push(format!("known issue no longer seen: {issue}"));
        }
    }
    gone
}

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
    }
}
