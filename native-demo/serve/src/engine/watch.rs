//! A thread that ends what takes too long: the running job at its time limit, and waiting jobs at theirs.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use fovea_model::Cancel;

use crate::queue::Queue;

/// Longest time between two looks at the queue.
const TICK: Duration = Duration::from_millis(500);

/// A job that has not ended so long after its time limit hangs, in the driver of its device for example.
const HANGS: Duration = Duration::from_secs(30);

#[derive(Default)]
struct State {
    /// The time limit of the running job, and what stops it.
    running: Option<(Instant, Cancel)>,
    closed: bool,
}

/// The running job, for the thread that stops it.
#[derive(Default)]
pub(super) struct Watch {
    state: Mutex<State>,
    changed: Condvar,
}

impl Watch {
    /// A job begins.
    pub fn begin(&self, until: Instant, cancel: &Cancel) {
        self.state().running = Some((until, cancel.clone()));
        self.changed.notify_all();
    }

    /// The job has ended.
    pub fn end(&self) {
        self.state().running = None;
    }

    /// Whether the running job does not end, although it was stopped.
    pub fn hangs(&self) -> bool {
        self.state().running.as_ref().is_some_and(|(until, _)| until.elapsed() > HANGS)
    }

    /// Ends [`Watch::run`].
    pub fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }

    /// The thread. A long stage looks at its handle between two steps, so it ends soon after it is cancelled here.
    pub fn run(&self, queue: &Queue) {
        loop {
            if !queue.is_empty() {
                queue.expire();
            }
            let state = self.state();
            if state.closed {
                return;
            }
            let now = Instant::now();
            let left = state.running.as_ref().map(|(until, _)| until.saturating_duration_since(now));
            let wait = left.filter(|left| !left.is_zero()).map_or(TICK, |left| left.min(TICK));
            if let Some((_, cancel)) = state.running.as_ref().filter(|(until, _)| *until <= now) {
                cancel.cancel();
            }
            drop(self.changed.wait_timeout(state, wait));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, thread};

    use super::*;
    use crate::queue::QueueLimits;

    #[test]
    fn a_job_is_stopped_at_its_time_and_not_before() {
        let watch = Arc::new(Watch::default());
        let queue = Queue::new(QueueLimits { jobs: 1, bytes: 1 });
        let thread = {
            let watch = watch.clone();
            thread::spawn(move || watch.run(&queue))
        };
        let (first, second) = (Cancel::default(), Cancel::default());
        watch.begin(Instant::now() + Duration::from_secs(60), &first);
        watch.end();
        let begin = Instant::now();
        watch.begin(begin + Duration::from_millis(50), &second);
        while !second.is_cancelled() {
            assert!(begin.elapsed() < Duration::from_secs(20), "expected a stop");
            thread::sleep(Duration::from_millis(1));
        }
        assert!(begin.elapsed() >= Duration::from_millis(50) && !first.is_cancelled());
        watch.close();
        thread.join().expect("the thread ends");
    }

    #[test]
    fn a_job_that_does_not_end_hangs() {
        let watch = Watch::default();
        let Some(begin) = Instant::now().checked_sub(HANGS + Duration::from_secs(1)) else { return };
        assert!(!watch.hangs(), "nothing runs");
        watch.begin(Instant::now(), &Cancel::default());
        assert!(!watch.hangs(), "its time is over only now");
        watch.begin(begin, &Cancel::default());
        assert!(watch.hangs(), "expected that it hangs");
        watch.end();
        assert!(!watch.hangs(), "it has ended");
    }
}
