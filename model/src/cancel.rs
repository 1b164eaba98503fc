//! Stopping a run from outside, between two layers or two tokens.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
};

use crate::error::Error;

/// A handle that stops the run it was given to. Clones stop the same run.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Asks the run to stop at its next check.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the run was asked to stop.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
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
}
