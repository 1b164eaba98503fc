//! How fast a device reads memory: the limit of decoding, which reads every weight once per token.

use std::{hint::black_box, time::Instant};

use burn::tensor::wgpu::wgpu;
use fovea_runtime::{OpenDevice, testing::wgpu_handles};
use rayon::prelude::*;

/// Runs; the fastest one is reported.
const RUNS: usize = 20;
/// Bytes to measure the bandwidth with: more than the caches of most devices.
const LARGE: u64 = 256 << 20;
/// Invocations per workgroup, and the largest number of workgroups: enough reads in flight for the largest GPUs.
const LANES: u32 = 256;
const GROUPS: u64 = 2048;

/// Each invocation reads packs of 16 bytes; adjacent invocations read adjacent packs. The result depends on every pack.
const READ: &str = "
@group(0) @binding(0) var<storage, read> packs: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> out: array<u32>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let count = arrayLength(&packs);
    let step = groups.x * 256u;
    var a = vec4<u32>();
    var b = vec4<u32>();
    var i = id.x;
    for (; i + 3u * step < count; i += 4u * step) {
        a ^= packs[i] ^ packs[i + step];
        b ^= packs[i + 2u * step] ^ packs[i + 3u * step];
    }
    for (; i < count; i += step) {
        a ^= packs[i];
    }
    let c = a ^ b;
    out[id.x] = c.x ^ c.y ^ c.z ^ c.w;
}
";

/// Bytes per second of a large read. None on CUDA, or if a read fails.
pub fn read_bandwidth(open: &OpenDevice) -> Option<f64> {
    let bytes = LARGE.min(open.info.max_binding_size);
    read_seconds(open, bytes).map(|seconds| bytes as f64 / seconds)
}

/// Seconds to read `bytes` once: the fastest of twenty runs. On a GPU the time of a compute shader, by the clock of the
/// device if it has one, else by the host; on the CPU the time of all threads. None on CUDA, or if a read fails.
pub fn read_seconds(open: &OpenDevice, bytes: u64) -> Option<f64> {
    match (open.info.backend.as_str(), wgpu_handles(open)) {
        ("cpu", _) => Some(on_the_cpu(bytes)),
        (_, Some((device, queue))) => on_a_gpu(&device, &queue, bytes.min(open.info.max_binding_size)),
        (_, None) => None,
    }
}

fn on_the_cpu(bytes: u64) -> f64 {
    let words: Vec<u64> = (0..bytes.div_ceil(8)).collect();
    let fastest = (0..RUNS).map(|_| {
        let start = Instant::now();
        let all = words.par_chunks(1 << 16).map(|part| part.iter().fold(0u64, |all, word| all ^ word));
        black_box(all.reduce(|| 0, |a, b| a ^ b));
        start.elapsed().as_secs_f64()
    });
    fastest.fold(f64::INFINITY, f64::min)
}

fn on_a_gpu(device: &wgpu::Device, queue: &wgpu::Queue, bytes: u64) -> Option<f64> {
    let packs = bytes.div_ceil(16);
    let groups = packs.div_ceil(u64::from(LANES)).clamp(1, GROUPS);
    let buffer = |size, usage| {
        device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
    };
    let from = buffer(packs * 16, wgpu::BufferUsages::STORAGE);
    let out = buffer(groups * u64::from(LANES) * 4, wgpu::BufferUsages::STORAGE);
    let source = wgpu::ShaderSource::Wgsl(READ.into());
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor { label: None, source });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: None,
        module: &module,
        entry_point: Some("main"),
        compilation_options: wgpu::PipelineCompilationOptions::default(),
        cache: None,
    });
    let bind_group = device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout: &pipeline.get_bind_group_layout(0),
        entries: &[
            wgpu::BindGroupEntry { binding: 0, resource: from.as_entire_binding() },
            wgpu::BindGroupEntry { binding: 1, resource: out.as_entire_binding() },
        ],
    });
    let clock = device.features().contains(wgpu::Features::TIMESTAMP_QUERY).then(|| {
        let ty = wgpu::QueryType::Timestamp;
        device.create_query_set(&wgpu::QuerySetDescriptor { label: None, ty, count: 2 })
    });
    let stamps = buffer(16, wgpu::BufferUsages::QUERY_RESOLVE.union(wgpu::BufferUsages::COPY_SRC));
    let mut best = f64::INFINITY;
    for _ in 0..RUNS {
        let read = buffer(16, wgpu::BufferUsages::COPY_DST.union(wgpu::BufferUsages::MAP_READ));
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let timestamp_writes = clock.as_ref().map(|query_set| wgpu::ComputePassTimestampWrites {
            query_set,
            beginning_of_pass_write_index: Some(0),
            end_of_pass_write_index: Some(1),
        });
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes });
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &bind_group, &[]);
        pass.dispatch_workgroups(groups as u32, 1, 1);
        drop(pass);
        if let Some(clock) = &clock {
            encoder.resolve_query_set(clock, 0..2, &stamps, 0);
            encoder.copy_buffer_to_buffer(&stamps, 0, &read, 0, 16);
        }
        let commands = encoder.finish();
        device.poll(wgpu::PollType::wait_indefinitely()).ok()?;
        let start = Instant::now();
        queue.submit([commands]);
        device.poll(wgpu::PollType::wait_indefinitely()).ok()?;
        let mut seconds = start.elapsed().as_secs_f64();
        if clock.is_some() {
            read.map_async(wgpu::MapMode::Read, .., |_| {});
            device.poll(wgpu::PollType::wait_indefinitely()).ok()?;
            let range = read.get_mapped_range(..).ok()?;
            let ticks: Vec<u64> = range.as_chunks::<8>().0.iter().map(|ticks| u64::from_le_bytes(*ticks)).collect();
            seconds = ticks[1].saturating_sub(ticks[0]) as f64 * f64::from(queue.get_timestamp_period()) * 1e-9;
        }
        best = best.min(seconds);
    }
    Some(best)
}
