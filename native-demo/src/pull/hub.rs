//! Requests to the Hugging Face hub: the name of a file in, its size and hash or its bytes out.
//!
//! The crate `hf-hub` gives the addresses, the list of files and the layout of the cache. Its own requests are not
//! used: they send the token to the host that a download is redirected to, and ignore `Retry-After`. Here redirects are
//! followed one by one, and only the hub gets the token.

use std::{
    cell::Cell,
    env, fs, future,
    io::{self, Read},
    path::PathBuf,
    rc::Rc,
    thread,
    time::Duration,
};

use fovea_runtime::{
    hub_cache::{self, Repository},
    source::{ReadAt, Reading},
};
use fovea_terminal::{failure::Failure, text};
use hf_hub::{Repo, RepoType, api::RepoInfo};
use ureq::{
    Agent, Body,
    http::{HeaderMap, Response, StatusCode, Uri},
};

/// Number of times that a request is repeated.
pub const TRIES: u32 = 5;
/// Longest time that a response can let us wait.
const LONGEST_WAIT: Duration = Duration::from_secs(120);
/// Longest time without a byte; then the connection counts as cut.
const SILENCE: Duration = Duration::from_secs(60);
const REDIRECTS: usize = 10;
/// Largest response that is read into memory, bytes.
const LARGEST: u64 = 100_000_000;
/// Longest text from a server in a message, and longest name of a file, characters.
const LONGEST: usize = 200;

/// A file on the hub.
pub struct Remote {
    /// Its path in the repository.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its name in the cache: the SHA-256 of a large file, git's hash of another.
    pub etag: String,
}

/// Why a request has no usable response.
pub enum Trouble {
    /// The connection failed; a later request may succeed.
    Cut(String),
    /// A later request will not succeed.
    Failed(Failure),
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Cut(why) => Self::Network(format!("{why}; check the connection, HF_ENDPOINT and HTTPS_PROXY")),
            Trouble::Failed(failure) => failure,
        }
    }
}

/// The pause before a request is repeated.
pub fn pause(tries: u32) -> Duration {
    Duration::from_millis(250 << tries)
}

/// One repository of the hub.
pub struct Hub {
    agent: Agent,
    /// The address of the hub, without a slash at the end.
    address: String,
    origin: Uri,
    token: Option<String>,
    repo: Repo,
}

impl Hub {
    /// The hub and the token that the environment names.
    ///
    /// # Errors
    /// [`Failure::Usage`] where HF_ENDPOINT is not an address or has secrets in it, or the token has other characters
    /// than a token.
    pub fn new(repository: &Repository) -> Result<Self, Failure> {
        let address = env::var("HF_ENDPOINT").ok().filter(|address| !address.is_empty());
        let address = address.unwrap_or_else(|| "https://huggingface.co".to_owned()).trim_end_matches('/').to_owned();
        let plain = |uri: &Uri| uri.authority().is_some_and(|at| !at.as_str().contains('@')) && uri.query().is_none();
        // The value can contain a password: it is not printed.
        let Some(origin) = http(&address).filter(plain) else {
            let why = "HF_ENDPOINT: expected an address such as https://huggingface.co, without user name, password \
                       and query; the token goes into HF_TOKEN";
            return Err(Failure::Usage(why.to_owned()));
        };
        let token = token();
        if token.as_ref().is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_graphic())) {
            let why = "HF_TOKEN: expected letters, digits and punctuation, got other characters";
            return Err(Failure::Usage(why.to_owned()));
        }
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            // A compressed response has another size than the file.
            .accept_encoding("identity")
            .user_agent(concat!("fovea/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(SILENCE))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            .build()
            .new_agent();
        let revision = repository.revision.clone().unwrap_or_else(|| "main".to_owned());
        let repo = Repo::with_revision(repository.id.clone(), RepoType::Model, revision);
        Ok(Self { agent, address, origin, token, repo })
    }

    /// The repository and its revision.
    pub fn repo(&self) -> &Repo {
        &self.repo
    }

    /// The commit of the revision, and the names of all files.
    ///
    /// # Errors
    /// [`Failure::Network`].
    pub fn info(&self) -> Result<RepoInfo, Failure> {
        let bytes = self.read(&format!("{}/api/{}", self.address, self.repo.api_url()), None)?;
        let read = serde_json::from_slice(&bytes).map_err(|why| why.to_string());
        let plain = |info: RepoInfo| if is_plain(&info.sha) { Ok(info) } else { Err(info.sha) };
        read.and_then(plain).map_err(|got| {
            let (from, got) = (host(&self.origin), short(&got));
            Failure::Network(format!("{from}: expected a commit and a list of files, got {got}"))
        })
    }

    fn address(&self, commit: &str, name: &str) -> String {
        format!("{}/{}/resolve/{commit}/{name}", self.address, self.repo.url())
    }

    /// Size and hash of a file.
    ///
    /// # Errors
    /// [`Failure::Network`].
    pub fn file(&self, commit: &str, name: &str) -> Result<Remote, Failure> {
        let response = self.send(true, &self.address(commit, name), Some(name), None)?;
        let headers = response.headers();
        // A redirect to another host has the length of its own text.
        let length = header(headers, "content-length").filter(|_| response.status().is_success());
        let size = header(headers, "x-linked-size").or(length).and_then(|size| size.parse().ok());
        let etag = header(headers, "x-linked-etag").or_else(|| header(headers, "etag"));
        let etag = etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"')).filter(|etag| is_plain(etag));
        match (size, etag) {
            (Some(size), Some(etag)) => Ok(Remote { name: name.to_owned(), size, etag: etag.to_owned() }),
            _ => Err(Failure::Network(format!("{name}: expected its size and its etag from the hub, got none"))),
        }
    }

    /// The bytes of a small file.
    ///
    /// # Errors
    /// [`Failure::Network`].
    pub fn bytes(&self, commit: &str, name: &str) -> Result<Vec<u8>, Failure> {
        self.read(&self.address(commit, name), Some(name))
    }

    /// The bytes at an address.
    fn read(&self, address: &str, file: Option<&str>) -> Result<Vec<u8>, Failure> {
        let body = self.send(false, address, file, None)?.into_body();
        let cut = |why: ureq::Error| Failure::from(Trouble::Cut(format!("cannot read {address}: {}", why.into_io())));
        body.into_with_config().limit(LARGEST).read_to_vec().map_err(cut)
    }

    /// A response with the bytes of a file from `first` on, or with the whole file where the server ignores `first`.
    pub fn download(&self, commit: &str, name: &str, first: u64) -> Result<Response<Body>, Trouble> {
        self.send(false, &self.address(commit, name), Some(name), Some(first).filter(|first| *first > 0))
    }

    /// Fills `into` with the bytes of a file from `first` on.
    fn read_at(&self, commit: &str, name: &str, first: u64, into: &mut [u8]) -> Result<(), Failure> {
        let mut tries = 0;
        loop {
            let done = self.download(commit, name, first).and_then(|response| {
                let ignored = if response.status() == StatusCode::PARTIAL_CONTENT { 0 } else { first };
                let mut body = response.into_body().into_reader();
                let read = io::copy(&mut body.by_ref().take(ignored), &mut io::sink());
                read.and_then(|_| body.read_exact(into)).map_err(|why| Trouble::Cut(format!("{name}: {why}")))
            });
            match done {
                Err(Trouble::Cut(_)) if tries < TRIES => {
                    thread::sleep(pause(tries));
                    tries += 1;
                }
                done => return done.map_err(Failure::from),
            }
        }
    }

    /// Follows redirects. A HEAD request ends where the hub describes the file: the next host may not know its hash.
    /// Messages name `file`.
    fn send(
        &self,
        head: bool,
        address: &str,
        file: Option<&str>,
        first: Option<u64>,
    ) -> Result<Response<Body>, Trouble> {
        let broken = |why: String| Trouble::Failed(Failure::Network(why));
        let mut address = address.parse::<Uri>().map_err(|why| broken(format!("{address}: {why}")))?;
        for _ in 0..=REDIRECTS {
            let response = self.answer(head, &address, first)?;
            let (status, headers) = (response.status(), response.headers());
            let described = headers.contains_key("x-linked-etag") && headers.contains_key("x-linked-size");
            if status.is_success() || (head && status.is_redirection() && described) {
                return Ok(response);
            }
            if !status.is_redirection() {
                return Err(self.refused(&address, file, &response));
            }
            let next = header(headers, "location").and_then(|location| target(&address, location));
            let from = host(&address);
            let wrong = || broken(format!("{from}: expected a redirect to an http or https address, got another"));
            address = next.ok_or_else(wrong)?;
        }
        Err(broken(format!("expected at most {REDIRECTS} redirects, got more")))
    }

    /// One request, repeated while the hub is busy. Other hosts get no second request: a download starts again at the
    /// hub, because the address at the other host expires.
    fn answer(&self, head: bool, address: &Uri, first: Option<u64>) -> Result<Response<Body>, Trouble> {
        let at_hub = address.scheme() == self.origin.scheme() && address.authority() == self.origin.authority();
        let mut tries = 0;
        loop {
            let mut request = if head { self.agent.head(address.clone()) } else { self.agent.get(address.clone()) };
            if let Some(token) = self.token.as_ref().filter(|_| at_hub) {
                request = request.header("Authorization", format!("Bearer {token}"));
            }
            if let Some(first) = first {
                request = request.header("Range", format!("bytes={first}-"));
            }
            let response = request
                .call()
                .map_err(|why| Trouble::Cut(format!("cannot reach {}: {}", host(address), why.into_io())))?;
            let status = response.status();
            let busy = status.as_u16() == 429 || status.is_server_error();
            let wait = retry_after(&response).unwrap_or_else(|| pause(tries));
            if !(busy && at_hub) || tries == TRIES || wait > LONGEST_WAIT {
                return Ok(response);
            }
            text::note(&format!(
                "note: {} answers {status}; trying again in {:.1} s",
                host(address),
                wait.as_secs_f64()
            ));
            thread::sleep(wait);
            tries += 1;
        }
    }

    /// The error of a response without a file.
    fn refused(&self, address: &Uri, file: Option<&str>, response: &Response<Body>) -> Trouble {
        let (status, from, id) = (response.status(), host(address), self.repo.url());
        if address.authority() != self.origin.authority() {
            return Trouble::Cut(format!("{from} answers {status}"));
        }
        Trouble::Failed(Failure::Network(match (status.as_u16(), file) {
            (401 | 403, _) => format!(
                "no access to {id} ({status}): check the name; for a private or gated repository set HF_TOKEN, and \
                 accept the licence on {}/{id}",
                self.address
            ),
            (404, Some(file)) => format!(
                "{from} lists {file} in {id}, but does not have it ({status}); run the same command again later"
            ),
            (404, None) => format!(
                "{from} has no {id} with the revision `{}` ({status}): check both; a private repository also gives \
                 this answer without HF_TOKEN",
                self.repo.revision()
            ),
            (429, _) => format!(
                "{from} refuses more requests ({status}): wait {}, then run the same command again",
                retry_after(response).map_or("some minutes".to_owned(), |wait| format!("{} s", wait.as_secs()))
            ),
            _ => format!("{from} answers {status}; run the same command again later"),
        }))
    }
}

/// A file on the hub, for reads of its header.
pub struct OnHub {
    /// The hub.
    pub hub: Rc<Hub>,
    /// The commit.
    pub commit: String,
    /// The path in the repository.
    pub name: String,
    /// The size in bytes.
    pub size: u64,
    /// Gets the failure of a read: the error of the read has no exit code.
    pub failure: Rc<Cell<Option<Failure>>>,
}

impl ReadAt for OnHub {
    fn len(&self) -> u64 {
        self.size
    }

    fn read_at<'a>(&'a self, offset: u64, into: &'a mut [u8]) -> Reading<'a> {
        let read = self.hub.read_at(&self.commit, &self.name, offset, into);
        Box::pin(future::ready(read.map_err(|failure| {
            let why = io::Error::other(failure.to_string());
            self.failure.set(Some(failure));
            why
        })))
    }
}

/// The token from the places that `huggingface_hub` reads. `hf-hub` knows only the file.
fn token() -> Option<String> {
    let cleaned = |text: String| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    let variable = |name: &str| env::var(name).ok().and_then(cleaned);
    let file = || variable("HF_TOKEN_PATH").map(PathBuf::from).or_else(|| Some(hub_cache::home()?.join("token")));
    variable("HF_TOKEN")
        .or_else(|| variable("HUGGING_FACE_HUB_TOKEN"))
        .or_else(|| file().and_then(|file| fs::read_to_string(file).ok()).and_then(cleaned))
}

/// The value of a header.
pub fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The host and the port of an address, for messages: the rest of it can contain secrets.
fn host(address: &Uri) -> &str {
    let authority = address.authority().map_or("the hub", |authority| authority.as_str());
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

/// The start of a text from a server, for messages.
pub fn short(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// An address of http or https.
fn http(address: &str) -> Option<Uri> {
    let known = |uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.authority().is_some();
    address.parse().ok().filter(known)
}

/// The pause that a busy server asks for, in seconds; dates are ignored.
fn retry_after(response: &Response<Body>) -> Option<Duration> {
    header(response.headers(), "retry-after").and_then(|seconds| seconds.trim().parse().ok()).map(Duration::from_secs)
}

/// The address that a redirect of `from` names, which may be relative. None where it is not http or https.
fn target(from: &Uri, location: &str) -> Option<Uri> {
    let (scheme, authority) = (from.scheme_str()?, from.authority()?);
    // A scheme is before every slash and query.
    let scheme_end = location.find([':', '/', '?', '#']).filter(|end| location[*end..].starts_with(':'));
    let address = if scheme_end.is_some() {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else {
        let folder = from.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    };
    http(&address)
}

/// Whether a name from the hub is safe as the name of a file: no folder, no hidden file, no special character, not too
/// long.
pub fn is_plain(name: &str) -> bool {
    let known = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    !name.is_empty() && name.len() <= LONGEST && !name.starts_with('.') && name.chars().all(known)
}

#[cfg(test)]
mod tests {
    use super::target;

    #[test]
    fn redirects_can_be_relative() {
        let from = "https://hub.example/org/name/resolve/main/a.json?download=true".parse().expect("an address");
        for (location, expected) in [
            ("https://cdn.example/x?y=http://z", "https://cdn.example/x?y=http://z"),
            ("//cdn.example/x", "https://cdn.example/x"),
            ("/api/x?to=https://z", "https://hub.example/api/x?to=https://z"),
            ("b.json", "https://hub.example/org/name/resolve/main/b.json"),
        ] {
            let got = target(&from, location).map(|address| address.to_string());
            assert_eq!(got.as_deref(), Some(expected), "{location}: address (got, expected)");
        }
        for location in ["ftp://cdn.example/x", "file:///etc/passwd", "mailto:a@b.example", "data:,x"] {
            assert_eq!(target(&from, location), None, "{location}: address (got, expected)");
        }
    }
}
