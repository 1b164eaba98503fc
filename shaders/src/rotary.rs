//! Rotary position embeddings of queries and keys, and the cache of keys and values.

use bytemuck::{Pod, Zeroable};

use crate::kernel::{Kernel, Variant};

/// Rotates queries and keys, `(a, b) -> (a cos - b sin, b cos + a sin)`, where a and b are the two halves of a head (Su
/// et al. 2021, in the half-split form of Hugging Face's `rotate_half`). Writes keys and values into a cache of a
/// layer. Returns the queries.
///
/// Token t is rotated by row `first + t` of the table, and stored in row `len + t` of the cache; rows beyond the
/// capacity are not written.
///
/// # Shapes
/// `qkv` (T, (H + 2 G) D): queries, keys and values of each token; `table` (positions, D): D/2 cosines, then D/2 sines;
/// `key`, `value` (G, capacity, D); D is even -> (T, H D).
///
/// # Panics
/// Where the table has too few rows.
pub fn rotate_and_store(
    qkv: &[f64],
    table: &[f64],
    key: &mut [f64],
    value: &mut [f64],
    [heads, groups, width]: [usize; 3],
    [first, len]: [usize; 2],
) -> Vec<f64> {
    let (half, capacity) = (width / 2, key.len() / (groups * width));
    let mut query = Vec::new();
    for (t, token) in qkv.chunks_exact((heads + 2 * groups) * width).enumerate() {
        let (cos, sin) = table[(first + t) * width..][..width].split_at(half);
        for (h, head) in token.chunks_exact(width).enumerate() {
            let (a, b) = head.split_at(half);
            let mut turned = head.to_vec();
            if h < heads + groups {
                for i in 0..half {
                    turned[i] = a[i] * cos[i] - b[i] * sin[i];
                    turned[half + i] = b[i] * cos[i] + a[i] * sin[i];
                }
            }
            if h < heads {
                query.extend(turned);
            } else if len + t < capacity {
                let (cache, group) = if h < heads + groups { (&mut *key, h) } else { (&mut *value, h - groups) };
                cache[((group - heads) * capacity + len + t) * width..][..width].copy_from_slice(&turned);
            }
        }
    }
    query
}

/// `Params` of `rope_kv.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct RopeKvParams {
    /// T.
    pub tokens: u32,
    /// H: heads of queries.
    pub heads: u32,
    /// G: heads of keys, and of values.
    pub groups: u32,
    /// D / 2, in packs.
    pub half: u32,
    /// Rows of the cache.
    pub capacity: u32,
    /// The word of the state that has the number of tokens in the cache.
    pub slot: u32,
    /// Padding to 16 bytes.
    pub unused_0: u32,
    /// Padding to 16 bytes.
    pub unused_1: u32,
}

impl RopeKvParams {
    /// Invocations: one for each pack of the first half of a head.
    pub const fn invocations(&self) -> usize {
        self.tokens as usize * (self.heads + 2 * self.groups) as usize * self.half as usize
    }
}

/// The kernel: [`RopeKvParams::invocations`], in workgroups of `lanes`. The variant is that of the cache; packs of four
/// need halves of a head, D / 2, that are a multiple of four.
pub const KERNEL: Kernel = Kernel {
    name: "rope_kv",
    body: include_str!("wgsl/rope_kv.wgsl"),
    lanes: 64,
    buffers: 6,
    parameters: size_of::<RopeKvParams>(),
    variants: Variant::ALL,
    constants: &[],
    shared: &[],
    weight: None,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_turn_and_an_eighth_are_stored_behind_the_first_token() {
        // H = G = 1, D = 2, two tokens: q, k and v of each.
        let qkv = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1.0, 1.0, 2.0, 0.0, 7.0, 8.0];
        // Rows: unused, cos 0 and sin 1, cos 3/5 and sin 4/5.
        let table = [9.0, 9.0, 0.0, 1.0, 0.6, 0.8];
        let (mut key, mut value) = ([0.5; 8], [0.25; 8]);
        let query = rotate_and_store(&qkv, &table, &mut key, &mut value, [1, 1, 2], [1, 1]);
        let near = |got: &[f64], want: &[f64]| {
            assert_eq!(got.len(), want.len());
            got.iter().zip(want).for_each(|(a, b)| assert!((a - b).abs() < 1e-12, "expected {want:?}, got {got:?}"));
        };
        near(&query, &[-2.0, 1.0, -0.2, 1.4]);
        near(&key, &[0.5, 0.5, -4.0, 3.0, 1.2, 1.6, 0.5, 0.5]);
        near(&value, &[0.25, 0.25, 5.0, 6.0, 7.0, 8.0, 0.25, 0.25]);
    }

    #[test]
    fn rows_beyond_the_capacity_are_not_written() {
        // Two key heads of capacity 1: a row too far would be in the second head.
        let qkv = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0];
        let (mut key, mut value) = ([0.0; 4], [0.0; 4]);
        let query = rotate_and_store(&qkv, &[1.0, 0.0], &mut key, &mut value, [2, 2, 2], [0, 1]);
        assert_eq!((query, key, value), (vec![1.0, 2.0, 3.0, 4.0], [0.0; 4], [0.0; 4]));
        rotate_and_store(&qkv, &[1.0, 0.0], &mut key, &mut value, [2, 2, 2], [0, 0]);
        assert_eq!((key, value), ([5.0, 6.0, 7.0, 8.0], [9.0, 10.0, 11.0, 12.0]));
    }
}
