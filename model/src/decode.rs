//! The steps of an answer, one token each. Input: the caches of the prompt. Output: the logits of each token.
//!
//! What a step needs is on the device: the last token, its place, and a rotary table for the whole answer. So a greedy step
//! uploads nothing, and reads four numbers back.

use burn::tensor::{Int, Tensor};
use fovea_runtime::{
    kv_cache::{KvCache, LayerCache},
    network_ops::{self, Cursor},
    read::read_indices,
};

use crate::{error::Error, model::Model, pace::Pace, rope::Rotation};

/// Tokens of an answer for which caches and rotary table have room at once. A question may allow very many tokens.
const ROOM: usize = 512;

/// An answer on the device.
pub(crate) struct Decoding {
    pub(crate) cache: KvCache,
    /// Positions of some tokens of the answer, from number `first` on.
    rotation: Rotation,
    first: usize,
    /// See [`Cursor`].
    state: Tensor<1, Int>,
    /// Tokens of the answer that were chosen, and the last one.
    chosen: usize,
    last: u32,
    /// Number of layers below the text-guided sampler.
    depth: usize,
    /// Number of tokens before the answer, and most tokens of the answer.
    before: usize,
    most: usize,
}

impl Model {
    /// Makes room in the caches for at most `most` tokens from position `first` on, and returns their rotations.
    fn make_room(&self, cache: &mut KvCache, first: usize, most: usize) -> Rotation {
        let count = ROOM.min(most).max(1);
        cache.layers.iter_mut().for_each(|layer| layer.reserve(count));
        self.rope.at(&(first..first + count).collect::<Vec<usize>>(), &self.device.device)
    }

    /// An answer of at most `most` tokens after `before` tokens, whose caches are given. The layers up to `depth` may have more
    /// tokens than those above.
    pub(crate) fn answer(&self, mut cache: KvCache, depth: usize, before: usize, most: usize) -> Decoding {
        let device = &self.device.device;
        // Before the first token: the choice of each token moves the place.
        let state = Cursor::words(0, -1, lengths(&cache).map(|len| len.wrapping_sub(1)), device);
        let rotation = self.make_room(&mut cache, before, most);
        Decoding { cache, rotation, first: 0, state, chosen: 0, last: 0, depth, before, most }
    }

    /// Chooses the most likely token on the device. None: a logit is not finite.
    ///
    /// # Errors
    /// Errors of the device.
    pub(crate) async fn pick(&self, decoding: &mut Decoding, logits: Tensor<2>) -> Result<Option<u32>, Error> {
        decoding.state = network_ops::pick(logits, self.allowed.clone(), decoding.state.clone()).await?;
        decoding.chosen += 1;
        let words = read_indices(decoding.state.clone()).await?;
        // Of a logit that is not finite the id is -1, which no vocabulary has.
        let id = words.first().and_then(|&id| u32::try_from(id).ok());
        let id = id.filter(|&id| (id as usize) < self.config.text.vocab);
        decoding.last = id.unwrap_or_default();
        Ok(id)
    }

    /// Sets the next token, which the host has chosen.
    pub(crate) fn choose(&self, decoding: &mut Decoding, id: u32) {
        let row = (decoding.chosen - decoding.first) as i32;
        decoding.state = Cursor::words(id, row, lengths(&decoding.cache), &self.device.device);
        (decoding.chosen, decoding.last) = (decoding.chosen + 1, id);
    }

    /// Runs the chosen token through all layers: logits (1, vocab) of the next one.
    ///
    /// # Errors
    /// [`Error::Cancelled`], errors of the device.
    pub(crate) async fn step(&self, decoding: &mut Decoding, pace: &Pace) -> Result<Tensor<2>, Error> {
        pace.check().await?;
        let config = &self.config.text;
        let token = decoding.chosen.saturating_sub(1);
        if token == decoding.first + ROOM {
            let left = decoding.most.saturating_sub(token);
            decoding.rotation = self.make_room(&mut decoding.cache, decoding.before + token, left);
            decoding.first = token;
            decoding.state = Cursor::words(decoding.last, 0, lengths(&decoding.cache), &self.device.device);
        }
        let mut hidden = self.decoder().embed_first(decoding.state.clone(), 1, config)?;
        let at = |slot| Cursor { state: decoding.state.clone(), slot, first: token - decoding.first };
        let (lower, upper) = (at(Cursor::LOWER), at(Cursor::UPPER));
        // Move each cache in and out, so that it has one owner and is written in place.
        let caches = std::mem::take(&mut decoding.cache.layers);
        for (i, (layer, held)) in self.decoder().layers.iter().zip(caches).enumerate() {
            let at = (&decoding.rotation, if i < decoding.depth { &lower } else { &upper });
            let (out, grown) = layer.forward(hidden, at, held, config, (self.steps, pace)).await?;
            decoding.cache.layers.push(grown);
            hidden = out;
        }
        self.decoder().logits(hidden)
    }
}

/// Tokens in the caches below and above the text-guided sampler.
fn lengths(cache: &KvCache) -> [usize; 2] {
    let len = |layer: Option<&LayerCache>| layer.map_or(0, LayerCache::len);
    [len(cache.layers.first()), len(cache.layers.last())]
}
