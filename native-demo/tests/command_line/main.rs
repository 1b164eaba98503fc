//! Tests of the program `fovea`: arguments, stdout, stderr and exit codes.
//!
//! | module | tests |
//! |---|---|
//! | `ask` | answers, numbers, JSON, methods of compression and their settings, overlays |
//! | `batch` | files of requests: both forms, errors per line, runs that are resumed |
//! | `chat` | conversations from a pipe: questions, commands, errors |
//! | `trace` | traces that equal PyTorch's |
//! | `reports` | `inspect`, `plan`, `doctor` |
//! | `conformance` | the report as text, JSON and HTML, and the page that compares reports |
//! | `eval` | right answers counted on a folder of pictures |
//! | `exit_codes` | errors: their exit codes and their messages |
//! | `intake` | standard input, checkpoints by their ids, odd questions, outputs that must not replace inputs |
//! | `large` | a checkpoint of 7 B parameters, planned and refused |
//! | `pull` | downloads from a server that plays the Hugging Face hub |
//! | `quantize` | quantised checkpoints: files, answers, refusals |
//! | `streams` | Ctrl-C, and outputs that are closed or full |
//! | `readme` | the first command of README.md |
//! | `program` | runs it, and makes broken checkpoints for it |
//!
//! Expected values are from PyTorch's traces in `tests/fixtures/`, or counted by hand beside the assertion.

mod ask;
mod batch;
mod chat;
mod conformance;
mod eval;
mod exit_codes;
mod intake;
mod large;
mod program;
mod pull;
mod quantize;
mod readme;
mod reports;
mod streams;
mod trace;
