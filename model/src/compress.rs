//! What enters the text model. Input: features of a picture, and a compression. Output: its visual tokens.
//!
//! Scores are computed on the device. Which patches stay is decided on the host ([`crate::compression`]), from a few numbers per
//! patch. Then one gather copies the rows that stay.

use std::{collections::BTreeSet, sync::Arc};

use burn::tensor::{Int, Tensor, TensorData, Transaction};
use fovea_runtime::{
    Error as RuntimeError, TokenBox, memory,
    network_ops::{After, Weight, linear},
    read::{into_f32, into_indices, read_all, read_f32, settle},
    sampler_ops::{indices, row_gather},
};

use crate::{
    compression::{
        Before, Group, Meteor, Method, Newlines, Patches, Relevance, Scope, Slot, Stock, ThumbnailTokens, VisionZip,
    },
    config::VisionConfig,
    error::Error,
    focus::{Features, Visual, laid_out},
    grid::{Newline, Thumbnail},
    looked::Origin,
    meteor::{MeteorFusion, native},
    model::Model,
    pace::Pace,
    taps::Wanted,
    vision_sampler::{every_box, every_token, vision_guided},
};

impl Before {
    /// What it reads of the vision tower besides the features.
    pub(crate) fn wanted(&self, config: &VisionConfig) -> Wanted {
        let late = config.n_used.saturating_sub(1);
        let attention = |layers: &[usize]| Wanted { attention: layers.to_vec(), ..Wanted::default() };
        match self {
            Self::Every | Self::Vision { .. } => Wanted::default(),
            Self::Meteor(_) => Wanted { attention: vec![late], keys: false, hidden: true },
            Self::Patches(patches) => match &patches.method {
                Method::FasterVlm(_) => attention(&[late]),
                Method::VisionZip(_) => Wanted { attention: vec![late], keys: true, hidden: true },
                Method::Hired(hired) => attention(&[hired.budget_layer, late]),
                Method::CdPruner(own) if own.relevance == Relevance::Class => attention(&[late]),
                _ => Wanted::default(),
            },
        }
    }
}

/// A visual token before the sequence is made.
struct Piece {
    /// Where it is in the sequence: the stock index of its patch; -1 before the first, at least the number of slots after the last.
    place: i64,
    origin: Origin,
    /// Its row in the matrix of all rows.
    row: usize,
}

impl Model {
    /// Whether the visual tokens depend on the question.
    pub(crate) fn reads_question(&self, before: &Before) -> bool {
        let fusion = self.network.meteor.as_ref();
        matches!(before, Before::Meteor(_)) && fusion.is_some_and(MeteorFusion::reads_question)
    }

    /// Features -> visual tokens. `words`: embeddings of the question, for a compression that reads it.
    ///
    /// # Errors
    /// Those of the custom operations; [`Error::Internal`] if the features lack what the compression reads.
    pub(crate) async fn compress(
        &self,
        features: &Features,
        before: &Before,
        words: Option<Tensor<2>>,
        pace: &Pace,
    ) -> Result<Visual, Error> {
        match before {
            Before::Every => self.sample(features, None).await,
            Before::Vision { random } => self.sample(features, Some(*random)).await,
            Before::Patches(patches) => self.select(features, patches, pace).await,
            Before::Meteor(meteor) => self.fuse(features, meteor, words, pace).await,
        }
    }

    /// With the vision-guided sampler, or every token as in the family's own sequence (`sampler` is None). The sampler's seed makes its
    /// scales random.
    ///
    /// Each block of the map has its own regions and its own place in the prompt.
    async fn sample(&self, features: &Features, sampler: Option<Option<u64>>) -> Result<Visual, Error> {
        let grid = features.grid;
        let newline = self.network.newline.as_ref().map(|newline| newline.val());
        let row_end = newline.clone().filter(|_| grid.newline == Newline::Rows);
        let selector = self.network.selector.as_ref().zip(sampler);
        let (mut parts, mut boxes, mut sampled) = (Vec::new(), Vec::new(), Vec::new());
        for (block, [y0, x0, y1, x1]) in grid.blocks().into_iter().enumerate() {
            let (height, width) = (y1 - y0, x1 - x0);
            let map = features.map.as_ref().map(|map| map.clone().narrow(0, y0, height).narrow(1, x0, width));
            parts.push(match (selector, map) {
                (Some((selector, random)), Some(map)) => {
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
        let sampled = read_choices(&tokens, sampled).await?;
        let ends =
            (grid.newline == Newline::End).then_some([grid.height.max(1) - 1, grid.width, grid.height, grid.width]);
        let mut origins: Vec<Origin> = sampled.boxes.unwrap_or(boxes).into_iter().chain(ends).map(Origin::of).collect();
        let at = if grid.thumbnail == Thumbnail::Last { origins.len() } else { 0 };
        origins.splice(at..at, (0..thumbnail).map(|patch| Origin::Thumbnail(vec![patch])));
        let (scale_logits, choice) = (sampled.logits, Arc::new(sampled.choice));
        Ok(Visual { tokens, places, scale_logits, choice, origins: Arc::new(origins) })
    }

    /// With a training-free method: some patches stay, some may be merged.
    async fn select(&self, features: &Features, patches: &Patches, pace: &Pace) -> Result<Visual, Error> {
        let stock = Stock::of(&features.grid);
        let late = self.config.vision.n_used.saturating_sub(1);
        let thumbnail = patches.thumbnail;
        let mut extra = None;
        let mut pieces = match &patches.method {
            Method::FasterVlm(method) => {
                let attention = class_attention(features, &stock, late).await?;
                kept(&stock, &method.choose(&stock, &attention, thumbnail))
            }
            Method::Hired(method) => {
                let early = tap(features, method.budget_layer)?;
                let early = read_f32(early.narrow(0, features.grid.whole_tile(), 1)).await?;
                let attention = class_attention(features, &stock, late).await?;
                kept(&stock, &method.choose(&stock, &early, &attention))
            }
            Method::Heuristic(method) => {
                kept(&stock, &method.choose(&stock, &likeness(features, &stock).await?, thumbnail))
            }
            Method::Random(method) => kept(&stock, &method.choose(&stock, thumbnail)),
            Method::Stride(method) => kept(&stock, &method.choose(&stock, thumbnail)),
            Method::DivPrune(method) => {
                let groups = groups(features, &stock, method.scope, thumbnail, pace).await?;
                kept(&stock, &method.choose(&groups))
            }
            Method::CdPruner(method) => {
                let relevance = match method.relevance {
                    Relevance::None => None,
                    Relevance::Class => Some(class_attention(features, &stock, late).await?),
                };
                let groups = groups(features, &stock, method.scope, thumbnail, pace).await?;
                kept(&stock, &method.choose(&groups, relevance.as_deref()))
            }
            Method::VisionZip(method) => {
                let attention = class_attention(features, &stock, late).await?;
                let (pieces, rows) = self.zip(features, &stock, method, &attention, thumbnail).await?;
                if let Some(rows) = rows {
                    extra = Some(self.project(rows, pace).await?);
                }
                pieces
            }
        };
        if thumbnail == ThumbnailTokens::Keep {
            pieces.extend(whole_thumbnail(&stock));
        }
        self.assemble(
            features,
            &stock,
            pieces,
            patches.newlines,
            rows_of(&features.thumbnail, features.map.as_ref()),
            extra,
        )
        .await
    }

    /// LLaVA-Meteor in our interpretation: fuses first, with the question's `words`, and then selects.
    async fn fuse(
        &self,
        features: &Features,
        meteor: &Meteor,
        words: Option<Tensor<2>>,
        pace: &Pace,
    ) -> Result<Visual, Error> {
        let missing = Error::Internal("LLaVA-Meteor without what it reads of the vision tower");
        let (Some(fusion), Some(hidden)) = (&self.network.meteor, features.taps.hidden.clone()) else {
            return Err(missing);
        };
        let grid = features.grid;
        let words = words.filter(|_| fusion.reads_question());
        let network = (&self.network.projector, &self.config);
        let fused = fusion.fuse(hidden, words.clone(), &grid, network, (self.steps, pace)).await?;
        let (thumbnail, map) = laid_out(fused, &grid);
        let rows = rows_of(&thumbnail, map.as_ref());
        let stock = Stock::of(&grid);
        let late = self.config.vision.n_used.saturating_sub(1);
        let visual = class_attention(features, &stock, late).await?;
        let native = match words {
            Some(words) => {
                let scores = read_f32(native(rows.clone(), words, meteor.native_pool)?).await?;
                let of = |slot: &Slot| row_at(&stock, *slot).and_then(|row| scores.get(row).copied());
                Some(stock.slots.iter().map(|slot| of(slot).unwrap_or(0.0)).collect::<Vec<f32>>())
            }
            None => None,
        };
        let mut pieces = kept(&stock, &meteor.choose(&stock, &visual, native.as_deref()));
        if meteor.thumbnail == ThumbnailTokens::Keep {
            pieces.extend(whole_thumbnail(&stock));
        }
        self.assemble(features, &stock, pieces, meteor.newlines, rows, None).await
    }

    /// Rows before the projector -> the same after it: (n, D) -> (n, C).
    async fn project(&self, rows: Tensor<2>, pace: &Pace) -> Result<Tensor<2>, Error> {
        let [n, _] = rows.dims();
        let projected = self.network.projector.forward(rows.unsqueeze(), &self.config, self.steps, pace).await?;
        Ok(projected.reshape([n, self.config.text.d_model]))
    }

    /// The tokens of VisionZip, and the rows of class and merged tokens before the projector. In a piece, `row` of such a token is its
    /// row among them, after all others.
    async fn zip(
        &self,
        features: &Features,
        stock: &Stock,
        method: &VisionZip,
        attention: &[f32],
        thumbnail: ThumbnailTokens,
    ) -> Result<(Vec<Piece>, Option<Tensor<2>>), Error> {
        let missing = Error::Internal("VisionZip without what it reads of the vision tower");
        let (Some(keys), Some(hidden), Some(class)) =
            (features.taps.keys.clone(), features.taps.hidden.clone(), features.taps.class_hidden.clone())
        else {
            return Err(missing);
        };
        let (d_key, d) = (keys.dims()[2], hidden.dims()[2]);
        let reads = Transaction::default().register(keys).register(hidden).register(class);
        let mut read = read_all(reads).await?.into_iter().map(into_f32);
        let mut next = || read.next().unwrap_or_default();
        let (keys, hidden, class) = (next(), next(), next());
        let (keys, hidden) = (by_slot(features, stock, &keys, d_key), by_slot(features, stock, &hidden, d));
        let zipped = method.choose(stock, attention, &keys, thumbnail);
        let mut pieces = kept(stock, &zipped.dominant);
        let first = extra_rows(features);
        let mut rows = Vec::new();
        for tile in zipped.class_tiles {
            let own = features.grid.tile_of(tile);
            rows.extend_from_slice(&class[own * d..(own + 1) * d]);
            let place = if tile == 0 { -1 } else { (stock.slots.len() + tile - 1) as i64 };
            pieces.push(Piece { place, origin: Origin::Class(tile), row: first + rows.len() / d - 1 });
        }
        for merged in &zipped.merged {
            rows.extend(method.merge(&hidden, d, merged));
            let mut all = merged.joined.clone();
            all.push(merged.target);
            all.sort_unstable();
            let origin = origin_of(stock, &all);
            pieces.push(Piece { place: merged.target as i64, origin, row: first + rows.len() / d - 1 });
        }
        let count = rows.len() / d;
        let rows = (count > 0).then(|| {
            let data = TensorData::new(rows, [count, d]);
            Tensor::from_data(data, &features.thumbnail.device())
        });
        Ok((pieces, rows))
    }

    /// The sequence: pieces in rising place, with newlines after rows of the map.
    ///
    /// `rows` are those of all patches ([`rows_of`]), `extra` what was merged. [`Newlines::Rows`]: after every row with a token. All
    /// patches of a map that is not empty kept is the family's own sequence, bit for bit.
    async fn assemble(
        &self,
        features: &Features,
        stock: &Stock,
        mut pieces: Vec<Piece>,
        newlines: Newlines,
        rows: Tensor<2>,
        extra: Option<Tensor<2>>,
    ) -> Result<Visual, Error> {
        let grid = features.grid;
        if pieces.is_empty() {
            // Nothing but the thumbnail is there, and it was to be dropped: it stays.
            pieces = whole_thumbnail(stock);
        }
        let newline = self.network.newline.as_ref().map(|newline| newline.val());
        let mut all = vec![rows];
        if let Some(newline) = newline {
            let at = extra_rows(features) - 1;
            all.push(newline.unsqueeze());
            let held: BTreeSet<(usize, usize)> = pieces
                .iter()
                .filter_map(|piece| {
                    let slot = usize::try_from(piece.place).ok().filter(|&place| place < stock.slots.len())?;
                    match stock.slots[slot] {
                        Slot::Map { y, .. } => Some((place_of(stock, slot), y)),
                        _ => None,
                    }
                })
                .collect();
            let ends = stock.slots.iter().enumerate().filter_map(|(slot, kind)| match (kind, newlines) {
                (Slot::Newline { .. }, Newlines::None) => None,
                (Slot::Newline { y }, Newlines::All) => Some((slot, *y)),
                (Slot::Newline { y }, Newlines::Rows) => {
                    let stays = match grid.newline {
                        Newline::Rows => held.contains(&(place_of(stock, slot), *y)),
                        _ => !held.is_empty(),
                    };
                    stays.then_some((slot, *y))
                }
                _ => None,
            });
            let ends: Vec<Piece> = ends
                .map(|(slot, y)| {
                    let origin = Origin::Newline([y, grid.width, y + 1, grid.width]);
                    Piece { place: slot as i64, origin, row: at }
                })
                .collect();
            pieces.extend(ends);
        } else if extra.is_some() {
            // Keeps the numbers of rows independent of the family.
            all.push(Tensor::zeros([1, self.config.text.d_model], &features.thumbnail.device()));
        }
        all.extend(extra);
        pieces.sort_by_key(|piece| piece.place);
        let mut places = vec![0; stock.places.len()];
        for piece in &pieces {
            let slot = usize::try_from(piece.place).unwrap_or(0);
            places[place_of(stock, slot)] += 1;
        }
        let rows = Tensor::cat(all, 0);
        let count = rows.dims()[0];
        let at: Vec<usize> = pieces.iter().map(|piece| piece.row).collect();
        let at = indices(&at, count, &rows.device())?;
        let tokens: Tensor<2> = row_gather(rows.unsqueeze::<3>(), at)?.squeeze_dim(0);
        settle(&tokens).await?;
        let origins = Arc::new(pieces.into_iter().map(|piece| piece.origin).collect());
        Ok(Visual { tokens, places, scale_logits: Vec::new(), choice: Arc::default(), origins })
    }
}

/// All patches of a picture: those of the thumbnail, then those of the map, (P*P + Hx*Wx, C).
fn rows_of(thumbnail: &Tensor<2>, map: Option<&Tensor<3>>) -> Tensor<2> {
    let parts = map.map(|map| {
        let [height, width, c] = map.dims();
        map.clone().reshape([height * width, c])
    });
    Tensor::cat(std::iter::once(thumbnail.clone()).chain(parts).collect(), 0)
}

/// The row of a slot in [`rows_of`]; None for a newline.
fn row_at(stock: &Stock, slot: Slot) -> Option<usize> {
    match slot {
        Slot::Thumbnail { patch } => Some(patch),
        Slot::Map { y, x } => Some(stock.patches * stock.patches + y * stock.width + x),
        Slot::Newline { .. } => None,
    }
}

/// The first row after [`rows_of`] and the newline.
fn extra_rows(features: &Features) -> usize {
    let map = features.map.as_ref().map_or(0, |map| map.dims()[0] * map.dims()[1]);
    features.thumbnail.dims()[0] + map + 1
}

/// The place in the prompt that a slot belongs to; the last one for what comes after all slots.
fn place_of(stock: &Stock, slot: usize) -> usize {
    let mut end = 0;
    let found = stock.places.iter().position(|count| {
        end += count;
        slot < end
    });
    found.unwrap_or(stock.places.len().max(1) - 1)
}

/// Unchanged tokens of some patches, by stock index.
fn kept(stock: &Stock, slots: &[usize]) -> Vec<Piece> {
    let piece = |&slot: &usize| {
        let row = row_at(stock, stock.slots[slot])?;
        Some(Piece { place: slot as i64, origin: origin_of(stock, &[slot]), row })
    };
    slots.iter().filter_map(piece).collect()
}

fn whole_thumbnail(stock: &Stock) -> Vec<Piece> {
    let own = |slot: &usize| matches!(stock.slots[*slot], Slot::Thumbnail { .. });
    kept(stock, &(0..stock.slots.len()).filter(own).collect::<Vec<_>>())
}

/// The origin of a token that some patches became: all of the thumbnail, or all of the map.
fn origin_of(stock: &Stock, slots: &[usize]) -> Origin {
    let (mut thumbnail, mut map) = (Vec::new(), Vec::new());
    for &slot in slots {
        match stock.slots[slot] {
            Slot::Thumbnail { patch } => thumbnail.push(patch),
            Slot::Map { y, x } => map.push([y, x, y + 1, x + 1]),
            Slot::Newline { .. } => {}
        }
    }
    if map.is_empty() { Origin::Thumbnail(thumbnail) } else { Origin::Map(map) }
}

/// Values of every patch in every tile of the vision tower, `width` per patch -> values per slot, 0 for newlines.
fn by_slot(features: &Features, stock: &Stock, values: &[f32], width: usize) -> Vec<f32> {
    let grid = features.grid;
    let p = stock.patches;
    let mut out = vec![0.0; stock.slots.len() * width];
    for (slot, own) in stock.slots.iter().zip(out.chunks_exact_mut(width.max(1))) {
        let (tile, patch) = match *slot {
            Slot::Thumbnail { patch } => (grid.whole_tile(), patch),
            Slot::Map { y, x } => {
                let (y, x) = (y + grid.top, x + grid.left);
                (grid.tile_of(1 + y / p * grid.cols + x / p), y % p * p + x % p)
            }
            Slot::Newline { .. } => continue,
        };
        let at = (tile * p * p + patch) * width;
        own.copy_from_slice(&values[at..at + width]);
    }
    out
}

fn tap(features: &Features, layer: usize) -> Result<Tensor<2>, Error> {
    features.taps.attention_of(layer).cloned().ok_or(Error::Internal("no attention of the class token was read"))
}

/// The attention of the class token in layer `layer`, per slot.
pub(crate) async fn class_attention(features: &Features, stock: &Stock, layer: usize) -> Result<Vec<f32>, Error> {
    let read = read_f32(tap(features, layer)?).await?;
    Ok(by_slot(features, stock, &read, 1))
}

/// `mean_n X_g[n] . x / sqrt(C)` of every patch, per slot (FocusLLaVA, Suppl. 6).
async fn likeness(features: &Features, stock: &Stock) -> Result<Vec<f32>, Error> {
    let mean = features.thumbnail.clone().mean_dim(0);
    let c = mean.dims()[1];
    let scores = linear(
        rows_of(&features.thumbnail, features.map.as_ref()),
        &[Weight::Float(mean)],
        None,
        None,
        After::Nothing,
    )?;
    let scores = read_f32(scores / (c as f64).sqrt()).await?;
    let of = |slot: &Slot| row_at(stock, *slot).and_then(|row| scores.get(row).copied()).unwrap_or(0.0);
    Ok(stock.slots.iter().map(of).collect())
}

/// Most values of cosines that are read at once.
const COSINES: usize = 8 << 20;

/// Groups of candidates, with the cosines of all pairs.
async fn groups(
    features: &Features,
    stock: &Stock,
    scope: Scope,
    thumbnail: ThumbnailTokens,
    pace: &Pace,
) -> Result<Vec<Group>, Error> {
    let members: Vec<Vec<usize>> = match scope {
        Scope::Image => vec![stock.candidates(thumbnail)],
        Scope::Tile => stock.per_tile(thumbnail).into_iter().map(|(_, members)| members).collect(),
    };
    let rows = rows_of(&features.thumbnail, features.map.as_ref());
    let mut groups = Vec::new();
    for members in members.into_iter().filter(|members| !members.is_empty()) {
        let at: Vec<usize> = members.iter().filter_map(|&slot| row_at(stock, stock.slots[slot])).collect();
        let at = indices(&at, rows.dims()[0], &rows.device())?;
        let own: Tensor<2> = row_gather(rows.clone().unsqueeze::<3>(), at)?.squeeze_dim(0);
        let length = own.clone().powf_scalar(2.0).sum_dim(1).sqrt().clamp_min(1e-12);
        let unit = own / length;
        let n = members.len();
        let need = 4 * (n as u64).pow(2);
        if let Some(have) = memory::host_available().filter(|&have| need > have) {
            let what = format!("the cosines of {n} patches");
            let hint = "use scope=tile, or another method".to_owned();
            return Err(RuntimeError::OutOfMemory { what, need, have, hint }.into());
        }
        // A second buffer: WebGPU does not bind one buffer twice if a kernel may write to it.
        let others = unit.clone().mul_scalar(1.0);
        let mut cosines = Vec::with_capacity(n * n);
        for part in unit.split((COSINES / n).max(1), 0) {
            pace.check().await?;
            let product = linear(part, &[Weight::Float(others.clone())], None, None, After::Nothing)?;
            cosines.extend(read_f32(product).await?);
        }
        // Symmetric to the bit: the first pick often ties exactly, and equal values are decided by the index.
        for i in 0..n {
            cosines[i * n + i] = 1.0;
            for j in 0..i {
                let mean = f32::midpoint(cosines[i * n + j], cosines[j * n + i]);
                (cosines[i * n + j], cosines[j * n + i]) = (mean, mean);
            }
        }
        groups.push(Group { members, cosines });
    }
    Ok(groups)
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

/// Reads what the sampler chose in each block, in one round trip; without blocks it waits for `tokens`.
///
/// The choices are for display only; no computation depends on them.
async fn read_choices(tokens: &Tensor<2>, blocks: Vec<Block>) -> Result<Choices, Error> {
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
