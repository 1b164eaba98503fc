//! What can go wrong under the network, each with what was expected and what came.

/// An error of devices, files or weights.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text given for a device is none.
    #[error("`{given}` names no device: expected auto, cpu, wgpu, wgpu:N, wgpu:NAME, cuda or cuda:N")]
    UnknownDevice {
        /// What was given.
        given: String,
    },
    /// No adapter answers to the choice.
    #[error("no adapter for `{asked}`: found {found}; `--device cpu` always works")]
    NoAdapter {
        /// What was asked for.
        asked: String,
        /// What is there.
        found: String,
    },
    /// What was named is no checkpoint.
    #[error("{given}: {why}")]
    NoCheckpoint {
        /// What was named.
        given: String,
        /// What was looked at, and what to do.
        why: String,
    },
    /// The device or this build lacks something that is needed.
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
        /// The value known beforehand.
        expected: f32,
        /// The value computed.
        got: f32,
    },
    /// By plan there is not enough memory; nothing was allocated.
    #[error("not enough memory for {what}: needs {}, there are {}; {hint}", crate::memory::bytes(*.need), crate::memory::bytes(*.have))]
    OutOfMemory {
        /// What needs it.
        what: String,
        /// Bytes needed.
        need: u64,
        /// Bytes there are.
        have: u64,
        /// What would make it fit.
        hint: String,
    },
    /// The device stopped answering.
    #[error("the device was lost: {0}; open it again")]
    DeviceLost(String),
    /// A file can't be read.
    #[error("cannot read {file}: {why}")]
    Io {
        /// Its name.
        file: String,
        /// The system's words.
        why: String,
    },
    /// A weights file breaks the format or the model.
    #[error("{file}: {why}")]
    WeightFile {
        /// Its name.
        file: String,
        /// What is wrong: expected and got.
        why: String,
    },
    /// A tensor is missing or unlike what the model needs.
    #[error("tensor `{tensor}` in {file}: expected {expected}, got {got}")]
    Tensor {
        /// Where it was found or sought.
        file: String,
        /// Its name there.
        tensor: String,
        /// What the model needs.
        expected: String,
        /// What is there.
        got: String,
    },
    /// Regions got no scale: a logit was not finite.
    #[error(
        "the vision-guided sampler: expected a finite logit at every scale of every region, got others in {regions} regions"
    )]
    NoChoice {
        /// How many.
        regions: usize,
    },
    /// A kernel wrote beside its buffer.
    #[error(
        "expected the sentinels around buffer {buffer}, of {bytes} bytes, untouched; got another value at byte {at}"
    )]
    Sentinel {
        /// Which, in the order of their allocation.
        buffer: usize,
        /// Its size.
        bytes: usize,
        /// Where, from its first byte.
        at: i64,
    },
    /// An operation was called with shapes that do not belong together.
    #[error("{op}: expected {expected}, got {got}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// The rule.
        expected: String,
        /// The shapes.
        got: String,
    },
}
