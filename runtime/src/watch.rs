//! Whether a GPU still answers, and how a run ends where it does not.
//!
//! A lost device shows itself in many ways: work that is dropped in silence, a read-back that fails, panics or never
//! comes. A [`Watch`] hears of the loss from wgpu itself, and [`Watch::guard`] turns each of these ways into
//! [`Error::DeviceLost`].

use std::{
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

use crate::Error;

#[derive(Debug, Default)]
struct State {
    /// Why the device is of no more use.
    lost: OnceLock<String>,
    /// Who waits, by the guard's number: two guards of one task share a waker, and each must be able to leave alone.
    wakers: Mutex<BTreeMap<u64, Waker>>,
    guards: AtomicU64,
}

/// A guard's place among the wakers, given back when it ends or is dropped.
struct Place<'a> {
    watch: &'a Watch,
    number: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let gone = self.watch.wakers().remove(&self.number);
        drop(gone); // after the lock: a waker may do anything
    }
}

/// One device's fate. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watch(Arc<State>);

impl Watch {
    /// Listens to `device`. To be called after burn has taken the device over: burn's own handler for uncaptured errors
    /// panics, and the last one that is set counts.
    pub fn listen(device: &wgpu::Device) -> Self {
        let watch = Self::default();
        let heard = watch.clone();
        device.set_device_lost_callback(move |reason, message| heard.lose(&format!("{reason:?}: {message}")));
        // Work with an error has been dropped, so what comes after it computes with garbage: as good as lost.
        let heard = watch.clone();
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| heard.lose(&error.to_string())));
        watch
    }

    /// Gives the device up. Only the first reason counts. wgpu may hold locks while it calls this: it only wakes.
    pub fn lose(&self, why: &str) {
        if self.0.lost.set(why.to_owned()).is_ok() {
            let waiting = std::mem::take(&mut *self.wakers());
            waiting.into_values().for_each(Waker::wake);
        }
    }

    fn wakers(&self) -> MutexGuard<'_, BTreeMap<u64, Waker>> {
        self.0.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// # Errors
    /// [`Error::DeviceLost`] where the device has been lost.
    pub fn check(&self) -> Result<(), Error> {
        self.0.lost.get().map_or(Ok(()), |why| Err(Error::DeviceLost(why.clone())))
    }

    /// Runs `work` for as long as the device lives.
    ///
    /// # Errors
    /// What `work` gives; [`Error::DeviceLost`] where the device is lost before it ends, which counts for more than what
    /// it gives, or where it panics.
    pub async fn guard<T, E: From<Error>>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let mut work = pin!(work);
        let place = Place { watch: self, number: self.0.guards.fetch_add(1, Ordering::Relaxed) };
        poll_fn(|context| {
            // Before the check, or a loss in between would wake nobody.
            let before = self.wakers().insert(place.number, context.waker().clone());
            drop(before);
            self.check()?;
            match caught(|| work.as_mut().poll(context)) {
                Ok(Poll::Pending) => Poll::Pending,
                Ok(Poll::Ready(result)) => {
                    self.check()?;
                    Poll::Ready(result)
                }
                Err(why) => {
                    self.lose(&why);
                    Poll::Ready(Err(Error::DeviceLost(why).into()))
                }
            }
        })
        .await
    }
}

/// The value, or what a panic said. A browser's wasm cannot go on after a panic: there nothing is caught.
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
    fn a_loss_wakes_whoever_waits_and_nobody_else() {
        let (watch, count) = (Watch::default(), Arc::new(Count::default()));
        let waker = Waker::from(count.clone());
        let mut context = Context::from_waker(&waker);
        let never = || std::future::pending::<Result<(), Error>>();
        let mut waits = pin!(watch.guard(never()));
        assert!(waits.as_mut().poll(&mut context).is_pending());
        // Two more of the same task: one ends, one is dropped. Neither takes the first one's place along.
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
