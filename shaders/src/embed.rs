//! Rows of an embedding table by token id.

use bytemuck::{Pod, Zeroable};

use crate::kernel::{Kernel, Variant, WEIGHT};

/// `out[t] = factor * table[ids[t]]`.
///
/// # Shapes
/// `ids` (T,), `table` (rows, `width`) -> (T, `width`).
///
/// # Panics
/// Where an id is out of range.
pub fn embed(ids: &[usize], table: &[f64], width: usize, factor: f64) -> Vec<f64> {
    ids.iter().flat_map(|&id| table[id * width..][..width].iter().map(move |x| factor * x)).collect()
}

/// `Params` of `embed.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct EmbedParams {
    /// T.
    pub tokens: u32,
    /// Packs per row.
    pub packs: u32,
    /// The id of the first row of this part of the table.
    pub first: u32,
    /// Rows of this part.
    pub rows: u32,
    /// Factor of the rows.
    pub factor: f32,
    /// Padding to 16 bytes.
    pub unused_0: u32,
    /// Padding to 16 bytes.
    pub unused_1: u32,
    /// Padding to 16 bytes.
    pub unused_2: u32,
}

impl EmbedParams {
    /// Invocations: one for each pack of the result.
    pub const fn invocations(&self) -> usize {
        self.tokens as usize * self.packs as usize
    }
}

/// The kernel: one launch per part of the table, [`EmbedParams::invocations`] in workgroups of `lanes`. Tokens whose
/// row is in another part are not written.
pub const KERNEL: Kernel = Kernel {
    name: "embed",
    body: include_str!("wgsl/embed.wgsl"),
    lanes: 64,
    buffers: 3,
    parameters: size_of::<EmbedParams>(),
    variants: Variant::ALL,
    constants: &[],
    shared: &[],
    weight: WEIGHT,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_times_a_factor() {
        let table = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        assert_eq!(embed(&[2, 0, 2], &table, 2, 10.0), [50.0, 60.0, 10.0, 20.0, 50.0, 60.0]);
    }
}
