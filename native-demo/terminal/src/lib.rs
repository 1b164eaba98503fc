//! What Fovea's programs for a terminal, `fovea` and `fovea-lab`, share.
//!
//! | module | contents |
//! |---|---|
//! | [`program`] | reads the arguments, runs a command, prints its error, returns the exit code |
//! | [`failure`] | every error, with its exit code |
//! | [`logging`] | `--verbose` and `--quiet`, the log on stderr, the panic hook |
//! | [`options`] | values of options: `--device`, `--weights`, `--cache`, `--memory`, counts |
//! | [`load`] | pictures, checkpoints and models; Ctrl-C |
//! | [`output`] | files that a command writes |
//! | [`text`] | lines on stdout and stderr, progress bars |
//!
//! stdout carries results only; everything else goes to stderr.

pub mod program;
pub mod failure;
mod panics;
pub mod logging;
pub mod options;
pub mod load;
pub mod output;
pub mod text;

pub use program::run_program;
