//! What the HTTP side and the engine exchange. A [`Job`] is one request: the engine answers it with [`JobEvent`]s.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use fovea_model::{Cancel, Error, ErrorKind, Looked, Turn};
use fovea_openai::{ChatRequest, RequestError};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc::UnboundedSender;

/// A request for an answer.
pub struct Job {
    /// Its name in answers and logs, and that of its overlay.
    pub id: String,
    /// Who asks: `CALLER`, or `CALLER/USER`. The queue is fair between callers, and between the users of one caller.
    pub client: String,
    /// The request.
    pub request: ChatRequest,
    /// The files of the pictures, one per place in the messages. They are decoded when it is their turn.
    pub pictures: Vec<Arc<[u8]>>,
    /// The time at which the answer is of no use any more.
    pub until: Instant,
    /// Stops the answer.
    pub cancel: Cancel,
    /// Where the events go. Not bounded: an answer has at most as many as it has tokens, and each is small.
    pub events: UnboundedSender<JobEvent>,
}

impl Job {
    /// Bytes of its pictures and its texts.
    pub fn bytes(&self) -> usize {
        let pictures: usize = self.pictures.iter().map(|file| file.len()).sum();
        let text: usize = self.request.messages.0.iter().map(|message| message.text().len()).sum();
        let stops: usize = self.request.options.stop.iter().map(String::len).sum();
        pictures + text + stops
    }

    /// Why it must not run any more: the client has gone, or the time is over.
    pub fn is_over(&self) -> Option<Problem> {
        if Instant::now() >= self.until {
            Some(Problem::timeout())
        } else if self.cancel.is_cancelled() || self.events.is_closed() {
            Some(Problem::cancelled())
        } else {
            None
        }
    }

    /// Sends an event; false if the client has gone.
    pub fn send(&self, event: JobEvent) -> bool {
        self.events.send(event).is_ok()
    }
}

/// An event of a job. The last one is `Done` or `Failed`.
#[derive(Debug)]
pub enum JobEvent {
    /// The request is valid, and the engine computes its answer.
    Started {
        /// The time in the queue.
        waited: Duration,
    },
    /// Which visual tokens are kept, one entry per picture. It comes before the first token; without pictures it is absent.
    Looked(Vec<LookedSummary>),
    /// A piece of the answer, not empty.
    Token {
        /// The text.
        text: String,
    },
    /// The answer is complete.
    Done(Box<Finished>),
    /// There is no answer, or no complete one.
    Failed(Problem),
}

/// The visual tokens of one picture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LookedSummary {
    /// Rows and columns of the map of patches.
    pub grid: [usize; 2],
    /// Number of visual tokens that enter the text model.
    pub tokens: usize,
    /// Indices of those that the last layer reads, rising.
    pub kept: Vec<usize>,
}

impl From<&Looked> for LookedSummary {
    fn from(looked: &Looked) -> Self {
        Self { grid: [looked.grid.height, looked.grid.width], tokens: looked.token_count(), kept: looked.kept.clone() }
    }
}

/// A complete answer.
#[derive(Debug)]
pub struct Finished {
    /// The answer and its statistics.
    pub turn: Turn,
    /// What `fovea ask --json` prints.
    pub report: Value,
    /// `usage` of OpenAI's form.
    pub usage: Value,
}

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// A stable name for programs.
    pub code: &'static str,
    /// OpenAI's `type`: `invalid_request_error`, `rate_limit_error` or `server_error`.
    pub kind: &'static str,
    /// Expected, got, and what to do.
    pub message: String,
    /// The key of the body that is wrong.
    pub param: Option<String>,
    /// Seconds after which the same request may succeed.
    pub retry_after: Option<u64>,
}

/// `type` of an error of the request.
const INVALID: &str = "invalid_request_error";
/// `type` of an error of the server.
const SERVER: &str = "server_error";

impl Problem {
    /// An error of the request.
    pub fn request(code: &'static str, param: Option<&str>, message: impl Into<String>) -> Self {
        let (message, param) = (message.into(), param.map(str::to_owned));
        Self { status: 400, code, kind: INVALID, message, param, retry_after: None }
    }

    /// An error of the server.
    pub fn server(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, kind: SERVER, message: message.into(), param: None, retry_after: None }
    }

    /// With the seconds after which the same request may succeed.
    #[must_use]
    pub fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    /// The queue has no room.
    pub fn busy(message: impl Into<String>, seconds: u64) -> Self {
        Self { kind: "rate_limit_error", ..Self::server(429, "queue_full", message).retry_after(seconds) }
    }

    /// The time is over. 504 and not 408, which says that the client was too slow.
    pub fn timeout() -> Self {
        Self::server(
            504,
            "timeout",
            "expected an answer in the time limit of the server, got none; ask for fewer tokens",
        )
    }

    /// The client has gone, or the server ends.
    pub fn cancelled() -> Self {
        Self::server(503, "cancelled", "the answer was stopped")
    }

    /// The server ends.
    pub fn closing() -> Self {
        Self::server(503, "closing", "the server is being stopped; ask again later").retry_after(5)
    }

    /// The engine has no model: it could not be opened.
    pub fn not_ready() -> Self {
        Self::server(503, "not_ready", "the model is not loaded; see /ready, and ask again later").retry_after(5)
    }

    /// The engine panicked. The log has the reason: it may contain what a client must not read.
    pub fn panicked() -> Self {
        Self::server(500, "internal", "internal error: no answer; see the log of the server, and report it")
    }

    /// An error of the model. `seconds`: how long it takes to open a device again.
    pub fn of(error: &Error, seconds: u64) -> Self {
        let text = error.to_string();
        match error.kind() {
            ErrorKind::Option => match error {
                Error::Option { option: "messages", .. } => Self::request("messages", Some("messages"), text),
                Error::Option { option, .. } => Self::request("option", Some(parameter(option)), text),
                _ => Self::request("option", None, text),
            },
            // OpenAI's name: clients look for it to shorten the conversation.
            ErrorKind::TooLong => Self::request("context_length_exceeded", Some("messages"), text),
            ErrorKind::Picture => Self::request("picture", Some("messages"), text),
            _ if is_template(error) => Self::request("template", Some("messages"), text),
            // Not 503: this request is too large for the free memory, but the server is healthy and answers smaller ones.
            ErrorKind::Memory => Self::server(507, "memory", text),
            ErrorKind::DeviceLost => {
                Self::server(503, "device_lost", "the device was lost and is opened again; ask again")
                    .retry_after(seconds)
            }
            ErrorKind::Stopped => Self::cancelled(),
            // The text may name files of the server.
            ErrorKind::Checkpoint => {
                Self::server(500, "checkpoint", "the checkpoint is broken; see the log of the server")
            }
            ErrorKind::Device => Self::server(503, "device", text),
            _ => Self::server(500, "internal", text),
        }
    }
}

/// Whether the chat template of the checkpoint refuses the messages.
fn is_template(error: &Error) -> bool {
    matches!(error, Error::Tokenizer { file, .. } if file == "chat template")
}

/// The key of the body for an option of the command line.
fn parameter(option: &str) -> &str {
    match option {
        "max-new-tokens" => "max_tokens",
        "compress" => "compression",
        "top-p" => "top_p",
        "top-k" => "top_k",
        "repetition-penalty" => "repetition_penalty",
        "the number of pictures" => "messages",
        _ => option,
    }
}

impl From<RequestError> for Problem {
    fn from(why: RequestError) -> Self {
        Self::request(why.code, why.param.as_deref(), why.message)
    }
}

#[cfg(test)]
mod tests {
    use fovea_runtime::Error as RuntimeError;

    use super::*;

    #[test]
    fn every_error_of_the_model_has_a_status() {
        let option = |option| Error::Option { option, expected: "1".into(), got: "0".into() };
        let tokenizer = |file: &str| Error::Tokenizer { file: file.into(), why: "two users in a row".into() };
        let memory = RuntimeError::OutOfMemory { what: "a question".into(), need: 2, have: 1, hint: "ask less".into() };
        for (error, status, code, kind, param) in [
            (option("messages"), 400, "messages", INVALID, Some("messages")),
            (option("max-new-tokens"), 400, "option", INVALID, Some("max_tokens")),
            (option("temperature"), 400, "option", INVALID, Some("temperature")),
            (option("compress"), 400, "option", INVALID, Some("compression")),
            (Error::TooLong { need: 9, have: 8 }, 400, "context_length_exceeded", INVALID, Some("messages")),
            (Error::Picture("broken".into()), 400, "picture", INVALID, Some("messages")),
            (tokenizer("chat template"), 400, "template", INVALID, Some("messages")),
            (tokenizer("tokenizer.json"), 500, "checkpoint", SERVER, None),
            (memory.into(), 507, "memory", SERVER, None),
            (RuntimeError::DeviceLost("unplugged".into()).into(), 503, "device_lost", SERVER, None),
            (Error::Cancelled, 503, "cancelled", SERVER, None),
            (Error::NotFinite { stage: "the logits" }, 500, "internal", SERVER, None),
            (Error::Internal("x"), 500, "internal", SERVER, None),
        ] {
            let got = Problem::of(&error, 7);
            let parts = (got.status, got.code, got.kind, got.param.as_deref());
            assert_eq!(parts, (status, code, kind, param), "{error}: (got, expected)");
            assert_eq!(got.retry_after, (code == "device_lost").then_some(7), "{error}: seconds (got, expected)");
        }
    }

    #[test]
    fn files_of_the_server_are_not_named() {
        let file = "/home/secret/model.safetensors".to_owned();
        let error = Error::Runtime(RuntimeError::WeightFile { file, why: "cut".into() });
        assert!(!Problem::of(&error, 1).message.contains("secret"));
    }
}
