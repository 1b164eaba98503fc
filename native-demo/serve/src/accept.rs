//! Accepts connections and serves HTTP/1.1 on them.
//!
//! A connection is closed where the client is too slow: with the headers of a request (hyper's timer), with a body
//! (`body`), or with reading a response ([`Patient`]).

use std::{
    convert::Infallible,
    future::Future,
    io::{self, IoSlice},
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, extract::Request, response::Response};
use hyper::{
    body::Incoming,
    rt::{Read, ReadBufCursor, Write},
    server::conn::http1,
    service::Service as HyperService,
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, Sleep, sleep, timeout},
};
use tower::Service;

use crate::{guard::Peer, settings::Times};

/// Most headers of a request.
const MOST_HEADERS: usize = 64;

/// Largest request line with headers, and largest buffer of a connection, in bytes.
const LARGEST_HEAD: usize = 32 << 10;

/// How much longer than an answer a response may take, for a client that reads slowly.
const SLOWEST: Duration = Duration::from_secs(120);

/// The pause after an error of `accept`, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// The time for the last error of an answer that is cut.
const LAST: Duration = Duration::from_secs(1);

/// The response to a connection over the limit.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 5\r\n\
connection: close\r\ncontent-length: 139\r\n\r\n\
{\"error\":{\"message\":\"too many connections; send the request again later\",\"type\":\"server_error\",\"param\":null,\"code\":\"too_many_connections\"}}";

/// Serves connections until `stop`, then lets running requests end for `times.shutdown`. `stopping` is called between them,
/// and `cut` when that time is over.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    most: usize,
    times: Times,
    stop: impl Future<Output = ()>,
    stopping: impl FnOnce(),
    cut: impl FnOnce(),
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(times.headers)
        .max_headers(MOST_HEADERS)
        .max_buf_size(LARGEST_HEAD)
        .keep_alive(true);
    let free = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
    let running = GracefulShutdown::new();
    let mut tasks = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = tasks.join_next() => continue,
            () = &mut stop => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(why) => {
                tracing::warn!("accept: {why}");
                sleep(PAUSE).await;
                continue;
            }
        };
        let Ok(slot) = free.clone().try_acquire_owned() else {
            // The socket of a new connection has room for it, so this does not wait.
            let _ = stream.into_std().and_then(|mut stream| io::Write::write_all(&mut stream, FULL));
            continue;
        };
        // Small events of a stream are sent at once.
        let _ = stream.set_nodelay(true);
        let routes = Routes { router: router.clone(), peer };
        let connection = running.watch(http.serve_connection(Patient::new(stream, times), routes));
        tasks.spawn(async move {
            if let Err(why) = connection.await {
                tracing::debug!("connection of {peer}: {why}");
            }
            drop(slot);
        });
    }
    drop(listener);
    stopping();
    let mut ended = pin!(running.shutdown());
    if timeout(times.shutdown, &mut ended).await.is_err() {
        // What still runs ends with an error, which clients need some time to read.
        cut();
        let _ = timeout(LAST, ended).await;
    }
    tasks.shutdown().await;
}

/// The routes for the requests of one connection.
struct Routes {
    router: Router,
    peer: SocketAddr,
}

impl HyperService<Request<Incoming>> for Routes {
    type Response = Response;
    type Error = Infallible;
    type Future = <Router as Service<Request<Incoming>>>::Future;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(Peer(self.peer));
        // A router is always ready.
        self.router.clone().call(request)
    }
}

/// A connection whose client must read: a write that waits for too long is an error, and so is one of a response that has
/// taken too long.
struct Patient {
    stream: TokioIo<TcpStream>,
    limit: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
    /// Longest time of a response.
    longest: Duration,
    /// The first write since something was read: the beginning of a response.
    begin: Option<Instant>,
}

impl Patient {
    fn new(stream: TcpStream, times: Times) -> Self {
        let longest = times.answer + SLOWEST;
        Self { stream: TokioIo::new(stream), limit: times.write, waiting: None, longest, begin: None }
    }

    /// `polled`, or an error if it has been pending for too long.
    fn within<T>(&mut self, context: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let begin = *self.begin.get_or_insert_with(Instant::now);
        if polled.is_ready() {
            self.waiting = None;
            return polled;
        }
        let limit = self.limit.min(self.longest.saturating_sub(begin.elapsed()));
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(limit)));
        waiting.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Read for Patient {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, to: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(context, to);
        if polled.is_ready() {
            self.begin = None;
        }
        polled
    }
}

impl Write for Patient {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.within(context, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.within(context, polled)
    }
}

/// Raises this process's limit of open files to what the system allows, and returns it; None where it is not known.
#[cfg(unix)]
pub(crate) fn raise_open_files() -> Option<u64> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    let mut most = limit.maximum;
    if cfg!(target_os = "macos") {
        // macOS has no limit here, but refuses more than OPEN_MAX.
        most = Some(most.unwrap_or(u64::MAX).min(10_240));
    }
    if limit.current.is_some_and(|current| most.is_none_or(|most| current < most)) {
        limit.current = most;
        // Where the system refuses, the old limit stays.
        let _ = setrlimit(Resource::Nofile, limit);
    }
    getrlimit(Resource::Nofile).current
}

#[cfg(not(unix))]
pub(crate) fn raise_open_files() -> Option<u64> {
    None
}
