//! What every backend is held to: devices under test, goldens, whole runs, broken checkpoints.
//!
//! The table of cases, bounds and closeness are in `fovea-conformance`, which runs outside of tests as well.
//!
//! | test root | holds |
//! |---|---|
//! | `twins` | the f64 twins to the PyTorch traces |
//! | `kernels` | the operations on every device to the twins, over the table of `fovea-conformance` |
//! | `stages` | every stage of every case on every device to the PyTorch traces |
//! | `reflect` | every kernel's text to what its host is told of it, and through naga's back ends |
//! | `web` | the table and every whole run in real browsers, the demo page, models from a server that behaves badly |
//! | `training` | steps of training on a GPU to the CPU's |
//! | `device_loss` | a GPU that goes away at any point |
//! | `identities` | runs that must agree with each other: reused against fresh, one naming against another |
//! | `geometry` | token counts, resized and decoded pictures |
//! | `prompts` | token ids of awkward prompts, and ids back to text |
//! | `published_files` | which of two files counts, as Hugging Face decides it |
//! | `real_vocabularies` | token ids under the vocabularies of Mistral, Llama 2 and Llama 3 |
//! | `bad_checkpoints`, `bad_pictures` | what untrusted input gets: a typed error that names what is wrong |
//!
//! Expected values come from `fixtures/` (written by PyTorch, see `reference/`), from the twins, or from a
//! calculation by hand. Never from the code under test.

pub mod browser;
pub mod checkpoint;
pub mod device;
pub mod golden;
pub mod run;
pub mod unreliable;

pub use fovea_conformance::{closeness, numbers};
