//! Errors as OpenAI's JSON: `{"error": {"message", "type", "param", "code"}}`.

use axum::{
    Json,
    http::{
        HeaderValue, StatusCode,
        header::{CONNECTION, RETRY_AFTER, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
};
use fovea_openai::{RequestError, error_body};
use serde_json::Value;

use crate::job::Problem;

/// OpenAI's clients repeat a request after any status from 500 on, unless this header says no.
const SHOULD_RETRY: &str = "x-should-retry";

/// A problem with a request: `status` is 4xx. OpenAI's type of the error follows from it.
pub(crate) fn refused(status: StatusCode, code: &'static str, message: impl Into<String>) -> Problem {
    let kind = match status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::FORBIDDEN => "permission_error",
        _ => "invalid_request_error",
    };
    Problem { status: status.as_u16(), kind, ..Problem::request(code, None, message) }
}

/// A defect of the server.
pub(crate) fn internal(what: &str) -> Problem {
    Problem::server(500, "internal", format!("internal error: {what}; please report it"))
}

/// The body of the error.
pub(crate) fn body(problem: &Problem) -> Value {
    let Problem { code, param, message, kind, .. } = problem.clone();
    error_body(&RequestError { code, param, message }, kind)
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(body(&self))).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        match status {
            StatusCode::UNAUTHORIZED => drop(headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))),
            // It would take as long, or need as much memory, again.
            StatusCode::GATEWAY_TIMEOUT | StatusCode::INSUFFICIENT_STORAGE => {
                drop(headers.insert(SHOULD_RETRY, HeaderValue::from_static("false")));
            }
            StatusCode::REQUEST_TIMEOUT => drop(headers.insert(CONNECTION, HeaderValue::from_static("close"))),
            _ => {}
        }
        response
    }
}
