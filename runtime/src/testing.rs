//! Hooks for tests and benchmarks. Not part of the API.

use std::marker::PhantomData;

pub use crate::sentinels::{begin_sentinels, check_sentinels};
use crate::{device::open::OpenDevice, launch::ONLY_TENSOR_OPS};

/// While this lives, the operations of the samplers run as tensor operations on this thread, never as kernels.
#[must_use = "kernels run again when it is dropped"]
pub struct TensorOpsOnly(PhantomData<*const ()>); // it belongs to its thread: not Send

/// Turns the kernels off on this thread until the result is dropped.
pub fn tensor_ops_only() -> TensorOpsOnly {
    ONLY_TENSOR_OPS.set(true);
    TensorOpsOnly(PhantomData)
}

impl Drop for TensorOpsOnly {
    fn drop(&mut self) {
        ONLY_TENSOR_OPS.set(false);
    }
}

/// Simulates an unexpected device loss, such as a driver reset.
pub fn lose_device(open: &OpenDevice) {
    if let Some(gpu) = &open.gpu {
        gpu.device.destroy();
    }
}

/// Seconds to copy `bytes` from one buffer to another: the fastest of twenty copies. Measured by the clock of the
/// device where it has one that works between copies, else by the host. None on the CPU and on CUDA, or where a copy
/// fails.
#[cfg(not(target_family = "wasm"))]
pub fn copy_seconds(open: &OpenDevice, bytes: u64) -> Option<f64> {
    use burn::tensor::wgpu::wgpu;

    let gpu = open.gpu.as_ref()?;
    let (device, queue) = (&gpu.device, &gpu.queue);
    let bytes = bytes.next_multiple_of(4);
    let buffer = |size, usage| {
        device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
    };
    let (from, to) = (buffer(bytes, wgpu::BufferUsages::COPY_SRC), buffer(bytes, wgpu::BufferUsages::COPY_DST));
    let has_clock = device
        .features()
        .contains(wgpu::Features::TIMESTAMP_QUERY.union(wgpu::Features::TIMESTAMP_QUERY_INSIDE_ENCODERS));
    let clock = has_clock.then(|| {
        let ty = wgpu::QueryType::Timestamp;
        device.create_query_set(&wgpu::QuerySetDescriptor { label: None, ty, count: 2 })
    });
    let stamps = buffer(16, wgpu::BufferUsages::QUERY_RESOLVE.union(wgpu::BufferUsages::COPY_SRC));
    let mut best = f64::INFINITY;
    for _ in 0..20 {
        let read = buffer(16, wgpu::BufferUsages::COPY_DST.union(wgpu::BufferUsages::MAP_READ));
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        if let Some(clock) = &clock {
            encoder.write_timestamp(clock, 0);
        }
        encoder.copy_buffer_to_buffer(&from, 0, &to, 0, bytes);
        if let Some(clock) = &clock {
            encoder.write_timestamp(clock, 1);
            encoder.resolve_query_set(clock, 0..2, &stamps, 0);
            encoder.copy_buffer_to_buffer(&stamps, 0, &read, 0, 16);
        }
        let commands = encoder.finish();
        device.poll(wgpu::PollType::wait_indefinitely()).ok()?;
        let start = std::time::Instant::now();
        queue.submit([commands]);
        device.poll(wgpu::PollType::wait_indefinitely()).ok()?;
        let mut seconds = start.elapsed().as_secs_f64();
        if clock.is_some() {
            read.map_async(wgpu::MapMode::Read, .., |_| {});
            device.poll(wgpu::PollType::wait_indefinitely()).ok()?;
            let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&read.get_mapped_range(..).ok()?);
            seconds = ticks[1].saturating_sub(ticks[0]) as f64 * f64::from(queue.get_timestamp_period()) * 1e-9;
        }
        best = best.min(seconds);
    }
    Some(best)
}
