//! Helpers for tests across the workspace: devices under test, golden traces, whole runs, broken checkpoints.
//!
//! The table of cases and the bounds are in `fovea-conformance`, which also runs outside of tests.
//!
//! | test | checks |
//! |---|---|
//! | `twins` | the f64 twins, compared with PyTorch's traces |
//! | `kernels` | the operations on every device, compared with the twins, with the table of `fovea-conformance` |
//! | `stages` | every stage of every case on every device, compared with PyTorch's traces |
//! | `reflect` | the WGSL of every kernel: agreement with its host code, and naga's back ends |
//! | `cuda` | the CUDA text of every kernel: NVRTC compiles it, and the CPU computes with it what a GPU computed |
//! | `web` | the table and all whole runs in real browsers, the demo page, models from an unreliable server |
//! | `training` | training steps on a GPU, compared with the CPU |
//! | `device_loss` | loss of a GPU at any point |
//! | `identities` | pairs of runs that must agree: reused and fresh state, different tensor names |
//! | `geometry` | token counts, resized and decoded pictures |
//! | `dialogues` | several messages: ids and answers of Hugging Face; continued conversations equal new ones |
//! | `prompts` | token ids of unusual prompts, and conversion of ids to text |
//! | `compressed` | every compression on every device, compared with PyTorch's traces; pairs of runs that must agree |
//! | `families` | several pictures, counts, tensors and image ids of each family; files that a checkpoint may lack |
//! | `published_files` | which of two files is used, as in Hugging Face |
//! | `real_vocabularies` | token ids with the vocabularies of Mistral, Llama 2, Llama 3 and Qwen |
//! | `bad_checkpoints`, `bad_pictures` | untrusted input gives a typed error that names the fault |
//!
//! Expected values come from `fixtures/` (written by PyTorch, see `reference/`), from the twins, or from a calculation
//! by hand, never from the code under test.

pub mod device;
pub mod golden;
pub mod run;
pub mod checkpoint;
pub mod texts;
pub mod unreliable;
pub mod browser;

pub use fovea_conformance::{closeness, numbers};
