//! The available memory of the host, so that a run that does not fit is refused before it allocates.

#[cfg(not(target_family = "wasm"))]
mod linux;

/// Bytes of host memory that this process can still allocate, where the system reports it: the minimum of the free
/// memory and of what is left by the control groups (containers, services) and the limits of the process. In a browser:
/// what WebAssembly can address, less what it has already.
pub fn host_available() -> Option<u64> {
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

/// Bytes as text with a unit.
pub fn bytes(n: u64) -> String {
    match n {
        0..1024 => format!("{n} B"),
        1024..1_048_576 => format!("{:.1} KiB", n as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", n as f64 / 1_048_576.0),
        _ => format!("{:.2} GiB", n as f64 / 1_073_741_824.0),
    }
}
