//! The errors of this crate, and their kinds for exit codes, hints and reports.

use fovea_runtime::Error as RuntimeError;

/// An error of the model. Each message says what was expected, what was found, and, if possible, what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An error of a device, a file or a tensor.
    #[error(transparent)]
    Runtime(#[from] fovea_runtime::Error),
    /// An error in a configuration file.
    #[error("{key}: {why}")]
    Config {
        /// File and key.
        key: String,
        /// Expected and got.
        why: String,
    },
    /// An error in the tokenizer or the chat template.
    #[error("{file}: {why}")]
    Tokenizer {
        /// The file.
        file: String,
        /// Expected and got.
        why: String,
    },
    /// An error in the picture.
    #[error("the picture: {0}")]
    Picture(String),
    /// An invalid option of the caller.
    #[error("{option}: expected {expected}, got {got}")]
    Option {
        /// Its name on the command line.
        option: &'static str,
        /// The allowed values.
        expected: String,
        /// The given value.
        got: String,
    },
    /// The question does not fit into the context of the model.
    #[error(
        "the question is too long: {need} tokens with the picture and the answer, the model takes {have}; ask a shorter question, allow fewer new tokens, or use a smaller picture"
    )]
    TooLong {
        /// Number of tokens of picture, prompt and answer.
        need: usize,
        /// Context of the model, in tokens.
        have: usize,
    },
    /// The device computed a value that is not finite: weights out of the range of f16, or a faulty driver.
    #[error("{stage}: expected finite values, got one that is not; try --weights f32 or another --device")]
    NotFinite {
        /// Where it was found.
        stage: &'static str,
    },
    /// An error in the files or the numbers of a training run.
    #[error("training: {0}")]
    Training(String),
    /// A bug in this crate.
    #[error("internal error: {0}; please report it")]
    Internal(&'static str),
    /// The caller stopped the run.
    #[error("stopped")]
    Cancelled,
}

/// The kind of an error. It determines exit code, hint and name in reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An error in the files of a checkpoint.
    Checkpoint,
    /// An error in the picture.
    Picture,
    /// An invalid option, or an unknown name of a device.
    Option,
    /// The question does not fit into the model's context.
    TooLong,
    /// The device does not exist, lacks a feature, or computes incorrectly.
    Device,
    /// Not enough memory.
    Memory,
    /// The device was lost while it computed.
    DeviceLost,
    /// The caller stopped the run.
    Stopped,
    /// Any other error.
    Engine,
}

impl ErrorKind {
    /// Its name in reports, which is stable.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Checkpoint => "checkpoint",
            Self::Picture => "picture",
            Self::Option => "option",
            Self::TooLong => "too-long",
            Self::Device => "device",
            Self::Memory => "memory",
            Self::DeviceLost => "device-lost",
            Self::Stopped => "stopped",
            Self::Engine => "engine",
        }
    }

    /// The kind of an error of the runtime.
    pub fn of_runtime(error: &RuntimeError) -> Self {
        match error {
            RuntimeError::UnknownDevice { .. } => Self::Option,
            RuntimeError::NoAdapter { .. } | RuntimeError::MissingFeature { .. } | RuntimeError::SelfTest { .. } => {
                Self::Device
            }
            RuntimeError::OutOfMemory { .. } => Self::Memory,
            RuntimeError::DeviceLost(_) => Self::DeviceLost,
            RuntimeError::Io { .. }
            | RuntimeError::NoCheckpoint { .. }
            | RuntimeError::WeightFile { .. }
            | RuntimeError::Tensor { .. } => Self::Checkpoint,
            _ => Self::Engine,
        }
    }
}

impl Error {
    /// The kind of this error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Runtime(error) => ErrorKind::of_runtime(error),
            Self::Config { .. } | Self::Tokenizer { .. } => ErrorKind::Checkpoint,
            Self::Picture(_) => ErrorKind::Picture,
            Self::Option { .. } => ErrorKind::Option,
            Self::TooLong { .. } => ErrorKind::TooLong,
            Self::Cancelled => ErrorKind::Stopped,
            Self::NotFinite { .. } | Self::Training(_) | Self::Internal(_) => ErrorKind::Engine,
        }
    }
}
