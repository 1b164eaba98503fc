//! From arguments to a loaded model, with progress on a terminal, and Ctrl-C.

use std::{
    fs,
    io::{self, IsTerminal, Read},
    mem,
    path::{Path, PathBuf},
    process,
    sync::Arc,
};

use fovea_model::{AskOptions, Cancel, Checkpoint, LoadProgress, Model, Picture, Precision, demo};
use fovea_runtime::{DeviceChoice, OpenDevice, device::DeviceClass, hub_cache, source::Source};
use indicatif::{ProgressBar, ProgressStyle};

use crate::{failure::Failure, output, text};

/// Where the checkpoint is; the embedded one where no directory is given.
pub fn source(dir: Option<&Path>) -> Result<Source, Failure> {
    match dir {
        Some(dir) => Ok(Source::open(dir)?),
        None => Ok(demo::source()),
    }
}

/// The files that a command reads: the picture, where it comes from a file, and the checkpoint's.
pub fn read_files(image: &Path, model: Option<&Path>) -> Vec<PathBuf> {
    let image = if image == Path::new("-") { Path::new("/dev/stdin") } else { image };
    let folder = model.and_then(|model| hub_cache::locate(model).ok());
    let mut files = output::files_of(&[folder.as_deref()]);
    files.push(image.to_owned());
    files
}

/// A handle that Ctrl-C cancels. A second Ctrl-C does not wait for the next check.
pub fn interruptible() -> Cancel {
    let cancel = Cancel::default();
    let handle = cancel.clone();
    let interrupted = move || {
        if handle.is_cancelled() {
            process::exit(130);
        }
        handle.cancel();
    };
    // A second handler in one process is the only failure; then Ctrl-C simply kills.
    let _ = ctrlc::set_handler(interrupted);
    cancel
}

/// Most bytes of a picture's file.
const LARGEST: u64 = 512 << 20;

/// A picture from a file; `-` is standard input.
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

/// What the system says, and what to do instead.
fn not_readable(path: &Path, why: &io::Error) -> String {
    let address = path.to_str().is_some_and(|text| text.starts_with("http://") || text.starts_with("https://"));
    if address {
        return "it is an address; download the picture first, or pipe it in: `curl -sL ADDRESS | fovea ask - QUESTION`".to_owned();
    }
    if path.is_dir() {
        return "it is a folder; name a picture, or ask about all of a folder's with `fovea eval`".to_owned();
    }
    why.to_string()
}

/// Checks the settings, opens the device and loads the model. No bar where stderr is no terminal.
pub async fn model(
    dir: Option<&Path>,
    device: &DeviceChoice,
    precision: Precision,
    options: &AskOptions,
) -> Result<Arc<Model>, Failure> {
    let checkpoint = Checkpoint::open(source(dir)?).await?;
    options.check(checkpoint.config.text.n_layers)?;
    let device = OpenDevice::open(device).await?;
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
    // The template is a constant; should indicatif ever refuse it, its default does.
    if let Ok(style) = ProgressStyle::with_template("{msg:9} {bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}") {
        bar.set_style(style);
    }
    let model = Model::load(checkpoint, device, precision, &options.cancel, |progress| {
        let (what, done, total) = match progress {
            LoadProgress::Checking { done, total } => ("checking", done, total),
            LoadProgress::Loading { done, total } => ("loading", done, total),
        };
        bar.set_message(what);
        bar.set_length(total);
        bar.set_position(done);
    })
    .await;
    bar.finish_and_clear();
    let model = model?;
    if model.device().info.class == DeviceClass::Cpu {
        // The process ends with the command, and gives its memory back at once. To free 15 GB before that takes a second, in
        // which a stop would seem not to be heard.
        mem::forget(model.clone());
    }
    Ok(model)
}
