//! A line of the output. Input: a line's form and id, and its answer or its error. Output: one JSON object.

use std::time::SystemTime;

use fovea_model::{ErrorKind, Model, Turn};
use fovea_openai::RequestError;
use fovea_terminal::failure::Failure;
use serde_json::{Value, json};

/// Why a line has no answer.
pub fn refused(failure: &Failure) -> RequestError {
    RequestError::new(kind(failure).name(), None, failure.to_string())
}

/// The kind of a failure to answer.
pub fn kind(failure: &Failure) -> ErrorKind {
    match failure {
        Failure::Model(why) | Failure::Picture { why, .. } => why.kind(),
        Failure::Runtime(why) => ErrorKind::of_runtime(why),
        Failure::PictureFile { .. } => ErrorKind::Picture,
        _ => ErrorKind::Engine,
    }
}

/// The form of a request and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `{"image", "question"}`.
    Simple,
    /// OpenAI's batch form.
    Chat,
}

/// The beginning of an output line: what it belongs to.
pub fn head(line: u64, of: &str) -> String {
    format!("{{\"line\":{line},\"of\":\"{of}\",")
}

/// What every answer to a line has.
pub struct Reply {
    /// The form of the answer.
    pub form: Form,
    /// The line's number.
    pub line: u64,
    /// The line's hash.
    pub of: String,
    /// `id` or `custom_id`.
    pub id: Value,
}

impl Reply {
    /// The rest of the line with an answer.
    pub fn answer(&self, model: &Model, turn: &Turn) -> Value {
        // The question is not part of the line.
        let report = model.report("", turn);
        if self.form == Form::Simple {
            let mut rest = json!({ "id": self.id });
            for key in ["answer", "finish_reason", "tokens", "equivalent_share", "timing_ms", "compression"] {
                rest[key] = report[key].clone();
            }
            return rest;
        }
        let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let body = fovea_openai::completion(&format!("chatcmpl-{}", self.line), seconds, "fovea", turn, &report);
        let request = format!("req_{}", self.line);
        self.chat(json!({ "status_code": 200, "request_id": request, "body": body }), Value::Null)
    }

    /// The rest of the line with an error.
    pub fn error(&self, why: &RequestError) -> Value {
        let error = json!({ "code": why.code, "message": why.message });
        match self.form {
            Form::Simple => json!({ "id": self.id, "error": error }),
            Form::Chat => self.chat(Value::Null, error),
        }
    }

    fn chat(&self, response: Value, error: Value) -> Value {
        json!({
            "id": format!("batch_req_{}", self.line),
            "custom_id": self.id,
            "response": response,
            "error": error,
        })
    }
}
