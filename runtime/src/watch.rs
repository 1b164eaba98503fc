//! Whether a GPU still answers, and how a run ends where it does not.
//!
//! A lost device shows itself in many ways: work that is dropped in silence, a read-back that fails, panics or never
//! comes. A [`Watch`] hears of the loss from wgpu itself, and [`Watch::guard`] turns each of these ways into
//! [`Error::DeviceLost`].

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    task::{Poll, Waker},
};

use burn::tensor::wgpu::wgpu;

use crate::Error;

#[derive(Debug, Default)]
struct State {
    /// Why the device is of no more use.
    lost: OnceLock<String>,
    wakers: Mutex<Vec<Waker>>,
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
            let mut wakers = self.0.wakers.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *wakers).into_iter().for_each(Waker::wake);
        }
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
        poll_fn(|context| {
            let waker = context.waker();
            let mut wakers = self.0.wakers.lock().unwrap_or_else(PoisonError::into_inner);
            // Before the check, or a loss in between would wake nobody.
            if !wakers.iter().any(|w| w.will_wake(waker)) {
                wakers.push(waker.clone());
            }
            drop(wakers);
            self.check()?;
            match caught(|| work.as_mut().poll(context)) {
                Ok(Poll::Pending) => Poll::Pending,
                Ok(Poll::Ready(result)) => {
                    self.forget(waker);
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

    fn forget(&self, waker: &Waker) {
        let mut wakers = self.0.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        wakers.retain(|w| !w.will_wake(waker));
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
