//! The vision-guided sampler (Sec. 3.2). Input: a feature map. Output: the tokens of every region at its chosen scale.

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor};
use fovea_runtime::{
    Scale, TokenBox,
    sampler_ops::{compact, indices, region_pool, scale_select},
};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
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
    /// Loads the selector's two tensors.
    ///
    /// # Errors
    /// Those of [`Loader`].
    pub async fn load(load: &Loader<'_>, config: &Config) -> Result<Self, Error> {
        let (scales, p) = (config.focus.scales.len(), config.vision.tokens());
        Ok(Self {
            weight: load.exact(&format!("{SELECTOR}.weight"), [scales, p * p]).await?,
            bias: load.vector(&format!("{SELECTOR}.bias"), scales).await?,
        })
    }

    /// Z of Eq. 1, for training, which needs its gradient.
    ///
    /// # Shapes
    /// `likeness` (regions, P*P), every region's product with the thumbnail's patches -> (regions, S).
    pub fn logits(&self, likeness: Tensor<2>) -> Tensor<2> {
        likeness.matmul(self.weight.val().transpose()) + self.bias.val().unsqueeze()
    }
}

/// A random scale for each of `regions`, uniformly distributed, as indices below `scales`, which is not 0. The same three numbers
/// give the same result on every machine.
fn drawn(seed: u64, regions: usize, scales: usize) -> Vec<usize> {
    let mut dice = ChaCha8Rng::seed_from_u64(seed);
    // The high half of a product: uniform except for a bias of 2^-32 times the number of scales.
    (0..regions).map(|_| ((u64::from(dice.next_u32()) * scales as u64) >> 32) as usize).collect()
}

/// What the sampler keeps of a map, on the device.
#[derive(Clone, Debug)]
pub(crate) struct Sampled {
    /// (N', C): the kept tokens in scanline order, newlines included. None if there is no token.
    pub tokens: Option<Tensor<2>>,
    /// Z, (regions, scales): the selector's, also if the scales are random.
    pub logits: Tensor<2>,
    /// The index of every region's scale, in raster order.
    pub choice: Tensor<1, Int>,
    /// The patches of each token, (N', 4).
    pub boxes: Option<Tensor<2, Int>>,
}

/// Eq. 1: every region keeps its tokens at the scale with the largest logit, the first of equal ones. If `random` is given, it is
/// the seed of random scales instead (Table 6).
///
/// # Shapes
/// `map` (Hx, Wx, C), not empty; `thumbnail` (P*P, C); `newline` (C), None without newlines; all f32 -> see [`Sampled`].
///
/// # Errors
/// Those of the custom operations in [`fovea_runtime::sampler_ops`].
pub(crate) async fn vision_guided(
    map: &Tensor<3>,
    thumbnail: &Tensor<2>,
    newline: Option<Tensor<1>>,
    selector: &ScaleSelector,
    focus: &FocusConfig,
    random: Option<u64>,
) -> Result<Sampled, Error> {
    // The whole region comes first: the selector reads it. Single patches are in the map and need no pooling.
    let mut pooled_at = vec![Scale::new(focus.window, focus.window)];
    for &scale in focus.scales.iter().filter(|s| !s.drops() && **s != Scale::new(1, 1)) {
        if !pooled_at.contains(&scale) {
            pooled_at.push(scale);
        }
    }
    let pooled = region_pool(map.clone(), focus.window, &pooled_at)?;
    let (weight, bias) = (selector.weight.val(), selector.bias.val());
    let (logits, selected) = scale_select(pooled.scale(0), thumbnail.clone(), weight, bias)?;
    let choice = match random {
        None => selected,
        Some(seed) => {
            let (regions, scales) = (selected.dims()[0], focus.scales.len());
            indices(&drawn(seed, regions, scales), scales, &map.device())?
        }
    };
    let compacted = compact(map.clone(), &pooled, newline, choice.clone(), &focus.scales).await?;
    let (tokens, boxes) = compacted.map(|c| (c.tokens, c.boxes)).unzip();
    Ok(Sampled { tokens, logits, choice, boxes })
}

/// The family's own sequence, without the sampler: the map in raster order, with a newline after every row if the family has
/// newlines, also after rows without a patch. None if there is no token.
///
/// # Shapes
/// `map` (Hx, Wx, C), None if it is empty; `newline` (C) -> (Hx * Wx, C), or (Hx * (Wx + 1), C).
pub(crate) fn every_token(map: Option<&Tensor<3>>, height: usize, newline: Option<Tensor<1>>) -> Option<Tensor<2>> {
    let newlines = newline.filter(|_| height > 0).map(|newline| {
        let c = newline.dims()[0];
        newline.reshape([1, 1, c]).expand([height, 1, c])
    });
    let parts: Vec<Tensor<3>> = map.cloned().into_iter().chain(newlines).collect();
    (!parts.is_empty()).then(|| {
        let rows = Tensor::cat(parts, 1);
        let [height, width, c] = rows.dims();
        rows.reshape([height * width, c])
    })
}

/// The patches of the tokens of [`every_token`].
pub(crate) fn every_box(height: usize, width: usize, newlines: bool) -> Vec<TokenBox> {
    let columns = width + usize::from(newlines);
    (0..height).flat_map(|y| (0..columns).map(move |x| [y, x, y + 1, (x + 1).min(width)])).collect()
}

#[cfg(test)]
mod tests {
    use super::drawn;

    #[test]
    fn random_scales_are_uniform_and_depend_on_the_seed_alone() {
        for scales in [1, 2, 3, 7] {
            let choice = drawn(5, 10_000, scales);
            assert_eq!(choice, drawn(5, 10_000, scales), "{scales} scales: a second draw (got, expected)");
            let even = 10_000 / scales;
            for scale in 0..scales {
                let count = choice.iter().filter(|&&c| c == scale).count();
                // A share's standard deviation is 0.005 at most; a wrong end of the range would be off by far more.
                assert!(count.abs_diff(even) <= 200, "scale {scale} of {scales}: expected about {even}, got {count}");
            }
            assert!(choice.iter().all(|&c| c < scales), "expected indices below {scales}");
        }
        assert_ne!(drawn(5, 100, 3), drawn(6, 100, 3), "draws of two seeds");
        // A larger map starts like a smaller one: only the number of regions differs.
        assert_eq!(drawn(5, 100, 3)[..40], drawn(5, 40, 3), "the first 40 of 100 (got, expected)");
    }
}
