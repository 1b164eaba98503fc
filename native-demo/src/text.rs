//! Words and numbers as people read them, and the ways to stdout and stderr.

use std::io::{self, Write};

pub use fovea_model::words::{bytes, duration, harmless};

use crate::failure::Failure;

/// Writes to stdout. Whoever reads it may have closed it: an error with a sentence, not a panic.
pub fn out(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let written = write(&mut stdout).and_then(|()| stdout.flush());
    written.map_err(|why| Failure::Write { file: "stdout".into(), why })
}

/// Writes a line to stderr. Where nobody reads it, nobody misses it: it is never why a command fails.
pub fn note(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// One line, whatever a file's names have put into it: line breaks and other control characters as escapes.
pub fn line(text: &str) -> String {
    let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(shown).collect()
}
