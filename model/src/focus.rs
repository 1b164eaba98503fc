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
    network_ops::Cursor,
    read::{into_f32, into_indices, read_all, settle},
    sampler_ops::{indices, row_gather},
};

use crate::{
    decoder::DecoderLayer,
    error::Error,
    grid::{Grid, Newline, Thumbnail},
    model::Model,
    network::Network,
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
    /// (P*P, C), f32: what the regions are compared with.
    pub thumbnail: Tensor<2>,
    /// (Hx, Wx, C), f32; None if nothing remains without the padding.
    pub map: Option<Tensor<3>>,
    /// Position of the map on the tiles.
    pub grid: Grid,
}

/// The visual tokens of a picture, in the order in which the text model sees them.
#[derive(Clone, Debug)]
pub(crate) struct Visual {
    /// (N, C), f32.
    pub tokens: Tensor<2>,
    /// Number of tokens in each place that the picture has in the prompt.
    pub places: Vec<usize>,
    /// Number of tokens of the thumbnail.
    pub thumbnail: usize,
    /// Z, (regions, scales), block by block; empty without the sampler.
    pub scale_logits: Vec<f32>,
    /// Index of every region's scale, block by block; empty without the sampler.
    pub choice: Arc<Vec<usize>>,
    /// The patches of every token that is not the thumbnail's.
    pub boxes: Arc<Vec<TokenBox>>,
}

/// The text before the last picture's end and all visual tokens after the first `depth` layers.
#[derive(Clone, Debug)]
pub(crate) struct Prefix {
    /// Number of layers that they have passed.
    pub depth: usize,
    /// The input of layer `depth`, (text + N, C).
    pub hidden: Tensor<2>,
    /// The rows of the visual tokens, rising. All other rows are text, which is never pruned.
    visual: Vec<usize>,
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
    /// Tiles -> features. `pixel_values` (tiles, 3, S, S), in the order of [`Tiles`].
    pub(crate) async fn encode(&self, tiles: Tiles, grid: Grid, pace: &Pace) -> Result<Features, Error> {
        let shape = [tiles.count, 3, tiles.side, tiles.side];
        let pixels = TensorData::new(tiles.pixel_values, shape);
        let pixels = Tensor::from_data(pixels, (&self.device.device, DType::F32));
        let Network { tower, projector, .. } = &self.network;
        let features = tower.forward(pixels, &self.config.vision, self.steps, pace).await?;
        let features = projector.forward(features, &self.config, self.steps, pace).await?; // (tiles, P*P, C)
        let (p, c) = (grid.patches, self.config.text.d_model);
        let (thumbnail, first) = match grid.thumbnail {
            Thumbnail::First => (0, 1),
            Thumbnail::Last => (tiles.count - 1, 0),
            Thumbnail::Own => (0, 0),
        };
        let thumbnail = features.clone().narrow(0, thumbnail, 1).reshape([p * p, c]);
        let map = (grid.height > 0 && grid.width > 0).then(|| {
            let tiles = features.narrow(0, first, grid.rows * grid.cols);
            let canvas = tiles.reshape([grid.rows, grid.cols, p, p, c]).permute([0, 2, 1, 3, 4]);
            let canvas = canvas.reshape([grid.rows * p, grid.cols * p, c]);
            let (height, width) = grid.cut;
            shrunk(canvas.narrow(0, grid.top, height).narrow(1, grid.left, width), [grid.height, grid.width])
        });
        settle(map.as_ref().map_or(&thumbnail.clone().unsqueeze::<3>(), |map| map)).await?;
        Ok(Features { thumbnail, map, grid })
    }

    /// Features -> visual tokens: with the vision-guided sampler, or every token as in the family's own sequence.
    ///
    /// Each block of the map has its own regions and its own place in the prompt.
    pub(crate) async fn compress(&self, features: &Features, chooser: Chooser) -> Result<Visual, Error> {
        let grid = features.grid;
        let newline = self.network.newline.as_ref().map(|newline| newline.val());
        let row_end = newline.clone().filter(|_| grid.newline == Newline::Rows);
        let selector = self.network.selector.as_ref();
        let (selector, random) = match chooser {
            Chooser::Off => (None, None),
            Chooser::Selector => (selector, None),
            Chooser::Random(seed) => (selector, Some(seed)),
        };
        let (mut parts, mut boxes, mut sampled) = (Vec::new(), Vec::new(), Vec::new());
        for (block, [y0, x0, y1, x1]) in grid.blocks().into_iter().enumerate() {
            let (height, width) = (y1 - y0, x1 - x0);
            let map = features.map.as_ref().map(|map| map.clone().narrow(0, y0, height).narrow(1, x0, width));
            parts.push(match (selector, map) {
                (Some(selector), Some(map)) => {
                    let (thumbnail, focus) = (&features.thumbnail, &self.config.focus);
                    // One seed per block, or all tiles would have the same random scales.
                    let random = random.map(|seed| seed.wrapping_add(block as u64));
                    let s = vision_guided(&map, thumbnail, row_end.clone(), selector, focus, random).await?;
                    sampled.push((s.logits, s.choice, s.boxes, [y0, x0]));
                    s.tokens
                }
                (Some(_), None) => None,
                (None, map) => {
                    let moved = |[top, left, bottom, right]: TokenBox| [top + y0, left + x0, bottom + y0, right + x0];
                    boxes.extend(every_box(height, width, row_end.is_some()).into_iter().map(moved));
                    every_token(map.as_ref(), height, row_end.clone())
                }
            });
        }
        let mut places: Vec<usize> =
            parts.iter().map(|part| part.as_ref().map_or(0, |tokens| tokens.dims()[0])).collect();
        let mut parts: Vec<Tensor<2>> = parts.into_iter().flatten().collect();
        if let Some(newline) = newline.filter(|_| grid.newline == Newline::End)
            && let Some(last) = places.last_mut()
        {
            *last += 1;
            parts.push(newline.unsqueeze());
        }
        // If only the thumbnail remains it is kept, even if the config drops it, or if it is the map's own.
        let alone = parts.is_empty();
        let sent = alone || self.config.focus.thumbnail && grid.thumbnail != Thumbnail::Own;
        let thumbnail = if sent { features.thumbnail.dims()[0] } else { 0 };
        match grid.thumbnail {
            Thumbnail::Last => places.push(thumbnail),
            Thumbnail::First | Thumbnail::Own => places.iter_mut().take(1).for_each(|first| *first += thumbnail),
        }
        if sent {
            let at = if grid.thumbnail == Thumbnail::Last { parts.len() } else { 0 };
            parts.insert(at, features.thumbnail.clone());
        }
        let tokens = Tensor::cat(parts, 0);
        let sampled = self.read_choices(&tokens, sampled).await?;
        let ends =
            (grid.newline == Newline::End).then_some([grid.height.max(1) - 1, grid.width, grid.height, grid.width]);
        let boxes = sampled.boxes.unwrap_or(boxes).into_iter().chain(ends).collect();
        let (scale_logits, choice) = (sampled.logits, Arc::new(sampled.choice));
        Ok(Visual { tokens, places, thumbnail, scale_logits, choice, boxes: Arc::new(boxes) })
    }

    /// Reads what the sampler chose in each block, in one round trip; without blocks it waits for `tokens`.
    ///
    /// The choices are for display only; no computation depends on them.
    async fn read_choices(&self, tokens: &Tensor<2>, blocks: Vec<Block>) -> Result<Choices, Error> {
        if blocks.is_empty() {
            settle(tokens).await?;
            return Ok(Choices { logits: Vec::new(), choice: Vec::new(), boxes: None });
        }
        let mut reads = Transaction::default();
        for (logits, choice, boxes, _) in &blocks {
            reads = reads.register(logits.clone()).register(choice.clone());
            reads = boxes.iter().cloned().fold(reads, Transaction::register);
        }
        let mut read = read_all(reads).await?.into_iter();
        let (mut logits, mut choice, mut boxes) = (Vec::new(), Vec::new(), Vec::new());
        for (_, _, has_boxes, [y0, x0]) in &blocks {
            logits.extend(read.next().map_or_else(Vec::new, into_f32));
            choice.extend(read.next().map_or_else(Vec::new, into_indices));
            let own = if has_boxes.is_some() { read.next().map_or_else(Vec::new, into_indices) } else { Vec::new() };
            let (own, _) = own.as_chunks::<4>();
            boxes.extend(own.iter().map(|[top, left, bottom, right]| [top + y0, left + x0, bottom + y0, right + x0]));
        }
        Ok(Choices { logits, choice, boxes: Some(boxes) })
    }

    /// Text and visual tokens up to the end of the last picture, as embeddings: a prefix that has passed no layer.
    ///
    /// `lead` are the ids up to the last place of a picture, `at` the indices of all places, and `visuals` the pictures.
    ///
    /// # Errors
    /// A shape error, which the config excludes.
    pub(crate) fn prefix(&self, lead: &[u32], at: &[usize], visuals: &[Visual]) -> Result<Prefix, Error> {
        let mut counts = visuals.iter().flat_map(|visual| visual.places.iter().copied());
        let (mut parts, mut visual) = (Vec::new(), Vec::new());
        let (mut from, mut row) = (0, 0);
        let (device, config) = (&self.device.device, &self.config.text);
        let tokens = Tensor::cat(visuals.iter().map(|visual| visual.tokens.clone()).collect(), 0);
        let tokens = match config.multipliers {
            Some(m) => tokens * m.embedding,
            None => tokens,
        };
        let mut taken = 0;
        for &place in at {
            if place > from {
                parts.push(self.decoder().embed(&lead[from..place], device, config)?);
                row += place - from;
            }
            let count = counts.next().unwrap_or(0);
            if count > 0 {
                parts.push(tokens.clone().narrow(0, taken, count));
                visual.extend(row..row + count);
            }
            (from, row, taken) = (place + 1, row + count, taken + count);
        }
        let hidden = Tensor::cat(parts, 0);
        let positions: Vec<usize> = (0..row).collect();
        let rotation = self.rope.at(&positions, device);
        Ok(Prefix { depth: 0, rotation, hidden, visual, cache: KvCache::default() })
    }

    /// Runs `prefix` through the layers up to `depth`.
    ///
    /// The prefix is consistent after every layer, so the next run resumes after a dropped one.
    pub(crate) async fn image_prefill(&self, prefix: &mut Prefix, depth: usize, pace: &Pace) -> Result<(), Error> {
        let from = prefix.depth;
        while prefix.depth < depth {
            let layer = &self.decoder().layers[prefix.depth];
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
        let mut hidden = self.decoder().embed(after, &self.device.device, &self.config.text)?;
        let mut cache = KvCache::default();
        let layers = prefix.cache.layers.len();
        for (i, (layer, held)) in self.decoder().layers.iter().zip(&prefix.cache.layers).enumerate() {
            let at = At { stage: Stage::TextSampler, layer: i, layers };
            let (out, grown) = self.through(layer, hidden, &rotation, Some(held.clone()), at, pace).await?;
            cache.layers.push(grown);
            hidden = out;
        }
        Ok(Question { hidden, rotation, cache })
    }

    /// Importance of the visual tokens for the question, and the tokens to keep.
    pub(crate) async fn rank_visual(&self, prefix: &Prefix, question: &Question, keep: Keep) -> Result<Kept, Error> {
        let layer = &self.decoder().layers[prefix.depth];
        let (visual, positions) = self.rows(prefix, &prefix.visual)?;
        let (rope, config) = (self.config.focus.score_rope, &self.config.text);
        let query = layer.score_query(question.hidden.clone(), rope.then_some(&question.rotation), config)?;
        let key = layer.score_key(visual, rope.then_some(&positions), config)?;
        text_guided(query, key, keep).await
    }

    /// Some rows of the prefix, with their positions. `at` rises.
    fn rows(&self, prefix: &Prefix, at: &[usize]) -> Result<(Tensor<2>, Rotation), Error> {
        let count = prefix.hidden.dims()[0];
        let first = at.first().copied().unwrap_or(0);
        if at.last().is_some_and(|last| last - first + 1 == at.len()) {
            return Ok((prefix.hidden.clone().narrow(0, first, at.len()), prefix.rotation.narrow(first, at.len())));
        }
        let at = indices(at, count, &self.device.device)?;
        let rows = row_gather(prefix.hidden.clone().unsqueeze::<3>(), at.clone())?;
        Ok((rows.squeeze_dim(0), prefix.rotation.pick(&at)?))
    }

    /// Runs kept tokens and question through the layers after `depth`: the caches of all layers, and logits (1, vocab).
    ///
    /// `kept` are the indices of the kept visual tokens, rising; None: all. They keep their order and their original positions.
    pub(crate) async fn prefill(
        &self,
        prefix: &Prefix,
        kept: Option<&[usize]>,
        question: Question,
        pace: &Pace,
    ) -> Result<(KvCache, Tensor<2>), Error> {
        let Question { mut hidden, rotation, mut cache } = question;
        if prefix.depth < self.decoder().layers.len() {
            let (picture, positions) = match kept {
                None => (prefix.hidden.clone(), prefix.rotation.clone()),
                Some(kept) => {
                    // Text is not pruned.
                    let mut stays = vec![true; prefix.hidden.dims()[0]];
                    prefix.visual.iter().for_each(|&row| stays[row] = false);
                    kept.iter().filter_map(|&index| prefix.visual.get(index)).for_each(|&row| stays[row] = true);
                    let at: Vec<usize> = (0..stays.len()).filter(|&row| stays[row]).collect();
                    self.rows(prefix, &at)?
                }
            };
            hidden = Tensor::cat(vec![picture, hidden], 0);
            let rotation = positions.then(&rotation);
            let upper = &self.decoder().layers[prefix.depth..];
            for (i, layer) in upper.iter().enumerate() {
                let at = At { stage: Stage::Prefill, layer: i, layers: upper.len() };
                let (out, grown) = self.through(layer, hidden, &rotation, None, at, pace).await?;
                cache.layers.push(grown);
                hidden = out;
            }
        }
        Ok((cache, self.decoder().logits(hidden)?))
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
        let (config, device) = (&self.config.text, &self.device.device);
        let work = config.layer_work();
        let most = self.steps.rows(work, config.widest());
        let mut cache = match cache {
            Some(mut cache) => {
                cache.reserve(rows);
                cache
            }
            None => LayerCache::empty(&config.cache_shape(rows), self.cache, device),
        };
        let mut parts = Vec::new();
        for first in (0..rows).step_by(most) {
            pace.step(at.progress(first, rows)).await?;
            let count = most.min(rows - first);
            let part = if count == rows { hidden.clone() } else { hidden.clone().narrow(0, first, count) };
            let rotation = rotation.narrow(first, count);
            let cursor = Cursor::new(cache.len(), device);
            let (out, grown) = layer.forward(part, (&rotation, &cursor), cache, config, (self.steps, pace)).await?;
            parts.push(out);
            cache = grown;
        }
        let out = if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(parts, 0) };
        if self.steps.waits(rows as u64 * work) {
            settle(&out).await?;
        }
        Ok((out, cache))
    }
}

/// What the vision-guided sampler made of one block of the map, on the device, and the block's first row and column.
type Block = (Tensor<2>, Tensor<1, Int>, Option<Tensor<2, Int>>, [usize; 2]);

/// What the vision-guided sampler chose in all blocks, on the host.
struct Choices {
    logits: Vec<f32>,
    choice: Vec<usize>,
    /// None without the sampler.
    boxes: Option<Vec<TokenBox>>,
}

/// A map of another size: bilinear, not antialiased, pixel centres at half (`torch.nn.functional.interpolate`). LLaVA-OneVision
/// shrinks large maps so: `image_newline` and samplers come after it. Source: `pack_image_features` in Hugging Face's
/// `models/llava_onevision/modeling_llava_onevision.py`.
///
/// Row y of the result is at `max((y + 0.5) H / H' - 0.5, 0)` of the source, between two rows; columns are similar.
///
/// # Shapes
/// (H, W, C) -> (H', W', C).
fn shrunk(map: Tensor<3>, to: [usize; 2]) -> Tensor<3> {
    let [height, width, _] = map.dims();
    if [height, width] == to {
        return map;
    }
    let axis = |map: Tensor<3>, dim: usize, from: usize, to: usize| {
        let at = |i: usize| ((i as f64 + 0.5) * from as f64 / to as f64 - 0.5).max(0.0);
        let low: Vec<usize> = (0..to).map(|i| (at(i) as usize).min(from - 1)).collect();
        let share: Vec<f32> = (0..to).map(|i| (at(i) - low[i] as f64) as f32).collect();
        let pick = |rows: Vec<usize>| {
            let rows: Vec<i32> = rows.into_iter().map(|row| row as i32).collect();
            map.clone().select(dim, Tensor::from_data(rows.as_slice(), &map.device()))
        };
        let (above, below) = (pick(low.clone()), pick(low.iter().map(|row| (row + 1).min(from - 1)).collect()));
        let mut shape = [1; 3];
        shape[dim] = to;
        let share = Tensor::<1>::from_data(share.as_slice(), &map.device()).reshape(shape);
        above.clone() + (below - above) * share
    };
    let [rows, cols] = to;
    axis(axis(map, 0, height, rows), 1, width, cols)
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
        let tokens = config.vision.places();
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
