//! Hooks for tests and benchmarks. Not part of the API.

use std::marker::PhantomData;

#[cfg(not(target_family = "wasm"))]
pub use crate::recorder::{Buffer, Launch, record_launches, recorded_launches};
pub use crate::sentinels::{begin_sentinels, check_sentinels};
use crate::{
    device::open::OpenDevice,
    launch::{AS_ON_HARDWARE, LAUNCHING, ONLY_TENSOR_OPS},
};

/// While this lives, the operations of samplers and network run as tensor operations on this thread, never as kernels.
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

/// The kernel of `fovea-shaders` that this thread launches now; None outside of a launch.
pub fn launching() -> Option<&'static str> {
    LAUNCHING.get()
}

/// While this lives, a software GPU gets the kernels and tiles of a real one on this thread.
#[must_use = "a software GPU gets its own kernels again when it is dropped"]
pub struct AsOnHardware(PhantomData<*const ()>); // it belongs to its thread: not Send

/// Launches what a real GPU would get, until the result is dropped.
pub fn as_on_hardware() -> AsOnHardware {
    AS_ON_HARDWARE.set(true);
    AsOnHardware(PhantomData)
}

impl Drop for AsOnHardware {
    fn drop(&mut self) {
        AS_ON_HARDWARE.set(false);
    }
}

/// wgpu's device and queue. None on the CPU and on CUDA.
#[cfg(not(target_family = "wasm"))]
pub fn wgpu_handles(open: &OpenDevice) -> Option<(burn::tensor::wgpu::wgpu::Device, burn::tensor::wgpu::wgpu::Queue)> {
    open.gpu.as_ref().map(|gpu| (gpu.device.clone(), gpu.queue.clone()))
}
