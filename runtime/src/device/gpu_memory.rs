//! The memory of a GPU: an adapter in, the bytes that its driver reports out.

use burn::tensor::wgpu::wgpu;

/// The memory of a GPU in bytes, as the driver reports it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GpuMemory {
    /// What it has.
    pub(crate) total: u64,
    /// What this process can still allocate. All of it, where the driver does not report this.
    pub(crate) available: u64,
}

/// The memory of the adapter. None where it is not reported, as with OpenGL.
pub(crate) fn reported(adapter: &wgpu::Adapter) -> Option<GpuMemory> {
    match adapter.get_info().backend {
        #[cfg(any(target_os = "linux", windows))]
        wgpu::Backend::Vulkan => vulkan(adapter),
        #[cfg(windows)]
        wgpu::Backend::Dx12 => dx12(adapter),
        #[cfg(target_vendor = "apple")]
        wgpu::Backend::Metal => metal(adapter),
        _ => None,
    }
}

/// The largest heap of the device itself; `VK_EXT_memory_budget` reports what is available.
#[cfg(any(target_os = "linux", windows))]
#[expect(unsafe_code, reason = "wgpu has no safe call for the memory of an adapter")]
fn vulkan(adapter: &wgpu::Adapter) -> Option<GpuMemory> {
    use ash::{ext::memory_budget, vk};

    // SAFETY: the adapter is read, not destroyed.
    let adapter = unsafe { adapter.as_hal::<wgpu::hal::api::Vulkan>() }?;
    let (instance, capabilities) = (adapter.shared_instance(), adapter.physical_device_capabilities());
    if instance.instance_api_version().min(capabilities.properties().api_version) < vk::API_VERSION_1_1 {
        return None;
    }
    // wgpu does not list this extension for drivers whose budget is wrong.
    let has_budget = capabilities.supports_extension(memory_budget::NAME);
    let mut budget = vk::PhysicalDeviceMemoryBudgetPropertiesEXT::default();
    let mut found = vk::PhysicalDeviceMemoryProperties2::default();
    if has_budget {
        found = found.push_next(&mut budget);
    }
    // SAFETY: `adapter` keeps the instance, to which this physical device belongs. The call is part of Vulkan 1.1, and
    // writes to `found`, and to `budget` only where the device has the extension.
    unsafe {
        instance.raw_instance().get_physical_device_memory_properties2(adapter.raw_physical_device(), &mut found);
    }
    let heaps = found.memory_properties;
    let own = heaps.memory_heaps_as_slice().iter().enumerate();
    let own = own.filter(|(_, heap)| heap.flags.contains(vk::MemoryHeapFlags::DEVICE_LOCAL));
    let (index, heap) = own.max_by_key(|(_, heap)| heap.size)?;
    let left = budget.heap_budget[index].saturating_sub(budget.heap_usage[index]);
    Some(GpuMemory { total: heap.size, available: if has_budget { left } else { heap.size } })
}

/// What the system lets this process use on the device, and what is left of it.
#[cfg(windows)]
#[expect(unsafe_code, reason = "wgpu has no safe call for the memory of an adapter")]
fn dx12(adapter: &wgpu::Adapter) -> Option<GpuMemory> {
    // SAFETY: the adapter is read, not destroyed.
    let adapter = unsafe { adapter.as_hal::<wgpu::hal::api::Dx12>() }?;
    // The default segment group is LOCAL, the memory of the device.
    let info = adapter.raw_adapter().query_video_memory_info(Default::default()).ok()?;
    Some(GpuMemory { total: info.Budget, available: info.Budget.saturating_sub(info.CurrentUsage) })
}

/// What Metal recommends to use on the device, and what is left of it.
#[cfg(target_vendor = "apple")]
#[expect(unsafe_code, reason = "wgpu has no safe call for the memory of an adapter")]
fn metal(adapter: &wgpu::Adapter) -> Option<GpuMemory> {
    use objc2_metal::MTLDevice as _;

    // SAFETY: the adapter is read, not destroyed.
    let adapter = unsafe { adapter.as_hal::<wgpu::hal::api::Metal>() }?;
    let total = adapter.raw_device().recommendedMaxWorkingSetSize();
    Some(GpuMemory { total, available: total.saturating_sub(adapter.raw_device().currentAllocatedSize() as u64) })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_software_gpu_reports_no_more_memory_than_the_host_has() {
        let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
        descriptor.backends = wgpu::Backends::VULKAN;
        let found = pollster::block_on(wgpu::Instance::new(descriptor).enumerate_adapters(wgpu::Backends::VULKAN));
        let required = std::env::var("FOVEA_REQUIRE_ADAPTER").is_ok_and(|v| v == "1");
        assert!(!required || !found.is_empty(), "expected a Vulkan adapter, since FOVEA_REQUIRE_ADAPTER=1, got none");
        let host = std::fs::read_to_string("/proc/meminfo").expect("/proc/meminfo");
        let host = host.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("MemTotal") << 10;
        for adapter in found.iter().filter(|adapter| adapter.get_info().device_type == wgpu::DeviceType::Cpu) {
            let GpuMemory { total, available } = reported(adapter).expect("a driver that reports its memory");
            assert!((100 << 20..=host).contains(&total), "total: expected 100 MiB to {host} bytes, got {total}");
            assert!((1..=total).contains(&available), "available: expected 1 to {total} bytes, got {available}");
        }
    }
}
