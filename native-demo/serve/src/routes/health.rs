//! `GET /health` (the process runs), `GET /ready` (it can answer now), and `GET /metrics`.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{HeaderName, StatusCode, header::CONTENT_TYPE},
};
use serde_json::{Value, json};

use crate::{app::App, engine, metrics::CONTENT_TYPE as PROMETHEUS};

/// The process runs.
pub(crate) async fn health() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// Whether the model is loaded, and the server is not being stopped.
pub(crate) async fn ready(State(app): State<Arc<App>>) -> (StatusCode, Json<Value>) {
    let (status, word) = match app.engine.state() {
        _ if app.is_stopping() => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
        engine::State::Ready => (StatusCode::OK, "ready"),
        engine::State::Loading => (StatusCode::SERVICE_UNAVAILABLE, "loading"),
        // The reason may name files of the server: it is in the log.
        engine::State::Failed(_) => (StatusCode::SERVICE_UNAVAILABLE, "failed"),
    };
    (status, Json(json!({ "status": word })))
}

/// All counters, in Prometheus' text format.
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> ([(HeaderName, &'static str); 1], String) {
    ([(CONTENT_TYPE, PROMETHEUS)], app.metrics.render())
}
