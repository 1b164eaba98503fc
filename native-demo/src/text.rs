//! Words and numbers as people read them, and the ways to stdout and stderr.

use std::io::{self, Write};

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

/// An answer for a terminal: what is neither a line break, a tab nor visible could steer it, and shows as U+FFFD.
pub fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && !matches!(c, '\n' | '\t') { '\u{fffd}' } else { c }).collect()
}

/// Bytes with a unit.
pub fn bytes(n: u64) -> String {
    match n {
        0..1024 => format!("{n} B"),
        1024..1_048_576 => format!("{:.1} KiB", n as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", n as f64 / 1_048_576.0),
        _ => format!("{:.2} GiB", n as f64 / 1_073_741_824.0),
    }
}

/// Milliseconds, or seconds from one second on.
pub fn duration(ms: f64) -> String {
    if ms < 1000.0 { format!("{ms:.0} ms") } else { format!("{:.2} s", ms / 1e3) }
}
