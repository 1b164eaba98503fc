//! What some compressions read of the vision tower besides the features. Input: queries and keys of a layer. Output: the attention of
//! the class token to every patch, the keys, and the hidden states before the projector. Nothing is computed that is not requested.

use burn::tensor::{Tensor, activation::softmax};
use fovea_runtime::network_ops::Heads;

use crate::focus::bytes;

/// What a compression reads of the vision tower.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Layers, from 0, whose attention of the class token is read.
    pub attention: Vec<usize>,
    /// Whether the keys of the last used layer are read.
    pub keys: bool,
    /// Whether the hidden states before the projector are read.
    pub hidden: bool,
}

impl Wanted {
    /// This and `other`.
    pub(crate) fn with(mut self, other: &Self) -> Self {
        self.attention.extend(&other.attention);
        self.attention.sort_unstable();
        self.attention.dedup();
        (self.keys, self.hidden) = (self.keys || other.keys, self.hidden || other.hidden);
        self
    }

    /// Whether everything in `other` is in this.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        let attention = other.attention.iter().all(|layer| self.attention.contains(layer));
        attention && (self.keys || !other.keys) && (self.hidden || !other.hidden)
    }
}

/// What was read of the vision tower, one row per tile.
#[derive(Clone, Debug, Default)]
pub struct Taps {
    /// Layer, and the attention of its class token to the patches, mean over the heads, (tiles, patches).
    pub attention: Vec<(usize, Tensor<2>)>,
    /// Keys of the last used layer, mean over the heads, (tiles, patches, d_head).
    pub keys: Option<Tensor<3>>,
    /// What enters the projector, (tiles, patches, d).
    pub hidden: Option<Tensor<3>>,
    /// The class token beside it, (tiles, d).
    pub class_hidden: Option<Tensor<2>>,
}

impl Taps {
    /// Adds what was read of layer `layer`.
    pub(crate) fn take(&mut self, tap: Tap, layer: usize) {
        if !tap.attention.is_empty() {
            self.attention.push((layer, Tensor::cat(tap.attention, 0)));
        }
        if !tap.keys.is_empty() {
            self.keys = Some(Tensor::cat(tap.keys, 0));
        }
    }

    /// Bytes of all tensors.
    pub(crate) fn bytes(&self) -> u64 {
        let attention: u64 = self.attention.iter().map(|(_, attention)| bytes(attention)).sum();
        let keys = self.keys.as_ref().map_or(0, bytes) + self.hidden.as_ref().map_or(0, bytes);
        attention + keys + self.class_hidden.as_ref().map_or(0, bytes)
    }

    /// The attention of layer `layer`, (tiles, patches).
    pub(crate) fn attention_of(&self, layer: usize) -> Option<&Tensor<2>> {
        self.attention.iter().find(|(at, _)| *at == layer).map(|(_, attention)| attention)
    }
}

/// What is read of one layer, in groups of tiles.
#[derive(Debug)]
pub(crate) struct Tap {
    wants_attention: bool,
    wants_keys: bool,
    attention: Vec<Tensor<2>>,
    keys: Vec<Tensor<3>>,
}

impl Tap {
    /// What `wanted` reads of layer `layer`; `last` is whether it is the last used layer.
    pub(crate) fn of(wanted: &Wanted, layer: usize, last: bool) -> Self {
        let (wants_attention, wants_keys) = (wanted.attention.contains(&layer), wanted.keys && last);
        Self { wants_attention, wants_keys, attention: Vec::new(), keys: Vec::new() }
    }

    /// Reads a group of tiles: `mean_h softmax_j(q_class,h . k_j,h / sqrt(d))` over all tokens j of a tile, without the class token's
    /// own share. Source: the class attention of CLIP in FasterVLM (arXiv 2412.01818) and VisionZip (arXiv 2412.04467).
    ///
    /// # Shapes
    /// `qkv` (tiles * tokens, 3 d_model), the class token first in every tile.
    pub(crate) fn read(&mut self, qkv: &Tensor<2>, tiles: usize, heads: Heads) {
        if !self.wants_attention && !self.wants_keys {
            return;
        }
        let (h, d) = (heads.query, heads.width);
        let tokens = qkv.dims()[0] / tiles;
        let part = |at: usize| qkv.clone().narrow(1, at * h * d, h * d).reshape([tiles, tokens, h, d]);
        let key = part(1);
        if self.wants_attention {
            let query = part(0).narrow(1, 0, 1);
            // One query per tile: a product element by element needs no matrix product.
            let scores = (key.clone() * query).sum_dim(3) / (d as f64).sqrt();
            let attention = softmax(scores, 1).mean_dim(2).narrow(1, 1, tokens - 1);
            self.attention.push(attention.reshape([tiles, tokens - 1]));
        }
        if self.wants_keys {
            let keys = key.mean_dim(2).narrow(1, 1, tokens - 1);
            self.keys.push(keys.reshape([tiles, tokens - 1, d]));
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, Device, TensorData};
    use serde_json::json;

    use super::*;
    use crate::{
        compression::{Compression, METHODS},
        config::Config,
    };

    #[test]
    fn only_methods_that_need_it_read_the_vision_tower() {
        let vision = json!({ "num_hidden_layers": 24, "image_size": 336, "patch_size": 14 });
        let json = json!({ "model_type": "llava_next", "image_token_id": 5, "vision_config": vision });
        let config = Config::from_json(&json).expect("a config");
        let wanted = |spec: &str| spec.parse::<Compression>().expect("a compression").before.wanted(&config.vision);
        // The last used layer is the one before the last.
        let of = |attention: &[usize], keys, hidden| Wanted { attention: attention.to_vec(), keys, hidden };
        for row in METHODS {
            let expected = match row.name {
                "faster-vlm" => of(&[22], false, false),
                "vision-zip" => of(&[22], true, true),
                "hired" => of(&[0, 22], false, false),
                "meteor" => of(&[22], false, true),
                _ => Wanted::default(),
            };
            assert_eq!(wanted(row.default), expected, "{} (got, expected)", row.name);
        }
        assert_eq!(wanted("none"), Wanted::default(), "none (got, expected)");
        assert_eq!(wanted("cd-pruner:relevance=class"), of(&[22], false, false), "class relevance (got, expected)");
    }

    #[test]
    fn what_is_not_requested_has_no_bytes() {
        let heads = Heads { query: 2, key: 2, width: 2 };
        // A class token and two patches.
        let data = TensorData::new(vec![0.5_f32; 3 * heads.joined()], [3, heads.joined()]);
        let qkv = Tensor::<2>::from_data(data, (&Device::flex(), DType::F32));
        let bytes_of = |attention: Vec<usize>, keys, last| {
            let mut tap = Tap::of(&Wanted { attention, keys, hidden: false }, 1, last);
            tap.read(&qkv, 1, heads);
            let mut taps = Taps::default();
            taps.take(tap, 1);
            taps.bytes()
        };
        for (got, expected) in [
            (bytes_of(vec![], false, true), 0),
            (bytes_of(vec![0, 2], true, false), 0),
            (bytes_of(vec![1], false, true), 2 * 4),
            (bytes_of(vec![1], true, true), 2 * 4 + 2 * 2 * 4),
        ] {
            assert_eq!(got, expected, "bytes (got, expected)");
        }
    }
}
