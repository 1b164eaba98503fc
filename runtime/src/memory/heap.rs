//! The heap of glibc.

use std::sync::atomic::{AtomicBool, Ordering};

/// Freed bytes that stay at the end of the heap.
const KEPT: i32 = 512 << 20;

/// Whether freed memory is kept.
static KEEPS: AtomicBool = AtomicBool::new(false);

/// Large blocks come from the heap too, and its end stays. One heap for all threads: the other heaps have at most 64 MiB, and
/// are returned when they are empty.
#[expect(unsafe_code, reason = "libc has no safe functions")]
pub(super) fn keep() {
    // SAFETY: each sets one number, under a lock of glibc.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_MAX, 0);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
    }
    KEEPS.store(true, Ordering::Relaxed);
}

#[expect(unsafe_code, reason = "libc has no safe function")]
pub(super) fn give_back() {
    if KEEPS.load(Ordering::Relaxed) {
        // SAFETY: it changes no block that is in use.
        unsafe { libc::malloc_trim(0) };
    }
}
