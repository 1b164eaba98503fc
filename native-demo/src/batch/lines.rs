//! Reads a large file line by line. Input: a file. Output: the number, the bytes and the hash of each line.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use fovea_terminal::failure::Failure;
use sha2::{Digest, Sha256};

/// Longest line, bytes.
pub const LONGEST: usize = 64 << 20;

/// A line.
pub struct Line {
    /// Its number, from 1.
    pub number: u64,
    /// Its bytes without the line break. A line that is longer than [`LONGEST`] is cut.
    pub bytes: Vec<u8>,
    /// Whether it is longer than [`LONGEST`].
    pub too_long: bool,
    /// Whether it ends with a line break.
    pub complete: bool,
    /// Position in the file after it.
    pub end: u64,
}

impl Line {
    /// The first 16 hexadecimal digits of its SHA-256.
    pub fn hash(&self) -> String {
        let mut hash = format!("{:x}", Sha256::digest(&self.bytes));
        hash.truncate(16);
        hash
    }
}

/// The lines of `from`.
pub struct Lines<R> {
    from: R,
    number: u64,
    end: u64,
}

impl<R: BufRead> Lines<R> {
    pub fn new(from: R) -> Self {
        Self { from, number: 0, end: 0 }
    }

    /// The next line; None at the end.
    ///
    /// # Errors
    /// Those of `from`.
    pub fn next_line(&mut self) -> io::Result<Option<Line>> {
        let mut bytes = Vec::new();
        let read = self.from.by_ref().take(LONGEST as u64 + 1).read_until(b'\n', &mut bytes)?;
        if read == 0 {
            return Ok(None);
        }
        let complete = bytes.last() == Some(&b'\n');
        let too_long = !complete && read > LONGEST;
        let rest = if too_long { self.from.skip_until(b'\n')? } else { 0 };
        for end in [b'\n', b'\r'] {
            bytes.pop_if(|last| *last == end);
        }
        // A byte order mark is not part of the first line.
        if self.number == 0 && bytes.starts_with(b"\xef\xbb\xbf") {
            bytes.drain(..3);
        }
        self.number += 1;
        self.end += (read + rest) as u64;
        Ok(Some(Line { number: self.number, bytes, too_long, complete, end: self.end }))
    }
}

/// One of several equal shares of the lines: `index`, from 1, of `count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    index: u64,
    count: u64,
}

impl Shard {
    /// All lines.
    pub const WHOLE: Self = Self { index: 1, count: 1 };

    /// Reads `I/N`.
    ///
    /// # Errors
    /// What is expected.
    pub fn read(text: &str) -> Result<Self, String> {
        let numbers = text
            .split_once('/')
            .and_then(|(index, count)| Some((index.parse::<u64>().ok()?, count.parse::<u64>().ok()?)));
        let within = numbers.filter(|&(index, count)| (1..=count).contains(&index) && count <= 1_000_000);
        let (index, count) = within.ok_or("expected I/N with I from 1 to N, such as 1/4")?;
        Ok(Self { index, count })
    }

    fn has(self, line: u64) -> bool {
        (line - 1) % self.count == self.index - 1
    }

    /// How many of `lines` lines it has.
    fn lines(self, lines: u64) -> u64 {
        (lines + self.count - self.index) / self.count
    }
}

/// The lines of the input that belong to a shard.
pub struct Input {
    path: PathBuf,
    lines: Lines<BufReader<File>>,
    shard: Shard,
    /// A line that was put back.
    next: Option<Line>,
}

impl Input {
    /// # Errors
    /// [`Failure::Questions`] where `path` is not a file that can be read.
    pub fn open(path: &Path, shard: Shard) -> Result<Self, Failure> {
        let file = open(path).map_err(|why| failed(path, &why))?;
        Ok(Self { path: path.to_owned(), lines: Lines::new(BufReader::new(file)), shard, next: None })
    }

    /// The number of all lines of the shard.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn count(&self) -> Result<u64, Failure> {
        let count = || -> io::Result<u64> {
            let mut from = BufReader::new(open(&self.path)?);
            let mut lines = 0;
            while from.skip_until(b'\n')? > 0 {
                lines += 1;
            }
            Ok(lines)
        };
        count().map(|lines| self.shard.lines(lines)).map_err(|why| failed(&self.path, &why))
    }

    /// The next line of the shard; None at the end.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn next_line(&mut self) -> Result<Option<Line>, Failure> {
        if let Some(line) = self.next.take() {
            return Ok(Some(line));
        }
        loop {
            match self.lines.next_line().map_err(|why| failed(&self.path, &why))? {
                Some(line) if !self.shard.has(line.number) => {}
                line => return Ok(line),
            }
        }
    }

    /// Makes `line` the next line again.
    pub fn put_back(&mut self, line: Line) {
        self.next = Some(line);
    }
}

/// A file that can be read twice.
fn open(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("expected a file with one request per line"))
    }
}

fn failed(path: &Path, why: &io::Error) -> Failure {
    Failure::Questions { file: path.display().to_string(), why: why.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &[u8]) -> Vec<Line> {
        let mut lines = Lines::new(bytes);
        std::iter::from_fn(|| lines.next_line().expect("bytes in memory")).collect()
    }

    #[test]
    fn lines_have_numbers_positions_and_hashes() {
        let read = lines(b"\xef\xbb\xbfabc\r\n\nabc");
        let parts: Vec<_> = read.iter().map(|l| (l.number, l.bytes.as_slice(), l.complete, l.end)).collect();
        assert_eq!(
            parts,
            [(1, &b"abc"[..], true, 8), (2, &b""[..], true, 9), (3, &b"abc"[..], false, 12)],
            "(got, expected)"
        );
        // By sha256sum.
        assert_eq!(read[0].hash(), "ba7816bf8f01cfea", "hash (got, expected)");
        assert_eq!(read[2].hash(), read[0].hash(), "hash without a line break (got, expected)");
        assert!(lines(b"").is_empty());
    }

    #[test]
    fn a_line_that_is_too_long_is_cut_and_the_next_one_is_read() {
        let mut bytes = vec![b'a'; LONGEST];
        bytes.extend(b"\n");
        bytes.extend(vec![b'b'; LONGEST + 9]);
        bytes.extend(b"\nlast\n");
        let read = lines(&bytes);
        let parts: Vec<_> = read.iter().map(|l| (l.too_long, l.bytes.len(), l.end)).collect();
        let all = bytes.len() as u64;
        let expected = [(false, LONGEST, LONGEST as u64 + 1), (true, LONGEST + 1, all - 5), (false, 4, all)];
        assert_eq!(parts, expected, "(got, expected)");
    }

    #[test]
    fn shards_have_each_line_once() {
        let shards = [1, 2, 3].map(|index| Shard { index, count: 3 });
        for lines in 0..8 {
            for shard in shards {
                let has = (1..=lines).filter(|&line| shard.has(line)).count() as u64;
                assert_eq!(shard.lines(lines), has, "{shard:?} of {lines} lines (got, expected)");
            }
        }
        assert!((1..9).all(|line| shards.iter().filter(|shard| shard.has(line)).count() == 1));
        assert_eq!(Shard::read("2/3"), Ok(shards[1]));
        for wrong in ["", "1", "0/2", "3/2", "1/0", "-1/2", "1/2/3", "a/b", "1/9999999"] {
            assert!(Shard::read(wrong).is_err_and(|why| why.contains("such as 1/4")), "{wrong}");
        }
    }
}
