//! The vision tower, CLIP or SigLIP (Sec. 3.1). Input: tiles. Output: the features of each patch, the hidden states that the config
//! selects. Source: Hugging Face's `models/clip/modeling_clip.py`, `models/siglip/modeling_siglip.py` and
//! `models/idefics3/modeling_idefics3.py`. Their layers are equal; what goes before and after them differs, and is optional here.

use burn::module::{Module, Param};
use burn::nn::LayerNorm;
use burn::tensor::Tensor;
use fovea_runtime::read::settle;

use crate::{
    attention,
    config::{Activation, Config, VisionConfig},
    error::Error,
    linear::Linear,
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

/// A vision tower up to the last feature layer.
#[derive(Module, Debug)]
pub struct VisionTower {
    /// CLIP's token before the patches.
    class_embedding: Option<Param<Tensor<1>>>,
    /// (d_model, 3 * patch * patch), and SigLIP's bias. The stride of the convolution equals its kernel, so it is a product with
    /// every patch.
    patch_embedding: Linear,
    /// (places, d_model), the class token first.
    position_embedding: Param<Tensor<2>>,
    /// CLIP's norm before the first layer.
    pre_layrnorm: Option<LayerNorm>,
    layers: Vec<Layer>,
    /// The norm after the last layer, if the features are its output.
    post_layernorm: Option<LayerNorm>,
}

impl VisionTower {
    /// Loads the tensors of the first `n_used` layers, and what is before and after them.
    ///
    /// # Errors
    /// Those of [`Loader`].
    pub async fn load(load: &Loader<'_>, names: &Names, config: &Config) -> Result<Self, Error> {
        let v = &config.vision;
        let d = v.d_model;
        let class = names.vision("embeddings.class_embedding");
        let class_embedding = if v.class_token { Some(load.vector(&class, d).await?) } else { None };
        let patch = names.vision("embeddings.patch_embedding");
        let weight = load.convolution(&format!("{patch}.weight"), [d, 3, v.patch, v.patch]).await?;
        let bias = if v.patch_bias { Some(load.vector(&format!("{patch}.bias"), d).await?) } else { None };
        let position = names.vision("embeddings.position_embedding.weight");
        let position_embedding = load.exact(&position, [v.places(), d]).await?;
        let pre_layrnorm = match v.pre_norm {
            true => Some(load.layer_norm(&names.pre_layer_norm(), d, v.epsilon).await?),
            false => None,
        };
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
        let post_layernorm = match v.post_norm {
            true => Some(load.layer_norm(&names.post_layer_norm(), d, v.epsilon).await?),
            false => None,
        };
        Ok(Self {
            class_embedding,
            patch_embedding: Linear { weight, bias },
            position_embedding,
            pre_layrnorm,
            layers,
            post_layernorm,
        })
    }

    /// Features of every patch, without the class token: the hidden states `feature_layers` side by side, without a norm after them
    /// unless the tower has one. All tiles are one batch if `steps` allows it.
    ///
    /// # Shapes
    /// `pixel_values` (tiles, 3, S, S), f32 -> (tiles, patches, d_features), f32, patches in raster order.
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
            // SigLIP's side is no multiple of its patch: the last pixels belong to no patch.
            .narrow(2, 0, p * side)
            .narrow(3, 0, p * side)
            .reshape([tiles, 3, p, side, p, side])
            .permute([0, 2, 4, 1, 3, 5])
            .reshape([tiles * p * p, 3 * side * side]);
        let patches = self.patch_embedding.forward(patches).reshape([tiles, p * p, d]);
        let embedded = match &self.class_embedding {
            Some(class) => {
                let class = class.val().reshape([1, 1, d]).expand([tiles, 1, d]);
                Tensor::cat(vec![class, patches], 1)
            }
            None => patches,
        };
        let tokens = config.places();
        let hidden = embedded + self.position_embedding.val().unsqueeze();
        let hidden = hidden.reshape([tiles * tokens, d]);
        let mut hidden = match &self.pre_layrnorm {
            Some(norm) => norm.forward(hidden),
            None => hidden,
        };
        let mut states: Vec<(usize, Tensor<2>)> = Vec::new();
        let mut keep = |at: usize, hidden: &Tensor<2>| {
            if config.feature_layers.contains(&at) && at < config.n_used {
                states.push((at, hidden.clone()));
            }
        };
        let widest = config.d_ff.max(config.d_model).max(config.n_heads * tokens) as u64;
        let most = steps.rows(config.layer_work(), widest);
        for (i, layer) in self.layers.iter().enumerate() {
            let progress = |done: usize| Progress {
                stage: Stage::VisionTower,
                done: (i * tiles * tokens + done) as u64,
                total: (self.layers.len() * tiles * tokens) as u64,
            };
            keep(i, &hidden);
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
        if let Some(norm) = &self.post_layernorm {
            hidden = norm.forward(hidden);
        }
        states.push((config.n_used, hidden));
        let first = usize::from(config.class_token);
        let features = |at: &usize| {
            let state = states.iter().find(|(i, _)| i == at).map(|(_, state)| state);
            state.map(|state| state.clone().reshape([tiles, tokens, d]).narrow(1, first, p * p))
        };
        Ok(Tensor::cat(config.feature_layers.iter().filter_map(features).collect(), 2))
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
