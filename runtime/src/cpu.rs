//! Loops for the CPU on plain slices: products, attention, norms, rotary positions, selective scans.
//!
//! Every loop runs on all threads (in a browser: on one) and with the widest vectors of the processor, which `pulp` finds
//! at run time. A sum has an order that depends on the shapes and on the processor only: results are identical from run to
//! run and for every number of threads.
//!
//! A closure inside of `WithSimd::with_simd` is compiled without the vector instructions. So these bodies contain loops
//! and functions that are inlined only.

pub(crate) mod after;
pub(crate) mod attend;
pub(crate) mod codes;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", all(target_arch = "wasm32", target_feature = "simd128")))]
pub(crate) mod integers;
mod lanes;
pub(crate) mod matmul;
pub(crate) mod matvec;
pub(crate) mod norm;
pub(crate) mod rotary;
pub(crate) mod scan;
#[cfg(not(target_family = "wasm"))]
mod threads;
mod tiled;

use half::f16;

/// Computes with the instructions of relaxed SIMD from now on: a product and its sum have one rounding instead of two
/// where the processor can do it.
///
/// Call it once, before any computation, and only if the browser has these instructions: elsewhere the loops trap.
#[cfg(target_arch = "wasm32")]
pub fn use_relaxed_simd() {
    pulp::wasm::enable_relaxed_simd();
}

/// A matrix of weights or of cached keys or values, row-major, finite.
#[derive(Clone, Copy)]
pub(crate) enum Matrix<'a> {
    /// 4 bytes per value.
    F32(&'a [f32]),
    /// 2 bytes per value; the products widen each value to f32.
    F16(&'a [f16]),
}

impl<'a> Matrix<'a> {
    /// The number of values.
    pub(crate) fn len(self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F16(values) => values.len(),
        }
    }

    /// The values of `range`.
    fn part(self, range: std::ops::Range<usize>) -> Self {
        match self {
            Self::F32(values) => Self::F32(&values[range]),
            Self::F16(values) => Self::F16(&values[range]),
        }
    }
}

/// A cache line of f32: a vector that crosses a line is read at half the speed.
#[repr(C, align(64))]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Line([f32; 16]);

/// Lines for `len` zeros.
fn lines(len: usize) -> Vec<Line> {
    vec![Line([0.0; 16]); len.div_ceil(16)]
}

/// `f(i, chunk i)` for each chunk of `size` values, on all threads. A single chunk runs on this thread.
pub(crate) fn for_each_chunk<T: Send>(values: &mut [T], size: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    #[cfg(not(target_family = "wasm"))]
    return threads::for_each(values.chunks_mut(size).enumerate(), |(i, chunk)| f(i, chunk));
    #[cfg(target_family = "wasm")]
    values.chunks_mut(size).enumerate().for_each(|(i, chunk)| f(i, chunk));
}

/// Values between -1 and 1 for the tests, a fixed sequence for each seed.
#[cfg(test)]
fn test_values(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}
