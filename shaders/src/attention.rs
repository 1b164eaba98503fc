//! Attention of the vision tower, of a prefill, and of one new token.

use bytemuck::{Pod, Zeroable};

use crate::kernel::{Kernel, Variant};

/// `out[t, h] = sum over n of softmax over n of (factor * query[t, h] . key[g, n]) value[g, n]`;
/// `g = h / (H / G)`.
///
/// If `causal`, token t of T sees the first `S - T + t + 1` of S keys; else it sees all keys.
///
/// # Shapes
/// `query` (T, H D); `key`, `value` (G, capacity, D), of which the first S keys are used; `tokens` is T, `keys` is S;
/// `heads` is H, G, D -> (T, H D).
///
/// # Panics
/// Where a slice is too short, or T > S.
pub fn attention(
    query: &[f64],
    key: &[f64],
    value: &[f64],
    [tokens, keys]: [usize; 2],
    [heads, groups, width]: [usize; 3],
    factor: f64,
    causal: bool,
) -> Vec<f64> {
    let capacity = key.len() / (groups * width);
    let mut attended = vec![0.0; tokens * heads * width];
    for t in 0..tokens {
        let seen = if causal { keys - tokens + t + 1 } else { keys };
        for h in 0..heads {
            let row = (t * heads + h) * width;
            let at = |n: usize| (h / (heads / groups) * capacity + n) * width;
            let scores: Vec<f64> = (0..seen)
                .map(|n| factor * query[row..][..width].iter().zip(&key[at(n)..]).map(|(q, k)| q * k).sum::<f64>())
                .collect();
            let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = scores.iter().map(|s| (s - top).exp()).sum();
            for (n, score) in scores.iter().enumerate() {
                let weight = (score - top).exp() / sum;
                for (out, v) in attended[row..][..width].iter_mut().zip(&value[at(n)..]) {
                    *out += weight * v;
                }
            }
        }
    }
    attended
}

/// The widest head of [`FLASH_CAUSAL`] and [`FLASH_FULL`].
const MAX_WIDTH: usize = 128;

/// Workgroups that fill a large GPU.
const MANY: usize = 256;

/// One launch of [`FLASH_CAUSAL`] or [`FLASH_FULL`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlashPlan {
    /// The values of their constants.
    pub constants: Vec<u32>,
    /// Workgroups for the rows of one head.
    pub blocks: usize,
}

/// The geometry for heads of `width` elements and `rows` rows in each of `heads` heads; None where the kernels do not
/// support the width. `software`: the device is a CPU, which reads queries and keys in place.
///
/// [`FLASH_CAUSAL`] has `T H / G` rows in each of G key heads, and a grid of (blocks, G). [`FLASH_FULL`] has a row per
/// token in each head of each tile, and a grid of (blocks, H, tiles).
pub fn flash_plan(rows: usize, heads: usize, width: usize, software: bool) -> Option<FlashPlan> {
    if !width.is_multiple_of(4) || width > MAX_WIDTH {
        return None;
    }
    // A wide result needs many registers, and small blocks occupy more of a GPU. A CPU compiles a small block faster.
    let large = if software { rows > 512 } else { width <= 64 && rows.div_ceil(64) * heads >= MANY };
    let (by, lanes) = (if large { 8 } else { 4 }, if software { 8 } else { FLASH_FULL.lanes });
    let constants = vec![by as u32, width.div_ceil(32) as u32, u32::from(software), lanes];
    Some(FlashPlan { constants, blocks: rows.div_ceil(lanes as usize / 8 * by) })
}

/// Keys per workgroup of [`ATTEND_SPLIT`].
pub const ATTEND_CHUNK: usize = 128;

/// Query heads per workgroup of [`ATTEND_SPLIT`], where `share` query heads use one key head: its largest divisor up to
/// eight. The grid is (chunks, key heads, `share` divided by this).
pub fn attend_share(share: usize) -> usize {
    (1..=8).rev().find(|n| share.is_multiple_of(*n)).unwrap_or(1)
}

/// Elements of the results of [`ATTEND_SPLIT`]'s chunks: for each head and chunk a row, its maximum and its sum.
pub const fn attend_parts(heads: usize, chunks: usize, width: usize) -> usize {
    heads * chunks * (width + 4)
}

/// `Params` of `flash_causal.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct FlashCausalParams {
    /// T: new tokens.
    pub tokens: u32,
    /// S: keys in the cache, with those of the new tokens.
    pub keys: u32,
    /// H: query heads.
    pub heads: u32,
    /// G: key heads.
    pub groups: u32,
    /// Keys per key head in the buffers.
    pub capacity: u32,
    /// D / 4.
    pub packs: u32,
    /// Factor of the scores.
    pub factor: f32,
    /// Padding to 16 bytes.
    pub unused_0: u32,
}

/// `Params` of `flash_full.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct FlashFullParams {
    /// Tokens per tile.
    pub tokens: u32,
    /// H.
    pub heads: u32,
    /// D / 4.
    pub packs: u32,
    /// Factor of the scores.
    pub factor: f32,
}

/// `Params` of `attend_split.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct AttendSplitParams {
    /// H: query heads.
    pub heads: u32,
    /// G: key heads.
    pub groups: u32,
    /// D / 4.
    pub packs: u32,
    /// Keys per key head in the buffers.
    pub capacity: u32,
    /// The word of the state that has the number of tokens before the new one.
    pub slot: u32,
    /// Chunks of [`ATTEND_CHUNK`] keys; those after the last key do nothing.
    pub chunks: u32,
    /// Factor of the scores.
    pub factor: f32,
    /// Padding to 16 bytes.
    pub unused_0: u32,
}

/// `Params` of `attend_merge.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct AttendMergeParams {
    /// D / 4.
    pub packs: u32,
    /// The word of the state that has the number of tokens before the new one.
    pub slot: u32,
    /// Chunks per head.
    pub chunks: u32,
    /// Keys per chunk: [`ATTEND_CHUNK`].
    pub keys: u32,
}

/// The kernel: causal attention of new tokens over the cache. The variant is that of the cache. Constants `ROWS`: rows
/// per invocation, 4 or 8; `WIDTH`: packs of the result per invocation, `ceil(D / 32)`; `DIRECT`: 1 where queries and keys
/// are read in place; `LANES`. See [`flash_plan`].
pub const FLASH_CAUSAL: Kernel = Kernel {
    name: "flash_causal",
    body: include_str!("wgsl/flash_causal.wgsl"),
    lanes: 64,
    buffers: 4,
    parameters: size_of::<FlashCausalParams>(),
    variants: Variant::FOURS,
    constants: &["ROWS", "WIDTH", "DIRECT", "LANES"],
    shared: &[include_str!("wgsl/shared/flash.wgsl")],
    weight: None,
};

/// The kernel: attention inside each tile. Constants as in [`FLASH_CAUSAL`].
pub const FLASH_FULL: Kernel = Kernel {
    name: "flash_full",
    body: include_str!("wgsl/flash_full.wgsl"),
    buffers: 2,
    parameters: size_of::<FlashFullParams>(),
    variants: &[Variant::F32X4],
    ..FLASH_CAUSAL
};

/// The kernel: attention of one new token over each chunk of the cache. The variant is that of the cache. Constant
/// `SHARE`: [`attend_share`].
pub const ATTEND_SPLIT: Kernel = Kernel {
    name: "attend_split",
    body: include_str!("wgsl/attend_split.wgsl"),
    lanes: 32,
    buffers: 5,
    parameters: size_of::<AttendSplitParams>(),
    variants: Variant::FOURS,
    constants: &["SHARE"],
    shared: &[],
    weight: None,
};

/// The kernel: merges the chunks, one workgroup per query head.
pub const ATTEND_MERGE: Kernel = Kernel {
    name: "attend_merge",
    body: include_str!("wgsl/attend_merge.wgsl"),
    lanes: 32,
    buffers: 3,
    parameters: size_of::<AttendMergeParams>(),
    variants: Variant::ONLY_F32,
    constants: &[],
    shared: &[],
    weight: None,
};

#[cfg(test)]
mod tests {
    use super::*;

    fn near(got: &[f64], want: &[f64]) {
        assert_eq!(got.len(), want.len());
        got.iter().zip(want).for_each(|(a, b)| assert!((a - b).abs() < 1e-12, "expected {want:?}, got {got:?}"));
    }

    #[test]
    fn softmax_of_logarithms_is_their_share() {
        // D = 1, one head, two tokens, keys ln 1, ln 3, ln 4 of a capacity of 4: weights 1/4, 3/4 and 1/8, 3/8, 4/8.
        let key = [0.0, 3f64.ln(), 4f64.ln(), 99.0];
        let value = [8.0, 16.0, 32.0, f64::NAN];
        near(&attention(&[1.0, 1.0], &key, &value, [2, 3], [1, 1, 1], 1.0, true), &[14.0, 23.0]);
        near(&attention(&[1.0, 1.0], &key, &value, [2, 3], [1, 1, 1], 1.0, false), &[23.0, 23.0]);
        // Half the factor and twice the query are the same.
        near(&attention(&[2.0], &key, &value, [1, 2], [1, 1, 1], 0.5, true), &[14.0]);
    }

    #[test]
    fn query_heads_share_a_key_head_in_order() {
        // One key for each of two key heads: a result is its value.
        let out = attention(&[1.0; 4], &[5.0, 7.0], &[1.0, 2.0], [1, 1], [4, 2, 1], 1.0, true);
        near(&out, &[1.0, 1.0, 2.0, 2.0]);
    }

    #[test]
    fn the_geometry_fits() {
        let plan = |rows, heads, width, software| {
            flash_plan(rows, heads, width, software).map(|plan| (plan.constants, plan.blocks))
        };
        assert_eq!(plan(577, 80, 64, false), Some((vec![8, 2, 0, 64], 10)));
        assert_eq!(plan(577, 80, 72, false), Some((vec![4, 3, 0, 64], 19)));
        assert_eq!(plan(577, 80, 72, true), Some((vec![8, 3, 1, 8], 73)));
        assert_eq!(plan(14, 2, 64, true), Some((vec![4, 2, 1, 8], 4)));
        assert_eq!(plan(577, 80, 132, true), None);
        assert_eq!(plan(577, 80, 6, true), None);
        assert_eq!([1, 4, 7, 8, 9, 11, 12, 16].map(attend_share), [1, 4, 7, 8, 3, 1, 6, 8]);
    }
}
