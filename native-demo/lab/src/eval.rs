//! `fovea-lab eval`: the table of `fovea eval` on held-out scenes or a folder, and the paper's other studies.
//!
//! `places` (what tokens show in a scene) · `study` (names and rows of studies) · `sweep` (one setting varied) · `maps`
//! (importance by layer) · `questions` (kept tokens by question) · `sheet` (figures with pictures).

mod places;
mod study;
mod sweep;
mod sheet;
mod maps;
mod questions;

use std::path::PathBuf;

use clap::Args;
use fovea_eval::{Evaluation, Settings, TableArgs, modes::Mode};
use fovea_model::Fits;
use fovea_terminal::{failure::Failure, output::Output};
use serde_json::json;

use crate::{
    chart,
    scenes::{Drawn, Questions},
};
use study::Study;

/// `fovea-lab eval`.
#[derive(Args)]
pub struct EvalArgs {
    #[command(flatten)]
    questions: Questions,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    table: TableArgs,
    /// Instead of Table 2: another table or figure of the paper.
    #[arg(long, value_enum, conflicts_with_all = ["wrong", "compress"])]
    study: Option<Study>,
    /// Also draw the study's figure.
    #[arg(long, value_name = "FILE.svg", requires = "study")]
    figure: Option<PathBuf>,
}

/// Runs the evaluation or a study, and prints its rows.
pub async fn run(args: EvalArgs) -> Result<(), Failure> {
    if let (Some(Study::Sampler), Some(_)) = (args.study, &args.figure) {
        return Err(Failure::Usage(
            "expected a study with a figure for --figure, got sampler, which is a table".into(),
        ));
    }
    let read = args.settings.read_files(args.questions.dir.as_deref());
    let wrong = args.table.wrong_file(&read)?;
    let figure = chart::file(args.figure.as_deref(), &read)?;
    let (source, samples, drawn) = args.questions.samples()?;
    let check = |fits: Fits<'_>| args.table.check(fits);
    let evaluation = Evaluation::open(&args.settings, samples, &source, check).await?;
    let Some(study) = args.study else {
        let modes = evaluation.modes(&args.table.compress);
        return table(&evaluation, &drawn, None, &modes, wrong).await;
    };
    let mut more = vec![("study", json!(study.name()))];
    let (rows, svg) = match study {
        Study::Sampler => {
            let modes = sweep::choosers(&evaluation)?;
            return table(&evaluation, &drawn, Some(study), &modes, None).await;
        }
        Study::Maps => maps::run(&evaluation, &drawn).await?,
        Study::Questions => {
            let (rows, facts, svg) = questions::run(&evaluation, &drawn).await?;
            more.push(("questions", facts));
            (rows, svg)
        }
        Study::Scales => sweep::scales(&evaluation, &drawn).await?,
        Study::Gamma => sweep::gamma(&evaluation).await?,
        Study::Layers => sweep::layers(&evaluation).await?,
        Study::Budget => sweep::budget(&evaluation).await?,
    };
    let compared = match study {
        Study::Gamma | Study::Layers | Study::Budget => format!("\n{}\n", evaluation.compare.sentence()),
        _ => String::new(),
    };
    evaluation.print(&more, &rows, || study::page(study, &rows) + &compared)?;
    figure.map_or(Ok(()), |file| file.write(svg.as_bytes()))
}

/// Answers in every mode, and prints a table with what is known of scenes.
async fn table(
    evaluation: &Evaluation,
    drawn: &[Drawn],
    study: Option<Study>,
    modes: &[Mode],
    wrong: Option<Output>,
) -> Result<(), Failure> {
    let (mut rows, answers) = evaluation.answer(modes).await?;
    let notes = places::add(&mut rows, modes, &answers, drawn);
    evaluation.write_wrong(wrong, &answers)?;
    let study = study.map(|study| ("study", json!(study.name())));
    evaluation.print_table(study.as_slice(), &rows, &notes)
}
