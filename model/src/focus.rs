//! The data flow. Input: tiles and a prompt. Output: the logits of each token. Read this file first.
//!
//! ```text
//! picture -> tiles -> vision tower -> projector -> map and thumbnail            encode
//!         -> compression before the model: the visual tokens                    compress (compress.rs)
//!         -> text before and visual tokens through the lower layers             image_prefill
//! earlier questions and answers through the same layers                         history_prefill
//! question through the same layers                                              question_prefill
//!         -> importance of each visual token, which of them stay                rank, prune
//!         -> kept tokens and question through the upper layers                  run_to
//!         -> logits                                                             logits
//! ```
//!
//! Causal attention makes everything before the question independent of it. So the first three functions run once per
//! picture, the next one once per message, the others once per question. A question of a conversation scores all visual
//! tokens again, for itself alone (our choice: the papers have single questions). A compression may prune at several
//! layers: rank, prune and run_to are repeated.

use std::sync::Arc;

use burn::tensor::{DType, Tensor, TensorData, Transaction, activation::softmax};
use fovea_runtime::{
    kv_cache::{KvCache, LayerCache},
    network_ops::{After, Cursor, Weight, linear},
    read::{into_f32, into_indices, read_all, settle},
    sampler_ops::{indices, row_gather, text_score, top_k},
};

use crate::{
    compression::{Pruning, Score},
    decoder::DecoderLayer,
    error::Error,
    grid::Grid,
    looked::Origin,
    model::Model,
    network::Network,
    pace::{Pace, Progress},
    rope::Rotation,
    stage::Stage,
    taps::{Taps, Wanted},
    tiles::Tiles,
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
    /// What a compression reads of the vision tower besides the features, and what was requested.
    pub taps: Taps,
    pub wanted: Wanted,
}

/// The visual tokens of a picture, in the order in which the text model sees them.
#[derive(Clone, Debug)]
pub(crate) struct Visual {
    /// (N, C), f32.
    pub tokens: Tensor<2>,
    /// Number of tokens in each place that the picture has in the prompt.
    pub places: Vec<usize>,
    /// Z, (regions, scales), block by block; empty without the sampler.
    pub scale_logits: Vec<f32>,
    /// Index of every region's scale, block by block; empty without the sampler.
    pub choice: Arc<Vec<usize>>,
    /// What each token is made of.
    pub origins: Arc<Vec<Origin>>,
}

/// The text before the question and all visual tokens after the first `depth` layers.
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

impl Prefix {
    /// Number of its rows.
    pub(crate) fn rows(&self) -> usize {
        self.hidden.dims()[0]
    }

    /// Number of visual tokens.
    pub(crate) fn visual_tokens(&self) -> usize {
        self.visual.len()
    }

    /// Keeps the first `rows` rows only, with all visual tokens.
    pub(crate) fn truncate(&mut self, rows: usize) {
        self.hidden.inplace(|hidden| hidden.narrow(0, 0, rows));
        self.rotation = self.rotation.narrow(0, rows);
        self.cache.layers.iter_mut().for_each(|layer| layer.truncate(rows));
    }

    /// Bytes of its tensors.
    pub(crate) fn bytes(&self) -> u64 {
        self.cache.bytes() + bytes(&self.hidden)
    }
}

/// Bytes of a tensor.
pub(crate) fn bytes<const D: usize>(tensor: &Tensor<D>) -> u64 {
    (tensor.shape().num_elements() * tensor.dtype().size()) as u64
}

/// Text that has passed the layers of a prefix.
struct Passed {
    /// (ids, C).
    hidden: Tensor<2>,
    rotation: Rotation,
    /// The caches of the prefix with the text.
    cache: KvCache,
    /// The last row of the last layer's input.
    below: Option<Tensor<2>>,
}

/// Pictures and question on their way through the layers.
#[derive(Clone, Debug)]
pub(crate) struct Course {
    /// Number of layers that they have passed.
    pub depth: usize,
    /// The input of layer `depth`, (rows, C): text, the visual tokens that are left, and the question.
    hidden: Tensor<2>,
    /// Positions of the rows.
    rotation: Rotation,
    /// Rows of the visual tokens that are left, rising.
    visual: Vec<usize>,
    /// Their indices among all visual tokens.
    pub alive: Vec<usize>,
    /// The first row of the question.
    question: usize,
    /// The last row of the input of layer `depth - 1`.
    below: Option<Tensor<2>>,
    /// Position after the last token.
    next: usize,
    /// The caches of the passed layers.
    pub cache: KvCache,
    /// For every passed layer the position after its last token.
    pub nexts: Vec<usize>,
}

/// The importance of visual tokens, and which of them stay.
#[derive(Clone, Debug)]
pub(crate) struct Ranked {
    /// One value per visual token that was left.
    pub importance: Vec<f32>,
    /// Indices of those that stay, rising.
    pub kept: Vec<usize>,
}

impl Model {
    /// Tiles -> features, and what a compression reads besides them. `pixel_values` (tiles, 3, S, S), in the order of [`Tiles`].
    pub(crate) async fn encode(
        &self,
        tiles: Tiles,
        grid: Grid,
        wanted: &Wanted,
        pace: &Pace,
    ) -> Result<Features, Error> {
        let shape = [tiles.count, 3, tiles.side, tiles.side];
        let pixels = TensorData::new(tiles.pixel_values, shape);
        let pixels = Tensor::from_data(pixels, (&self.device.device, DType::F32));
        let Network { tower, projector, .. } = &self.network;
        let (features, taps) = tower.forward(pixels, &self.config.vision, wanted, self.steps, pace).await?;
        let features = projector.forward(features, &self.config, self.steps, pace).await?; // (tiles, P*P, C)
        let (thumbnail, map) = laid_out(features, &grid);
        settle(map.as_ref().map_or(&thumbnail.clone().unsqueeze::<3>(), |map| map)).await?;
        Ok(Features { thumbnail, map, grid, taps, wanted: wanted.clone() })
    }

    /// Text and visual tokens before the question, as embeddings: a prefix that has passed no layer.
    ///
    /// `lead` are the ids before the question, `at` the indices of all places among them, and `visuals` the pictures.
    ///
    /// # Errors
    /// A shape error, which the config excludes.
    pub(crate) fn prefix(&self, lead: &[u32], at: &[usize], visuals: &[Visual]) -> Result<Prefix, Error> {
        let mut counts = visuals.iter().flat_map(|visual| visual.places.iter().copied());
        let (mut parts, mut visual) = (Vec::new(), Vec::new());
        let (mut from, mut row) = (0, 0);
        let (device, config) = (&self.device.device, &self.config.text);
        let all = || {
            let tokens = Tensor::cat(visuals.iter().map(|visual| visual.tokens.clone()).collect(), 0);
            match config.multipliers {
                Some(m) => tokens * m.embedding,
                None => tokens,
            }
        };
        let tokens = (!visuals.is_empty()).then(all);
        let mut taken = 0;
        for &place in at {
            if place > from {
                parts.push(self.decoder().embed(&lead[from..place], device, config)?);
                row += place - from;
            }
            let count = counts.next().unwrap_or(0);
            if let Some(tokens) = tokens.as_ref().filter(|_| count > 0) {
                parts.push(tokens.clone().narrow(0, taken, count));
                visual.extend(row..row + count);
            }
            (from, row, taken) = (place + 1, row + count, taken + count);
        }
        if from < lead.len() {
            parts.push(self.decoder().embed(&lead[from..], device, config)?);
            row += lead.len() - from;
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

    /// A prefix with text after it, which has run through the same layers. A new one: a dropped run changes nothing.
    pub(crate) async fn history_prefill(&self, prefix: &Prefix, ids: &[u32], pace: &Pace) -> Result<Prefix, Error> {
        let (start, held) = (prefix.rows(), prefix.cache.layers.clone());
        let Passed { hidden, rotation, cache, .. } =
            self.text_after(start, held, ids, Stage::ImagePrefill, pace).await?;
        let hidden = Tensor::cat(vec![prefix.hidden.clone(), hidden], 0);
        settle(&hidden).await?;
        let (visual, rotation) = (prefix.visual.clone(), prefix.rotation.then(&rotation));
        Ok(Prefix { depth: prefix.depth, hidden, visual, rotation, cache })
    }

    /// Runs the question through the layers that the prefix has passed, and joins both.
    ///
    /// `after` are the ids after the prefix; the question begins at row `question`. The caches of a prefix that has another owner
    /// are copied, layer by layer.
    pub(crate) async fn question_prefill(
        &self,
        prefix: Prefix,
        after: &[u32],
        question: usize,
        pace: &Pace,
    ) -> Result<Course, Error> {
        let (start, held) = (prefix.rows(), prefix.cache.layers);
        let Passed { hidden, rotation, cache, below } = self.text_after(start, held, after, Stage::Prune, pace).await?;
        let next = start + after.len();
        // After the last layer only the question's rows are read.
        let layers = cache.layers.len();
        let joined = layers < self.config.text.n_layers;
        Ok(Course {
            depth: prefix.depth,
            hidden: if joined { Tensor::cat(vec![prefix.hidden, hidden], 0) } else { hidden },
            rotation: prefix.rotation.then(&rotation),
            question,
            alive: (0..prefix.visual.len()).collect(),
            visual: prefix.visual,
            below,
            next,
            cache,
            nexts: vec![next; layers],
        })
    }

    /// Runs text after the `start` rows of a prefix through the layers that it has passed; `held` are their caches.
    async fn text_after(
        &self,
        start: usize,
        held: Vec<LayerCache>,
        ids: &[u32],
        stage: Stage,
        pace: &Pace,
    ) -> Result<Passed, Error> {
        let positions: Vec<usize> = (start..start + ids.len()).collect();
        let rotation = self.rope.at(&positions, &self.device.device);
        let mut hidden = self.decoder().embed(ids, &self.device.device, &self.config.text)?;
        let (mut cache, mut below) = (KvCache::default(), None);
        let layers = held.len();
        for (i, (layer, held)) in self.decoder().layers.iter().zip(held).enumerate() {
            let at = At { stage, layer: i, layers };
            if i + 1 == layers {
                below = Some(hidden.clone().narrow(0, ids.len() - 1, 1));
            }
            let (out, grown) = self.through(layer, hidden, &rotation, Some(held), at, pace).await?;
            cache.layers.push(grown);
            hidden = out;
        }
        Ok(Passed { hidden, rotation, cache, below })
    }

    /// Importance of the visual tokens that are left, and which of them stay. `first` is the number of visual tokens of the pictures.
    ///
    /// # Errors
    /// Those of the custom operations.
    pub(crate) async fn rank(&self, course: &Course, pruning: &Pruning, first: usize) -> Result<Ranked, Error> {
        let config = &self.config.text;
        let layer = &self.decoder().layers[course.depth.min(config.n_layers - 1)];
        let rows = course.hidden.dims()[0];
        let last = (course.hidden.clone().narrow(0, rows - 1, 1), course.rotation.narrow(rows - 1, 1));
        let importance = match pruning.score {
            Score::Text => {
                let mut is_text = vec![true; rows];
                course.visual.iter().for_each(|&row| is_text[row] = false);
                let at: Vec<usize> = (course.question..rows).filter(|&row| is_text[row]).collect();
                let question = self.rows(course, &at)?;
                let (visual, positions) = self.rows(course, &course.visual)?;
                let rope = self.config.focus.score_rope;
                let query = layer.score_query(question.0, rope.then_some(&question.1), config)?;
                text_score(query, layer.score_key(visual, rope.then_some(&positions), config)?)?
            }
            Score::RowOwn => {
                let query = layer.score_query(last.0, Some(&last.1), config)?;
                let key = layer.score_key(course.hidden.clone(), Some(&course.rotation), config)?;
                self.of_visual(course, self.attention_row(query, key)?)?
            }
            Score::RowBelow => {
                let missing = Error::Internal("no layer is below the first one");
                let (Some(below), Some(cache)) = (&course.below, course.cache.layers.last()) else {
                    return Err(missing);
                };
                let layer = &self.decoder().layers[course.depth - 1];
                let query = layer.score_query(below.clone(), Some(&last.1), config)?;
                // The keys that this layer's attention has just used.
                let key = cache.whole().0.narrow(1, 0, cache.len()).cast(DType::F32);
                self.of_visual(course, self.attention_row(query, key)?)?
            }
        };
        let kept = top_k(importance.clone(), pruning.keep.keep(first)).await?;
        let mut read = read_all(Transaction::default().register(importance).register(kept)).await?.into_iter();
        let importance = read.next().map_or_else(Vec::new, into_f32);
        Ok(Ranked { importance, kept: read.next().map_or_else(Vec::new, into_indices) })
    }

    /// Attention of one token, mean over the query heads: `mean_h softmax_j(q_h . k_j,h)`, scaled as in the model's attention.
    ///
    /// # Shapes
    /// `query` (n_heads, 1, d_head), `key` (n_kv_heads, tokens, d_head) -> (tokens).
    fn attention_row(&self, query: Tensor<3>, key: Tensor<3>) -> Result<Tensor<1>, Error> {
        let [heads, _, d] = query.dims();
        let [groups, tokens, _] = key.dims();
        let query = query.reshape([heads, d]);
        let share = heads / groups;
        let mut scores = Vec::with_capacity(groups);
        for group in 0..groups {
            let key = key.clone().narrow(0, group, 1).reshape([tokens, d]);
            let query = query.clone().narrow(0, group * share, share);
            scores.push(linear(query, &[Weight::Float(key)], None, None, After::Nothing)?);
        }
        let scores = Tensor::cat(scores, 0) * self.config.text.attention_factor();
        Ok(softmax(scores, 1).mean_dim(0).reshape([tokens]))
    }

    /// The values of the visual tokens that are left, of one value per row.
    fn of_visual(&self, course: &Course, values: Tensor<1>) -> Result<Tensor<1>, Error> {
        let rows = values.dims()[0];
        let at = indices(&course.visual, rows, &self.device.device)?;
        let values: Tensor<3> = row_gather(values.reshape([1, rows, 1]), at)?;
        Ok(values.reshape([course.visual.len()]))
    }

    /// Some rows, with their positions. `at` rises.
    fn rows(&self, course: &Course, at: &[usize]) -> Result<(Tensor<2>, Rotation), Error> {
        let count = course.hidden.dims()[0];
        let first = at.first().copied().unwrap_or(0);
        if at.last().is_some_and(|last| last - first + 1 == at.len()) {
            return Ok((course.hidden.clone().narrow(0, first, at.len()), course.rotation.narrow(first, at.len())));
        }
        let at = indices(at, count, &self.device.device)?;
        let rows = row_gather(course.hidden.clone().unsqueeze::<3>(), at.clone())?;
        Ok((rows.squeeze_dim(0), course.rotation.pick(&at)?))
    }

    /// Drops all visual tokens but `kept`, indices among those that are left, rising. Tokens keep their order; they keep their positions
    /// too, or with `renumber` they get 0, 1, 2, ...
    pub(crate) fn prune(&self, course: &mut Course, kept: &[usize], renumber: bool) -> Result<(), Error> {
        // Text is not pruned.
        let mut stays = vec![true; course.hidden.dims()[0]];
        course.visual.iter().for_each(|&row| stays[row] = false);
        kept.iter().filter_map(|&index| course.visual.get(index)).for_each(|&row| stays[row] = true);
        let at: Vec<usize> = (0..stays.len()).filter(|&row| stays[row]).collect();
        let (hidden, rotation) = self.rows(course, &at)?;
        let left: Vec<usize> = kept.iter().filter_map(|&index| course.visual.get(index).copied()).collect();
        course.alive = kept.iter().filter_map(|&index| course.alive.get(index).copied()).collect();
        course.visual = left.iter().map(|row| at.partition_point(|other| other < row)).collect();
        course.question = at.partition_point(|&other| other < course.question);
        (course.hidden, course.rotation) = (hidden, rotation);
        if renumber {
            course.rotation = self.rope.at(&(0..at.len()).collect::<Vec<_>>(), &self.device.device);
            course.next = at.len();
        }
        Ok(())
    }

    /// Runs all rows through the layers up to `depth`.
    pub(crate) async fn run_to(&self, course: &mut Course, depth: usize, pace: &Pace) -> Result<(), Error> {
        let from = course.depth;
        for (i, layer) in self.decoder().layers.iter().enumerate().take(depth).skip(from) {
            let at = At { stage: Stage::Prefill, layer: i - from, layers: depth - from };
            let (hidden, grown) = self.through(layer, course.hidden.clone(), &course.rotation, None, at, pace).await?;
            course.cache.layers.push(grown);
            course.nexts.push(course.next);
            (course.hidden, course.depth) = (hidden, i + 1);
        }
        Ok(())
    }

    /// Logits of the first token of the answer, (1, vocab).
    pub(crate) fn logits(&self, course: &Course) -> Result<Tensor<2>, Error> {
        self.decoder().logits(course.hidden.clone())
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

/// Features of all tiles -> thumbnail, and the map without padding; None if nothing remains of it.
///
/// # Shapes
/// (tiles, P*P, C) -> (P*P, C), and (Hx, Wx, C).
pub(crate) fn laid_out(features: Tensor<3>, grid: &Grid) -> (Tensor<2>, Option<Tensor<3>>) {
    let (p, c) = (grid.patches, features.dims()[2]);
    let thumbnail = features.clone().narrow(0, grid.whole_tile(), 1).reshape([p * p, c]);
    let map = (grid.height > 0 && grid.width > 0).then(|| {
        let tiles = features.narrow(0, grid.tile_of(1), grid.rows * grid.cols);
        let canvas = tiles.reshape([grid.rows, grid.cols, p, p, c]).permute([0, 2, 1, 3, 4]);
        let canvas = canvas.reshape([grid.rows * p, grid.cols * p, c]);
        let (height, width) = grid.cut;
        shrunk(canvas.narrow(0, grid.top, height).narrow(1, grid.left, width), [grid.height, grid.width])
    });
    (thumbnail, map)
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
