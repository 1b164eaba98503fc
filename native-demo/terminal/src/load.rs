//! Pictures (from files and addresses), checkpoints and models from arguments, with progress on a terminal; Ctrl-C.

use std::{
    fs,
    io::{self, Read},
    mem,
    path::{Path, PathBuf},
    process,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fovea_model::{Cancel, Checkpoint, Error, Fits, LoadOptions, LoadProgress, Model, Picture, demo};
use fovea_runtime::{DeviceChoice, OpenDevice, device::DeviceClass, hub_cache, source::Source};
use ureq::Agent;

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
    let mut files = checkpoint_files(model);
    files.push(image.to_owned());
    files
}

/// The files of a checkpoint; none of the embedded one.
pub fn checkpoint_files(model: Option<&Path>) -> Vec<PathBuf> {
    let folder = model.and_then(|model| hub_cache::locate(model).ok());
    output::files_of(&[folder.as_deref()])
}

/// A handle that Ctrl-C cancels. A second Ctrl-C ends the process at once.
pub fn interruptible() -> Cancel {
    Interrupts::watch().begin()
}

/// Ctrl-C of a program with several runs, one after another.
#[derive(Clone, Default)]
pub struct Interrupts(Arc<Mutex<Option<Cancel>>>);

impl Interrupts {
    /// Receives Ctrl-C from now on. To be called once per process. Ctrl-C cancels the current run; a second one, or one
    /// between two runs, ends the process.
    pub fn watch() -> Self {
        let interrupts = Self::default();
        let handle = interrupts.clone();
        let interrupted = move || match &*handle.run() {
            Some(run) if !run.is_cancelled() => run.cancel(),
            _ => process::exit(130),
        };
        // It fails only where the process has a handler already.
        let _ = ctrlc::set_handler(interrupted);
        interrupts
    }

    /// Begins a run. The handle is new, so an earlier Ctrl-C does not cancel it.
    pub fn begin(&self) -> Cancel {
        let cancel = Cancel::default();
        *self.run() = Some(cancel.clone());
        cancel
    }

    /// Ends the run.
    pub fn end(&self) {
        *self.run() = None;
    }

    fn run(&self) -> MutexGuard<'_, Option<Cancel>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Largest file of a picture, bytes.
const LARGEST: u64 = 512 << 20;
/// Largest download of a picture, bytes.
const LARGEST_DOWNLOAD: u64 = 128_000_000;
/// Longest time of a download.
const LONGEST_DOWNLOAD: Duration = Duration::from_secs(60);
const REDIRECTS: u32 = 5;

/// A picture from a file or an address; `-` is standard input.
///
/// # Errors
/// [`Failure::PictureFile`] where the file can't be read, [`Failure::Network`] where the download fails,
/// [`Failure::Picture`] where the content is refused.
pub fn picture(path: &Path) -> Result<Picture, Failure> {
    let address = path.to_str().filter(|text| {
        let starts = |scheme: &str| text.get(..scheme.len()).is_some_and(|own| own.eq_ignore_ascii_case(scheme));
        starts("http://") || starts("https://")
    });
    let name = match address {
        Some(address) => without_secrets(address),
        None if path == Path::new("-") => "standard input".to_owned(),
        None => path.display().to_string(),
    };
    let bytes = match address {
        Some(address) => download(address, &name)?,
        None => read(path).map_err(|why| Failure::PictureFile { file: name.clone(), why })?,
    };
    Picture::decode(&bytes).map_err(|why| Failure::Picture { file: name, why })
}

/// The bytes of a file, or what to do where they can't be read.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        io::stdin().lock().take(LARGEST + 1).read_to_end(&mut bytes)
    } else {
        fs::File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes))
    };
    match read {
        Ok(_) if bytes.len() as u64 > LARGEST => Err(format!("expected at most {}, got more", text::bytes(LARGEST))),
        Ok(_) => Ok(bytes),
        Err(_) if path.is_dir() => Err("it is a folder; name one picture, or use `fovea eval` for a folder".to_owned()),
        Err(why) => Err(why.to_string()),
    }
}

/// The bytes at an address. The environment names the proxy, as for `fovea pull`. From https, no redirect leads to http.
fn download(address: &str, name: &str) -> Result<Vec<u8>, Failure> {
    let agent = Agent::config_builder()
        .https_only(address.get(..8).is_some_and(|own| own.eq_ignore_ascii_case("https://")))
        .max_redirects(REDIRECTS)
        .timeout_global(Some(LONGEST_DOWNLOAD))
        .user_agent(concat!("fovea/", env!("CARGO_PKG_VERSION")))
        .build()
        .new_agent();
    let body = agent.get(address).call().map(|response| response.into_body());
    body.and_then(|body| body.into_with_config().limit(LARGEST_DOWNLOAD).read_to_vec()).map_err(|why| {
        let why = match why {
            ureq::Error::StatusCode(401 | 403) => {
                "the server refuses access; download the picture with a browser, and name the file".to_owned()
            }
            ureq::Error::StatusCode(status) => format!("the server answers {status}; check the address"),
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => "it is no valid address; check it".to_owned(),
            ureq::Error::BodyExceedsLimit(limit) => {
                format!("expected at most {} MB, got more; download and shrink the picture", limit / 1_000_000)
            }
            ureq::Error::Timeout(_) => format!(
                "it takes more than {} s; check the connection, or download the picture first",
                LONGEST_DOWNLOAD.as_secs()
            ),
            ureq::Error::TooManyRedirects => {
                format!("expected at most {REDIRECTS} redirects, got more; check the address")
            }
            ureq::Error::RequireHttpsOnly(_) => {
                "it redirects from https to http, which is not safe; name the http address".to_owned()
            }
            other => format!("{}; check the address, the connection and HTTPS_PROXY", other.into_io()),
        };
        Failure::Network(format!("cannot download {name}: {why}"))
    })
}

/// An address without user name, password and query, for messages.
fn without_secrets(address: &str) -> String {
    let plain = address.split(['?', '#']).next().unwrap_or_default();
    let (scheme, rest) = plain.split_once("//").unwrap_or_default();
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}//{host}{path}")
}

/// The first picture, and `more` after it.
///
/// # Errors
/// Those of [`picture`].
pub fn pictures(first: &Path, more: &[PathBuf]) -> Result<Vec<Picture>, Failure> {
    [first].into_iter().chain(more.iter().map(PathBuf::as_path)).map(picture).collect()
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

#[cfg(test)]
mod tests {
    use super::without_secrets;

    #[test]
    fn messages_have_no_password_and_no_query() {
        for (address, expected) in [
            ("https://example.org/a/b.png", "https://example.org/a/b.png"),
            ("https://me:secret@example.org:8080/b.png?key=secret", "https://example.org:8080/b.png"),
            ("http://example.org?key=/secret@b", "http://example.org"),
            ("http://", "http://"),
        ] {
            assert_eq!(without_secrets(address), expected, "{address}: name (got, expected)");
        }
    }
}
