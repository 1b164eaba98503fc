//! The data flow. Input: tiles and a prompt. Output: the logits of each token. Read this file first.
//!
//! ```text
//! picture -> tiles -> vision tower -> projector -> map and thumbnail            encode
//!         -> vision-guided sampler: one scale per region                        compress
//!         -> text before and visual tokens through the lower layers             image_prefill
//! question through the same layers                                              question_prefill
//!         -> text-guided sampler: importance of each visual token               rank_visual
//!         -> kept tokens and question through the upper layers -> logits        prefill
//! ```
//!
//! Causal attention makes everything before the question independent of it. So the first three functions run once per
//! picture, the others once per question.

use std::sync::Arc;

use burn::tensor::{DType, Int, Tensor, TensorData, Transaction};
use fovea_runtime::{
    Keep, TokenBox,
    kv_cache::{KvCache, LayerCache},
    read::{into_f32, into_indices, read_all, settle},
    sampler_ops::{indices, row_gather},
};

use crate::{
    decoder::DecoderLayer,
    error::Error,
    grid::Grid,
    model::Model,
    pace::{Pace, Progress},
    rope::Rotation,
    stage::Stage,
    text_sampler::{Kept, text_guided},
    tiles::Tiles,
    vision_sampler::{Chooser, every_box, every_token, vision_guided},
};

/// The vision tower's output for a picture, independent of every setting.
#[derive(Clone, Debug)]
pub(crate) struct Features {
    /// (P*P, C), f32.
    pub thumbnail: Tensor<2>,
    /// (Hx, Wx, C), f32; None if nothing remains without the padding.
    pub map: Option<Tensor<3>>,
    /// Position of the map on the tiles.
    pub grid: Grid,
}

/// The visual tokens, in the order in which the text model sees them.
#[derive(Clone, Debug)]
pub(crate) struct Visual {
    /// (N, C), f32: first those of the thumbnail, then those of the map with newlines.
    pub tokens: Tensor<2>,
    /// Number of tokens of the thumbnail.
    pub thumbnail: usize,
    /// Z, (regions, scales); empty without the sampler.
    pub scale_logits: Vec<f32>,
    /// Index of every region's scale; empty without the sampler.
    pub choice: Arc<Vec<usize>>,
    /// The patches of every token after the thumbnail's.
    pub boxes: Arc<Vec<TokenBox>>,
}

/// Text before the picture and all visual tokens after the first `depth` layers.
#[derive(Clone, Debug)]
pub(crate) struct Prefix {
    /// Number of layers that they have passed.
    pub depth: usize,
    /// The input of layer `depth`, (before + N, C).
    pub hidden: Tensor<2>,
    /// Positions of its tokens: from 0.
    rotation: Rotation,
    /// The caches of the passed layers.
    pub cache: KvCache,
}

/// A question after the layers that the prefix has passed.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    /// The input of layer `depth` of the prefix, (T, C).
    hidden: Tensor<2>,
    /// Positions of its tokens: after the prefix.
    rotation: Rotation,
    /// The caches of the passed layers: prefix and question.
    cache: KvCache,
}

impl Model {
    /// Tiles -> features. `pixel_values` (tiles, 3, S, S), thumbnail first.
    pub(crate) async fn encode(&self, tiles: Tiles, grid: Grid, pace: &Pace) -> Result<Features, Error> {
        let shape = [tiles.count, 3, tiles.side, tiles.side];
        let pixels = TensorData::new(tiles.pixel_values, shape);
        let pixels = Tensor::from_data(pixels, (&self.device.device, DType::F32));
        let features = self.tower.forward(pixels, &self.config.vision, self.steps, pace).await?;
        let features = self.projector.forward(features, &self.config, self.steps, pace).await?; // (tiles, P*P, C)
        let (p, c) = (grid.patches, self.config.text.d_model);
        let thumbnail = features.clone().narrow(0, 0, 1).reshape([p * p, c]);
        let map = (grid.height > 0 && grid.width > 0).then(|| {
            let tiles = features.narrow(0, 1, grid.rows * grid.cols);
            let canvas = tiles.reshape([grid.rows, grid.cols, p, p, c]).permute([0, 2, 1, 3, 4]);
            let canvas = canvas.reshape([grid.rows * p, grid.cols * p, c]);
            canvas.narrow(0, grid.top, grid.height).narrow(1, grid.left, grid.width)
        });
        settle(map.as_ref().map_or(&thumbnail.clone().unsqueeze::<3>(), |map| map)).await?;
        Ok(Features { thumbnail, map, grid })
    }

    /// Features -> visual tokens: with the vision-guided sampler, or every token as in LLaVA-NeXT.
    pub(crate) async fn compress(&self, features: &Features, chooser: Chooser) -> Result<Visual, Error> {
        let (newline, grid) = (self.newline.clone(), features.grid);
        let (selector, random) = match chooser {
            Chooser::Off => (None, None),
            Chooser::Selector => (self.selector.as_ref(), None),
            Chooser::Random(seed) => (self.selector.as_ref(), Some(seed)),
        };
        let (high, reads, boxes) = match (selector, &features.map) {
            (Some(selector), Some(map)) => {
                let s = vision_guided(map, &features.thumbnail, newline, selector, &self.config.focus, random).await?;
                let reads = Transaction::default().register(s.logits).register(s.choice);
                (s.tokens, Some(s.boxes.into_iter().fold(reads, Transaction::register)), Vec::new())
            }
            (Some(_), None) => (None, None, Vec::new()),
            (None, map) => (every_token(map.as_ref(), grid.height, newline), None, every_box(grid.height, grid.width)),
        };
        // If only the thumbnail remains it is kept, even if the config drops it.
        let thumbnail = (self.config.focus.thumbnail || high.is_none()).then(|| features.thumbnail.clone());
        let thumbnail_tokens = thumbnail.as_ref().map_or(0, |t| t.dims()[0]);
        let tokens = Tensor::cat(thumbnail.into_iter().chain(high).collect(), 0);
        // The choices are read for display once per picture, in one round trip; no computation depends on them.
        let mut read = match reads {
            Some(reads) => read_all(reads).await?,
            None => {
                settle(&tokens).await?;
                Vec::new()
            }
        }
        .into_iter();
        let scale_logits = read.next().map_or_else(Vec::new, into_f32);
        let choice = Arc::new(read.next().map_or_else(Vec::new, into_indices));
        let sampled_boxes = read.next().map(|data| into_indices(data).as_chunks::<4>().0.to_vec());
        let boxes = Arc::new(sampled_boxes.unwrap_or(boxes));
        Ok(Visual { tokens, thumbnail: thumbnail_tokens, scale_logits, choice, boxes })
    }

    /// Text before the picture and visual tokens as embeddings: a prefix that has passed no layer.
    pub(crate) fn prefix(&self, before: &[u32], visual: &Visual) -> Prefix {
        let parts = (!before.is_empty()).then(|| self.decoder.embed(before)).into_iter();
        let hidden = Tensor::cat(parts.chain([visual.tokens.clone()]).collect(), 0);
        let positions: Vec<usize> = (0..hidden.dims()[0]).collect();
        Prefix { depth: 0, rotation: self.rope.at(&positions, &self.device.device), hidden, cache: KvCache::default() }
    }

    /// Runs `prefix` through the layers up to `depth`.
    ///
    /// The prefix is consistent after every layer, so the next run resumes after a dropped one.
    pub(crate) async fn image_prefill(&self, prefix: &mut Prefix, depth: usize, pace: &Pace) -> Result<(), Error> {
        let from = prefix.depth;
        while prefix.depth < depth {
            let layer = &self.decoder.layers[prefix.depth];
            let at = At { stage: Stage::ImagePrefill, layer: prefix.depth - from, layers: depth - from };
            let (hidden, cache) = self.through(layer, prefix.hidden.clone(), &prefix.rotation, None, at, pace).await?;
            prefix.cache.layers.push(cache);
            prefix.hidden = hidden;
            prefix.depth += 1;
        }
        settle(&prefix.hidden).await?;
        Ok(())
    }

    /// Runs the question through the layers that the prefix has passed: its hidden states, and the caches of both.
    ///
    /// `after` are the ids after the picture.
    pub(crate) async fn question_prefill(
        &self,
        prefix: &Prefix,
        after: &[u32],
        pace: &Pace,
    ) -> Result<Question, Error> {
        let start = prefix.hidden.dims()[0];
        let positions: Vec<usize> = (start..start + after.len()).collect();
        let rotation = self.rope.at(&positions, &self.device.device);
        let mut hidden = self.decoder.embed(after);
        let mut cache = KvCache::default();
        let layers = prefix.cache.layers.len();
        for (i, (layer, held)) in self.decoder.layers.iter().zip(&prefix.cache.layers).enumerate() {
            let at = At { stage: Stage::TextSampler, layer: i, layers };
            let (out, grown) = self.through(layer, hidden, &rotation, Some(held.clone()), at, pace).await?;
            cache.layers.push(grown);
            hidden = out;
        }
        Ok(Question { hidden, rotation, cache })
    }

    /// Importance of the visual tokens for the question, and the tokens to keep.
    pub(crate) async fn rank_visual(
        &self,
        prefix: &Prefix,
        image_at: usize,
        question: &Question,
        keep: Keep,
    ) -> Result<Kept, Error> {
        let layer = &self.decoder.layers[prefix.depth];
        let count = prefix.hidden.dims()[0] - image_at;
        let visual = prefix.hidden.clone().narrow(0, image_at, count);
        let (rope, config) = (self.config.focus.score_rope, &self.config.text);
        let query = layer.score_query(question.hidden.clone(), rope.then_some(&question.rotation), config);
        let at = rope.then(|| prefix.rotation.narrow(image_at, count));
        let key = layer.score_key(visual, at.as_ref(), config);
        text_guided(query, key, keep).await
    }

    /// Runs kept tokens and question through the layers after `depth`: the caches of all layers, and logits (1, vocab).
    ///
    /// `kept` are the indices of the kept visual tokens; None: all. They keep their order and their original positions.
    pub(crate) async fn prefill(
        &self,
        prefix: &Prefix,
        image_at: usize,
        kept: Option<&Tensor<1, Int>>,
        question: Question,
        pace: &Pace,
    ) -> Result<(KvCache, Tensor<2>), Error> {
        let Question { mut hidden, rotation, mut cache } = question;
        if prefix.depth < self.decoder.layers.len() {
            let (picture, positions) = match kept {
                None => (prefix.hidden.clone(), prefix.rotation.clone()),
                Some(kept) => {
                    // The text before the picture is not pruned.
                    let before: Vec<usize> = (0..image_at).collect();
                    let mut at = vec![kept.clone() + image_at as i64];
                    if image_at > 0 {
                        at.insert(0, indices(&before, image_at, &self.device.device)?);
                    }
                    let at = Tensor::cat(at, 0);
                    let rows = row_gather(prefix.hidden.clone().unsqueeze::<3>(), at.clone())?;
                    (rows.squeeze_dim(0), prefix.rotation.pick(&at)?)
                }
            };
            hidden = Tensor::cat(vec![picture, hidden], 0);
            let rotation = positions.then(&rotation);
            let upper = &self.decoder.layers[prefix.depth..];
            for (i, layer) in upper.iter().enumerate() {
                let at = At { stage: Stage::Prefill, layer: i, layers: upper.len() };
                let (out, grown) = self.through(layer, hidden, &rotation, None, at, pace).await?;
                cache.layers.push(grown);
                hidden = out;
            }
        }
        Ok((cache, self.decoder.logits(hidden)))
    }

    /// Runs one more token through all layers: logits (1, vocab) of the next token.
    pub(crate) async fn step(
        &self,
        token: u32,
        position: usize,
        cache: &mut KvCache,
        pace: &Pace,
    ) -> Result<Tensor<2>, Error> {
        let rotation = self.rope.at(&[position], &self.device.device);
        let mut hidden = self.decoder.embed(&[token]);
        pace.check().await?;
        // Move each cache in and out, so that it has one owner and is written in place.
        let caches = std::mem::take(&mut cache.layers);
        for (layer, held) in self.decoder.layers.iter().zip(caches) {
            let (out, grown) = self.layer(layer, hidden, &rotation, Some(held), pace).await?;
            cache.layers.push(grown);
            hidden = out;
        }
        Ok(self.decoder.logits(hidden))
    }

    async fn layer(
        &self,
        layer: &DecoderLayer,
        hidden: Tensor<2>,
        rotation: &Rotation,
        cache: Option<LayerCache>,
        pace: &Pace,
    ) -> Result<(Tensor<2>, LayerCache), Error> {
        layer.forward(hidden, rotation, cache, &self.config.text, self.dtype, (self.steps, pace)).await
    }

    /// Runs new tokens through one layer, some rows at once: a row depends on earlier rows only, through the cache.
    async fn through(
        &self,
        layer: &DecoderLayer,
        hidden: Tensor<2>,
        rotation: &Rotation,
        cache: Option<LayerCache>,
        at: At,
        pace: &Pace,
    ) -> Result<(Tensor<2>, LayerCache), Error> {
        let [rows, _] = hidden.dims();
        let work = self.config.text.layer_work();
        let most = self.steps.rows(work, self.config.text.widest());
        pace.step(at.progress(0, rows)).await?;
        let (out, cache) = if rows <= most {
            self.layer(layer, hidden, rotation, cache, pace).await?
        } else {
            let mut cache = match cache {
                Some(cache) => cache,
                None => LayerCache::empty(&self.config.text.cache_shape(rows), self.dtype, &self.device.device),
            };
            cache.reserve(rows);
            let mut parts = Vec::new();
            for first in (0..rows).step_by(most) {
                pace.step(at.progress(first, rows)).await?;
                let count = most.min(rows - first);
                let part = hidden.clone().narrow(0, first, count);
                let rotation = rotation.narrow(first, count);
                let (out, grown) = self.layer(layer, part, &rotation, Some(cache), pace).await?;
                parts.push(out);
                cache = grown;
            }
            (Tensor::cat(parts, 0), cache)
        };
        if self.steps.waits(rows as u64 * work) {
            settle(&out).await?;
        }
        Ok((out, cache))
    }
}

/// Which layer of a stage is running.
#[derive(Clone, Copy)]
struct At {
    stage: Stage,
    layer: usize,
    layers: usize,
}

impl At {
    fn progress(self, first: usize, rows: usize) -> Progress {
        let (done, total) = (self.layer * rows + first, self.layers * rows);
        Progress { stage: self.stage, done: done as u64, total: total as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        AskOptions, Cancel, Checkpoint, Conversation, Picture, Precision, demo,
        pace::Steps,
        trace::{Trace, Value, trace},
    };
    use fovea_runtime::{DeviceChoice, OpenDevice};

    /// Every stage of a run of the demo checkpoint with these steps; None: with the steps of the CPU.
    fn run(steps: Option<Steps>) -> Trace {
        pollster::block_on(async {
            let device = OpenDevice::open(&DeviceChoice::Cpu).await.expect("the CPU");
            let checkpoint = Checkpoint::open(demo::source()).await.expect("the demo checkpoint");
            let model = Model::load(checkpoint, device, Precision::F32, &Cancel::default(), |_| {}).await;
            let mut model = model.expect("a model");
            if let (Some(steps), Some(model)) = (steps, Arc::get_mut(&mut model)) {
                model.steps = steps;
            }
            let rgb = (0..300 * 200 * 3).map(|i| (i * 7919 % 65521 % 256) as u8).collect();
            let mut conversation = Conversation::new(&model, Picture::from_rgb(300, 200, rgb).expect("a picture"));
            let options = AskOptions { max_new_tokens: 4, ..AskOptions::default() };
            let question = "What word is on the blue sign, and which number is on the other?";
            trace(&mut conversation, question, &options).await.expect("a trace")
        })
    }

    /// Computing some rows at once equals computing all rows at once, except for the order of sums.
    #[test]
    fn narrow_and_wide_steps_give_equal_results() {
        let whole = run(None);
        let config = pollster::block_on(Checkpoint::open(demo::source())).expect("the demo checkpoint").config;
        let tokens = config.vision.patches().pow(2) + 1;
        let widest = config.vision.d_ff.max(config.vision.n_heads * tokens) as u64;
        // Two tiles at a time, seven rows of a tile, and one row of everything.
        for values in [2 * tokens as u64 * widest, 7 * widest, 1] {
            let narrow = run(Some(Steps::of_values(values)));
            assert_eq!(narrow.keys().collect::<Vec<_>>(), whole.keys().collect::<Vec<_>>());
            for (stage, expected) in &whole {
                match (&narrow[stage], expected) {
                    (Value::F32 { data: got, .. }, Value::F32 { data: expected, .. }) => {
                        let pairs = || got.iter().zip(expected).map(|(g, e)| (f64::from(*g), f64::from(*e)));
                        let error: f64 = pairs().map(|(g, e)| (g - e).powi(2)).sum();
                        let size: f64 = pairs().map(|(_, e)| e * e).sum();
                        assert_eq!(got.len(), expected.len(), "{values}: {stage}: values (got, expected)");
                        assert!(error <= 1e-10 * size, "{values}: {stage}: NMSE {}", error / size);
                    }
                    (Value::I64 { data: got, .. }, Value::I64 { data: expected, .. }) => {
                        assert_eq!(got, expected, "{values}: {stage} (got, expected)");
                    }
                    _ => panic!("{values}: {stage}: expected one type"),
                }
            }
        }
    }
}
