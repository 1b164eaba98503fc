//! A web server for a folder, reachable from this machine only.
//!
//! It sends what any static host sends: bytes and their type, also by range. The one header on top is the policy that the
//! page has in a meta tag as well, since a worker takes its policy from the header of its script. Tests put their own
//! answers before the folder's.

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

/// Scripts and all else from the page's own origin, wasm, pictures that the page holds, and models from wherever its reader
/// says: nothing more is needed.
const POLICY: &str =
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; img-src 'self' blob:; connect-src 'self' https:";

/// Bytes of a request line and its headers.
const HEAD: u64 = 64 << 10;

/// Bytes that a request may carry.
const MOST: u64 = 64 << 20;

/// How long a connection may say nothing. Browsers open some that they never use.
const SILENCE: Duration = Duration::from_secs(20);

/// A server that listens.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    stopped: AtomicBool,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What it wants.
    pub method: Method,
    /// What it is for: decoded, without the leading slash and the query.
    pub path: String,
    /// The first and the last byte that it asks for, where it doesn't ask for all; without a last one, up to the end.
    pub range: Option<(u64, Option<u64>)>,
    /// What it brings, as text.
    pub body: String,
}

/// What a request wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Something.
    Get,
    /// What is said of it, without itself.
    Head,
    /// To bring something.
    Post,
}

/// Writes an answer by itself.
pub type Writer = Box<dyn FnOnce(&mut TcpStream) -> io::Result<()>>;

/// What a request gets.
pub enum Reply {
    /// The bytes of this file, or the range of them that is asked for, or "not found" where it can't be read.
    File(PathBuf),
    /// Whatever this writes, from the status line on.
    Raw(Writer),
    /// This JSON.
    Json(String),
    /// Thanks.
    Taken,
    /// "Not found".
    Missing,
}

impl Server {
    /// Listens on 127.0.0.1; port 0 takes any that is free.
    ///
    /// # Errors
    /// Where the port can't be had.
    pub fn listen(port: u16) -> Result<Self, BundleError> {
        let failed = |why| BundleError::Listen { port, why };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address, stopped: AtomicBool::new(false) })
    }

    /// The address of a file.
    pub fn url(&self, file: &str) -> String {
        format!("http://{}/{file}", self.address)
    }

    /// Answers requests until [`Server::stop`], each on a connection and a thread of its own.
    pub fn run(&self, answer: impl Fn(&Call) -> Reply + Sync) {
        thread::scope(|scope| {
            while let Ok((line, _)) = self.listener.accept() {
                if self.stopped.load(Ordering::SeqCst) {
                    break;
                }
                // Who went away without waiting for the answer doesn't need it.
                scope.spawn(|| serve(line, &answer).ok());
            }
        });
    }

    /// Ends [`Server::run`], once what is being answered is answered.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        // It waits for a connection, so it gets one; where that fails, it listens no more.
        let _ = TcpStream::connect(self.address);
    }
}

/// The answer that a plain folder has to a request; never a file outside of it.
pub fn file_of(folder: &Path, call: &Call) -> Reply {
    if call.method == Method::Post {
        return Reply::Missing;
    }
    match within(folder, &call.path) {
        Some(path) if path.is_dir() => Reply::File(path.join("index.html")),
        Some(path) => Reply::File(path),
        None => Reply::Missing,
    }
}

/// A path below a folder; None where it would lead out of it.
fn within(folder: &Path, path: &str) -> Option<PathBuf> {
    let path = Path::new(path);
    path.components().all(|part| matches!(part, Component::Normal(_))).then(|| folder.join(path))
}

/// The path of a URL, decoded.
fn path_of(url: &str) -> String {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    percent_decode_str(path.strip_prefix('/').unwrap_or(path)).decode_utf8_lossy().into_owned()
}

/// One request and its answer. Then the connection ends: on one machine a new one costs nothing.
fn serve(line: TcpStream, answer: impl Fn(&Call) -> Reply) -> io::Result<()> {
    line.set_read_timeout(Some(SILENCE))?;
    let call = read(&line)?;
    send(line, &call, answer(&call))
}

/// A request, as much of HTTP as a browser needs.
fn read(line: &TcpStream) -> io::Result<Call> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut head = BufReader::new(line).take(HEAD);
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
        return Err(bad("expected less"));
    }
    let mut body = Vec::new();
    head.into_inner().take(length).read_to_end(&mut body)?;
    let body = String::from_utf8_lossy(&body).into_owned();
    Ok(Call { method, path: path_of(url), range, body })
}

/// The one range of bytes of a header; None for anything else, which a server need not know.
fn range_of(header: &str) -> Option<(u64, Option<u64>)> {
    let (first, last) = header.strip_prefix("bytes=")?.split_once('-')?;
    Some((first.parse().ok()?, if last.is_empty() { None } else { Some(last.parse().ok()?) }))
}

fn send(mut line: TcpStream, call: &Call, reply: Reply) -> io::Result<()> {
    match reply {
        Reply::File(path) => match File::open(&path) {
            Ok(file) => send_file(&mut line, call, file, kind(&path)),
            Err(_) => send(line, call, Reply::Missing),
        },
        Reply::Raw(write) => write(&mut line),
        Reply::Json(text) => {
            head(&mut line, "200 OK", "application/json", text.len() as u64, &[])?;
            if call.method == Method::Head { Ok(()) } else { line.write_all(text.as_bytes()) }
        }
        Reply::Taken => head(&mut line, "200 OK", "text/plain", 0, &[]),
        Reply::Missing => head(&mut line, "404 Not Found", "text/plain", 0, &[]),
    }
}

fn send_file(line: &mut TcpStream, call: &Call, mut file: File, kind: &str) -> io::Result<()> {
    let all = file.metadata()?.len();
    let (status, first, length, range) = match call.range {
        Some((first, _)) if first >= all => ("416 Range Not Satisfiable", all, 0, Some(format!("bytes */{all}"))),
        Some((first, last)) => {
            let last = last.map_or(all - 1, |last| last.clamp(first, all - 1));
            ("206 Partial Content", first, last - first + 1, Some(format!("bytes {first}-{last}/{all}")))
        }
        None => ("200 OK", 0, all, None),
    };
    let ranges = range.map_or_else(|| "Accept-Ranges: bytes".to_owned(), |range| format!("Content-Range: {range}"));
    head(line, status, kind, length, &[&ranges])?;
    if call.method == Method::Get {
        file.seek(SeekFrom::Start(first))?;
        io::copy(&mut file.take(length), line)?;
    }
    Ok(())
}

/// A browser takes a module or wasm only under its type, and must not keep yesterday's build.
fn head(line: &mut TcpStream, status: &str, kind: &str, length: u64, more: &[&str]) -> io::Result<()> {
    let headers: &[&str] = &[
        &format!("HTTP/1.1 {status}"),
        &format!("Content-Type: {kind}"),
        &format!("Content-Length: {length}"),
        &format!("Content-Security-Policy: {POLICY}"),
        "X-Content-Type-Options: nosniff",
        "Cache-Control: no-store",
        "Connection: close",
    ];
    line.write_all([headers, more, &["\r\n"]].concat().join("\r\n").as_bytes())
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

    /// What a client sees who types the request by hand.
    fn ask(server: &Server, request: &str) -> String {
        let mut line = TcpStream::connect(server.address).expect("a connection");
        write!(line, "{request}").expect("a request");
        let mut answer = String::new();
        line.read_to_string(&mut answer).expect("an answer");
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
                server.run(|call| match (call.method, call.path.as_str()) {
                    (Method::Post, "take") => Reply::Json(format!("{:?}", call.body)),
                    _ => file_of(&site, call),
                });
            });
            let get =
                |path: &str| ask(&server, &format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
            let script = get("/a%20b.js?report");
            assert!(script.starts_with("http/1.1 200"), "{script}");
            assert!(script.contains("content-type: text/javascript"), "{script}");
            assert!(script.ends_with("export {}"), "{script}");
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
    fn ranges_are_sent_alone_and_heads_without_bodies() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("file"), "0123456789").expect("a file");
        let server = Server::listen(0).expect("a port");
        thread::scope(|scope| {
            scope.spawn(|| server.run(|call| file_of(folder.path(), call)));
            let get = |method: &str, range: &str| {
                ask(
                    &server,
                    &format!("{method} /file HTTP/1.1\r\nHost: a\r\nRange: {range}\r\nConnection: close\r\n\r\n"),
                )
            };
            // What is asked for, then status, range and body that it gets.
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
