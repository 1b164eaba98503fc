//! Loops on all threads. The calling thread takes part, and the others stay awake for a moment after each loop: decoding
//! has hundreds of short loops per token, and to wake a thread takes as long as some of them.
//!
//! On a quiet machine with two cores this makes decoding a tenth faster than rayon's own loops; where another program
//! computes on one of the cores, a fifth slower.

use std::{
    sync::{
        LazyLock, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use rayon::{ThreadPool, ThreadPoolBuilder, Yield};

/// How long a thread waits actively for the next loop: longer than the short steps between two loops of a token.
const AWAKE: Duration = Duration::from_micros(200);

/// How long the calling thread waits actively for the others at the end of a loop.
const CLOSE: Duration = Duration::from_micros(100);

/// As many as rayon has. Asked on a new thread, because the caller may be in another pool.
static THREADS: LazyLock<Threads> =
    LazyLock::new(|| Threads::new(std::thread::spawn(rayon::current_num_threads).join().unwrap_or(1)));

/// `f` of each item, on all threads. Threads take the items in order.
pub(super) fn for_each<I: ExactSizeIterator<Item: Send> + Send>(items: I, f: impl Fn(I::Item) + Sync) {
    if items.len() < 2 {
        return items.for_each(f);
    }
    #[cfg(test)]
    if let Some(threads) = tests::THREADS.get() {
        return threads.for_each(items, f);
    }
    THREADS.for_each(items, f);
}

/// The calling thread and the threads of a pool.
struct Threads {
    /// None if there is no other thread.
    pool: Option<ThreadPool>,
    /// Threads of the pool that wait actively.
    awake: AtomicUsize,
}

impl Threads {
    fn new(count: usize) -> Self {
        let others = count.saturating_sub(1);
        let name = |i| format!("fovea-cpu-{}", i + 1);
        // Without threads, loops run on the calling thread.
        let pool = (others > 0).then(|| ThreadPoolBuilder::new().num_threads(others).thread_name(name).build());
        Self { pool: pool.and_then(Result::ok), awake: AtomicUsize::new(0) }
    }

    fn for_each<I: ExactSizeIterator<Item: Send> + Send>(&'static self, items: I, f: impl Fn(I::Item) + Sync) {
        // A loop within a loop has no thread to wait for.
        let Some(pool) = self.pool.as_ref().filter(|pool| pool.current_thread_index().is_none()) else {
            return items.for_each(f);
        };
        let helpers = pool.current_num_threads().min(items.len() - 1);
        let (items, ended) = (Mutex::new(items), AtomicUsize::new(0));
        let next = || items.lock().unwrap_or_else(PoisonError::into_inner).next();
        let work = || {
            while let Some(item) = next() {
                f(item);
            }
        };
        pool.in_place_scope(|scope| {
            for _ in 0..helpers {
                scope.spawn(|_| {
                    work();
                    ended.fetch_add(1, Ordering::Release);
                });
            }
            work();
            wait(CLOSE, || ended.load(Ordering::Acquire) == helpers);
        });
        self.keep_awake(pool, helpers);
    }

    /// Lets `count` threads of the pool wait actively.
    fn keep_awake(&'static self, pool: &'static ThreadPool, count: usize) {
        while self.awake.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < count).then_some(n + 1)).is_ok() {
            pool.spawn(|| {
                let mut last = Instant::now();
                while last.elapsed() < AWAKE {
                    match rayon::yield_now() {
                        Some(Yield::Executed) => last = Instant::now(),
                        _ => std::hint::spin_loop(),
                    }
                }
                self.awake.fetch_sub(1, Ordering::Relaxed);
            });
        }
    }
}

/// Waits actively until `done`, but not longer than `limit`.
fn wait(limit: Duration, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() && start.elapsed() < limit {
        std::hint::spin_loop();
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::{
        cell::Cell,
        panic::{AssertUnwindSafe, catch_unwind},
        sync::atomic::{AtomicUsize, Ordering},
    };

    use super::{Threads, for_each};

    thread_local! {
        /// The threads for loops of this thread.
        pub(super) static THREADS: Cell<Option<&'static Threads>> = const { Cell::new(None) };
    }

    /// `f` with this number of threads.
    pub(in crate::cpu) fn with<T>(count: usize, f: impl FnOnce() -> T) -> T {
        let before = THREADS.replace(Some(Box::leak(Box::new(Threads::new(count)))));
        let result = f();
        THREADS.set(before);
        result
    }

    #[test]
    fn every_item_once() {
        for threads in [1, 2, 3, 8] {
            with(threads, || {
                for count in [0, 1, 2, 3, 100] {
                    for _ in 0..50 {
                        let seen: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
                        for_each(0..count, |i| _ = seen[i].fetch_add(1, Ordering::Relaxed));
                        let seen: Vec<usize> = seen.into_iter().map(AtomicUsize::into_inner).collect();
                        assert_eq!(seen, vec![1; count], "{threads} threads");
                    }
                }
            });
        }
    }

    #[test]
    fn a_loop_within_a_loop() {
        with(3, || {
            let sum = AtomicUsize::new(0);
            for_each(0..4, |i| for_each(0..10, |j| _ = sum.fetch_add(10 * i + j, Ordering::Relaxed)));
            assert_eq!(sum.into_inner(), 600 + 180);
        });
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_next_loop_runs() {
        with(2, || {
            let run = || for_each(0..10, |i| assert_ne!(i, 7, "the item that fails"));
            assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
            let sum = AtomicUsize::new(0);
            for_each(0..10, |i| _ = sum.fetch_add(i, Ordering::Relaxed));
            assert_eq!(sum.into_inner(), 45);
        });
    }
}
