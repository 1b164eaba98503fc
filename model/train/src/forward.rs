//! The forward pass of a batch, with gradients and without caches: what `fovea_model::focus` computes for one question.
//! Input: a [`Batch`]. Output: logits, and what the losses need ([`Passed`]).

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData, activation};
use fovea_model::{
    Config, Error, TextConfig,
    parts::{DecoderLayer, Pace, Rope, Rotation, Steps},
};
use fovea_shaders::{Keep, Scale, top_k};
use rand_chacha::rand_core::Rng;

use crate::{
    batch::{Batch, Shown, below, between},
    config::{Stage, Vision},
    network::Trained,
    sequence::{FAR_BELOW, Sequences, arrange, regions, rows_under},
};

/// The results of a forward pass, for the losses.
pub(crate) struct Passed {
    /// Features of the vision tower, (tiles * P*P, d_vision).
    pub features: Tensor<2>,
    /// Logits of the scale selector for all regions of the batch, (regions, scales). None if the scales do not come from it.
    pub selector: Option<Tensor<2>>,
    /// Index of every region's scale.
    pub choice: Vec<usize>,
    /// Logits at the targets, (targets, vocabulary).
    pub logits: Option<Tensor<2>>,
    /// Token rows, targets and masks.
    pub sequences: Option<Sequences>,
    /// For each scene and question: which visual tokens stay. None without pruning.
    pub kept: Option<Vec<Vec<Vec<bool>>>>,
    /// Importance of the visual tokens (Eq. 8), (scenes, questions, visual tokens). None without an attention hint.
    pub importance: Option<Tensor<3>>,
}

fn ints(values: &[i32], device: &Device) -> Tensor<1, Int> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), device)
}

impl Trained {
    /// The vision tower's features: (tiles * P*P, d_vision). If the tower is `frozen`, there is no backward pass through it.
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
                self.network.tower.valid().forward(pixels, &config.vision, Steps::WHOLE, &Pace::default()).await?,
            )
        } else {
            let pixels = Tensor::from_data(pixels, device);
            self.network.tower.forward(pixels, &config.vision, Steps::WHOLE, &Pace::default()).await?
        };
        let [tiles, patches, d] = features.dims();
        Ok(features.reshape([tiles * patches, d]))
    }

    /// The forward pass of a batch through the whole model.
    ///
    /// # Errors
    /// [`Error::TooLong`] if a scene with its questions exceeds the context.
    pub async fn pass(
        &self,
        batch: &Batch,
        stage: &Stage,
        config: &Config,
        rope: &Rope,
        dice: &mut impl Rng,
        device: &Device,
    ) -> Result<Passed, Error> {
        let features = self.features(batch, stage.frozen, config, device).await?;
        let (p, c) = (config.vision.patches(), config.text.d_model);
        let rows = features.clone().unsqueeze::<3>();
        let rows = self.network.projector.forward(rows, config, Steps::WHOLE, &Pace::default()).await?;
        let rows = rows.reshape([batch.tiles * p * p, c]);

        let (window, scales) = (config.focus.window, &config.focus.scales);
        let finest = scales.iter().position(|s| *s == Scale::new(1, 1)).unwrap_or(scales.len() - 1);
        let regions_of = |s: &Shown| regions(s.grid.height, s.grid.width, window).len();
        let total: usize = batch.shown.iter().map(regions_of).sum();
        let (selector, choice) = match stage.vision {
            Vision::Full | Vision::Thumbnail => (None, vec![finest; total]),
            Vision::Random => (None, (0..total).map(|_| below(dice, scales.len())).collect()),
            Vision::Selected => {
                let logits = self.scale_logits(&rows, batch, config, device);
                let logits = logits.ok_or(Error::Internal("a network in training without a scale selector"))?;
                let choice = logits.clone().inner().argmax(1).into_data();
                (Some(logits), choice.iter::<i64>().map(|i| i as usize).collect::<Vec<_>>())
            }
        };
        let s = arrange(batch, p, window, scales, &choice, stage.vision == Vision::Thumbnail);
        let embedded = self.embedded(rows, &s, scales, selector.as_ref(), &choice, device);
        let (scenes, tokens) = (batch.shown.len(), s.prefix + s.text);
        if tokens > config.text.context {
            return Err(Error::TooLong { need: tokens, have: config.text.context });
        }
        let rotation = rope.at(&s.positions, device);
        let mut hidden = embedded;
        let shape = [scenes, 1, s.text, tokens];
        let upload = |mask: Vec<f32>| Tensor::<4>::from_data(TensorData::new(mask, shape), device);
        let mut mask = upload(s.mask(None));
        let causal = causal(s.prefix, device);
        let pruned_at = stage.text.map(|t| t.layers[0] + below(dice, t.layers[1] - t.layers[0] + 1));
        let looked_at = pruned_at.or(config.focus.text_layer).filter(|_| stage.look > 0.0);
        let (mut kept, mut looked) = (None, None);
        for (i, layer) in self.network.decoder.layers.iter().enumerate() {
            if looked_at == Some(i) {
                looked = Some(importance(layer, &hidden, &s, &config.text, device)?);
            }
            if let (Some(pruning), true) = (stage.text, pruned_at == Some(i)) {
                let importance = match &looked {
                    Some(importance) => importance.clone().inner(),
                    None => {
                        let (hidden, device) = (hidden.clone().inner(), device.clone().inner());
                        importance(&layer.valid(), &hidden, &s, &config.text, &device)?
                    }
                };
                let importance = s.by_question(importance, batch);
                let gammas: Vec<Vec<f64>> =
                    batch.asked.iter().map(|a| a.iter().map(|_| between(dice, pruning.gamma)).collect()).collect();
                let survivors = survivors(&importance, &gammas);
                mask = upload(s.mask(Some(&survivors)));
                kept = Some(survivors);
            }
            hidden = layer_over_batch(layer, hidden, &s, &rotation, (&causal, &mask), &config.text).await?;
        }
        // Only the positions that predict an answer go through the head.
        let c_rows = hidden.reshape([scenes, tokens, c]).narrow(1, s.prefix, s.text).reshape([scenes * s.text, c]);
        let at: Vec<i32> = s.targets.iter().map(|(row, _)| *row as i32).collect();
        let logits = self.network.decoder.logits_of(c_rows.select(0, ints(&at, device)))?;
        Ok(Passed { features, selector, choice, logits: Some(logits), sequences: Some(s), kept, importance: looked })
    }

    /// Z of Eq. 1: the products of every region's max-pooled features with its picture's thumbnail, through the selector.
    fn scale_logits(&self, rows: &Tensor<2>, batch: &Batch, config: &Config, device: &Device) -> Option<Tensor<2>> {
        let (p, c, window) = (config.vision.patches(), config.text.d_model, config.focus.window);
        let (mut under, mut thumbnails, mut real) = (Vec::new(), Vec::new(), Vec::new());
        let all: Vec<_> = batch.shown.iter().map(|s| regions(s.grid.height, s.grid.width, window)).collect();
        let most = all.iter().map(Vec::len).max().unwrap_or(0);
        for (b, (shown, regions)) in batch.shown.iter().zip(&all).enumerate() {
            let first = shown.first_tile * p * p;
            thumbnails.extend((first..first + p * p).map(|r| r as i32));
            for i in 0..most {
                // A picture with fewer regions repeats its first region; the repeated rows are dropped below.
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
        self.network.selector.as_ref().map(|selector| selector.logits(likeness))
    }

    /// The embedding of every token, (scenes * tokens, C). Tokens of regions are multiplied by Eq. 2's gate if `selector` has the
    /// logits of the scales.
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
        sources.extend(self.network.newline.iter().map(|newline| newline.val().unsqueeze()));
        sources.push(self.network.decoder.embeddings());
        let tokens = Tensor::cat(sources, 0).select(0, ints(&s.rows, device));
        let Some(logits) = selector else { return tokens };
        let chosen: Vec<i32> = choice.iter().map(|&c| c as i32).collect();
        let chosen = ints(&chosen, device).reshape([choice.len(), 1]);
        let gate = Tensor::cat(vec![gate(logits.clone(), chosen), Tensor::ones([1, 1], device)], 0);
        tokens * gate.select(0, ints(&s.gates, device))
    }
}

/// Eq. 2: `p / stop_gradient(p)`, where p is the probability of the chosen scale. The value is 1, the gradient is that of log p.
///
/// # Shapes
/// `logits` (regions, scales), `chosen` (regions, 1) -> (regions, 1).
pub(crate) fn gate(logits: Tensor<2>, chosen: Tensor<2, Int>) -> Tensor<2> {
    let winning = activation::softmax(logits, 1).gather(1, chosen);
    winning.clone() / winning.detach()
}

/// (heads, scenes * tokens, d_head) -> (scenes, heads, tokens, d_head).
fn by_scene(x: Tensor<3>, scenes: usize) -> Tensor<4> {
    let [heads, rows, d] = x.dims();
    x.reshape([heads, scenes, rows / scenes, d]).swap_dims(0, 1)
}

/// Repeats key or value heads for the query heads of their group: (scenes, n_kv_heads, ..) -> (scenes, heads, ..).
fn for_every_head(x: Tensor<4>, heads: usize) -> Tensor<4> {
    let [scenes, kv, tokens, d] = x.dims();
    if kv == heads {
        return x;
    }
    x.reshape([scenes, kv, 1, tokens * d]).repeat_dim(2, heads / kv).reshape([scenes, heads, tokens, d])
}

/// `softmax(Q K^T / sqrt(d_head) + mask) V`, (scenes, heads, queries, d_head).
fn attend(query: Tensor<4>, key: Tensor<4>, value: Tensor<4>, mask: Tensor<4>) -> Tensor<4> {
    let d_head = query.dims()[3];
    let scores = (query / (d_head as f64).sqrt()).matmul(key.swap_dims(2, 3)) + mask;
    activation::softmax(scores, 3).matmul(value)
}

/// The causal mask, (1, 1, n, n): 0 on and below the diagonal, [`FAR_BELOW`] above it.
fn causal(n: usize, device: &Device) -> Tensor<4> {
    let mask: Vec<f32> = (0..n * n).map(|i| if i % n > i / n { FAR_BELOW } else { 0.0 }).collect();
    Tensor::from_data(TensorData::new(mask, [1, 1, n, n]), device)
}

/// One layer over a batch. The prefix of each scene is causal; its questions see the prefix and themselves, as `mask` says.
///
/// # Shapes
/// `hidden` (scenes * tokens, C) -> the same; `causal` (1, 1, prefix, prefix); `mask` (scenes, 1, text, tokens).
async fn layer_over_batch(
    layer: &DecoderLayer,
    hidden: Tensor<2>,
    s: &Sequences,
    rotation: &Rotation,
    (causal, mask): (&Tensor<4>, &Tensor<4>),
    config: &TextConfig,
) -> Result<Tensor<2>, Error> {
    let rows = hidden.dims()[0];
    let of_scenes = layer.project(hidden.clone(), rotation, config)?.map(|x| by_scene(x, s.lengths.len()));
    let [query, key, value] = of_scenes.map(|x| for_every_head(x, config.n_heads));
    let before = |x: &Tensor<4>| x.clone().narrow(2, 0, s.prefix);
    let prefix = attend(before(&query), before(&key), before(&value), causal.clone());
    let text = attend(query.narrow(2, s.prefix, s.text), key, value, mask.clone());
    let seen = Tensor::cat(vec![prefix, text], 2).swap_dims(1, 2).reshape([rows, config.n_heads * config.d_head]);
    layer.after_attention(hidden, seen, config, (Steps::WHOLE, &Pace::default())).await
}

/// Eq. 7 and 8 for every question of a batch.
///
/// # Shapes
/// `hidden` (scenes * tokens, C) -> importance (scenes, questions, visual tokens).
fn importance(
    layer: &DecoderLayer,
    hidden: &Tensor<2>,
    s: &Sequences,
    config: &TextConfig,
    device: &Device,
) -> Result<Tensor<3>, Error> {
    let (scenes, visual) = (s.lengths.len(), s.prefix - s.before);
    let query = by_scene(layer.score_query(hidden.clone(), None, config)?, scenes).narrow(2, s.prefix, s.text);
    let key = by_scene(layer.score_key(hidden.clone(), None, config)?, scenes).narrow(2, s.before, visual);
    let padding: Vec<f32> = s
        .lengths
        .iter()
        .flat_map(|&n| (0..visual).map(move |j| if s.before + j < n { 0.0 } else { FAR_BELOW }))
        .collect();
    let padding = Tensor::<4>::from_data(TensorData::new(padding, [scenes, 1, 1, visual]), device);
    let key = for_every_head(key, config.n_heads);
    let scores = (query / (config.d_head as f64).sqrt()).matmul(key.swap_dims(2, 3)) + padding;
    let best = activation::softmax(scores, 3).max_dim(1).reshape([scenes, s.text, visual]);
    let averages = TensorData::new(s.averages(), [scenes, s.questions(), s.text]);
    Ok(Tensor::<3>::from_data(averages, device).matmul(best))
}

/// Eq. 9 for every question: which visual tokens stay at the thresholds `gammas`.
fn survivors(importance: &[Vec<Vec<f32>>], gammas: &[Vec<f64>]) -> Vec<Vec<Vec<bool>>> {
    let one = |(scores, &gamma): (&Vec<f32>, &f64)| {
        let mut kept = vec![false; scores.len()];
        top_k(scores, Keep::Gamma(gamma)).into_iter().for_each(|i| kept[i] = true);
        kept
    };
    importance.iter().zip(gammas).map(|(questions, gammas)| questions.iter().zip(gammas).map(one).collect()).collect()
}
