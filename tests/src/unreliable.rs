//! An unreliable server with one checkpoint. Its responses for the weights are cut, corrupted, stalled, or ignore the range. Each
//! trouble happens once, at the first request for its chunk; later requests are answered correctly.

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
    serve::{Method, Reply, Request},
};

use crate::checkpoint::WEIGHTS;

/// What goes wrong with a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The connection closes in the middle.
    Cut,
    /// A bit in the middle is flipped.
    Corrupt,
    /// The second half is not sent, until the browser closes the connection.
    Stall,
    /// The range is ignored: the whole file is sent.
    Whole,
}

/// Longest stall, in read timeouts of the server (20 seconds each).
const STALL: usize = 6;

/// An unreliable server of one checkpoint.
pub struct Unreliable {
    folder: PathBuf,
    chunk: u64,
    manifest: String,
    seen: Mutex<Seen>,
}

struct Seen {
    /// Troubles that have not happened yet, by chunk.
    troubles: BTreeMap<u64, Trouble>,
    /// Number of requests for weights that began in each chunk.
    asked: BTreeMap<u64, usize>,
}

impl Unreliable {
    /// Serves the files of `folder`, and a manifest with chunks of `chunk` bytes.
    ///
    /// # Panics
    /// If the folder can't be read.
    pub fn new(folder: &Path, chunk: u64, troubles: impl IntoIterator<Item = (u64, Trouble)>) -> Self {
        let manifest = manifest(folder, chunk).unwrap_or_else(|e| panic!("expected a checkpoint, got: {e}"));
        let seen = Seen { troubles: troubles.into_iter().collect(), asked: BTreeMap::new() };
        Self { folder: folder.to_owned(), chunk, manifest: manifest.to_string(), seen: Mutex::new(seen) }
    }

    /// The response to a request for the file `name`.
    pub fn answer(&self, request: &Request, name: &str) -> Reply {
        if name == MANIFEST {
            return Reply::Json(self.manifest.clone());
        }
        // Only files of this folder: a name with a slash is refused.
        let here = Path::new(name).file_name().is_some_and(|file| file == name);
        let Some(bytes) = fs::read(self.folder.join(name)).ok().filter(|_| here) else { return Reply::Missing };
        let trouble = if name == WEIGHTS && request.method == Method::Get { self.trouble(request) } else { None };
        let request = request.clone();
        Reply::Raw(Box::new(move |stream| send(stream, &request, &bytes, trouble)))
    }

    /// Number of requests for weights that began in each chunk, up to the last chunk with a request.
    pub fn asked(&self) -> Vec<usize> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let last = seen.asked.keys().last().map_or(0, |last| last + 1);
        (0..last).map(|chunk| seen.asked.get(&chunk).copied().unwrap_or(0)).collect()
    }

    /// Counts a request, and returns its trouble.
    fn trouble(&self, request: &Request) -> Option<Trouble> {
        let chunk = request.range.map_or(0, |(first, _)| first / self.chunk);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        *seen.asked.entry(chunk).or_default() += 1;
        seen.troubles.remove(&chunk)
    }
}

fn send(stream: &mut TcpStream, request: &Request, bytes: &[u8], trouble: Option<Trouble>) -> io::Result<()> {
    let all = bytes.len() as u64;
    let (status, first, end) = match request.range {
        Some((first, last)) if trouble != Some(Trouble::Whole) => {
            let end = last.map_or(all, |last| all.min(last.saturating_add(1)));
            ("206 Partial Content", first.min(end), end)
        }
        _ => ("200 OK", 0, all),
    };
    let mut body = bytes[first as usize..end as usize].to_vec();
    let half = body.len() / 2;
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nETag: \"fixture\"\r\n", body.len())?;
    if status.starts_with("206") {
        write!(stream, "Content-Range: bytes {first}-{}/{all}\r\n", end.saturating_sub(1))?;
    }
    write!(stream, "Content-Type: application/octet-stream\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n")?;
    if request.method == Method::Head {
        return Ok(());
    }
    match trouble {
        Some(Trouble::Cut) => stream.write_all(&body[..half]),
        Some(Trouble::Stall) => {
            stream.write_all(&body[..half])?;
            wait_for_close(stream)
        }
        Some(Trouble::Corrupt) => {
            body[half] ^= 1;
            stream.write_all(&body)
        }
        Some(Trouble::Whole) | None => stream.write_all(&body),
    }
}

/// Waits until the client closes the connection.
fn wait_for_close(stream: &mut TcpStream) -> io::Result<()> {
    for _ in 0..STALL {
        match stream.read(&mut [0]) {
            Err(why) if matches!(why.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            closed => return closed.map(|_| ()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::fixtures;

    #[test]
    fn each_trouble_happens_once_and_all_requests_are_counted() {
        let server = Unreliable::new(&fixtures().join("tiny-0"), 1000, [(1, Trouble::Cut), (3, Trouble::Whole)]);
        let get = |first, last| Request {
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
