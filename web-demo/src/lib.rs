//! The engine for a browser: a model that answers questions about pictures, and the conformance suite.
//!
//! Read in this order: `engine` (a model on a device), `sight` (questions about one picture), `asked` (how a question is
//! to be answered, and how to stop it), `hearing` (how a worker hears of that while it computes). What crosses to
//! JavaScript is text, bytes and JSON; `page/fovea.js` makes an API of it.

mod asked;
mod conformance;
mod engine;
mod failure;
mod files;
mod hearing;
mod sight;
#[cfg(target_family = "wasm")]
mod start;
