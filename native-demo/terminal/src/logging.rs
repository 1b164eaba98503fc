//! `--verbose` and `--quiet`, the log on stderr, and the panic hook.

use std::{io, panic};

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

impl Verbosity {
    /// Starts the log and installs the panic hook. To be called once, before anything else runs.
    pub fn start(self) {
        panic::set_hook(Box::new(|info| {
            let what = located(info.location(), info.payload_as_str().unwrap_or("a panic without a message"));
            tracing::error!("panic {what}");
            if let Ok(mut last) = LAST_PANIC.lock() {
                *last = Some(what);
            }
        }));
        if self.quiet {
            // clap does not see the conflict where `-q` is before the command and `-v` after it.
            text::be_quiet();
            return;
        }
        let level = match self.verbose {
            0 => return,
            1 => LevelFilter::INFO,
            2 => LevelFilter::DEBUG,
            _ => LevelFilter::TRACE,
        };
        // Our crates have names that begin with `fovea`. The others, above all wgpu and naga, log too much below `warn`.
        let targets = Targets::new().with_default(LevelFilter::WARN).with_target("fovea", level);
        let lines = fmt::layer().with_writer(io::stderr).without_time().with_ansi(false);
        // It fails only where a log was started before; that one then stays.
        let _ = tracing_subscriber::registry().with(targets).with(lines).try_init();
    }
}
