//! Every error of a command, with the exit code that scripts can rely on.

use std::panic::Location;

use fovea_model::{Error, ErrorKind};
use fovea_runtime::Error as RuntimeError;

use crate::panics;

/// Why a command ended without its result.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// An error of the model.
    #[error(transparent)]
    Model(#[from] Error),
    /// An error of the device or of the weights.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The arguments contradict each other, or one is out of range.
    #[error("{0}")]
    Usage(String),
    /// The file of a picture can't be read.
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
    /// A file, or stdout, can't be written.
    #[error("cannot write {file}: {why}")]
    Write {
        /// Its name.
        file: String,
        /// The system's words.
        why: std::io::Error,
    },
    /// The reader of stdout has closed it. Not an error for the user: the command ends without a message.
    #[error("stdout is closed")]
    OutputClosed,
    /// An inspected checkpoint does not run: something is missing or broken.
    #[error("the checkpoint does not run: {0}")]
    NotWhole(String),
    /// The questions of a folder can't be read.
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
    #[error("{0}")]
    Fixture(String),
    /// Lines of `fovea batch` have errors.
    #[error("{0}")]
    Lines(String),
    /// Errors that were printed when they happened, with the exit code of the first one.
    #[error("there were errors")]
    Reported(u8),
    /// A report of `fovea conformance` can't be read.
    #[error("cannot read the report {file}: {why}")]
    Report {
        /// Its name.
        file: String,
        /// What was expected, or the system's words.
        why: String,
    },
    /// A device computes wrong values.
    #[error("not conformant: {0}")]
    NotConformant(String),
    /// A download failed: the hub can't be reached, refuses, or sends something else than it announced.
    #[error("{0}")]
    Network(String),
    /// No window can be opened.
    #[error("no window can be opened: {0}; `fovea ask PICTURE QUESTION` works without one")]
    NoWindow(String),
    /// A panic, or another defect: `at FILE:LINE: TEXT`.
    #[error("internal error {0}; please report it")]
    Panic(String),
}

impl Failure {
    /// A defect of the program, with the caller's file and line.
    #[track_caller]
    pub fn internal(text: &str) -> Self {
        Self::Panic(panics::located(Some(Location::caller()), text))
    }

    /// 0 where stdout was closed, 2 usage, 3 invalid checkpoint, 4 invalid picture, 5 no adapter, missing feature or no
    /// window, 6 not enough memory by plan, 7 device lost or internal error, 8 a failed download, 130 interrupted; 1
    /// for the rest.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Model(error) => code(error.kind()),
            Self::Runtime(error) => code(ErrorKind::of_runtime(error)),
            Self::OutputClosed => 0,
            Self::Reported(code) => *code,
            Self::Usage(_) => 2,
            Self::Picture { why, .. } => code(why.kind()),
            Self::NotWhole(_) => 3,
            Self::PictureFile { .. } | Self::Questions { .. } => 4,
            Self::NoWindow(_) => 5,
            // CubeCL panics where wgpu reports a lost device or an allocation that failed.
            Self::Panic(_) => 7,
            Self::Network(_) => 8,
            Self::Write { .. }
            | Self::Chart(_)
            | Self::Fixture(_)
            | Self::Lines(_)
            | Self::Report { .. }
            | Self::NotConformant(_) => 1,
        }
    }
}

fn code(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Option | ErrorKind::TooLong => 2,
        ErrorKind::Checkpoint => 3,
        ErrorKind::Picture => 4,
        ErrorKind::Device => 5,
        ErrorKind::Memory => 6,
        ErrorKind::DeviceLost => 7,
        ErrorKind::Stopped => 130,
        _ => 1,
    }
}
