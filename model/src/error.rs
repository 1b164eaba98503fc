//! What can go wrong from a checkpoint and a picture to an answer.

use fovea_runtime::Error as RuntimeError;

/// An error of the model and all around it. Each says what was expected, what came, and where it helps what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A device, a file or a tensor.
    #[error(transparent)]
    Runtime(#[from] fovea_runtime::Error),
    /// A key of a configuration file.
    #[error("{key}: {why}")]
    Config {
        /// File and key.
        key: String,
        /// Expected and got.
        why: String,
    },
    /// The tokenizer or the chat template.
    #[error("{file}: {why}")]
    Tokenizer {
        /// The file.
        file: String,
        /// Expected and got.
        why: String,
    },
    /// The picture.
    #[error("the picture: {0}")]
    Picture(String),
    /// A setting that the caller chose.
    #[error("{option}: expected {expected}, got {got}")]
    Option {
        /// Its name on the command line.
        option: &'static str,
        /// What it may be.
        expected: String,
        /// What it was.
        got: String,
    },
    /// The question does not fit.
    #[error(
        "the question is too long: {need} tokens with the picture and the answer, the model takes {have}; ask a shorter one or for fewer new tokens"
    )]
    TooLong {
        /// Tokens of picture, prompt and answer.
        need: usize,
        /// The model's context.
        have: usize,
    },
    /// The device computed a value that is no number: weights out of range, or a faulty driver.
    #[error("{stage}: expected finite values, got one that is not; try --dtype f32 or another --device")]
    NotFinite {
        /// Where.
        stage: &'static str,
    },
    /// A training run's files, or its numbers.
    #[error("training: {0}")]
    Training(String),
    /// The caller stopped the run.
    #[error("stopped")]
    Cancelled,
}

impl Error {
    /// What kind of error it is, in a word that programs and bug reports can rely on: `checkpoint`, `picture`, `option`,
    /// `too-long`, `device`, `memory`, `device-lost`, `stopped`, or `engine` for the rest.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Runtime(error) => runtime_code(error),
            Self::Config { .. } | Self::Tokenizer { .. } => "checkpoint",
            Self::Picture(_) => "picture",
            Self::Option { .. } => "option",
            Self::TooLong { .. } => "too-long",
            Self::Cancelled => "stopped",
            _ => "engine",
        }
    }
}

fn runtime_code(error: &RuntimeError) -> &'static str {
    match error {
        RuntimeError::NoAdapter { .. } | RuntimeError::MissingFeature { .. } | RuntimeError::SelfTest { .. } => {
            "device"
        }
        RuntimeError::OutOfMemory { .. } => "memory",
        RuntimeError::DeviceLost(_) => "device-lost",
        RuntimeError::Io { .. }
        | RuntimeError::NoCheckpoint { .. }
        | RuntimeError::WeightFile { .. }
        | RuntimeError::Tensor { .. } => "checkpoint",
        _ => "engine",
    }
}
