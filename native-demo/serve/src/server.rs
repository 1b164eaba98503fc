//! A server: listens, starts the engine, and runs until it is stopped.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
    time::Duration,
};

use fovea_terminal::{failure::Failure, text};
use tokio::{
    net::{TcpListener, TcpSocket, lookup_host},
    task::spawn_blocking,
    time::{sleep, timeout},
};

use crate::{
    accept,
    app::{App, router},
    body::BODIES,
    engine::{Engine, EngineSettings, Opener, State},
    log::Log,
    metrics::Metrics,
    queue::{Queue, QueueLimits},
    settings::Settings,
};

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// Files that are not connections: the model, the page, stderr.
const OTHER_FILES: u64 = 128;

/// Answers whose attention overlays are kept.
const OVERLAYS: usize = 256;

/// How long the engine and the log may take to end.
const END: Duration = Duration::from_secs(2);

/// Time between two looks at the engine: while the model is loaded, and afterwards.
const LOOKS: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];

/// A server that listens. It answers as soon as [`Server::run`] is awaited, also while the model is loaded.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    app: Arc<App>,
    connections: usize,
    writer: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens, and begins to load the model with `opener` on its own thread. To be called in a tokio runtime.
    ///
    /// # Errors
    /// [`Failure::Usage`] for a host that other machines reach if there is no key, and where the system does not let this
    /// process listen.
    pub async fn bind(settings: Settings, opener: Opener) -> Result<Self, Failure> {
        let (host, port) = (settings.host.as_str(), settings.port);
        let refused = |why: io::Error| not_listening(host, port, &why);
        let addresses: Vec<SocketAddr> = lookup_host((host, port)).await.map_err(refused)?.collect();
        let loopback = addresses.iter().all(|address| address.ip().is_loopback());
        if !loopback && settings.keys.is_empty() {
            return Err(Failure::Usage(format!(
                "--host {host}: other machines reach it, so expected --api-key-file FILE or FOVEA_API_KEY, got no key; make \
                 one with `openssl rand -hex 32`, or use --host 127.0.0.1"
            )));
        }
        let listener = listen_on_one(&addresses).map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let connections = open_connections(settings.max_connections);

        let metrics = Metrics::new();
        let queue = Queue::new(QueueLimits { jobs: settings.queue, bytes: settings.max_body.saturating_mul(BODIES) });
        let engine = EngineSettings { cache_bytes: settings.cache_bytes, overlays: OVERLAYS };
        let engine = Engine::start(opener, queue.clone(), engine, metrics.clone());
        let (log, writer) = Log::start(settings.log);
        let app = Arc::new(App::new(settings, loopback, queue, engine, metrics, log));
        Ok(Self { listener, address, app, connections, writer })
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`. Running answers then have [`crate::Times::shutdown`] to end; waiting ones are refused.
    ///
    /// # Errors
    /// What loading the model has reported, and [`Failure::Panic`] if the engine has ended: the server then stops.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), Failure> {
        let Self { listener, app, connections, writer, .. } = self;
        let mut failure = None;
        let stop = async {
            tokio::select! {
                () = stop => {}
                why = failed(&app.engine) => failure = Some(why),
            }
        };
        let stopping = || {
            app.stopping.store(true, Ordering::Relaxed);
            app.queue.close();
        };
        let cut = || {
            app.cut.send_replace(true);
        };
        accept::serve(listener, router(&app), connections, app.settings.times, stop, stopping, cut).await;
        let engine = app.engine.clone();
        let _ = timeout(END, spawn_blocking(move || engine.join())).await;
        // If no one reads stderr, this blocks.
        let log = move || {
            app.log.end();
            writer.map(JoinHandle::join)
        };
        let _ = timeout(END, spawn_blocking(log)).await;
        failure.map_or(Ok(()), Err)
    }
}

/// Why the model could not be loaded the first time, or why no request will be answered any more.
async fn failed(engine: &Engine) -> Failure {
    loop {
        let was_loaded = engine.about().is_some();
        match engine.state() {
            State::Failed(why) if !was_loaded || engine.has_ended() => {
                return engine.take_failure().unwrap_or_else(|| Failure::internal(&why));
            }
            _ => sleep(LOOKS[usize::from(was_loaded)]).await,
        }
    }
}

/// Listens on the first address that the system accepts.
fn listen_on_one(addresses: &[SocketAddr]) -> io::Result<TcpListener> {
    let mut result = Err(io::ErrorKind::AddrNotAvailable.into());
    for address in addresses {
        result = listen(*address);
        if result.is_ok() {
            break;
        }
    }
    result
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // The port is free at once after a restart. On Windows, two servers could then have the same port.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn not_listening(host: &str, port: u16, why: &io::Error) -> Failure {
    Failure::Usage(match why.kind() {
        io::ErrorKind::AddrInUse => {
            format!("--port {port}: another program uses it; choose another port, or 0 for any free port")
        }
        io::ErrorKind::PermissionDenied => {
            format!("--port {port}: the system does not allow it; choose a port from 1024 on")
        }
        _ => format!("--host {host} --port {port}: cannot listen: {why}; choose an address of this machine"),
    })
}

/// The number of connections that the system's limit of open files allows, at most `wanted`.
fn open_connections(wanted: usize) -> usize {
    let Some(files) = accept::raise_open_files() else { return wanted };
    let most = usize::try_from(files.saturating_sub(OTHER_FILES)).unwrap_or(usize::MAX).max(1);
    if most < wanted {
        text::note(&format!(
            "note: at most {most} connections, because the system allows {files} open files (ulimit -n)"
        ));
    }
    wanted.min(most)
}
