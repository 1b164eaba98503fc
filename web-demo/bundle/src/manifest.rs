//! The manifest of a checkpoint, `fovea.json`: the hash of every chunk of its files. With it, a page that downloads them detects a
//! broken chunk and fetches only that one again.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};

use crate::BundleError;

/// The manifest's file name, in the folder of the checkpoint.
pub const MANIFEST: &str = "fovea.json";

/// Default bytes per chunk. A page that downloads it holds a whole chunk in memory.
pub const CHUNK: u64 = 16 << 20;

/// Suffixes of a checkpoint's files. A page takes only the files that it needs.
const ENDS: [&str; 4] = [".json", ".jinja", ".safetensors", ".gguf"];

/// The manifest of the files in `folder`, in chunks of `chunk` bytes: `{"chunk", "files": [{"name", "size", "chunks"}]}`, where
/// `chunks` are the SHA-256 hashes in hexadecimal.
///
/// # Errors
/// [`BundleError::File`] if the folder or a file can't be read.
pub fn manifest(folder: &Path, chunk: u64) -> Result<Json, BundleError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(|why| BundleError::file(folder, why))? {
        let path = entry.map_err(|why| BundleError::file(folder, why))?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if path.is_file() && name != MANIFEST && ENDS.iter().any(|end| name.ends_with(end)) {
            let (size, chunks) = hashes(&path, chunk).map_err(|why| BundleError::file(&path, why))?;
            files.push((name, size, chunks));
        }
    }
    files.sort();
    let files: Vec<Json> =
        files.into_iter().map(|(name, size, chunks)| json!({ "name": name, "size": size, "chunks": chunks })).collect();
    Ok(json!({ "chunk": chunk, "files": files }))
}

/// The size of a file, and the hashes of its chunks.
fn hashes(path: &Path, chunk: u64) -> io::Result<(u64, Vec<String>)> {
    let mut file = File::open(path)?;
    let (mut size, mut hashes, mut bytes) = (0, Vec::new(), Vec::new());
    loop {
        bytes.clear();
        let read = file.by_ref().take(chunk).read_to_end(&mut bytes)?;
        if read == 0 {
            return Ok((size, hashes));
        }
        size += read as u64;
        hashes.push(format!("{:x}", Sha256::digest(&bytes)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_chunk_is_hashed_and_other_files_are_left_out() {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in [("config.json", "abcabcab"), (MANIFEST, "{}"), ("notes.md", "abc"), ("x.Q8_0.gguf", "abc")]
        {
            fs::write(folder.path().join(name), text).expect("a file");
        }
        let made = manifest(folder.path(), 3).expect("a manifest");
        // The first is the example of FIPS 180-2.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let ab = "fb8e20fc2e4c3f248c60c39bd652f3c1347298bb977b8b4d5903b85055620603";
        let file = json!({ "name": "config.json", "size": 8, "chunks": [abc, abc, ab] });
        let gguf = json!({ "name": "x.Q8_0.gguf", "size": 3, "chunks": [abc] });
        assert_eq!(made, json!({ "chunk": 3, "files": [file, gguf] }));
        assert!(manifest(&folder.path().join("none"), 3).is_err());
    }
}
