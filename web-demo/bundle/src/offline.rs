//! The list of the page's files for its service worker, `files.json`. Input: the built folder. Output: the files to store in the
//! browser, and a version that changes with any of them.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};

use crate::{BundleError, sizes::walk};

/// The list's name. `page/sw.js` reads it.
const FILES: &str = "files.json";

/// Files that a browser must always get from the host: the service worker, its list, and the announcement of a server.
const FRESH: [&str; 3] = ["sw.js", FILES, "fovea-server.json"];

/// Suffixes of files that the page does not load.
const UNUSED: [&str; 2] = [".d.ts", ".md"];

/// Bytes of a SHA-256 hash that make the version.
const VERSION: usize = 8;

/// Writes the list of the files in `out` beside them.
///
/// # Errors
/// [`BundleError::File`] if a file can't be read or written.
pub fn list(out: &Path) -> Result<(), BundleError> {
    let path = out.join(FILES);
    fs::write(&path, files(out)?.to_string()).map_err(|why| BundleError::file(&path, why))
}

/// `{"version": .., "files": [..]}`, with paths that have slashes, sorted.
fn files(out: &Path) -> Result<Json, BundleError> {
    let mut files = Vec::new();
    walk(out, Path::new(""), &mut |file: PathBuf| {
        let parts: Vec<_> = file.iter().map(|part| part.to_string_lossy()).collect();
        let name = parts.join("/");
        if !FRESH.contains(&name.as_str()) && !UNUSED.iter().any(|end| name.ends_with(end)) {
            files.push(name);
        }
        Ok(())
    })?;
    files.sort();
    let mut hash = Sha256::new();
    for name in &files {
        let path = out.join(name);
        hash.update(format!("{name}\0"));
        let mut read = || io::copy(&mut fs::File::open(&path)?, &mut Hashed(&mut hash));
        let length = read().map_err(|why| BundleError::file(&path, why))?;
        hash.update(length.to_le_bytes());
    }
    let version: String = hash.finalize().iter().take(VERSION).map(|byte| format!("{byte:02x}")).collect();
    Ok(json!({ "version": version, "files": files }))
}

/// Hashes the bytes that are written to it.
struct Hashed<'a>(&'a mut Sha256);

impl io::Write for Hashed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_changes_with_a_stored_file_only() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let out = folder.path();
        fs::create_dir(out.join("pkg"))?;
        for file in ["index.html", "pkg/a b.wasm", "pkg/a.d.ts", "README.md", "sw.js", "fovea-server.json"] {
            fs::write(out.join(file), file)?;
        }
        let first = files(out)?;
        assert_eq!(first["files"], json!(["index.html", "pkg/a b.wasm"]), "(got, expected)");
        assert_eq!(first["version"].as_str().map(str::len), Some(2 * VERSION), "(got, expected)");
        list(out)?;
        assert_eq!(fs::read_to_string(out.join(FILES))?, first.to_string(), "(got, expected)");
        for (file, same) in [("sw.js", true), ("pkg/a.d.ts", true), ("index.html", false), ("new.js", false)] {
            let before = files(out)?;
            fs::write(out.join(file), "other")?;
            assert_eq!(files(out)? == before, same, "{file}: the same version (got, expected)");
        }
        Ok(())
    }
}
