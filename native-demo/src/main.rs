//! `fovea`: ask questions about pictures on the command line or in a window, and see which parts of a picture the model used.
//!
//! stdout carries only the answer or JSON; progress, notes and errors go to stderr. One file per command.

mod args;
mod window;
mod ask;
mod answer;
mod chat;
mod batch;
mod trace;
mod pull;
mod quantize;
mod inspect;
mod plan;
mod doctor;
mod conformance;

use std::{path::Path, process::ExitCode};

use clap::{CommandFactory, error::ErrorKind};
use fovea_terminal::{failure::Failure, program, text};

use args::{AppArgs, Cli, Command};

/// The program's name in messages.
const NAME: &str = "fovea";

fn main() -> ExitCode {
    let cli = match program::parse::<Cli>(hint) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    cli.verbosity.start();
    match cli.command.unwrap_or_else(|| Command::App(AppArgs::default())) {
        Command::App(args) => program::run_here(NAME, || window::run(args)),
        command => program::run_program(NAME, move || run(command)),
    }
}

/// What may help after a usage error of `command`, which is the first argument where no command was typed. `wrong` is the
/// wrong argument.
fn hint(kind: ErrorKind, command: &str, wrong: &str) -> &'static str {
    const LAB: &str = "; held-out scenes and studies are in `fovea-lab eval`";
    match (kind, command) {
        (ErrorKind::UnknownArgument, "ask" | "trace") => "; a question that begins with a hyphen goes after `--`",
        (ErrorKind::MissingRequiredArgument, "eval") => LAB,
        (ErrorKind::UnknownArgument, "eval") if ["--scenes", "--study", "--figure", "--seed"].contains(&wrong) => LAB,
        (ErrorKind::InvalidSubcommand, "version") => "; `fovea --version` prints the version",
        (ErrorKind::InvalidSubcommand, "scenes" | "train") => "; it is a command of `fovea-lab`",
        (ErrorKind::InvalidSubcommand, file) if Path::new(file).is_file() => {
            "; to ask about a picture: `fovea ask PICTURE QUESTION`"
        }
        _ => "",
    }
}

async fn run(command: Command) -> Result<(), Failure> {
    match command {
        // `main` opens the window on the main thread.
        Command::App(_) => Ok(()),
        Command::Ask(args) => ask::run(args).await,
        Command::Chat(args) => chat::run(args).await,
        Command::Serve(args) => fovea_serve::run(args).await,
        Command::Batch(args) => batch::run(args).await,
        Command::Trace(args) => trace::run(args).await,
        Command::Pull(args) => pull::run(&args),
        Command::Quantize(args) => quantize::run(args).await,
        Command::Inspect(args) => inspect::run(args).await,
        Command::Plan(args) => plan::run(args).await,
        Command::Doctor(args) => doctor::run(args).await,
        Command::Conformance(args) => conformance::run(args).await,
        Command::Eval(args) => fovea_eval::run(args).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), NAME, &mut script);
            text::out(|to| to.write_all(&script))
        }
    }
}
