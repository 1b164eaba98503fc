//! Files that a command writes.
//!
//! A file that can't be written is found before the work begins. The content goes to a temporary file in the same folder,
//! which is renamed at the end: where the disk is full, the old file stays as it was.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use image::{DynamicImage, ImageFormat, RgbImage};
use tempfile::{Builder, NamedTempFile};

use crate::failure::Failure;

/// Longest file name on most systems, bytes.
const LONGEST_NAME: usize = 255;

/// A file that will be written.
pub struct Output {
    path: PathBuf,
    /// The temporary file; None: `path` is a device or a pipe, which is written directly.
    beside: Option<NamedTempFile>,
}

impl Output {
    /// Checks that `path` can be written and is not one of the files in `read`.
    ///
    /// # Errors
    /// [`Failure::Usage`] for `-` and for a file that is read; [`Failure::Write`] where the system refuses.
    pub fn new(path: &Path, read: &[PathBuf]) -> Result<Self, Failure> {
        let name = path.display();
        let stdout = ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"];
        if stdout.iter().any(|stdout| path == Path::new(stdout)) {
            let why = format!("expected the name of a file to write, got {name}; only answers go to stdout");
            return Err(Failure::Usage(why));
        }
        let same = |other: &&PathBuf| matches!((path.canonicalize(), other.canonicalize()), (Ok(a), Ok(b)) if a == b);
        if let Some(other) = read.iter().find(same) {
            let other = other.display();
            return Err(Failure::Usage(format!("{name} would overwrite {other}, which is read; choose another name")));
        }
        let failed = |why: io::Error| Failure::Write { file: name.to_string(), why };
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => Err(failed(io::Error::other("it is a folder; name a file in it"))),
            // A name that ends in a slash means a folder.
            _ if path.as_os_str().to_string_lossy().ends_with('/') => {
                Err(failed(io::Error::other("it names a folder; name a file in it")))
            }
            Ok(found) if !found.is_file() => Ok(Self { path: path.to_owned(), beside: None }),
            _ => {
                // For a link, its target is replaced.
                let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
                let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
                fs::metadata(folder).map_err(failed)?;
                if path.file_name().is_some_and(|name| name.len() > LONGEST_NAME) {
                    return Err(failed(io::Error::other("its name is too long")));
                }
                // The library's own message would name the temporary file.
                let beside = builder().tempfile_in(folder).map_err(|why| failed(why.kind().into()))?;
                Ok(Self { path, beside: Some(beside) })
            }
        }
    }

    /// Writes `bytes` as the content of the file.
    ///
    /// # Errors
    /// [`Failure::Write`] where the system refuses; the file then stays as it was.
    pub fn write(self, bytes: &[u8]) -> Result<(), Failure> {
        let failed = |why: io::Error| Failure::Write { file: self.path.display().to_string(), why };
        match self.beside {
            None => {
                fs::OpenOptions::new().write(true).open(&self.path).and_then(|mut f| f.write_all(bytes)).map_err(failed)
            }
            Some(mut beside) => {
                beside.write_all(bytes).and_then(|()| beside.flush()).map_err(failed)?;
                beside.persist(&self.path).map(|_| ()).map_err(|e| failed(e.error))
            }
        }
    }
}

/// The files in these folders, which a command must not overwrite.
pub fn files_of(folders: &[Option<&Path>]) -> Vec<PathBuf> {
    let entries = folders.iter().flatten().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect()
}

/// A temporary file with the permissions of a normal new file; the default is access for its owner only.
#[cfg(unix)]
fn builder() -> Builder<'static, 'static> {
    use std::os::unix::fs::PermissionsExt;
    let mut builder = Builder::new();
    builder.prefix(".fovea-").permissions(fs::Permissions::from_mode(0o666));
    builder
}

#[cfg(not(unix))]
fn builder() -> Builder<'static, 'static> {
    let mut builder = Builder::new();
    builder.prefix(".fovea-");
    builder
}

/// The picture format that a file name asks for; PNG without an extension.
///
/// # Errors
/// [`Failure::Usage`] for an extension of another format.
pub fn picture_format(path: &Path) -> Result<ImageFormat, Failure> {
    let Some(extension) = path.extension() else { return Ok(ImageFormat::Png) };
    let format = ImageFormat::from_extension(extension);
    let written = [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP, ImageFormat::Bmp];
    format.filter(|format| written.contains(format)).ok_or_else(|| {
        let got = extension.display();
        Failure::Usage(format!("{}: expected a name in .png, .jpg, .webp or .bmp, got .{got}", path.display()))
    })
}

/// A PNG file as a file of `format`.
///
/// # Errors
/// [`Failure::Chart`] where it can't be encoded.
pub fn encoded(png: &[u8], format: ImageFormat) -> Result<Vec<u8>, Failure> {
    if format == ImageFormat::Png {
        return Ok(png.to_vec());
    }
    let failed = |why: image::ImageError| Failure::Chart(why.to_string());
    let picture: RgbImage = image::load_from_memory_with_format(png, ImageFormat::Png).map_err(failed)?.into_rgb8();
    let mut bytes = io::Cursor::new(Vec::new());
    DynamicImage::ImageRgb8(picture).write_to(&mut bytes, format).map_err(failed)?;
    Ok(bytes.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_not_overwritten_by_any_of_its_names() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a.png");
        fs::write(&file, "input").expect("a file");
        let other = folder.path().join("x/../a.png");
        fs::create_dir(folder.path().join("x")).expect("a folder");
        for name in [&file, &other] {
            let refused = Output::new(name, std::slice::from_ref(&file)).err().map(|e| (e.exit_code(), e.to_string()));
            let (code, why) = refused.expect("a refusal");
            assert!(code == 2 && why.contains("would overwrite"), "{code} {why}");
        }
        assert_eq!(Output::new(Path::new("-"), &[]).err().map(|e| e.exit_code()), Some(2));
    }

    #[test]
    fn a_file_is_replaced_at_the_end_and_no_temporary_file_is_left() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a.txt");
        fs::write(&file, "before").expect("a file");
        let output = Output::new(&file, &[]).expect("an output");
        assert_eq!(fs::read_to_string(&file).expect("a file"), "before");
        output.write(b"after").expect("a write");
        assert_eq!(fs::read_to_string(&file).expect("a file"), "after");
        drop(Output::new(&file, &[]).expect("an output"));
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
        assert!(Output::new(&folder.path().join("no/a.txt"), &[]).is_err());
        assert!(Output::new(folder.path(), &[]).is_err());
    }

    #[test]
    fn the_format_follows_the_file_name() {
        for (name, format) in [
            ("a.png", ImageFormat::Png),
            ("a.JPG", ImageFormat::Jpeg),
            ("a.webp", ImageFormat::WebP),
            ("a", ImageFormat::Png),
        ] {
            assert_eq!(picture_format(Path::new(name)).ok(), Some(format), "{name}");
        }
        assert!(picture_format(Path::new("a.txt")).is_err() && picture_format(Path::new("a.gif")).is_err());
    }
}
