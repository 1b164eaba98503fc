//! `POST /v1/chat/completions`. Input: OpenAI's JSON. Output: OpenAI's JSON, or a stream of events ([`super::stream`]).
//!
//! Data flow: body (`body`) → `intake` (request and pictures) → the queue → the engine's events → the response. If the client
//! disconnects, hyper drops the handler or the response's body, and [`CancelOnDrop`] stops the answer.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Extension, Json,
    extract::{Request, State},
    http::{
        HeaderMap, HeaderName, StatusCode,
        header::{CONTENT_ENCODING, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use fovea_model::{Cancel, FinishReason};
use fovea_openai::{completion, keys::quoted};
use serde_json::{Value, json};
use tokio::{
    sync::{
        mpsc::{UnboundedReceiver, unbounded_channel},
        watch,
    },
    time::timeout_at,
};

use super::{
    intake::{self, Asked},
    stream,
};
use crate::{
    app::App,
    body,
    errors::refused,
    guard::Caller,
    job::{Finished, Job, JobEvent, LookedSummary, Problem},
};

/// The name that every server's model also has.
pub(crate) const ANY: &str = "fovea";

/// The engine itself ends an answer that is too late; this is only for an engine that hangs.
const GRACE: Duration = Duration::from_secs(5);

/// Stops an answer when the request ends, for whatever reason.
pub(crate) struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// The events of one answer.
pub(crate) struct Events {
    events: UnboundedReceiver<JobEvent>,
    until: Instant,
    cut: watch::Receiver<bool>,
    _guard: CancelOnDrop,
}

impl Events {
    /// The next event. The last one is `Done` or `Failed`.
    pub(crate) async fn next(&mut self) -> JobEvent {
        tokio::select! {
            // An event that is there comes first.
            biased;
            event = timeout_at((self.until + GRACE).into(), self.events.recv()) => match event {
                Ok(Some(event)) => event,
                Ok(None) => JobEvent::Failed(Problem::closing()),
                Err(_) => JobEvent::Failed(Problem::timeout()),
            },
            _ = self.cut.wait_for(|cut| *cut) => JobEvent::Failed(Problem::closing()),
        }
    }
}

/// What is the same in all parts of one answer.
pub(crate) struct Answer {
    /// Its id; its overlay has the same one.
    pub(crate) id: String,
    /// In seconds since 1970.
    pub(crate) created: u64,
    pub(crate) model: String,
    pub(crate) include_usage: bool,
}

impl Answer {
    /// The key `fovea` of an answer about pictures.
    pub(crate) fn fovea(&self, looked: &[LookedSummary]) -> Value {
        json!({ "kept": looked, "overlay": format!("/v1/overlay/{}", self.id) })
    }
}

/// Answers a request.
pub(crate) async fn chat(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    let until = Instant::now() + app.settings.times.answer;
    let (parts, body) = request.into_parts();
    if let Err(why) = check_type(&parts.headers) {
        body::drain(&parts.headers, body).await;
        return Err(why);
    }
    let settings = &app.settings;
    let share = app.bodies.share(&caller.client);
    let body::Read { bytes, share } =
        body::read(&parts.headers, body, settings.max_body, share, settings.times, until).await?;
    if app.is_stopping() {
        return Err(Problem::closing());
    }
    let Asked { mut request, user, pictures } = intake::intake(&app, bytes, share, until).await?;

    let cancel = Cancel::default();
    request.options.cancel = cancel.clone();
    let (stream, include_usage) = (request.stream, request.include_usage);
    let (sender, receiver) = unbounded_channel();
    let mut events = Events { events: receiver, until, cut: app.cut.subscribe(), _guard: CancelOnDrop(cancel.clone()) };
    let answer = Answer {
        id: format!("chatcmpl-{}", caller.line.id),
        created: app.now(),
        model: app.settings.model_name.clone(),
        include_usage,
    };
    let client = match user {
        Some(user) => format!("{}/{user}", caller.client),
        None => caller.client.clone(),
    };
    app.queue.push(Job { id: answer.id.clone(), client, request, pictures, until, cancel, events: sender })?;

    // Until the answer begins, an error has its own status.
    let first = events.next().await;
    match first {
        JobEvent::Failed(why) => Err(why),
        first if stream => {
            let keep_alive = app.settings.times.keep_alive;
            Ok(stream::response(answer, first, events, caller.line, keep_alive))
        }
        first => whole(&answer, first, events, &caller).await,
    }
}

/// The whole answer as JSON.
async fn whole(answer: &Answer, first: JobEvent, mut events: Events, caller: &Caller) -> Result<Response, Problem> {
    let mut looked = Vec::new();
    let mut event = first;
    loop {
        match event {
            JobEvent::Started { .. } | JobEvent::Token { .. } => {}
            JobEvent::Looked(pictures) => looked = pictures,
            JobEvent::Failed(why) => return Err(why),
            JobEvent::Done(done) => {
                let Finished { turn, report, usage, .. } = *done;
                caller.line.answered(&turn, &usage, finish(turn.finish_reason));
                let mut body = completion(&answer.id, answer.created, &answer.model, &turn, &report);
                if !looked.is_empty() {
                    body["fovea"] = answer.fovea(&looked);
                }
                return Ok(Json(body).into_response());
            }
        }
        event = events.next().await;
    }
}

/// OpenAI's name of the reason.
pub(crate) fn finish(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Length => "length",
        _ => "stop",
    }
}

/// The body must be JSON, and not compressed. With this type, a browser asks before it sends a request of a foreign page.
fn check_type(headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name: HeaderName| headers.get(name).map_or(Some(""), |value| value.to_str().ok());
    let wrong = |name: &str, expected: &str, got: Option<&str>| {
        let message = format!("expected the header `{name}: {expected}`, got {:?}", quoted(got.unwrap_or("?")));
        Err(refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media_type", message))
    };
    let kind = text(CONTENT_TYPE);
    let essence = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return wrong("Content-Type", "application/json", kind);
    }
    match text(CONTENT_ENCODING) {
        Some("" | "identity") => Ok(()),
        other => wrong("Content-Encoding", "identity", other),
    }
}
