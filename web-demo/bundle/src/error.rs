//! Errors of building and serving the page.

use std::{
    io,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
};

use crate::TARGET;

/// An error of the bundle, with the expected and the actual value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// Rust has no standard library for wasm.
    #[error("expected Rust's target {TARGET} in `{folder}`, found none: run `rustup target add {TARGET}`")]
    NoTarget {
        /// The folder that rustc reports.
        folder: String,
    },
    /// A program could not be started.
    #[error("expected to start `{command}`, got: {why}")]
    Start {
        /// The program and its arguments.
        command: String,
        /// The system's error.
        why: io::Error,
    },
    /// A program failed; it wrote the reason to stderr.
    #[error("expected `{command}` to succeed, got {status}")]
    Failed {
        /// The program and its arguments.
        command: String,
        /// Its exit status.
        status: ExitStatus,
    },
    /// Cargo succeeded, but made no wasm file.
    #[error("expected a wasm file of {library} from cargo, got none: its crate type must be cdylib")]
    NoModule {
        /// The library.
        library: &'static str,
    },
    /// wasm-bindgen could not process the module.
    #[error("expected wasm-bindgen to process {}, got: {why}", module.display())]
    Bind {
        /// The module.
        module: PathBuf,
        /// wasm-bindgen's error.
        why: String,
    },
    /// Browsers without relaxed SIMD could not load the module.
    #[error("expected {} to be valid without relaxed SIMD, got: {why}", module.display())]
    Relaxed {
        /// The module.
        module: PathBuf,
        /// What is not valid.
        why: String,
    },
    /// A file could not be read or written.
    #[error("{}: {why}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        why: io::Error,
    },
    /// The folder is too large.
    #[error("expected at most {most} bytes after gzip, without weights, got {got}")]
    TooLarge {
        /// The limit in bytes.
        most: u64,
        /// The size in bytes.
        got: u64,
    },
    /// The port is not available.
    #[error("expected to listen on 127.0.0.1:{port}, got: {why}; choose another port")]
    Listen {
        /// The port; 0 is any free one.
        port: u16,
        /// The system's error.
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

/// A command as it is typed in a shell.
fn words(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
