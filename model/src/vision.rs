//! The vision tower, CLIP or SigLIP (Sec. 3.1). Input: tiles. Output: the features of each patch, the hidden states that the config
//! selects. Source: Hugging Face's `models/clip/modeling_clip.py`, `models/siglip/modeling_siglip.py` and
//! `models/idefics3/modeling_idefics3.py`. Their layers are equal; what goes before and after them differs, and is optional here.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use fovea_runtime::{
    network_ops::{After, Heads, attend_full},
    read::settle,
};

use crate::{
    config::{Activation, Config, VisionConfig},
    error::Error,
    linear::Linear,
    load::{Loader, ParameterRole},
    names::Names,
    norm::Norm,
    pace::{Pace, Progress, Steps},
    stage::Stage,
    taps::{Tap, Taps, Wanted},
};

/// One layer: attention and feed-forward, each after a norm and inside a residual connection.
#[derive(Module, Debug)]
struct Layer {
    layer_norm1: Norm,
    /// Query, key and value, side by side.
    qkv_proj: Linear,
    out_proj: Linear,
    layer_norm2: Norm,
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
    pre_layrnorm: Option<Norm>,
    layers: Vec<Layer>,
    /// The norm after the last layer, if the features are its output.
    post_layernorm: Option<Norm>,
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
                qkv_proj: load
                    .side_by_side(
                        &["q_proj", "k_proj", "v_proj"].map(|p| (name(&format!("self_attn.{p}")), d)),
                        d,
                        true,
                        ParameterRole::Tower,
                    )
                    .await?,
                out_proj: load.tower(&name("self_attn.out_proj"), d, d, true).await?,
                layer_norm2: load.layer_norm(&name("layer_norm2"), d, v.epsilon).await?,
                fc1: load.tower(&name("mlp.fc1"), v.d_ff, d, true).await?,
                fc2: load.tower(&name("mlp.fc2"), d, v.d_ff, true).await?,
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
    /// unless the tower has one. All tiles are one batch if `steps` allows it. What a compression reads besides them (`wanted`) is
    /// computed on the way.
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
        wanted: &Wanted,
        steps: Steps,
        pace: &Pace,
    ) -> Result<(Tensor<3>, Taps), Error> {
        let [tiles, ..] = pixel_values.dims();
        let (p, side, d) = (config.patches(), config.patch, config.d_model);
        let patches = pixel_values
            // SigLIP's side is no multiple of its patch: the last pixels belong to no patch.
            .narrow(2, 0, p * side)
            .narrow(3, 0, p * side)
            .reshape([tiles, 3, p, side, p, side])
            .permute([0, 2, 4, 1, 3, 5])
            .reshape([tiles * p * p, 3 * side * side]);
        let patches = self.patch_embedding.forward(patches)?.reshape([tiles, p * p, d]);
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
            Some(norm) => norm.forward(hidden)?,
            None => hidden,
        };
        let mut states: Vec<(usize, Tensor<2>)> = Vec::new();
        let mut keep = |at: usize, hidden: &Tensor<2>| {
            if config.feature_layers.contains(&at) && at < config.n_used {
                states.push((at, hidden.clone()));
            }
        };
        let widest = config.d_ff.max(3 * config.d_model) as u64;
        let most = steps.rows(config.layer_work(), widest);
        let mut taps = Taps::default();
        for (i, layer) in self.layers.iter().enumerate() {
            keep(i, &hidden);
            let mut parts = Vec::new();
            let mut tap = Tap::of(wanted, i, i + 1 == self.layers.len());
            // Whole tiles: a tile does not see the others.
            for group in hidden.split((most / tokens).max(1) * tokens, 0) {
                let done = i * tiles * tokens + parts.iter().map(|part: &Tensor<2>| part.dims()[0]).sum::<usize>();
                let total = self.layers.len() * tiles * tokens;
                let progress = Progress { stage: Stage::VisionTower, done: done as u64, total: total as u64 };
                parts.push(layer.forward(group, config, &mut tap, most, (progress, pace)).await?);
            }
            hidden = joined(parts);
            taps.take(tap, i);
            if steps.waits((tiles * tokens) as u64 * config.layer_work()) {
                settle(&hidden).await?;
            }
        }
        if let Some(norm) = &self.post_layernorm {
            hidden = norm.forward(hidden)?;
        }
        states.push((config.n_used, hidden));
        let first = usize::from(config.class_token);
        let of = |at: &usize| {
            let state = states.iter().find(|(i, _)| i == at).map(|(_, state)| state);
            state.map(|state| state.clone().reshape([tiles, tokens, d]))
        };
        let whole: Vec<Tensor<3>> = config.feature_layers.iter().filter_map(of).collect();
        let features = Tensor::cat(whole.iter().map(|state| state.clone().narrow(1, first, p * p)).collect(), 2);
        if wanted.hidden {
            taps.hidden = Some(features.clone());
            let class = whole.last().filter(|_| config.class_token);
            taps.class_hidden = class.map(|state| state.clone().narrow(1, 0, 1).reshape([tiles, d]));
        }
        Ok((features, taps))
    }
}

impl Layer {
    /// The layer over whole tiles, at most `most` rows at once: `hidden` (tiles * tokens, d_model) -> the same.
    async fn forward(
        &self,
        hidden: Tensor<2>,
        config: &VisionConfig,
        tap: &mut Tap,
        most: usize,
        (progress, pace): (Progress, &Pace),
    ) -> Result<Tensor<2>, Error> {
        let rows = hidden.dims()[0];
        let width = config.d_model / config.n_heads;
        let heads = Heads { query: config.n_heads, key: config.n_heads, width };
        let mut qkv = Vec::new();
        for rows in hidden.clone().split(most, 0) {
            pace.step(progress).await?;
            qkv.push(self.qkv_proj.forward(self.layer_norm1.forward(rows)?)?);
        }
        let qkv = joined(qkv);
        if config.class_token {
            tap.read(&qkv, rows / config.places(), heads);
        }
        let seen = attend_full(qkv, rows / config.places(), heads)?;
        let mut parts = Vec::new();
        for (hidden, seen) in hidden.split(most, 0).into_iter().zip(seen.split(most, 0)) {
            pace.step(progress).await?;
            parts.push(self.after_attention(hidden, seen, config.activation)?);
        }
        Ok(joined(parts))
    }

    /// The rest of the layer, after the attention: `hidden` is the input of the layer, `seen` the output of the attention.
    fn after_attention(&self, hidden: Tensor<2>, seen: Tensor<2>, f: Activation) -> Result<Tensor<2>, Error> {
        let add = |residual| After::Add { residual, factor: 1.0 };
        let hidden = self.out_proj.run(seen, None, add(hidden))?;
        let x = self.fc1.run(self.layer_norm2.forward(hidden.clone())?, None, After::Activate(f))?;
        self.fc2.run(x, None, add(hidden))
    }
}

/// Parts of a tensor, one after the other. A single part is not copied.
fn joined(mut parts: Vec<Tensor<2>>) -> Tensor<2> {
    if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(parts, 0) }
}
