//! The steps of an answer, one token each. Input: the caches of the prompt. Output: the logits of each token.
//!
//! What a step needs is on the device: the last token, its place, and a rotary table for the whole answer. So a greedy step
//! uploads nothing, and reads four numbers back. Only a compression that prunes at several layers uploads a few numbers per step.

use burn::tensor::{Int, Tensor};
use fovea_runtime::{
    kv_cache::{KvCache, LayerCache},
    network_ops::{self, Cursor},
    read::read_indices,
};

use crate::{error::Error, model::Model, pace::Pace, rope::Rotation};

/// Tokens of an answer for which caches and rotary table have room at once. A question may allow very many tokens.
const ROOM: usize = 512;

/// Neighbouring layers whose caches have the same tokens.
struct Group {
    /// The layer after its last one.
    end: usize,
    /// Position of the first token of the answer.
    next: usize,
}

/// An answer on the device.
pub(crate) struct Decoding {
    pub(crate) cache: KvCache,
    groups: Vec<Group>,
    /// For every group the positions of some tokens of the answer, from number `first` on.
    rotations: Vec<Rotation>,
    first: usize,
    /// See [`Cursor`].
    state: Tensor<1, Int>,
    /// Tokens of the answer that were chosen, and the last one.
    chosen: usize,
    last: u32,
    /// Most tokens of the answer.
    most: usize,
}

impl Model {
    /// Makes room in the caches for at most `most` tokens after number `token` of the answer, and returns their rotations.
    fn make_room(&self, cache: &mut KvCache, groups: &[Group], token: usize, most: usize) -> Vec<Rotation> {
        let count = ROOM.min(most).max(1);
        cache.layers.iter_mut().for_each(|layer| layer.reserve(count));
        let mut rotations: Vec<Rotation> = Vec::with_capacity(groups.len());
        for (i, group) in groups.iter().enumerate() {
            let same = groups[..i].iter().position(|other| other.next == group.next);
            let first = group.next + token;
            rotations.push(match same.and_then(|same| rotations.get(same)) {
                Some(rotation) => rotation.clone(),
                None => self.rope.at(&(first..first + count).collect::<Vec<usize>>(), &self.device.device),
            });
        }
        rotations
    }

    /// An answer of at most `most` tokens. `nexts` has the position of its first token in every layer: a compression may drop tokens
    /// between layers, and number the others again.
    pub(crate) fn answer(&self, mut cache: KvCache, nexts: &[usize], most: usize) -> Decoding {
        let device = &self.device.device;
        let mut groups: Vec<Group> = Vec::new();
        let mut before = None;
        for (i, (layer, &next)) in cache.layers.iter().zip(nexts).enumerate() {
            if before == Some((layer.len(), next))
                && let Some(group) = groups.last_mut()
            {
                group.end = i + 1;
            } else {
                groups.push(Group { end: i + 1, next });
            }
            before = Some((layer.len(), next));
        }
        // Before the first token: the choice of each token moves the place.
        let state = Cursor::words(0, -1, lengths(&cache).map(|len| len.wrapping_sub(1)), device);
        let rotations = self.make_room(&mut cache, &groups, 0, most);
        Decoding { cache, groups, rotations, first: 0, state, chosen: 0, last: 0, most }
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
            decoding.rotations = self.make_room(&mut decoding.cache, &decoding.groups, token, left);
            decoding.first = token;
            decoding.state = Cursor::words(decoding.last, 0, lengths(&decoding.cache), &self.device.device);
        }
        let mut hidden = self.decoder().embed_first(decoding.state.clone(), 1, config)?;
        let first = token - decoding.first;
        // Move each cache in and out, so that it has one owner and is written in place.
        let caches = std::mem::take(&mut decoding.cache.layers);
        let two = decoding.groups.len() <= 2;
        let (mut group, mut at) = (usize::MAX, None);
        for (i, (layer, held)) in self.decoder().layers.iter().zip(caches).enumerate() {
            let own = decoding.groups.partition_point(|group| group.end <= i);
            if own != group {
                // The device counts the tokens of two groups itself; further groups need an upload.
                let cursor = match (two, own) {
                    (true, 0) => Cursor { state: decoding.state.clone(), slot: Cursor::LOWER, first },
                    (true, _) => Cursor { state: decoding.state.clone(), slot: Cursor::UPPER, first },
                    (false, _) => {
                        let state = Cursor::words(0, first as i32, [held.len(); 2], &self.device.device);
                        Cursor { state, slot: Cursor::LOWER, first }
                    }
                };
                (group, at) = (own, Some(cursor));
            }
            let missing = Error::Internal("a layer without a cache");
            let (Some(rotation), Some(at)) = (decoding.rotations.get(own), &at) else { return Err(missing) };
            let (out, grown) = layer.forward(hidden, (rotation, at), held, config, (self.steps, pace)).await?;
            decoding.cache.layers.push(grown);
            hidden = out;
        }
        self.decoder().logits(hidden)
    }
}

/// Tokens in the caches of the first and of the last layer.
fn lengths(cache: &KvCache) -> [usize; 2] {
    let len = |layer: Option<&LayerCache>| layer.map_or(0, LayerCache::len);
    [len(cache.layers.first()), len(cache.layers.last())]
}
