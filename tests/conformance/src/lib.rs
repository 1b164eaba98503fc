//! What every device is held to: the table of cases, and the report that says how a device did.
//!
//! The same table runs everywhere: `fovea conformance` on a user's GPU, the page in a browser, and the tests. It needs no
//! files of its own, no clock and no thread: fixtures are given as bytes, dates as numbers.
//!
//! | module | |
//! |---|---|
//! | [`kernels`] | the table: the samplers' operations, shape by shape, against the f64 twins |
//! | [`stages`] | whole runs, stage by stage, against PyTorch's traces |
//! | [`forced`] | the reference's answer fed back: is every next token the most likely one? |
//! | [`golden`] | the cases of whole runs and their traces, out of [`golden::Fixtures`] |
//! | [`report`] | rows, verdict; as text, HTML, and several devices' as a matrix |
//! | [`known_issues`] | failures that are known, each with its measure and reason |
//! | [`closeness`], [`bound`], [`numbers`] | how far, how far at most, and what from |

mod bed;
pub mod bound;
pub mod closeness;
#[cfg(not(target_family = "wasm"))]
mod directory;
#[cfg(not(target_family = "wasm"))]
pub mod embedded;
pub mod forced;
pub mod golden;
pub mod kernels;
pub mod known_issues;
mod number;
pub mod numbers;
pub mod report;
pub mod row;
pub mod stages;

use std::{collections::BTreeMap, sync::Arc};

use fovea_model::{Cancel, Checkpoint, Model, Picture, Precision, trace::trace};
use fovea_runtime::{Error, OpenDevice, sampler_ops::runs_kernels};
use serde::{Deserialize, Serialize};

use golden::{Case, FixtureError, Fixtures};
use report::{Decision, Report};
use stages::StageRow;

/// How much runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Depth {
    /// All but the largest shapes: minutes even where a CPU plays the GPU.
    #[default]
    Quick,
    /// All.
    Full,
}

/// What is to run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How much.
    pub depth: Depth,
    /// Seconds since 1970, for the report: not every target has a clock.
    pub date: u64,
    /// Only cases whose text holds this.
    pub cases: Option<String>,
    /// Whether only whole runs are checked, and no operation alone.
    pub runs_alone: bool,
}

impl Options {
    fn takes(&self, case: &str) -> bool {
        self.cases.as_ref().is_none_or(|part| case.contains(part.as_str()))
    }
}

/// Runs the table on a device, and the fixtures' cases where there are any. `progress` is told a line before each case.
///
/// Whatever goes wrong is in the report: an error of the device ends the run, and the verdict says so.
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
    let mut models = BTreeMap::new();
    for (at, case) in cases.iter().enumerate() {
        progress(format!("{}/{} run {} on {}", at + 1, cases.len(), case.name, case.model));
        match whole_run(report, open, fixtures, case, &mut models).await {
            Ok(()) => {}
            Err(Broken::Device(why)) => return Err(format!("{}: {why}", case.name)),
            Err(Broken::Run(why)) => {
                report.stages.push(StageRow::failed(case, "run", format!("expected a run, got: {why}")))
            }
        }
    }
    Ok(())
}

/// Why a case gave no trace.
enum Broken {
    /// Nothing after it can run either.
    Device(String),
    /// This case alone.
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

/// One case: greedy against the trace stage by stage, then with the reference's answer forced.
async fn whole_run(
    report: &mut Report,
    open: &OpenDevice,
    fixtures: &Fixtures,
    case: &Case,
    models: &mut BTreeMap<String, Arc<Model>>,
) -> Result<(), Broken> {
    let reference = fixtures.trace(&case.name)?;
    let model = match models.get(&case.model) {
        Some(model) => model.clone(),
        None => {
            // One at a time on the device: cases of one checkpoint stand together.
            models.clear();
            let checkpoint = Checkpoint::open(fixtures.checkpoint(&case.model)?).await?;
            let model = Model::load(checkpoint, open.clone(), Precision::F32, &Cancel::default(), |_| {}).await?;
            models.insert(case.model.clone(), model.clone());
            model
        }
    };
    let mut conversation = model.look_at(Picture::decode(fixtures.picture(case)?)?);
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
