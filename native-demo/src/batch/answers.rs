//! The file of answers. Input: the file of an earlier run, if there is one, and one line per request. Output: the same file with
//! the lines that are missing.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, BufReader, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use fovea_terminal::{failure::Failure, text};
use serde_json::Value;

use super::{
    lines::{Input, Line, Lines},
    reply::{Reply, head},
};

/// The file of answers, which no other process writes.
pub struct Answers {
    path: PathBuf,
    file: File,
    /// Number of lines.
    pub lines: usize,
    /// Number of lines with an error.
    pub errors: usize,
}

impl Answers {
    /// Opens the file, removes a last line that was cut, and moves `input` behind the lines that have an answer. With
    /// `restart` the file is emptied instead.
    ///
    /// # Errors
    /// [`Failure::Usage`] where the answers belong to another input, where the file was not written by this command, and
    /// where another process writes it; [`Failure::Write`] where the system refuses.
    pub fn open(path: &Path, restart: bool, input: &mut Input) -> Result<Self, Failure> {
        let failed = |why: io::Error| Failure::Write { file: path.display().to_string(), why };
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = opened.map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(failed(io::Error::other("it is not a file; name a file, which can be resumed")));
        }
        // A file system without locks is no error.
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            return Err(refused(
                path,
                "expected that no other run writes it; wait for that run, or choose another name",
            ));
        }
        let mut answers = Self { path: path.to_owned(), file, lines: 0, errors: 0 };
        let end = if restart { answers.check_own()? } else { answers.keep(input)? };
        answers.file.set_len(end).and_then(|()| answers.file.seek(SeekFrom::Start(end))).map_err(failed)?;
        Ok(answers)
    }

    /// Writes the line of `reply` with the object `rest`. Nothing is buffered, so an earlier line is never lost.
    ///
    /// # Errors
    /// [`Failure::Write`].
    pub fn write(&mut self, reply: &Reply, rest: &Value) -> Result<(), Failure> {
        // One object: the head, and the rest without its opening brace.
        let line = head(reply.line, &reply.of) + &rest.to_string()[1..] + "\n";
        self.file.write_all(line.as_bytes()).map_err(|why| self.failed(why))?;
        self.count(rest);
        Ok(())
    }

    fn count(&mut self, line: &Value) {
        self.lines += 1;
        self.errors += usize::from(!line["error"].is_null());
    }

    fn failed(&self, why: io::Error) -> Failure {
        Failure::Write { file: self.path.display().to_string(), why }
    }

    /// Compares the complete lines with the input, and returns the position after them.
    fn keep(&mut self, input: &mut Input) -> Result<u64, Failure> {
        const NEXT: &str = "use the input of the first run, choose another name, or begin again with --restart";
        let mut lines = Lines::new(BufReader::new(self.handle()?));
        let mut end = 0;
        while let Some(line) = lines.next_line().map_err(|why| self.failed(why))? {
            let Some(request) = input.next_line()? else {
                let why = format!("expected at most {}, got more; {NEXT}", text::counted(self.lines, "line"));
                return Err(refused(&self.path, &why));
            };
            if !line.complete && is_cut(&line.bytes, &head(request.number, &request.hash())) {
                input.put_back(request);
                break;
            }
            let answer = match read(&line) {
                Some(answer) => answer,
                // The beginning of an answer to another text.
                None if !line.complete && is_cut(&line.bytes, "{\"line\":") => Value::Null,
                None => return Err(self.foreign(line.number)),
            };
            if answer["line"] != request.number || answer["of"] != request.hash() {
                let why = format!(
                    "line {}: expected the answer to line {} of the input, got one to another line or another text; {NEXT}",
                    line.number, request.number
                );
                return Err(refused(&self.path, &why));
            }
            self.count(&answer);
            end = line.end;
        }
        Ok(end)
    }

    /// Checks that an earlier run has written the file, before it is emptied. Returns the new length.
    fn check_own(&self) -> Result<u64, Failure> {
        let first = Lines::new(BufReader::new(self.handle()?)).next_line().map_err(|why| self.failed(why))?;
        match first {
            Some(line) if read(&line).is_none() && (line.complete || !is_cut(&line.bytes, "{\"line\":")) => {
                Err(self.foreign(1))
            }
            _ => Ok(0),
        }
    }

    /// A second handle, to read from the beginning.
    fn handle(&self) -> Result<File, Failure> {
        self.file.try_clone().map_err(|why| self.failed(why))
    }

    fn foreign(&self, line: u64) -> Failure {
        let why = format!("line {line}: expected an answer of `fovea batch`, got something else; choose another name");
        refused(&self.path, &why)
    }
}

/// An answer, if the line is one.
fn read(line: &Line) -> Option<Value> {
    let answer: Value = serde_json::from_slice(&line.bytes).ok()?;
    (answer["line"].is_u64() && answer["of"].is_string()).then_some(answer)
}

/// Whether a line that was cut begins with `head`. Only such a line is removed: any other file is left as it is.
fn is_cut(line: &[u8], head: &str) -> bool {
    line.starts_with(head.as_bytes()) || head.as_bytes().starts_with(line)
}

fn refused(path: &Path, why: &str) -> Failure {
    Failure::Usage(format!("{}: {why}", path.display()))
}
