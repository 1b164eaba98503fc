//! From the vision tower's width to the text model's: Linear, exact GELU, Linear.

use burn::module::Module;
use burn::tensor::Tensor;

use crate::{config::Config, error::Error, linear::Linear, load::Loader, names::Names};

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

    /// `features` (tiles, P*P, d_vision) -> (tiles, P*P, C).
    pub fn forward(&self, features: Tensor<3>, config: &Config) -> Tensor<3> {
        let [tiles, patches, d] = features.dims();
        let x = self.linear_1.forward(features.reshape([tiles * patches, d]));
        let x = self.linear_2.forward(config.projector_activation.apply(x));
        x.reshape([tiles, patches, config.text.d_model])
    }
}
