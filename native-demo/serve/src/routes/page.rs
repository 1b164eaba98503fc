//! The page's files, with the headers of the page's own server (`fovea-web-bundle`), and `GET /fovea-server.json`, by which the
//! page finds the API. Also what has no route.

use std::{path::Path, sync::Arc};

use axum::{
    Json,
    body::Body,
    extract::{Request, State},
    http::{
        HeaderName, HeaderValue, Method, StatusCode,
        header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use tower::Service;
use tower_http::services::ServeDir;

use crate::{
    app::App,
    errors::{internal, refused},
    job::Problem,
};

/// Allows the page's own origin, wasm, images from blobs, and downloads of models from any https address.
const POLICY: &str =
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; img-src 'self' blob:; connect-src 'self' https:";

/// Isolate the page from other origins: browsers then let it share memory between its workers, which threads need.
const ISOLATION: [(&str, &str); 2] =
    [("cross-origin-opener-policy", "same-origin"), ("cross-origin-embedder-policy", "require-corp")];

/// What the page needs to use this server.
pub(crate) async fn discover(State(app): State<Arc<App>>) -> Json<Value> {
    Json(json!({ "models": [app.settings.model_name], "api": "/v1", "key": !app.keys.is_empty() }))
}

/// A file of the page. Everything else is 404.
pub(crate) async fn page(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let path = request.uri().path().to_owned();
    let reads = [Method::GET, Method::HEAD].contains(request.method());
    let Some(folder) = app.settings.page.as_ref().filter(|_| reads && !path.starts_with("/v1/")) else {
        return Err(missing());
    };
    let Ok(found) = ServeDir::new(folder).call(request).await;
    match found.status() {
        StatusCode::NOT_FOUND => return Err(missing()),
        StatusCode::INTERNAL_SERVER_ERROR => return Err(internal("a file was not read")),
        _ => {}
    }
    let has_file = found.status().is_success();
    let mut response = found.map(Body::new).into_response();
    let headers = response.headers_mut();
    if has_file {
        let name = if path.ends_with('/') { "index.html" } else { path.as_str() };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind(Path::new(name))));
    }
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    for (name, value) in ISOLATION {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    // A browser must not keep an old build.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn missing() -> Problem {
    refused(StatusCode::NOT_FOUND, "not_found", "expected a path of /openapi.json, got another one")
}

/// The media type of a file, by its name: browsers check those of modules and wasm.
fn kind(path: &Path) -> &'static str {
    match path.extension().and_then(|extension| extension.to_str()) {
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
