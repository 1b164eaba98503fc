//! `fovea-lab eval`: the table of `fovea eval` on held-out scenes or a folder, and the paper's other studies.
//!
//! `places` (what tokens show in a scene) · `study` (names and rows of studies) · `sweep` (one setting varied) · `maps`
//! (importance by layer).

mod places;
mod study;
mod sweep;
mod maps;

use std::path::PathBuf;

use clap::Args;
use fovea_eval::{Evaluation, Settings, modes::Mode, samples};
use fovea_terminal::{failure::Failure, options, output::Output};

use crate::scenes::{self, Drawn};
use study::Study;

/// `fovea-lab eval`.
#[derive(Args)]
pub struct EvalArgs {
    /// A folder with pictures and a `questions.jsonl`, one {"image", "question", "answer", "kind"} per line; without it,
    /// held-out scenes.
    dir: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
    /// The first held-out scene.
    #[arg(
        long,
        value_name = "S",
        default_value_t = 0,
        value_parser = options::whole::<u64>,
        allow_negative_numbers = true,
        conflicts_with = "dir"
    )]
    seed: u64,
    /// Number of held-out scenes.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 100,
        value_parser = options::count,
        allow_negative_numbers = true,
        conflicts_with = "dir"
    )]
    scenes: usize,
    /// Instead of Table 2: another table or figure of the paper.
    #[arg(long, value_enum, conflicts_with = "wrong")]
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
    if let Some(file) = &args.figure
        && let Some(end) = file.extension().filter(|end| !end.eq_ignore_ascii_case("svg"))
    {
        let why = format!("{}: expected a name in .svg, got .{}", file.display(), end.display());
        return Err(Failure::Usage(why));
    }
    let read = args.settings.read_files(args.dir.as_deref());
    let wrong = args.settings.wrong_file(&read)?;
    let figure = args.figure.as_deref().map(|file| Output::new(file, &read)).transpose()?;
    let (source, (samples, drawn)) = match &args.dir {
        Some(dir) => (dir.display().to_string(), (samples::folder(dir)?, Vec::new())),
        None => {
            let last = args.seed.wrapping_add(args.scenes as u64 - 1);
            (format!("held-out scenes {} to {last}", args.seed), scenes::held_out(args.seed, args.scenes))
        }
    };
    let evaluation = Evaluation::open(&args.settings, samples, &source).await?;
    let Some(study) = args.study else {
        let modes = evaluation.four_modes();
        return table(&evaluation, &drawn, None, &modes, wrong).await;
    };
    let (rows, svg) = match study {
        Study::Sampler => {
            let modes = sweep::choosers(&evaluation)?;
            return table(&evaluation, &drawn, Some(study), &modes, None).await;
        }
        Study::Maps => maps::run(&evaluation, &drawn).await?,
        Study::Scales => sweep::scales(&evaluation).await?,
        Study::Gamma => sweep::gamma(&evaluation).await?,
        Study::Layers => sweep::layers(&evaluation).await?,
        Study::Budget => sweep::budget(&evaluation).await?,
    };
    let compared = match study {
        Study::Gamma | Study::Layers | Study::Budget => format!("\n{}\n", evaluation.compare.sentence()),
        _ => String::new(),
    };
    evaluation.print(Some(study.name()), &rows, || study::page(&rows) + &compared)?;
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
    evaluation.print_table(study.map(Study::name), &rows, &notes)
}
