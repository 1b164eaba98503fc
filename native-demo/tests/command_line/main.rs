//! The `fovea` program from outside: what is typed, what comes back on stdout and stderr, and the exit code.
//!
//! | module | holds |
//! |---|---|
//! | `ask` | answers, numbers, JSON, samplers and their settings, overlays |
//! | `trace` | traces that equal PyTorch's |
//! | `reports` | `inspect`, `plan`, `doctor` |
//! | `conformance` | the report as text, JSON and HTML, and reports side by side |
//! | `scenes` | drawn scenes, right answers counted, a short training run |
//! | `exit_codes` | what goes wrong, and the code and the sentence it gets |
//! | `intake` | standard input, checkpoints by their ids, odd questions, files that must not be overwritten |
//! | `large` | a checkpoint of 7 B parameters, planned and refused |
//! | `streams` | Ctrl-C, and outputs that are closed or full |
//! | `readme` | the first command of README.md |
//! | `program` | running it, and the checkpoints and pictures it runs on |
//!
//! Expected values are from PyTorch's traces in `tests/fixtures/`, or counted by hand beside the assertion.

mod ask;
mod conformance;
mod exit_codes;
mod intake;
mod large;
mod program;
mod readme;
mod reports;
mod scenes;
mod streams;
mod trace;
