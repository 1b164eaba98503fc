//! The folder that `fovea quantize` writes. It has a temporary name beside its own until it is complete.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process,
};

use fovea_terminal::{failure::Failure, text};

/// The temporary name, before the number of the process.
const PREFIX: &str = ".fovea-quantize-";

/// Checks that `out` is new or empty, and that it can be created.
///
/// # Errors
/// [`Failure::Usage`] where `out` is something else, [`Failure::Write`] where it can't be created.
pub fn check(out: &Path) -> Result<(), Failure> {
    let shown = |path: &Path| text::line(&path.display().to_string());
    let name = shown(out);
    let refused =
        |got: String| Err(Failure::Usage(format!("expected a new or an empty folder, got {name}, which {got}")));
    let failed = |why: io::Error| Err(Failure::Write { file: name.clone(), why });
    match fs::read_dir(out).map(|mut entries| entries.next().is_some()) {
        Ok(true) => return refused("has files".to_owned()),
        Ok(false) => return Ok(()),
        Err(_) if out.is_file() => return refused("is a file".to_owned()),
        Err(why) if why.kind() == io::ErrorKind::NotADirectory => {
            return failed(io::Error::other("a part of its path is not a folder; choose another path"));
        }
        Err(why) if why.kind() != io::ErrorKind::NotFound => return failed(why),
        Err(_) => {}
    }
    // Without a `/` at the end, which would follow the link.
    let link: PathBuf = out.components().collect();
    if let Ok(target) = fs::read_link(link) {
        let target = shown(&target);
        return refused(format!("is a link to {target}, where nothing is; create that folder, or remove the link"));
    }
    let parent = parent(out);
    if parent.is_dir() {
        return Ok(());
    }
    failed(io::Error::other(format!("the folder {} does not exist; create it first", shown(parent))))
}

/// The folder in which `path` is.
fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A folder that is being written.
pub struct Folder {
    out: PathBuf,
    /// Where its files are before it is complete.
    pub beside: PathBuf,
    /// Shows other runs that this one has not ended. None where the disk has no locks.
    _lock: Option<File>,
}

impl Folder {
    /// Creates the folder with its temporary name, and removes those of killed runs.
    ///
    /// # Errors
    /// [`Failure::Write`] where the system refuses.
    pub fn new(out: &Path) -> Result<Self, Failure> {
        let out = out.canonicalize().unwrap_or_else(|_| out.to_owned());
        let parent = parent(&out);
        remove_leftovers(parent);
        let beside = parent.join(format!("{PREFIX}{}", process::id()));
        fs::create_dir(&beside).map_err(|why| {
            let why = match why.kind() {
                io::ErrorKind::AlreadyExists => {
                    let beside = beside.display();
                    io::Error::other(format!("another run writes {beside}; wait for its end, or choose another folder"))
                }
                _ => why,
            };
            Failure::Write { file: out.display().to_string(), why }
        })?;
        let lock = lock(&beside);
        Ok(Self { out, beside, _lock: lock })
    }

    /// A file, perhaps in a folder within.
    ///
    /// # Errors
    /// [`Failure::Write`] where the system refuses.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Failure> {
        let path = self.beside.join(name);
        let parent = path.parent().unwrap_or(&self.beside);
        fs::create_dir_all(parent).and_then(|()| fs::write(&path, bytes)).map_err(|why| self.failed(why))
    }

    /// The error for a file that can't be written.
    pub fn failed(&self, why: io::Error) -> Failure {
        Failure::Write { file: self.out.display().to_string(), why }
    }

    /// Gives the folder its name.
    ///
    /// # Errors
    /// [`Failure::Write`] where the system refuses.
    pub fn finish(self) -> Result<(), Failure> {
        // Not every system replaces an empty folder.
        let removed = if self.out.exists() { fs::remove_dir(&self.out) } else { Ok(()) };
        removed.and_then(|()| fs::rename(&self.beside, &self.out)).map_err(|why| self.failed(why))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // After `finish` it has another name.
        let _ = fs::remove_dir_all(&self.beside);
    }
}

/// Removes temporary folders whose process has ended: it was killed, and could not remove its own.
fn remove_leftovers(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        let number = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        let process = number.and_then(|number| number.parse().ok().filter(|id: &u32| id.to_string() == number));
        // Links and files belong to others.
        let is_ours = entry.file_type().is_ok_and(|kind| kind.is_dir()) && process.is_some_and(has_ended);
        // The lock is held by a run in another container, or on another machine, whose processes are not seen here.
        if is_ours && lock(&path).is_some() && fs::remove_dir_all(&path).is_ok() {
            text::note(&format!(
                "note: removed {}, which a killed run has left",
                text::line(&path.display().to_string())
            ));
        }
    }
}

/// Whether a process is known to have ended. This one has only just begun, so a folder with its number was left by an
/// earlier one.
fn has_ended(process: u32) -> bool {
    let listed = |id: &str| Path::new("/proc").join(id).exists();
    process == process::id() || (cfg!(target_os = "linux") && listed("self") && !listed(&process.to_string()))
}

/// Locks a folder until the process ends. None where another has locked it, or where folders cannot be locked.
fn lock(folder: &Path) -> Option<File> {
    let folder = File::open(folder).ok()?;
    folder.try_lock().is_ok().then_some(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn only_folders_of_killed_runs_are_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        // Linux has no process above 4194304, and the first is always there.
        let (ended, locked, alive) = (".fovea-quantize-4194305", ".fovea-quantize-4194306", ".fovea-quantize-1");
        let others = [
            ".fovea-quantize-04194305",
            ".fovea-quantize-x",
            ".fovea-quantize-",
            "fovea-4194305",
            ".fovea-quantize-4194305-1",
        ];
        for name in [ended, locked, alive].iter().chain(&others) {
            fs::create_dir(at(name)).expect("a folder");
            fs::write(at(name).join("model.safetensors"), "weights").expect("a file");
        }
        let _held = lock(&at(locked)).expect("a lock");
        fs::write(at(".fovea-quantize-4194307"), "a file").expect("a file");
        std::os::unix::fs::symlink(at(alive), at(".fovea-quantize-4194308")).expect("a link");
        // An earlier process had the number of this one, as in containers.
        let own = format!("{PREFIX}{}", process::id());
        fs::create_dir(at(&own)).expect("a folder");
        fs::write(at(&own).join("old"), "weights").expect("a file");

        let out = Folder::new(&at("out")).expect("a folder");
        assert_eq!(fs::read_dir(&out.beside).expect("a folder").count(), 0, "old files (got, expected)");
        assert!(!at(ended).exists(), "expected the folder of an ended process to be removed");
        for name in [locked, alive, ".fovea-quantize-4194307", ".fovea-quantize-4194308"].iter().chain(&others) {
            assert!(at(name).exists(), "expected {name} to stay");
        }
        assert!(at(alive).join("model.safetensors").exists(), "expected the files of a running process to stay");
        drop(out);
        assert!(!at(&own).exists(), "expected nothing of this run to stay");
    }

    #[test]
    fn what_cannot_be_written_is_refused_with_what_to_do() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "a file").expect("a file");
        fs::create_dir(at("empty")).expect("a folder");
        for (path, code, words) in [
            (at("no/out"), 1, "no does not exist; create it first"),
            (at("file/out"), 1, "not a folder"),
            (at("file"), 2, "which is a file"),
            (folder.path().to_owned(), 2, "which has files"),
        ] {
            let why = check(&path).expect_err("a refusal");
            assert_eq!(why.exit_code(), code, "{why}: exit code (got, expected)");
            assert!(why.to_string().contains(words), "expected {words:?}, got: {why}");
        }
        for path in [at("new"), at("empty"), PathBuf::from("fovea-folder-that-is-new")] {
            assert!(check(&path).is_ok(), "{}: expected no refusal", path.display());
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_without_a_target_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let (link, target) = (folder.path().join("link"), folder.path().join("target"));
        std::os::unix::fs::symlink(&target, &link).expect("a link");
        for path in [link.clone(), link.join("")] {
            let why = check(&path).expect_err("a refusal").to_string();
            assert!(why.contains("which is a link to ") && why.contains("or remove the link"), "got: {why}");
        }
        fs::create_dir(target).expect("a folder");
        assert!(check(&link).is_ok(), "expected a link to an empty folder to be written");
    }
}
