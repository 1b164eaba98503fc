//! Where a checkpoint's files come from, read by range and never whole: a directory, memory, or anything else that
//! can answer a range asynchronously (a browser's `Blob.slice`).
//!
//! Positional reads rather than a memory map: a tensor is read in small pieces that are converted into the buffer that it
//! will live in. The file's pages never count as this process's memory, and a file that is cut short while we read is an
//! error and not a SIGBUS.

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

use crate::{Error, hub_cache};

/// The folder of further chat templates, as Hugging Face writes them.
pub const TEMPLATES: &str = "additional_chat_templates";

/// A read under way.
pub type Reading<'a> = Pin<Box<dyn Future<Output = io::Result<()>> + 'a>>;

/// A file that can be read by range.
#[expect(clippy::len_without_is_empty, reason = "an empty file is refused by whoever parses it")]
pub trait ReadAt {
    /// Its length in bytes.
    fn len(&self) -> u64;
    /// Fills `into` with the bytes from `offset` on; an error where the file ends before.
    fn read_at<'a>(&'a self, offset: u64, into: &'a mut [u8]) -> Reading<'a>;
}

/// The files of one checkpoint, by name.
pub struct Source {
    name: String,
    files: BTreeMap<String, Found>,
}

impl Source {
    /// The checkpoint that a user names: see [`hub_cache::locate`].
    ///
    /// # Errors
    /// [`Error::NoCheckpoint`] where there is none; [`Error::Io`] where it can't be listed.
    pub fn open(given: impl AsRef<Path>) -> Result<Self, Error> {
        Self::directory(hub_cache::locate(given.as_ref())?)
    }

    /// The files of a directory, and the templates in `additional_chat_templates`; what is in other folders is not seen.
    ///
    /// A link that leads out of the directory is refused when it is read, but for the model hub's own cache layout
    /// (`snapshots/REVISION/FILE -> ../../blobs/HASH`).
    ///
    /// # Errors
    /// [`Error::Io`] where the directory can't be listed.
    pub fn directory(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let failed = |e: io::Error| Error::Io { file: path.display().to_string(), why: e.to_string() };
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

    /// Files that are in memory already.
    pub fn memory(name: &str, files: impl IntoIterator<Item = (String, Cow<'static, [u8]>)>) -> Self {
        Self::from_files(name, files.into_iter().map(|(name, bytes)| (name, Box::new(bytes) as Box<dyn ReadAt>)))
    }

    /// Files that are read in some other way.
    pub fn from_files(name: &str, files: impl IntoIterator<Item = (String, Box<dyn ReadAt>)>) -> Self {
        Self { name: name.to_owned(), files: files.into_iter().map(|(name, file)| (name, Ok(file))).collect() }
    }

    /// What to call it in messages.
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
    /// [`Error::Io`] where it is missing, unreadable or a link out.
    pub fn file(&self, file: &str) -> Result<&dyn ReadAt, Error> {
        let io = |why: String| Error::Io { file: format!("{}/{file}", self.name), why };
        match self.files.get(file) {
            Some(Ok(found)) => Ok(found.as_ref()),
            Some(Err(why)) => Err(io(why.clone())),
            None => Err(io("there is no such file".to_owned())),
        }
    }

    /// A whole small file of at most `limit` bytes, such as a config.
    ///
    /// # Errors
    /// [`Error::Io`] where it is missing, larger, or can't be read.
    pub async fn read(&self, file: &str, limit: u64) -> Result<Vec<u8>, Error> {
        let found = self.file(file)?;
        let io = |why: String| Error::Io { file: format!("{}/{file}", self.name), why };
        if found.len() > limit {
            return Err(io(format!("expected at most {limit} bytes, got {}", found.len())));
        }
        let mut bytes = vec![0; found.len() as usize];
        found.read_at(0, &mut bytes).await.map_err(|e| io(e.to_string()))?;
        Ok(bytes)
    }
}

type Found = Result<Box<dyn ReadAt>, String>;

/// The file at `path`, where it is no folder. A link is followed where `within` says that its target belongs here.
fn disk_file(path: &Path, within: impl Fn(&Path) -> bool) -> Option<Found> {
    match path.canonicalize() {
        Ok(target) if target.is_dir() => None,
        Ok(target) if within(&target) => {
            Some(DiskFile::open(&target).map(|f| Box::new(f) as Box<dyn ReadAt>).map_err(|e| e.to_string()))
        }
        Ok(target) => Some(Err(format!("it is a link out of the checkpoint, to {}", target.display()))),
        // A cache of the model hub holds links; the target comes with the download.
        Err(e) if path.is_symlink() => Some(Err(format!("its link leads nowhere ({e}); download it again"))),
        Err(e) => Some(Err(e.to_string())),
    }
}

/// The chat templates of a folder, by the names of their files.
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
            let mut file = self.file.lock().map_err(|_| io::Error::other("a read of this file failed before"))?;
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
