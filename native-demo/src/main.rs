//! `fovea`: ask questions about pictures on the command line, and see what the model looked at.
//!
//! stdout carries the answer or JSON alone; progress, notes and errors go to stderr.

mod args;
mod ask;
mod doctor;
mod failure;
mod inspect;
mod load;
mod plan;
mod text;
mod trace;

use std::{panic, process::ExitCode};

use clap::{CommandFactory, Parser};

use args::{Cli, Command};
use failure::Failure;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // A panic is a defect or a lost device; either way the user gets a sentence and not a backtrace.
    panic::set_hook(Box::new(|_| {}));
    let result = panic::catch_unwind(|| pollster::block_on(run(cli.command)))
        .unwrap_or_else(|panic| Err(Failure::from_panic(panic.as_ref())));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("fovea: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Ask(args) => ask::run(args).await,
        Command::Trace(args) => trace::run(args).await,
        Command::Inspect(args) => inspect::run(args).await,
        Command::Plan(args) => plan::run(args).await,
        Command::Doctor(args) => doctor::run(args).await,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "fovea", &mut std::io::stdout());
            Ok(())
        }
    }
}
