//! An answer as server-sent events: `data: {chunk}` for each part, and `data: [DONE]` at the end.

use std::{convert::Infallible, sync::Arc, time::Duration};

use async_stream::stream;
use axum::{
    body::{Body, Bytes},
    http::{
        HeaderName, HeaderValue,
        header::{CACHE_CONTROL, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use fovea_openai::chunk;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::chat::{Answer, Events, finish};
use crate::{
    errors,
    job::{Finished, JobEvent},
    log::Line,
};

/// The last event.
const DONE: &[u8] = b"data: [DONE]\n\n";

/// A comment, which clients ignore. It keeps proxies from closing a connection on which nothing is sent.
const COMMENT: &[u8] = b": keep-alive\n\n";

/// The response to a request whose answer has begun with the event `first`.
pub(crate) fn response(
    answer: Answer,
    first: JobEvent,
    mut events: Events,
    line: Arc<Line>,
    keep_alive: Duration,
) -> Response {
    // Until the end is known: a client that leaves drops the body without a word.
    line.failed("disconnected");
    let body = stream! {
        let part = |delta: Value, finish: Option<&str>| {
            let mut chunk = chunk(&answer.id, answer.created, &answer.model, delta, finish);
            if answer.include_usage {
                chunk["usage"] = Value::Null;
            }
            chunk
        };
        yield event(&part(json!({ "role": "assistant", "content": "" }), None));
        let mut next = Some(first);
        loop {
            let this = match next.take() {
                Some(first) => first,
                None => match timeout(keep_alive, events.next()).await {
                    Ok(event) => event,
                    Err(_) => {
                        yield Ok(Bytes::from_static(COMMENT));
                        continue;
                    }
                },
            };
            match this {
                JobEvent::Started { .. } => {}
                JobEvent::Looked(looked) => {
                    let mut chunk = part(json!({}), None);
                    chunk["fovea"] = answer.fovea(&looked);
                    yield event(&chunk);
                }
                JobEvent::Token { text } => yield event(&part(json!({ "content": text }), None)),
                JobEvent::Failed(why) => {
                    line.failed(why.code);
                    yield event(&errors::body(&why));
                    return;
                }
                JobEvent::Done(done) => {
                    let Finished { turn, usage, .. } = *done;
                    let reason = finish(turn.finish_reason);
                    line.answered(&turn, &usage, reason);
                    yield event(&part(json!({}), Some(reason)));
                    if answer.include_usage {
                        let mut chunk = part(json!({}), None);
                        chunk["choices"] = json!([]);
                        chunk["usage"] = usage;
                        yield event(&chunk);
                    }
                    yield Ok(Bytes::from_static(DONE));
                    return;
                }
            }
        }
    };
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        // nginx would collect events otherwise.
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (headers, Body::from_stream(body)).into_response()
}

/// One event. JSON has no line breaks.
fn event(value: &Value) -> Result<Bytes, Infallible> {
    Ok(format!("data: {value}\n\n").into())
}
