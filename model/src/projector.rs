//! The projector. Input: features of the vision tower. Output: embeddings in the width of the text model.
//! Linear, activation (the exact GELU by default), Linear: `LlavaNextMultiModalProjector` in Hugging Face's transformers.

use burn::module::Module;
use burn::tensor::Tensor;

use crate::{
    config::Config,
    error::Error,
    linear::Linear,
    load::Loader,
    names::Names,
    pace::{Pace, Steps},
};

/// LLaVA's two-layer projector.
#[derive(Module, Debug)]
pub struct Projector {
    linear_1: Linear,
    linear_2: Linear,
}

impl Projector {
    /// Loads the projector's tensors.
    ///
    /// # Errors
    /// Those of [`Loader`].
    pub async fn load(load: &Loader<'_>, names: &Names, config: &Config) -> Result<Self, Error> {
        let (d, c, bias) = (config.vision.d_model, config.text.d_model, config.projector_bias);
        Ok(Self {
            linear_1: load.linear(names.projector(0), c, d, bias).await?,
            linear_2: load.linear(names.projector(1), c, c, bias).await?,
        })
    }

    /// `W_2 f(W_1 x + b_1) + b_2` for every patch; `steps` limits how many rows are computed at once.
    ///
    /// # Shapes
    /// `features` (tiles, P*P, d_vision), f32 -> (tiles, P*P, C), f32.
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
        let [tiles, patches, d] = features.dims();
        let c = config.text.d_model;
        let most = steps.rows((c * (c + d)) as u64, c.max(d) as u64);
        let features = features.reshape([tiles * patches, d]);
        let mut parts = Vec::new();
        for rows in features.split(most.min(tiles * patches), 0) {
            if !parts.is_empty() {
                pace.check().await?;
            }
            let x = self.linear_1.forward(rows);
            parts.push(self.linear_2.forward(config.projector_activation.apply(x)));
        }
        Ok(Tensor::cat(parts, 0).reshape([tiles, patches, c]))
    }
}
