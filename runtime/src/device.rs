//! Opening a device: a choice in, a proven [`OpenDevice`] out.
//!
//! `auto` takes a real GPU, else the CPU. A software adapter (lavapipe, SwiftShader, WARP) is slower than the CPU
//! backend and is taken only when asked for. Every device proves itself on a small computation with a known answer
//! before anything is loaded: a driver that miscompiles must not answer questions.

use std::{fmt, str::FromStr};

use burn::tensor::wgpu::{WgpuSetup, wgpu};
use burn::tensor::{DType, Device, Tensor, TensorData, activation};
use serde::Serialize;

use crate::Error;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
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
#[derive(Clone, Debug, Serialize)]
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
    fn cpu() -> Self {
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
            name: info.name,
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

    /// Smaller is better: discrete, integrated, virtual, unknown, software.
    fn rank(&self) -> usize {
        match self.class {
            DeviceClass::Discrete => 0,
            DeviceClass::Integrated => 1,
            DeviceClass::Virtual => 2,
            DeviceClass::Other => 3,
            DeviceClass::Software | DeviceClass::Cpu => 4,
        }
    }
}

impl fmt::Display for DeviceInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.backend)
    }
}

/// A device that has passed its self-test.
#[derive(Clone, Debug)]
pub struct OpenDevice {
    /// burn's handle.
    pub device: Device,
    /// What it is.
    pub info: DeviceInfo,
}

fn instance() -> wgpu::Instance {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    // OpenGL through wgpu lacks what burn's kernels need; it is listed by nobody and tried by nobody.
    descriptor.backends = wgpu::Backends::PRIMARY;
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
    let found = instance.enumerate_adapters(wgpu::Backends::PRIMARY).await;
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
        opened.self_test().await?;
        Ok(opened)
    }

    fn cpu() -> Self {
        Self { device: Device::flex(), info: DeviceInfo::cpu() }
    }

    #[cfg(feature = "cuda")]
    fn cuda(index: usize) -> Result<Self, Error> {
        let info = DeviceInfo {
            name: format!("CUDA device {index}"),
            backend: "cuda".into(),
            driver: "cuda".into(),
            class: DeviceClass::Discrete,
            f16: true,
            subgroups: true,
            ..DeviceInfo::cpu()
        };
        Ok(Self { device: Device::cuda(index), info })
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
        let device = Device::wgpu_options()
            .setup(WgpuSetup { instance, adapter, device, queue, backend })
            .init()
            .map_err(|e| Error::MissingFeature { device: info.to_string(), what: e.to_string() })?;
        Ok(Self { device, info })
    }

    /// Whether tensors can be stored and multiplied in f16.
    pub fn has_f16(&self) -> bool {
        self.info.class != DeviceClass::Cpu && self.info.f16 && self.device.supports_dtype(DType::F16)
    }

    /// A softmax over a matrix product, worked out by hand.
    ///
    /// Rows of `a` times `b` are (ln 1, ln 2, ln 5) and its multiples; the softmax of the first is (1, 2, 5) / 8.
    async fn self_test(&self) -> Result<(), Error> {
        let logs = [1f32.ln(), 2f32.ln(), 5f32.ln()];
        let a = Tensor::<2>::from_data(TensorData::from([[1.0f32, 0.0], [0.0, 2.0]]), &self.device);
        let b = Tensor::<2>::from_data(TensorData::from([logs, logs]), &self.device);
        let got = read_f32(activation::softmax(a.matmul(b), 1)).await?;
        let expected = [1.0 / 8.0, 2.0 / 8.0, 5.0 / 8.0, 1.0 / 30.0, 4.0 / 30.0, 25.0 / 30.0];
        for (got, expected) in got.into_iter().zip(expected) {
            // Not `>`: a NaN must fail.
            if !matches!((got - expected).abs(), error if error < 1e-5) {
                return Err(Error::SelfTest { device: self.info.to_string(), what: "softmax(A B)", expected, got });
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
    let data = tensor.cast(DType::F32).into_data_async().await.map_err(lost)?;
    data.try_into_vec::<f32>().map_err(lost)
}

/// Waits until `tensor` has been computed, by reading one element of it: the only wait that a browser has.
///
/// # Errors
/// [`Error::DeviceLost`] where the read-back fails.
pub async fn settle<const D: usize>(tensor: &Tensor<D>) -> Result<(), Error> {
    let ranges: [std::ops::Range<usize>; D] = std::array::from_fn(|_| 0..1);
    read_f32(tensor.clone().slice(ranges)).await.map(|_| ())
}

fn lost(error: impl fmt::Debug) -> Error {
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
