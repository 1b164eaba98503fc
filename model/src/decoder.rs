//! The text model (Llama, Vicuna, Mistral, Qwen2, Granite). Input: embeddings. Output: hidden states and logits.
//!
//! One `forward` of a layer serves prefill and decoding: cache and positions are arguments. Training calls the same parts of a
//! layer, [`DecoderLayer::project`] and [`DecoderLayer::after_attention`], around its own attention over a batch.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use fovea_runtime::{
    kv_cache::LayerCache,
    network_ops::{self, After, Cursor, Weight},
};

use crate::{
    config::{Config, TextConfig},
    error::Error,
    linear::Linear,
    load::{Loader, ParameterRole},
    matrix::{Part, weights},
    names::Names,
    norm::Norm,
    pace::{Pace, Steps},
    rope::Rotation,
};

/// One decoder layer: attention and a gated feed-forward, each after an RMS norm and inside a residual connection.
#[derive(Module, Debug)]
pub struct DecoderLayer {
    input_layernorm: Norm,
    /// Query, key and value, side by side.
    qkv_proj: Linear,
    o_proj: Linear,
    post_attention_layernorm: Norm,
    gate_up_proj: Linear,
    down_proj: Linear,
}

/// Embedding, layers, last norm and output head.
#[derive(Module, Debug)]
pub struct Decoder {
    /// Parts of (rows, C).
    embed_tokens: Vec<Part>,
    /// The layers, first to last.
    pub layers: Vec<DecoderLayer>,
    norm: Norm,
    /// Parts of (rows, C). None if the head shares the embedding's weights.
    lm_head: Option<Vec<Part>>,
}

impl Decoder {
    /// Loads the text model's tensors.
    ///
    /// # Errors
    /// Those of [`Loader`].
    pub async fn load(load: &Loader<'_>, names: &Names, config: &Config) -> Result<Self, Error> {
        let t = &config.text;
        let (c, q, kv) = (t.d_model, t.n_heads * t.d_head, t.n_kv_heads * t.d_head);
        let embed_tokens = load.embedding(&names.embedding(), [t.vocab, c], t.tied).await?;
        let mut layers = Vec::with_capacity(t.n_layers);
        for layer in 0..t.n_layers {
            let name = |rest: &str| names.text_layer(layer, rest);
            // The text-guided sampler compares scores of these, and a small error changes which tokens it keeps.
            let scores = config.focus.text_layer == Some(layer);
            layers.push(DecoderLayer {
                input_layernorm: load.rms_norm(&name("input_layernorm.weight"), c, t.epsilon).await?,
                qkv_proj: load
                    .side_by_side(
                        &[
                            (name("self_attn.q_proj"), q),
                            (name("self_attn.k_proj"), kv),
                            (name("self_attn.v_proj"), kv),
                        ],
                        c,
                        t.qkv_bias,
                        if scores { ParameterRole::Float } else { ParameterRole::Layer },
                    )
                    .await?,
                o_proj: load.layer(&name("self_attn.o_proj"), c, q, t.output_bias).await?,
                post_attention_layernorm: load.rms_norm(&name("post_attention_layernorm.weight"), c, t.epsilon).await?,
                gate_up_proj: load.gated([name("mlp.gate_proj"), name("mlp.up_proj")], t.d_ff, c, t.mlp_bias).await?,
                down_proj: load.layer(&name("mlp.down_proj"), c, t.d_ff, t.mlp_bias).await?,
            });
        }
        let norm = load.rms_norm(&names.text("norm.weight"), c, t.epsilon).await?;
        let lm_head = if t.tied { None } else { Some(load.head(&names.head(), [t.vocab, c]).await?) };
        Ok(Self { embed_tokens, layers, norm, lm_head })
    }

    /// Embeddings of `ids` as the first layer reads them: (ids, C), f32. The prompter has checked that the ids are below the
    /// vocabulary; only those of a rehearsal can be above its short one, and count as the last token.
    ///
    /// # Errors
    /// [`fovea_runtime::Error::Shape`] if there is no id.
    pub(crate) fn embed(&self, ids: &[u32], device: &Device, config: &TextConfig) -> Result<Tensor<2>, Error> {
        let words: Vec<i32> = ids.iter().map(|&id| (id as usize).min(config.vocab - 1) as i32).collect();
        self.embed_first(Tensor::from_data(words.as_slice(), device), ids.len(), config)
    }

    /// Embeddings of the first `count` of `ids` on a device, as the first layer reads them: (count, C), f32.
    ///
    /// # Errors
    /// [`fovea_runtime::Error::Shape`] if there are fewer ids.
    pub(crate) fn embed_first(
        &self,
        ids: Tensor<1, Int>,
        count: usize,
        config: &TextConfig,
    ) -> Result<Tensor<2>, Error> {
        let table = weights(&self.embed_tokens);
        Ok(network_ops::embed(ids, count, &table, config.multipliers.map_or(1.0, |m| m.embedding))?)
    }

    /// Logits of the next token after the last row of `hidden` (tokens, C): (1, vocab), f32.
    ///
    /// # Errors
    /// [`fovea_runtime::Error::Shape`] if the width differs.
    pub(crate) fn logits(&self, hidden: Tensor<2>) -> Result<Tensor<2>, Error> {
        let last = hidden.dims()[0] - 1;
        self.logits_of(hidden.narrow(0, last, 1))
    }

    /// Logits of the next token after each row of `hidden` (tokens, C): (tokens, vocab), f32.
    ///
    /// # Errors
    /// [`fovea_runtime::Error::Shape`] if the width differs.
    pub fn logits_of(&self, hidden: Tensor<2>) -> Result<Tensor<2>, Error> {
        let head = weights(self.lm_head.as_ref().unwrap_or(&self.embed_tokens));
        let norm = (self.norm.gamma.val(), self.norm.epsilon);
        Ok(network_ops::linear(hidden, &head, None, Some(norm), After::Nothing)?)
    }

    /// The embedding of every token, (vocab, C).
    pub fn embeddings(&self) -> Tensor<2> {
        Tensor::cat(weights(&self.embed_tokens).iter().map(Weight::floats).collect(), 0)
    }
}

/// (tokens, heads * d_head) -> (heads, tokens, d_head).
fn split(x: Tensor<2>, heads: usize) -> Tensor<3> {
    let [tokens, width] = x.dims();
    x.reshape([tokens, heads, width / heads]).swap_dims(0, 1)
}

impl DecoderLayer {
    /// Computes the layer for new tokens. It reads `cache` and adds the new keys and values.
    ///
    /// # Shapes
    /// `hidden` (tokens, C), f32 -> the same. `rotation` has the tokens' positions, from row `at.first` on.
    ///
    /// # Errors
    /// [`Error::Cancelled`]; [`fovea_runtime::Error::Shape`], which loading excludes.
    pub(crate) async fn forward(
        &self,
        hidden: Tensor<2>,
        (rotation, at): (&Rotation, &Cursor),
        cache: LayerCache,
        config: &TextConfig,
        (steps, pace): (Steps, &Pace),
    ) -> Result<(Tensor<2>, LayerCache), Error> {
        pace.between(steps).await?;
        let qkv = self.qkv_proj.run(hidden.clone(), Some(&self.input_layernorm), After::Nothing)?;
        let (query, cache) = network_ops::rotate_and_store(qkv, rotation.table.clone(), at, cache, config.heads())?;
        pace.between(steps).await?;
        let seen = network_ops::attend(query, &cache, at, config.heads(), config.attention_factor())?;
        Ok((self.after_attention(hidden, seen, config, (steps, pace)).await?, cache))
    }

    /// Query, key and value of every token, for training; query and key are rotated to the tokens' positions.
    ///
    /// # Shapes
    /// `hidden` (tokens, C) -> (n_heads, tokens, d_head), and (n_kv_heads, tokens, d_head) twice.
    ///
    /// # Errors
    /// [`fovea_runtime::Error::Shape`] if the width differs.
    pub fn project(
        &self,
        hidden: Tensor<2>,
        rotation: &Rotation,
        config: &TextConfig,
    ) -> Result<[Tensor<3>; 3], Error> {
        let (q, kv) = (config.n_heads * config.d_head, config.n_kv_heads * config.d_head);
        let qkv = self.qkv_proj.run(hidden, Some(&self.input_layernorm), After::Nothing)?;
        let part = |first: usize, count: usize, heads| split(qkv.clone().narrow(1, first, count), heads);
        let query = rotation.apply(part(0, q, config.n_heads));
        // The attention of training divides the scores by sqrt(d_head); Granite has its own factor.
        let query = match config.multipliers {
            Some(m) => query * (m.attention * (config.d_head as f64).sqrt()),
            None => query,
        };
        let key = rotation.apply(part(q, kv, config.n_kv_heads));
        Ok([query, key, part(q + kv, kv, config.n_kv_heads)])
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
        let factor = config.multipliers.map_or(1.0, |m| m.residual);
        let hidden = self.o_proj.run(seen, None, After::Add { residual: hidden, factor })?;
        pace.between(steps).await?;
        let norm = Some(&self.post_attention_layernorm);
        let gated = self.gate_up_proj.run(hidden.clone(), norm, After::Gate(config.activation))?;
        pace.between(steps).await?;
        self.down_proj.run(gated, None, After::Add { residual: hidden, factor })
    }

    /// Queries of the text-guided sampler (Eq. 6): this layer's norm and `W_q`; rotary positions only if `rotation` is given.
    ///
    /// # Shapes
    /// `hidden` (text, C) -> (n_heads, text, d_head).
    ///
    /// # Errors
    /// [`fovea_runtime::Error::Shape`] if the width differs.
    pub fn score_query(
        &self,
        hidden: Tensor<2>,
        rotation: Option<&Rotation>,
        config: &TextConfig,
    ) -> Result<Tensor<3>, Error> {
        let columns = 0..config.n_heads * config.d_head;
        let query = split(self.qkv_proj.columns(hidden, &self.input_layernorm, columns)?, config.n_heads);
        Ok(rotation.map_or(query.clone(), |r| r.apply(query)))
    }

    /// Keys of the text-guided sampler (Eq. 6): this layer's norm and `W_k`; rotary positions only if `rotation` is given.
    ///
    /// # Shapes
    /// `hidden` (visual, C) -> (n_kv_heads, visual, d_head).
    ///
    /// # Errors
    /// [`fovea_runtime::Error::Shape`] if the width differs.
    pub fn score_key(
        &self,
        hidden: Tensor<2>,
        rotation: Option<&Rotation>,
        config: &TextConfig,
    ) -> Result<Tensor<3>, Error> {
        let first = config.n_heads * config.d_head;
        let columns = first..first + config.n_kv_heads * config.d_head;
        let key = split(self.qkv_proj.columns(hidden, &self.input_layernorm, columns)?, config.n_kv_heads);
        Ok(rotation.map_or(key.clone(), |r| r.apply(key)))
    }
}
