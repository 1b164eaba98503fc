//! The errors of this crate. Each message has what was expected, what was found, and what to do.

use std::io;

/// An error of devices, files or weights.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is not the name of a device.
    #[error("`{given}` names no device: expected auto, cpu, wgpu, wgpu:N, wgpu:NAME, cuda or cuda:N")]
    UnknownDevice {
        /// The text.
        given: String,
    },
    /// No adapter matches the choice.
    #[error("no adapter for `{asked}`: found {found}; `--device cpu` always works")]
    NoAdapter {
        /// The choice.
        asked: String,
        /// The adapters of this machine.
        found: String,
    },
    /// There is no checkpoint at the given place.
    #[error("{given}: {why}")]
    NoCheckpoint {
        /// The given path or name.
        given: String,
        /// Where it was searched, and what to do.
        why: String,
    },
    /// The device or this build lacks a feature that is needed.
    #[error("{device} lacks {what}")]
    MissingFeature {
        /// The device.
        device: String,
        /// What is missing, and what to do.
        what: String,
    },
    /// The device computes wrongly.
    #[error(
        "{device} failed its self-test ({what}): expected {expected}, got {got}; update its driver, or use another --device"
    )]
    SelfTest {
        /// The device.
        device: String,
        /// The operation.
        what: &'static str,
        /// The correct value.
        expected: f32,
        /// The computed value.
        got: f32,
    },
    /// By estimate there is not enough memory. Nothing was allocated.
    #[error("not enough memory for {what}: {}; {hint}", crate::memory::shortage(*.need, *.have))]
    OutOfMemory {
        /// What needs it.
        what: String,
        /// Bytes needed.
        need: u64,
        /// Bytes available.
        have: u64,
        /// What to change so that it fits.
        hint: String,
    },
    /// The device was lost or closed.
    #[error("the device was lost: {0}; open it again")]
    DeviceLost(String),
    /// A file can't be read.
    #[error("cannot read {file}: {source}")]
    Io {
        /// Its name.
        file: String,
        /// The error of the system.
        source: io::Error,
    },
    /// A weights file breaks the rules of the format or of the model.
    #[error("{file}: {why}")]
    WeightFile {
        /// Its name.
        file: String,
        /// What is wrong: expected and got.
        why: String,
    },
    /// A tensor is missing, or is not what the model needs.
    #[error("tensor `{tensor}` in {file}: expected {expected}, got {got}")]
    Tensor {
        /// The file where it is, or should be.
        file: String,
        /// Its name there.
        tensor: String,
        /// What the model needs.
        expected: String,
        /// What the file contains.
        got: String,
    },
    /// Some regions have no scale, because a logit was not finite.
    #[error(
        "the vision-guided sampler: expected finite logits, got NaN or infinity in {regions} regions; check the weights"
    )]
    NoChoice {
        /// The number of these regions.
        regions: usize,
    },
    /// A kernel wrote outside a buffer.
    #[error("expected the sentinels around buffer {buffer} of {bytes} bytes unchanged, got another value at byte {at}")]
    Sentinel {
        /// The index of the buffer, in the order of allocation.
        buffer: usize,
        /// Its size.
        bytes: usize,
        /// The position, relative to the first byte of the buffer.
        at: i64,
    },
    /// An operation was called with shapes that do not match.
    #[error("{op}: expected {expected}, got {got}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// The rule for the shapes.
        expected: String,
        /// The shapes.
        got: String,
    },
}
