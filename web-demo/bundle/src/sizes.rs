//! Sizes of the files of a folder, before and after gzip.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};

use crate::BundleError;

/// Intended limit after gzip, without weights, in bytes: the page should open quickly.
pub const MOST: u64 = 4_000_000;

/// The size of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Size {
    /// Path in the folder.
    pub file: PathBuf,
    /// Bytes.
    pub raw: u64,
    /// Bytes after gzip, as most hosts send it.
    pub gzipped: u64,
}

impl Size {
    /// Whether the file contains a model's weights.
    pub fn is_weights(&self) -> bool {
        self.file.extension().is_some_and(|e| e == "safetensors")
    }
}

/// The sum of these sizes, with `name` in place of the path.
pub fn total<'a>(name: &str, files: impl IntoIterator<Item = &'a Size>) -> Size {
    let zero = Size { file: name.into(), raw: 0, gzipped: 0 };
    files.into_iter().fold(zero, |sum, s| Size { raw: sum.raw + s.raw, gzipped: sum.gzipped + s.gzipped, ..sum })
}

/// The sizes of all files of a folder and its subfolders, sorted by path.
///
/// # Errors
/// [`BundleError::File`] if one can't be read.
pub fn sizes(folder: &Path) -> Result<Vec<Size>, BundleError> {
    let mut found = Vec::new();
    walk(folder, Path::new(""), &mut |file| {
        let path = folder.join(&file);
        let (raw, gzipped) = weigh(&path).map_err(|why| BundleError::file(&path, why))?;
        found.push(Size { file, raw, gzipped });
        Ok(())
    })?;
    found.sort_by(|a, b| a.file.cmp(&b.file));
    Ok(found)
}

/// Calls `take` with the path, relative to `folder`, of each file below `within`.
pub(crate) fn walk(
    folder: &Path,
    within: &Path,
    take: &mut dyn FnMut(PathBuf) -> Result<(), BundleError>,
) -> Result<(), BundleError> {
    let here = folder.join(within);
    for entry in fs::read_dir(&here).map_err(|why| BundleError::file(&here, why))? {
        let entry = entry.map_err(|why| BundleError::file(&here, why))?;
        let file = within.join(entry.file_name());
        if entry.path().is_dir() {
            walk(folder, &file, take)?;
        } else {
            take(file)?;
        }
    }
    Ok(())
}

fn weigh(path: &Path) -> io::Result<(u64, u64)> {
    let mut gzip = GzEncoder::new(Count(0), Compression::best());
    let raw = io::copy(&mut fs::File::open(path)?, &mut gzip)?;
    Ok((raw, gzip.finish()?.0))
}

/// Counts the bytes that are written to it.
struct Count(u64);

impl io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
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
    fn zeros_compress_well() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        fs::create_dir(folder.path().join("pkg"))?;
        fs::write(folder.path().join("pkg/zeros"), [0; 100_000])?;
        fs::write(folder.path().join("empty"), [])?;
        fs::write(folder.path().join("a.safetensors"), [7; 10])?;
        let sizes = sizes(folder.path())?;
        let names: Vec<_> = sizes.iter().map(|s| (s.file.as_path(), s.raw)).collect();
        assert_eq!(
            names,
            [(Path::new("a.safetensors"), 10), (Path::new("empty"), 0), (Path::new("pkg/zeros"), 100_000)]
        );
        // Deflate reaches at best about 1:1000; gzip's header and trailer have 18 bytes.
        assert!((100..200).contains(&sizes[2].gzipped), "expected about 115 bytes, got {}", sizes[2].gzipped);
        let rest = total("the rest", sizes.iter().filter(|s| !s.is_weights()));
        assert_eq!((rest.raw, rest.gzipped), (100_000, sizes[1].gzipped + sizes[2].gzipped));
        Ok(())
    }
}
