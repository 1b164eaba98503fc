//! The projector. Input: features of the vision tower. Output: visual tokens, embeddings in the width of the text model.
//!
//! - LLaVA: Linear, activation (the exact GELU by default), Linear (`LlavaNextMultiModalProjector` in Hugging Face's transformers).
//! - SmolVLM: a square of patches becomes one token, then one Linear (`Idefics3Connector`).

use burn::module::Module;
use burn::tensor::Tensor;
use fovea_runtime::network_ops::After;

use crate::{
    config::{Config, ProjectorKind, VisionConfig},
    error::Error,
    linear::Linear,
    load::Loader,
    names::Names,
    pace::{Pace, Steps},
};

/// From features to visual tokens.
#[derive(Module, Debug)]
pub struct Projector {
    linear_1: Linear,
    /// None in a projector of one layer.
    linear_2: Option<Linear>,
}

/// `s` x `s` patches become one token: its features are those of the patches in raster order, side by side.
///
/// # Shapes
/// (tiles, patches, d) -> (tiles, patches / s^2, s^2 d); both in raster order.
fn shuffled(features: Tensor<3>, config: &VisionConfig) -> Tensor<3> {
    let [tiles, _, d] = features.dims();
    let (s, p) = (config.shuffle, config.tokens());
    if s == 1 {
        return features;
    }
    features.reshape([tiles, p, s, p, s, d]).permute([0, 1, 3, 2, 4, 5]).reshape([tiles, p * p, s * s * d])
}

impl Projector {
    /// Loads the projector's tensors.
    ///
    /// # Errors
    /// Those of [`Loader`].
    pub async fn load(load: &Loader<'_>, names: &Names, config: &Config) -> Result<Self, Error> {
        let v = &config.vision;
        let (d, c, bias) = (v.shuffle * v.shuffle * v.d_features(), config.text.d_model, config.projector_bias);
        Ok(Self {
            linear_1: load.linear(names.projector(0), c, d, bias).await?,
            linear_2: match config.projector {
                ProjectorKind::Mlp => Some(load.linear(names.projector(1), c, c, bias).await?),
                ProjectorKind::Shuffle => None,
            },
        })
    }

    /// `W_2 f(W_1 x + b_1) + b_2`, or `W_1 x`, for every token; `steps` limits how many rows are computed at once.
    ///
    /// # Shapes
    /// `features` (tiles, patches, d_features), f32 -> (tiles, P*P, C), f32.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub async fn forward(
        &self,
        features: Tensor<3>,
        config: &Config,
        steps: Steps,
        pace: &Pace,
    ) -> Result<Tensor<3>, Error> {
        let features = shuffled(features, &config.vision);
        let [tiles, patches, d] = features.dims();
        let c = config.text.d_model;
        let most = steps.rows((c * (c + d)) as u64, c.max(d) as u64);
        let features = features.reshape([tiles * patches, d]);
        let mut parts = Vec::new();
        for rows in features.split(most.min(tiles * patches), 0) {
            if !parts.is_empty() {
                pace.check().await?;
            }
            parts.push(match &self.linear_2 {
                Some(linear_2) => {
                    let x = self.linear_1.run(rows, None, After::Activate(config.projector_activation))?;
                    linear_2.forward(x)?
                }
                None => self.linear_1.forward(rows)?,
            });
        }
        Ok(Tensor::cat(parts, 0).reshape([tiles, patches, c]))
    }
}
