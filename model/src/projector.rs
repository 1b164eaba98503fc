//! From the vision tower's width to the text model's: Linear, exact GELU, Linear.

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
    pub(crate) async fn load(load: &Loader<'_>, names: &Names, config: &Config) -> Result<Self, Error> {
        let (d, c, bias) = (config.vision.d_model, config.text.d_model, config.projector_bias);
        Ok(Self {
            linear_1: load.linear(names.projector(0), c, d, bias).await?,
            linear_2: load.linear(names.projector(1), c, c, bias).await?,
        })
    }

    /// `features` (tiles, P*P, d_vision) -> (tiles, P*P, C), as many rows at a time as `steps` allows.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub(crate) async fn forward(
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
