//! Opens a device: a [`DeviceChoice`] in, an [`OpenDevice`] that passed its self-test out.
//!
//! `auto` takes a real GPU, else the CPU. A software adapter (llvmpipe, SwiftShader, WARP) is slower than the CPU
//! backend, so it is used only where the user asks for it.

use std::future::Future;

use burn::tensor::wgpu::{WgpuSetup, wgpu};
use burn::tensor::{DType, Device};

use super::{
    choice::DeviceChoice,
    info::{DeviceClass, DeviceInfo},
};
#[cfg(feature = "cuda")]
use crate::cuda::available as cuda_available;
use crate::{
    error::Error,
    launch::{SOFTWARE, WITHOUT_DOT4},
    memory, self_test,
    watch::Watch,
};

/// wgpu's handles of a device, and the watch over it.
#[derive(Clone, Debug)]
pub(crate) struct Gpu {
    pub(crate) device: wgpu::Device,
    #[cfg(not(target_family = "wasm"))]
    pub(crate) queue: wgpu::Queue,
    #[cfg(not(target_family = "wasm"))]
    adapter: wgpu::Adapter,
    watch: Watch,
}

/// A device that has passed its self-test. Clones share it.
#[derive(Clone, Debug)]
pub struct OpenDevice {
    /// burn's handle.
    pub device: Device,
    /// What it is.
    pub info: DeviceInfo,
    /// None on the CPU and on CUDA.
    pub(crate) gpu: Option<Gpu>,
    /// The number of a CUDA device.
    cuda: Option<usize>,
}

/// Vulkan, Metal and DirectX 12; then OpenGL (no f16), for machines with nothing better. In a browser OpenGL is WebGL,
/// which has no compute shaders.
const BACKENDS: wgpu::Backends = if cfg!(target_family = "wasm") {
    wgpu::Backends::PRIMARY
} else {
    wgpu::Backends::PRIMARY.union(wgpu::Backends::GL)
};

/// Dispatches per submission, because a submission costs more than a dispatch: a step of a decoder is about 170. A browser
/// checks each dispatch, so the GPU would wait for a longer list.
const TASKS: usize = if cfg!(target_family = "wasm") { 64 } else { 128 };

fn instance() -> wgpu::Instance {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = BACKENDS;
    wgpu::Instance::new(descriptor)
}

async fn list(instance: &wgpu::Instance) -> Vec<(wgpu::Adapter, DeviceInfo)> {
    #[cfg(target_family = "wasm")]
    let found: Vec<wgpu::Adapter> = {
        // A browser gives one adapter, the one that it thinks best.
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
        .enumerate()
        .map(|(index, adapter)| {
            let info = DeviceInfo::of(&adapter);
            tracing::debug!(index, adapter = %info, class = ?info.class, driver = %info.driver, "adapter found");
            (adapter, info)
        })
        .collect()
}

/// All adapters that wgpu finds. The index is the N of `wgpu:N`.
pub async fn adapters() -> Vec<DeviceInfo> {
    list(&instance()).await.into_iter().map(|(_, info)| info).collect()
}

impl OpenDevice {
    /// Opens the chosen device and tests it.
    ///
    /// # Errors
    /// [`Error::NoAdapter`] where no adapter matches the choice; [`Error::MissingFeature`] where a limit is too small
    /// or the build has no CUDA; [`Error::SelfTest`] where the device computes wrongly; [`Error::DeviceLost`] where it
    /// does not answer.
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
        opened.guard(self_test::run(&opened.device, &opened.info)).await?;
        let info = &opened.info;
        tracing::info!(device = %info, driver = %info.driver, f16 = opened.has_f16(), "device opened");
        Ok(opened)
    }

    fn cpu() -> Self {
        Self { device: Device::flex(), info: DeviceInfo::cpu(), gpu: None, cuda: None }
    }

    #[cfg(feature = "cuda")]
    fn cuda(index: usize) -> Result<Self, Error> {
        let info = crate::cuda::find(index)?;
        Ok(Self { device: Device::cuda(index), info, gpu: None, cuda: Some(index) })
    }

    #[cfg(not(feature = "cuda"))]
    fn cuda(index: usize) -> Result<Self, Error> {
        Err(Error::MissingFeature {
            device: format!("cuda:{index}"),
            what: "CUDA support: this build was made without `--features fovea/cuda`".into(),
        })
    }

    async fn wgpu(instance: wgpu::Instance, adapter: wgpu::Adapter, info: DeviceInfo) -> Result<Self, Error> {
        if let Some((what, need, have)) = info.requirements().into_iter().find(|(_, need, have)| have < need) {
            return Err(Error::MissingFeature {
                device: info.to_string(),
                what: format!("capacity: {what}: expected at least {need}, got {have}; use another --device"),
            });
        }
        // All stable features of the adapter. Mappable primary buffers make each allocation slow on a discrete GPU;
        // experimental features are not for users.
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
                what: format!("a device with the limits that it reports: {e}"),
            })?;
        let backend = adapter.get_info().backend;
        // Natively naga writes products of four bytes for each GPU; a browser may not know them.
        let dot4 = instance.wgsl_language_features().contains(wgpu::WgslLanguageFeatures::Packed4x8IntegerDotProduct);
        let gpu = device.clone();
        #[cfg(not(target_family = "wasm"))]
        let (gpu_queue, gpu_adapter) = (queue.clone(), adapter.clone());
        let device = Device::wgpu_options()
            .setup(WgpuSetup { instance, adapter, device, queue, backend })
            .tasks_max(TASKS)
            .init()
            .map_err(|e| Error::MissingFeature { device: info.to_string(), what: e.to_string() })?;
        let watch = Watch::listen(&gpu);
        if info.class == DeviceClass::Software {
            SOFTWARE.add(&device);
        }
        if !dot4 {
            WITHOUT_DOT4.add(&device);
        }
        Ok(Self {
            device,
            info,
            gpu: Some(Gpu {
                device: gpu,
                #[cfg(not(target_family = "wasm"))]
                queue: gpu_queue,
                #[cfg(not(target_family = "wasm"))]
                adapter: gpu_adapter,
                watch,
            }),
            cuda: None,
        })
    }

    /// Runs `work` while the device is not lost. All code that computes or reads on the device must run in here.
    ///
    /// # Errors
    /// The error of `work`; [`Error::DeviceLost`] where the device is lost before `work` ends. Then
    /// [`OpenDevice::open`] can open a device again in the same process; the tensors on the lost device are gone.
    pub async fn guard<T, E: From<Error>>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        match &self.gpu {
            Some(gpu) => gpu.watch.guard(work).await,
            None => work.await,
        }
    }

    /// Frees the memory of the device. Its tensors are gone, and all work on it and on its clones ends with
    /// [`Error::DeviceLost`]. On the CPU and on CUDA this does nothing.
    pub fn close(&self) {
        if let Some(gpu) = &self.gpu {
            gpu.watch.close();
            gpu.device.destroy();
        }
    }

    /// Bytes of device memory in use: buffers, and free pages that burn keeps. None on the CPU and on CUDA.
    pub fn memory_in_use(&self) -> Option<u64> {
        self.gpu.as_ref()?;
        Some(self.device.memory_pool_usage()?.bytes_reserved)
    }

    /// Bytes that this process can still allocate on the device, as the driver or the system reports them. On the CPU, on
    /// software and on integrated GPUs they are the host's. None where nothing is reported, as with OpenGL and WebGPU.
    pub fn memory_available(&self) -> Option<u64> {
        // In a browser `host_available` is WebAssembly's limit, which is not that of a GPU.
        let shared = cfg!(not(target_family = "wasm"))
            && matches!(self.info.class, DeviceClass::Software | DeviceClass::Integrated);
        if shared || self.info.class == DeviceClass::Cpu {
            return memory::host_available();
        }
        if !self.is_alive() {
            return None;
        }
        // Pages that burn keeps without a buffer are available too.
        let usage = self.device.memory_pool_usage()?;
        let kept = usage.bytes_reserved.saturating_sub(usage.bytes_in_use);
        #[cfg(not(target_family = "wasm"))]
        let reported = self.gpu.as_ref().and_then(|gpu| super::gpu_memory::reported(&gpu.adapter));
        #[cfg(not(target_family = "wasm"))]
        let reported = reported.map(|memory| memory.available);
        #[cfg(target_family = "wasm")]
        let reported = None;
        let available = reported.or_else(|| self.cuda.and_then(cuda_available))?;
        Some(available.saturating_add(kept).min(self.info.memory.unwrap_or(u64::MAX)))
    }

    /// Frees pages that hold no buffer, and returns the freed memory of the process. Pipelines stay, so the next model starts
    /// sooner.
    pub fn release_unused(&self) {
        if self.info.class != DeviceClass::Cpu && self.is_alive() {
            self.device.memory_cleanup();
        }
        memory::return_freed();
    }

    /// Whether the device is neither lost nor closed.
    pub fn is_alive(&self) -> bool {
        self.gpu.as_ref().is_none_or(|gpu| gpu.watch.check().is_ok())
    }

    /// Whether tensors can be stored and multiplied in f16.
    pub fn has_f16(&self) -> bool {
        self.info.class != DeviceClass::Cpu && self.info.f16 && self.device.supports_dtype(DType::F16)
    }
}

/// There is no CUDA device in this build.
#[cfg(not(feature = "cuda"))]
fn cuda_available(_index: usize) -> Option<u64> {
    None
}

/// The index of the adapter that matches the choice.
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
}
