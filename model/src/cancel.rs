//! Stops a run from outside, between two steps of a layer or while it waits for a device.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
};

use futures_util::task::AtomicWaker;

use crate::error::Error;

#[derive(Debug, Default)]
struct State {
    cancelled: AtomicBool,
    /// The run that waits for a device.
    waiting: AtomicWaker,
}

/// A handle that stops a run. Clones stop the same run.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<State>);

impl Cancel {
    /// Requests that the run stops. It stops at its next check, or at once while it waits for a device.
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::Release);
        self.0.waiting.wake();
    }

    /// Whether a stop was requested.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::Acquire)
    }

    /// Yields once to the executor, so that a dropped or cancelled run ends here.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if a stop was requested.
    pub(crate) async fn check(&self) -> Result<(), Error> {
        let mut yielded = false;
        poll_fn(|context| {
            if yielded {
                return Poll::Ready(());
            }
            yielded = true;
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
        if self.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// Waits for `work` and returns its result, unless a stop is requested first.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if a stop was requested; those of `work`.
    pub(crate) async fn wait<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let mut work = pin!(work);
        poll_fn(|context| {
            // Before the check: a stop between the check and the registration would not wake this task.
            self.0.waiting.register(context.waker());
            if self.is_cancelled() { Poll::Ready(Err(Error::Cancelled)) } else { work.as_mut().poll(context) }
        })
        .await
    }
}
