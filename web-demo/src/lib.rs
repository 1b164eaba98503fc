//! The engine for browsers, as a wasm module: a model that answers questions about pictures, and the conformance suite.
//!
//! Read in this order: `engine` (a model on a device), `sight` (questions about one picture), `asked` (messages and options of a
//! question, and how to stop it), `messages` (how a worker receives "stop" while it computes), `helpers` (threads on the CPU). The
//! interface to JavaScript is text, bytes and JSON; `page/fovea.js` wraps it in an API.

#[cfg(target_family = "wasm")]
mod start;
mod files;
mod engine;
mod asked;
mod sight;
mod messages;
mod helpers;
mod simd;
mod report;
mod failure;
mod conformance;
