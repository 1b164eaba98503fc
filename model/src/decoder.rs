//! The text model (Llama, Vicuna, Mistral, Qwen2, Granite). Input: embeddings. Output: hidden states and logits.
//!
//! One `forward` of a layer serves prefill and decoding: cache and positions are arguments. Training calls the same parts of a
//! layer, [`DecoderLayer::project`] and [`DecoderLayer::after_attention`], around its own attention over a batch.

use burn::module::{Module, Param};
use burn::nn::RmsNorm;
use burn::tensor::{DType, Int, Tensor};
use fovea_runtime::kv_cache::LayerCache;

use crate::{
    attention,
    config::{Config, TextConfig},
    error::Error,
    linear::{Linear, product},
    load::Loader,
    names::Names,
    pace::{Pace, Steps},
    rope::Rotation,
};

/// One decoder layer: attention and a gated feed-forward, each after an RMS norm and inside a residual connection.
#[derive(Module, Debug)]
pub struct DecoderLayer {
    input_layernorm: RmsNorm,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    post_attention_layernorm: RmsNorm,
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
}

/// Embedding, layers, last norm and output head.
#[derive(Module, Debug)]
pub struct Decoder {
    embed_tokens: Param<Tensor<2>>,
    /// The layers, first to last.
    pub layers: Vec<DecoderLayer>,
    norm: RmsNorm,
    /// None if the head shares the embedding's weights.
    lm_head: Option<Param<Tensor<2>>>,
}

impl Decoder {
    /// Loads the text model's tensors.
    ///
    /// # Errors
    /// Those of [`Loader`].
    pub async fn load(load: &Loader<'_>, names: &Names, config: &Config) -> Result<Self, Error> {
        let t = &config.text;
        let (c, q, kv) = (t.d_model, t.n_heads * t.d_head, t.n_kv_heads * t.d_head);
        let embed_tokens = load.matrix(&names.embedding(), [t.vocab, c]).await?;
        let mut layers = Vec::with_capacity(t.n_layers);
        for layer in 0..t.n_layers {
            let name = |rest: &str| names.text_layer(layer, rest);
            layers.push(DecoderLayer {
                input_layernorm: load.rms_norm(&name("input_layernorm.weight"), c, t.epsilon).await?,
                q_proj: load.linear(&name("self_attn.q_proj"), q, c, t.qkv_bias).await?,
                k_proj: load.linear(&name("self_attn.k_proj"), kv, c, t.qkv_bias).await?,
                v_proj: load.linear(&name("self_attn.v_proj"), kv, c, t.qkv_bias).await?,
                o_proj: load.linear(&name("self_attn.o_proj"), c, q, t.output_bias).await?,
                post_attention_layernorm: load.rms_norm(&name("post_attention_layernorm.weight"), c, t.epsilon).await?,
                gate_proj: load.linear(&name("mlp.gate_proj"), t.d_ff, c, t.mlp_bias).await?,
                up_proj: load.linear(&name("mlp.up_proj"), t.d_ff, c, t.mlp_bias).await?,
                down_proj: load.linear(&name("mlp.down_proj"), c, t.d_ff, t.mlp_bias).await?,
            });
        }
        let norm = load.rms_norm(&names.text("norm.weight"), c, t.epsilon).await?;
        let lm_head = if t.tied { None } else { Some(load.matrix(&names.head(), [t.vocab, c]).await?) };
        Ok(Self { embed_tokens, layers, norm, lm_head })
    }

    /// Embeddings of `ids`: (ids, C), f32. The prompter has checked that the ids are below the vocabulary.
    pub(crate) fn embed(&self, ids: &[u32]) -> Tensor<2> {
        let table = self.embed_tokens.val();
        let ids: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
        let at = Tensor::<1, Int>::from_data(ids.as_slice(), &table.device());
        table.select(0, at).cast(DType::F32)
    }

    /// Embeddings of text and visual tokens as the first layer reads them.
    pub(crate) fn enter(&self, embedded: Tensor<2>, config: &TextConfig) -> Tensor<2> {
        scaled(embedded, config.multipliers.map(|m| m.embedding))
    }

    /// Logits of the next token after the last row of `hidden` (tokens, C): (1, vocab), f32.
    pub(crate) fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        let [tokens, c] = hidden.dims();
        self.logits_of(hidden.slice([tokens - 1..tokens, 0..c]))
    }

    /// Logits of the next token after each row of `hidden` (tokens, C): (tokens, vocab), f32.
    pub fn logits_of(&self, hidden: Tensor<2>) -> Tensor<2> {
        let head = self.lm_head.as_ref().unwrap_or(&self.embed_tokens);
        product(self.norm.forward(hidden), head.val())
    }

    /// The embedding of every token, (vocab, C).
    pub fn embeddings(&self) -> Tensor<2> {
        self.embed_tokens.val()
    }
}

/// `factor x`; None: `x`.
fn scaled<const D: usize>(x: Tensor<D>, factor: Option<f64>) -> Tensor<D> {
    match factor {
        Some(factor) => x * factor,
        None => x,
    }
}

/// (tokens, heads * d_head) -> (heads, tokens, d_head).
fn split(x: Tensor<2>, heads: usize) -> Tensor<3> {
    let [tokens, width] = x.dims();
    x.reshape([tokens, heads, width / heads]).swap_dims(0, 1)
}

impl DecoderLayer {
    /// Computes the layer for new tokens. It reads `cache` and adds the new keys and values; with None it starts a cache of dtype
    /// `kept_as`.
    ///
    /// # Shapes
    /// `hidden` (tokens, C), f32 -> the same. `rotation` has the tokens' positions.
    ///
    /// # Errors
    /// [`Error::Cancelled`]; a shape error if two layers of the feed-forward differ in width, which loading excludes.
    pub(crate) async fn forward(
        &self,
        hidden: Tensor<2>,
        rotation: &Rotation,
        cache: Option<LayerCache>,
        config: &TextConfig,
        kept_as: DType,
        (steps, pace): (Steps, &Pace),
    ) -> Result<(Tensor<2>, LayerCache), Error> {
        pace.between(steps).await?;
        let [query, key, value] = self.project(hidden.clone(), rotation, config);
        let cache = match cache {
            None => LayerCache::new(key, value, kept_as),
            Some(mut cache) => {
                cache.append(key, value);
                cache
            }
        };
        let (keys, values) = cache.read();
        pace.between(steps).await?;
        let seen = attention::causal(query, keys, values, steps);
        Ok((self.after_attention(hidden, seen, config, (steps, pace)).await?, cache))
    }

    /// Query, key and value of every token; query and key are rotated to the tokens' positions.
    ///
    /// # Shapes
    /// `hidden` (tokens, C) -> (n_heads, tokens, d_head), and (n_kv_heads, tokens, d_head) twice.
    pub fn project(&self, hidden: Tensor<2>, rotation: &Rotation, config: &TextConfig) -> [Tensor<3>; 3] {
        let x = self.input_layernorm.forward(hidden);
        let query = rotation.apply(split(self.q_proj.forward(x.clone()), config.n_heads));
        // The attention divides the scores by sqrt(d_head); Granite has its own factor.
        let query = scaled(query, config.multipliers.map(|m| m.attention * (config.d_head as f64).sqrt()));
        let key = rotation.apply(split(self.k_proj.forward(x.clone()), config.n_kv_heads));
        [query, key, split(self.v_proj.forward(x), config.n_kv_heads)]
    }

    /// The rest of the layer: output projection, norm, feed-forward, and both residual connections.
    ///
    /// # Shapes
    /// `hidden` (tokens, C) is the layer's input, `seen` (tokens, n_heads * d_head) the output of the attention -> (tokens, C).
    ///
    /// # Errors
    /// As for the whole layer: [`Error::Cancelled`].
    pub async fn after_attention(
        &self,
        hidden: Tensor<2>,
        seen: Tensor<2>,
        config: &TextConfig,
        (steps, pace): (Steps, &Pace),
    ) -> Result<Tensor<2>, Error> {
        let residual = config.multipliers.map(|m| m.residual);
        let hidden = hidden + scaled(self.o_proj.forward(seen), residual);
        let x = self.post_attention_layernorm.forward(hidden.clone());
        pace.between(steps).await?;
        let gate = self.gate_proj.forward(x.clone());
        pace.between(steps).await?;
        let up = self.up_proj.forward(x);
        pace.between(steps).await?;
        let gated = config.activation.gate(gate, up)?;
        Ok(hidden + scaled(self.down_proj.forward(gated), residual))
    }

    /// Queries of the text-guided sampler (Eq. 6): this layer's norm and `W_q`; rotary positions only if `rotation` is given.
    ///
    /// # Shapes
    /// `hidden` (text, C) -> (n_heads, text, d_head).
    pub fn score_query(&self, hidden: Tensor<2>, rotation: Option<&Rotation>, config: &TextConfig) -> Tensor<3> {
        let query = split(self.q_proj.forward(self.input_layernorm.forward(hidden)), config.n_heads);
        rotation.map_or(query.clone(), |r| r.apply(query))
    }

    /// Keys of the text-guided sampler (Eq. 6): this layer's norm and `W_k`; rotary positions only if `rotation` is given.
    ///
    /// # Shapes
    /// `hidden` (visual, C) -> (n_kv_heads, visual, d_head).
    pub fn score_key(&self, hidden: Tensor<2>, rotation: Option<&Rotation>, config: &TextConfig) -> Tensor<3> {
        let key = split(self.k_proj.forward(self.input_layernorm.forward(hidden)), config.n_kv_heads);
        rotation.map_or(key.clone(), |r| r.apply(key))
    }
}
