//! Finds a checkpoint: the path or name that a user gives in, the folder with its files out.
//!
//! A checkpoint is a folder, or a repository in the cache of the Hugging Face hub (by id, by address, or by its folder
//! in the cache). Nothing is downloaded. The layout is that of the `huggingface_hub` package:
//! `models--ORG--NAME/refs/main` contains a commit, `snapshots/COMMIT` contains its files.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use crate::error::Error;

const CONFIG: &str = "config.json";

/// The folder of a checkpoint. `given` is a folder, the id of a repository such as `llava-hf/llava-v1.6-mistral-7b-hf`
/// (with `@REVISION` for a revision other than `main`), its address on the hub, or its folder in the cache.
///
/// # Errors
/// [`Error::NoCheckpoint`] where there is none, with the places that were searched and what to do.
pub fn locate(given: &Path) -> Result<PathBuf, Error> {
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
        let Repository { id, .. } = repository;
        if !id.contains('/') {
            let why = "there is no such folder; give the folder of a checkpoint, or a repository id such as ORG/NAME";
            return Err(refuse(given, why.to_owned()));
        }
        let cache = cache.display();
        let why = format!(
            "there is no such folder, and no repository `{id}` in the cache of the Hugging Face hub {cache}; download \
             it with `hf download {id}` (from the Python package huggingface_hub), or give a folder"
        );
        return Err(refuse(given, why));
    }
    snapshot(given, &found, repository.revision)
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
    if let Some(gguf) = names.iter().find(|name| has_extension(Path::new(name), "gguf")) {
        return Err(refuse(given, single_file(&given.join(gguf))));
    }
    // Missing files are reported when it is opened.
    Ok(given.to_owned())
}

/// The message for a file where a folder was expected.
fn single_file(file: &Path) -> String {
    if has_extension(file, "gguf") {
        return "GGUF files are not supported; use a folder with config.json, tokenizer.json and safetensors in \
                f32, f16 or bf16"
            .to_owned();
    }
    let parent = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    format!("expected the folder of a checkpoint, got a file; give the folder that contains it: {}", parent.display())
}

fn has_extension(file: &Path, extension: &str) -> bool {
    file.extension().is_some_and(|e| e.eq_ignore_ascii_case(extension))
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
#[derive(Debug, PartialEq, Eq)]
struct Repository {
    id: String,
    revision: Option<String>,
}

impl Repository {
    /// Reads `ORG/NAME`, `ORG/NAME@REVISION` or an address on the hub; None where the text is something else.
    fn parse(text: &str) -> Option<Self> {
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
        let whole = parts.len() <= 2 && id.len() <= 96 && parts.iter().all(|part| plain(part));
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

/// The folder of the cache, from the environment variables that `huggingface_hub` reads, in the same order.
fn cache() -> Option<PathBuf> {
    let variable = |name: &str| env::var_os(name).filter(|v| !v.is_empty()).map(|v| expanded(Path::new(&v)));
    let home = || env::var_os("HOME").or_else(|| env::var_os("USERPROFILE")).map(PathBuf::from);
    variable("HF_HUB_CACHE")
        .or_else(|| variable("HUGGINGFACE_HUB_CACHE"))
        .or_else(|| variable("HF_HOME").map(|home| home.join("hub")))
        .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("huggingface/hub")))
        .or_else(|| home().map(|home| home.join(".cache/huggingface/hub")))
}

/// The path, with a leading `~` replaced by the home folder.
fn expanded(path: &Path) -> PathBuf {
    match (path.strip_prefix("~"), env::var_os("HOME")) {
        (Ok(rest), Some(home)) => Path::new(&home).join(rest),
        _ => path.to_owned(),
    }
}

/// The folder of a revision. Without a revision: that of `main`, or the only snapshot.
fn snapshot(given: &Path, repository: &Path, revision: Option<String>) -> Result<PathBuf, Error> {
    let snapshots = repository.join("snapshots");
    let known: Vec<String> = names(&snapshots).into_iter().filter(|name| snapshots.join(name).is_dir()).collect();
    let named = revision.as_deref().unwrap_or("main");
    let commit = fs::read_to_string(repository.join("refs").join(named)).ok().map(|text| text.trim().to_owned());
    let commit = commit.or_else(|| revision.clone());
    let matching = |commit: &String| known.iter().find(|name| *name == commit || name.starts_with(commit.as_str()));
    if let Some(name) = commit.as_ref().filter(|c| !c.is_empty()).and_then(matching) {
        return Ok(snapshots.join(name));
    }
    match known.as_slice() {
        [only] if revision.is_none() => Ok(snapshots.join(only)),
        [] => Err(refuse(
            given,
            format!("{} has no snapshot: its download did not finish; download it again", repository.display()),
        )),
        _ => {
            let known = known.join(", ");
            let why = format!("expected the revision `{named}`, got {known}; choose one of them with @REVISION");
            Err(refuse(given, why))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    }
}
