//! Input: the object `vision_config` of config.json. Output: the checked settings of the vision tower.

use serde::Serialize;
use serde_json::Value;

use super::{
    activation::{ACTIVATIONS, Activation},
    keys::{DEEPEST, Keys, LONGEST_SIDE, WIDEST},
};
use crate::error::Error;

/// The vision tower (CLIP).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VisionConfig {
    /// Width.
    pub d_model: usize,
    /// Width of the feed-forward layer.
    pub d_ff: usize,
    /// Number of layers in the checkpoint.
    pub n_layers: usize,
    /// Number of layers that are used: up to the feature layer.
    pub n_used: usize,
    /// Number of attention heads.
    pub n_heads: usize,
    /// Side of a tile, S, in pixels.
    pub side: usize,
    /// Side of a patch, in pixels.
    pub patch: usize,
    /// Nonlinearity.
    pub activation: Activation,
    /// Epsilon of the layer norms.
    pub epsilon: f64,
}

impl VisionConfig {
    /// Multiply-adds of one patch in one layer, without the attention scores.
    pub(crate) fn layer_work(&self) -> u64 {
        (4 * self.d_model * self.d_model + 2 * self.d_model * self.d_ff) as u64
    }

    /// Number of patches per side of a tile, P.
    pub fn patches(&self) -> usize {
        self.side / self.patch
    }

    pub(super) fn from_keys(top: &Keys) -> Result<Self, Error> {
        let keys = top.object("vision_config")?;
        keys.one_of("model_type", (), &[("clip_vision_model", ())])?;
        // Without the object, LLaVA-NeXT means CLIP ViT-L/14-336. In the object, a missing key has the default of CLIP.
        let whole = keys.value.is_none();
        let default = |large: usize, class: usize| if whole { large } else { class };
        let side = keys.count("image_size", default(336, 224), LONGEST_SIDE)?;
        let patch = keys.count("patch_size", default(14, 32), LONGEST_SIDE)?;
        let d_model = keys.count("hidden_size", default(1024, 768), WIDEST)?;
        let n_heads = keys.count("num_attention_heads", default(16, 12), WIDEST)?;
        let n_layers = keys.count("num_hidden_layers", default(24, 12), DEEPEST)?;
        let wrong = |key: &str, why: String| Error::Config { key: format!("{}{key}", keys.path), why };
        if !side.is_multiple_of(patch) {
            return Err(wrong("patch_size", format!("expected a divisor of image_size {side}, got {patch}")));
        }
        if side / patch > 256 {
            return Err(wrong("patch_size", format!("expected at most 256 patches per side, got {}", side / patch)));
        }
        if !d_model.is_multiple_of(n_heads) {
            let why = format!("expected a divisor of hidden_size {d_model}, got {n_heads}");
            return Err(wrong("num_attention_heads", why));
        }
        let channels = keys.count("num_channels", 3, 4)?;
        if channels != 3 {
            return Err(wrong("num_channels", format!("expected 3, got {channels}")));
        }
        // Hidden state i is the input of layer i; n_layers is the output of the last layer. Negative counts from the end.
        let feature = top.get("vision_feature_layer");
        let n_used = match feature.map(|v| (v, v.as_i64())) {
            None => n_layers as i64 - 1,
            Some((_, Some(n))) if n >= 0 => n,
            Some((_, Some(n))) => n_layers as i64 + 1 + n,
            Some((v, None)) => return Err(top.wrong("vision_feature_layer", "one whole number", v)),
        };
        let n_used = usize::try_from(n_used).ok().filter(|&n| n <= n_layers).ok_or_else(|| {
            let why = format!("expected a hidden state of {n_layers} layers, got {}", feature.unwrap_or(&Value::Null));
            Error::Config { key: "config.json: vision_feature_layer".into(), why }
        })?;
        Ok(Self {
            d_model,
            d_ff: keys.count("intermediate_size", default(4096, 3072), WIDEST)?,
            n_layers,
            n_used,
            n_heads,
            side,
            patch,
            activation: keys.one_of("hidden_act", Activation::QuickGelu, &ACTIVATIONS)?,
            epsilon: keys.number("layer_norm_eps", 1e-5, 1e-12, 1e-1)?,
        })
    }
}
