//! Input: the object `text_config` of config.json. Output: the checked settings of the text model.

use serde::Serialize;
use serde_json::Value;

use super::{
    activation::{ACTIVATIONS, Activation},
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

/// The text model (Llama, Vicuna, Mistral).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TextConfig {
    /// `llama` or `mistral`.
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
    pub activation: Activation,
    /// Epsilon of the RMS norms.
    pub epsilon: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Scaling of the rotary frequencies.
    pub rope_scaling: RopeScaling,
    /// Largest number of tokens: the positions, or Mistral's sliding window if that is shorter.
    pub context: usize,
    /// Whether the attention's linear layers have biases.
    pub attention_bias: bool,
    /// Whether the feed-forward's linear layers have biases.
    pub mlp_bias: bool,
    /// Whether the output head shares the weights of the embedding.
    pub tied: bool,
}

impl TextConfig {
    /// Multiply-adds of one token in one layer, without the attention scores.
    pub(crate) fn layer_work(&self) -> u64 {
        let attention = 2 * self.d_model * (self.n_heads + self.n_kv_heads) * self.d_head;
        (attention + 3 * self.d_model * self.d_ff) as u64
    }

    /// Largest number of values of one token in one buffer of a layer, without the attention scores.
    pub(crate) fn widest(&self) -> u64 {
        self.d_ff.max(self.d_model).max(self.n_heads * self.d_head) as u64
    }

    /// Shape of the keys, or of the values, of `tokens` in one layer.
    pub(crate) fn cache_shape(&self, tokens: usize) -> [usize; 3] {
        [self.n_kv_heads, tokens, self.d_head]
    }

    pub(super) fn from_keys(keys: &Keys, tied: bool) -> Result<Self, Error> {
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
        // A window shorter than the prompt needs a banded mask, which is not supported: such prompts are too long.
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
