//! Input: the object `text_config` of config.json. Output: the checked settings of the text model.
//! Source: `configuration_{llama,mistral,qwen2,granite}.py` in Hugging Face's transformers.

use fovea_runtime::network_ops::{Activation, Heads};
use serde::Serialize;
use serde_json::Value;

use super::{
    activation::{self, ACTIVATIONS},
    keys::{DEEPEST, Keys, WIDEST},
};
use crate::error::Error;

/// Scaling of the rotary frequencies.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RopeScaling {
    /// No scaling.
    Default,
    /// All frequencies divided by a factor.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// That of Llama 3.1: low frequencies are divided, high ones kept, those between interpolated.
    Llama3 {
        /// The factor.
        factor: f64,
        /// Wavelengths above `original / low` are divided by the factor.
        low: f64,
        /// Wavelengths below `original / high` are kept.
        high: f64,
        /// The original context length, in tokens.
        original: f64,
    },
}

/// What makes a kind of text model: one row of [`TEXTS`].
struct Kind {
    /// `model_type` in `text_config`.
    model_type: &'static str,
    /// The class defaults.
    d_ff: usize,
    /// None: as many as query heads.
    n_kv_heads: Option<usize>,
    positions: usize,
    vocab: usize,
    biases: Biases,
    window: Window,
    /// Whether it has the multipliers of Granite.
    multipliers: bool,
}

/// Which linear layers have biases.
enum Biases {
    /// As `attention_bias` (query, key, value, output) and `mlp_bias` say.
    AsConfigured,
    /// None.
    Never,
    /// Query, key and value.
    QueryKeyValue,
}

/// When attention is limited to the last tokens.
enum Window {
    /// Never.
    Never,
    /// Within `sliding_window`, unless it is null.
    Always,
    /// Where `use_sliding_window` is true, in the layers that `layer_types` or `max_window_layers` names.
    IfUsed,
}

const LLAMA: Kind = Kind {
    model_type: "llama",
    d_ff: 11008,
    n_kv_heads: None,
    positions: 2048,
    vocab: 32000,
    biases: Biases::AsConfigured,
    window: Window::Never,
    multipliers: false,
};
const MISTRAL: Kind = Kind {
    model_type: "mistral",
    d_ff: 14336,
    n_kv_heads: Some(8),
    positions: 4096 * 32,
    biases: Biases::Never,
    window: Window::Always,
    ..LLAMA
};
/// Qwen1.5 and Qwen2.
const QWEN2: Kind = Kind {
    model_type: "qwen2",
    d_ff: 22016,
    n_kv_heads: Some(32),
    positions: 32768,
    vocab: 151_936,
    biases: Biases::QueryKeyValue,
    window: Window::IfUsed,
    multipliers: false,
};
const GRANITE: Kind = Kind { model_type: "granite", multipliers: true, ..LLAMA };

const TEXTS: [&Kind; 4] = [&LLAMA, &MISTRAL, &QWEN2, &GRANITE];

/// The text model (Llama, Vicuna, Mistral, Qwen2, Granite).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TextConfig {
    /// `llama`, `mistral`, `qwen2` or `granite`.
    pub family: &'static str,
    /// Width, C.
    pub d_model: usize,
    /// Width of the feed-forward layer.
    pub d_ff: usize,
    /// Number of layers.
    pub n_layers: usize,
    /// Number of query heads.
    pub n_heads: usize,
    /// Number of key and value heads.
    pub n_kv_heads: usize,
    /// Width of a head.
    pub d_head: usize,
    /// Number of rows of the embedding.
    pub vocab: usize,
    /// Nonlinearity.
    #[serde(serialize_with = "activation::name")]
    pub activation: Activation,
    /// Epsilon of the RMS norms.
    pub epsilon: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Scaling of the rotary frequencies.
    pub rope_scaling: RopeScaling,
    /// Largest number of tokens: the positions, or the sliding window if that is shorter.
    pub context: usize,
    /// Whether the linear layers of query, key and value have biases.
    pub qkv_bias: bool,
    /// Whether the attention's output layer has a bias.
    pub output_bias: bool,
    /// Whether the feed-forward's linear layers have biases.
    pub mlp_bias: bool,
    /// Whether the output head shares the weights of the embedding.
    pub tied: bool,
    /// Granite's multipliers; None in all other models.
    pub multipliers: Option<Multipliers>,
}

/// Factors of Granite's activations. Source: `modeling_granite.py` in Hugging Face's transformers. The class of LLaVA-NeXT does not
/// divide the logits by `logits_scaling`, so it is not read.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Multipliers {
    /// Of the embeddings, visual tokens included.
    pub embedding: f64,
    /// Of the attention scores, instead of `1 / sqrt(d_head)`.
    pub attention: f64,
    /// Of what a layer adds to the residual stream.
    pub residual: f64,
}

impl TextConfig {
    /// Multiply-adds of one token in one layer, without the attention scores.
    pub(crate) fn layer_work(&self) -> u64 {
        // Each number is bounded, so no product of three of them exceeds 64 bits.
        let [d, d_ff, heads, d_head] =
            [self.d_model, self.d_ff, self.n_heads + self.n_kv_heads, self.d_head].map(|n| n as u64);
        2 * d * heads * d_head + 3 * d * d_ff
    }

    /// Largest number of values of one token in one buffer of a layer.
    pub(crate) fn widest(&self) -> u64 {
        let joined = (self.n_heads as u64 + 2 * self.n_kv_heads as u64) * self.d_head as u64;
        joined.max(self.d_ff as u64).max(self.d_model as u64)
    }

    /// The heads of the attention.
    pub(crate) fn heads(&self) -> Heads {
        Heads { query: self.n_heads, key: self.n_kv_heads, width: self.d_head }
    }

    /// Factor of the attention scores: `1 / sqrt(d_head)`, or Granite's.
    pub(crate) fn attention_factor(&self) -> f64 {
        self.multipliers.map_or((self.d_head as f64).powf(-0.5), |m| m.attention)
    }

    /// Shape of the keys, or of the values, of `tokens` in one layer.
    pub(crate) fn cache_shape(&self, tokens: usize) -> [usize; 3] {
        [self.n_kv_heads, tokens, self.d_head]
    }

    pub(super) fn from_keys(keys: &Keys, default: &'static str, tied: bool) -> Result<Self, Error> {
        let known = TEXTS.map(|kind| (kind.model_type, kind));
        let kind = TEXTS.into_iter().find(|kind| kind.model_type == default).unwrap_or(&LLAMA);
        let kind = keys.one_of("model_type", kind, &known)?;
        let d_model = keys.count("hidden_size", 4096, WIDEST)?;
        let n_heads = keys.count("num_attention_heads", 32, WIDEST)?;
        let n_kv_heads = keys.count("num_key_value_heads", kind.n_kv_heads.unwrap_or(n_heads), WIDEST)?;
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
        let n_layers = keys.count("num_hidden_layers", 32, DEEPEST)?;
        let positions = keys.count("max_position_embeddings", kind.positions, 1 << 30)?;
        let (rope_theta, rope_scaling) = rope(keys)?;
        let configured = matches!(kind.biases, Biases::AsConfigured);
        let attention_bias = configured && keys.flag("attention_bias", false)?;
        Ok(Self {
            family: kind.model_type,
            d_model,
            d_ff: keys.count("intermediate_size", kind.d_ff, 1 << 20)?,
            n_layers,
            n_heads,
            n_kv_heads,
            d_head,
            vocab: keys.count("vocab_size", kind.vocab, 1 << 24)?,
            activation: keys.one_of("hidden_act", Activation::Silu, &ACTIVATIONS)?,
            epsilon: keys.number("rms_norm_eps", 1e-6, 1e-12, 1e-1)?,
            rope_theta,
            rope_scaling,
            context: positions.min(window(keys, &kind.window, n_layers)?),
            qkv_bias: attention_bias || matches!(kind.biases, Biases::QueryKeyValue),
            output_bias: attention_bias,
            mlp_bias: configured && keys.flag("mlp_bias", false)?,
            tied: tied || keys.flag("tie_word_embeddings", false)?,
            multipliers: if kind.multipliers { Some(multipliers(keys)?) } else { None },
        })
    }
}

/// The sliding window, in tokens. A window shorter than the prompt needs a banded mask, which is not supported: such prompts are
/// too long.
fn window(keys: &Keys, kind: &Window, n_layers: usize) -> Result<usize, Error> {
    const KEY: &str = "sliding_window";
    let is_null = keys.value.and_then(|v| v.get(KEY)).is_some_and(Value::is_null);
    let slides = match kind {
        Window::Never => false,
        Window::Always => true,
        Window::IfUsed => {
            let first = keys.count_in("max_window_layers", 28, 0, 1 << 30)?;
            // A list of the layers' kinds wins over the number of the first one.
            let slides = match keys.get("layer_types").and_then(Value::as_array) {
                Some(kinds) => kinds.iter().any(|kind| kind.as_str() == Some("sliding_attention")),
                None => first < n_layers,
            };
            keys.flag("use_sliding_window", false)? && slides
        }
    };
    if !slides || is_null { Ok(usize::MAX) } else { keys.count(KEY, 4096, 1 << 30) }
}

fn multipliers(keys: &Keys) -> Result<Multipliers, Error> {
    let number = |key: &str| keys.number(key, 1.0, 1e-6, 1e6);
    Ok(Multipliers {
        embedding: number("embedding_multiplier")?,
        attention: number("attention_multiplier")?,
        residual: number("residual_multiplier")?,
    })
}

/// transformers 5 writes `rope_parameters`; older versions write `rope_theta` and `rope_scaling`, which win if both exist.
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
