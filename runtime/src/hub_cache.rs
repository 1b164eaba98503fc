//! Finds a checkpoint: the path or name that a user gives in, the folder with its files out.
//!
//! A checkpoint is a folder, or a repository in the cache of the Hugging Face hub (by id, by address, or by its folder
//! in the cache). Nothing is downloaded here: `fovea pull` fills the cache. The layout is that of the `huggingface_hub`
//! package: `models--ORG--NAME/refs/main` contains a commit, `snapshots/COMMIT` contains its files.

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
};

use crate::error::Error;

const CONFIG: &str = "config.json";

/// The folder of a checkpoint. `given` is a folder, the id of a repository such as `llava-hf/llava-v1.6-mistral-7b-hf`
/// (with `@REVISION` for a revision other than `main`), its address on the hub, or its folder in the cache. After it, `:`
/// and names of GGUF files are ignored.
///
/// # Errors
/// [`Error::NoCheckpoint`] where there is none, with the places that were searched and what to do.
pub fn locate(given: &Path) -> Result<PathBuf, Error> {
    let (given, files) = split(given);
    if given.is_dir() {
        return folder(given);
    }
    if given.exists() {
        return Err(refuse(given, single_file(given)));
    }
    let Some(repository) = given.to_str().and_then(Repository::parse) else {
        return Err(refuse(given, "there is no such folder".to_owned()));
    };
    let Some(cache) = cache() else {
        let why = "there is no such folder, and the cache of the Hugging Face hub is not known: set HF_HOME or HOME";
        return Err(refuse(given, why.to_owned()));
    };
    let found = cache.join(repository.folder());
    if !found.is_dir() {
        let id = &repository.id;
        if !id.contains('/') {
            let why = "there is no such folder; give the folder of a checkpoint, or a repository id such as ORG/NAME";
            return Err(refuse(given, why.to_owned()));
        }
        let cache = cache.display();
        let files: String = files.iter().map(|file| format!(" --file {file}")).collect();
        let why = format!(
            "there is no such folder, and no repository `{id}` in the cache of the Hugging Face hub {cache}; download \
             it with `fovea pull {repository}{files}`, or give a folder"
        );
        return Err(refuse(given, why));
    }
    snapshot(given, &found, repository.revision)
}

/// The checkpoint of `CHECKPOINT:FILE,FILE`, and the names of GGUF files in it. A path that exists has no such names.
pub(crate) fn split(given: &Path) -> (&Path, Vec<String>) {
    let parts = given.to_str().filter(|_| !given.exists()).and_then(|text| text.rsplit_once(':'));
    // In an address and in a path of Windows, a colon is before a slash.
    match parts.filter(|(before, files)| !before.is_empty() && !files.is_empty() && !files.contains(['/', '\\'])) {
        Some((before, files)) => (Path::new(before), files.split(',').map(str::to_owned).collect()),
        None => (given, Vec::new()),
    }
}

/// The folder itself; or the snapshot, where the folder is a repository of the cache.
fn folder(given: &Path) -> Result<PathBuf, Error> {
    if given.join(CONFIG).exists() {
        return Ok(given.to_owned());
    }
    if given.join("snapshots").is_dir() {
        return snapshot(given, given, None);
    }
    if given.file_name().is_some_and(|name| name == "snapshots")
        && let Some(repository) = given.parent()
    {
        return snapshot(given, repository, None);
    }
    let names = names(given);
    let repositories: Vec<String> = names.iter().filter_map(|name| id_of(name)).collect();
    if let Some(first) = repositories.first() {
        let why = format!(
            "this is a cache of {} repositories ({}); give one of them, such as {first}",
            repositories.len(),
            repositories.iter().take(5).map(String::as_str).collect::<Vec<_>>().join(", ")
        );
        return Err(refuse(given, why));
    }
    // Missing files are reported when it is opened.
    Ok(given.to_owned())
}

/// The message for a file where a folder was expected.
fn single_file(file: &Path) -> String {
    let parent = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    format!("expected the folder of a checkpoint, got a file; give the folder that contains it: {}", parent.display())
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

fn refuse(given: &Path, why: String) -> Error {
    Error::NoCheckpoint { given: given.display().to_string(), why }
}

/// A repository on the Hugging Face hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    /// `ORG/NAME`; a few old repositories have no `ORG`.
    pub id: String,
    /// A branch, a tag or a commit; None is `main`.
    pub revision: Option<String>,
}

impl fmt::Display for Repository {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.revision {
            Some(revision) => write!(to, "{}@{revision}", self.id),
            None => write!(to, "{}", self.id),
        }
    }
}

impl Repository {
    /// Reads `ORG/NAME`, `ORG/NAME@REVISION` or an address on the hub; None where the text is something else, such as
    /// the address of a data set. A revision with `/` is not supported.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
        let hosts = ["huggingface.co/", "www.huggingface.co/", "hf.co/", "hf://", "hf:/"];
        let path = hosts.into_iter().find_map(|host| text.strip_prefix(host));
        let (text, address) = (path.unwrap_or(text).trim_end_matches('/'), path.is_some());
        let (text, tail) = if address {
            let mut parts = text.splitn(3, '/');
            let (org, name) = (parts.next()?, parts.next()?);
            (format!("{org}/{name}"), parts.next())
        } else {
            (text.to_owned(), None)
        };
        let (id, revision) = match text.split_once('@') {
            Some((id, revision)) => (id.to_owned(), Some(revision.to_owned())),
            None => (text, None),
        };
        // In an address the revision is after `tree`, `blob` or `resolve`.
        let from_tail = tail.and_then(|tail| tail.split('/').nth(1)).map(str::to_owned);
        let revision = revision.or(from_tail);
        let plain = |part: &str| {
            let known = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            !part.is_empty() && part.chars().all(known) && !part.starts_with(['.', '-']) && !part.contains("--")
        };
        let parts: Vec<&str> = id.split('/').collect();
        // On the hub these are no organisations: the names of data sets and spaces start with them.
        let model = parts.len() == 1 || !["datasets", "spaces"].contains(&parts[0]);
        let whole = model && parts.len() <= 2 && id.len() <= 96 && parts.iter().all(|part| plain(part));
        (whole && revision.as_deref().is_none_or(plain)).then_some(Self { id, revision })
    }

    /// The name of its folder in the cache.
    fn folder(&self) -> String {
        format!("models--{}", self.id.replace('/', "--"))
    }
}

/// The id of a repository, from its folder in the cache.
fn id_of(folder: &str) -> Option<String> {
    folder.strip_prefix("models--").map(|name| name.replacen("--", "/", 1))
}

/// The folder of the cache, from the environment variables that `huggingface_hub` reads, in the same order. None where
/// no variable is set, not even the one of the home folder.
pub fn cache() -> Option<PathBuf> {
    variable("HF_HUB_CACHE")
        .or_else(|| variable("HUGGINGFACE_HUB_CACHE"))
        .or_else(|| home().map(|home| home.join("hub")))
}

/// The folder of Hugging Face's programs: it contains the cache and the token, where no variable names another place.
pub fn home() -> Option<PathBuf> {
    let user = || env::var_os("HOME").or_else(|| env::var_os("USERPROFILE")).map(PathBuf::from);
    variable("HF_HOME")
        .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("huggingface")))
        .or_else(|| user().map(|home| home.join(".cache/huggingface")))
}

/// The path in an environment variable that is not empty.
fn variable(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|v| !v.is_empty()).map(|v| expanded(Path::new(&v)))
}

/// The path, with a leading `~` replaced by the home folder.
fn expanded(path: &Path) -> PathBuf {
    match (path.strip_prefix("~"), env::var_os("HOME")) {
        (Ok(rest), Some(home)) => Path::new(&home).join(rest),
        _ => path.to_owned(),
    }
}

/// The folder in the cache of exactly the commit that `refs/REVISION` names, or that the revision itself is. None where
/// it is not there; a local folder and the start of a commit do not count.
pub fn exact_snapshot(repository: &Repository) -> Option<PathBuf> {
    let folder = cache()?.join(repository.folder());
    let commit = commit(&folder, repository.revision.as_deref().unwrap_or("main"));
    snapshots(&folder).contains(&commit).then(|| folder.join("snapshots").join(commit))
}

/// The commit that a revision names. A revision without a reference is a commit.
fn commit(repository: &Path, revision: &str) -> String {
    let reference = fs::read_to_string(repository.join("refs").join(revision));
    reference.map_or_else(|_| revision.to_owned(), |text| text.trim().to_owned())
}

/// The commits in the cache.
fn snapshots(repository: &Path) -> Vec<String> {
    let folder = repository.join("snapshots");
    names(&folder).into_iter().filter(|name| folder.join(name).is_dir()).collect()
}

/// The folder of a revision. Without a revision: that of `main`, or the only snapshot. At least 7 digits of a commit
/// are enough where they select one.
fn snapshot(given: &Path, repository: &Path, revision: Option<String>) -> Result<PathBuf, Error> {
    let (folder, known) = (repository.join("snapshots"), snapshots(repository));
    let named = revision.as_deref().unwrap_or("main");
    let commit = commit(repository, named);
    let digits = commit.len() >= 7 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    let matching: Vec<&String> = known.iter().filter(|name| digits && name.starts_with(&commit)).collect();
    if known.contains(&commit) {
        return Ok(folder.join(commit));
    }
    if let [only] = matching[..] {
        return Ok(folder.join(only));
    }
    match known.as_slice() {
        [only] if revision.is_none() => Ok(folder.join(only)),
        [] => Err(refuse(
            given,
            format!("{} has no snapshot: its download did not finish; download it again", repository.display()),
        )),
        _ => {
            let known = known.join(", ");
            let why = format!(
                "expected the revision `{named}`, got {known}; choose one of them with @REVISION, or use `fovea pull`"
            );
            Err(refuse(given, why))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_gguf_files_are_after_a_colon() {
        for (given, expected) in [
            ("org/a:Q4_K_M", ("org/a", vec!["Q4_K_M"])),
            ("org/a@v1:a.gguf,mmproj-f32.gguf", ("org/a@v1", vec!["a.gguf", "mmproj-f32.gguf"])),
            ("/models/a:Q8_0", ("/models/a", vec!["Q8_0"])),
            ("C:\\models", ("C:\\models", vec![])),
            ("https://hf.co/org/a", ("https://hf.co/org/a", vec![])),
            ("hf://org/a:Q8_0", ("hf://org/a", vec!["Q8_0"])),
            ("org/a:", ("org/a:", vec![])),
        ] {
            let (checkpoint, files) = split(Path::new(given));
            let files: Vec<&str> = files.iter().map(String::as_str).collect();
            assert_eq!((checkpoint, files), (Path::new(expected.0), expected.1), "{given} (got, expected)");
        }
    }

    #[test]
    fn repositories_are_named_by_id_and_by_address() {
        let read = |text: &str| Repository::parse(text).map(|r| (r.id, r.revision));
        let (id, main) = ("llava-hf/llava-1.5-7b-hf".to_owned(), None::<String>);
        let expected = Some((id.clone(), main));
        for text in [
            "llava-hf/llava-1.5-7b-hf",
            "https://huggingface.co/llava-hf/llava-1.5-7b-hf",
            "https://huggingface.co/llava-hf/llava-1.5-7b-hf/",
            "hf.co/llava-hf/llava-1.5-7b-hf",
            "https://huggingface.co/llava-hf/llava-1.5-7b-hf/tree",
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
        let at = Some((id, Some("a1b2".to_owned())));
        for text in [
            "llava-hf/llava-1.5-7b-hf@a1b2",
            "https://huggingface.co/llava-hf/llava-1.5-7b-hf/tree/a1b2",
            "https://huggingface.co/llava-hf/llava-1.5-7b-hf/resolve/a1b2/config.json",
        ] {
            assert_eq!(read(text), at, "{text}");
        }
        assert_eq!(read("gpt2"), Some(("gpt2".to_owned(), None)));
        for text in ["", "a/b/c", "./model", "../model", "/abs/model", "a b/c", "org/..", "a//b", "-x/y", "a@../b"] {
            assert_eq!(read(text), None, "{text}");
        }
        for text in ["https://huggingface.co/datasets/a/b", "hf.co/spaces/a/b", "datasets/a", "a/b@feature/x"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
