//! The memory of the host: what is available, so that a run that does not fit is refused before it allocates; and what
//! the process keeps after use.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod heap;
#[cfg(not(target_family = "wasm"))]
mod linux;

/// Bytes of host memory that this process can still allocate, where the system reports it: the minimum of the free
/// memory and of what is left by the control groups (containers, services) and the limits of the process. In a browser:
/// what WebAssembly can address, less what it has already. What [`keep_freed`] has kept is returned first.
pub fn host_available() -> Option<u64> {
    return_freed();
    #[cfg(target_family = "wasm")]
    return Some((1u64 << 32).saturating_sub(core::arch::wasm32::memory_size(0) as u64 * 65536));
    #[cfg(not(target_family = "wasm"))]
    linux::available()
}

/// Peak resident memory of this process in bytes, where the system reports it.
pub fn host_peak() -> Option<u64> {
    #[cfg(target_family = "wasm")]
    return None;
    #[cfg(not(target_family = "wasm"))]
    linux::peak()
}

/// From now on, this process keeps the memory that it frees and uses it again, until [`host_available`] is called: before
/// each question, each large picture and each model.
///
/// A layer on the CPU allocates and frees its activations, tens of megabytes each. By default glibc returns such blocks to
/// the system, which clears every page again for the next layer. Programs call this once, at their start, before they start
/// threads. It has an effect on Linux with glibc only. Our choice.
pub fn keep_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    heap::keep();
}

/// Returns freed memory to the system, after [`keep_freed`].
pub(crate) fn return_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    heap::give_back();
}

/// Bytes as text with a unit.
pub fn bytes(n: u64) -> String {
    match n {
        0..1024 => format!("{n} B"),
        1024..1_048_576 => format!("{:.1} KiB", n as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", n as f64 / 1_048_576.0),
        _ => format!("{:.2} GiB", n as f64 / 1_073_741_824.0),
    }
}
