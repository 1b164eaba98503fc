//! A line of `fovea chat`. Input: the text of a line. Output: a question or a command.

use std::{
    env,
    path::{Path, PathBuf},
};

use fovea_model::Compression;
use fovea_terminal::{failure::Failure, options};

/// Names, values and meanings of the commands.
pub const COMMANDS: [(&str, &str, &str); 12] = [
    ("/help", "", "list the commands"),
    ("/image", "FILE...", "ask about other pictures; the conversation starts again"),
    ("/new", "", "start the conversation again, with the same pictures"),
    ("/compress", "SPEC", "use these visual tokens; without SPEC list the methods"),
    ("/system", "TEXT", "set the system message; \"\" removes it, no TEXT shows it"),
    ("/retry", "", "answer the last question again"),
    ("/undo", "", "take back the last question and its answer"),
    ("/history", "", "print the conversation"),
    ("/save", "FILE", "write the conversation: as Markdown to .md, else as JSON"),
    ("/overlay", "FILE", "write the attention overlay of the last answer as a picture"),
    ("/stats", "", "print all numbers of the last answer"),
    ("/quit", "", "leave; Ctrl-D leaves too"),
];

/// The commands as a table.
pub fn help() -> String {
    let row = |(name, value, about): &(&str, &str, &str)| format!("  {:16}  {about}", format!("{name} {value}"));
    COMMANDS.iter().map(row).collect::<Vec<_>>().join("\n")
}

/// What a line asks for.
#[derive(Debug, PartialEq)]
pub enum Line {
    /// An empty line.
    Nothing,
    /// A question to the model.
    Question(String),
    /// `/help`.
    Help,
    /// `/image FILE...`.
    Image(Vec<PathBuf>),
    /// `/new`.
    New,
    /// `/compress`, with a compression if one is given.
    Compress(Option<Compression>),
    /// `/system`, with a text if one is given; it may be empty.
    System(Option<String>),
    /// `/retry`.
    Retry,
    /// `/undo`.
    Undo,
    /// `/history`.
    History,
    /// `/save FILE`.
    Save(PathBuf),
    /// `/overlay FILE`.
    Overlay(PathBuf),
    /// `/stats`.
    Stats,
    /// `/quit`.
    Quit,
}

impl Line {
    /// Reads a line. A command begins with a slash; after a space, a slash is text.
    ///
    /// # Errors
    /// [`Failure::Usage`] for an unknown command, and for a command with the wrong values.
    pub fn read(line: &str) -> Result<Self, Failure> {
        let text = line.trim();
        if text.is_empty() {
            return Ok(Self::Nothing);
        }
        if !line.starts_with('/') {
            return Ok(Self::Question(text.to_owned()));
        }
        let (name, value) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let value = value.trim();
        let plain = match name {
            "/image" => return Ok(Self::Image(files(name, value)?)),
            "/save" => return Ok(Self::Save(file(name, value)?)),
            "/overlay" => return Ok(Self::Overlay(file(name, value)?)),
            "/compress" => {
                let read = |why: String| wrong(format!("{name}: {why}"));
                let given = (!value.is_empty()).then(|| options::compression(value));
                return Ok(Self::Compress(given.transpose().map_err(read)?));
            }
            "/system" => {
                let given = (!value.is_empty()).then(|| if value == "\"\"" { String::new() } else { value.to_owned() });
                return Ok(Self::System(given));
            }
            "/help" => Self::Help,
            "/new" => Self::New,
            "/retry" => Self::Retry,
            "/undo" => Self::Undo,
            "/history" => Self::History,
            "/stats" => Self::Stats,
            "/quit" | "/exit" | "/bye" => Self::Quit,
            _ if Path::new(text).is_file() => {
                return Err(wrong(format!(
                    "expected a command, got the file {text}; `/image {text}` shows it to the model"
                )));
            }
            _ => {
                let names: Vec<&str> = COMMANDS.iter().map(|row| row.0).collect();
                let names = names.join(", ");
                return Err(wrong(format!(
                    "expected one of {names}, got {}; a question that begins with / needs a space before it",
                    name.chars().take(64).collect::<String>()
                )));
            }
        };
        if value.is_empty() { Ok(plain) } else { Err(wrong(format!("expected nothing after {name}, got {value}"))) }
    }
}

fn wrong(why: String) -> Failure {
    Failure::Usage(why)
}

fn file(name: &str, value: &str) -> Result<PathBuf, Failure> {
    let mut files = files(name, value)?;
    match (files.pop(), files.len() + 1) {
        (Some(file), 1) => Ok(file),
        (_, count) => {
            Err(wrong(format!("expected one file after {name}, got {count}; put quotes around a name with spaces")))
        }
    }
}

fn files(name: &str, value: &str) -> Result<Vec<PathBuf>, Failure> {
    let words = words(value).ok_or_else(|| wrong(format!("expected a closing quote after {name}, got none")))?;
    if words.is_empty() {
        return Err(wrong(format!("expected a file after {name}, got nothing")));
    }
    if words.iter().any(|word| word == "-") {
        return Err(wrong(format!("expected a file after {name}, got -, which is not supported here")));
    }
    Ok(words.iter().map(|word| path(word)).collect())
}

/// A path; `~/` is the user's folder.
fn path(word: &str) -> PathBuf {
    match (word.strip_prefix("~/"), env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(word),
    }
}

/// The words of `text`, as a shell splits them: quotes and backslashes keep spaces. In Windows, a backslash is part of a
/// path. None: a quote is not closed.
fn words(text: &str) -> Option<Vec<String>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '"' || c == '\'' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None if c.is_whitespace() => words.extend(word.take()),
            Some('\'') => word.get_or_insert_default().push(c),
            _ if c == '\\' && !cfg!(windows) => word.get_or_insert_default().push(chars.next().unwrap_or(c)),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

/// What the user typed at the prompt as one text: without `"""` around it, and without a backslash before a line break.
pub fn joined(typed: &str) -> String {
    let block = typed.trim().strip_prefix(BLOCK).map(|rest| rest.strip_suffix(BLOCK).unwrap_or(rest));
    block.map_or_else(|| typed.replace("\\\n", "\n"), str::to_owned)
}

/// Whether the text continues in the next line: after a backslash, or in a block that is not closed.
pub fn continues(typed: &str) -> bool {
    match typed.trim().strip_prefix(BLOCK) {
        Some(rest) => !rest.ends_with(BLOCK),
        None => typed.ends_with('\\'),
    }
}

/// Begins and ends a text of several lines.
const BLOCK: &str = "\"\"\"";

#[cfg(test)]
mod tests {
    use fovea_terminal::text;

    use super::*;

    #[test]
    fn a_line_is_a_question_or_a_command() {
        let files = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        for (line, expected) in [
            ("", Line::Nothing),
            ("  \t", Line::Nothing),
            (" What is this? ", Line::Question("What is this?".into())),
            (" /etc is a folder", Line::Question("/etc is a folder".into())),
            ("/help", Line::Help),
            ("/quit ", Line::Quit),
            ("/bye", Line::Quit),
            ("/image a.png  'b c.png' \"d'e.png\"", Line::Image(files(&["a.png", "b c.png", "d'e.png"]))),
            ("/save\ta.json", Line::Save("a.json".into())),
            ("/compress", Line::Compress(None)),
            ("/compress none", Line::Compress(Some(Compression::none()))),
            ("/system", Line::System(None)),
            ("/system \"\"", Line::System(Some(String::new()))),
            ("/system Be  short.", Line::System(Some("Be  short.".into()))),
        ] {
            let got = Line::read(line).unwrap_or_else(|why| panic!("{line}: {why}"));
            assert_eq!(got, expected, "{line:?} (got, expected)");
        }
        if cfg!(unix) {
            assert_eq!(words(r"a\ b c\\"), Some(vec!["a b".to_owned(), "c\\".to_owned()]), "(got, expected)");
        }
    }

    #[test]
    fn a_wrong_command_says_what_is_expected() {
        for (line, word) in [
            ("/sing", "expected one of /help, /image"),
            ("/", "got /;"),
            ("/image", "expected a file after /image"),
            ("/image 'a", "expected a closing quote"),
            ("/image -", "got -"),
            ("/save a b", "expected one file after /save, got 2"),
            ("/save", "expected a file after /save"),
            ("/compress audio", "/compress: expected"),
            ("/undo twice", "expected nothing after /undo, got twice"),
        ] {
            let why = Line::read(line).expect_err(line);
            assert!(why.exit_code() == 2 && why.to_string().contains(word), "{line}: expected {word:?}, got {why}");
        }
    }

    #[test]
    fn a_text_of_several_lines_is_joined() {
        for (typed, open, text) in [
            ("one", false, "one"),
            ("one\\", true, "one\\"),
            ("one\\\ntwo", false, "one\ntwo"),
            ("\"\"\"", true, ""),
            ("\"\"\"one\n", true, "one"),
            ("\"\"\"one\ntwo\"\"\"", false, "one\ntwo"),
            ("say \"\"\"", false, "say \"\"\""),
        ] {
            assert_eq!(continues(typed), open, "{typed:?}: whether it continues (got, expected)");
            assert_eq!(joined(typed).trim(), text, "{typed:?} (got, expected)");
        }
    }

    #[test]
    fn the_help_fits_into_a_terminal_and_names_every_command() {
        assert!(help().lines().all(|line| line.chars().count() <= text::COLUMNS), "{}", help());
        for (name, value, _) in COMMANDS {
            let line = if value.starts_with("FILE") { format!("{name} a.png") } else { name.to_owned() };
            assert!(Line::read(&line).is_ok(), "{line}: expected a command");
        }
    }
}
