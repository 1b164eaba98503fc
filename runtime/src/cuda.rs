//! Checks an NVIDIA GPU before burn opens it: burn panics where the driver, NVRTC or a header is missing.

use cudarc::driver::{CudaContext, result as driver, sys::CUdevice};

use crate::{
    device::info::{DeviceClass, DeviceInfo},
    error::Error,
};

/// What the GPU with this number is. Also checks that all is installed that compiles its kernels: the driver, NVRTC and
/// the CUDA headers.
///
/// # Errors
/// [`Error::NoAdapter`] without a driver or a GPU of this number; [`Error::MissingFeature`] without NVRTC or the
/// headers.
pub(crate) fn find(index: usize) -> Result<DeviceInfo, Error> {
    let none = |found: String| Error::NoAdapter { asked: format!("cuda:{index}"), found };
    if !has_driver() {
        return Err(none("no CUDA driver (libcuda)".into()));
    }
    driver::init().map_err(|e| none(format!("a CUDA driver that does not start: {e}")))?;
    let count = driver::device::get_count().map_err(|e| none(format!("a CUDA driver that counts no devices: {e}")))?;
    let ordinal = i32::try_from(index).ok().filter(|&ordinal| ordinal < count);
    let ordinal = ordinal.ok_or_else(|| none(format!("{count} CUDA devices, numbered from 0")))?;
    let silent = |e: driver::DriverError| none(format!("a CUDA device that does not answer: {e}"));
    let device = driver::device::get(ordinal).map_err(silent)?;
    let name = driver::device::get_name(device).map_err(silent)?;
    let lacks = |what: &str| Error::MissingFeature { device: format!("{name} (cuda)"), what: what.into() };
    if !has_nvrtc() {
        return Err(lacks(
            "NVRTC, which compiles its kernels: install the CUDA toolkit, or put libnvrtc on the library path",
        ));
    }
    if !cubecl_cuda::install::cuda_path().is_some_and(|path| path.join("include/cuda_runtime.h").is_file()) {
        return Err(lacks("CUDA's headers: install the CUDA toolkit, and set CUDA_PATH to its folder"));
    }
    Ok(DeviceInfo {
        name,
        backend: "cuda".into(),
        driver: version().map_or_else(|| "CUDA".into(), |(major, minor)| format!("CUDA {major}.{minor}")),
        class: DeviceClass::Discrete,
        f16: true,
        subgroups: true,
        memory: total(device),
        ..DeviceInfo::cpu()
    })
}

/// Bytes that can still be allocated on the GPU with this number, which burn has opened.
pub(crate) fn available(index: usize) -> Option<u64> {
    let (free, _) = CudaContext::new(index).and_then(|context| context.mem_get_info()).ok()?;
    Some(free as u64)
}

/// Bytes of memory of the GPU. A context reports them too, but burn is not to find one that was opened and closed.
#[expect(unsafe_code, reason = "cudarc has no safe call without a context")]
fn total(device: CUdevice) -> Option<u64> {
    // SAFETY: `device` is from cudarc's `get`.
    unsafe { driver::device::total_mem(device) }.ok().map(|bytes| bytes as u64)
}

#[expect(unsafe_code, reason = "cudarc has no safe check for the library of the driver")]
fn has_driver() -> bool {
    // SAFETY: it loads the driver's library, whose constructors are NVIDIA's, and calls nothing in it.
    unsafe { cudarc::driver::sys::is_culib_present() }
}

#[expect(unsafe_code, reason = "cudarc has no safe check for the library of NVRTC")]
fn has_nvrtc() -> bool {
    // SAFETY: as above.
    unsafe { cudarc::nvrtc::sys::is_culib_present() }
}

/// The newest CUDA version that the driver supports, as (major, minor).
#[expect(unsafe_code, reason = "cudarc has no safe call for the version of the driver")]
fn version() -> Option<(i32, i32)> {
    let mut version = 0;
    // SAFETY: it writes one int to the given address, which outlives the call; the library was found above.
    let status = unsafe { cudarc::driver::sys::cuDriverGetVersion(&mut version) };
    status.result().is_ok().then_some((version / 1000, version % 1000 / 10))
}
