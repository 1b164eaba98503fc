//! `fovea`: ask questions about pictures on the command line or in a window, and see what the model looked at.
//!
//! stdout carries the answer or JSON alone; progress, notes and errors go to stderr.

mod args;
mod ask;
mod chart;
mod conformance;
mod doctor;
mod eval;
mod failure;
mod inspect;
mod load;
mod output;
mod plan;
mod text;
mod trace;
mod train;
mod window;

use std::{panic, path::Path, process::ExitCode, thread};

use clap::{CommandFactory, Parser, error::ErrorKind};

use args::{AppArgs, Cli, Command};
use failure::Failure;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return not_run(&error),
    };
    // A panic is a defect or a lost device; either way the user gets a sentence and not a backtrace.
    panic::set_hook(Box::new(|_| {}));
    let command = match cli.command {
        Some(Command::App(args)) => return window::run(args),
        Some(command) => command,
        None if window::has_display() => return window::run(AppArgs::default()),
        None => return not_run(&no_command()),
    };
    // A thread of its own: some systems give the first one a stack that a checkpoint's template could exhaust.
    let result = thread::Builder::new()
        .stack_size(STACK)
        .spawn(|| pollster::block_on(run(command)))
        .map(|worker| worker.join().unwrap_or_else(|panic| Err(Failure::from_panic(panic.as_ref()))))
        .unwrap_or_else(|why| Err(Failure::Panic(format!("no thread: {why}"))));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            text::note(&format!("fovea: {}", text::line(&failure.to_string())));
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Without a command, where no window can be opened: the help.
fn no_command() -> clap::Error {
    Cli::command().error(ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand, Cli::command().render_help())
}

/// Bytes of stack: eight times what the longest template that is read passes in.
const STACK: usize = 64 << 20;

/// Help and version as clap has them; anything else about the arguments in one line.
fn not_run(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            // Where nobody listens, nobody misses it.
            let _ = error.print();
        }
        _ => {
            let text = error.render().to_string();
            text::note(&format!("fovea: {}", text::line(&usage_error(&text, error.kind()))));
        }
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// An error of clap's in one line: what is wrong, what begins with a hyphen, and the help of the command it is about.
fn usage_error(text: &str, kind: ErrorKind) -> String {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    // clap's first paragraph says what is wrong; below it are tips, the usage, and where to find help.
    let what = words(text.split("\n\n").next().unwrap_or_default().trim_start_matches("error:"));
    let hyphen = match kind {
        ErrorKind::UnknownArgument => "; a question that begins with a hyphen goes behind `--`",
        _ => "",
    };
    let first = std::env::args().nth(1).unwrap_or_default();
    let known = Cli::command().get_subcommands().any(|command| command.get_name() == first);
    let hint = match kind {
        ErrorKind::InvalidSubcommand if Path::new(&first).is_file() => {
            "; to ask about a picture: `fovea ask PICTURE QUESTION`"
        }
        _ => hyphen,
    };
    format!("{what}{hint}; see `fovea{} --help`", if known { format!(" {first}") } else { String::new() })
}

async fn run(command: Command) -> Result<(), Failure> {
    match command {
        // The window is opened before this thread is: it wants the first one.
        Command::App(_) => Ok(()),
        Command::Ask(args) => ask::run(args).await,
        Command::Trace(args) => trace::run(args).await,
        Command::Inspect(args) => inspect::run(args).await,
        Command::Plan(args) => plan::run(args).await,
        Command::Doctor(args) => doctor::run(args).await,
        Command::Conformance(args) => conformance::run(args).await,
        Command::Eval(args) => eval::run(args).await,
        Command::Scenes(args) => eval::scenes(&args),
        Command::Train(args) => train::run(args).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "fovea", &mut script);
            text::out(|to| to.write_all(&script))
        }
    }
}
