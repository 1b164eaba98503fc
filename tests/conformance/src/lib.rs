//! The conformance suite: a table of cases that runs on a device, and a report of the results.
//!
//! The same table runs in `fovea conformance`, in a browser page, and in the tests. It uses no files, clock or threads:
//! fixtures are passed as bytes, dates as numbers.
//!
//! | module | |
//! |---|---|
//! | [`kernels`] | the table: operations of samplers and network, compared with the f64 twins |
//! | [`stages`] | every stage of whole runs, compared with PyTorch's traces |
//! | [`forced`] | forced decoding: whether every token of the reference's answer is the most likely one |
//! | [`golden`] | cases of whole runs and their traces, read from [`golden::Fixtures`] |
//! | [`compressed`] | cases of every compression, compared with PyTorch's traces |
//! | [`report`] | rows and verdict, as text or HTML; reports of several devices as a matrix |
//! | [`known_issues`] | known failures, each with its measured error and reason |
//! | [`closeness`], [`bound`], [`numbers`] | error measures, bounds, random inputs |

pub mod numbers;
pub mod closeness;
mod number;
pub mod bound;
pub mod row;
mod bed;
pub mod kernels;
pub mod golden;
#[cfg(not(target_family = "wasm"))]
mod directory;
#[cfg(not(target_family = "wasm"))]
pub mod embedded;
pub mod stages;
pub mod compressed;
pub mod forced;
pub mod known_issues;
pub mod report;

use std::sync::Arc;

use fovea_model::{Cancel, Checkpoint, Conversation, Model, Picture, Precision, trace::trace};
use fovea_runtime::{Error, OpenDevice, sampler_ops::runs_kernels, source::Source};
use serde::{Deserialize, Serialize};

use compressed::CompressedCase;
use golden::{Case, FixtureError, Fixtures};
use report::{Decision, Report};
use stages::StageRow;

/// How many cases run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Depth {
    /// All but the largest shapes: minutes even on a software GPU.
    #[default]
    Quick,
    /// All cases.
    Full,
}

/// Options of a run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How many cases run.
    pub depth: Depth,
    /// The report's date, in seconds since 1970. It is passed in because not every target has a clock.
    pub date: u64,
    /// Only cases whose text contains this.
    pub cases: Option<String>,
    /// Whether to check only the golden runs, and skip operations and compressions.
    pub runs_alone: bool,
}

impl Options {
    fn takes(&self, case: &str) -> bool {
        self.cases.as_ref().is_none_or(|part| case.contains(part.as_str()))
    }
}

/// Runs the table and the fixtures' cases on a device. `progress` is called with one line before each case.
///
/// The report contains all errors. A device error ends the run, and the verdict is then a failure.
pub async fn conformance(
    open: &OpenDevice,
    fixtures: &Fixtures,
    options: &Options,
    mut progress: impl FnMut(String),
) -> Report {
    let kernels = runs_kernels(&open.device);
    let mut report = Report::new(open.info.clone(), kernels, options.depth, options.date, options.cases.clone());
    if let Err(why) = run(&mut report, open, fixtures, options, &mut progress).await {
        report.stopped = Some(why);
    }
    report.judge();
    report
}

async fn run(
    report: &mut Report,
    open: &OpenDevice,
    fixtures: &Fixtures,
    options: &Options,
    progress: &mut impl FnMut(String),
) -> Result<(), String> {
    let table = if options.runs_alone { Vec::new() } else { kernels::table(options.depth) };
    let table: Vec<_> = table.into_iter().filter(|case| options.takes(&case.to_string())).collect();
    for (at, case) in table.iter().enumerate() {
        progress(format!("{}/{} {case}", at + 1, table.len()));
        report.kernels.push(case.run(open).await.map_err(|e| format!("{case}: {e}"))?);
    }
    if fixtures.is_empty() {
        return Ok(());
    }
    let cases = fixtures.cases().map_err(|e| e.to_string())?;
    let cases: Vec<Case> = cases.into_iter().filter(|case| options.takes(&case.name)).collect();
    let mut models = Models { open, last: None };
    for (at, case) in cases.iter().enumerate() {
        progress(format!("{}/{} run {} on {}", at + 1, cases.len(), case.name, case.model));
        let ran = whole_run(report, fixtures, case, &mut models).await;
        note(report, case, ran)?;
    }
    if options.runs_alone {
        return Ok(());
    }
    let cases = fixtures.compressed().map_err(|e| e.to_string())?;
    let cases: Vec<CompressedCase> = cases.into_iter().filter(|case| options.takes(&case.case.name)).collect();
    for (at, compressed) in cases.iter().enumerate() {
        let case = &compressed.case;
        progress(format!("{}/{} run {} on {}", at + 1, cases.len(), case.name, case.model));
        let ran = compressed_run(report, fixtures, compressed, &mut models).await;
        note(report, case, ran)?;
    }
    Ok(())
}

/// Adds a row for a case that did not run. The error is that of the device.
fn note(report: &mut Report, case: &Case, ran: Result<(), Broken>) -> Result<(), String> {
    match ran {
        Ok(()) => {}
        Err(Broken::Device(why)) => return Err(format!("{}: {why}", case.name)),
        Err(Broken::Run(why)) => {
            report.stages.push(StageRow::failed(case, "run", format!("expected a run, got: {why}")));
        }
    }
    Ok(())
}

/// Keeps one model on the device at a time; cases of one checkpoint are adjacent in the tables.
struct Models<'a> {
    open: &'a OpenDevice,
    last: Option<(String, Arc<Model>)>,
}

impl Models<'_> {
    /// The model of a checkpoint; `key` names it.
    async fn load(
        &mut self,
        key: &str,
        source: impl FnOnce() -> Result<Source, FixtureError>,
    ) -> Result<Arc<Model>, Broken> {
        if let Some((last, model)) = &self.last
            && last == key
        {
            return Ok(model.clone());
        }
        self.last = None;
        let checkpoint = Checkpoint::open(source()?).await?;
        let model = Model::load(checkpoint, self.open.clone(), Precision::F32, &Cancel::default(), |_| {}).await?;
        self.last = Some((key.to_owned(), model.clone()));
        Ok(model)
    }
}

/// The reason why a case has no trace.
enum Broken {
    /// The device failed; no further case can run.
    Device(String),
    /// Only this case failed.
    Run(String),
}

impl From<fovea_model::Error> for Broken {
    fn from(error: fovea_model::Error) -> Self {
        match error {
            fovea_model::Error::Runtime(Error::DeviceLost(_)) => Self::Device(error.to_string()),
            other => Self::Run(other.to_string()),
        }
    }
}

impl From<FixtureError> for Broken {
    fn from(error: FixtureError) -> Self {
        Self::Run(error.to_string())
    }
}

/// Runs one case twice: greedy, compared with the trace stage by stage; then with the reference's answer forced.
async fn whole_run(
    report: &mut Report,
    fixtures: &Fixtures,
    case: &Case,
    models: &mut Models<'_>,
) -> Result<(), Broken> {
    let reference = fixtures.trace(&case.name)?;
    let model = models.load(&case.model, || fixtures.checkpoint(&case.model)).await?;
    let mut conversation = Conversation::new(&model, Picture::decode(fixtures.picture(case)?)?);
    let got = trace(&mut conversation, &case.prompt, &case.options()).await?;
    report.stages.extend(stages::check(case, &reference, &got));
    report.decisions.push(Decision::of(case, &got));
    report.decoding.push(match forced::options(case, &reference) {
        Ok(options) => {
            let got = trace(&mut conversation, &case.prompt, &options).await?;
            forced::check(case, &reference, &got)
        }
        Err(why) => forced::failed(case, why),
    });
    Ok(())
}

/// Runs one case of a compression twice in one conversation: compared with the trace stage by stage, and with each other.
async fn compressed_run(
    report: &mut Report,
    fixtures: &Fixtures,
    compressed: &CompressedCase,
    models: &mut Models<'_>,
) -> Result<(), Broken> {
    let (case, options) = (&compressed.case, compressed.case.options());
    let reference = compressed.trace(fixtures)?;
    let model = models.load(&compressed.checkpoint(), || compressed.source(fixtures)).await?;
    let mut conversation = Conversation::new(&model, Picture::decode(fixtures.picture(case)?)?);
    let got = trace(&mut conversation, &case.prompt, &options).await?;
    let again = conversation.answer(&case.prompt, &options).await?;
    report.stages.extend(compressed::check(compressed, &reference, &got, &again));
    report.decisions.push(Decision::of(case, &got));
    Ok(())
}
