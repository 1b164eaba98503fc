//! Opening a device: a choice in, a proven [`OpenDevice`] out.
//!
//! `auto` takes a real GPU, else the CPU. A software adapter (lavapipe, SwiftShader, WARP) is slower than the CPU
//! backend and is taken only when asked for. Every device proves itself on a small computation with a known answer
//! before anything is loaded: a driver that miscompiles must not answer questions.

use std::{fmt, future::Future, str::FromStr};

use burn::tensor::wgpu::{WgpuSetup, wgpu};
use burn::tensor::{DType, Device, Int, Tensor, TensorData, Transaction, activation};
use serde::{Deserialize, Serialize};

use crate::{Error, Keep, Scale, sampler_ops, watch::Watch};

/// Which device to open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The best real GPU, else the CPU.
    #[default]
    Auto,
    /// The CPU (burn's `flex` backend).
    Cpu,
    /// The best adapter that wgpu finds, a software one only where there is no other.
    Wgpu,
    /// The adapter with this number in [`adapters`].
    WgpuIndex(usize),
    /// The first adapter whose name holds this text, in any case.
    WgpuName(String),
    /// An NVIDIA GPU through CUDA, by number. Needs a build with the feature `cuda`.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let unknown = || Error::UnknownDevice { given: text.to_owned() };
        match text.split_once(':') {
            None => match text {
                "auto" => Ok(Self::Auto),
                "cpu" => Ok(Self::Cpu),
                "wgpu" => Ok(Self::Wgpu),
                "cuda" => Ok(Self::Cuda(0)),
                _ => Err(unknown()),
            },
            Some(("wgpu", which)) if !which.is_empty() => {
                Ok(which.parse().map_or_else(|_| Self::WgpuName(which.to_owned()), Self::WgpuIndex))
            }
            Some(("cuda", index)) => index.parse().map(Self::Cuda).map_err(|_| unknown()),
            Some(_) => Err(unknown()),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Wgpu => f.write_str("wgpu"),
            Self::WgpuIndex(index) => write!(f, "wgpu:{index}"),
            Self::WgpuName(name) => write!(f, "wgpu:{name}"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

/// What kind of hardware a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceClass {
    /// A GPU with memory of its own.
    Discrete,
    /// A GPU that shares the host's memory.
    Integrated,
    /// A GPU lent by a hypervisor.
    Virtual,
    /// A GPU drawn by the CPU.
    Software,
    /// The CPU itself.
    Cpu,
    /// The driver does not say.
    Other,
}

/// What is known of a device before or after opening it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeviceInfo {
    /// The adapter's own name.
    pub name: String,
    /// `cpu`, `vulkan`, `metal`, `dx12`, `gl`, `webgpu` or `cuda`.
    pub backend: String,
    /// Driver and version, as the driver tells it.
    pub driver: String,
    /// What kind of hardware it is.
    pub class: DeviceClass,
    /// Whether its shaders can compute in f16.
    pub f16: bool,
    /// Whether its shaders have subgroup operations.
    pub subgroups: bool,
    /// Largest buffer, bytes.
    pub max_buffer_size: u64,
    /// Largest binding of a buffer, bytes.
    pub max_binding_size: u64,
    /// Storage buffers per shader stage.
    pub max_storage_buffers: u32,
    /// Memory shared by one workgroup, bytes.
    pub max_workgroup_storage: u32,
    /// Invocations in one workgroup.
    pub max_workgroup_invocations: u32,
}

impl DeviceInfo {
    pub(crate) fn cpu() -> Self {
        Self {
            name: format!("CPU, {} threads", std::thread::available_parallelism().map_or(1, usize::from)),
            backend: "cpu".into(),
            driver: "burn flex".into(),
            class: DeviceClass::Cpu,
            f16: false,
            subgroups: false,
            max_buffer_size: u64::MAX,
            max_binding_size: u64::MAX,
            max_storage_buffers: u32::MAX,
            max_workgroup_storage: u32::MAX,
            max_workgroup_invocations: u32::MAX,
        }
    }

    fn of(adapter: &wgpu::Adapter) -> Self {
        let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
        Self {
            // A browser may keep it to itself.
            name: if info.name.is_empty() { "an adapter without a name".into() } else { info.name },
            backend: info.backend.to_str().to_owned(),
            driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
            class: match info.device_type {
                wgpu::DeviceType::DiscreteGpu => DeviceClass::Discrete,
                wgpu::DeviceType::IntegratedGpu => DeviceClass::Integrated,
                wgpu::DeviceType::VirtualGpu => DeviceClass::Virtual,
                wgpu::DeviceType::Cpu => DeviceClass::Software,
                wgpu::DeviceType::Other => DeviceClass::Other,
            },
            f16: features.contains(wgpu::Features::SHADER_F16),
            subgroups: features.contains(wgpu::Features::SUBGROUP),
            max_buffer_size: limits.max_buffer_size,
            max_binding_size: limits.max_storage_buffer_binding_size,
            max_storage_buffers: limits.max_storage_buffers_per_shader_stage,
            max_workgroup_storage: limits.max_compute_workgroup_storage_size,
            max_workgroup_invocations: limits.max_compute_invocations_per_workgroup,
        }
    }

    /// Limits that Fovea needs, what it needs of each, and what this device has: WebGPU's own baseline.
    pub fn requirements(&self) -> [(&'static str, u64, u64); 5] {
        [
            ("buffer size, bytes", 256 << 20, self.max_buffer_size),
            ("binding size, bytes", 128 << 20, self.max_binding_size),
            ("storage buffers per stage", 8, self.max_storage_buffers.into()),
            ("workgroup storage, bytes", 16 << 10, self.max_workgroup_storage.into()),
            ("invocations per workgroup", 256, self.max_workgroup_invocations.into()),
        ]
    }

    /// Whether a GPU answers, and not a CPU that plays one.
    fn is_real_gpu(&self) -> bool {
        matches!(self.class, DeviceClass::Discrete | DeviceClass::Integrated | DeviceClass::Virtual)
    }

    /// Smaller is better: discrete, integrated, virtual, unknown, software; of the same kind, OpenGL last.
    fn rank(&self) -> (usize, bool) {
        let kind = match self.class {
            DeviceClass::Discrete => 0,
            DeviceClass::Integrated => 1,
            DeviceClass::Virtual => 2,
            DeviceClass::Other => 3,
            DeviceClass::Software | DeviceClass::Cpu => 4,
        };
        (kind, self.backend == "gl")
    }
}

impl fmt::Display for DeviceInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.backend)
    }
}

/// wgpu's own handles of a device, and what is heard of it.
#[derive(Clone, Debug)]
struct Gpu {
    device: wgpu::Device,
    #[cfg(not(target_family = "wasm"))]
    queue: wgpu::Queue,
    watch: Watch,
}

/// A device that has passed its self-test.
#[derive(Clone, Debug)]
pub struct OpenDevice {
    /// burn's handle.
    pub device: Device,
    /// What it is.
    pub info: DeviceInfo,
    /// None where the device is not wgpu's.
    gpu: Option<Gpu>,
}

/// Vulkan, Metal and DX12; after them OpenGL, which has no f16, for machines with nothing better. A browser's OpenGL is
/// WebGL, which has no compute shaders.
const BACKENDS: wgpu::Backends = if cfg!(target_family = "wasm") {
    wgpu::Backends::PRIMARY
} else {
    wgpu::Backends::PRIMARY.union(wgpu::Backends::GL)
};

fn instance() -> wgpu::Instance {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = BACKENDS;
    wgpu::Instance::new(descriptor)
}

async fn list(instance: &wgpu::Instance) -> Vec<(wgpu::Adapter, DeviceInfo)> {
    #[cfg(target_family = "wasm")]
    let found: Vec<wgpu::Adapter> = {
        // A browser hands out one adapter, the one it thinks best.
        let options = wgpu::RequestAdapterOptions {
            power_preference: wgpu::PowerPreference::HighPerformance,
            ..Default::default()
        };
        instance.request_adapter(&options).await.into_iter().collect()
    };
    #[cfg(not(target_family = "wasm"))]
    let found = instance.enumerate_adapters(BACKENDS).await;
    found
        .into_iter()
        .map(|adapter| {
            let info = DeviceInfo::of(&adapter);
            (adapter, info)
        })
        .collect()
}

/// Every adapter that wgpu finds; the index is the N of `wgpu:N`.
pub async fn adapters() -> Vec<DeviceInfo> {
    list(&instance()).await.into_iter().map(|(_, info)| info).collect()
}

impl OpenDevice {
    /// Opens and proves the chosen device.
    ///
    /// # Errors
    /// [`Error::NoAdapter`] where none answers to the choice, [`Error::MissingFeature`] where a limit is too small or
    /// the build lacks CUDA, [`Error::SelfTest`] where it computes wrongly, [`Error::DeviceLost`] where it does not answer.
    pub async fn open(choice: &DeviceChoice) -> Result<Self, Error> {
        let opened = match choice {
            DeviceChoice::Cpu => Self::cpu(),
            DeviceChoice::Cuda(index) => Self::cuda(*index)?,
            _ => {
                let instance = instance();
                let mut found = list(&instance).await;
                match pick(choice, found.iter().map(|(_, info)| info)) {
                    Some(index) => {
                        let (adapter, info) = found.swap_remove(index);
                        Self::wgpu(instance, adapter, info).await?
                    }
                    None if *choice == DeviceChoice::Auto => Self::cpu(),
                    None => return Err(no_adapter(choice, found.iter().map(|(_, info)| info))),
                }
            }
        };
        opened.guard(opened.self_test()).await?;
        Ok(opened)
    }

    /// Runs `work` for as long as the device lives. All that computes or reads goes through here: see [`crate::watch`].
    ///
    /// # Errors
    /// What `work` gives; [`Error::DeviceLost`] where the device is lost before it ends. [`OpenDevice::open`] opens
    /// another, in the same process; what lay on this one is gone.
    pub async fn guard<T, E: From<Error>>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        match &self.gpu {
            Some(gpu) => gpu.watch.guard(work).await,
            None => work.await,
        }
    }

    /// Gives the device's memory back. What is on it is gone, and all work on it and its clones ends with
    /// [`Error::DeviceLost`]. Nothing happens where the device is not wgpu's.
    pub fn close(&self) {
        if let Some(gpu) = &self.gpu {
            gpu.watch.lose("it was closed");
            gpu.device.destroy();
        }
    }

    /// Takes the device away without a word, as a driver's reset or a pulled cable does, for tests of what follows.
    pub fn pull(&self) {
        if let Some(gpu) = &self.gpu {
            gpu.device.destroy();
        }
    }

    /// Bytes of the device's memory that are taken: buffers in use, and pages kept for those to come. None where the device is
    /// not wgpu's.
    pub fn memory_in_use(&self) -> Option<u64> {
        self.gpu.as_ref()?;
        Some(self.device.memory_pool_usage()?.bytes_reserved)
    }

    /// Gives back pages that no buffer lies in. Pipelines stay, so what is loaded next starts sooner.
    pub fn release_unused(&self) {
        if self.gpu.is_some() {
            self.device.memory_cleanup();
        }
    }

    /// Whether it has not been lost or closed.
    pub fn is_alive(&self) -> bool {
        self.gpu.as_ref().is_none_or(|gpu| gpu.watch.check().is_ok())
    }

    /// Seconds to copy `bytes` from one buffer to another on this device, by its own clock where it has one that counts
    /// between copies, else by the host's: what memory can do. The fastest of twenty; None where the device is not wgpu's.
    #[cfg(not(target_family = "wasm"))]
    pub fn copy_seconds(&self, bytes: u64) -> Option<f64> {
        let Gpu { device, queue, .. } = self.gpu.as_ref()?;
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

    fn cpu() -> Self {
        Self { device: Device::flex(), info: DeviceInfo::cpu(), gpu: None }
    }

    #[cfg(feature = "cuda")]
    fn cuda(index: usize) -> Result<Self, Error> {
        let info = crate::cuda::find(index)?;
        Ok(Self { device: Device::cuda(index), info, gpu: None })
    }

    #[cfg(not(feature = "cuda"))]
    fn cuda(index: usize) -> Result<Self, Error> {
        Err(Error::MissingFeature {
            device: format!("cuda:{index}"),
            what: "CUDA support: this build was made without `--features cuda`".into(),
        })
    }

    async fn wgpu(instance: wgpu::Instance, adapter: wgpu::Adapter, info: DeviceInfo) -> Result<Self, Error> {
        if let Some((what, need, have)) = info.requirements().into_iter().find(|(_, need, have)| have < need) {
            return Err(Error::MissingFeature {
                device: info.to_string(),
                what: format!("room: {what}, need {need}, have {have}"),
            });
        }
        // Everything stable that the adapter has. Mappable primary buffers make every allocation slow on a discrete
        // GPU; experimental features are not for users.
        let features = adapter
            .features()
            .difference(wgpu::Features::MAPPABLE_PRIMARY_BUFFERS.union(wgpu::Features::all_experimental_mask()));
        let (device, queue) = adapter
            .request_device(&wgpu::DeviceDescriptor {
                label: Some("fovea"),
                required_features: features,
                required_limits: adapter.limits(),
                memory_hints: wgpu::MemoryHints::MemoryUsage,
                ..Default::default()
            })
            .await
            .map_err(|e| Error::MissingFeature {
                device: info.to_string(),
                what: format!("what its own limits promise: {e}"),
            })?;
        let backend = adapter.get_info().backend;
        let gpu = device.clone();
        #[cfg(not(target_family = "wasm"))]
        let gpu_queue = queue.clone();
        let device = Device::wgpu_options()
            .setup(WgpuSetup { instance, adapter, device, queue, backend })
            .init()
            .map_err(|e| Error::MissingFeature { device: info.to_string(), what: e.to_string() })?;
        let watch = Watch::listen(&gpu);
        Ok(Self {
            device,
            info,
            gpu: Some(Gpu {
                device: gpu,
                #[cfg(not(target_family = "wasm"))]
                queue: gpu_queue,
                watch,
            }),
        })
    }

    /// Whether tensors can be stored and multiplied in f16.
    pub fn has_f16(&self) -> bool {
        self.info.class != DeviceClass::Cpu && self.info.f16 && self.device.supports_dtype(DType::F16)
    }

    /// Small computations worked out by hand: a matrix product with a softmax, and every operation of the samplers, so that
    /// each pipeline has run once before anything depends on it.
    async fn self_test(&self) -> Result<(), Error> {
        self.expect("softmax(A B)", &[0.125, 0.25, 0.625, 1.0 / 30.0, 4.0 / 30.0, 25.0 / 30.0], self.softmax()).await?;
        let map: Vec<f32> = (0..12).map(|i| i as f32).collect(); // (2, 3, 2)
        let map = Tensor::<3>::from_data(TensorData::new(map, [2, 3, 2]), &self.device);
        // Window 2 over 2 x 3 patches: regions of 2 x 2 and 2 x 1, each at one scale.
        let scales = [Scale::new(2, 2), Scale::new(1, 1)];
        let pooled = sampler_ops::region_pool(map.clone(), 2, &scales[..1])?;
        self.expect("region_pool", &[8.0, 9.0, 10.0, 11.0], async { Ok(pooled.rows.clone()) }).await?;
        // Regions (8, 9), (10, 11) . thumbnail (2, 0), (0, 2) / sqrt 2 = sqrt 2 (8, 9), sqrt 2 (10, 11).
        let two = std::f32::consts::SQRT_2;
        let tensor = |rows: [[f32; 2]; 2]| Tensor::<2>::from_data(TensorData::from(rows), &self.device);
        let bias = Tensor::<1>::from_data(TensorData::from([0.0, -19.0 * two / 2.0]), &self.device);
        let (logits, choice) = sampler_ops::scale_select(
            pooled.rows.clone(),
            tensor([[2.0, 0.0], [0.0, 2.0]]),
            tensor([[-1.0, 0.0], [0.0, 0.0]]),
            bias,
        )?;
        let expected = [-8.0 * two, -9.5 * two, -10.0 * two, -9.5 * two];
        self.expect("scale_select", &expected, async { Ok(logits) }).await?;
        // The first region as one token, the second patch by patch; a newline after each row of patches.
        let newline = Tensor::<1>::from_data(TensorData::from([-1.0, -2.0]), &self.device);
        let compacted = sampler_ops::compact(map, &pooled, newline, choice, &scales).await?;
        let tokens = compacted.map_or_else(|| tensor([[f32::NAN; 2]; 2]), |compacted| compacted.tokens);
        let expected = [8.0, 9.0, 4.0, 5.0, -1.0, -2.0, 10.0, 11.0, -1.0, -2.0];
        self.expect("compact", &expected, async { Ok(tokens) }).await?;
        // Two heads of four channels, one text token: softmax(ln p) = p, and the better head counts.
        let key = [0.5f32, 0.3, 0.2, 0.1, 0.7, 0.2].map(|p| [2.0 * p.ln(), 0.0, 0.0, 0.0]);
        let key = Tensor::<3>::from_data(TensorData::new(key.as_flattened().to_vec(), [2, 3, 4]), &self.device);
        let query =
            Tensor::<3>::from_data(TensorData::new([[1.0f32, 0.0, 0.0, 0.0]; 2].concat(), [2, 1, 4]), &self.device);
        let scores = sampler_ops::text_score(query, key.clone())?;
        self.expect("text_score", &[0.5, 0.7, 0.2], async { Ok(scores.clone()) }).await?;
        // Shares in falling order: .5, .857, 1.
        let kept = sampler_ops::top_k(scores, Keep::Gamma(0.85)).await?;
        self.expect("top_k", &[0.0, 1.0], async { Ok(kept.clone().float()) }).await?;
        let rows = sampler_ops::row_gather(key.narrow(2, 0, 1) * 0.5, kept)?;
        let expected = [0.5f32, 0.3, 0.1, 0.7].map(f32::ln);
        self.expect("row_gather", &expected, async { Ok(rows) }).await
    }

    /// Rows of `a` times `b` are (ln 1, ln 2, ln 5) and its multiples; the softmax of the first is (1, 2, 5) / 8.
    async fn softmax(&self) -> Result<Tensor<2>, Error> {
        let logs = [1f32.ln(), 2f32.ln(), 5f32.ln()];
        let a = Tensor::<2>::from_data(TensorData::from([[1.0f32, 0.0], [0.0, 2.0]]), &self.device);
        let b = Tensor::<2>::from_data(TensorData::from([logs, logs]), &self.device);
        Ok(activation::softmax(a.matmul(b), 1))
    }

    /// Products in f32 are sums of f32 products everywhere but on CUDA, where cubek rounds their factors to TF32: ten bits.
    fn self_test_bound(&self) -> f32 {
        if self.info.backend == "cuda" { 2e-3 } else { 1e-5 }
    }

    async fn expect<const D: usize>(
        &self,
        what: &'static str,
        expected: &[f32],
        got: impl Future<Output = Result<Tensor<D>, Error>>,
    ) -> Result<(), Error> {
        let got = read_f32(got.await?).await?;
        let wrong = |expected, got| Err(Error::SelfTest { device: self.info.to_string(), what, expected, got });
        if got.len() != expected.len() {
            return wrong(expected.len() as f32, got.len() as f32);
        }
        for (got, expected) in got.into_iter().zip(expected.iter().copied()) {
            // Not `>`: a NaN must fail.
            if !matches!((got - expected).abs(), error if error < self.self_test_bound() * expected.abs().max(1.0)) {
                return wrong(expected, got);
            }
        }
        Ok(())
    }
}

fn pick<'a>(choice: &DeviceChoice, found: impl Iterator<Item = &'a DeviceInfo>) -> Option<usize> {
    let mut found = found.enumerate();
    match choice {
        DeviceChoice::Auto => found.filter(|(_, i)| i.is_real_gpu()).min_by_key(|(_, i)| i.rank()).map(|(n, _)| n),
        DeviceChoice::Wgpu => found.min_by_key(|(_, i)| i.rank()).map(|(n, _)| n),
        DeviceChoice::WgpuIndex(index) => found.find(|(n, _)| n == index).map(|(n, _)| n),
        DeviceChoice::WgpuName(name) => {
            let name = name.to_lowercase();
            found.find(|(_, i)| i.name.to_lowercase().contains(&name)).map(|(n, _)| n)
        }
        DeviceChoice::Cpu | DeviceChoice::Cuda(_) => None,
    }
}

fn no_adapter<'a>(choice: &DeviceChoice, found: impl Iterator<Item = &'a DeviceInfo>) -> Error {
    let found: Vec<String> = found.enumerate().map(|(n, info)| format!("wgpu:{n} {info}")).collect();
    let found = if found.is_empty() { "none".to_owned() } else { found.join(", ") };
    Error::NoAdapter { asked: choice.to_string(), found }
}

/// The values of a float tensor, in f32, row-major.
///
/// # Errors
/// [`Error::DeviceLost`] where the read-back fails: a GPU reports most errors only here.
pub async fn read_f32<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, Error> {
    let all = read_all(Transaction::default().register(tensor.cast(DType::F32))).await?;
    Ok(all.into_iter().next().map_or_else(Vec::new, into_f32))
}

/// Several tensors in one round trip, in the order in which they were registered.
///
/// burn's own read of one tensor is put off natively until its values are used, and then blocks; this one is awaited.
///
/// # Errors
/// [`Error::DeviceLost`] where the read-back fails.
pub async fn read_all(tensors: Transaction) -> Result<Vec<TensorData>, Error> {
    tensors.execute_async().await.map_err(lost)
}

/// The values of what was read, as f32.
pub fn into_f32(data: TensorData) -> Vec<f32> {
    data.iter::<f32>().collect()
}

/// The values of what was read, as indices; one below zero is the largest index.
pub fn into_indices(data: TensorData) -> Vec<usize> {
    data.iter::<i64>().map(|i| usize::try_from(i).unwrap_or(usize::MAX)).collect()
}

/// Waits until `tensor` has been computed, by reading one element of it: the only wait that a browser has.
///
/// # Errors
/// [`Error::DeviceLost`] where the read-back fails.
pub async fn settle<const D: usize>(tensor: &Tensor<D>) -> Result<(), Error> {
    let ranges: [std::ops::Range<usize>; D] = std::array::from_fn(|_| 0..1);
    read_f32(tensor.clone().slice(ranges)).await.map(|_| ())
}

/// The values of an integer tensor, row-major; one below zero or above the index range is the largest index.
///
/// # Errors
/// [`Error::DeviceLost`] where the read-back fails.
pub async fn read_indices<const D: usize>(tensor: Tensor<D, Int>) -> Result<Vec<usize>, Error> {
    read_all(Transaction::default().register(tensor)).await.map(|mut all| all.pop().map_or_else(Vec::new, into_indices))
}

pub(crate) fn lost(error: impl fmt::Debug) -> Error {
    Error::DeviceLost(format!("{error:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(name: &str, class: DeviceClass) -> DeviceInfo {
        DeviceInfo { name: name.into(), class, ..DeviceInfo::cpu() }
    }

    #[test]
    fn auto_never_takes_a_software_adapter() {
        let software = info("llvmpipe", DeviceClass::Software);
        let integrated = info("Iris", DeviceClass::Integrated);
        let discrete = info("RTX", DeviceClass::Discrete);
        let all = [&software, &integrated, &discrete];
        assert_eq!(pick(&DeviceChoice::Auto, all.into_iter()), Some(2));
        assert_eq!(pick(&DeviceChoice::Auto, [&software].into_iter()), None);
        assert_eq!(pick(&DeviceChoice::Wgpu, [&software].into_iter()), Some(0));
        assert_eq!(pick(&DeviceChoice::WgpuName("LLVM".into()), all.into_iter()), Some(0));
        assert_eq!(pick(&DeviceChoice::WgpuIndex(7), all.into_iter()), None);
    }

    /// The result of a future that waits for nothing: on the CPU none does.
    fn now<T>(future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        match future.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
            std::task::Poll::Ready(value) => value,
            std::task::Poll::Pending => panic!("expected a future that is ready, got one that waits"),
        }
    }

    #[test]
    fn a_device_that_computes_wrongly_is_a_typed_error_and_another_opens() {
        let open = OpenDevice::cpu();
        let wrong = |values: [f32; 2]| {
            let tensor = Tensor::<1>::from_data(TensorData::from(values), &open.device);
            now(open.expect("x", &[1.0, 2.0], async { Ok(tensor) }))
        };
        assert!(wrong([1.0, 2.0]).is_ok());
        for values in [[1.0, 2.001], [f32::NAN, 2.0], [1.0, f32::INFINITY]] {
            let error = wrong(values).unwrap_err();
            assert!(matches!(error, Error::SelfTest { what: "x", .. }), "expected a failed self-test, got: {error}");
        }
        let again = now(OpenDevice::open(&DeviceChoice::Cpu));
        assert!(again.is_ok(), "expected the CPU to open, got: {again:?}");
    }

    #[test]
    fn a_choice_reads_what_it_prints() {
        for text in ["auto", "cpu", "wgpu", "wgpu:3", "wgpu:llvmpipe", "cuda:1"] {
            assert_eq!(text.parse::<DeviceChoice>().unwrap().to_string(), text);
        }
        for text in ["", "gpu", "wgpu:", "cuda:x", "cpu:1"] {
            assert!(text.parse::<DeviceChoice>().is_err(), "{text}");
        }
    }
}
