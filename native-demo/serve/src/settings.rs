//! The settings of a server: what `fovea serve` reads from its arguments, and what tests set.

use std::{path::PathBuf, time::Duration};

use fovea_model::AskOptions;

/// Settings of a server. The default is a server on a free port of 127.0.0.1, without keys.
#[derive(Clone)]
pub struct Settings {
    /// Name or address of the interface to listen on.
    pub host: String,
    /// The port; 0 is any free port.
    pub port: u16,
    /// More host names that requests may have in their `Host` header. Only checked where `host` is a loopback address.
    pub allow_hosts: Vec<String>,
    /// API keys. Empty: no key is required.
    pub keys: Vec<String>,
    /// Origins of web pages that may use the server (CORS); `*` is every origin.
    pub origins: Vec<String>,
    /// The model's name in requests and answers.
    pub model_name: String,
    /// Options of a request that does not name them.
    pub usual: AskOptions,
    /// Largest number of tokens of an answer. A request for more is refused.
    pub max_new_tokens: usize,
    /// Largest number of pictures of a request.
    pub max_pictures: usize,
    /// Largest number of bytes of all texts of a request.
    pub max_prompt_bytes: usize,
    /// Largest body of a request, in bytes, and largest number of bytes of its pictures. All bodies that are read at the same
    /// time may have eight times as many, those of one client four times.
    pub max_body: usize,
    /// Whether pictures may be addresses (http, https) that the server downloads.
    pub remote_images: bool,
    /// Folder of the page; None: no page.
    pub page: Option<PathBuf>,
    /// Largest number of open connections.
    pub max_connections: usize,
    /// Largest number of requests that wait for the model.
    pub queue: usize,
    /// Bytes of pictures, and of results computed from them, that are kept for the next question.
    pub cache_bytes: u64,
    /// Whether each request is logged on stderr.
    pub log: bool,
    /// Time limits.
    pub times: Times,
}

/// Time limits.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// From the start of a connection, or from the end of a response, to the end of the next request's headers.
    pub headers: Duration,
    /// Between two parts of a request's body.
    pub body_part: Duration,
    /// Of a whole body.
    pub body: Duration,
    /// Until a client that reads nothing is disconnected.
    pub write: Duration,
    /// From the request to the end of the answer.
    pub answer: Duration,
    /// Between two events of a stream; a comment is sent after it.
    pub keep_alive: Duration,
    /// For running answers when the server is stopped.
    pub shutdown: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            headers: Duration::from_secs(10),
            body_part: Duration::from_secs(30),
            body: Duration::from_secs(120),
            write: Duration::from_secs(30),
            answer: Duration::from_secs(300),
            keep_alive: Duration::from_secs(15),
            shutdown: Duration::from_secs(10),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 0,
            allow_hosts: Vec::new(),
            keys: Vec::new(),
            origins: Vec::new(),
            model_name: "fovea-demo".to_owned(),
            usual: AskOptions { max_new_tokens: 256, ..AskOptions::default() },
            max_new_tokens: 1024,
            max_pictures: 8,
            max_prompt_bytes: 256 << 10,
            max_body: 32_000_000,
            remote_images: false,
            page: None,
            max_connections: 1024,
            queue: 256,
            cache_bytes: 2_000_000_000,
            log: false,
            times: Times::default(),
        }
    }
}
