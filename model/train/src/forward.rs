//! The forward pass of a batch, with gradients and without caches: what `fovea_model::focus` computes for one question.
//! Input: a [`Batch`]. Output: logits, and what the losses need ([`Passed`]).

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData, activation};
use fovea_model::{
    Budget, Config, Error, Meteor, TextConfig,
    parts::{DecoderLayer, Pace, Rope, Rotation, Slot, Steps, Stock, Taps, Wanted, native},
};
use fovea_shaders::{Keep, Scale, top_k};
use rand_chacha::rand_core::Rng;

use crate::{
    batch::{Batch, Shown, below, between},
    config::{Stage, Vision},
    network::Trained,
    sequence::{FAR_BELOW, Sequences, arrange, arrange_kept, regions, row_of, rows_under},
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

/// The visual tokens of a batch before the text model.
struct Seen {
    /// Projected features, (tiles * P*P, C).
    rows: Tensor<2>,
    /// See [`Passed::selector`].
    selector: Option<Tensor<2>>,
    /// See [`Passed::choice`]; empty with [`Vision::Meteor`].
    choice: Vec<usize>,
    /// (regions or kept patches, 1): ones with a gradient. None if nothing was chosen by a score.
    gate: Option<Tensor<2>>,
    /// Where every token is.
    sequences: Sequences,
}

fn ints(values: &[i32], device: &Device) -> Tensor<1, Int> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), device)
}

impl Trained {
    /// The vision tower's features, (tiles * P*P, d_vision), and what is `wanted` besides. If the tower is `frozen`, there is no
    /// backward pass through it.
    pub async fn features(
        &self,
        batch: &Batch,
        frozen: bool,
        wanted: &Wanted,
        config: &Config,
        device: &Device,
    ) -> Result<(Tensor<2>, Taps), Error> {
        let side = config.vision.side;
        let pixels = TensorData::new(batch.pixels.clone(), [batch.tiles, 3, side, side]);
        let (vision, pace) = (&config.vision, Pace::default());
        let (features, taps) = if frozen {
            let pixels = Tensor::from_data(pixels, &device.clone().inner());
            let tower = self.network.tower.valid();
            let (features, taps) = tower.forward(pixels, vision, wanted, Steps::WHOLE, &pace).await?;
            (Tensor::from_inner(features), taps)
        } else {
            let pixels = Tensor::from_data(pixels, device);
            self.network.tower.forward(pixels, vision, wanted, Steps::WHOLE, &pace).await?
        };
        let [tiles, patches, d] = features.dims();
        Ok((features.reshape([tiles * patches, d]), taps))
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
        let mut wanted = Wanted::default();
        if stage.vision == Vision::Meteor {
            wanted.attention.push(config.vision.n_used.saturating_sub(1));
        }
        let (features, taps) = self.features(batch, stage.frozen, &wanted, config, device).await?;
        let seen = match stage.vision {
            Vision::Meteor => self.fused((&features, &taps), batch, stage, config, dice, device).await?,
            _ => self.sampled(&features, batch, stage, config, dice, device).await?,
        };
        let c = config.text.d_model;
        let Seen { rows, selector, choice, gate, sequences: s } = seen;
        let embedded = self.embedded(rows, &s, &config.focus.scales, gate, device);
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

    /// Every patch, or the tokens of each region at its scale: all but [`Vision::Meteor`].
    async fn sampled(
        &self,
        features: &Tensor<2>,
        batch: &Batch,
        stage: &Stage,
        config: &Config,
        dice: &mut impl Rng,
        device: &Device,
    ) -> Result<Seen, Error> {
        let (p, c) = (config.vision.patches(), config.text.d_model);
        let rows = features.clone().unsqueeze::<3>();
        let rows = self.network.projector.forward(rows, config, Steps::WHOLE, &Pace::default()).await?;
        let rows = rows.reshape([batch.tiles * p * p, c]);

        let (window, scales) = (config.focus.window, &config.focus.scales);
        let finest = scales.iter().position(|s| *s == Scale::new(1, 1)).unwrap_or(scales.len() - 1);
        let regions_of = |s: &Shown| regions(s.grid.height, s.grid.width, window).len();
        let total: usize = batch.shown.iter().map(regions_of).sum();
        let (selector, choice) = match stage.vision {
            Vision::Full | Vision::Thumbnail | Vision::Meteor => (None, vec![finest; total]),
            Vision::Random => (None, (0..total).map(|_| below(dice, scales.len())).collect()),
            Vision::Selected => {
                let logits = self.scale_logits(&rows, batch, config, device);
                let logits = logits.ok_or(Error::Internal("a network in training without a scale selector"))?;
                let choice = logits.clone().inner().argmax(1).into_data();
                (Some(logits), choice.iter::<i64>().map(|i| i as usize).collect::<Vec<_>>())
            }
        };
        let sequences = arrange(batch, p, window, scales, &choice, stage.vision == Vision::Thumbnail);
        let gate = selector.as_ref().map(|logits| {
            let chosen: Vec<i32> = choice.iter().map(|&c| c as i32).collect();
            gate(logits.clone(), ints(&chosen, device).reshape([choice.len(), 1]))
        });
        Ok(Seen { rows, selector, choice, gate, sequences })
    }

    /// LLaVA-Meteor in our interpretation: every patch reads picture and question, then those with the best scores stay. Scene by scene
    /// with the functions of inference; only the visual expert, which belongs to the vision tower, has no gradient.
    async fn fused(
        &self,
        (features, taps): (&Tensor<2>, &Taps),
        batch: &Batch,
        stage: &Stage,
        config: &Config,
        dice: &mut impl Rng,
        device: &Device,
    ) -> Result<Seen, Error> {
        let missing = Error::Internal("LLaVA-Meteor in training without its fusion, class attention or a question");
        let (Some(fusion), Some((_, attention))) = (&self.network.meteor, taps.attention.first()) else {
            return Err(missing);
        };
        let attention: Vec<f32> = attention.clone().inner().into_data().iter::<f32>().collect();
        let settings = config.meteor.clone().unwrap_or_default().selection;
        let embeddings = self.network.decoder.embeddings();
        let (p2, d) = (config.vision.patches().pow(2), features.dims()[1]);
        let (mut rows, mut kept, mut gates) = (Vec::new(), Vec::new(), Vec::new());
        for (shown, asked) in batch.shown.iter().zip(&batch.asked) {
            let Some(asked) = asked.first() else { return Err(missing) };
            let ids: Vec<i32> = asked.ids[..asked.prompt].iter().map(|&id| id as i32).collect();
            let words = embeddings.clone().select(0, ints(&ids, device));
            let (tiles, first) = (shown.grid.tiles(), shown.first_tile * p2);
            let hidden = features.clone().narrow(0, first, tiles * p2).reshape([tiles, p2, d]);
            let (network, pace) = ((&self.network.projector, config), Pace::default());
            let own = fusion.fuse(hidden, Some(words.clone()), &shown.grid, network, (Steps::WHOLE, &pace)).await?;
            let own = own.reshape([tiles * p2, config.text.d_model]);
            let scores = native(own.clone(), words, settings.native_pool)?;

            let stock = Stock::of(&shown.grid);
            let places: Vec<Option<usize>> = stock.slots.iter().map(|slot| row_of(*slot, &shown.grid)).collect();
            let by_slot =
                |values: &[f32]| -> Vec<f32> { places.iter().map(|row| row.map_or(0.0, |row| values[row])).collect() };
            let visual_expert = by_slot(&attention[first..first + tiles * p2]);
            let native_expert: Vec<f32> = scores.clone().inner().into_data().iter::<f32>().collect();
            let budget = Budget::Ratio(between(dice, stage.kept_share()));
            let chosen = Meteor { keep: budget, ..settings.clone() };
            let chosen = chosen.choose(&stock, &visual_expert, Some(&by_slot(&native_expert)));
            let slots: Vec<Slot> = chosen.iter().map(|&at| stock.slots[at]).collect();

            let scored = |rows: Vec<i32>| scores.clone().select(0, ints(&rows, device));
            let all = scored(places.iter().flatten().map(|&row| row as i32).collect());
            let best = scored(chosen.iter().filter_map(|&at| places[at]).map(|row| row as i32).collect());
            gates.push(score_gate(all, best, 1.0 - settings.visual_weight));
            rows.push(own);
            kept.push(slots);
        }
        let sequences = arrange_kept(batch, config.vision.patches(), &kept);
        let (rows, gate) = (Tensor::cat(rows, 0), Some(Tensor::cat(gates, 0)));
        Ok(Seen { rows, selector: None, choice: Vec::new(), gate, sequences })
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

    /// The embedding of every token, (scenes * tokens, C), multiplied by its `gate` if it has one.
    fn embedded(
        &self,
        rows: Tensor<2>,
        s: &Sequences,
        scales: &[Scale],
        gate: Option<Tensor<2>>,
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
        let Some(gate) = gate else { return tokens };
        let gate = Tensor::cat(vec![gate, Tensor::ones([1, 1], device)], 0);
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

/// `exp(s - stop_gradient(s))`, where s is `weight` times the z-score of the `kept` patches among `all`. The value is 1, the gradient
/// is that of s. Our choice: z-scores are negative, too, so Eq. 2's quotient would divide by almost nothing.
///
/// # Shapes
/// `all` (n), `kept` (k) -> (k, 1).
pub(crate) fn score_gate(all: Tensor<1>, kept: Tensor<1>, weight: f64) -> Tensor<2> {
    let count = kept.dims()[0];
    let mean = all.clone().mean();
    let spread = ((all - mean.clone()).square().mean() + 1e-12).sqrt();
    let score = (kept - mean) / spread * weight;
    (score.clone() - score.detach()).exp().reshape([count, 1])
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
