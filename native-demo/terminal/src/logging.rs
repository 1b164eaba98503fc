//! `--verbose` and `--quiet`, the log on stderr, and the panic hook.

use std::{
    io, panic,
    sync::atomic::{AtomicBool, Ordering},
};

use clap::{ArgAction, Args};
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::{
    panics::{LAST_PANIC, located},
    text,
};

/// How much is printed on stderr. Part of every command.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct Verbosity {
    /// Print more on stderr: -v what the program does and the time of each stage, -vv details, -vvv everything.
    #[arg(short, long, action = ArgAction::Count, global = true, conflicts_with = "quiet", display_order = 100)]
    pub verbose: u8,
    /// Print only results and errors: no notes, no numbers, no progress.
    #[arg(short, long, global = true, display_order = 101)]
    pub quiet: bool,
}

/// Whether panics are printed where the log does not have them.
static PRINT_PANICS: AtomicBool = AtomicBool::new(false);

/// Prints every panic on stderr, in one line: for a program that survives panics. The hook is that of [`Verbosity::start`].
pub fn print_panics() {
    PRINT_PANICS.store(true, Ordering::Relaxed);
}

impl Verbosity {
    /// Starts the log and installs the panic hook. To be called once, before anything else runs.
    pub fn start(self) {
        panic::set_hook(Box::new(|info| {
            let what = located(info.location(), info.payload_as_str().unwrap_or("a panic without a message"));
            tracing::error!("panic {what}");
            // The log has it with `-v`.
            if PRINT_PANICS.load(Ordering::Relaxed) && !tracing::enabled!(tracing::Level::ERROR) {
                text::error(&text::line(&format!("panic {what}")));
            }
            if let Ok(mut last) = LAST_PANIC.lock() {
                *last = Some(what);
            }
        }));
        if self.quiet {
            // clap does not see the conflict where `-q` is before the command and `-v` after it.
            text::be_quiet();
        }
        // A closed stderr is no error.
        let lines = fmt::layer().with_writer(io::stderr).without_time().with_ansi(false).log_internal_errors(false);
        // It fails only where a log was started before; that one then stays.
        let _ = tracing_subscriber::registry().with(self.targets()).with(lines).try_init();
    }

    /// Which crates log what.
    fn targets(self) -> Targets {
        let level = match self.verbose {
            _ if self.quiet => LevelFilter::OFF,
            0 => LevelFilter::OFF,
            1 => LevelFilter::INFO,
            2 => LevelFilter::DEBUG,
            _ => LevelFilter::TRACE,
        };
        // The server's problems are not the program's error, so they would be silent otherwise.
        let server = level.max(if self.quiet { LevelFilter::ERROR } else { LevelFilter::WARN });
        // Our crates have names that begin with `fovea`. The others, above all wgpu and naga, log too much below `warn`.
        let targets = Targets::new().with_default(level.min(LevelFilter::WARN)).with_target("fovea", level);
        targets.with_target("fovea_serve", server)
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn only_the_server_logs_without_an_option() {
        let targets = |verbose, quiet| Verbosity { verbose, quiet }.targets();
        let quiet = targets(1, true);
        let usual = targets(0, false);
        let verbose = targets(1, false);
        for (target, level, expected) in [
            ("fovea_serve::engine", Level::ERROR, [true, true, true]),
            ("fovea_serve", Level::WARN, [false, true, true]),
            ("fovea_serve", Level::INFO, [false, false, true]),
            ("fovea_serve", Level::DEBUG, [false, false, false]),
            ("fovea_model::load", Level::ERROR, [false, false, true]),
            ("fovea_model", Level::INFO, [false, false, true]),
            ("wgpu_core", Level::ERROR, [false, false, true]),
            ("wgpu_core", Level::INFO, [false, false, false]),
        ] {
            let got = [&quiet, &usual, &verbose].map(|targets| targets.would_enable(target, &level));
            assert_eq!(got, expected, "{target} {level} (got, expected)");
        }
    }
}
