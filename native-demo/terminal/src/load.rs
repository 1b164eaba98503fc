//! Pictures, checkpoints and models from arguments, with progress on a terminal; Ctrl-C.

use std::{
    fs,
    io::{self, Read},
    mem,
    path::{Path, PathBuf},
    process,
    sync::Arc,
};

use fovea_model::{Cancel, Checkpoint, Error, Fits, LoadOptions, LoadProgress, Model, Picture, demo};
use fovea_runtime::{DeviceChoice, OpenDevice, device::DeviceClass, hub_cache, source::Source};

use crate::{failure::Failure, output, text};

/// The checkpoint in `dir`; without it the embedded one.
///
/// # Errors
/// [`Failure::Runtime`] where `dir` is not a checkpoint.
pub fn source(dir: Option<&Path>) -> Result<Source, Failure> {
    match dir {
        Some(dir) => Ok(Source::open(dir)?),
        None => Ok(demo::source()),
    }
}

/// The files that a command reads: the picture's and the checkpoint's.
pub fn read_files(image: &Path, model: Option<&Path>) -> Vec<PathBuf> {
    let image = if image == Path::new("-") { Path::new("/dev/stdin") } else { image };
    let folder = model.and_then(|model| hub_cache::locate(model).ok());
    let mut files = output::files_of(&[folder.as_deref()]);
    files.push(image.to_owned());
    files
}

/// A handle that Ctrl-C cancels. A second Ctrl-C ends the process at once.
pub fn interruptible() -> Cancel {
    let cancel = Cancel::default();
    let handle = cancel.clone();
    let interrupted = move || {
        if handle.is_cancelled() {
            process::exit(130);
        }
        handle.cancel();
    };
    // It fails only where the process has a handler already.
    let _ = ctrlc::set_handler(interrupted);
    cancel
}

/// Largest file of a picture, bytes.
const LARGEST: u64 = 512 << 20;

/// A picture from a file; `-` is standard input.
///
/// # Errors
/// [`Failure::PictureFile`] where the file can't be read, [`Failure::Picture`] where its content is refused.
pub fn picture(path: &Path) -> Result<Picture, Failure> {
    let name = if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() };
    let failed = |why: String| Failure::PictureFile { file: name.clone(), why };
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        io::stdin().lock().take(LARGEST + 1).read_to_end(&mut bytes)
    } else {
        fs::File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes))
    };
    read.map_err(|why| failed(not_readable(path, &why)))?;
    if bytes.len() as u64 > LARGEST {
        return Err(failed(format!("expected at most {}, got more", text::bytes(LARGEST))));
    }
    Picture::decode(&bytes).map_err(|why| Failure::Picture { file: name, why })
}

/// The first picture, and `more` after it.
///
/// # Errors
/// Those of [`picture`].
pub fn pictures(first: &Path, more: &[PathBuf]) -> Result<Vec<Picture>, Failure> {
    [first].into_iter().chain(more.iter().map(PathBuf::as_path)).map(picture).collect()
}

/// The system's words, or what to do instead.
fn not_readable(path: &Path, why: &io::Error) -> String {
    let address = path.to_str().is_some_and(|text| text.starts_with("http://") || text.starts_with("https://"));
    if address {
        return "it is an address; download the picture first, or use a pipe: `curl -sL ADDRESS | fovea ask - QUESTION`".to_owned();
    }
    if path.is_dir() {
        return "it is a folder; name one picture, or use `fovea eval` for a folder".to_owned();
    }
    why.to_string()
}

/// Opens the device and loads the model, with a progress bar. `check` gets what the checkpoint supports, before anything is
/// loaded, and may refuse the caller's settings.
///
/// # Errors
/// That of `check`, and what is wrong with the device or the checkpoint.
pub async fn model(
    dir: Option<&Path>,
    device: &DeviceChoice,
    load: impl Into<LoadOptions>,
    cancel: &Cancel,
    check: impl FnOnce(Fits<'_>) -> Result<(), Error>,
) -> Result<Arc<Model>, Failure> {
    let checkpoint = Checkpoint::open(source(dir)?).await?;
    check(checkpoint.fits())?;
    let device = OpenDevice::open(device).await?;
    let bar = text::progress_bar("{msg:8} {bar:20} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    let model = Model::load(checkpoint, device, load, cancel, |LoadProgress { stage, done, total }| {
        bar.set_message(stage.name());
        bar.set_length(total);
        bar.set_position(done);
    })
    .await;
    bar.finish_and_clear();
    let model = model?;
    if model.device().info.class == DeviceClass::Cpu {
        // The process ends with the command and then returns its memory at once. To free 15 GB before that takes a second, in
        // which Ctrl-C would seem to have no effect.
        mem::forget(model.clone());
    }
    Ok(model)
}
