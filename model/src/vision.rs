//! The vision tower, CLIP (Sec. 3.1). Input: tiles. Output: one feature per patch, the hidden state that the config selects.
//! Source: `CLIPVisionTransformer` in Hugging Face's `models/clip/modeling_clip.py`.

use burn::module::{Module, Param};
use burn::nn::LayerNorm;
use burn::tensor::Tensor;
use fovea_runtime::read::settle;

use crate::{
    attention,
    config::{Activation, Config, VisionConfig},
    error::Error,
    linear::{Linear, product},
    load::Loader,
    names::Names,
    pace::{Pace, Progress, Steps},
    stage::Stage,
};

/// One layer: attention and feed-forward, each after a norm and inside a residual connection.
#[derive(Module, Debug)]
struct Layer {
    layer_norm1: LayerNorm,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    layer_norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

/// CLIP's vision tower up to the feature layer.
#[derive(Module, Debug)]
pub struct VisionTower {
    class_embedding: Param<Tensor<1>>,
    /// (d_model, 3 * patch * patch). The stride of the convolution equals its kernel, so it is a product with every patch.
    patch_embedding: Param<Tensor<2>>,
    /// (P*P + 1, d_model), the class token first.
    position_embedding: Param<Tensor<2>>,
    pre_layrnorm: LayerNorm,
    layers: Vec<Layer>,
}

impl VisionTower {
    /// Loads the tensors of the first `n_used` layers, and the embeddings.
    ///
    /// # Errors
    /// Those of [`Loader`].
    pub async fn load(load: &Loader<'_>, names: &Names, config: &Config) -> Result<Self, Error> {
        let v = &config.vision;
        let d = v.d_model;
        let patch = load.f32(&names.vision("embeddings.patch_embedding.weight"), [d, 3, v.patch, v.patch]).await?;
        let patch = patch.reshape([d, 3 * v.patch * v.patch]).cast(load.dtype);
        let places = [v.patches() * v.patches() + 1, d];
        let position = load.f32(&names.vision("embeddings.position_embedding.weight"), places).await?;
        let mut layers = Vec::with_capacity(v.n_used);
        for layer in 0..v.n_used {
            let name = |rest: &str| names.vision_layer(layer, rest);
            layers.push(Layer {
                layer_norm1: load.layer_norm(&name("layer_norm1"), d, v.epsilon).await?,
                q_proj: load.linear(&name("self_attn.q_proj"), d, d, true).await?,
                k_proj: load.linear(&name("self_attn.k_proj"), d, d, true).await?,
                v_proj: load.linear(&name("self_attn.v_proj"), d, d, true).await?,
                out_proj: load.linear(&name("self_attn.out_proj"), d, d, true).await?,
                layer_norm2: load.layer_norm(&name("layer_norm2"), d, v.epsilon).await?,
                fc1: load.linear(&name("mlp.fc1"), v.d_ff, d, true).await?,
                fc2: load.linear(&name("mlp.fc2"), d, v.d_ff, true).await?,
            });
        }
        Ok(Self {
            class_embedding: load.vector(&names.vision("embeddings.class_embedding"), d).await?,
            patch_embedding: Param::from_tensor(patch),
            position_embedding: Param::from_tensor(position),
            pre_layrnorm: load.layer_norm(&names.pre_layer_norm(), d, v.epsilon).await?,
            layers,
        })
    }

    /// Features of every patch, without the class token: hidden state `n_used`, without a norm after it. All tiles are one batch if
    /// `steps` allows it.
    ///
    /// # Shapes
    /// `pixel_values` (tiles, 3, S, S), f32 -> (tiles, P*P, d_model), f32.
    ///
    /// # Errors
    /// [`Error::Cancelled`]; a device error if waiting for the device fails.
    pub async fn forward(
        &self,
        pixel_values: Tensor<4>,
        config: &VisionConfig,
        steps: Steps,
        pace: &Pace,
    ) -> Result<Tensor<3>, Error> {
        let [tiles, ..] = pixel_values.dims();
        let (p, side, d) = (config.patches(), config.patch, config.d_model);
        let patches = pixel_values
            .reshape([tiles, 3, p, side, p, side])
            .permute([0, 2, 4, 1, 3, 5])
            .reshape([tiles * p * p, 3 * side * side]);
        let patches = product(patches, self.patch_embedding.val()).reshape([tiles, p * p, d]);
        let class = self.class_embedding.val().reshape([1, 1, d]).expand([tiles, 1, d]);
        let hidden = Tensor::cat(vec![class, patches], 1) + self.position_embedding.val().unsqueeze();
        let tokens = p * p + 1;
        let mut hidden = self.pre_layrnorm.forward(hidden.reshape([tiles * tokens, d]));
        let widest = config.d_ff.max(config.d_model).max(config.n_heads * tokens) as u64;
        let most = steps.rows(config.layer_work(), widest);
        for (i, layer) in self.layers.iter().enumerate() {
            let progress = |done: usize| Progress {
                stage: Stage::VisionTower,
                done: (i * tiles * tokens + done) as u64,
                total: (self.layers.len() * tiles * tokens) as u64,
            };
            pace.step(progress(0)).await?;
            let shape = [tokens, config.n_heads];
            if tiles * tokens <= most {
                hidden = layer.forward(hidden, shape, config.activation);
            } else if tokens <= most {
                // Whole tiles: a tile does not see the others.
                let mut parts = Vec::new();
                for part in hidden.split((most / tokens) * tokens, 0) {
                    pace.step(progress(parts.len() * (most / tokens) * tokens)).await?;
                    parts.push(layer.forward(part, shape, config.activation));
                }
                hidden = Tensor::cat(parts, 0);
            } else {
                let mut parts = Vec::new();
                for tile in hidden.split(tokens, 0) {
                    let (key, value) = layer.keys(tile.clone(), shape, most);
                    for rows in tile.split(most, 0) {
                        pace.step(progress(parts.len() * most)).await?;
                        parts.push(layer.queries(rows, &key, &value, config.n_heads, config.activation));
                    }
                }
                hidden = Tensor::cat(parts, 0);
            }
            if steps.waits((tiles * tokens) as u64 * config.layer_work()) {
                settle(&hidden).await?;
            }
        }
        Ok(hidden.reshape([tiles, tokens, d]).narrow(1, 1, p * p))
    }
}

impl Layer {
    /// The layer over whole tiles: `hidden` (tiles * tokens, d_model) -> the same.
    fn forward(&self, hidden: Tensor<2>, [tokens, heads]: [usize; 2], activation: Activation) -> Tensor<2> {
        let [rows, d] = hidden.dims();
        let tiles = rows / tokens;
        let split = |x: Tensor<2>| x.reshape([tiles, tokens, heads, d / heads]).swap_dims(1, 2);
        let x = self.layer_norm1.forward(hidden.clone());
        let query = split(self.q_proj.forward(x.clone()));
        let key = split(self.k_proj.forward(x.clone()));
        let value = split(self.v_proj.forward(x));
        let seen = attention::full(query, key, value).swap_dims(1, 2).reshape([tiles * tokens, d]);
        self.after_attention(hidden, seen, activation)
    }

    /// Keys and values of one tile, computed `rows` at a time: `hidden` (tokens, d_model) -> (1, heads, tokens, d_head) each.
    fn keys(&self, hidden: Tensor<2>, [tokens, heads]: [usize; 2], rows: usize) -> (Tensor<4>, Tensor<4>) {
        let d = hidden.dims()[1];
        let (keys, values) = hidden
            .split(rows, 0)
            .into_iter()
            .map(|part| {
                let x = self.layer_norm1.forward(part);
                (self.k_proj.forward(x.clone()), self.v_proj.forward(x))
            })
            .unzip();
        let split =
            |parts: Vec<Tensor<2>>| Tensor::cat(parts, 0).reshape([1, tokens, heads, d / heads]).swap_dims(1, 2);
        (split(keys), split(values))
    }

    /// The layer over some rows of a tile, with the keys and values of the whole tile: `hidden` (rows, d_model) -> the same.
    fn queries(
        &self,
        hidden: Tensor<2>,
        key: &Tensor<4>,
        value: &Tensor<4>,
        heads: usize,
        activation: Activation,
    ) -> Tensor<2> {
        let [rows, d] = hidden.dims();
        let query = self.q_proj.forward(self.layer_norm1.forward(hidden.clone()));
        let query = query.reshape([1, rows, heads, d / heads]).swap_dims(1, 2);
        let seen = attention::full(query, key.clone(), value.clone()).swap_dims(1, 2).reshape([rows, d]);
        self.after_attention(hidden, seen, activation)
    }

    /// The rest of the layer, after the attention: `hidden` is the input of the layer, `seen` the output of the attention.
    fn after_attention(&self, hidden: Tensor<2>, seen: Tensor<2>, activation: Activation) -> Tensor<2> {
        let hidden = hidden + self.out_proj.forward(seen);
        let x = self.fc1.forward(self.layer_norm2.forward(hidden.clone()));
        hidden + self.fc2.forward(activation.apply(x))
    }
}
