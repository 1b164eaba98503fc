//! `config.json` in, checked numbers out.
//!
//! Hugging Face leaves a class's defaults out of the file; they are applied here. Every number that sizes something is
//! bounded before anything is sized by it. Sampler settings come from the object `focus`.

use fovea_runtime::{Keep, Scale};
use serde::Serialize;
use serde_json::Value;

use crate::error::Error;

/// An object of a configuration file, with the path to it for messages.
pub(crate) struct Keys<'a> {
    value: Option<&'a Value>,
    path: String,
}

impl<'a> Keys<'a> {
    pub(crate) fn new(file: &str, value: &'a Value) -> Result<Self, Error> {
        match value {
            Value::Object(_) => Ok(Self { value: Some(value), path: format!("{file}: ") }),
            other => Err(Error::Config { key: file.to_owned(), why: format!("expected an object, got {other}") }),
        }
    }

    fn object(&self, key: &str) -> Result<Self, Error> {
        let path = format!("{}{key}.", self.path);
        match self.get(key) {
            None => Ok(Self { value: None, path }),
            Some(value @ Value::Object(_)) => Ok(Self { value: Some(value), path }),
            Some(other) => Err(self.wrong(key, "an object", other)),
        }
    }

    /// The value, where it is there and not null.
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.value?.get(key).filter(|v| !v.is_null())
    }

    fn wrong(&self, key: &str, expected: &str, got: &Value) -> Error {
        let mut got = got.to_string();
        if got.len() > 80 {
            got = got.chars().take(80).collect::<String>() + "...";
        }
        Error::Config { key: format!("{}{key}", self.path), why: format!("expected {expected}, got {got}") }
    }

    fn count(&self, key: &str, default: usize, most: usize) -> Result<usize, Error> {
        self.count_in(key, default, 1, most)
    }

    fn count_in(&self, key: &str, default: usize, least: usize, most: usize) -> Result<usize, Error> {
        let Some(value) = self.get(key) else { return Ok(default) };
        let found = value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| (least..=most).contains(n));
        found.ok_or_else(|| self.wrong(key, &format!("a whole number from {least} to {most}"), value))
    }

    fn number(&self, key: &str, default: f64, least: f64, most: f64) -> Result<f64, Error> {
        let Some(value) = self.get(key) else { return Ok(default) };
        let found = value.as_f64().filter(|n| (least..=most).contains(n));
        found.ok_or_else(|| self.wrong(key, &format!("a number from {least} to {most}"), value))
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool, Error> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_bool().ok_or_else(|| self.wrong(key, "true or false", value))
    }

    fn text(&self, key: &str, default: &'a str) -> Result<&'a str, Error> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_str().ok_or_else(|| self.wrong(key, "a text", value))
    }

    fn one_of<T: Copy>(&self, key: &str, default: T, known: &[(&str, T)]) -> Result<T, Error> {
        let Some(value) = self.get(key) else { return Ok(default) };
        let found = known.iter().find(|(name, _)| value.as_str() == Some(name)).map(|(_, v)| *v);
        found.ok_or_else(|| {
            let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
            self.wrong(key, &names.join(" or "), value)
        })
    }

    fn pairs(&self, key: &str, least: usize, most: usize) -> Result<Option<Vec<(usize, usize)>>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let pair = |v: &Value| -> Option<(usize, usize)> {
            let [a, b] = v.as_array()?.as_slice() else { return None };
            let number = |v: &Value| v.as_u64().and_then(|n| usize::try_from(n).ok());
            let (a, b) = (number(a)?, number(b)?);
            ((least..=most).contains(&a) && (least..=most).contains(&b)).then_some((a, b))
        };
        let found: Option<Vec<_>> = value.as_array().and_then(|all| all.iter().map(pair).collect());
        match found {
            Some(pairs) if !pairs.is_empty() && pairs.len() <= 1024 => Ok(Some(pairs)),
            _ => Err(self.wrong(key, &format!("a list of pairs of whole numbers from {least} to {most}"), value)),
        }
    }
}

/// A nonlinearity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x * sigmoid(1.702 x)`.
    QuickGelu,
    /// `x * Phi(x)`, by the error function.
    Gelu,
    /// `x * sigmoid(x)`.
    Silu,
}

const ACTIVATIONS: [(&str, Activation); 3] =
    [("quick_gelu", Activation::QuickGelu), ("gelu", Activation::Gelu), ("silu", Activation::Silu)];

/// The vision tower (CLIP).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VisionConfig {
    /// Width.
    pub d_model: usize,
    /// Width of the feed-forward layer.
    pub d_ff: usize,
    /// Layers in the checkpoint.
    pub n_layers: usize,
    /// Layers whose output is used: up to the feature layer.
    pub n_used: usize,
    /// Attention heads.
    pub n_heads: usize,
    /// Pixels of a tile's side, S.
    pub side: usize,
    /// Pixels of a patch's side.
    pub patch: usize,
    /// Nonlinearity.
    pub activation: Activation,
    /// Epsilon of the layer norms.
    pub epsilon: f64,
}

impl TextConfig {
    /// Multiply-adds of one token in one layer, without attention's scores.
    pub(crate) fn layer_work(&self) -> u64 {
        let attention = 2 * self.d_model * (self.n_heads + self.n_kv_heads) * self.d_head;
        (attention + 3 * self.d_model * self.d_ff) as u64
    }

    /// Most values of one token in one buffer of a layer, without attention's scores.
    pub(crate) fn widest(&self) -> u64 {
        self.d_ff.max(self.d_model).max(self.n_heads * self.d_head) as u64
    }

    /// Keys, or values, of `tokens` in one layer.
    pub(crate) fn cache_shape(&self, tokens: usize) -> [usize; 3] {
        [self.n_kv_heads, tokens, self.d_head]
    }
}

impl VisionConfig {
    /// Multiply-adds of one patch in one layer, without attention's scores.
    pub(crate) fn layer_work(&self) -> u64 {
        (4 * self.d_model * self.d_model + 2 * self.d_model * self.d_ff) as u64
    }

    /// Patches of a tile's side, P.
    pub fn patches(&self) -> usize {
        self.side / self.patch
    }
}

/// How rotary frequencies are scaled.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RopeScaling {
    /// Not at all.
    Default,
    /// All frequencies divided by a factor.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Llama 3.1's: low frequencies divided, high ones kept, those between blended.
    Llama3 {
        /// The factor.
        factor: f64,
        /// Wavelengths longer than the original context over this are divided.
        low: f64,
        /// Wavelengths shorter than the original context over this are kept.
        high: f64,
        /// The original context.
        original: f64,
    },
}

/// The text model (Llama, Vicuna, Mistral).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TextConfig {
    /// `llama` or `mistral`.
    pub family: &'static str,
    /// Width, C.
    pub d_model: usize,
    /// Width of the feed-forward layer.
    pub d_ff: usize,
    /// Layers.
    pub n_layers: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads.
    pub n_kv_heads: usize,
    /// Width of a head.
    pub d_head: usize,
    /// Rows of the embedding.
    pub vocab: usize,
    /// Nonlinearity.
    pub activation: Activation,
    /// Epsilon of the RMS norms.
    pub epsilon: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Their scaling.
    pub rope_scaling: RopeScaling,
    /// Most tokens: positions, or Mistral's sliding window where that is shorter.
    pub context: usize,
    /// Whether the attention's linear layers have biases.
    pub attention_bias: bool,
    /// Whether the feed-forward's linear layers have biases.
    pub mlp_bias: bool,
    /// Whether the head shares the embedding's weights.
    pub tied: bool,
}

/// Settings of the two samplers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FocusConfig {
    /// Side of a region, in patches.
    pub window: usize,
    /// Max-pool kernels, in the order of the selector's logits.
    #[serde(serialize_with = "scale_names")]
    pub scales: Vec<Scale>,
    /// The decoder layer whose input the text-guided sampler prunes. None where the default lies beyond the last
    /// layer: then nothing is pruned.
    pub text_layer: Option<usize>,
    /// Threshold of cumulative importance.
    pub gamma: f64,
    /// Whether the scores' queries and keys carry rotary positions.
    pub score_rope: bool,
    /// Whether the thumbnail's tokens go to the text model.
    pub thumbnail: bool,
}

fn scale_names<S: serde::Serializer>(scales: &[Scale], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(scales.iter().map(Scale::to_string))
}

impl FocusConfig {
    /// The configured budget of the text-guided sampler.
    pub fn keep(&self) -> Keep {
        Keep::Gamma(self.gamma)
    }
}

/// All of `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Config {
    /// The vision tower.
    pub vision: VisionConfig,
    /// The text model.
    pub text: TextConfig,
    /// The samplers.
    pub focus: FocusConfig,
    /// Whether the file has the object `focus`: the checkpoint was trained with the samplers, and they are on unless the caller
    /// says otherwise. Without, it is a stock checkpoint, and off they are.
    pub has_focus: bool,
    /// Nonlinearity between the projector's two layers.
    pub projector_activation: Activation,
    /// Whether the projector's layers have biases.
    pub projector_bias: bool,
    /// The id that stands for the picture in a prompt.
    pub image_token: usize,
    /// Canvases that a picture is laid on, (height, width) in pixels.
    pub pinpoints: Vec<(usize, usize)>,
}

/// LLaVA-NeXT's class default.
const PINPOINTS: [(usize, usize); 5] = [(336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)];
const WIDEST: usize = 1 << 17;
const DEEPEST: usize = 1024;
const LONGEST_SIDE: usize = 16384;
/// LLaVA-NeXT itself has at most 4, its relatives 36.
const MOST_TILES: usize = 100;

impl Config {
    /// Reads and checks `config.json`.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key, what was expected, and what is there.
    pub fn from_json(json: &Value) -> Result<Self, Error> {
        let keys = Keys::new("config.json", json)?;
        keys.one_of("model_type", (), &[("llava_next", ())])?;
        let tied = keys.flag("tie_word_embeddings", false)?;
        let vision = VisionConfig::from_keys(&keys)?;
        let text = TextConfig::from_keys(&keys.object("text_config")?, tied)?;
        let focus = FocusConfig::from_keys(&keys.object("focus")?, text.n_layers)?;
        let pinpoints = keys.pairs("image_grid_pinpoints", 1, LONGEST_SIDE)?.unwrap_or(PINPOINTS.to_vec());
        if let Some((h, w)) = pinpoints.iter().find(|(h, w)| h % vision.side != 0 || w % vision.side != 0) {
            return Err(Error::Config {
                key: "config.json: image_grid_pinpoints".into(),
                why: format!("expected multiples of the tile's side {}, got [{h}, {w}]", vision.side),
            });
        }
        if let Some((h, w)) = pinpoints.iter().find(|(h, w)| (h / vision.side) * (w / vision.side) > MOST_TILES) {
            return Err(Error::Config {
                key: "config.json: image_grid_pinpoints".into(),
                why: format!("expected canvases of at most {MOST_TILES} tiles, got [{h}, {w}]"),
            });
        }
        keys.one_of("vision_feature_select_strategy", (), &[("default", ())])?;
        // The key was `image_token_index` before transformers 4.50.
        let older = keys.count_in("image_token_index", 32000, 0, usize::MAX)?;
        let image_token = keys.count_in("image_token_id", older, 0, usize::MAX)?;
        if image_token >= text.vocab {
            return Err(Error::Config {
                key: "config.json: image_token_id".into(),
                why: format!("expected an id below the vocabulary's {}, got {image_token}", text.vocab),
            });
        }
        Ok(Self {
            projector_activation: keys.one_of("projector_hidden_act", Activation::Gelu, &ACTIVATIONS)?,
            projector_bias: keys.flag("multimodal_projector_bias", true)?,
            image_token,
            pinpoints,
            vision,
            text,
            has_focus: keys.get("focus").is_some(),
            focus,
        })
    }
}

impl VisionConfig {
    fn from_keys(top: &Keys) -> Result<Self, Error> {
        let keys = top.object("vision_config")?;
        keys.one_of("model_type", (), &[("clip_vision_model", ())])?;
        // Without the object at all LLaVA-NeXT means CLIP ViT-L/14-336; within it, what is missing is CLIP's own default.
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
            return Err(wrong("patch_size", format!("expected at most 256 patches a side, got {}", side / patch)));
        }
        if !d_model.is_multiple_of(n_heads) {
            let why = format!("expected a divisor of hidden_size {d_model}, got {n_heads}");
            return Err(wrong("num_attention_heads", why));
        }
        if keys.count("num_channels", 3, 4)? != 3 {
            return Err(wrong("num_channels", "expected 3".into()));
        }
        // Hidden state i is what layer i reads; n_layers is the last layer's output. Negative counts from the end.
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

impl TextConfig {
    fn from_keys(keys: &Keys, tied: bool) -> Result<Self, Error> {
        let family = keys.one_of("model_type", "llama", &[("llama", "llama"), ("mistral", "mistral")])?;
        let mistral = family == "mistral";
        let default = |llama: usize, other: usize| if mistral { other } else { llama };
        let d_model = keys.count("hidden_size", 4096, WIDEST)?;
        let n_heads = keys.count("num_attention_heads", 32, WIDEST)?;
        let n_kv_heads = keys.count("num_key_value_heads", default(n_heads, 8), WIDEST)?;
        let wrong = |key: &str, why: String| Error::Config { key: format!("{}{key}", keys.path), why };
        if !n_heads.is_multiple_of(n_kv_heads) {
            let why = format!("expected a divisor of num_attention_heads {n_heads}, got {n_kv_heads}");
            return Err(wrong("num_key_value_heads", why));
        }
        if keys.get("head_dim").is_none() && !d_model.is_multiple_of(n_heads) {
            let why = format!("expected a divisor of hidden_size {d_model} where head_dim is not given, got {n_heads}");
            return Err(wrong("num_attention_heads", why));
        }
        let d_head = keys.count("head_dim", d_model / n_heads, 4096)?;
        if !d_head.is_multiple_of(2) {
            return Err(wrong("head_dim", format!("expected an even number for rotary positions, got {d_head}")));
        }
        let positions = keys.count("max_position_embeddings", default(2048, 4096 * 32), 1 << 30)?;
        // A window shorter than the prompt would need a banded mask; we refuse such prompts by length instead.
        let window = match keys.value.and_then(|v| v.get("sliding_window")) {
            _ if !mistral => usize::MAX,
            None => 4096,
            Some(Value::Null) => usize::MAX,
            Some(_) => keys.count("sliding_window", 4096, 1 << 30)?,
        };
        let (rope_theta, rope_scaling) = rope(keys)?;
        Ok(Self {
            family,
            d_model,
            d_ff: keys.count("intermediate_size", default(11008, 14336), 1 << 20)?,
            n_layers: keys.count("num_hidden_layers", 32, DEEPEST)?,
            n_heads,
            n_kv_heads,
            d_head,
            vocab: keys.count("vocab_size", 32000, 1 << 24)?,
            activation: keys.one_of("hidden_act", Activation::Silu, &ACTIVATIONS)?,
            epsilon: keys.number("rms_norm_eps", 1e-6, 1e-12, 1e-1)?,
            rope_theta,
            rope_scaling,
            context: positions.min(window),
            attention_bias: !mistral && keys.flag("attention_bias", false)?,
            mlp_bias: !mistral && keys.flag("mlp_bias", false)?,
            tied: tied || keys.flag("tie_word_embeddings", false)?,
        })
    }
}

/// transformers 5 writes `rope_parameters`, older ones `rope_theta` and `rope_scaling`, which counts where both are there.
fn rope(keys: &Keys) -> Result<(f64, RopeScaling), Error> {
    const MOST: f64 = 1e12;
    let newer = keys.object("rope_parameters")?;
    let older = keys.object("rope_scaling")?;
    let from = if older.value.is_none() && newer.value.is_some() { &newer } else { &older };
    let theta = from.number("rope_theta", keys.number("rope_theta", 1e4, 1.0, MOST)?, 1.0, MOST)?;
    let factor = |key: &str| match from.get(key) {
        Some(_) => from.number(key, 1.0, 1e-6, MOST),
        None => Err(Error::Config { key: format!("{}{key}", from.path), why: "expected a number, got none".into() }),
    };
    let kind = from.text("rope_type", from.text("type", "default")?)?;
    let scaling = match kind {
        "default" => RopeScaling::Default,
        "linear" => RopeScaling::Linear { factor: factor("factor")? },
        "llama3" => RopeScaling::Llama3 {
            factor: factor("factor")?,
            low: factor("low_freq_factor")?,
            high: factor("high_freq_factor")?,
            original: factor("original_max_position_embeddings")?,
        },
        other => {
            let why = format!("expected default, linear or llama3, got {other}");
            return Err(Error::Config { key: format!("{}rope_type", from.path), why });
        }
    };
    Ok((theta, scaling))
}

impl FocusConfig {
    fn from_keys(keys: &Keys, n_layers: usize) -> Result<Self, Error> {
        let scales = keys.pairs("scales", 0, 64)?.unwrap_or(vec![(4, 4), (2, 2), (1, 1)]);
        let text_layer = match keys.get("text_layer") {
            Some(_) => Some(keys.count_in("text_layer", 0, 0, n_layers - 1)?),
            None => Some(8).filter(|&layer| layer < n_layers),
        };
        let gamma = keys.number("gamma", 0.85, 0.0, 1.0)?;
        if gamma == 0.0 {
            return Err(Error::Config {
                key: format!("{}gamma", keys.path),
                why: "expected more than 0, got 0".into(),
            });
        }
        Ok(Self {
            window: keys.count("window", 4, 64)?,
            scales: scales.into_iter().map(|(rows, cols)| Scale::new(rows, cols)).collect(),
            text_layer,
            gamma,
            score_rope: keys.flag("score_rope", false)?,
            thumbnail: keys.one_of("thumbnail", true, &[("keep", true), ("drop", false)])?,
        })
    }
}
