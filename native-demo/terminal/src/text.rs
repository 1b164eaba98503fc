//! Lines on stdout and stderr, and progress bars.

use std::{
    env,
    io::{self, ErrorKind, IsTerminal, Write},
    sync::atomic::{AtomicBool, Ordering},
};

pub use fovea_overlay::words::{apart, bytes, duration, harmless, percent};
use indicatif::{ProgressBar, ProgressStyle};

use crate::failure::Failure;

/// Longest line of a report, a table or the numbers after an answer, in characters: the width of a terminal. A note is one
/// line of any length, so that programs can read it.
pub const COLUMNS: usize = 80;

/// Whether `--quiet` was given: a setting of the process, as the log is.
static QUIET: AtomicBool = AtomicBool::new(false);

/// Turns notes and progress bars off.
pub(crate) fn be_quiet() {
    QUIET.store(true, Ordering::Relaxed);
}

fn is_quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// Writes to stdout.
///
/// # Errors
/// [`Failure::OutputClosed`] where the reader has closed it, as `| head -1` does; [`Failure::Write`] for the rest.
pub fn out(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let written = write(&mut stdout).and_then(|()| stdout.flush());
    written.map_err(|why| match why.kind() {
        ErrorKind::BrokenPipe => Failure::OutputClosed,
        _ => Failure::Write { file: "stdout".into(), why },
    })
}

/// Writes a line to stderr, unless `--quiet` was given. A closed stderr is no error.
pub fn note(line: &str) {
    if !is_quiet() {
        error(line);
    }
}

/// Writes a line to stderr, also with `--quiet`. A closed stderr is no error.
pub fn error(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// `text` in a weaker color, where stderr is a terminal that has colors.
pub fn dim(text: &str) -> String {
    let plain =
        env::var_os("NO_COLOR").is_some_and(|set| !set.is_empty()) || env::var_os("TERM").is_some_and(|t| t == "dumb");
    if io::stderr().is_terminal() && !plain { format!("\x1b[2m{text}\x1b[0m") } else { text.to_owned() }
}

/// `text` as one line: line breaks and other control characters, which a file may contain, are escaped, and so are those that
/// change the direction of a text.
pub fn line(text: &str) -> String {
    let hidden = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let shown = |c: char| if hidden(c) { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(shown).collect()
}

/// A progress bar on stderr; hidden where stderr is not a terminal, and with `--quiet`.
///
/// `template` is indicatif's. It must fit into 80 columns: a longer line wraps and is not erased.
pub fn progress_bar(template: &str) -> ProgressBar {
    let shown = io::stderr().is_terminal() && !is_quiet();
    let bar = if shown { ProgressBar::new(0) } else { ProgressBar::hidden() };
    // Templates are constants; if indicatif refuses one, its default style is used.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

/// A number and a noun: `1 token`, `2 tokens`.
pub fn counted(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// `parts` with ` | ` between them, in lines of at most [`COLUMNS`]. A longer part has its own line.
pub fn wrapped(parts: &[String]) -> String {
    let (mut lines, mut line) = (String::new(), String::new());
    for part in parts {
        if line.is_empty() {
            line.clone_from(part);
        } else if line.chars().count() + 3 + part.chars().count() <= COLUMNS {
            line = format!("{line} | {part}");
        } else {
            lines = format!("{lines}{line}\n");
            line.clone_from(part);
        }
    }
    lines + &line
}

#[cfg(test)]
mod tests {
    use super::{COLUMNS, counted, line, wrapped};

    #[test]
    fn a_line_has_no_character_that_is_not_seen() {
        assert_eq!(line("a\nb\u{1b}[2J\u{202e}c\u{2066}\u{e4}"), "a\\nb\\u{1b}[2J\\u{202e}c\\u{2066}\u{e4}");
    }

    #[test]
    fn parts_fit_into_a_terminal() {
        let part = |n: usize| "x".repeat(n);
        assert_eq!(wrapped(&[part(3), part(3)]), "xxx | xxx");
        let lines = wrapped(&[part(50), part(27), part(40), part(40), part(5)]);
        assert_eq!(lines.lines().map(str::len).collect::<Vec<_>>(), [80, 40, 48]);
        assert!(lines.lines().all(|line| line.len() <= COLUMNS));
        assert_eq!((counted(1, "token"), counted(2, "token")), ("1 token".to_owned(), "2 tokens".to_owned()));
    }
}
