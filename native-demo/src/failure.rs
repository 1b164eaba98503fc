//! Every way to fail, with the exit code that scripts can rely on.

use std::any::Any;

use fovea_conformance::golden::FixtureError;
use fovea_model::Error;
use fovea_runtime::Error as RuntimeError;

/// Why a command ended without its result.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The engine's own.
    #[error(transparent)]
    Model(#[from] Error),
    /// The device's or the weights'.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The arguments make no sense together.
    #[error("{0}")]
    Usage(String),
    /// The picture's file can't be read.
    #[error("cannot read the picture {file}: {why}")]
    PictureFile {
        /// Its name.
        file: String,
        /// The system's words, and what to do.
        why: String,
    },
    /// The picture in a file is refused.
    #[error("{file}: {why}")]
    Picture {
        /// The file's name.
        file: String,
        /// Why.
        why: Error,
    },
    /// Something can't be written.
    #[error("cannot write {file}: {why}")]
    Write {
        /// Its name.
        file: String,
        /// The system's words.
        why: std::io::Error,
    },
    /// A checkpoint that was inspected is not whole.
    #[error("the checkpoint is not whole: {0}")]
    NotWhole(String),
    /// A folder's questions can't be read.
    #[error("cannot read the questions {file}: {why}")]
    Questions {
        /// Their file.
        file: String,
        /// What was expected, or the system's words.
        why: String,
    },
    /// A figure can't be drawn.
    #[error("cannot draw the figure: {0}")]
    Chart(String),
    /// A fixture is missing or broken.
    #[error(transparent)]
    Fixture(#[from] FixtureError),
    /// A report of `fovea conformance` can't be read.
    #[error("cannot read the report {file}: {why}")]
    Report {
        /// Its name.
        file: String,
        /// What was expected, or the system's words.
        why: String,
    },
    /// A device does not compute what it should.
    #[error("not conformant: {0}")]
    NotConformant(String),
    /// A panic below: a lost device, or a defect.
    #[error("the engine stopped without an answer: {0}")]
    Panic(String),
}

impl Failure {
    /// The sentence of a caught panic.
    pub fn from_panic(panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        Self::Panic(text.unwrap_or("an unknown fault").lines().next().unwrap_or_default().to_owned())
    }

    /// 2 usage, 3 model invalid, 4 picture invalid, 5 no adapter or missing feature, 6 out of memory by plan, 7 device
    /// lost, 130 interrupted; 1 for the rest.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Model(error) => model_code(error),
            Self::Runtime(error) => runtime_code(error),
            Self::Usage(_) => 2,
            Self::Picture { why, .. } => model_code(why),
            Self::PictureFile { .. } => 4,
            Self::NotWhole(_) => 3,
            // CubeCL panics where wgpu reports a lost device or an allocation that failed.
            Self::Panic(_) => 7,
            Self::Questions { .. } => 4,
            Self::Write { .. } | Self::Chart(_) | Self::Fixture(_) | Self::Report { .. } | Self::NotConformant(_) => 1,
        }
    }
}

fn model_code(error: &Error) -> u8 {
    match error {
        Error::Runtime(error) => runtime_code(error),
        Error::Config { .. } | Error::Tokenizer { .. } => 3,
        Error::Picture(_) => 4,
        Error::Option { .. } | Error::TooLong { .. } => 2,
        Error::Cancelled => 130,
        _ => 1,
    }
}

fn runtime_code(error: &RuntimeError) -> u8 {
    match error {
        RuntimeError::UnknownDevice { .. } => 2,
        RuntimeError::NoAdapter { .. } | RuntimeError::MissingFeature { .. } | RuntimeError::SelfTest { .. } => 5,
        RuntimeError::OutOfMemory { .. } => 6,
        RuntimeError::DeviceLost(_) => 7,
        RuntimeError::Io { .. }
        | RuntimeError::NoCheckpoint { .. }
        | RuntimeError::WeightFile { .. }
        | RuntimeError::Tensor { .. } => 3,
        _ => 1,
    }
}
