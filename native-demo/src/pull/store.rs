//! The hub's cache: a file of the hub in, a complete file with the right size and hash in the cache out.
//!
//! The layout and the locks are those of `huggingface_hub`, so Python can use the same cache at the same time. The paths
//! are from the crate `hf-hub`. Its own download is not used: it checks no size and no hash, and appends the whole file
//! to a part where the server ignores the range.

#[cfg(unix)]
use std::os::unix::fs::symlink;
#[cfg(windows)]
use std::os::windows::fs::symlink_file as symlink;
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    path::{self, Path, PathBuf},
    thread,
};

use fovea_terminal::{failure::Failure, text};
use hf_hub::{Cache, CacheRepo, Repo};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use ureq::{
    Body,
    http::{Response, StatusCode},
};

use super::{
    files::is_weights,
    hub::{Hub, Remote, TRIES, Trouble, header, pause, short},
};

/// Bytes per read.
const PIECE: usize = 1 << 18;
/// After so many bytes a download has its full number of tries again.
const PROGRESS: u64 = 1 << 20;

/// What of a file is in the cache.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// All of it.
    Whole,
    /// A file of the right size with another hash.
    Wrong,
    /// So many bytes are missing.
    Missing(u64),
}

/// One commit of a repository in the cache.
pub struct Store {
    repo: CacheRepo,
    locks: PathBuf,
    commit: String,
    /// Whether weights that are in the cache are hashed.
    check: bool,
}

impl Store {
    /// The folder is created with the first file. `hf-hub` itself does not read HF_HUB_CACHE.
    pub fn new(cache: PathBuf, repo: &Repo, commit: &str, check: bool) -> Self {
        let cache = path::absolute(&cache).unwrap_or(cache);
        let locks = cache.join(".locks").join(repo.folder_name());
        Self { repo: Cache::new(cache).repo(repo.clone()), locks, commit: commit.to_owned(), check }
    }

    /// The folder of the commit's files.
    pub fn folder(&self) -> PathBuf {
        self.repo.pointer_path(&self.commit)
    }

    /// Bytes that the user can write to the disk of the cache; None where the system does not report it.
    pub fn free_space(&self) -> Option<u64> {
        #[cfg(unix)]
        {
            let folder = self.folder();
            let disk = rustix::fs::statvfs(folder.ancestors().find(|folder| folder.exists())?).ok()?;
            disk.f_bavail.checked_mul(disk.f_frsize)
        }
        #[cfg(not(unix))]
        {
            None
        }
    }

    /// What of a file is in the cache. Small files are hashed, weights only where the store checks them.
    pub fn state(&self, file: &Remote) -> State {
        let there = [self.folder().join(&file.name), self.repo.blob_path(&file.etag)];
        match there.iter().find(|path| length(path) == Some(file.size)) {
            Some(path) if self.is_right(path, file) => State::Whole,
            Some(_) => State::Wrong,
            None => {
                // A part that is too long, or that cannot be checked at the end, is not used.
                let part = length(&self.part(file)).filter(|part| *part <= file.size && Hash::new(file).is_known());
                State::Missing(file.size - part.unwrap_or(0))
            }
        }
    }

    /// Whether a file in the cache has the size that the hub announces, and the hash where it is compared.
    fn is_right(&self, path: &Path, file: &Remote) -> bool {
        if length(path) != Some(file.size) {
            return false;
        }
        if is_weights(&file.name) {
            if !self.check {
                return true;
            }
            text::note(&format!("note: comparing {} in the cache with its hash", file.name));
        }
        let mut hash = Hash::new(file);
        let read = File::open(path).and_then(|mut bytes| io::copy(&mut bytes, &mut hash));
        read.is_ok() && hash.unlike(file).is_none()
    }

    /// Downloads what is missing of a file, and puts it in place. `moved` gets the number of bytes that are there.
    ///
    /// # Errors
    /// [`Failure::Network`] where the download fails; [`Failure::Write`] where the cache can't be written.
    pub fn fetch(&self, hub: &Hub, file: &Remote, state: State, moved: impl Fn(u64)) -> Result<(), Failure> {
        let (blob, pointer) = (self.repo.blob_path(&file.etag), self.folder().join(&file.name));
        if state == State::Whole && length(&pointer) == Some(file.size) {
            return Ok(());
        }
        for folder in [blob.parent(), pointer.parent(), Some(self.locks.as_path())].into_iter().flatten() {
            fs::create_dir_all(folder).map_err(|why| not_written(folder, why))?;
        }
        let _lock = self.lock(file)?;
        // Another process may have downloaded the file while this one waited.
        if !self.is_right(&blob, file) {
            for wrong in [&pointer, &blob] {
                remove(wrong).map_err(|why| not_written(wrong, why))?;
            }
            let part = self.part(file);
            self.download(hub, file, &part, moved)?;
            fs::rename(&part, &blob).map_err(|why| not_written(&blob, why))?;
        }
        link(&blob, &pointer, file).map_err(|why| not_written(&pointer, why))
    }

    /// Makes `revision` the name of this commit. Called last: until then it is the name of an older, complete commit.
    ///
    /// # Errors
    /// [`Failure::Write`].
    pub fn name_revision(&self, revision: &str) -> Result<(), Failure> {
        if revision == self.commit {
            return Ok(());
        }
        self.repo.create_ref(&self.commit).map_err(|why| not_written(&self.folder(), why))
    }

    /// What is downloaded so far, under the name that `hf-hub` gives it.
    fn part(&self, file: &Remote) -> PathBuf {
        self.repo.blob_path(&format!("{}.part", file.etag))
    }

    /// Waits until no other process, of this program or of Python, downloads the file. None where the disk has no
    /// locks.
    fn lock(&self, file: &Remote) -> Result<Option<File>, Failure> {
        let path = self.locks.join(format!("{}.lock", file.etag));
        let lock = File::create(&path).map_err(|why| not_written(&path, why))?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(lock)),
            Err(TryLockError::WouldBlock) => {
                text::note(&format!("note: another process downloads {}; waiting for it", file.name));
                lock.lock().map_err(|why| not_written(&path, why))?;
                Ok(Some(lock))
            }
            Err(TryLockError::Error(_)) => Ok(None),
        }
    }

    /// Completes the part and checks its hash. A wrong file is removed, and downloaded once more from scratch: an earlier
    /// run may have left a wrong part.
    fn download(&self, hub: &Hub, file: &Remote, path: &Path, moved: impl Fn(u64)) -> Result<(), Failure> {
        let failed = |why| not_written(path, why);
        let mut again = false;
        loop {
            let mut part = Part::open(file, path).map_err(failed)?;
            self.complete(hub, &mut part, &moved)?;
            let Part { out, hash, .. } = part;
            let Some(wrong) = hash.unlike(file) else { return out.sync_all().map_err(failed) };
            drop(out);
            remove(path).map_err(failed)?;
            let name = &file.name;
            if again {
                let next = "the file is removed, run the same command again later";
                return Err(Failure::Network(format!("{name}: {wrong}; {next}")));
            }
            text::note(&format!("note: {name}: {wrong}; downloading it again"));
            again = true;
        }
    }

    /// Downloads what is missing of a part, resumed where the connection is cut.
    fn complete(&self, hub: &Hub, part: &mut Part<'_>, moved: impl Fn(u64)) -> Result<(), Failure> {
        let file = part.file;
        let (mut tries, mut from) = (0, part.at);
        while part.at < file.size {
            let response = hub.download(&self.commit, &file.name, part.at);
            match response.and_then(|response| part.receive(response, &moved)) {
                Ok(()) => {}
                Err(Trouble::Failed(failure)) => return Err(failure),
                Err(Trouble::Cut(why)) => {
                    if part.at >= from + PROGRESS {
                        (tries, from) = (0, part.at);
                    }
                    if tries == TRIES {
                        let (at, size) = (text::bytes(part.at), text::bytes(file.size));
                        let why = format!("{}: cut at {at} of {size}: {why}; the same command resumes it", file.name);
                        return Err(Failure::Network(why));
                    }
                    thread::sleep(pause(tries));
                    tries += 1;
                }
            }
        }
        Ok(())
    }
}

/// The hash by which the hub names a file.
enum Hash {
    /// Of a large file.
    Sha256(Sha256),
    /// Of another: git's blob id.
    Git(Sha1),
    /// A hub that is not Hugging Face's can have other names. Such a file is not checked.
    Unknown,
}

impl Hash {
    /// Before the first byte.
    fn new(file: &Remote) -> Self {
        match file.etag.len() {
            _ if !file.etag.bytes().all(|byte| byte.is_ascii_hexdigit()) => Self::Unknown,
            64 => Self::Sha256(Sha256::new()),
            40 => Self::Git(Sha1::new_with_prefix(format!("blob {}\0", file.size))),
            _ => Self::Unknown,
        }
    }

    fn is_known(&self) -> bool {
        !matches!(self, Self::Unknown)
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Git(hash) => hash.update(bytes),
            Self::Unknown => {}
        }
    }

    /// What is expected and what is there, after the last byte. None where both are equal.
    fn unlike(self, file: &Remote) -> Option<String> {
        let (kind, got) = match self {
            Self::Sha256(hash) => ("SHA-256", format!("{:x}", hash.finalize())),
            Self::Git(hash) => ("git blob id", format!("{:x}", hash.finalize())),
            Self::Unknown => return None,
        };
        let expected = &file.etag;
        (!expected.eq_ignore_ascii_case(&got)).then(|| format!("expected the {kind} {expected}, got {got}"))
    }
}

impl Write for Hash {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file that is being downloaded, and the hash of its bytes.
struct Part<'a> {
    file: &'a Remote,
    path: &'a Path,
    out: File,
    hash: Hash,
    at: u64,
}

impl<'a> Part<'a> {
    /// Opens the part that an earlier run has left, or an empty one.
    fn open(file: &'a Remote, path: &'a Path) -> io::Result<Self> {
        let mut out = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut hash = Hash::new(file);
        let at = io::copy(&mut out, &mut hash)?;
        let mut part = Self { file, path, out, hash, at };
        // Without a hash, nothing would show that the part is from another file.
        if part.at > file.size || !part.hash.is_known() {
            part.restart()?;
        }
        Ok(part)
    }

    fn restart(&mut self) -> io::Result<()> {
        self.out.set_len(0)?;
        self.out.rewind()?;
        (self.hash, self.at) = (Hash::new(self.file), 0);
        Ok(())
    }

    /// Writes the bytes of a response.
    fn receive(&mut self, response: Response<Body>, moved: impl Fn(u64)) -> Result<(), Trouble> {
        let (file, path) = (self.file, self.path);
        let size = file.size;
        let wrong = |expected: String, got: &str| {
            Trouble::Failed(Failure::Network(format!("{}: expected {expected} from the hub, got {got}", file.name)))
        };
        let failed = |why: io::Error| Trouble::Failed(not_written(path, why));
        if response.status() == StatusCode::PARTIAL_CONTENT {
            let (start, end) = (format!("bytes {}-", self.at), format!("/{size}"));
            let range = header(response.headers(), "content-range").unwrap_or("no range");
            if !(range.starts_with(&start) && range.ends_with(&end)) {
                return Err(wrong(format!("{start}{}{end}", size - 1), &short(range)));
            }
        } else if self.at > 0 {
            // The server ignores the range and sends the whole file.
            self.restart().map_err(failed)?;
        }
        let missing = size - self.at;
        if let Some(length) = response.body().content_length().filter(|length| *length != missing) {
            return Err(wrong(format!("{missing} bytes"), &length.to_string()));
        }
        let mut body = response.into_body().into_reader();
        let mut piece = vec![0; PIECE];
        loop {
            let n = body.read(&mut piece).map_err(|why| Trouble::Cut(why.to_string()))?;
            if n as u64 > size - self.at {
                self.restart().map_err(failed)?;
                return Err(wrong(format!("{size} bytes"), "more"));
            }
            if n == 0 {
                return if self.at == size {
                    Ok(())
                } else {
                    Err(Trouble::Cut("the connection was closed".to_owned()))
                };
            }
            self.out.write_all(&piece[..n]).map_err(failed)?;
            self.hash.update(&piece[..n]);
            self.at += n as u64;
            moved(self.at);
        }
    }
}

/// The size of a file; None where there is none.
fn length(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().filter(fs::Metadata::is_file).map(|file| file.len())
}

/// A relative link to the file. As in `hf-hub`, the file itself is moved where Windows forbids links.
fn link(blob: &Path, pointer: &Path, file: &Remote) -> io::Result<()> {
    // A link without its file, or a wrong file.
    remove(pointer)?;
    let mut target = PathBuf::new();
    for _ in 0..2 + file.name.matches('/').count() {
        target.push("..");
    }
    target.push("blobs");
    target.push(&file.etag);
    match symlink(target, pointer) {
        Err(_) if cfg!(windows) => fs::rename(blob, pointer),
        linked => linked,
    }
}

/// Removes a file or a link, if it is there.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => Err(why),
        _ => Ok(()),
    }
}

fn not_written(path: &Path, why: io::Error) -> Failure {
    Failure::Write { file: path.display().to_string(), why }
}
