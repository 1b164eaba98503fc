//! Importance of each visual token for the text (paper Sec. 3.3, Eq. 7 and 8).

use bytemuck::{Pod, Zeroable};

use crate::kernel::{Kernel, Variant};

/// `S = mean over text tokens of (max over heads of softmax over visual tokens of q.k / sqrt(d))`.
///
/// Query head `h` reads key head `h / (heads / kv_heads)`.
///
/// # Shapes
/// `query` (heads, text, d_head), `key` (kv_heads, visual, d_head) -> (visual,).
pub fn text_score(query: &[f64], key: &[f64], [heads, kv_heads, text, visual, d_head]: [usize; 5]) -> Vec<f64> {
    let mut importance = vec![0.0; visual];
    for t in 0..text {
        let mut best = vec![f64::NEG_INFINITY; visual];
        for h in 0..heads {
            let q = &query[(h * text + t) * d_head..][..d_head];
            let base = h / (heads / kv_heads) * visual;
            let logits: Vec<f64> = (0..visual)
                .map(|n| {
                    let k = &key[(base + n) * d_head..][..d_head];
                    q.iter().zip(k).map(|(a, b)| a * b).sum::<f64>() / (d_head as f64).sqrt()
                })
                .collect();
            let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = logits.iter().map(|l| (l - top).exp()).sum();
            for (b, l) in best.iter_mut().zip(&logits) {
                *b = b.max((l - top).exp() / sum);
            }
        }
        for (s, b) in importance.iter_mut().zip(&best) {
            *s += b / text as f64;
        }
    }
    importance
}

/// Rows and keys per workgroup of the product.
pub const PRODUCT_TILE: (usize, usize) = (32, 256);

/// Visual tokens per workgroup of the best head.
pub const BEST_TILE: usize = 16;

/// Bytes of scores per block. It fits in a cache, for each length of the question; larger blocks use a GPU better.
const SCORE_BUDGET: usize = 16 << 20;

/// Text tokens per block: as many as fit in 16 MiB of scores, at least one. Above eight it is a multiple of eight, so
/// that the rows fill the tiles of the product.
pub fn text_block(heads: usize, text: usize, visual: usize) -> usize {
    let fit = (SCORE_BUDGET / 4 / (heads * visual)).max(1);
    let even = if fit > 8 { fit / 8 * 8 } else { fit };
    even.min(text)
}

/// `Params` of `text_score_product.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct ProductParams {
    /// Query heads per key head.
    pub share: u32,
    /// T.
    pub text: u32,
    /// First text token of the block.
    pub first: u32,
    /// Text tokens in the block.
    pub block: u32,
    /// N.
    pub visual: u32,
    /// d / 4.
    pub packs: u32,
    /// 1 / sqrt(d).
    pub factor: f32,
    /// Padding to 16 bytes.
    pub unused_0: u32,
}

/// `Params` of `text_score_softmax.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct SoftmaxParams {
    /// Heads times text tokens of the block.
    pub rows: u32,
    /// N.
    pub visual: u32,
    /// Padding to 16 bytes.
    pub unused_0: u32,
    /// Padding to 16 bytes.
    pub unused_1: u32,
}

/// `Params` of `text_score_best.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct BestParams {
    /// Query heads.
    pub heads: u32,
    /// Text tokens in the block.
    pub block: u32,
    /// N.
    pub visual: u32,
    /// First text token of the block.
    pub first: u32,
    /// 1 / T.
    pub share: f32,
    /// Padding to 16 bytes.
    pub unused_0: u32,
    /// Padding to 16 bytes.
    pub unused_1: u32,
    /// Padding to 16 bytes.
    pub unused_2: u32,
}

/// The kernel: the scores of a block.
pub const PRODUCT: Kernel = Kernel {
    name: "text_score_product",
    body: include_str!("wgsl/text_score_product.wgsl"),
    lanes: 64,
    buffers: 3,
    parameters: size_of::<ProductParams>(),
    variants: Variant::FOURS,
    constants: &[],
    shared: &[],
    weight: None,
};

/// The kernel: the denominators of the softmax.
pub const SOFTMAX: Kernel = Kernel {
    name: "text_score_softmax",
    body: include_str!("wgsl/text_score_softmax.wgsl"),
    lanes: 64,
    buffers: 2,
    parameters: size_of::<SoftmaxParams>(),
    variants: Variant::ONLY_F32,
    constants: &[],
    shared: &[],
    weight: None,
};

/// The kernel: the maximum over the heads, summed over the text tokens.
pub const BEST: Kernel = Kernel {
    name: "text_score_best",
    body: include_str!("wgsl/text_score_best.wgsl"),
    lanes: 256,
    buffers: 3,
    parameters: size_of::<BestParams>(),
    variants: Variant::ONLY_F32,
    constants: &[],
    shared: &[],
    weight: None,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn max_over_heads_then_mean_over_text() {
        // d = 1: softmax([ln 5, ln 3, ln 2]) = [.5, .3, .2] and softmax([ln 1, ln 7, ln 2]) = [.1, .7, .2].
        let key = [5f64.ln(), 3f64.ln(), 2f64.ln(), 0.0, 7f64.ln(), 2f64.ln()];
        let s = text_score(&[1.0, 1.0], &key, [2, 2, 1, 3, 1]);
        for (got, want) in s.iter().zip([0.5, 0.7, 0.2]) {
            assert!((got - want).abs() < 1e-12, "expected {want}, got {got}");
        }
    }
}
