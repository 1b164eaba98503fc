//! The arguments of `fovea serve`.

use std::{
    env::{self, VarError},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use axum::http::uri::Authority;
use clap::Args;
use fovea_model::{AskOptions, Cancel, Checkpoint, Compression, Model};
use fovea_runtime::{DeviceChoice, OpenDevice, memory};
use fovea_terminal::{
    failure::Failure,
    load,
    options::{LoadArgs, compress_help, compression, count, device},
    text,
};
use url::{Position, Url};

use crate::{
    engine::Opener,
    settings::{Settings, Times},
};

/// The variable with the API keys.
const KEYS: &str = "FOVEA_API_KEY";

/// Name of the embedded demo checkpoint.
const DEMO: &str = "fovea-demo";

/// Tokens of an answer whose request does not name a number.
const USUAL_TOKENS: usize = 256;

/// `fovea serve`.
#[derive(Args)]
pub struct ServeArgs {
    /// A checkpoint of the LLaVA family: a folder, or a repository in the cache of the Hugging Face hub (ORG/NAME); without it the
    /// embedded demo checkpoint.
    #[arg(short, long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// The model's name in requests and answers; without it ORG/NAME or the folder's name. The name `fovea` works too.
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub model_name: Option<String>,
    /// auto, cpu, wgpu, wgpu:N, wgpu:NAME, cuda or cuda:N. auto selects a GPU, or the CPU where there is none.
    #[arg(long, default_value = "auto", value_parser = device)]
    pub device: DeviceChoice,
    /// How the model is loaded.
    #[command(flatten)]
    pub load: LoadArgs,
    /// Which visual tokens the model uses in requests without `compression`: a method and its settings; without it as in the
    /// checkpoint. --help lists the methods.
    #[arg(long, value_name = "SPEC", value_parser = compression, long_help = compress_help())]
    pub compress: Option<Compression>,

    /// The address to listen on. One that other machines reach (such as 0.0.0.0) needs an API key.
    ///
    /// The connection is not encrypted: for other machines, put a proxy with TLS in front of the server.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1", help_heading = "Access")]
    pub host: String,
    /// The port; 0 is any free port.
    #[arg(long, value_name = "N", default_value = "8080", value_parser = port, help_heading = "Access")]
    pub port: u16,
    /// A file with the API keys, one per line. Clients send one as `Authorization: Bearer KEY`. Without it, the keys are
    /// those of the variable FOVEA_API_KEY.
    ///
    /// With several keys, each is a separate client in the queue and in the log. /health and /ready need no key.
    #[arg(long, value_name = "FILE", help_heading = "Access")]
    pub api_key_file: Option<PathBuf>,
    /// An origin whose web pages may use the server (CORS), such as <https://example.org>; may be repeated. * is every
    /// origin.
    #[arg(long, value_name = "ORIGIN", value_parser = origin, help_heading = "Access")]
    pub allow_origin: Vec<String>,
    /// One more name in the header `Host` of requests; may be repeated.
    ///
    /// A server on 127.0.0.1 only accepts localhost and addresses of this machine: a web page whose name is pointed at
    /// 127.0.0.1 must not reach it.
    #[arg(long, value_name = "NAME", value_parser = host_name, help_heading = "Access")]
    pub allow_host: Vec<String>,
    /// Download pictures whose url is an address (http, https). Addresses of private networks are refused.
    #[arg(long, help_heading = "Access")]
    pub allow_remote_images: bool,
    /// A folder with the page (`fovea-web-bundle` writes it), which is served at /.
    #[arg(long, value_name = "DIR", help_heading = "Access")]
    pub page: Option<PathBuf>,

    /// Largest body of a request, such as 32MB. All bodies that are read or wait have at most eight times as many bytes.
    #[arg(long, value_name = "SIZE", default_value = "32MB", value_parser = body, help_heading = "Limits")]
    pub max_body: usize,
    /// Most pictures of a request.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = pictures, help_heading = "Limits")]
    pub max_pictures: usize,
    /// Most bytes of all texts of a request, such as 256KiB.
    #[arg(long, value_name = "SIZE", default_value = "256KiB", value_parser = body, help_heading = "Limits")]
    pub max_prompt_bytes: usize,
    /// Most tokens of an answer. A request that does not name a number gets at most 256.
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = count, help_heading = "Limits")]
    pub max_new_tokens: usize,
    /// Most requests that wait for the model; more are refused with 429.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = count, help_heading = "Limits")]
    pub queue: usize,
    /// Longest time from a request to the end of its answer, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = seconds, help_heading = "Limits")]
    pub timeout: Duration,
    /// Most open connections; more get status 503 and are closed.
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = count, help_heading = "Limits")]
    pub max_connections: usize,
    /// Memory for results about earlier pictures and conversations, which save time for the next question about them.
    #[arg(long, value_name = "SIZE", default_value = "2GB", value_parser = memory::size, help_heading = "Limits")]
    pub picture_cache: u64,
}

impl ServeArgs {
    /// The settings of the server.
    ///
    /// # Errors
    /// [`Failure::Usage`] for a file of keys that cannot be read or has none, and for a folder that is not the page's.
    pub fn settings(&self) -> Result<Settings, Failure> {
        if let Some(page) = self.page.as_ref().filter(|page| !page.join("index.html").is_file()) {
            let page = page.display();
            return Err(Failure::Usage(format!("--page {page}: expected a folder with an index.html, got none")));
        }
        let usual = AskOptions {
            compression: self.compress.clone(),
            max_new_tokens: USUAL_TOKENS.min(self.max_new_tokens),
            ..AskOptions::default()
        };
        Ok(Settings {
            host: self.host.clone(),
            port: self.port,
            allow_hosts: self.allow_host.clone(),
            keys: self.keys()?,
            origins: self.allow_origin.clone(),
            model_name: self.model_name.clone().unwrap_or_else(|| name_of(self.model.as_deref())),
            usual,
            max_new_tokens: self.max_new_tokens,
            max_pictures: self.max_pictures,
            max_prompt_bytes: self.max_prompt_bytes,
            max_body: self.max_body,
            remote_images: self.allow_remote_images,
            page: self.page.clone(),
            max_connections: self.max_connections,
            queue: self.queue,
            cache_bytes: self.picture_cache,
            log: true,
            times: Times { answer: self.timeout, ..Times::default() },
        })
    }

    /// What loads the model. `cancel` stops it.
    pub fn opener(&self, settings: &Settings, cancel: Cancel) -> Opener {
        let (model, device, load) = (self.model.clone(), self.device.clone(), self.load);
        let usual = settings.usual.clone();
        Box::new(move || {
            // Not `load::model`, which keeps a model on the CPU until the process ends.
            let model = pollster::block_on(async {
                let checkpoint = Checkpoint::open(load::source(model.as_deref())?).await?;
                usual.check(checkpoint.fits())?;
                let device = OpenDevice::open(&device).await?;
                Ok::<_, Failure>(Model::load(checkpoint, device, load, &cancel, |_| {}).await?)
            })?;
            for note in model.notes() {
                text::note(&format!("note: {}", text::line(note)));
            }
            text::note("the model is loaded");
            Ok(model)
        })
    }

    fn keys(&self) -> Result<Vec<String>, Failure> {
        let (source, text) = match (&self.api_key_file, env::var(KEYS)) {
            (Some(file), _) => {
                let source = format!("--api-key-file {}", file.display());
                let text = fs::read_to_string(file);
                let text = text.map_err(|why| Failure::Usage(format!("{source}: cannot read it: {why}")))?;
                note_access(file);
                (source, text)
            }
            (None, Ok(text)) => (KEYS.to_owned(), text),
            (None, Err(VarError::NotPresent)) => return Ok(Vec::new()),
            (None, Err(VarError::NotUnicode(_))) => (KEYS.to_owned(), String::new()),
        };
        keys_in(&text).ok_or_else(|| {
            // The file's content must not be printed.
            Failure::Usage(format!(
                "{source}: expected one key per line, of visible ASCII characters without spaces, got others or none"
            ))
        })
    }
}

/// Prints a note about a file that other users of this machine can read.
#[cfg(unix)]
fn note_access(file: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let is_open = |of: fs::Metadata| of.is_file() && of.permissions().mode() & 0o077 != 0;
    if fs::metadata(file).is_ok_and(is_open) {
        let file = file.display().to_string();
        text::note(&format!(
            "note: other users of this machine can read the keys; run `chmod 600 {}`",
            text::line(&file)
        ));
    }
}

#[cfg(not(unix))]
fn note_access(_: &Path) {}

/// One key per line; None without a key, and for one that a client could not send.
fn keys_in(text: &str) -> Option<Vec<String>> {
    // Windows' editors begin a file with a byte order mark.
    let text = text.trim_start_matches('\u{feff}');
    let keys: Vec<String> = text.lines().map(str::trim).filter(|key| !key.is_empty()).map(str::to_owned).collect();
    let sendable = |key: &String| key.bytes().all(|byte| byte.is_ascii_graphic());
    (!keys.is_empty() && keys.iter().all(sendable)).then_some(keys)
}

/// The name of a checkpoint: its id on the hub, or its folder's name.
fn name_of(model: Option<&Path>) -> String {
    let Some(model) = model else { return DEMO.to_owned() };
    let folder = model.is_dir().then(|| model.canonicalize().ok()).flatten();
    let name = folder.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    name.unwrap_or_else(|| model.to_string_lossy().into_owned())
}

fn name(text: &str) -> Result<String, String> {
    let good = !text.trim().is_empty() && text.len() <= 200 && !text.chars().any(char::is_control);
    if good { Ok(text.to_owned()) } else { Err("expected a name of 1 to 200 bytes".to_owned()) }
}

fn port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| "expected a port from 0 to 65535".to_owned())
}

fn pictures(text: &str) -> Result<usize, String> {
    let within = text.parse().ok().filter(|n| *n <= fovea_openai::MOST_PICTURES);
    within.ok_or_else(|| format!("expected a whole number from 0 to {}", fovea_openai::MOST_PICTURES))
}

/// Bytes that a request may have.
fn body(text: &str) -> Result<usize, String> {
    let bytes = memory::size(text).map_err(|why| why.to_string())?;
    let within = usize::try_from(bytes).ok().filter(|bytes| (1_000..=1_000_000_000).contains(bytes));
    within.ok_or_else(|| "expected a size from 1kB to 1GB".to_owned())
}

fn seconds(text: &str) -> Result<Duration, String> {
    let within = text.parse().ok().filter(|seconds| (1..=86_400).contains(seconds));
    within.map(Duration::from_secs).ok_or_else(|| "expected a whole number of seconds from 1 to 86400".to_owned())
}

/// An origin as browsers send it: scheme, host, and the port if it is not the scheme's usual one.
fn origin(text: &str) -> Result<String, String> {
    let is_origin = |url: Url| url.has_host() && url[..Position::BeforePath].eq_ignore_ascii_case(text);
    let good = text == "*" || (!text.contains('@') && Url::parse(text).is_ok_and(is_origin));
    let wrong = "expected an origin such as https://example.org (no path, no usual port), or *";
    if good { Ok(text.to_ascii_lowercase()) } else { Err(wrong.to_owned()) }
}

/// A name or an address, as in `Host` but without a port.
fn host_name(text: &str) -> Result<String, String> {
    let good = text.parse::<Authority>().is_ok_and(|host| !text.contains('@') && host.host() == text);
    if good { Ok(text.to_owned()) } else { Err("expected a host name such as fovea.lan, without a port".to_owned()) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        serve: ServeArgs,
    }

    fn read(args: &[&str]) -> Result<ServeArgs, String> {
        let program = Program::try_parse_from([&["program"], args].concat());
        program.map(|program| program.serve).map_err(|why| why.to_string())
    }

    #[test]
    fn the_defaults_are_those_of_the_settings() {
        let (args, usual) = (read(&[]).unwrap_or_else(|why| panic!("{why}")), Settings::default());
        assert_eq!((args.host.as_str(), args.port), (usual.host.as_str(), 8080));
        assert_eq!((args.max_body, args.max_prompt_bytes), (usual.max_body, usual.max_prompt_bytes));
        assert_eq!((args.max_pictures, args.max_new_tokens), (usual.max_pictures, usual.max_new_tokens));
        assert_eq!((args.queue, args.max_connections), (usual.queue, usual.max_connections));
        assert_eq!((args.picture_cache, args.timeout), (usual.cache_bytes, usual.times.answer));
        assert_eq!(name_of(args.model.as_deref()), usual.model_name);
    }

    #[test]
    fn values_are_checked() {
        for (args, expected) in [
            (["--port", "70000"], "a port from 0 to 65535"),
            (["--max-body", "1"], "from 1kB to 1GB"),
            (["--max-pictures", "65"], "from 0 to 64"),
            (["--timeout", "0"], "from 1 to 86400"),
            (["--allow-origin", "example.org"], "an origin"),
            (["--allow-origin", "https://example.org/"], "an origin"),
            (["--allow-origin", "https://example.org/a"], "an origin"),
            (["--allow-origin", "https://example.org:443"], "an origin"),
            (["--allow-origin", "https://a@example.org"], "an origin"),
            (["--allow-origin", "data:a"], "an origin"),
            (["--allow-host", "fovea.lan:80"], "a host name"),
            (["--allow-host", "a@fovea.lan"], "a host name"),
            (["--allow-host", ""], "a host name"),
            (["--model-name", ""], "a name"),
        ] {
            assert!(read(&args).is_err_and(|why| why.contains(expected)), "{args:?}");
        }
        for origin in ["https://example.org", "http://localhost:5173", "tauri://localhost", "*"] {
            assert!(read(&["--allow-origin", origin]).is_ok(), "{origin}");
        }
        let args = read(&["--allow-origin", "HTTPS://Example.org:8443", "--allow-host", "Fovea.lan"]);
        let args = args.unwrap_or_else(|why| panic!("{why}"));
        assert_eq!(
            (args.allow_origin[0].as_str(), args.allow_host[0].as_str()),
            ("https://example.org:8443", "Fovea.lan")
        );
    }

    #[test]
    fn keys_are_lines() {
        assert_eq!(keys_in("one\n\n two \n"), Some(vec!["one".to_owned(), "two".to_owned()]));
        assert_eq!(keys_in("\u{feff}one\r\n"), Some(vec!["one".to_owned()]));
        for text in ["", "\n", "a b", "schl\u{fc}ssel"] {
            assert_eq!(keys_in(text), None, "{text:?}");
        }
    }
}
