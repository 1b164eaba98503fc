//! The whole way from a picture and a prompt to the first token's logits. Read this first.
//!
//! ```text
//! picture -> tiles -> vision tower -> projector -> map and thumbnail        [look]
//!         -> vision-guided sampler: one scale per region                    [sample]
//!         -> text before and visual tokens through the first layers         [image_prefill]
//! question through the same layers
//!         -> text-guided sampler: importance of each visual token           [prune]
//!         -> survivors and question through the other layers -> logits      [prefill]
//! ```
//!
//! Causal attention makes everything before the question independent of it: [`look`], [`sample`] and
//! [`image_prefill`] run once for a picture, [`prune`] and [`prefill`] for every question.

use std::sync::Arc;

use burn::tensor::{DType, Tensor, TensorData};
use fovea_runtime::{Keep, TokenBox, device::settle, kv_cache::KvCache, sampler_ops::row_gather};

use crate::{
    cancel::Cancel,
    error::Error,
    grid::Grid,
    model::Model,
    text_sampler::{Kept, text_guided},
    tiles::Tiles,
    vision_sampler::{every_box, every_token, vision_guided},
};

/// What the vision tower makes of a picture, independent of every setting.
#[derive(Clone, Debug)]
pub(crate) struct Features {
    /// (P*P, C), f32.
    pub thumbnail: Tensor<2>,
    /// (Hx, Wx, C), f32; None where cutting the padding left nothing.
    pub map: Option<Tensor<3>>,
    /// Where the map lies.
    pub grid: Grid,
}

/// The visual tokens, in the order in which the text model sees them.
#[derive(Clone, Debug)]
pub(crate) struct Visual {
    /// (N, C), f32: the thumbnail's, then the map's with newlines.
    pub tokens: Tensor<2>,
    /// How many of them are the thumbnail's.
    pub thumbnail: usize,
    /// Z, (regions, scales); empty without the sampler.
    pub scale_logits: Vec<f32>,
    /// Index of every region's scale; empty without the sampler.
    pub choice: Arc<Vec<usize>>,
    /// The patches of every token after the thumbnail's.
    pub boxes: Arc<Vec<TokenBox>>,
}

/// Text before the picture and all visual tokens, gone through the first `depth` layers.
#[derive(Clone, Debug)]
pub(crate) struct Prefix {
    /// Layers passed.
    pub depth: usize,
    /// (before + N, C): what enters layer `depth`.
    pub hidden: Tensor<2>,
    /// The caches of those layers.
    pub cache: KvCache,
}

impl Model {
    /// Tiles -> features. `pixel_values` (tiles, 3, S, S), thumbnail first.
    pub(crate) async fn look(&self, tiles: &Tiles, grid: Grid, cancel: &Cancel) -> Result<Features, Error> {
        let shape = [tiles.count, 3, tiles.side, tiles.side];
        let pixels = TensorData::new(tiles.pixel_values.clone(), shape);
        let pixels = Tensor::from_data(pixels, (&self.device.device, DType::F32));
        let features = self.tower.forward(pixels, &self.config.vision, cancel).await?;
        let features = self.projector.forward(features, &self.config); // (tiles, P*P, C)
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

    /// Features -> visual tokens: with the vision-guided sampler, or every token as LLaVA-NeXT has them.
    pub(crate) async fn sample(&self, features: &Features, vision: bool) -> Result<Visual, Error> {
        let (newline, grid) = (self.newline.clone(), features.grid);
        let (high, scale_logits, choice, boxes) = match (&self.selector, vision) {
            (Some(selector), true) => {
                let thumbnail = &features.thumbnail;
                let s = vision_guided(features.map.as_ref(), thumbnail, newline, selector, &self.config.focus).await?;
                (s.tokens, s.logits, s.choice, s.boxes)
            }
            _ => {
                let high = every_token(features.map.as_ref(), grid.height, newline);
                (high, Vec::new(), Vec::new(), every_box(grid.height, grid.width))
            }
        };
        // Nothing but the thumbnail may remain, and then it stays whatever the config says.
        let thumbnail = (self.config.focus.thumbnail || high.is_none()).then(|| features.thumbnail.clone());
        let thumbnail_tokens = thumbnail.as_ref().map_or(0, |t| t.dims()[0]);
        let tokens = Tensor::cat(thumbnail.into_iter().chain(high).collect(), 0);
        settle(&tokens).await?;
        let (choice, boxes) = (Arc::new(choice), Arc::new(boxes));
        Ok(Visual { tokens, thumbnail: thumbnail_tokens, scale_logits, choice, boxes })
    }

    /// Text before the picture and visual tokens as embeddings: a prefix that has passed no layer.
    pub(crate) fn prefix(&self, before: &[u32], visual: &Visual) -> Prefix {
        let parts = (!before.is_empty()).then(|| self.decoder.embed(before)).into_iter();
        let hidden = Tensor::cat(parts.chain([visual.tokens.clone()]).collect(), 0);
        Prefix { depth: 0, hidden, cache: KvCache::default() }
    }

    /// Takes `prefix` on to `depth` layers.
    ///
    /// The prefix is whole after every layer: a run that is dropped leaves one that the next goes on from.
    pub(crate) async fn image_prefill(&self, prefix: &mut Prefix, depth: usize, cancel: &Cancel) -> Result<(), Error> {
        let positions: Vec<usize> = (0..prefix.hidden.dims()[0]).collect();
        let rotation = self.rope.at(&positions, &self.device.device);
        while prefix.depth < depth {
            cancel.check().await?;
            let layer = &self.decoder.layers[prefix.depth];
            let (hidden, cache) =
                layer.forward(prefix.hidden.clone(), &rotation, None, &self.config.text, self.dtype)?;
            prefix.cache.layers.push(cache);
            prefix.hidden = hidden;
            prefix.depth += 1;
        }
        settle(&prefix.hidden).await?;
        Ok(())
    }

    /// The question through the layers that the prefix has passed: its hidden states, and the caches grown by it.
    pub(crate) async fn question_prefill(
        &self,
        prefix: &Prefix,
        after: &[u32],
        cancel: &Cancel,
    ) -> Result<(Tensor<2>, KvCache), Error> {
        let start = prefix.hidden.dims()[0];
        let positions: Vec<usize> = (start..start + after.len()).collect();
        let rotation = self.rope.at(&positions, &self.device.device);
        let mut hidden = self.decoder.embed(after);
        let mut grown = KvCache::default();
        for (layer, cache) in self.decoder.layers.iter().zip(&prefix.cache.layers) {
            cancel.check().await?;
            let (out, cache) = layer.forward(hidden, &rotation, Some(cache.clone()), &self.config.text, self.dtype)?;
            grown.layers.push(cache);
            hidden = out;
        }
        Ok((hidden, grown))
    }

    /// Importance of the visual tokens to the question, and which stay.
    ///
    /// `question` (T, C) is what enters layer `prefix.depth`, as `prefix.hidden` is.
    pub(crate) async fn prune(
        &self,
        prefix: &Prefix,
        image_at: usize,
        question: &Tensor<2>,
        keep: Keep,
    ) -> Result<Kept, Error> {
        let layer = &self.decoder.layers[prefix.depth];
        let [total, _] = prefix.hidden.dims();
        let [text, _] = question.dims();
        let visual = prefix.hidden.clone().narrow(0, image_at, total - image_at);
        let rotation = |from: usize, to: usize| {
            let positions: Vec<usize> = (from..to).collect();
            self.config.focus.score_rope.then(|| self.rope.at(&positions, &self.device.device))
        };
        let config = &self.config.text;
        let query = layer.score_query(question.clone(), rotation(total, total + text).as_ref(), config);
        let key = layer.score_key(visual, rotation(image_at, total).as_ref(), config);
        text_guided(query, key, keep).await
    }

    /// Survivors and question through the layers above the prefix's: the caches of all layers, and logits (1, vocab).
    ///
    /// Survivors keep their order and their original positions.
    pub(crate) async fn prefill(
        &self,
        prefix: &Prefix,
        image_at: usize,
        kept: &[usize],
        question: Tensor<2>,
        mut cache: KvCache,
        cancel: &Cancel,
    ) -> Result<(KvCache, Tensor<2>), Error> {
        let [total, _] = prefix.hidden.dims();
        let [text, _] = question.dims();
        let mut hidden = question;
        if prefix.depth < self.decoder.layers.len() {
            let mut positions: Vec<usize> = (0..image_at).chain(kept.iter().map(|k| image_at + k)).collect();
            hidden = Tensor::cat(vec![row_gather(prefix.hidden.clone(), &positions)?, hidden], 0);
            positions.extend(total..total + text);
            let rotation = self.rope.at(&positions, &self.device.device);
            for layer in &self.decoder.layers[prefix.depth..] {
                cancel.check().await?;
                let (out, grown) = layer.forward(hidden, &rotation, None, &self.config.text, self.dtype)?;
                cache.layers.push(grown);
                hidden = out;
            }
        }
        Ok((cache, self.decoder.logits(hidden)))
    }

    /// One more token through all layers: logits (1, vocab) of the one after it.
    pub(crate) async fn step(
        &self,
        token: u32,
        position: usize,
        cache: &mut KvCache,
        cancel: &Cancel,
    ) -> Result<Tensor<2>, Error> {
        let rotation = self.rope.at(&[position], &self.device.device);
        let mut hidden = self.decoder.embed(&[token]);
        cancel.check().await?;
        // Each cache moves in and out, so that it has one owner and is written in place.
        let caches = std::mem::take(&mut cache.layers);
        for (layer, held) in self.decoder.layers.iter().zip(caches) {
            let (out, grown) = layer.forward(hidden, &rotation, Some(held), &self.config.text, self.dtype)?;
            cache.layers.push(grown);
            hidden = out;
        }
        Ok(self.decoder.logits(hidden))
    }
}
