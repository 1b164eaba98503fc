//! Detects that a GPU is lost, and ends the work on it with [`Error::DeviceLost`].
//!
//! A lost device has many symptoms: work is dropped without an error; a read fails, panics or never completes. wgpu
//! reports the loss to a [`Watch`], and [`Watch::guard`] turns each symptom into the same error.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Poll, Waker},
};

use burn::tensor::wgpu::wgpu;

use crate::error::Error;

#[derive(Debug, Default)]
struct State {
    /// Why the device was lost or closed.
    lost: OnceLock<String>,
    /// The waker of each waiting guard, by the number of the guard. Two guards of one task have the same waker, but
    /// each removes only its own entry.
    wakers: Mutex<BTreeMap<u64, Waker>>,
    guards: AtomicU64,
}

/// The entry of a guard in the wakers. It is removed when the guard ends or is dropped.
struct Place<'a> {
    watch: &'a Watch,
    number: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let gone = self.watch.wakers().remove(&self.number);
        drop(gone); // after the lock is released: dropping a waker may run any code
    }
}

thread_local! {
    /// The watch of the guard that this thread polls.
    static CURRENT: RefCell<Option<Watch>> = const { RefCell::new(None) };
}

/// Whether one device is lost. Clones share the state.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watch(Arc<State>);

impl Watch {
    /// Watches `device`. Call it after burn has initialised the device: burn sets an error handler that panics, and
    /// this one replaces it.
    pub fn listen(device: &wgpu::Device) -> Self {
        let watch = Self::default();
        let on_loss = watch.clone();
        device.set_device_lost_callback(move |reason, message| on_loss.lose(&format!("{reason:?}: {message}")));
        // wgpu dropped the work that failed, so later work would compute with undefined values: the same as a loss.
        let on_error = watch.clone();
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| on_error.lose(&error.to_string())));
        watch
    }

    /// Marks the device as lost; only the first reason is kept. wgpu may call this while it holds locks, so it only
    /// wakes the waiting tasks and logs.
    pub fn lose(&self, why: &str) {
        if self.end(why) {
            tracing::warn!(why, "device lost");
        }
    }

    /// Marks the device as closed by the program.
    pub fn close(&self) {
        self.end("it was closed");
    }

    /// Keeps the reason and wakes all guards; false where there was a reason before.
    fn end(&self, why: &str) -> bool {
        let first = self.0.lost.set(why.to_owned()).is_ok();
        if first {
            let waiting = std::mem::take(&mut *self.wakers());
            waiting.into_values().for_each(Waker::wake);
        }
        first
    }

    fn wakers(&self) -> MutexGuard<'_, BTreeMap<u64, Waker>> {
        self.0.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// # Errors
    /// [`Error::DeviceLost`] where the device was lost or closed.
    pub fn check(&self) -> Result<(), Error> {
        self.0.lost.get().map_or(Ok(()), |why| Err(Error::DeviceLost(why.clone())))
    }

    /// The watch whose guard runs this code, if any.
    pub fn current() -> Option<Self> {
        CURRENT.with_borrow(Clone::clone)
    }

    /// Runs `work` while the device is not lost.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] where the device is lost before `work` ends, whatever `work` returns, or where `work`
    /// panics; else the error of `work`.
    pub async fn guard<T, E: From<Error>>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let mut work = pin!(work);
        let place = Place { watch: self, number: self.0.guards.fetch_add(1, Ordering::Relaxed) };
        poll_fn(|context| {
            // Before the check: a loss between check and insert would not wake this task.
            let before = self.wakers().insert(place.number, context.waker().clone());
            drop(before);
            self.check()?;
            let outer = CURRENT.replace(Some(self.clone()));
            let polled = caught(|| work.as_mut().poll(context));
            CURRENT.set(outer);
            match polled {
                Ok(Poll::Pending) => Poll::Pending,
                Ok(Poll::Ready(result)) => {
                    self.check()?;
                    Poll::Ready(result)
                }
                Err(why) => {
                    tracing::error!(why, "panic in the engine");
                    self.lose(&why);
                    Poll::Ready(Err(Error::DeviceLost(why).into()))
                }
            }
        })
        .await
    }
}

/// The value, or the message of a panic. In a browser a panic aborts: there nothing is caught.
#[cfg(not(target_family = "wasm"))]
fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        format!("the engine stopped: {}", text.unwrap_or("no reason given"))
    })
}

#[cfg(target_family = "wasm")]
fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    Ok(work())
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::AtomicUsize,
        task::{Context, Wake},
    };

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_loss_wakes_each_waiting_guard_once() {
        let (watch, count) = (Watch::default(), Arc::new(Count::default()));
        let waker = Waker::from(count.clone());
        let mut context = Context::from_waker(&waker);
        let never = || std::future::pending::<Result<(), Error>>();
        let mut waits = pin!(watch.guard(never()));
        assert!(waits.as_mut().poll(&mut context).is_pending());
        // Two more guards of the same task: one ends, one is dropped. The first one keeps its entry.
        let mut ends = pin!(watch.guard(async { Ok::<_, Error>(()) }));
        assert!(matches!(ends.as_mut().poll(&mut context), Poll::Ready(Ok(()))));
        {
            let mut dropped = pin!(watch.guard(never()));
            assert!(dropped.as_mut().poll(&mut context).is_pending());
        }
        watch.lose("gone");
        watch.lose("twice");
        assert_eq!(count.0.load(Ordering::Relaxed), 1, "wakes (got, expected)");
        match waits.as_mut().poll(&mut context) {
            Poll::Ready(Err(Error::DeviceLost(why))) => assert_eq!(why, "gone"),
            other => panic!("expected DeviceLost, got {other:?}"),
        }
    }

    #[test]
    fn a_panic_is_a_loss() {
        let watch = Watch::default();
        let mut panics =
            pin!(watch.guard(async { if true { panic!("a broken driver") } else { Ok::<(), Error>(()) } }));
        match panics.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Err(Error::DeviceLost(why))) => assert!(why.contains("a broken driver"), "{why}"),
            other => panic!("expected DeviceLost, got {other:?}"),
        }
        assert!(watch.check().is_err());
    }
}
