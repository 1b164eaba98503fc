//! The scale of each region: the region compared with the complete picture (paper Sec. 3.2, Eq. 1).

use bytemuck::{Pod, Zeroable};

use crate::kernel::{Kernel, Variant};

/// Logits and choice of each region.
#[derive(Clone, Debug, PartialEq)]
pub struct ScaleChoice {
    /// Z, (regions, scales).
    pub logits: Vec<f64>,
    /// The scale with the largest logit; of equal logits the first. (regions,)
    pub choice: Vec<usize>,
}

/// `Z = FC(pool(X_i) . X_g / sqrt(C))`, `choice = argmax Z`.
///
/// The factor `1 / sqrt(C)` is our choice: it only rescales the weights, and keeps the product in the range of f16.
///
/// # Shapes
/// `pooled` (regions, C), the maximum over each region; `thumbnail` (P*P, C); `weight` (S, P*P); `bias` (S).
pub fn scale_select(pooled: &[f64], thumbnail: &[f64], weight: &[f64], bias: &[f64], channels: usize) -> ScaleChoice {
    let context = thumbnail.len() / channels;
    let mut logits = Vec::new();
    let mut choice = Vec::new();
    for region in pooled.chunks_exact(channels) {
        let scores: Vec<f64> = thumbnail
            .chunks_exact(channels)
            .map(|g| region.iter().zip(g).map(|(a, b)| a * b).sum::<f64>() / (channels as f64).sqrt())
            .collect();
        let z: Vec<f64> = bias
            .iter()
            .zip(weight.chunks_exact(context))
            .map(|(b, w)| b + w.iter().zip(&scores).map(|(w, s)| w * s).sum::<f64>())
            .collect();
        choice.push((0..z.len()).fold(0, |best, i| if z[i] > z[best] { i } else { best }));
        logits.extend(z);
    }
    ScaleChoice { logits, choice }
}

/// `Params` of `scale_fold.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct ScaleFoldParams {
    /// P * P.
    pub context: u32,
    /// Packs per row.
    pub packs: u32,
    /// 1 / sqrt(C).
    pub factor: f32,
    /// Padding to 16 bytes.
    pub unused_0: u32,
}

/// `Params` of `scale_select.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct ScaleSelectParams {
    /// Number of regions.
    pub regions: u32,
    /// Packs per row.
    pub packs: u32,
    /// Number of scales.
    pub scales: u32,
    /// Padding to 16 bytes.
    pub unused_0: u32,
}

/// The kernel: the product of weights and thumbnail.
pub const FOLD: Kernel = Kernel {
    name: "scale_fold",
    body: include_str!("wgsl/scale_fold.wgsl"),
    lanes: 64,
    buffers: 3,
    parameters: size_of::<ScaleFoldParams>(),
    variants: Variant::ALL,
    constants: &[],
    shared: &[],
    weight: None,
};

/// The kernel: logits and choices.
pub const KERNEL: Kernel = Kernel {
    name: "scale_select",
    body: include_str!("wgsl/scale_select.wgsl"),
    lanes: 64,
    buffers: 5,
    parameters: size_of::<ScaleSelectParams>(),
    variants: Variant::ALL,
    constants: &[],
    shared: &[],
    weight: None,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_logits_take_the_first_scale() {
        // C = 4, so sqrt(C) = 2. Region . thumbnail = [2, 4] / 2 = [1, 2].
        let pooled = [1., 1., 0., 0.];
        let thumbnail = [1., 1., 9., 9., 2., 2., 9., 9.];
        let weight = [1., 0., 0., 1., 2., 0.];
        let out = scale_select(&pooled, &thumbnail, &weight, &[0., 0., 0.], 4);
        assert_eq!(out.logits, [1., 2., 2.]);
        assert_eq!(out.choice, [1]);
    }
}
