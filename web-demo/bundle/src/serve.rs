//! A static web server for a folder, on 127.0.0.1 only, with support for ranges. Tests can answer requests before the folder does.
//!
//! It also sends a Content-Security-Policy header. The page has the same policy in a meta tag, but a worker takes its policy
//! from the header of its script. Two more headers isolate the page and its workers from other origins.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Component, Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use percent_encoding::percent_decode_str;

use crate::BundleError;

/// Allows the page's own origin, wasm, images from blobs, and downloads of models from any https address.
const POLICY: &str =
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; img-src 'self' blob:; connect-src 'self' https:";

/// Isolate the page from other origins: browsers then let it share memory between its workers, which threads need.
const ISOLATION: [&str; 2] = ["Cross-Origin-Opener-Policy: same-origin", "Cross-Origin-Embedder-Policy: require-corp"];

/// Largest request line with headers, in bytes.
const HEAD: u64 = 64 << 10;

/// Largest request body in bytes.
const MOST: u64 = 64 << 20;

/// Read timeout. Browsers open connections that they never use.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A listening server.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    stopped: AtomicBool,
}

/// An HTTP request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The decoded path, without leading slash and query.
    pub path: String,
    /// The requested range: first and last byte; None as the last byte is the end of the file.
    pub range: Option<(u64, Option<u64>)>,
    /// The body as text.
    pub body: String,
}

/// An HTTP method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// GET.
    Get,
    /// HEAD: headers only.
    Head,
    /// POST.
    Post,
}

/// Writes a whole response.
pub type Writer = Box<dyn FnOnce(&mut TcpStream) -> io::Result<()>>;

/// A response.
pub enum Reply {
    /// This file, or the requested range of it; 404 if it can't be read.
    File(PathBuf),
    /// Written by this function, including the status line.
    Raw(Writer),
    /// This JSON.
    Json(String),
    /// 200 OK without a body.
    Empty,
    /// 404 Not Found.
    Missing,
}

impl Server {
    /// Listens on 127.0.0.1; port 0 is any free port.
    ///
    /// # Errors
    /// [`BundleError::Listen`] if the port is not available.
    pub fn listen(port: u16) -> Result<Self, BundleError> {
        let failed = |why| BundleError::Listen { port, why };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address, stopped: AtomicBool::new(false) })
    }

    /// The URL of a file.
    pub fn url(&self, file: &str) -> String {
        format!("http://{}/{file}", self.address)
    }

    /// Answers requests until [`Server::stop`], each with its own connection and thread.
    pub fn run(&self, answer: impl Fn(&Request) -> Reply + Sync) {
        thread::scope(|scope| {
            while let Ok((stream, _)) = self.listener.accept() {
                if self.stopped.load(Ordering::SeqCst) {
                    break;
                }
                // An error means that the client closed the connection.
                scope.spawn(|| serve(stream, &answer).ok());
            }
        });
    }

    /// Ends [`Server::run`] after the running requests.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        // `run` waits for a connection, so this makes one. If that fails, `run` has ended.
        let _ = TcpStream::connect(self.address);
    }
}

/// The response of a static folder to a request; never a file outside the folder.
pub fn file_of(folder: &Path, request: &Request) -> Reply {
    if request.method == Method::Post {
        return Reply::Missing;
    }
    match within(folder, &request.path) {
        Some(path) if path.is_dir() => Reply::File(path.join("index.html")),
        Some(path) => Reply::File(path),
        None => Reply::Missing,
    }
}

/// A path below a folder; None if it leads out of it.
fn within(folder: &Path, path: &str) -> Option<PathBuf> {
    let path = Path::new(path);
    path.components().all(|part| matches!(part, Component::Normal(_))).then(|| folder.join(path))
}

/// The decoded path of a URL.
fn path_of(url: &str) -> String {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    percent_decode_str(path.strip_prefix('/').unwrap_or(path)).decode_utf8_lossy().into_owned()
}

/// Handles one request, then closes the connection: a new one is cheap on the same machine.
fn serve(stream: TcpStream, answer: impl Fn(&Request) -> Reply) -> io::Result<()> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    let request = read(&stream)?;
    send(stream, &request, answer(&request))
}

/// Reads a request: the part of HTTP that browsers use.
fn read(stream: &TcpStream) -> io::Result<Request> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut head = BufReader::new(stream).take(HEAD);
    let mut words = String::new();
    head.read_line(&mut words)?;
    let mut words = words.split_whitespace();
    let (Some(method), Some(url)) = (words.next(), words.next()) else {
        return Err(bad("expected a method and a path"));
    };
    let method = match method {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        _ => return Err(bad("expected GET, HEAD or POST")),
    };
    let mut length = 0;
    let mut range = None;
    loop {
        let mut header = String::new();
        if head.read_line(&mut header)? == 0 {
            return Err(bad("expected the end of the headers"));
        }
        match header.split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.trim().parse().map_err(|_| bad("expected a length"))?;
            }
            Some((name, value)) if name.eq_ignore_ascii_case("range") => range = range_of(value.trim()),
            Some(_) => {}
            None => break,
        }
    }
    if length > MOST {
        return Err(bad("expected a smaller body"));
    }
    let mut body = Vec::new();
    head.into_inner().take(length).read_to_end(&mut body)?;
    let body = String::from_utf8_lossy(&body).into_owned();
    Ok(Request { method, path: path_of(url), range, body })
}

/// A single range of bytes; None for any other kind, which a server may ignore.
fn range_of(header: &str) -> Option<(u64, Option<u64>)> {
    let (first, last) = header.strip_prefix("bytes=")?.split_once('-')?;
    Some((first.parse().ok()?, if last.is_empty() { None } else { Some(last.parse().ok()?) }))
}

fn send(mut stream: TcpStream, request: &Request, reply: Reply) -> io::Result<()> {
    match reply {
        Reply::File(path) => match File::open(&path) {
            Ok(file) => send_file(&mut stream, request, file, kind(&path)),
            Err(_) => send(stream, request, Reply::Missing),
        },
        Reply::Raw(write) => write(&mut stream),
        Reply::Json(text) => {
            head(&mut stream, "200 OK", "application/json", text.len() as u64, &[])?;
            if request.method == Method::Head { Ok(()) } else { stream.write_all(text.as_bytes()) }
        }
        Reply::Empty => head(&mut stream, "200 OK", "text/plain", 0, &[]),
        Reply::Missing => head(&mut stream, "404 Not Found", "text/plain", 0, &[]),
    }
}

fn send_file(stream: &mut TcpStream, request: &Request, mut file: File, kind: &str) -> io::Result<()> {
    let all = file.metadata()?.len();
    let (status, first, length, range) = match request.range {
        Some((first, _)) if first >= all => ("416 Range Not Satisfiable", all, 0, Some(format!("bytes */{all}"))),
        Some((first, last)) => {
            let last = last.map_or(all - 1, |last| last.clamp(first, all - 1));
            ("206 Partial Content", first, last - first + 1, Some(format!("bytes {first}-{last}/{all}")))
        }
        None => ("200 OK", 0, all, None),
    };
    let ranges = range.map_or_else(|| "Accept-Ranges: bytes".to_owned(), |range| format!("Content-Range: {range}"));
    head(stream, status, kind, length, &[&ranges])?;
    if request.method == Method::Get {
        file.seek(SeekFrom::Start(first))?;
        io::copy(&mut file.take(length), stream)?;
    }
    Ok(())
}

/// Writes status line and headers. Browsers check the type of modules and wasm, and must not cache an old build.
fn head(stream: &mut TcpStream, status: &str, kind: &str, length: u64, more: &[&str]) -> io::Result<()> {
    let headers: &[&str] = &[
        &format!("HTTP/1.1 {status}"),
        &format!("Content-Type: {kind}"),
        &format!("Content-Length: {length}"),
        &format!("Content-Security-Policy: {POLICY}"),
        ISOLATION[0],
        ISOLATION[1],
        "X-Content-Type-Options: nosniff",
        "Cache-Control: no-store",
        "Connection: close",
    ];
    stream.write_all([headers, more, &["\r\n"]].concat().join("\r\n").as_bytes())
}

/// The media type of a file, by its name.
fn kind(path: &Path) -> &'static str {
    match path.extension().and_then(|e| e.to_str()) {
        Some("html") => "text/html; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("ts" | "txt" | "jinja" | "jsonl") => "text/plain; charset=utf-8",
        Some("json") => "application/json",
        Some("wasm") => "application/wasm",
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("webp") => "image/webp",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Sends a raw request, and returns the whole response in lower case.
    fn ask(server: &Server, request: &str) -> String {
        let mut stream = TcpStream::connect(server.address).expect("a connection");
        write!(stream, "{request}").expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer.to_lowercase()
    }

    #[test]
    fn files_have_types_and_nothing_outside_is_sent() {
        let folder = tempfile::tempdir().expect("a folder");
        let site = folder.path().join("site");
        fs::create_dir(&site).expect("a folder");
        fs::write(site.join("a b.js"), "export {}").expect("a file");
        fs::write(folder.path().join("secret"), "secret").expect("a file");
        let server = Server::listen(0).expect("a port");
        thread::scope(|scope| {
            scope.spawn(|| {
                server.run(|request| match (request.method, request.path.as_str()) {
                    (Method::Post, "take") => Reply::Json(format!("{:?}", request.body)),
                    _ => file_of(&site, request),
                });
            });
            let get =
                |path: &str| ask(&server, &format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
            let script = get("/a%20b.js?report");
            assert!(script.starts_with("http/1.1 200"), "{script}");
            assert!(script.contains("content-type: text/javascript"), "{script}");
            assert!(script.ends_with("export {}"), "{script}");
            for header in ISOLATION {
                assert!(script.contains(&header.to_lowercase()), "{header}: {script}");
            }
            for out in ["/../secret", "/%2e%2e/secret", "/..%2fsecret", "//secret", "/none", "/"] {
                let answer = get(out);
                assert!(answer.starts_with("http/1.1 404") && !answer.ends_with("secret"), "{out}: {answer}");
            }
            let post = "POST /take HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi";
            assert!(ask(&server, post).ends_with("\"hi\""));
            server.stop();
        });
    }

    #[test]
    fn ranges_are_sent_and_heads_have_no_body() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("file"), "0123456789").expect("a file");
        let server = Server::listen(0).expect("a port");
        thread::scope(|scope| {
            scope.spawn(|| server.run(|request| file_of(folder.path(), request)));
            let get = |method: &str, range: &str| {
                ask(
                    &server,
                    &format!("{method} /file HTTP/1.1\r\nHost: a\r\nRange: {range}\r\nConnection: close\r\n\r\n"),
                )
            };
            // The requested range, then the expected status, header and body.
            let cases = [
                ("bytes=2-4", "206", "content-range: bytes 2-4/10", "234"),
                ("bytes=7-", "206", "content-range: bytes 7-9/10", "789"),
                ("bytes=8-99", "206", "content-range: bytes 8-9/10", "89"),
                ("bytes=10-", "416", "content-range: bytes */10", ""),
                ("lines=1-2", "200", "accept-ranges: bytes", "0123456789"),
            ];
            for (range, status, header, body) in cases {
                let answer = get("GET", range);
                let (head, got) = answer.split_once("\r\n\r\n").expect("a head and a body");
                assert!(head.starts_with(&format!("http/1.1 {status}")) && head.contains(header), "{range}: {head}");
                assert_eq!(got, body, "{range}");
            }
            let answer = get("HEAD", "bytes=0-");
            assert!(answer.contains("content-length: 10") && answer.ends_with("\r\n\r\n"), "{answer}");
            server.stop();
        });
    }
}
