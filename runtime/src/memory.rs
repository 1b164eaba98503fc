//! How much memory there is, before any is taken.

#[cfg(not(target_family = "wasm"))]
mod linux;

/// Bytes of memory that this process could take on the host now, where the system reports it: the least of what is available,
/// what the control groups of the process (containers, services) leave, and what its own limits leave. In a browser: what
/// WebAssembly can address and does not hold yet.
pub fn host_available() -> Option<u64> {
    #[cfg(target_family = "wasm")]
    return Some((1u64 << 32).saturating_sub(core::arch::wasm32::memory_size(0) as u64 * 65536));
    #[cfg(not(target_family = "wasm"))]
    linux::available()
}

/// Peak of this process's resident memory in bytes, where the system reports it.
pub fn host_peak() -> Option<u64> {
    #[cfg(target_family = "wasm")]
    return None;
    #[cfg(not(target_family = "wasm"))]
    linux::peak()
}

/// Bytes with a unit, as people read them.
pub fn bytes(n: u64) -> String {
    match n {
        0..1024 => format!("{n} B"),
        1024..1_048_576 => format!("{:.1} KiB", n as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", n as f64 / 1_048_576.0),
        _ => format!("{:.2} GiB", n as f64 / 1_073_741_824.0),
    }
}
