//! The report of a device: all rows, decisions, and the verdict.

pub mod html;
pub mod matrix;
pub mod text;
mod worst;

use fovea_runtime::DeviceInfo;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::{
    Depth,
    forced::DecodingRow,
    golden::{Case, Trace},
    known_issues::{self, KNOWN},
    row::{Outcome, Row},
    stages::StageRow,
};

/// The report of one device.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Fovea's version.
    pub fovea: String,
    /// The date, in seconds since 1970.
    pub date: u64,
    /// Operating system and processor architecture of the program.
    pub platform: String,
    /// The device.
    pub device: DeviceInfo,
    /// `wgsl` if hand-written kernels run there, `tensor ops` if only tensor operations.
    pub path: String,
    /// How many cases ran.
    pub depth: Depth,
    /// The filter on the cases' texts; None: all cases.
    pub cases: Option<String>,
    /// Operations, compared with their twins.
    pub kernels: Vec<Row>,
    /// Stages of whole runs, compared with PyTorch's traces.
    pub stages: Vec<StageRow>,
    /// Forced decoding.
    pub decoding: Vec<DecodingRow>,
    /// The decisions of each run, to compare with other devices.
    pub decisions: Vec<Decision>,
    /// The reason if the run ended early.
    pub stopped: Option<String>,
    /// The verdict.
    pub verdict: Verdict,
}

/// The decisions of a greedy run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// The case.
    pub case: String,
    /// The scale of every region; empty without the vision-guided sampler.
    pub scale_choice: Vec<i64>,
    /// The kept visual tokens.
    pub kept: Vec<i64>,
    /// The answer.
    pub answer_ids: Vec<i64>,
}

impl Decision {
    /// Reads the decisions from a trace.
    pub(crate) fn of(case: &Case, trace: &Trace) -> Self {
        let whole = |stage: &str| match trace.get(stage) {
            Some(fovea_model::trace::Value::I64 { data, .. }) => data.clone(),
            _ => Vec::new(),
        };
        Self {
            case: case.name.clone(),
            scale_choice: whole("scale_choice"),
            kept: whole("kept_visual"),
            answer_ids: whole("answer_ids"),
        }
    }
}

/// Number of rows per outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Passed.
    pub passed: usize,
    /// Failed.
    pub failed: usize,
    /// Skipped.
    pub skipped: usize,
    /// Known failures.
    pub known: usize,
}

impl Counts {
    fn of<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> Self {
        outcomes.fold(Self::default(), |mut counts, outcome| {
            match outcome {
                Outcome::Pass => counts.passed += 1,
                Outcome::Fail { .. } => counts.failed += 1,
                Outcome::Skipped { .. } => counts.skipped += 1,
                Outcome::Known { .. } => counts.known += 1,
            }
            counts
        })
    }
}

/// The verdict.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether at least one row ran, and all rows that ran passed or are known failures.
    pub pass: bool,
    /// One message per failure.
    pub failures: Vec<String>,
    /// Known issues whose rows no longer fail. Remove them from the list.
    pub no_longer_seen: Vec<String>,
    /// Number of rows per outcome.
    pub counts: Counts,
}

impl Report {
    pub(crate) fn new(device: DeviceInfo, runs_kernels: bool, depth: Depth, date: u64, cases: Option<String>) -> Self {
        Self {
            fovea: env!("CARGO_PKG_VERSION").into(),
            date,
            platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH).trim().to_owned(),
            device,
            path: if runs_kernels { "wgsl" } else { "tensor ops" }.into(),
            depth,
            cases,
            kernels: Vec::new(),
            stages: Vec::new(),
            decoding: Vec::new(),
            decisions: Vec::new(),
            stopped: None,
            verdict: Verdict::default(),
        }
    }

    /// Marks known failures, and computes the verdict.
    pub(crate) fn judge(&mut self) {
        let no_longer_seen = known_issues::mark(self, KNOWN);
        let counts = Counts::of(self.outcomes().map(|(_, outcome)| outcome));
        let failed = |(row, outcome): (String, &Outcome)| match outcome {
            Outcome::Fail { why } => Some(format!("{row}: {}", short(why))),
            _ => None,
        };
        let mut failures: Vec<String> = self.outcomes().filter_map(failed).collect();
        failures.extend(self.stopped.iter().map(|why| format!("the run ended early: {why}")));
        if counts.passed + counts.known == 0 && failures.is_empty() {
            failures.push(match &self.cases {
                Some(text) => format!("expected cases that contain `{text}`, got none"),
                None => "expected cases, got none".into(),
            });
        }
        self.verdict = Verdict { pass: failures.is_empty(), failures, no_longer_seen, counts };
    }

    /// Name and outcome of every row.
    fn outcomes(&self) -> impl Iterator<Item = (String, &Outcome)> {
        let kernels = self.kernels.iter().map(|row| (row.case.clone(), &row.outcome));
        let stages = self.stages.iter().map(|row| (format!("{} {}", row.case, row.stage), &row.outcome));
        let decoding = self.decoding.iter().map(|row| (format!("{} forced decoding", row.case), &row.outcome));
        kernels.chain(stages).chain(decoding)
    }

    /// The date of the run in UTC.
    pub fn day(&self) -> String {
        let moment = i64::try_from(self.date).ok().and_then(|date| OffsetDateTime::from_unix_timestamp(date).ok());
        moment.map_or_else(|| format!("{} s", self.date), |moment| moment.date().to_string())
    }

    /// Number of steps of forced decoding that agree, and of all steps.
    pub fn agreement(&self) -> (usize, usize) {
        self.decoding.iter().fold((0, 0), |(agree, all), row| (agree + row.agree, all + row.steps))
    }

    /// The verdict in one line.
    pub fn sentence(&self) -> String {
        let Counts { passed, failed, skipped, known } = self.verdict.counts;
        let word = if self.verdict.pass { "PASS" } else { "FAIL" };
        format!("{word}: {passed} passed, {failed} failed, {known} known, {skipped} skipped")
    }
}

/// Shortens a message, which may contain thousands of numbers.
fn short(why: &str) -> String {
    const MOST: usize = 400;
    if why.chars().count() <= MOST { why.to_owned() } else { why.chars().take(MOST).chain(['…']).collect() }
}

#[cfg(test)]
pub(crate) mod tests {
    use fovea_runtime::device::DeviceClass;

    use super::*;

    /// A report of llvmpipe with these rows: operation, case, outcome.
    pub(crate) fn report(rows: &[(&str, &str, Outcome)]) -> Report {
        let device = DeviceInfo {
            name: "llvmpipe <LLVM>".into(),
            backend: "vulkan".into(),
            driver: "Mesa".into(),
            class: DeviceClass::Software,
            f16: true,
            subgroups: true,
            max_buffer_size: 1,
            max_binding_size: 1,
            max_storage_buffers: 1,
            max_workgroup_storage: 1,
            max_workgroup_invocations: 1,
            memory: None,
        };
        let mut report = Report::new(device, true, Depth::Quick, 1_700_000_000, None);
        report.kernels = rows
            .iter()
            .map(|(op, case, outcome)| Row {
                op: (*op).into(),
                case: (*case).into(),
                why: "a reason".into(),
                dtype: "f32".into(),
                path: "wgsl".into(),
                tolerance: "exact".into(),
                nmse: if *outcome == Outcome::Pass { 0.0 } else { f64::INFINITY },
                max_abs: 0.0,
                first_bad: None,
                flips: 0,
                buffers_guarded: 3,
                bit_identical: true,
                milliseconds: 1.5,
                outcome: outcome.clone(),
            })
            .collect();
        report.judge();
        report
    }

    #[test]
    fn a_failure_an_early_end_and_an_empty_report_do_not_pass() {
        let pass = ("top_k", "a", Outcome::Pass);
        let fail = ("top_k", "b", Outcome::Fail { why: "x".repeat(1000) });
        assert!(report(std::slice::from_ref(&pass)).verdict.pass);
        let failing = report(&[pass.clone(), fail]);
        assert_eq!((failing.verdict.pass, failing.verdict.failures.len()), (false, 1));
        assert!(failing.verdict.failures[0].len() < 500 && failing.verdict.failures[0].starts_with("b: x"));
        assert!(!report(&[]).verdict.pass);
        assert!(!report(&[("top_k", "a", Outcome::Skipped { why: "x".into() })]).verdict.pass);
        let mut stopped = report(&[pass]);
        stopped.stopped = Some("lost".into());
        stopped.judge();
        assert!(!stopped.verdict.pass && stopped.verdict.failures[0].contains("lost"));
    }

    #[test]
    fn a_report_is_read_back_from_json() {
        let before = report(&[("top_k", "a", Outcome::Fail { why: "x".into() }), ("compact", "b", Outcome::Pass)]);
        let json = serde_json::to_string(&before).unwrap();
        let after: Report = serde_json::from_str(&json).unwrap();
        assert_eq!(before.day(), "2023-11-14");
        assert_eq!((after.kernels, after.verdict), (before.kernels, before.verdict));
    }
}
