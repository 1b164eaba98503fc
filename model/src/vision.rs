//! The vision tower: CLIP. Tiles in, one feature per patch out (Sec. 3.1; the hidden state that the config names).

use burn::module::{Module, Param};
use burn::nn::LayerNorm;
use burn::tensor::Tensor;

use crate::{
    attention,
    cancel::Cancel,
    config::{Activation, Config, VisionConfig},
    error::Error,
    linear::{Linear, product},
    load::Loader,
    names::Names,
};

/// One layer: attention and feed-forward, each behind a norm and around a residual.
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
    /// (d_model, 3 * patch * patch): a convolution whose stride is its kernel is a product with every patch.
    patch_embedding: Param<Tensor<2>>,
    /// (P*P + 1, d_model), the class token's first.
    position_embedding: Param<Tensor<2>>,
    pre_layrnorm: LayerNorm,
    layers: Vec<Layer>,
}

impl VisionTower {
    pub(crate) async fn load(load: &Loader<'_>, names: &Names, config: &Config) -> Result<Self, Error> {
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

    /// Features of every patch, without the class token: hidden state `n_used`, no norm after it.
    ///
    /// `pixel_values` (tiles, 3, S, S), f32 -> (tiles, P*P, d_model), f32. All tiles are one batch.
    pub(crate) async fn forward(
        &self,
        pixel_values: Tensor<4>,
        config: &VisionConfig,
        cancel: &Cancel,
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
        for layer in &self.layers {
            cancel.check().await?;
            hidden = layer.forward(hidden, [tiles, tokens, config.n_heads], config.activation);
        }
        Ok(hidden.reshape([tiles, tokens, d]).narrow(1, 1, p * p))
    }
}

impl Layer {
    /// `hidden` (tiles * tokens, d_model) -> the same.
    fn forward(&self, hidden: Tensor<2>, [tiles, tokens, heads]: [usize; 3], activation: Activation) -> Tensor<2> {
        let d = hidden.dims()[1];
        let split = |x: Tensor<2>| x.reshape([tiles, tokens, heads, d / heads]).swap_dims(1, 2);
        let x = self.layer_norm1.forward(hidden.clone());
        let query = split(self.q_proj.forward(x.clone()));
        let key = split(self.k_proj.forward(x.clone()));
        let value = split(self.v_proj.forward(x));
        let seen = attention::full(query, key, value).swap_dims(1, 2).reshape([tiles * tokens, d]);
        let hidden = hidden + self.out_proj.forward(seen);
        let x = self.fc1.forward(self.layer_norm2.forward(hidden.clone()));
        hidden + self.fc2.forward(activation.apply(x))
    }
}
