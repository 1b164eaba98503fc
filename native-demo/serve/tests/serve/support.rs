//! Starts a server in this process, and is its client: HTTP/1.1 over a TCP stream.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::mpsc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use fovea_model::{Cancel, Checkpoint, LoadOptions, Model, demo};
use fovea_runtime::{DeviceChoice, OpenDevice};
use fovea_serve::{Server, Settings, engine::Opener};
use fovea_terminal::failure::Failure;
use pollster::block_on;
use serde_json::{Value, json};
use tokio::{runtime, sync::oneshot};

/// A picture of the demo.
const RACK: &[u8] = include_bytes!("../../../pictures/rack.jpg");

/// A question about it, and the right answer.
pub const QUESTION: &str = "What number is on the blue plate?";
/// The answer to [`QUESTION`].
pub const ANSWER: &str = "95";

/// Longest time for anything.
const PATIENCE: Duration = Duration::from_secs(120);

/// Loads the demo checkpoint.
pub fn opener() -> Opener {
    Box::new(|| {
        block_on(async {
            let checkpoint = Checkpoint::open(demo::source()).await?;
            let device = OpenDevice::open(&DeviceChoice::Cpu).await?;
            Ok(Model::load(checkpoint, device, LoadOptions::default(), &Cancel::default(), |_| {}).await?)
        })
    })
}

/// As [`opener`], but it waits until the sender sends or is dropped.
pub fn gated() -> (Opener, mpsc::Sender<()>) {
    let (open, gate) = mpsc::channel();
    let mut opener = opener();
    let gated: Opener = Box::new(move || {
        let _ = gate.recv();
        opener()
    });
    (gated, open)
}

/// A running server. It stops when it is dropped.
pub struct Running {
    /// Its address.
    pub address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), Failure>>>,
}

impl Running {
    /// Starts a server with the demo checkpoint.
    pub fn start(settings: Settings) -> Self {
        Self::with(settings, opener()).unwrap_or_else(|why| panic!("the server did not start: {why}"))
    }

    /// Starts a server.
    pub fn with(settings: Settings, opener: Opener) -> Result<Self, Failure> {
        let (stop, stopped) = oneshot::channel();
        let (started, address) = mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime = runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads");
            runtime.block_on(async {
                let server = Server::bind(settings, opener).await?;
                started.send(server.address()).expect("a test that waits");
                // A sender that is dropped stops the server too.
                server.run(async { _ = stopped.await }).await
            })
        });
        match address.recv() {
            Ok(address) => Ok(Self { address, stop: Some(stop), thread: Some(thread) }),
            Err(_) => match thread.join().expect("no panic") {
                Err(why) => Err(why),
                Ok(()) => panic!("the server ended before it listened"),
            },
        }
    }

    /// Asks the server to stop.
    pub fn stop(&mut self) {
        drop(self.stop.take());
    }

    /// Waits until the server has ended, and returns its result.
    pub fn ended(mut self) -> Result<(), Failure> {
        self.thread.take().expect("a thread").join().expect("no panic")
    }

    /// Waits until the model is loaded.
    pub fn ready(self) -> Self {
        self.until("/ready is 200", |server| server.get("/ready").status == 200);
        self
    }

    /// Waits until something is so.
    pub fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let begin = Instant::now();
        while !is_so(self) {
            assert!(begin.elapsed() < PATIENCE, "expected within {PATIENCE:?}: {what}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// An open connection.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        stream
    }

    /// Sends a request, which says that the connection ends with it.
    pub fn begin(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> TcpStream {
        let mut stream = self.connect();
        // A server that refuses a large body may close before it has read it.
        let _ = stream.write_all(&[head(method, path, headers, body.len()).as_bytes(), body].concat());
        stream
    }

    /// Sends a request, and reads the reply.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        Reply::read(self.begin(method, path, headers, body))
    }

    /// GET.
    pub fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], b"")
    }

    /// Begins a request for an answer.
    pub fn begin_chat(&self, body: &Value) -> TcpStream {
        self.begin("POST", CHAT, &[JSON], body.to_string().as_bytes())
    }

    /// Asks for an answer.
    pub fn chat(&self, body: &Value) -> Reply {
        Reply::read(self.begin_chat(body))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            // A panic would hide the one of the test.
            let _ = thread.join();
        }
    }
}

/// The path for answers.
pub const CHAT: &str = "/v1/chat/completions";
/// The type of a body.
pub const JSON: (&str, &str) = ("content-type", "application/json");

/// The first lines of a request.
pub fn head(method: &str, path: &str, headers: &[(&str, &str)], length: usize) -> String {
    let has = |name: &str| headers.iter().any(|(other, _)| *other == name);
    let mut head = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
    if !has("host") {
        head += "host: localhost\r\n";
    }
    if length > 0 && !has("content-length") {
        head += &format!("content-length: {length}\r\n");
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head + "\r\n"
}

/// A user's message: the picture, and a text.
pub fn about_rack(text: &str) -> Value {
    let url = format!("data:image/jpeg;base64,{}", STANDARD.encode(RACK));
    json!({ "role": "user", "content": [
        { "type": "image_url", "image_url": { "url": url } },
        { "type": "text", "text": text },
    ] })
}

/// A request with [`QUESTION`].
pub fn question() -> Value {
    json!({ "messages": [about_rack(QUESTION)] })
}

/// A request whose answer has many tokens: random ones rarely end it.
pub fn long_stream() -> Value {
    json!({
        "messages": [about_rack(QUESTION)],
        "temperature": 100,
        "seed": 1,
        "max_tokens": 512,
        "stream": true,
    })
}

/// A reply.
#[derive(Debug)]
pub struct Reply {
    /// The status; 0 if the server closed the connection without one.
    pub status: u16,
    headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Reply {
    /// Reads until the server closes the connection.
    pub fn read(mut stream: TcpStream) -> Self {
        let mut bytes = Vec::new();
        // A connection that is reset after the reply has the reply.
        let _ = stream.read_to_end(&mut bytes);
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            return Self { status: 0, headers: Vec::new(), body: bytes };
        };
        let head = String::from_utf8(bytes[..end].to_vec()).expect("a head in UTF-8");
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("a status");
        let headers = lines.filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        let mut reply = Self { status, headers, body: bytes[end + 4..].to_vec() };
        if reply.header("transfer-encoding") == Some("chunked") {
            reply.body = joined(&reply.body);
        }
        reply
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body in UTF-8")
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|why| panic!("expected JSON, got {why}: {:?}", self.text()))
    }

    /// Checks the status, and returns the JSON.
    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "status (got, expected): {}", String::from_utf8_lossy(&self.body));
        self.json()
    }

    /// Checks that this is an error of OpenAI's form with a status, and returns its code.
    #[track_caller]
    pub fn error(&self, status: u16) -> String {
        let body = self.expect(status);
        let error = body["error"].as_object().unwrap_or_else(|| panic!("expected an error, got {body}"));
        let keys: Vec<&str> = error.keys().map(String::as_str).collect();
        for key in ["message", "type", "param", "code"] {
            assert!(keys.contains(&key), "expected {key}, got {body}");
        }
        assert!(self.header("x-request-id").is_some(), "expected x-request-id");
        error["code"].as_str().expect("a code").to_owned()
    }

    /// The data of the events; comments are left out. The last one is `[DONE]`, if it came.
    pub fn events(&self) -> (Vec<Value>, bool) {
        let data = self.text().split("\n\n").filter_map(|event| event.strip_prefix("data: "));
        let data: Vec<&str> = data.collect();
        let done = data.last() == Some(&"[DONE]");
        let chunks = data[..data.len() - usize::from(done)].iter();
        (chunks.map(|chunk| serde_json::from_str(chunk).expect("JSON")).collect(), done)
    }
}

/// The data of a chunked body; an unfinished chunk is left out.
fn joined(mut chunks: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    while let Some(end) = chunks.windows(2).position(|two| two == b"\r\n") {
        let size = std::str::from_utf8(&chunks[..end]).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
        let Some(chunk) = size.filter(|size| *size > 0).and_then(|size| chunks.get(end + 2..end + 2 + size)) else {
            break;
        };
        data.extend_from_slice(chunk);
        chunks = chunks.get(end + 4 + chunk.len()..).unwrap_or_default();
    }
    data
}
