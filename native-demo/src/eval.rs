//! `fovea eval`: how many answers are right, for how many tokens and at what speed; `fovea scenes` writes the pictures.
//!
//! `samples` (what is asked) · `modes` (the table) · `places` (what tokens show, and what was kept of the object asked
//! about) · `score` (what is right) · `studies` (the paper's other tables and figures) · `maps` (one of them: importance by layer) · `page` (as
//! text).

mod maps;
mod modes;
mod page;
mod places;
mod samples;
mod score;
mod studies;

use std::{io::IsTerminal, path::PathBuf};

use fovea_model::AskOptions;
use fovea_runtime::hub_cache;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::json;
pub use studies::Study;

use crate::{
    args::{EvalArgs, ScenesArgs},
    chart::Chart,
    failure::Failure,
    load,
    output::{self, Output},
    text,
};
use modes::Row;
use page::About;
use score::Compare;
use studies::Studied;

/// Writes held-out scenes and their questions.
pub fn scenes(args: &ScenesArgs) -> Result<(), Failure> {
    samples::write(args.seed, args.count, &args.out)
}

/// Answers every question in every mode, or as a study has it, and tells how that went.
pub async fn run(args: EvalArgs) -> Result<(), Failure> {
    let folder = args.model.as_deref().and_then(|model| hub_cache::locate(model).ok());
    let read = output::files_of(&[args.dir.as_deref(), folder.as_deref()]);
    if args.png.is_some() && args.png == args.wrong {
        return Err(Failure::Usage("expected two files for --png and --wrong, got one for both".into()));
    }
    let written = |file: &Option<PathBuf>| file.as_deref().map(|f| Output::new(f, &read)).transpose();
    let (png, wrong) = (written(&args.png)?, written(&args.wrong)?);
    let compare = if args.exact { Compare::Literally } else { Compare::Vqa };
    let samples = match &args.dir {
        Some(dir) => samples::folder(dir)?,
        None => samples::scenes(args.seed, args.scenes)?,
    };
    let cancel = load::interruptible();
    let options = AskOptions { cancel: cancel.clone(), ..AskOptions::default() };
    let model = load::model(args.model.as_deref(), &args.device, args.dtype.into(), &options).await?;
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} {eta}") {
        bar.set_style(style);
    }
    let progress = |done: usize, all: usize| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    };
    let about = About::of(&args, &model, &samples);
    if let Some(study) = args.study {
        let found = studies::run(study, &model, &samples, compare, args.timed, &cancel, progress).await?;
        bar.finish_and_clear();
        return match found {
            Studied::Rows(rows, chart) => {
                told(&args, &about, &rows, || page::studied(&about, &rows))?;
                save(png, || Ok(chart))
            }
            Studied::Table(rows) => {
                table(&args, &about, &rows, png, "Tokens, speed and right answers by who chooses the scales")
            }
        };
    }
    let modes = modes::four(modes::longest(&samples, compare), &cancel);
    let (rows, answers) = modes::run(&model, &samples, &modes, compare, args.timed, progress).await?;
    bar.finish_and_clear();
    if let Some(output) = wrong {
        output.write(page::wrong(&samples, &answers).as_bytes())?;
    }
    table(&args, &about, &rows, png, "Tokens, speed and right answers by sampler")
}

/// Tells a table, and draws it where a file is named.
fn table(args: &EvalArgs, about: &About, rows: &[Row], png: Option<Output>, title: &str) -> Result<(), Failure> {
    told(args, about, rows, || page::table(about, rows))?;
    save(png, || page::chart(title, about, rows))
}

/// Rows on stdout: as JSON, or as `page` has them.
fn told(
    args: &EvalArgs,
    about: &About,
    rows: &(impl Serialize + ?Sized),
    page: impl FnOnce() -> String,
) -> Result<(), Failure> {
    if !args.json {
        return text::out(|to| to.write_all(page().as_bytes()));
    }
    let mut report = json!({ "about": about, "rows": rows });
    if let Some(study) = args.study {
        report["study"] = json!(study.name());
    }
    text::out(|to| writeln!(to, "{report}"))
}

/// Writes a figure where a file is named for it.
fn save(output: Option<Output>, chart: impl FnOnce() -> Result<Chart, Failure>) -> Result<(), Failure> {
    let Some(output) = output else { return Ok(()) };
    output.write(&chart()?.png().map_err(Failure::Chart)?)
}
