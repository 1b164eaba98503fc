//! The files of a checkpoint: a name and a byte range in, bytes out. Files are in a directory, in memory, or behind any
//! asynchronous read of a range (`Blob.slice` of a browser).
//!
//! Reads at a position, not a memory map: a tensor is read in small pieces, which are converted into its final buffer.
//! The pages of the file do not count as memory of this process, and a file that is truncated during a read is an
//! error, not a SIGBUS.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs,
    future::Future,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
    pin::Pin,
    sync::Mutex,
};

use crate::{error::Error, gguf, hub_cache, weights::Weights};

/// The folder with more chat templates, as Hugging Face writes it.
pub const TEMPLATES: &str = "additional_chat_templates";

/// A read in progress.
pub type Reading<'a> = Pin<Box<dyn Future<Output = io::Result<()>> + 'a>>;

/// A file that can be read by range.
#[expect(clippy::len_without_is_empty, reason = "the parsers refuse an empty file")]
pub trait ReadAt {
    /// Its length in bytes.
    fn len(&self) -> u64;
    /// Fills `into` with the bytes from `offset` on; an error where the file is too short.
    fn read_at<'a>(&'a self, offset: u64, into: &'a mut [u8]) -> Reading<'a>;
}

/// The files of one checkpoint, by name.
pub struct Source {
    name: String,
    files: BTreeMap<String, Found>,
}

impl Source {
    /// The checkpoint at the path or name that a user gives: see [`hub_cache::locate`]. Of several GGUF files,
    /// `CHECKPOINT:NAME` or `CHECKPOINT:NAME,NAME` names the text model and the mmproj file: see [`gguf::choose`]. Other
    /// files are then left out.
    ///
    /// # Errors
    /// [`Error::NoCheckpoint`] where there is none, or where the GGUF files are not clear; [`Error::Io`] where it can't
    /// be listed.
    pub fn open(given: impl AsRef<Path>) -> Result<Self, Error> {
        let given = given.as_ref();
        let mut source = Self::directory(hub_cache::locate(given)?)?;
        let (checkpoint, wanted) = hub_cache::split(given);
        let files: Vec<&str> = source.files().filter(|file| gguf::is_gguf(file)).collect();
        if wanted.is_empty() && (files.len() <= 2 || Weights::present(&source)) {
            return Ok(source);
        }
        let chosen = gguf::choose(&files, &wanted).map(|two| two.map(str::to_owned)).map_err(|why| {
            let (checkpoint, all) = (checkpoint.display(), files.join(", "));
            let why = format!(
                "{why}; the GGUF files are [{all}]; choose with {checkpoint}:NAME, where NAME is the name of a file or its \
                 quantisation, such as Q4_K_M"
            );
            Error::NoCheckpoint { given: given.display().to_string(), why }
        })?;
        source.files.retain(|name, _| chosen.contains(name));
        Ok(source)
    }

    /// The files of a directory, and the templates in `additional_chat_templates`. Other folders are ignored.
    ///
    /// A link to a file outside the directory is an error when the file is read. The links of the hub's cache
    /// (`snapshots/REVISION/FILE -> ../../blobs/HASH`) are allowed.
    ///
    /// # Errors
    /// [`Error::Io`] where the directory can't be listed.
    pub fn directory(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let failed = |e: io::Error| Error::Io { file: path.display().to_string(), source: e };
        let root = path.canonicalize().map_err(failed)?;
        let blobs = root
            .parent()
            .filter(|p| p.ends_with("snapshots"))
            .and_then(|p| p.parent())
            .and_then(|repository| repository.join("blobs").canonicalize().ok());
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(&root).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let within = |target: &Path| target.parent() == Some(&root) || blobs.as_deref() == target.parent();
            if name == TEMPLATES {
                for (file, found) in templates(&entry.path(), |target| target.starts_with(&root) || within(target)) {
                    files.insert(format!("{TEMPLATES}/{file}"), found);
                }
            } else if let Some(found) = disk_file(&entry.path(), within) {
                files.insert(name, found);
            }
        }
        Ok(Self { name: path.display().to_string(), files })
    }

    /// Files in memory.
    pub fn memory(name: &str, files: impl IntoIterator<Item = (String, Cow<'static, [u8]>)>) -> Self {
        Self::from_files(name, files.into_iter().map(|(name, bytes)| (name, Box::new(bytes) as Box<dyn ReadAt>)))
    }

    /// Files with another kind of read.
    pub fn from_files(name: &str, files: impl IntoIterator<Item = (String, Box<dyn ReadAt>)>) -> Self {
        Self { name: name.to_owned(), files: files.into_iter().map(|(name, file)| (name, Ok(file))).collect() }
    }

    /// Its name in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The files' names, sorted.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// Whether there is a file of this name.
    pub fn contains(&self, file: &str) -> bool {
        self.files.contains_key(file)
    }

    /// A file by name.
    ///
    /// # Errors
    /// [`Error::Io`] where it is missing, unreadable or a link out of the checkpoint.
    pub fn file(&self, file: &str) -> Result<&dyn ReadAt, Error> {
        match self.files.get(file) {
            Some(Ok(found)) => Ok(found.as_ref()),
            Some(Err((kind, why))) => Err(self.failed(file, io::Error::new(*kind, why.clone()))),
            None => Err(self.failed(file, io::Error::new(io::ErrorKind::NotFound, "there is no such file"))),
        }
    }

    /// All bytes of a small file of at most `limit` bytes, such as a config.
    ///
    /// # Errors
    /// [`Error::Io`] where it is missing, larger, or can't be read.
    pub async fn read(&self, file: &str, limit: u64) -> Result<Vec<u8>, Error> {
        let found = self.file(file)?;
        if found.len() > limit {
            let why = format!("expected at most {limit} bytes, got {}", found.len());
            return Err(self.failed(file, io::Error::new(io::ErrorKind::FileTooLarge, why)));
        }
        let mut bytes = vec![0; found.len() as usize];
        found.read_at(0, &mut bytes).await.map_err(|e| self.failed(file, e))?;
        Ok(bytes)
    }

    fn failed(&self, file: &str, source: io::Error) -> Error {
        Error::Io { file: format!("{}/{file}", self.name), source }
    }
}

/// A file, or why it cannot be read.
type Found = Result<Box<dyn ReadAt>, (io::ErrorKind, String)>;

/// The file at `path`; None for a folder. A link is followed where `within` accepts its target.
fn disk_file(path: &Path, within: impl Fn(&Path) -> bool) -> Option<Found> {
    let failed = |e: io::Error| (e.kind(), e.to_string());
    match path.canonicalize() {
        Ok(target) if target.is_dir() => None,
        Ok(target) if within(&target) => {
            Some(DiskFile::open(&target).map(|f| Box::new(f) as Box<dyn ReadAt>).map_err(failed))
        }
        Ok(target) => {
            let why = format!("it is a link out of the checkpoint, to {}", target.display());
            Some(Err((io::ErrorKind::PermissionDenied, why)))
        }
        // The cache of the hub contains links. After an incomplete download the target is missing.
        Err(e) if path.is_symlink() => {
            Some(Err((e.kind(), format!("its link has no target ({e}); download it again"))))
        }
        Err(e) => Some(Err(failed(e))),
    }
}

/// The chat templates in a folder, by file name.
fn templates(folder: &Path, within: impl Fn(&Path) -> bool) -> Vec<(String, Found)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let templates = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok().filter(|name| name.ends_with(".jinja"))?;
        Some((name, disk_file(&entry.path(), &within)?))
    });
    templates.collect()
}

struct DiskFile {
    file: Mutex<fs::File>,
    len: u64,
}

impl DiskFile {
    fn open(path: &Path) -> io::Result<Self> {
        let file = fs::File::open(path)?;
        let len = file.metadata()?.len();
        Ok(Self { file: Mutex::new(file), len })
    }
}

impl ReadAt for DiskFile {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at<'a>(&'a self, offset: u64, into: &'a mut [u8]) -> Reading<'a> {
        Box::pin(async move {
            let mut file = self.file.lock().map_err(|_| io::Error::other("an earlier read of this file failed"))?;
            file.seek(SeekFrom::Start(offset))?;
            file.read_exact(into)
        })
    }
}

impl ReadAt for Cow<'static, [u8]> {
    fn len(&self) -> u64 {
        self.as_ref().len() as u64
    }

    fn read_at<'a>(&'a self, offset: u64, into: &'a mut [u8]) -> Reading<'a> {
        Box::pin(async move {
            let found = usize::try_from(offset).ok().and_then(|start| self.get(start..start.checked_add(into.len())?));
            into.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }
}
