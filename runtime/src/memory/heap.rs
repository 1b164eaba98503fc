//! The heap of glibc.

use std::sync::atomic::{AtomicBool, Ordering};

/// Freed bytes that stay at the end of the heap.
const KEPT: i32 = 512 << 20;
/// Bytes by which the heap grows at least: its end is rarely within a large page.
const GROWTH: i32 = 64 << 20;
/// Bytes of a large page of x86-64 and of most ARM systems.
const LARGE_PAGE: usize = 2 << 20;

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
        libc::mallopt(libc::M_TOP_PAD, GROWTH);
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

/// Asks for large pages where a block is, from now on. The whole pages: blocks of a heap are neighbours.
#[expect(unsafe_code, reason = "libc has no safe function")]
pub(super) fn use_large_pages(start: usize, bytes: usize) {
    let first = start / LARGE_PAGE * LARGE_PAGE;
    let end = (start + bytes).next_multiple_of(LARGE_PAGE);
    // SAFETY: this advice changes no content. An address without memory is an error, which has no effect here.
    unsafe { libc::madvise(first as *mut libc::c_void, end - first, libc::MADV_HUGEPAGE) };
}
