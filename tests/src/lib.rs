//! What every backend is held to: devices under test, the table of cases, goldens, and how close is close enough.
//!
//! | test root | holds |
//! |---|---|
//! | `twins` | the f64 twins to the PyTorch traces, and the operations on every device to the twins |
//! | `stages` | every stage of every case on every device to the PyTorch traces |
//! | `identities` | runs that must agree with each other: reused against fresh, one naming against another |
//! | `geometry` | token counts, resized and decoded pictures |
//! | `prompts` | token ids of awkward prompts, and ids back to text |
//! | `bad_checkpoints`, `bad_pictures` | what untrusted input gets: a typed error that names what is wrong |
//!
//! Expected values come from `fixtures/` (written by PyTorch, see `reference/`), from the twins, or from a
//! calculation by hand. Never from the code under test.

pub mod checkpoint;
pub mod closeness;
pub mod device;
pub mod golden;
pub mod numbers;
pub mod run;
