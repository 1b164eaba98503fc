//! Counts the work that a device is given. Input: a running program. Output: numbers of calls and launches.
//!
//! wgpu-core writes a record of `log`, at level trace, for each call: this counts all users of wgpu, but slows each call
//! a little. CubeCL reports each launch to an observer, which costs almost nothing and also works with CUDA.

use std::{
    collections::BTreeMap,
    fmt, mem,
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use cubecl_runtime::logging::{LaunchObservation, LaunchObserver, ProfileDuration, TimingMethod, TimingRequest};
use fovea_runtime::testing::launching;

static DISPATCHES: AtomicU64 = AtomicU64::new(0);
static SUBMITS: AtomicU64 = AtomicU64::new(0);
static UPLOADS: AtomicU64 = AtomicU64::new(0);
static READ_BACKS: AtomicU64 = AtomicU64::new(0);
/// Nanoseconds from `START` to the last submit.
static LAST_SUBMIT: AtomicU64 = AtomicU64::new(0);
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Calls of wgpu since the start of the program, as far as they were counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calls {
    /// Dispatches of compute shaders.
    pub dispatches: u64,
    /// Writes into buffers. wgpu-core has no record for writes whose size is not a multiple of 4 bytes.
    pub uploads: u64,
    /// Buffers mapped for reading.
    pub read_backs: u64,
    /// Submissions to the queue.
    pub submits: u64,
}

impl Calls {
    /// The calls up to now.
    pub fn now() -> Self {
        Self {
            dispatches: DISPATCHES.load(Relaxed),
            uploads: UPLOADS.load(Relaxed),
            read_backs: READ_BACKS.load(Relaxed),
            submits: SUBMITS.load(Relaxed),
        }
    }

    /// The calls after `before`.
    pub fn since(self, before: Self) -> Self {
        Self {
            dispatches: self.dispatches - before.dispatches,
            uploads: self.uploads - before.uploads,
            read_backs: self.read_backs - before.read_backs,
            submits: self.submits - before.submits,
        }
    }
}

/// Time from `since` to the last submit that was counted; zero if there was none.
pub fn last_submit(since: Instant) -> Duration {
    (*START + Duration::from_nanos(LAST_SUBMIT.load(Relaxed))).saturating_duration_since(since)
}

/// Counts the calls of wgpu while it lives.
#[must_use = "counting stops when it is dropped"]
pub struct Counting(());

impl Counting {
    /// Starts to count.
    pub fn start() -> Self {
        LazyLock::force(&START);
        // A second call fails, which is fine: the logger is already there.
        let _ = log::set_logger(&Recorder);
        log::set_max_level(log::LevelFilter::Trace);
        Self(())
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        log::set_max_level(log::LevelFilter::Off);
    }
}

struct Recorder;

impl log::Log for Recorder {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target().starts_with("wgpu_core")
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            // It always fails: after the first piece nothing is formatted.
            let _ = fmt::write(&mut FirstPiece, *record.args());
        }
    }

    fn flush(&self) {}
}

/// Reads the first piece of a record: all text before the first value. Formatting the values would cost more than the call.
struct FirstPiece;

impl fmt::Write for FirstPiece {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let counter = match text {
            "ComputePass::dispatch " | "ComputePass::dispatch_indirect" => Some(&DISPATCHES),
            "Queue::write_buffer" => Some(&UPLOADS),
            "Buffer::map_async " => Some(&READ_BACKS),
            "Queue::submit" => Some(&SUBMITS),
            // "Queue::submit returned submit index ": the end of a submit.
            text if text.starts_with("Queue::submit returned") => {
                LAST_SUBMIT.store(START.elapsed().as_nanos() as u64, Relaxed);
                None
            }
            _ => None,
        };
        if let Some(counter) = counter {
            counter.fetch_add(1, Relaxed);
        }
        Err(fmt::Error)
    }
}

/// Launches of one kernel, and milliseconds that they took on the device.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    /// Launches.
    pub launches: u64,
    /// Milliseconds on the device.
    pub ms: f64,
}

/// Counts kernels that are launched through CubeCL, and measures them if `timed`.
#[derive(Default)]
pub struct Launches {
    timed: bool,
    count: AtomicU64,
    unread: Mutex<Vec<(&'static str, ProfileDuration)>>,
}

impl Launches {
    /// Starts to observe. With `timed` each kernel runs in its own compute pass between two timestamps, and the host waits
    /// for the device thread at each launch: then only the times on the device are of use.
    pub fn observe(timed: bool) -> (Arc<Self>, LaunchObservation) {
        let launches = Arc::new(Self { timed, ..Self::default() });
        (launches.clone(), LaunchObservation::new(launches))
    }

    /// Launches up to now.
    pub fn count(&self) -> u64 {
        self.count.load(Relaxed)
    }

    /// The kernels measured since the last call, by name. None if the device has no timestamps. Waits for the device.
    pub fn take(&self) -> Option<BTreeMap<String, Spent>> {
        let unread = mem::take(&mut *self.unread.lock().unwrap_or_else(PoisonError::into_inner));
        let mut kernels = BTreeMap::<String, Spent>::new();
        for (kernel, profile) in unread {
            if profile.timing_method() != TimingMethod::Device {
                return None;
            }
            let spent = kernels.entry(short(kernel).to_owned()).or_default();
            spent.launches += 1;
            spent.ms += pollster::block_on(profile.resolve())?.duration().as_secs_f64() * 1e3;
        }
        Some(kernels)
    }
}

impl LaunchObserver for Launches {
    fn launched(&self, _: &'static str) {
        self.count.fetch_add(1, Relaxed);
    }

    fn timing(&self) -> TimingRequest {
        if self.timed { TimingRequest::Deferred } else { TimingRequest::None }
    }

    fn profiled(&self, kernel: &'static str, profile: ProfileDuration) {
        // CubeCL knows the type of a kernel only, which is the same for all of ours.
        let name = launching().unwrap_or(kernel);
        self.unread.lock().unwrap_or_else(PoisonError::into_inner).push((name, profile));
    }
}

/// The last part of a path, without type parameters.
fn short(path: &str) -> &str {
    let path = path.split('<').next().unwrap_or(path);
    path.rsplit("::").next().unwrap_or(path)
}
