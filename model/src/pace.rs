//! Splits a run into steps; between two steps it checks for a stop and reports progress.
//!
//! A step is some rows of one layer. On the CPU a step blocks its thread, so steps are short enough for a quick stop. On a GPU
//! steps are queued, and no buffer of a step may exceed what a kernel can bind.

use std::sync::{Arc, Mutex, PoisonError};

use fovea_runtime::{DeviceInfo, device::DeviceClass};

use crate::{cancel::Cancel, error::Error, stage::Stage};

/// Multiply-adds of one step on the CPU. A run can stop between the products of a step. The largest product is about half of
/// the step: a quarter of a second on two desktop cores, or on one thread of a browser with 12 billion of them per
/// second. Narrower steps are slower: a product of 4096 x 14336 in f16 reaches 47 billion multiply-adds per second with
/// 64 rows, 100 with 256, and 140 with 1024 (2 cores, AVX-512, 29 November 2026).
const STEP: u64 = if cfg!(target_family = "wasm") { 6_000_000_000 } else { 50_000_000_000 };
/// Least number of rows of a step.
const FEWEST: usize = 32;
/// Multiply-adds of a layer from which on the run waits for the GPU after it, so that progress is correct and a stop is quick: a
/// second of a software GPU (first value), tens of milliseconds of a real one (second value).
const HEAVY: [u64; 2] = [2_000_000_000, 200_000_000_000];

/// How much of a layer a device computes at once.
#[derive(Clone, Copy, Debug)]
pub struct Steps {
    cpu: bool,
    software: bool,
    /// Most f32 values of one buffer.
    values: u64,
}

impl Steps {
    /// The steps for a device.
    pub(crate) fn of(device: &DeviceInfo) -> Self {
        Self {
            cpu: device.class == DeviceClass::Cpu,
            software: device.class == DeviceClass::Software,
            values: device.max_binding_size.min(device.max_buffer_size) / 4,
        }
    }

    /// Everything at once, for training.
    pub const WHOLE: Self = Self { cpu: false, software: false, values: u64::MAX / 4 };

    /// The steps on the CPU.
    pub(crate) const CPU: Self = Self { cpu: true, software: false, values: u64::MAX / 4 };

    /// Steps whose buffers have at most this many values.
    #[cfg(test)]
    pub(crate) const fn of_values(values: u64) -> Self {
        Self { cpu: true, software: false, values }
    }

    /// Rows at once, if each row takes `work` multiply-adds and at most `widest` values in one buffer.
    pub(crate) fn rows(&self, work: u64, widest: u64) -> usize {
        let by_memory = self.values / widest.max(1);
        let by_time = if self.cpu { (STEP / work.max(1)).max(FEWEST as u64) } else { u64::MAX };
        usize::try_from(by_memory.min(by_time).max(1)).unwrap_or(usize::MAX)
    }

    /// Whether to wait for the device after a layer of this many multiply-adds.
    pub(crate) fn waits(&self, work: u64) -> bool {
        !self.cpu && work >= HEAVY[usize::from(!self.software)]
    }
}

/// Progress of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The running stage.
    pub stage: Stage,
    /// Rows computed, counted once per layer.
    pub done: u64,
    /// Rows times layers.
    pub total: u64,
}

/// One run: its stop request and its progress.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    cancel: Cancel,
    now: Arc<Mutex<Option<Progress>>>,
}

impl Pace {
    /// A run that `cancel` stops.
    pub(crate) fn new(cancel: &Cancel) -> Self {
        Self { cancel: cancel.clone(), now: Arc::default() }
    }

    /// Reports progress and yields once to the executor, so that a dropped or cancelled run ends here.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if a stop was requested.
    pub(crate) async fn step(&self, progress: Progress) -> Result<(), Error> {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress);
        self.cancel.check().await
    }

    /// [`Pace::check`] between two products of a step, on the CPU only: there a product blocks the thread.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if a stop was requested.
    pub(crate) async fn between(&self, steps: Steps) -> Result<(), Error> {
        if steps.cpu { self.check().await } else { Ok(()) }
    }

    /// [`Pace::step`] without progress.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if a stop was requested.
    pub(crate) async fn check(&self) -> Result<(), Error> {
        self.cancel.check().await
    }

    /// Waits for `work` and returns its result, unless a stop is requested first: a device may still compute for long.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if a stop was requested; those of `work`.
    pub(crate) async fn wait<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        self.cancel.wait(work).await
    }

    /// The last progress since the previous call, if any.
    pub(crate) fn take(&self) -> Option<Progress> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_buffer_exceeds_the_binding() {
        let gpu = Steps { cpu: false, software: false, values: 32 << 20 };
        // A feed-forward of 14336 columns: 2340 rows of 57 344 bytes.
        assert_eq!(gpu.rows(u64::MAX, 14336), 2340);
        assert_eq!(gpu.rows(0, 0), 1 << 25);
    }

    #[test]
    fn a_step_of_the_cpu_is_short_but_not_too_narrow() {
        let cpu = Steps { cpu: true, software: false, values: u64::MAX / 4 };
        assert_eq!(cpu.rows(STEP / 100, 64), 100);
        assert_eq!(cpu.rows(u64::MAX, 64), FEWEST);
        assert!(cpu.rows(1000, 64) > 100_000);
        assert!(!cpu.waits(u64::MAX));
    }
}
