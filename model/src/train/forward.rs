//! The model's way with gradients, for a whole batch at once: what `focus` computes for one question, without caches.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData, activation};
use fovea_runtime::{Keep, Scale, top_k};

use super::{
    batch::{Batch, below, between},
    config::{Stage, Vision},
    network::Network,
    sequence::{Sequences, arrange, regions, rows_under},
};
use crate::{
    config::{Config, TextConfig},
    decoder::DecoderLayer,
    error::Error,
    pace::{Pace, Steps},
    rope::{Rope, Rotation},
};
use rand_chacha::rand_core::Rng;

/// What a masked score is lowered by: its exponential is beyond what f32 adds up, yet neither an underflow, for which
/// libraries take a slow path, nor so small that gradients times it are subnormal, for which processors do.
pub(super) const FAR_BELOW: f32 = -40.0;

/// What a pass gives the losses.
pub(super) struct Passed {
    /// (tiles * P*P, d_vision), the tower's features.
    pub features: Tensor<2>,
    /// (regions, scales) of the whole batch, where the selector took part.
    pub selector: Option<Tensor<2>>,
    /// Every region's scale.
    pub choice: Vec<usize>,
    /// (targets, vocabulary).
    pub logits: Option<Tensor<2>>,
    /// Tokens, targets and masks.
    pub sequences: Option<Sequences>,
    /// Which visual tokens each scene's questions kept, where they were pruned.
    pub kept: Option<Vec<Vec<Vec<bool>>>>,
    /// (scenes, questions, visual tokens), Eq. 8, where there is a hint of where to look.
    pub importance: Option<Tensor<3>>,
}

/// Positions' cosines and sines for every place of the context.
pub(super) struct Positions(Rotation);

impl Positions {
    pub fn new(config: &TextConfig, device: &Device) -> Self {
        let all: Vec<usize> = (0..config.context.min(4096)).collect();
        Self(Rope::new(config).at(&all, device))
    }

    fn len(&self) -> usize {
        self.0.tables().0.dims()[0]
    }

    /// (scenes, 1, tokens, d_head / 2) each.
    fn at(&self, positions: &[i32], scenes: usize) -> (Tensor<4>, Tensor<4>) {
        let (cos, sin) = self.0.tables();
        let at = ints(positions, &cos.device());
        let half = cos.dims()[1];
        let pick = |table: Tensor<2>| table.select(0, at.clone()).reshape([scenes, 1, positions.len() / scenes, half]);
        (pick(cos), pick(sin))
    }
}

fn ints(values: &[i32], device: &Device) -> Tensor<1, Int> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), device)
}

impl Network {
    /// The tower alone, without a way back where it is `frozen`: (tiles * P*P, d_vision).
    pub async fn features(
        &self,
        batch: &Batch,
        frozen: bool,
        config: &Config,
        device: &Device,
    ) -> Result<Tensor<2>, Error> {
        let side = config.vision.side;
        let pixels = TensorData::new(batch.pixels.clone(), [batch.tiles, 3, side, side]);
        let features = if frozen {
            let pixels = Tensor::from_data(pixels, &device.clone().inner());
            Tensor::from_inner(
                self.tower.valid().forward(pixels, &config.vision, Steps::WHOLE, &Pace::default()).await?,
            )
        } else {
            let pixels = Tensor::from_data(pixels, device);
            self.tower.forward(pixels, &config.vision, Steps::WHOLE, &Pace::default()).await?
        };
        let [tiles, patches, d] = features.dims();
        Ok(features.reshape([tiles * patches, d]))
    }

    /// A batch through the whole model.
    pub async fn pass(
        &self,
        batch: &Batch,
        stage: &Stage,
        config: &Config,
        positions: &Positions,
        dice: &mut impl Rng,
        device: &Device,
    ) -> Result<Passed, Error> {
        let features = self.features(batch, stage.frozen, config, device).await?;
        let (p, c) = (config.vision.patches(), config.text.d_model);
        let rows = features.clone().unsqueeze::<3>();
        let rows = self.projector.forward(rows, config, Steps::WHOLE, &Pace::default()).await?;
        let rows = rows.reshape([batch.tiles * p * p, c]);

        let (window, scales) = (config.focus.window, &config.focus.scales);
        let finest = scales.iter().position(|s| *s == Scale::new(1, 1)).unwrap_or(scales.len() - 1);
        let regions_of = |s: &super::batch::Shown| regions(s.grid.height, s.grid.width, window).len();
        let total: usize = batch.shown.iter().map(regions_of).sum();
        let (selector, choice) = match stage.vision {
            Vision::Full | Vision::Thumbnail => (None, vec![finest; total]),
            Vision::Random => (None, (0..total).map(|_| below(dice, scales.len())).collect()),
            Vision::Selected => {
                let logits = self.scale_logits(&rows, batch, config, device);
                let choice = logits.clone().inner().argmax(1).into_data();
                (Some(logits), choice.iter::<i64>().map(|i| i as usize).collect::<Vec<_>>())
            }
        };
        let s = arrange(batch, p, window, scales, &choice, stage.vision == Vision::Thumbnail);
        let embedded = self.embedded(rows, &s, scales, selector.as_ref(), &choice, device);
        let (scenes, tokens) = (batch.shown.len(), s.prefix + s.text);
        if tokens > positions.len() {
            return Err(Error::TooLong { need: tokens, have: positions.len() });
        }
        let rotation = positions.at(&s.positions, scenes);
        let mut hidden = embedded;
        let shape = [scenes, 1, s.text, tokens];
        let upload = |mask: Vec<f32>| Tensor::<4>::from_data(TensorData::new(mask, shape), device);
        let mut mask = upload(s.mask(None));
        let causal = causal(s.prefix, device);
        let pruned_at = stage.text.map(|t| t.layers[0] + below(dice, t.layers[1] - t.layers[0] + 1));
        let looked_at = pruned_at.or(config.focus.text_layer).filter(|_| stage.look > 0.0);
        let (mut kept, mut looked) = (None, None);
        for (i, layer) in self.decoder.layers.iter().enumerate() {
            if looked_at == Some(i) {
                looked = Some(layer.importance(&hidden, &s, &config.text, device));
            }
            if let (Some(pruning), true) = (stage.text, pruned_at == Some(i)) {
                let importance = match &looked {
                    Some(importance) => importance.clone().inner(),
                    None => {
                        layer.valid().importance(&hidden.clone().inner(), &s, &config.text, &device.clone().inner())
                    }
                };
                let importance = s.by_question(importance, batch);
                let gammas: Vec<Vec<f64>> =
                    batch.asked.iter().map(|a| a.iter().map(|_| between(dice, pruning.gamma)).collect()).collect();
                let survivors = survivors(&importance, &gammas);
                mask = upload(s.mask(Some(&survivors)));
                kept = Some(survivors);
            }
            hidden = layer.forward_batch(hidden, scenes, s.prefix, &rotation, &causal, &mask, &config.text);
        }
        // Only the places that predict an answer go through the head.
        let c_rows = hidden.reshape([scenes, tokens, c]).narrow(1, s.prefix, s.text).reshape([scenes * s.text, c]);
        let at: Vec<i32> = s.targets.iter().map(|(row, _)| *row as i32).collect();
        let logits = self.decoder.logits_of(c_rows.select(0, ints(&at, device)));
        Ok(Passed { features, selector, choice, logits: Some(logits), sequences: Some(s), kept, importance: looked })
    }

    /// Eq. 1's Z: every region's max-pooled features against its picture's thumbnail, through the selector.
    fn scale_logits(&self, rows: &Tensor<2>, batch: &Batch, config: &Config, device: &Device) -> Tensor<2> {
        let (p, c, window) = (config.vision.patches(), config.text.d_model, config.focus.window);
        let (mut under, mut thumbnails, mut real) = (Vec::new(), Vec::new(), Vec::new());
        let all: Vec<_> = batch.shown.iter().map(|s| regions(s.grid.height, s.grid.width, window)).collect();
        let most = all.iter().map(Vec::len).max().unwrap_or(0);
        for (b, (shown, regions)) in batch.shown.iter().zip(&all).enumerate() {
            let first = shown.first_tile * p * p;
            thumbnails.extend((first..first + p * p).map(|r| r as i32));
            for i in 0..most {
                // A picture with fewer regions repeats its first; what comes of it is left out below.
                let at = regions.get(i).unwrap_or(&regions[0]);
                under.extend(rows_under(shown, p, *at, window * window));
                if i < regions.len() {
                    real.push((b * most + i) as i32);
                }
            }
        }
        let scenes = batch.shown.len();
        let pooled = rows.clone().select(0, ints(&under, device)).reshape([scenes * most, window * window, c]);
        let pooled = pooled.max_dim(1).reshape([scenes, most, c]);
        let thumbnails = rows.clone().select(0, ints(&thumbnails, device)).reshape([scenes, p * p, c]);
        let likeness = pooled.matmul(thumbnails.swap_dims(1, 2)) / (c as f64).sqrt();
        let likeness = likeness.reshape([scenes * most, p * p]).select(0, ints(&real, device));
        self.selector.logits(likeness)
    }

    /// (scenes * tokens, C): every token's row, times Eq. 2's p / stop_gradient(p) where its region was chosen.
    fn embedded(
        &self,
        rows: Tensor<2>,
        s: &Sequences,
        scales: &[Scale],
        selector: Option<&Tensor<2>>,
        choice: &[usize],
        device: &Device,
    ) -> Tensor<2> {
        let c = rows.dims()[1];
        let mut sources = vec![rows.clone()];
        for (under, scale) in s.pooled.iter().zip(scales).filter(|(under, _)| !under.is_empty()) {
            let kernel = scale.rows * scale.cols;
            let pooled = rows.clone().select(0, ints(under, device)).reshape([under.len() / kernel, kernel, c]);
            sources.push(pooled.max_dim(1).reshape([under.len() / kernel, c]));
        }
        sources.push(self.newline.val().unsqueeze());
        sources.push(self.decoder.embeddings());
        let tokens = Tensor::cat(sources, 0).select(0, ints(&s.rows, device));
        let Some(logits) = selector else { return tokens };
        let chosen: Vec<i32> = choice.iter().map(|&c| c as i32).collect();
        let chosen = ints(&chosen, device).reshape([choice.len(), 1]);
        let gate = Tensor::cat(vec![gate(logits.clone(), chosen), Tensor::ones([1, 1], device)], 0);
        tokens * gate.select(0, ints(&s.gates, device))
    }
}

/// Eq. 2: `p / stop_gradient(p)`, p the probability of the chosen scale. One, with a gradient.
///
/// `logits` (regions, scales), `chosen` (regions, 1) -> (regions, 1).
pub(super) fn gate(logits: Tensor<2>, chosen: Tensor<2, Int>) -> Tensor<2> {
    let winning = activation::softmax(logits, 1).gather(1, chosen);
    winning.clone() / winning.detach()
}

/// (scenes * tokens, heads * d_head) -> (scenes, heads, tokens, d_head).
fn split(x: Tensor<2>, scenes: usize, heads: usize) -> Tensor<4> {
    let [rows, width] = x.dims();
    x.reshape([scenes, rows / scenes, heads, width / heads]).swap_dims(1, 2)
}

/// Repeats key heads for the query heads of their group.
fn for_every_head(x: Tensor<4>, heads: usize) -> Tensor<4> {
    let [scenes, kv, tokens, d] = x.dims();
    if kv == heads {
        return x;
    }
    x.reshape([scenes, kv, 1, tokens * d]).repeat_dim(2, heads / kv).reshape([scenes, heads, tokens, d])
}

fn attend(query: Tensor<4>, key: Tensor<4>, value: Tensor<4>, mask: Tensor<4>) -> Tensor<4> {
    let d_head = query.dims()[3];
    let scores = (query / (d_head as f64).sqrt()).matmul(key.swap_dims(2, 3)) + mask;
    activation::softmax(scores, 3).matmul(value)
}

/// (1, 1, n, n): 0 up to the diagonal, far below over it.
fn causal(n: usize, device: &Device) -> Tensor<4> {
    let mask: Vec<f32> = (0..n * n).map(|i| if i % n > i / n { FAR_BELOW } else { 0.0 }).collect();
    Tensor::from_data(TensorData::new(mask, [1, 1, n, n]), device)
}

fn rotate(x: Tensor<4>, (cos, sin): &(Tensor<4>, Tensor<4>)) -> Tensor<4> {
    let half = x.dims()[3] / 2;
    let (a, b) = (x.clone().narrow(3, 0, half), x.narrow(3, half, half));
    let first = a.clone() * cos.clone() - b.clone() * sin.clone();
    let second = b * cos.clone() + a * sin.clone();
    Tensor::cat(vec![first, second], 3)
}

impl DecoderLayer {
    /// One layer over a batch: each scene's prefix is causal, its questions see the prefix and themselves by `mask`.
    #[allow(clippy::too_many_arguments)]
    fn forward_batch(
        &self,
        hidden: Tensor<2>,
        scenes: usize,
        prefix: usize,
        rotation: &(Tensor<4>, Tensor<4>),
        causal: &Tensor<4>,
        mask: &Tensor<4>,
        config: &TextConfig,
    ) -> Tensor<2> {
        let [rows, _] = hidden.dims();
        let tokens = rows / scenes;
        let x = self.input_layernorm.forward(hidden.clone());
        let query = rotate(split(self.q_proj.forward(x.clone()), scenes, config.n_heads), rotation);
        let key = rotate(split(self.k_proj.forward(x.clone()), scenes, config.n_kv_heads), rotation);
        let value = split(self.v_proj.forward(x), scenes, config.n_kv_heads);
        let (key, value) = (for_every_head(key, config.n_heads), for_every_head(value, config.n_heads));
        let before = |x: &Tensor<4>| x.clone().narrow(2, 0, prefix);
        let seen = attend(before(&query), before(&key), before(&value), causal.clone());
        let asked = attend(query.narrow(2, prefix, tokens - prefix), key, value, mask.clone());
        let seen = Tensor::cat(vec![seen, asked], 2).swap_dims(1, 2).reshape([rows, config.n_heads * config.d_head]);
        let hidden = hidden + self.o_proj.forward(seen);
        let x = self.post_attention_layernorm.forward(hidden.clone());
        let gated = config.activation.apply(self.gate_proj.forward(x.clone())) * self.up_proj.forward(x);
        hidden + self.down_proj.forward(gated)
    }

    /// Eq. 7 and 8 for every question of a batch: importance (scenes, questions, visual tokens).
    fn importance(&self, hidden: &Tensor<2>, s: &Sequences, config: &TextConfig, device: &Device) -> Tensor<3> {
        let (scenes, visual) = (s.lengths.len(), s.prefix - s.before);
        // (heads, scenes * tokens, d_head) -> (scenes, heads, tokens, d_head)
        let apart = |x: Tensor<3>| {
            let [heads, rows, d] = x.dims();
            x.reshape([heads, scenes, rows / scenes, d]).swap_dims(0, 1)
        };
        let query = apart(self.score_query(hidden.clone(), None, config)).narrow(2, s.prefix, s.text);
        let key = apart(self.score_key(hidden.clone(), None, config)).narrow(2, s.before, visual);
        let there: Vec<f32> = s
            .lengths
            .iter()
            .flat_map(|&n| (0..visual).map(move |j| if s.before + j < n { 0.0 } else { FAR_BELOW }))
            .collect();
        let there = Tensor::<4>::from_data(TensorData::new(there, [scenes, 1, 1, visual]), device);
        let key = for_every_head(key, config.n_heads);
        let scores = (query / (config.d_head as f64).sqrt()).matmul(key.swap_dims(2, 3)) + there;
        let best = activation::softmax(scores, 3).max_dim(1).reshape([scenes, s.text, visual]);
        let averages = TensorData::new(s.averages(), [scenes, s.questions(), s.text]);
        Tensor::<3>::from_data(averages, device).matmul(best)
    }
}

/// Eq. 9 for every question: which visual tokens stay.
fn survivors(importance: &[Vec<Vec<f32>>], gammas: &[Vec<f64>]) -> Vec<Vec<Vec<bool>>> {
    let one = |(scores, &gamma): (&Vec<f32>, &f64)| {
        let mut kept = vec![false; scores.len()];
        top_k(scores, Keep::Gamma(gamma)).into_iter().for_each(|i| kept[i] = true);
        kept
    };
    importance.iter().zip(gammas).map(|(questions, gammas)| questions.iter().zip(gammas).map(one).collect()).collect()
}
