//! A server on its bad days: it has one checkpoint, and what it sends of the weights is cut, broken, held back, or more than was
//! asked for. Each trouble comes once, when a chunk is asked for the first time; then that chunk is sent as it should be.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, ErrorKind, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use fovea_web_bundle::{
    MANIFEST, manifest,
    serve::{Call, Method, Reply},
};

use crate::checkpoint::WEIGHTS;

/// What can go wrong with a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The connection ends in the middle.
    Cut,
    /// A bit in the middle is another.
    Broken,
    /// The second half does not come, until the browser leaves.
    Held,
    /// The range is ignored: the whole file comes, from its start.
    Whole,
}

/// How long the second half is held back at most, in waits of the server's own patience, 20 seconds.
const WAITS: usize = 6;

/// The server of one checkpoint.
pub struct Unreliable {
    folder: PathBuf,
    chunk: u64,
    manifest: String,
    seen: Mutex<Seen>,
}

struct Seen {
    /// What is still to go wrong, by chunk.
    troubles: BTreeMap<u64, Trouble>,
    /// How many requests for weights began in each chunk.
    asked: BTreeMap<u64, usize>,
}

impl Unreliable {
    /// Serves the files of `folder`, and a manifest with chunks of `chunk` bytes.
    ///
    /// # Panics
    /// Where the folder can't be read.
    pub fn new(folder: &Path, chunk: u64, troubles: impl IntoIterator<Item = (u64, Trouble)>) -> Self {
        let manifest = manifest(folder, chunk).unwrap_or_else(|e| panic!("expected a checkpoint, got: {e}"));
        let seen = Seen { troubles: troubles.into_iter().collect(), asked: BTreeMap::new() };
        Self { folder: folder.to_owned(), chunk, manifest: manifest.to_string(), seen: Mutex::new(seen) }
    }

    /// The answer to a request for the file `name`.
    pub fn answer(&self, call: &Call, name: &str) -> Reply {
        if name == MANIFEST {
            return Reply::Json(self.manifest.clone());
        }
        // Only files that lie here; a name with a slash is none.
        let here = Path::new(name).file_name().is_some_and(|file| file == name);
        let Some(bytes) = fs::read(self.folder.join(name)).ok().filter(|_| here) else { return Reply::Missing };
        let trouble = if name == WEIGHTS && call.method == Method::Get { self.trouble(call) } else { None };
        let call = call.clone();
        Reply::Raw(Box::new(move |line| send(line, &call, &bytes, trouble)))
    }

    /// How many requests for weights began in each chunk, from the first to the last that has any.
    pub fn asked(&self) -> Vec<usize> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let last = seen.asked.keys().last().map_or(0, |last| last + 1);
        (0..last).map(|chunk| seen.asked.get(&chunk).copied().unwrap_or(0)).collect()
    }

    /// Notes a request, and tells what goes wrong with it.
    fn trouble(&self, call: &Call) -> Option<Trouble> {
        let chunk = call.range.map_or(0, |(first, _)| first / self.chunk);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        *seen.asked.entry(chunk).or_default() += 1;
        seen.troubles.remove(&chunk)
    }
}

fn send(line: &mut TcpStream, call: &Call, bytes: &[u8], trouble: Option<Trouble>) -> io::Result<()> {
    let all = bytes.len() as u64;
    let (status, first, end) = match call.range {
        Some((first, last)) if trouble != Some(Trouble::Whole) => {
            let end = last.map_or(all, |last| all.min(last.saturating_add(1)));
            ("206 Partial Content", first.min(end), end)
        }
        _ => ("200 OK", 0, all),
    };
    let mut body = bytes[first as usize..end as usize].to_vec();
    let half = body.len() / 2;
    write!(line, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nETag: \"fixture\"\r\n", body.len())?;
    if status.starts_with("206") {
        write!(line, "Content-Range: bytes {first}-{}/{all}\r\n", end.saturating_sub(1))?;
    }
    write!(line, "Content-Type: application/octet-stream\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n")?;
    if call.method == Method::Head {
        return Ok(());
    }
    match trouble {
        Some(Trouble::Cut) => line.write_all(&body[..half]),
        Some(Trouble::Held) => {
            line.write_all(&body[..half])?;
            wait_until_gone(line)
        }
        Some(Trouble::Broken) => {
            body[half] ^= 1;
            line.write_all(&body)
        }
        Some(Trouble::Whole) | None => line.write_all(&body),
    }
}

/// Waits for the other side to close the connection.
fn wait_until_gone(line: &mut TcpStream) -> io::Result<()> {
    for _ in 0..WAITS {
        match line.read(&mut [0]) {
            Err(why) if matches!(why.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            gone => return gone.map(|_| ()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::fixtures;

    #[test]
    fn each_trouble_comes_once_and_all_requests_are_counted() {
        let server = Unreliable::new(&fixtures().join("tiny-0"), 1000, [(1, Trouble::Cut), (3, Trouble::Whole)]);
        let get = |first, last| Call {
            method: Method::Get,
            path: String::new(),
            range: Some((first, Some(last))),
            body: String::new(),
        };
        assert_eq!(server.trouble(&get(1000, 1999)), Some(Trouble::Cut));
        assert_eq!(server.trouble(&get(1500, 1999)), None);
        assert_eq!(server.trouble(&get(3000, 3999)), Some(Trouble::Whole));
        assert_eq!(server.asked(), [0, 2, 0, 1]);
        for none in ["none.json", "../tiny-1/config.json", ".."] {
            assert!(matches!(server.answer(&get(0, 9), none), Reply::Missing), "{none}");
        }
    }
}
