//! One JSON line per request on stderr. It never contains a prompt, a picture, a key or a query.
//!
//! A separate thread writes the lines: a slow reader of stderr delays no answer. Where 1,024 lines wait, more are lost.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU16, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

use axum::{
    extract::{MatchedPath, Request},
    http::StatusCode,
};
use fovea_model::Turn;
use fovea_terminal::text;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::metrics::Metrics;

/// Lines that may wait to be written.
const WAITING: usize = 1024;

/// Longest method in a line, in characters.
const LONGEST_METHOD: usize = 16;

/// Longest path in a line, in characters.
const LONGEST_PATH: usize = 200;

/// The status of a request whose client has disconnected before the response, as other servers log it.
const DISCONNECTED: u16 = 499;

/// Where lines are written.
#[derive(Clone)]
pub(crate) struct Log(Option<SyncSender<Option<String>>>);

impl Log {
    /// Starts the thread that writes, if `on`.
    pub(crate) fn start(on: bool) -> (Self, Option<JoinHandle<()>>) {
        if !on {
            return (Self(None), None);
        }
        let (lines, waiting): (_, Receiver<Option<String>>) = sync_channel(WAITING);
        let writer = thread::Builder::new().name("log".to_owned()).spawn(move || {
            while let Ok(Some(line)) = waiting.recv() {
                text::note(&line);
            }
        });
        // Without a thread nothing is logged.
        (Self(writer.is_ok().then_some(lines)), writer.ok())
    }

    /// Ends the thread after the lines that wait.
    pub(crate) fn end(&self) {
        if let Some(lines) = &self.0 {
            let _ = lines.send(None);
        }
    }

    fn write(&self, line: &Value) {
        if let Some(lines) = &self.0 {
            let _ = lines.try_send(Some(line.to_string()));
        }
    }
}

/// The beginning of a text of a client. A terminal or a reader of logs could interpret characters that are not visible ASCII.
fn shown(text: &str, longest: usize) -> String {
    let visible = |c: char| if c.is_ascii_graphic() { c } else { char::REPLACEMENT_CHARACTER };
    text.chars().take(longest).map(visible).collect()
}

/// Numbers of an answer.
#[derive(Clone, Default)]
struct Numbers {
    prompt_tokens: Option<usize>,
    completion_tokens: Option<usize>,
    cached: Option<usize>,
    finish: Option<&'static str>,
}

/// The line of one request. It is written, and the response is counted, when its last owner drops it: the end of the
/// response's body.
pub(crate) struct Line {
    log: Log,
    metrics: Arc<Metrics>,
    begin: Instant,
    /// The id of the request.
    pub(crate) id: String,
    client: OnceLock<String>,
    method: String,
    path: String,
    route: String,
    status: AtomicU16,
    numbers: Mutex<Numbers>,
}

impl Line {
    /// Begins the line of `request`.
    pub(crate) fn begin(log: Log, metrics: Arc<Metrics>, id: String, request: &Request) -> Self {
        let route = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
        Self {
            log,
            metrics,
            begin: Instant::now(),
            id,
            client: OnceLock::new(),
            method: shown(request.method().as_str(), LONGEST_METHOD),
            path: shown(request.uri().path(), LONGEST_PATH),
            route,
            status: AtomicU16::new(DISCONNECTED),
            numbers: Mutex::default(),
        }
    }

    /// Who sends the request.
    pub(crate) fn client(&self, client: &str) {
        let _ = self.client.set(client.to_owned());
    }

    /// The status of the response.
    pub(crate) fn status(&self, status: StatusCode) {
        self.status.store(status.as_u16(), Ordering::Relaxed);
    }

    /// The numbers of a complete answer.
    pub(crate) fn answered(&self, turn: &Turn, usage: &Value, finish: &'static str) {
        let whole = |key: &str| usage[key].as_u64().map(|n| n as usize);
        *self.numbers.lock().unwrap_or_else(PoisonError::into_inner) = Numbers {
            prompt_tokens: whole("prompt_tokens"),
            completion_tokens: whole("completion_tokens"),
            cached: Some(turn.statistics.cached_tokens),
            finish: Some(finish),
        };
    }

    /// The answer has ended without being complete, after its first bytes were sent.
    pub(crate) fn failed(&self, code: &'static str) {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner).finish = Some(code);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let status = self.status.load(Ordering::Relaxed);
        self.metrics.response(&self.route, status);
        let level = match status {
            // Probes ask until the model is loaded.
            _ if self.route == "/ready" => "info",
            500.. => "error",
            400.. => "warn",
            _ => "info",
        };
        let numbers = self.numbers.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut line = json!({
            "time": OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default(),
            "level": level,
            "id": self.id,
            "client": self.client.get(),
            "method": self.method,
            "path": self.path,
            "status": status,
            "ms": (self.begin.elapsed().as_secs_f64() * 1e3).round() as u64,
        });
        if let Some(finish) = numbers.finish {
            line["prompt_tokens"] = json!(numbers.prompt_tokens);
            line["completion_tokens"] = json!(numbers.completion_tokens);
            line["cached"] = json!(numbers.cached);
            line["finish"] = json!(finish);
        }
        self.log.write(&line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_a_client_is_short_and_visible() {
        assert_eq!(shown("/v1/a\u{202e}b\u{9b} ", LONGEST_PATH), "/v1/a\u{fffd}b\u{fffd}\u{fffd}", "(got, expected)");
        assert_eq!(shown(&"A".repeat(100), LONGEST_METHOD), "A".repeat(16), "(got, expected)");
    }
}
