//! What can go wrong on the way to a folder, or in serving it.

use std::{
    io,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
};

use crate::TARGET;

/// An error of the bundle, with what was expected and what came.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// Rust has no standard library for wasm.
    #[error("expected Rust's target {TARGET} in `{folder}`, found none: `rustup target add {TARGET}`")]
    NoTarget {
        /// Where rustc says that it would be.
        folder: String,
    },
    /// A program can't be started.
    #[error("expected to start `{command}`, got: {why}")]
    Start {
        /// It and its arguments.
        command: String,
        /// The system's words.
        why: io::Error,
    },
    /// A program failed; why, it said itself on stderr.
    #[error("expected `{command}` to succeed, got {status}")]
    Failed {
        /// It and its arguments.
        command: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// Cargo succeeded without a wasm file.
    #[error("expected cargo to make a wasm file of {library}, got none: is it a cdylib?")]
    NoModule {
        /// The library.
        library: &'static str,
    },
    /// wasm-bindgen can't take the module.
    #[error("expected wasm-bindgen to take {}, got: {why}", module.display())]
    Bind {
        /// The module.
        module: PathBuf,
        /// Its words.
        why: String,
    },
    /// A file can't be read or written.
    #[error("{}: {why}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The system's words.
        why: io::Error,
    },
    /// The folder is too heavy.
    #[error("expected everything but weights to have at most {most} bytes after gzip, got {got}")]
    Heavy {
        /// What is allowed.
        most: u64,
        /// What there is.
        got: u64,
    },
    /// The port can't be had.
    #[error("expected to listen on 127.0.0.1:{port}, got: {why}")]
    Listen {
        /// The port; 0 stands for any.
        port: u16,
        /// The system's words.
        why: io::Error,
    },
}

impl BundleError {
    pub(crate) fn start(command: &Command, why: io::Error) -> Self {
        Self::Start { command: words(command), why }
    }

    pub(crate) fn failed(command: &Command, status: ExitStatus) -> Self {
        Self::Failed { command: words(command), status }
    }

    pub(crate) fn file(path: &Path, why: io::Error) -> Self {
        Self::File { path: path.to_owned(), why }
    }
}

/// A command as it would be typed.
fn words(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
