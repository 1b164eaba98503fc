//! SIGINT and SIGTERM: the first stops the server, the second ends the process at once.

#[cfg(not(unix))]
use std::future;
use std::{io, process, thread};

use fovea_terminal::{failure::Failure, text};

/// Exit code of a process that was interrupted.
const INTERRUPTED: i32 = 130;

/// The signals that stop the server.
pub(crate) struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    /// Begins to listen for signals. To be called in a runtime.
    ///
    /// # Errors
    /// [`Failure::Panic`] where the system refuses.
    pub(crate) fn listen() -> Result<Self, Failure> {
        Self::new().map_err(|why| Failure::internal(&format!("no signals: {why}")))
    }

    #[cfg(unix)]
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    #[cfg(not(unix))]
    fn new() -> io::Result<Self> {
        Ok(Self {})
    }

    #[cfg(unix)]
    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    #[cfg(not(unix))]
    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            future::pending::<()>().await;
        }
    }

    /// Calls `stop` at the first signal, and ends the process at the second. To be spawned: if no one reads stderr, any other
    /// task may be blocked by it.
    pub(crate) async fn watch(mut self, stop: impl FnOnce()) {
        self.next().await;
        stop();
        thread::spawn(|| text::note("stopping: running answers may end; a second signal ends at once"));
        self.next().await;
        process::exit(INTERRUPTED);
    }
}
