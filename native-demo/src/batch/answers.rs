//! The file of answers. Input: the file of an earlier run, if there is one, and one line per request. Output: the same file with
//! the lines that are missing.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use fovea_terminal::failure::Failure;
use serde_json::Value;

use super::lines::{Input, Line, Lines};

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
            return Err(refused(path, "expected that no other run writes it; wait for that run, or choose another name"));
        }
        let mut answers = Self { path: path.to_owned(), file, lines: 0, errors: 0 };
        let end = if restart { answers.check_own()? } else { answers.keep(input)? };
        answers.file.set_len(end).and_then(|()| answers.file.seek(SeekFrom::Start(end))).map_err(failed)?;
        Ok(answers)
    }

    /// Writes a line. Nothing is buffered, so an earlier line is never lost.
    ///
    /// # Errors
    /// [`Failure::Write`].
    pub fn write(&mut self, line: &Value) -> Result<(), Failure> {
        self.file.write_all(format!("{line}\n").as_bytes()).map_err(|why| self.failed(why))?;
        self.count(line);
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
            if !line.complete && !line.too_long {
                // The end of a run that was killed. Any other file is left alone.
                return if line.bytes.starts_with(b"{") { Ok(end) } else { Err(self.foreign(line.number)) };
            }
            let answer = read(&line).ok_or_else(|| self.foreign(line.number))?;
            let Some(request) = input.next_line()? else {
                let why = format!("expected at most {}, got more; {NEXT}", answers(self.lines));
                return Err(refused(&self.path, &why));
            };
            if answer["line"] != request.number || answer["of"] != request.hash() {
                let (number, got) = (request.number, &answer["line"]);
                let why = format!(
                    "line {}: expected the answer to line {number} of the input, got one to line {got} or to another text; {NEXT}",
                    line.number
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
            Some(line) if line.complete && read(&line).is_none() => Err(self.foreign(1)),
            Some(line) if !line.complete && !line.bytes.starts_with(b"{") => Err(self.foreign(1)),
            _ => Ok(0),
        }
    }

    /// A second handle, to read from the beginning.
    fn handle(&self) -> Result<impl Read + use<>, Failure> {
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

fn answers(lines: usize) -> String {
    fovea_terminal::text::counted(lines, "answer")
}

fn refused(path: &Path, why: &str) -> Failure {
    Failure::Usage(format!("{}: {why}", path.display()))
}
