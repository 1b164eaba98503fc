//! Rows by index: hidden states and rotary tables.

use bytemuck::{Pod, Zeroable};

use crate::kernel::{Kernel, Variant};

/// `out[b, i] = rows[b, indices[i]]`.
///
/// # Shapes
/// `rows` (batches, count, width), `indices` (K,) -> (batches, K, width); all row-major.
///
/// # Panics
/// Where `rows` has another size, or an index is out of range.
pub fn row_gather<T: Copy>(rows: &[T], [batches, count, width]: [usize; 3], indices: &[usize]) -> Vec<T> {
    assert_eq!(rows.len(), batches * count * width, "rows: expected batches * count * width values");
    let mut picked = Vec::with_capacity(batches * indices.len() * width);
    for batch in 0..batches {
        for &index in indices {
            picked.extend_from_slice(&rows[(batch * count + index) * width..][..width]);
        }
    }
    picked
}

/// `Params` of `row_gather.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct RowGatherParams {
    /// Rows per batch.
    pub rows: u32,
    /// Packs per row.
    pub packs: u32,
    /// Number of indices.
    pub count: u32,
    /// Packs in the result.
    pub total: u32,
}

/// The kernel: one pack per invocation.
pub const KERNEL: Kernel = Kernel {
    name: "row_gather",
    body: include_str!("wgsl/row_gather.wgsl"),
    lanes: 256,
    buffers: 3,
    parameters: size_of::<RowGatherParams>(),
    variants: Variant::ALL,
    constants: &[],
    shared: &[],
    weight: None,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_rows_of_every_batch() {
        // Two batches of three rows of two.
        let rows = [0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15];
        assert_eq!(row_gather(&rows, [2, 3, 2], &[2, 0]), [4, 5, 0, 1, 14, 15, 10, 11]);
    }
}
