//! `fovea-lab`: draws scenes, trains a checkpoint on them, and repeats the paper's tables and figures.
//!
//! `scenes` (pictures, questions, answers) · `train` (log and curves) · `eval` (Table 2 and the studies) · `compare` (methods
//! of compression) · `agreement` (smaller weights compared with f32) · `chart` (lines, bars and marks as SVG).

mod scenes;
mod train;
mod eval;
mod compare;
mod agreement;
mod chart;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use fovea_terminal::{logging::Verbosity, program};

/// Train a checkpoint on drawn scenes, and repeat the paper's tables and figures.
#[derive(Parser)]
#[command(name = "fovea-lab", version, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    verbosity: Verbosity,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train a checkpoint on drawn scenes by the paper's recipe. The same command continues a stopped run.
    Train(train::TrainArgs),
    /// Draw held-out scenes with questions.
    Scenes(scenes::ScenesArgs),
    /// Count right answers on held-out scenes, or on a folder of pictures: the paper's Table 2 and its other studies.
    Eval(eval::EvalArgs),
    /// Compare the methods that compress visual tokens: right answers, time and memory by number of tokens.
    Compare(compare::CompareArgs),
    /// Compare f16, q8 and q4 weights with f32: most likely tokens, scales and kept tokens on held-out scenes.
    Agreement(agreement::AgreementArgs),
}

fn main() -> ExitCode {
    let cli: Cli = match program::parse(|_, _, _| "") {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    cli.verbosity.start();
    program::run_program("fovea-lab", move || async move {
        match cli.command {
            Command::Train(args) => train::run(args).await,
            Command::Scenes(args) => scenes::run(&args),
            Command::Eval(args) => eval::run(args).await,
            Command::Compare(args) => compare::run(args).await,
            Command::Agreement(args) => agreement::run(args).await,
        }
    })
}
