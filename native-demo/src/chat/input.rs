//! Reads the lines of `fovea chat`: at a prompt with an editor, or from a pipe or a file. Output: one text per line.

use std::{
    cell::Cell,
    fs,
    io::{self, BufRead, IsTerminal, Read, StdinLock},
    path::{Path, PathBuf},
};

use fovea_model::METHODS;
use fovea_terminal::{failure::Failure, load::Interrupts, text};
use rustyline::{
    Behavior, CompletionType, Config, Context, Editor, Helper,
    completion::{Completer, FilenameCompleter, Pair},
    error::ReadlineError,
    highlight::Highlighter,
    hint::Hinter,
    history::DefaultHistory,
    validate::{ValidationContext, ValidationResult, Validator},
};

use super::command::{COMMANDS, continues, joined};

/// Longest line of a pipe, bytes: the longest question.
const LONGEST: usize = 1 << 20;

/// Number of lines in the history file.
const HISTORY: usize = 1000;

/// Where the lines come from.
pub enum Input {
    /// A terminal; the editor, and the file of its history.
    Prompt(Box<Editor<Assist, DefaultHistory>>, Option<PathBuf>),
    /// Lines without an editor, and how many were read.
    Lines(StdinLock<'static>, u64),
}

impl Input {
    /// Standard input. With `history`, lines that were typed earlier are read from the user's data folder.
    ///
    /// # Errors
    /// [`Failure::Questions`] where the terminal can't be used.
    pub fn open(history: bool) -> Result<Self, Failure> {
        if !io::stdin().is_terminal() {
            return Ok(Self::Lines(io::stdin().lock(), 0));
        }
        // Where the answers go to a file, the prompt does not.
        let behavior = if io::stdout().is_terminal() { Behavior::Stdio } else { Behavior::PreferTerm };
        let config = Config::builder().completion_type(CompletionType::List).behavior(behavior);
        let config = config.max_history_size(HISTORY).map_err(|why| unreadable(&why))?.build();
        let mut editor = Editor::with_config(config).map_err(|why| unreadable(&why))?;
        editor.set_helper(Some(Assist::default()));
        let mut file = history.then(history_file).flatten();
        if let Some(path) = &file
            && let Err(why) = read_history(&mut editor, path)
        {
            text::note(&format!("note: no history of lines: {}: {why}", path.display()));
            file = None;
        }
        Ok(Self::Prompt(Box::new(editor), file))
    }

    /// Whether a person types the lines.
    pub fn is_prompt(&self) -> bool {
        matches!(self, Self::Prompt(..))
    }

    /// The next line; None at the end. A line that is not a text is an inner error, after which the next line follows.
    ///
    /// # Errors
    /// [`Failure::Questions`] where standard input can't be read.
    pub fn next(&mut self, interrupts: &Interrupts) -> Result<Option<Result<String, Failure>>, Failure> {
        match self {
            Self::Prompt(editor, file) => {
                // The editor reads Ctrl-C as a key. A signal from elsewhere would end the program in the editor's mode.
                interrupts.begin();
                typed(editor, file.as_deref()).map(|line| line.map(Ok))
            }
            Self::Lines(from, number) => {
                interrupts.end();
                *number += 1;
                let failed =
                    |why: io::Error| Failure::Questions { file: "standard input".into(), why: why.to_string() };
                piped(from, *number).map_err(failed)
            }
        }
    }
}

fn unreadable(why: &ReadlineError) -> Failure {
    Failure::Questions { file: "from the terminal".into(), why: why.to_string() }
}

/// A line of the editor; None after Ctrl-D.
fn typed(editor: &mut Editor<Assist, DefaultHistory>, history: Option<&Path>) -> Result<Option<String>, Failure> {
    loop {
        match editor.readline("> ") {
            Ok(line) => {
                if !line.trim().is_empty() && editor.add_history_entry(line.as_str()).unwrap_or(false) {
                    // A full disk does not end the conversation.
                    let _ = history.map(|file| editor.append_history(file));
                }
                return Ok(Some(joined(&line)));
            }
            // Ctrl-C clears a line.
            Err(ReadlineError::Interrupted) if editor.helper().is_some_and(|assist| assist.has_text.get()) => {}
            Err(ReadlineError::Interrupted) => text::error("Press Ctrl-D or type /quit to leave."),
            Err(ReadlineError::Eof) => return Ok(None),
            Err(ReadlineError::Signal(_)) => {}
            Err(why) => return Err(unreadable(&why)),
        }
    }
}

/// A line of a pipe without its line break; None at the end.
fn piped(from: &mut impl BufRead, number: u64) -> io::Result<Option<Result<String, Failure>>> {
    let mut bytes = Vec::new();
    // Two bytes more, for the line break.
    if from.by_ref().take(LONGEST as u64 + 2).read_until(b'\n', &mut bytes)? == 0 {
        return Ok(None);
    }
    let cut = bytes.last() != Some(&b'\n') && bytes.len() == LONGEST + 2;
    for end in [b'\n', b'\r'] {
        bytes.pop_if(|last| *last == end);
    }
    if cut || bytes.len() > LONGEST {
        if cut {
            from.skip_until(b'\n')?;
        }
        let why = format!("line {number}: expected at most {LONGEST} bytes, got more; ask a shorter question");
        return Ok(Some(Err(Failure::Usage(why))));
    }
    // A byte order mark is not part of the first line.
    if number == 1 && bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    let wrong = |_| Failure::Usage(format!("line {number}: expected text in UTF-8, got other bytes"));
    Ok(Some(String::from_utf8(bytes).map_err(wrong)))
}

/// The file of the lines that were typed earlier, such as `~/.local/share/fovea/chat_history`.
fn history_file() -> Option<PathBuf> {
    directories::ProjectDirs::from("", "", "fovea").map(|dirs| dirs.data_local_dir().join("chat_history"))
}

/// Reads the history. The editor writes it so that only its owner can read it.
fn read_history(editor: &mut Editor<Assist, DefaultHistory>, file: &Path) -> Result<(), ReadlineError> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    if file.try_exists()? { editor.load_history(file) } else { Ok(()) }
}

/// What the editor does while a line is typed.
#[derive(Default)]
pub struct Assist {
    files: FilenameCompleter,
    /// Whether the line that is typed has text.
    has_text: Cell<bool>,
}

impl Helper for Assist {}

impl Highlighter for Assist {}

/// Shows no hints. The editor calls it with every change of the line.
impl Hinter for Assist {
    type Hint = String;

    fn hint(&self, line: &str, _: usize, _: &Context<'_>) -> Option<String> {
        self.has_text.set(!line.is_empty());
        None
    }
}

/// Enter ends a line, unless its text continues.
impl Validator for Assist {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let open = continues(context.input());
        Ok(if open { ValidationResult::Incomplete } else { ValidationResult::Valid(None) })
    }
}

/// Tab completes commands, files and methods of compression.
impl Completer for Assist {
    type Candidate = Pair;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let before = &line[..at];
        let named = |names: &mut dyn Iterator<Item = &'static str>, start: &str, end: &str| {
            let found = names.filter(|name| name.starts_with(start));
            let pair = |name: &str| Pair { display: name.to_owned(), replacement: format!("{name}{end}") };
            found.map(pair).collect::<Vec<_>>()
        };
        let Some((command, _)) = before.split_once(char::is_whitespace) else {
            let commands = &mut COMMANDS.iter().map(|row| row.0);
            return Ok((0, if before.starts_with('/') { named(commands, before, " ") } else { Vec::new() }));
        };
        match command {
            "/image" | "/save" | "/overlay" => {
                let (start, mut files) = self.files.complete_path(line, at)?;
                // Control characters in a name could control the terminal.
                files.retain(|file| !file.replacement.contains(char::is_control));
                Ok((start, files))
            }
            "/compress" => {
                let start = before.rfind([' ', '\t', '+']).map_or(at, |separator| separator + 1);
                let methods = &mut ["none", "focus"].into_iter().chain(METHODS.iter().map(|row| row.name));
                Ok((start, named(methods, &before[start..], "")))
            }
            _ => Ok((at, Vec::new())),
        }
    }
}

#[cfg(test)]
mod tests {
    use rustyline::history::DefaultHistory;

    use super::*;

    #[test]
    fn lines_of_a_pipe_are_texts_or_errors() {
        let mut bytes = b"\xef\xbb\xbfone\r\n\n\xff\n".to_vec();
        for length in [LONGEST, LONGEST + 1, LONGEST + 2, 3 * LONGEST] {
            bytes.extend(vec![b'a'; length]);
            bytes.extend(b"\n");
        }
        bytes.extend(b"last");
        let mut from = bytes.as_slice();
        let mut read = Vec::new();
        while let Some(line) = piped(&mut from, read.len() as u64 + 1).expect("bytes in memory") {
            read.push(line.map_err(|why| (why.exit_code(), why.to_string())));
        }
        let error = |number: usize, what: &str| Err((2, format!("line {number}: expected {what}")));
        let long = "at most 1048576 bytes, got more; ask a shorter question";
        let expected = [
            Ok("one".to_owned()),
            Ok(String::new()),
            error(3, "text in UTF-8, got other bytes"),
            Ok("a".repeat(LONGEST)),
            error(5, long),
            error(6, long),
            error(7, long),
            Ok("last".to_owned()),
        ];
        assert!(read == expected, "expected other lines, got {:?}", read.iter().map(Result::is_ok).collect::<Vec<_>>());
    }

    #[test]
    fn tab_completes_commands_files_and_methods() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("picture.png"), "").expect("a file");
        let file = folder.path().join("pic");
        let history = DefaultHistory::new();
        let assist = Assist::default();
        let complete = |line: &str| {
            let (start, pairs) = assist.complete(line, line.len(), &Context::new(&history)).expect("candidates");
            pairs.into_iter().map(|pair| format!("{}{}", &line[..start], pair.replacement)).collect::<Vec<_>>()
        };
        assert_eq!(complete("/hel"), ["/help "], "(got, expected)");
        assert_eq!(complete("/h"), ["/help ", "/history "], "(got, expected)");
        assert_eq!(complete("/compress fast"), ["/compress faster-vlm", "/compress fastv"], "(got, expected)");
        assert_eq!(complete("/compress vision+pyr"), ["/compress vision+pyramid-drop"], "(got, expected)");
        assert!(complete("What").is_empty() && complete("/new x").is_empty() && complete("").is_empty());
        if cfg!(unix) {
            let line = format!("/image {}", file.display());
            assert_eq!(complete(&line), [format!("{line}ture.png")], "(got, expected)");
        }
    }
}
