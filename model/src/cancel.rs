//! Stopping a run from outside, between two steps of a layer or while it waits for a device.

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

/// A handle that stops the run it was given to. Clones stop the same run.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<State>);

impl Cancel {
    /// Asks the run to stop at its next check.
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::Release);
        self.0.waiting.wake();
    }

    /// Whether the run was asked to stop.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::Acquire)
    }

    /// Lets others run once, so that a dropped or cancelled run ends here.
    ///
    /// # Errors
    /// [`Error::Cancelled`] once asked to stop.
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

    /// What `work` gives, unless the run is asked to stop before.
    ///
    /// # Errors
    /// [`Error::Cancelled`] once asked to stop; those of `work`.
    pub(crate) async fn wait<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let mut work = pin!(work);
        poll_fn(|context| {
            // Before the check, or a stop in between would wake nobody.
            self.0.waiting.register(context.waker());
            if self.is_cancelled() { Poll::Ready(Err(Error::Cancelled)) } else { work.as_mut().poll(context) }
        })
        .await
    }
}
