//! What a device is: name, kind, limits, and what Fovea needs of them.

use std::fmt;

use burn::tensor::wgpu::wgpu;
use serde::{Deserialize, Serialize};

/// What kind of hardware a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceClass {
    /// A GPU with its own memory.
    Discrete,
    /// A GPU that shares the memory of the host.
    Integrated,
    /// A GPU that a hypervisor provides.
    Virtual,
    /// A software GPU (runs on the CPU).
    Software,
    /// The CPU itself.
    Cpu,
    /// The driver does not report it.
    Other,
}

/// What is known about a device. The same before and after it is opened.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeviceInfo {
    /// The name of the adapter.
    pub name: String,
    /// `cpu`, `vulkan`, `metal`, `dx12`, `gl`, `webgpu` or `cuda`.
    pub backend: String,
    /// Driver and version, as the driver reports them.
    pub driver: String,
    /// What kind of hardware it is.
    pub class: DeviceClass,
    /// Whether its shaders can compute in f16.
    pub f16: bool,
    /// Whether its shaders have subgroup operations.
    pub subgroups: bool,
    /// Largest buffer, in bytes.
    pub max_buffer_size: u64,
    /// Largest binding of a buffer, in bytes.
    pub max_binding_size: u64,
    /// Storage buffers per shader stage.
    pub max_storage_buffers: u32,
    /// Memory shared by one workgroup, in bytes.
    pub max_workgroup_storage: u32,
    /// Invocations per workgroup.
    pub max_workgroup_invocations: u32,
    /// Memory of the GPU in bytes. None where it is not reported, on software GPUs and on the CPU.
    pub memory: Option<u64>,
}

impl DeviceInfo {
    /// The CPU of this machine.
    pub(crate) fn cpu() -> Self {
        // Those that compute: RAYON_NUM_THREADS can ask for fewer than the machine has.
        #[cfg(target_family = "wasm")]
        let threads = 1;
        #[cfg(not(target_family = "wasm"))]
        let threads = rayon::current_num_threads();
        Self {
            name: format!("CPU, {threads} thread{}", if threads == 1 { "" } else { "s" }),
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
            memory: None,
        }
    }

    /// What wgpu reports about an adapter.
    pub(crate) fn of(adapter: &wgpu::Adapter) -> Self {
        let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
        Self {
            // A browser may hide the name.
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
            #[cfg(target_family = "wasm")]
            memory: None,
            // A software GPU uses the host's memory, but may report any size: 2 GiB on Mesa 22.
            #[cfg(not(target_family = "wasm"))]
            memory: super::gpu_memory::reported(adapter)
                .filter(|_| info.device_type != wgpu::DeviceType::Cpu)
                .map(|memory| memory.total),
        }
    }

    /// The limits that Fovea depends on, as (name, needed, available). Needed is the baseline of WebGPU.
    pub fn requirements(&self) -> [(&'static str, u64, u64); 5] {
        [
            ("buffer size, bytes", 256 << 20, self.max_buffer_size),
            ("binding size, bytes", 128 << 20, self.max_binding_size),
            ("storage buffers per stage", 8, self.max_storage_buffers.into()),
            ("workgroup storage, bytes", 16 << 10, self.max_workgroup_storage.into()),
            ("invocations per workgroup", 256, self.max_workgroup_invocations.into()),
        ]
    }

    /// Whether it is GPU hardware, not software on the CPU.
    pub(crate) fn is_real_gpu(&self) -> bool {
        matches!(self.class, DeviceClass::Discrete | DeviceClass::Integrated | DeviceClass::Virtual)
    }

    /// Smaller is better: discrete, integrated, virtual, unknown, software. Of the same kind, OpenGL is last.
    pub(crate) fn rank(&self) -> (usize, bool) {
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
        match self.class {
            DeviceClass::Cpu => f.write_str(&self.name),
            _ => write!(f, "{} ({})", self.name, self.backend),
        }
    }
}
