//! `fovea eval DIR`: how many answers are right, for how many tokens and at what speed, for each compression.
//!
//! Data flow: [`samples`] (pictures, questions, right answers) → [`modes`] (every question in every mode) →
//! [`score`] (which answers are right) → [`page`] (the table as text). `fovea-lab` uses the same parts for the paper's
//! studies.

pub mod samples;
pub mod modes;
pub mod score;
pub mod page;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use fovea_model::{AskOptions, Before, Cancel, Compression, Error, Fits, Model, Within};
use fovea_runtime::{DeviceChoice, hub_cache};
use fovea_terminal::{
    failure::Failure,
    load,
    options::{self, LoadArgs},
    output::{self, Output},
    text,
};
use indicatif::ProgressBar;
use serde::Serialize;
use serde_json::{Value, json};

use modes::{Answer, Answered, Mode, Row};
use page::About;
use samples::Sample;
use score::Compare;

/// `fovea eval`.
#[derive(Args)]
pub struct EvalArgs {
    /// A folder with pictures and a `questions.jsonl`, one {"image", "question", "answer", "kind"} per line.
    pub dir: PathBuf,
    /// Model, device and output.
    #[command(flatten)]
    pub settings: Settings,
    /// The rows of the table.
    #[command(flatten)]
    pub table: TableArgs,
}

/// Arguments of the table with one row per compression.
#[derive(Args)]
pub struct TableArgs {
    /// A row of the table, as in `fovea ask`; may be repeated. Without it: none, vision, text and focus, as far as the
    /// checkpoint has them.
    #[arg(long, value_name = "SPEC", value_parser = options::compression)]
    pub compress: Vec<Compression>,
    /// Also write the wrong answers of the last row, as tab-separated values.
    #[arg(long, value_name = "FILE.tsv")]
    pub wrong: Option<PathBuf>,
}

impl TableArgs {
    /// The file of `--wrong`, opened before any work begins.
    ///
    /// # Errors
    /// As [`Output::new`].
    pub fn wrong_file(&self, read: &[PathBuf]) -> Result<Option<Output>, Failure> {
        self.wrong.as_deref().map(|file| Output::new(file, read)).transpose()
    }

    /// Whether the checkpoint supports every row.
    ///
    /// # Errors
    /// [`Error::Option`] for the first row that it does not support.
    pub fn check(&self, model: Fits<'_>) -> Result<(), Error> {
        self.compress.iter().try_for_each(|compression| compression.check(model))
    }
}

/// Arguments of every evaluation.
#[derive(Args)]
pub struct Settings {
    /// A checkpoint of the LLaVA family: a folder, or a repository in the cache of the Hugging Face hub (ORG/NAME); without it the
    /// embedded demo checkpoint.
    #[arg(long, short, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// auto, cpu, wgpu, wgpu:N, wgpu:NAME, cuda or cuda:N.
    #[arg(long, default_value = "auto", value_parser = options::device)]
    pub device: DeviceChoice,
    /// How the model is loaded.
    #[command(flatten)]
    pub load: LoadArgs,
    /// Number of pictures on which the speed is measured; each is answered again in every mode.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = options::count, allow_negative_numbers = true)]
    pub timed: usize,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Compare answers letter by letter. Without it case, articles, punctuation and number words do not count, as in
    /// VQA's metric.
    #[arg(long)]
    pub exact: bool,
}

impl Settings {
    /// Files that an evaluation reads: those of `dir` and of the checkpoint. No output may replace them.
    pub fn read_files(&self, dir: Option<&Path>) -> Vec<PathBuf> {
        let checkpoint = self.model.as_deref().and_then(|model| hub_cache::locate(model).ok());
        output::files_of(&[dir, checkpoint.as_deref()])
    }
}

/// Evaluates a folder, and prints the table; after Ctrl-C that of the answers so far.
///
/// # Errors
/// [`Failure::Questions`] for a broken folder, and what loading and answering report; [`Error::Cancelled`] after Ctrl-C.
pub async fn run(args: EvalArgs) -> Result<(), Failure> {
    let EvalArgs { dir, settings, table } = args;
    let wrong = table.wrong_file(&settings.read_files(Some(&dir)))?;
    let samples = samples::folder(&dir)?;
    let source = dir.display().to_string();
    let evaluation = Evaluation::open(&settings, samples, &source, |fits: Fits<'_>| table.check(fits)).await?;
    let modes = evaluation.modes(&table.compress);
    let Answered { rows, answers, complete } = modes::run(&evaluation, &modes, evaluation.timed, true).await?;
    if complete {
        evaluation.write_wrong(wrong, &answers)?;
        return evaluation.print_table(&[("complete", json!(true))], &rows, &[]);
    }
    let done: usize = answers.iter().map(Vec::len).sum();
    let all = modes.len() * evaluation.samples.iter().map(|sample| sample.asked.len()).sum::<usize>();
    let note = if done == all {
        "incomplete: stopped while the speed was measured".to_owned()
    } else {
        format!("incomplete: stopped after {done} of {}", text::counted(all, "answer"))
    };
    evaluation.print_table(&[("complete", json!(false))], &rows, &[note])?;
    Err(Error::Cancelled.into())
}

/// A loaded model, and what it is asked.
pub struct Evaluation {
    /// The model.
    pub model: Arc<Model>,
    /// Pictures and questions.
    pub samples: Vec<Sample>,
    /// How answers are compared.
    pub compare: Compare,
    /// Ctrl-C cancels it.
    pub cancel: Cancel,
    timed: usize,
    json: bool,
    about: About,
    bar: ProgressBar,
}

impl Evaluation {
    /// Loads the model. `source` names where the questions come from; `check` is as in [`load::model`].
    ///
    /// # Errors
    /// As [`load::model`].
    pub async fn open(
        settings: &Settings,
        samples: Vec<Sample>,
        source: &str,
        check: impl FnOnce(Fits<'_>) -> Result<(), Error>,
    ) -> Result<Self, Failure> {
        let cancel = load::interruptible();
        let model = load::model(settings.model.as_deref(), &settings.device, settings.load, &cancel, check).await?;
        let bar = text::progress_bar("{bar:40} {pos}/{len} {eta}");
        let compare = if settings.exact { Compare::Literally } else { Compare::Vqa };
        let about = About::new(settings.model.as_deref(), &model, &samples, source, compare);
        Ok(Self { model, samples, compare, cancel, timed: settings.timed, json: settings.json, about, bar })
    }

    /// Shows that `done` of `all` steps are complete.
    pub fn progress(&self, done: usize, all: usize) {
        self.bar.set_length(all as u64);
        self.bar.set_position(done as u64);
    }

    /// Options that have room for every right answer of the samples, and that Ctrl-C cancels.
    pub fn options(&self) -> AskOptions {
        let max_new_tokens = modes::longest(&self.samples, self.compare);
        AskOptions { max_new_tokens, cancel: self.cancel.clone(), ..AskOptions::default() }
    }

    /// One mode per compression. Without any: the four rows of the paper's Table 2, without those that need a scale
    /// selector where the checkpoint has none; and the checkpoint's default where that is another one.
    pub fn modes(&self, compressions: &[Compression]) -> Vec<Mode> {
        let mode = |compression: &Compression| self.mode(compression.to_string(), compression.clone());
        if !compressions.is_empty() {
            return compressions.iter().map(mode).collect();
        }
        let focus = Compression::focus();
        let vision = Compression { within: Within::Every, ..focus.clone() };
        let text = Compression { before: Before::Every, ..focus.clone() };
        let mut table = vec![Compression::none(), vision, text, focus];
        // What the checkpoint does by itself, such as LLaVA-Meteor.
        let own = Compression::default_of(self.model.fits());
        if !table.contains(&own) {
            table.push(own);
        }
        table.iter().filter(|compression| compression.check(self.model.fits()).is_ok()).map(mode).collect()
    }

    /// A mode that differs from [`Self::options`] by its compression.
    pub fn mode(&self, name: String, compression: Compression) -> Mode {
        Mode { name, options: AskOptions { compression: Some(compression), ..self.options() } }
    }

    /// Asks every question in every mode: one row and the answers of each mode.
    ///
    /// # Errors
    /// What the pictures and the device report; [`fovea_model::Error::Cancelled`] after Ctrl-C.
    pub async fn answer(&self, modes: &[Mode]) -> Result<(Vec<Row>, Vec<Vec<Answer>>), Failure> {
        modes::run(self, modes, self.timed, true).await?.whole()
    }

    /// As [`Self::answer`], without the answers: their overlays would need much memory for many modes.
    ///
    /// # Errors
    /// As [`Self::answer`].
    pub async fn rows(&self, modes: &[Mode]) -> Result<Vec<Row>, Failure> {
        modes::run(self, modes, self.timed, false).await?.whole().map(|(rows, _)| rows)
    }

    /// Writes what was answered wrong in the last mode, if a file is given.
    ///
    /// # Errors
    /// [`Failure::Write`].
    pub fn write_wrong(&self, file: Option<Output>, answers: &[Vec<Answer>]) -> Result<(), Failure> {
        let Some(file) = file else { return Ok(()) };
        file.write(page::wrong(&self.samples, answers).as_bytes())
    }

    /// Prints rows with tokens, speed and right answers. `more` are keys of the JSON report, `notes` are lines below the
    /// table.
    ///
    /// # Errors
    /// [`Failure::Write`].
    pub fn print_table(&self, more: &[(&str, Value)], rows: &[Row], notes: &[String]) -> Result<(), Failure> {
        self.print(more, rows, || page::table(&self.samples, rows, notes, self.compare))
    }

    /// Prints rows as JSON, or with `body` as the text below the first lines. `more` are keys of the JSON report.
    ///
    /// # Errors
    /// [`Failure::Write`].
    pub fn print(
        &self,
        more: &[(&str, Value)],
        rows: &(impl Serialize + ?Sized),
        body: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        self.bar.finish_and_clear();
        if !self.json {
            return text::out(|to| write!(to, "{}\n{}", self.about.lines(), body()));
        }
        let mut report = json!({ "about": self.about, "rows": rows });
        for (key, value) in more {
            report[*key] = value.clone();
        }
        text::out(|to| writeln!(to, "{report}"))
    }
}
