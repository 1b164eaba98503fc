//! Input: the object `vision_config` of config.json. Output: the checked settings of the vision tower.
//! Source: `configuration_clip.py`, `configuration_siglip.py` and `configuration_idefics3.py` in Hugging Face's transformers.

use fovea_runtime::network_ops::Activation;
use serde::Serialize;
use serde_json::Value;

use super::{
    activation::{self, ACTIVATIONS},
    keys::{DEEPEST, Keys, LONGEST_SIDE, WIDEST},
};
use crate::error::Error;

/// What makes a kind of tower: one row of [`TOWERS`].
#[derive(Debug)]
struct Tower {
    /// `model_type` in `vision_config`.
    model_type: &'static str,
    /// The name for users.
    name: &'static str,
    /// Whether a class token goes before the patches.
    class_token: bool,
    /// Whether a norm goes before the first layer.
    pre_norm: bool,
    /// Whether a norm goes after the last layer; then the features are its output.
    post_norm: bool,
    /// Whether the patch embedding has a bias.
    patch_bias: bool,
    /// The class defaults of the sizes.
    defaults: Sizes,
    activation: Activation,
    epsilon: f64,
}

/// The class defaults of a tower's sizes.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    d_model: usize,
    d_ff: usize,
    n_layers: usize,
    n_heads: usize,
    side: usize,
    patch: usize,
}

const CLIP: Tower = Tower {
    model_type: "clip_vision_model",
    name: "CLIP",
    class_token: true,
    pre_norm: true,
    post_norm: false,
    patch_bias: false,
    defaults: Sizes { d_model: 768, d_ff: 3072, n_layers: 12, n_heads: 12, side: 224, patch: 32 },
    activation: Activation::QuickGelu,
    epsilon: 1e-5,
};

const SIGLIP: Tower = Tower {
    model_type: "siglip_vision_model",
    name: "SigLIP",
    class_token: false,
    pre_norm: false,
    post_norm: false,
    patch_bias: true,
    defaults: Sizes { d_model: 768, d_ff: 3072, n_layers: 12, n_heads: 12, side: 224, patch: 16 },
    activation: Activation::GeluTanh,
    epsilon: 1e-6,
};

const IDEFICS3_TOWER: Tower = Tower {
    name: "SigLIP (SmolVLM)",
    post_norm: true,
    defaults: Sizes { d_model: 1152, d_ff: 3072, n_layers: 12, n_heads: 16, side: 224, patch: 32 },
    ..SIGLIP
};

/// The towers that `vision_config` can name.
const TOWERS: [(&str, &Tower); 2] = [(CLIP.model_type, &CLIP), (SIGLIP.model_type, &SIGLIP)];

/// The class defaults of a family.
pub(super) struct Default {
    /// The tower where `vision_config` does not name one.
    tower: &'static Tower,
    /// Whether it is always this one, whatever `vision_config` names.
    fixed: bool,
    /// Its sizes where there is no `vision_config`.
    whole: Sizes,
    /// `vision_feature_layer`.
    feature_layer: i64,
    /// `vision_feature_select_strategy`.
    strategy: &'static str,
}

/// CLIP ViT-L/14-336.
pub(super) const CLIP_LARGE: Default = Default {
    tower: &CLIP,
    fixed: false,
    whole: Sizes { d_model: 1024, d_ff: 4096, n_layers: 24, n_heads: 16, side: 336, patch: 14 },
    feature_layer: -2,
    strategy: "default",
};
/// SigLIP so400m-14-384 without its last layer.
pub(super) const SIGLIP_SO400M: Default = Default {
    tower: &SIGLIP,
    fixed: false,
    whole: Sizes { d_model: 1152, d_ff: 4304, n_layers: 26, n_heads: 16, side: 384, patch: 14 },
    feature_layer: -1,
    strategy: "full",
};
/// The class defaults of Idefics3.
pub(super) const IDEFICS3: Default = Default {
    tower: &IDEFICS3_TOWER,
    fixed: true,
    whole: IDEFICS3_TOWER.defaults,
    feature_layer: -1,
    strategy: "full",
};

/// The vision tower (CLIP, SigLIP).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VisionConfig {
    /// Its name.
    pub name: &'static str,
    /// Width.
    pub d_model: usize,
    /// Width of the feed-forward layer.
    pub d_ff: usize,
    /// Number of layers in the checkpoint.
    pub n_layers: usize,
    /// Number of layers that are used: up to the last feature layer.
    pub n_used: usize,
    /// The hidden states whose values are a patch's features, side by side: i is the input of layer i.
    pub feature_layers: Vec<usize>,
    /// Number of attention heads.
    pub n_heads: usize,
    /// Side of a tile, S, in pixels.
    pub side: usize,
    /// Side of a patch, in pixels.
    pub patch: usize,
    /// Side of the square of patches that become one visual token.
    pub shuffle: usize,
    /// Whether a class token goes before the patches. It is not a feature.
    pub class_token: bool,
    /// Whether a norm goes before the first layer.
    pub pre_norm: bool,
    /// Whether a norm goes after the last layer; then the features are its output.
    pub post_norm: bool,
    /// Whether the patch embedding has a bias.
    pub patch_bias: bool,
    /// Nonlinearity.
    #[serde(serialize_with = "activation::name")]
    pub activation: Activation,
    /// Epsilon of the layer norms.
    pub epsilon: f64,
}

impl VisionConfig {
    /// Multiply-adds of one patch in one layer, without the attention scores.
    pub(crate) fn layer_work(&self) -> u64 {
        let (d, d_ff) = (self.d_model as u64, self.d_ff as u64);
        4 * d * d + 2 * d * d_ff
    }

    /// Number of patches per side of a tile. Pixels that remain right and below belong to no patch.
    pub fn patches(&self) -> usize {
        self.side / self.patch
    }

    /// Number of visual tokens per side of a tile, P.
    pub fn tokens(&self) -> usize {
        self.patches() / self.shuffle
    }

    /// Number of places of the tower: patches, and the class token.
    pub fn places(&self) -> usize {
        self.patches() * self.patches() + usize::from(self.class_token)
    }

    /// Number of features of a patch.
    pub fn d_features(&self) -> usize {
        self.feature_layers.len() * self.d_model
    }

    /// Reads the tower of the config `top`, of which `shuffle` x `shuffle` patches become one visual token.
    pub(super) fn from_keys(top: &Keys, family: &Default, shuffle: usize) -> Result<Self, Error> {
        let keys = top.object("vision_config")?;
        // The class default of a whole missing object; in the object, a missing key has the default of the tower's class.
        let tower = if family.fixed { family.tower } else { keys.one_of("model_type", family.tower, &TOWERS)? };
        let default = if keys.value.is_none() { family.whole } else { tower.defaults };
        let side = keys.count("image_size", default.side, LONGEST_SIDE)?;
        let patch = keys.count("patch_size", default.patch, LONGEST_SIDE)?;
        let d_model = keys.count("hidden_size", default.d_model, WIDEST)?;
        let n_heads = keys.count("num_attention_heads", default.n_heads, WIDEST)?;
        let n_layers = keys.count("num_hidden_layers", default.n_layers, DEEPEST)?;
        let wrong = |key: &str, why: String| Error::Config { key: format!("{}{key}", keys.path), why };
        if patch > side {
            return Err(wrong("patch_size", format!("expected at most image_size {side}, got {patch}")));
        }
        if side / patch > 256 {
            return Err(wrong("patch_size", format!("expected at most 256 patches per side, got {}", side / patch)));
        }
        // CLIP's published towers have whole patches; a rest there is a mistake.
        if tower.class_token && !side.is_multiple_of(patch) {
            return Err(wrong("patch_size", format!("expected a divisor of image_size {side}, got {patch}")));
        }
        if !d_model.is_multiple_of(n_heads) {
            let why = format!("expected a divisor of hidden_size {d_model}, got {n_heads}");
            return Err(wrong("num_attention_heads", why));
        }
        let channels = keys.count("num_channels", 3, 4)?;
        if channels != 3 {
            return Err(wrong("num_channels", format!("expected 3, got {channels}")));
        }
        if !(side / patch).is_multiple_of(shuffle) {
            let why = format!("expected a divisor of the {} patches per side, got {shuffle}", side / patch);
            return Err(Error::Config { key: "config.json: scale_factor".into(), why });
        }
        let feature_layers = if tower.post_norm { vec![n_layers] } else { feature_layers(top, family, n_layers)? };
        if !tower.post_norm {
            let strategy = if tower.class_token { "default" } else { "full" };
            let got = top.text("vision_feature_select_strategy", family.strategy)?;
            if got != strategy {
                let expected = format!(
                    "{strategy}, because {} has {} class token",
                    tower.name,
                    if tower.class_token { "a" } else { "no" }
                );
                return Err(top.wrong("vision_feature_select_strategy", &expected, &Value::from(got)));
            }
        }
        Ok(Self {
            name: tower.name,
            d_model,
            d_ff: keys.count("intermediate_size", default.d_ff, WIDEST)?,
            n_layers,
            n_used: feature_layers.iter().copied().max().unwrap_or(n_layers),
            feature_layers,
            n_heads,
            side,
            patch,
            shuffle,
            class_token: tower.class_token,
            pre_norm: tower.pre_norm,
            post_norm: tower.post_norm,
            patch_bias: tower.patch_bias,
            activation: keys.one_of("hidden_act", tower.activation, &ACTIVATIONS)?,
            epsilon: keys.number("layer_norm_eps", tower.epsilon, 1e-12, 1e-1)?,
        })
    }
}

/// `vision_feature_layer`: one hidden state, or a list. Hidden state i is the input of layer i; `n_layers` is the output of the
/// last layer. Negative numbers count from the end.
fn feature_layers(top: &Keys, family: &Default, n_layers: usize) -> Result<Vec<usize>, Error> {
    const MOST: usize = 16;
    let key = "vision_feature_layer";
    let value = top.get(key);
    let numbers = match value {
        None => Some(vec![family.feature_layer]),
        Some(Value::Array(list)) if (1..=MOST).contains(&list.len()) => list.iter().map(Value::as_i64).collect(),
        Some(one) => one.as_i64().map(|one| vec![one]),
    };
    let shown = value.unwrap_or(&Value::Null);
    let numbers = numbers.ok_or_else(|| top.wrong(key, &format!("a whole number, or a list of 1 to {MOST}"), shown))?;
    let state = |n: i64| {
        let n = if n >= 0 { n } else { (n_layers as i64 + 1).saturating_add(n) };
        usize::try_from(n).ok().filter(|&n| n <= n_layers)
    };
    numbers.into_iter().map(state).collect::<Option<_>>().ok_or_else(|| {
        let why = format!("expected hidden states of {n_layers} layers, got {shown}");
        Error::Config { key: format!("config.json: {key}"), why }
    })
}
