//! `fovea serve`: OpenAI's chat completions over HTTP. One model on one device answers many clients, one question at a time.
//!
//! Data flow: `accept` (connections) → `guard` (`Host`, CORS, API key) → `routes` (a request becomes a [`job`]) →
//! [`queue`] (fair between clients) → [`engine`] (one thread with the model) → events → JSON or a stream.
//!
//! HTTP has its own threads: they never wait for the model.

// The description of the API is one large `json!`.
#![recursion_limit = "512"]

mod accept;
mod app;
pub mod args;
mod body;
pub mod cache;
pub mod engine;
mod errors;
mod guard;
pub mod job;
mod log;
pub mod metrics;
pub mod overlay;
pub mod pictures;
pub mod queue;
mod routes;
pub mod server;
pub mod settings;
mod shutdown;

use std::time::Duration;

use fovea_model::Cancel;
use fovea_terminal::{failure::Failure, logging, text};
use tokio::{runtime::Builder, sync::oneshot};

pub use args::ServeArgs;
pub use server::Server;
pub use settings::{Settings, Times};

use engine::Opener;
use shutdown::Signals;

/// Threads of the HTTP side.
const THREADS: usize = 2;

/// Most threads for work that blocks: reading requests, downloads, drawing overlays, files of the page.
const BLOCKING: usize = 64;

/// Listens, prints the address on stdout, and serves until SIGINT or SIGTERM.
///
/// # Errors
/// [`Failure::Usage`] for settings that contradict each other and for a port that is not free; what loading the model reports.
pub async fn run(args: ServeArgs) -> Result<(), Failure> {
    // The engine and HTTP survive a panic, so it is not the program's error.
    logging::print_panics();
    let settings = args.settings()?;
    let cancel = Cancel::default();
    let opener = args.opener(&settings, cancel.clone());
    let runtime =
        Builder::new_multi_thread().worker_threads(THREADS).max_blocking_threads(BLOCKING).enable_all().build();
    let runtime = runtime.map_err(|why| Failure::internal(&format!("no threads: {why}")))?;
    let result = runtime.block_on(serve(settings, opener, cancel));
    // A thread that still works does not keep the process.
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}

async fn serve(settings: Settings, opener: Opener, cancel: Cancel) -> Result<(), Failure> {
    let signals = Signals::listen()?;
    let server = Server::bind(settings, opener).await?;
    let address = server.address();
    text::out(|to| writeln!(to, "listening on http://{address}"))?;
    let (stop, stopped) = oneshot::channel();
    tokio::spawn(signals.watch(move || {
        // A model that is being loaded is stopped too.
        cancel.cancel();
        let _ = stop.send(());
    }));
    server.run(async { _ = stopped.await }).await
}
