//! Tensors back to the host: tensors on a device in, plain values out.
//!
//! burn's own read of one tensor is lazy natively: it blocks when the values are used. The reads here are awaited.
//!
//! A read that has begun must end, even if the run that waits for it is stopped: see `to_the_end`.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use burn::tensor::{DType, Int, Tensor, TensorData, Transaction};
use burn_cubecl::cubecl::future::spawn_detached;

use crate::{error::Error, watch::Watch};

/// The values of a float tensor, as f32, row-major.
///
/// # Errors
/// [`Error::DeviceLost`] where the read fails. A GPU reports most errors only here.
pub async fn read_f32<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, Error> {
    let all = read_all(Transaction::default().register(tensor.cast(DType::F32))).await?;
    Ok(all.into_iter().next().map_or_else(Vec::new, into_f32))
}

/// The values of an integer tensor, row-major; see [`into_indices`].
///
/// # Errors
/// [`Error::DeviceLost`] where the read fails.
pub async fn read_indices<const D: usize>(tensor: Tensor<D, Int>) -> Result<Vec<usize>, Error> {
    read_all(Transaction::default().register(tensor)).await.map(|mut all| all.pop().map_or_else(Vec::new, into_indices))
}

/// Several tensors in one round trip, in the order in which they were registered. If this future is dropped while the
/// device still computes, the read ends in the background.
///
/// # Errors
/// [`Error::DeviceLost`] where the read fails.
pub async fn read_all(tensors: Transaction) -> Result<Vec<TensorData>, Error> {
    to_the_end(async move { tensors.execute_async().await.map_err(lost) }).await
}

/// Waits for a read from the device. If this future is dropped while the device still computes, `read` ends in the
/// background, unless the device is lost. Every read that waits must go through here.
///
/// Only the end of a read unmaps its staging buffer. CubeCL gives the buffer back to its pool as soon as the read is
/// dropped. If it is not unmapped then, the next read that gets it fails, and the device counts as lost.
pub(crate) async fn to_the_end<T: 'static>(read: impl Future<Output = T> + Send + 'static) -> T {
    Reading { work: Some(Box::pin(read)), watch: Watch::current().unwrap_or_default() }.await
}

/// Values that were read, as f32.
pub fn into_f32(data: TensorData) -> Vec<f32> {
    data.iter::<f32>().collect()
}

/// Values that were read, as indices. A negative value becomes `usize::MAX`, which no bound accepts.
pub fn into_indices(data: TensorData) -> Vec<usize> {
    data.iter::<i64>().map(|i| usize::try_from(i).unwrap_or(usize::MAX)).collect()
}

/// Waits until `tensor` has been computed: reads one element of it. A browser has no other way to wait.
///
/// # Errors
/// [`Error::DeviceLost`] where the read fails.
pub async fn settle<const D: usize>(tensor: &Tensor<D>) -> Result<(), Error> {
    let ranges: [std::ops::Range<usize>; D] = std::array::from_fn(|_| 0..1);
    read_f32(tensor.clone().slice(ranges)).await.map(|_| ())
}

/// The error of a failed read.
pub(crate) fn lost(error: impl fmt::Debug) -> Error {
    Error::DeviceLost(format!("{error:?}"))
}

/// The future of [`to_the_end`].
struct Reading<T: 'static> {
    /// None after the end.
    work: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    watch: Watch,
}

impl<T: 'static> Future for Reading<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        // Taken: a read that ends or panics must not be polled again.
        let mut work = self.work.take().expect("a read that has not ended");
        let polled = work.as_mut().poll(context);
        if polled.is_pending() {
            self.work = Some(work);
        }
        polled
    }
}

impl<T: 'static> Drop for Reading<T> {
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            let watch = self.watch.clone();
            // Natively a thread: CubeCL polls the device in a loop until somebody takes the result.
            spawn_detached(async move {
                // Nobody waits for the result. A lost device may never end the read.
                let end = async {
                    drop(work.await);
                    Ok::<_, Error>(())
                };
                let _ = watch.guard(end).await;
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        sync::{Arc, Mutex, mpsc},
        task::Waker,
        time::Duration,
    };

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    /// A device that computes until `done`, and the task that waits for it.
    #[derive(Default)]
    struct Gpu {
        done: bool,
        waiting: Option<Waker>,
    }

    /// A read that has begun and was dropped. The channel receives its end, or closes when it is given up.
    fn dropped(gpu: &Arc<Mutex<Gpu>>, watch: &Watch) -> mpsc::Receiver<()> {
        let (gpu, (sender, ended)) = (gpu.clone(), mpsc::channel());
        let read = to_the_end(async move {
            poll_fn(|context| {
                let mut gpu = gpu.lock().unwrap();
                gpu.waiting = Some(context.waker().clone());
                if gpu.done { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            sender.send(()).unwrap();
        });
        let mut guarded = Box::pin(watch.guard(async {
            read.await;
            Ok::<_, Error>(())
        }));
        assert!(guarded.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        drop(guarded);
        assert_eq!(ended.try_recv(), Err(mpsc::TryRecvError::Empty), "the read waits for the device (got, expected)");
        ended
    }

    #[test]
    fn a_dropped_read_ends_in_the_background() {
        let gpu = Arc::default();
        let ended = dropped(&gpu, &Watch::default());
        let waiting = {
            let mut gpu = gpu.lock().unwrap();
            gpu.done = true;
            gpu.waiting.take()
        };
        waiting.into_iter().for_each(Waker::wake);
        assert_eq!(ended.recv_timeout(LONG), Ok(()), "the end of the read (got, expected)");
    }

    #[test]
    fn a_dropped_read_of_a_lost_device_is_given_up() {
        let watch = Watch::default();
        let ended = dropped(&Arc::default(), &watch);
        watch.lose("gone");
        assert_eq!(ended.recv_timeout(LONG), Err(mpsc::RecvTimeoutError::Disconnected), "(got, expected)");
    }

    #[test]
    fn a_read_that_ended_is_not_repeated() {
        let (sender, ended) = mpsc::channel();
        let mut read = Box::pin(to_the_end(async move { sender.send(()) }));
        assert!(read.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
        drop(read);
        assert_eq!(ended.iter().count(), 1, "reads (got, expected)");
    }
}
