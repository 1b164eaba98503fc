//! The memory of the host: what is available, so that a run that does not fit is refused before it allocates; and what
//! the process keeps after use. Sizes as text.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod heap;
#[cfg(not(target_family = "wasm"))]
mod linux;
mod size;

pub use size::{SizeError, size};

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

/// An empty vector with room for `count` values, in large pages where Linux has them: with small pages a product that
/// reads a weight from memory also waits for the tables of these pages.
pub(crate) fn large<T>(count: usize) -> Vec<T> {
    let room: Vec<T> = Vec::with_capacity(count);
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    heap::use_large_pages(room.as_ptr().addr(), size_of::<T>() * count);
    room
}

/// Bytes as text with a unit.
pub fn bytes(n: u64) -> String {
    rounded(n, f64::round)
}

/// [`bytes`] that are at least `n`: a limit of this text is enough.
pub fn at_least(n: u64) -> String {
    rounded(n, f64::ceil)
}

/// [`bytes`] of what is needed, rounded up, and of what there is, rounded down: the texts differ where there is too little.
pub fn apart(need: u64, have: u64) -> [String; 2] {
    [at_least(need), rounded(have, f64::floor)]
}

/// What is needed and what there is, for an error.
pub(crate) fn shortage(need: u64, have: u64) -> String {
    let [need, have] = apart(need, have);
    format!("needs {need}, available {have}")
}

/// Bytes with a unit, rounded to its decimals.
fn rounded(n: u64, round: impl Fn(f64) -> f64) -> String {
    let scaled = |unit: &str, size: f64, digits: usize| {
        let step = 10f64.powi(digits as i32);
        format!("{:.digits$} {unit}", round(n as f64 / size * step) / step)
    };
    match n {
        0..1024 => format!("{n} B"),
        1024..1_048_576 => scaled("KiB", 1024.0, 1),
        1_048_576..1_073_741_824 => scaled("MiB", 1_048_576.0, 1),
        _ => scaled("GiB", 1_073_741_824.0, 2),
    }
}

#[cfg(test)]
mod tests {
    use super::{apart, at_least, bytes, shortage};

    #[test]
    fn different_numbers_of_bytes_differ() {
        assert_eq!([0, 1023, 1536, 3 << 19, 3 << 29].map(bytes), ["0 B", "1023 B", "1.5 KiB", "1.5 MiB", "1.50 GiB"]);
        assert_eq!(apart(3 << 29, 1 << 30), ["1.50 GiB", "1.00 GiB"], "(got, expected)");
        assert_eq!(apart(8_317_508, 8_300_000), ["8.0 MiB", "7.9 MiB"], "up and down (got, expected)");
        assert_eq!([8_317_508, 3 << 29].map(at_least), ["8.0 MiB", "1.50 GiB"], "(got, expected)");
        assert_eq!(apart(3 << 29, (3 << 29) - (1 << 20)), ["1.50 GiB", "1.49 GiB"], "(got, expected)");
        assert_eq!(apart(3 << 29, 3 << 29), ["1.50 GiB"; 2], "equal numbers (got, expected)");
        let last = apart(16 << 30, (16 << 30) - 1);
        assert_eq!(last, ["16.00 GiB", "15.99 GiB"], "one byte (got, expected)");
        assert_eq!(shortage(3 << 19, 1 << 19), "needs 1.5 MiB, available 512.0 KiB", "(got, expected)");
    }
}
