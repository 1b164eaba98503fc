//! The vision-guided sampler (Sec. 3.2): a feature map in, the tokens of every region at its chosen scale out.

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor};
use fovea_runtime::{
    Scale, TokenBox,
    sampler_ops::{compact, region_pool, scale_select},
};

use crate::{
    config::{Config, FocusConfig},
    error::Error,
    load::Loader,
    names::SELECTOR,
};

/// The sampler's one learned layer: `FC`, weight (S, P*P), bias (S), always in f32.
#[derive(Module, Debug)]
pub struct ScaleSelector {
    weight: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
}

impl ScaleSelector {
    pub(crate) async fn load(load: &Loader<'_>, config: &Config) -> Result<Self, Error> {
        let (scales, patches) = (config.focus.scales.len(), config.vision.patches());
        let weight = load.f32(&format!("{SELECTOR}.weight"), [scales, patches * patches]).await?;
        Ok(Self { weight: Param::from_tensor(weight), bias: load.vector(&format!("{SELECTOR}.bias"), scales).await? })
    }

    /// Z: `likeness` (regions, P*P), every region's product with the thumbnail's patches -> (regions, S).
    #[cfg(feature = "train")]
    pub(crate) fn logits(&self, likeness: Tensor<2>) -> Tensor<2> {
        likeness.matmul(self.weight.val().transpose()) + self.bias.val().unsqueeze()
    }
}

/// What the sampler made of a map, on the device.
#[derive(Clone, Debug)]
pub(crate) struct Sampled {
    /// (N', C): the kept tokens in scanline order, newlines included. None where there is no token.
    pub tokens: Option<Tensor<2>>,
    /// Z, (regions, scales).
    pub logits: Tensor<2>,
    /// The index of every region's scale, raster order.
    pub choice: Tensor<1, Int>,
    /// The patches that each token stands for, (N', 4).
    pub boxes: Option<Tensor<2, Int>>,
}

/// Eq. 1: every region keeps its tokens at the scale with the largest logit; equal logits: the first.
///
/// `map` (Hx, Wx, C), not empty; `thumbnail` (P*P, C); `newline` (C), all f32.
pub(crate) async fn vision_guided(
    map: &Tensor<3>,
    thumbnail: &Tensor<2>,
    newline: Tensor<1>,
    selector: &ScaleSelector,
    focus: &FocusConfig,
) -> Result<Sampled, Error> {
    // The whole region first: what the selector sees. Single patches are in the map, and need no pooling.
    let mut pooled_at = vec![Scale::new(focus.window, focus.window)];
    for &scale in focus.scales.iter().filter(|s| !s.drops() && **s != Scale::new(1, 1)) {
        if !pooled_at.contains(&scale) {
            pooled_at.push(scale);
        }
    }
    let pooled = region_pool(map.clone(), focus.window, &pooled_at)?;
    let (weight, bias) = (selector.weight.val(), selector.bias.val());
    let (logits, choice) = scale_select(pooled.scale(0), thumbnail.clone(), weight, bias)?;
    let compacted = compact(map.clone(), &pooled, newline, choice.clone(), &focus.scales).await?;
    let (tokens, boxes) = compacted.map(|c| (c.tokens, c.boxes)).unzip();
    Ok(Sampled { tokens, logits, choice, boxes })
}

/// LLaVA-NeXT's own sequence, without the sampler: the map in raster order, a newline after every row, also after rows
/// that hold no patch. None where there is no row.
///
/// `map` (Hx, Wx, C), None where it is empty -> (Hx * (Wx + 1), C).
pub(crate) fn every_token(map: Option<&Tensor<3>>, height: usize, newline: Tensor<1>) -> Option<Tensor<2>> {
    let c = newline.dims()[0];
    if height == 0 {
        return None;
    }
    let newlines = newline.reshape([1, 1, c]).expand([height, 1, c]);
    let rows = match map {
        Some(map) => Tensor::cat(vec![map.clone(), newlines], 1),
        None => newlines,
    };
    let width = rows.dims()[1];
    Some(rows.reshape([height * width, c]))
}

/// The patches of [`every_token`]'s tokens.
pub(crate) fn every_box(height: usize, width: usize) -> Vec<TokenBox> {
    (0..height).flat_map(|y| (0..=width).map(move |x| [y, x, y + 1, (x + 1).min(width)])).collect()
}
