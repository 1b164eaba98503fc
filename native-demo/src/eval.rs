//! `fovea eval`: how many answers are right, for how many tokens and at what speed; `fovea scenes` writes the pictures.
//!
//! `samples` (what is asked) · `modes` (the table) · `places` (what was kept of the object asked about) · `studies` (the
//! paper's other tables and figures) · `page` (as text).

mod modes;
mod page;
mod places;
mod samples;
mod studies;

use std::{fs, io::IsTerminal, path::Path};

use fovea_model::AskOptions;
pub use studies::Study;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::{
    args::{EvalArgs, ScenesArgs},
    chart::Chart,
    failure::Failure,
    load, text,
};

/// Writes held-out scenes and their questions.
pub fn scenes(args: &ScenesArgs) -> Result<(), Failure> {
    samples::write(args.seed, args.count, &args.out)
}

/// Answers every question in every mode, and tells how that went.
pub async fn run(args: EvalArgs) -> Result<(), Failure> {
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
    let about = page::About::of(&args, &model, &samples);
    if let Some(study) = args.study {
        let found = studies::run(study, &model, &samples, args.timed, &cancel, progress).await?;
        bar.finish_and_clear();
        if args.json {
            let report = json!({ "study": study.name(), "about": about, "rows": found.rows });
            text::out(|to| writeln!(to, "{report}"))?;
        } else {
            text::out(|to| to.write_all(page::studied(&about, &found.rows).as_bytes()))?;
        }
        return save(args.png.as_deref(), found.chart);
    }
    let modes = modes::four(modes::longest(&samples), &cancel);
    let (rows, answers) = modes::run(&model, &samples, &modes, args.timed, progress).await?;
    bar.finish_and_clear();
    if let Some(file) = &args.wrong {
        let wrong = page::wrong(&samples, &answers);
        fs::write(file, wrong).map_err(|why| Failure::Write { file: file.display().to_string(), why })?;
    }
    if args.json {
        let report = json!({ "about": about, "rows": rows });
        text::out(|to| writeln!(to, "{report}"))?;
    } else {
        text::out(|to| to.write_all(page::table(&about, &rows).as_bytes()))?;
    }
    match &args.png {
        Some(file) => save(Some(file), Some(page::chart(&about, &rows)?)),
        None => Ok(()),
    }
}

fn save(file: Option<&Path>, chart: Option<Chart>) -> Result<(), Failure> {
    let (Some(file), Some(chart)) = (file, chart) else { return Ok(()) };
    let png = chart.png().map_err(Failure::Chart)?;
    fs::write(file, png).map_err(|why| Failure::Write { file: file.display().to_string(), why })
}
