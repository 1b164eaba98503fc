//! What all requests share, and the table of routes.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    Router,
    http::{HeaderValue, Method, StatusCode},
    middleware::from_fn_with_state,
    routing::{get, post},
};
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, watch};

use crate::{
    body::{BODIES, Bodies},
    engine::Engine,
    errors::refused,
    guard::{Keys, guard},
    job::Problem,
    log::Log,
    metrics::Metrics,
    pictures::RemoteRules,
    queue::Queue,
    routes::{chat, health, models, openapi, overlay, page},
    settings::Settings,
};

/// Downloads of pictures at the same time.
const DOWNLOADS: usize = 16;

/// Attention overlays that are drawn at the same time: each needs a decoded picture.
const DRAWINGS: usize = 2;

/// What all requests share.
pub(crate) struct App {
    pub(crate) settings: Settings,
    pub(crate) keys: Keys,
    /// Whether only this machine reaches the server.
    pub(crate) loopback: bool,
    pub(crate) queue: Arc<Queue>,
    pub(crate) engine: Engine,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) log: Log,
    pub(crate) ids: Ids,
    /// The time of the start, in seconds since 1970.
    pub(crate) created: u64,
    /// Whether the server is being stopped.
    pub(crate) stopping: AtomicBool,
    /// True when running answers have no more time to end.
    pub(crate) cut: watch::Sender<bool>,
    /// The memory of the bodies that are read at the same time.
    pub(crate) bodies: Arc<Bodies>,
    /// One permit per download of a picture.
    pub(crate) downloads: Arc<Semaphore>,
    /// One permit per attention overlay that is drawn.
    pub(crate) drawings: Arc<Semaphore>,
    pub(crate) remote: RemoteRules,
}

impl App {
    pub(crate) fn new(
        mut settings: Settings,
        loopback: bool,
        queue: Arc<Queue>,
        engine: Engine,
        metrics: Arc<Metrics>,
        log: Log,
    ) -> Self {
        settings.allow_hosts.push(settings.host.clone());
        Self {
            keys: Keys::new(&settings.keys),
            loopback,
            queue,
            engine,
            metrics,
            log,
            ids: Ids::default(),
            created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()),
            stopping: AtomicBool::new(false),
            cut: watch::Sender::new(false),
            bodies: Bodies::new(settings.max_body.saturating_mul(BODIES)),
            downloads: Arc::new(Semaphore::new(DOWNLOADS)),
            drawings: Arc::new(Semaphore::new(DRAWINGS)),
            remote: RemoteRules::new(settings.remote_images, settings.max_body as u64),
            settings,
        }
    }

    /// Whether web pages of this origin may use the server.
    pub(crate) fn allows_origin(&self, origin: &HeaderValue) -> bool {
        self.settings.origins.iter().any(|allowed| allowed == "*" || allowed.as_bytes() == origin.as_bytes())
    }

    /// Seconds since 1970.
    pub(crate) fn now(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}

/// All routes.
pub(crate) fn router(app: &Arc<App>) -> Router {
    let mut router = Router::new()
        .route("/v1/chat/completions", post(chat::chat))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*id}", get(models::one))
        .route("/v1/overlay/{id}", get(overlay::overlay))
        .route("/health", get(health::health))
        .route("/ready", get(health::ready))
        .route("/metrics", get(health::metrics))
        .route("/openapi.json", get(openapi::openapi));
    if app.settings.page.is_some() {
        router = router.route("/fovea-server.json", get(page::discover));
    }
    router
        .method_not_allowed_fallback(wrong_method)
        .fallback(page::page)
        .layer(from_fn_with_state(app.clone(), guard))
        .with_state(app.clone())
}

async fn wrong_method(method: Method) -> Problem {
    let message = format!("expected a method of the header `Allow`, got {method}");
    refused(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}

/// Makes ids that cannot be guessed: who knows the id of an answer can read its overlay.
#[derive(Default)]
pub(crate) struct Ids {
    /// Keys from the system's source of random numbers.
    keys: RandomState,
    next: AtomicU64,
}

impl Ids {
    /// A new id: 32 hexadecimal digits.
    pub(crate) fn next(&self) -> String {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let mut hash = Sha256::new();
        for part in 0..4_u8 {
            hash.update(self.keys.hash_one((n, part)).to_le_bytes());
        }
        hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ() {
        let (ids, others) = (Ids::default(), Ids::default());
        let all = [ids.next(), ids.next(), others.next(), others.next()];
        for (i, id) in all.iter().enumerate() {
            assert!(id.len() == 32 && !all[..i].contains(id), "{all:?}");
        }
    }
}
