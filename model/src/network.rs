//! The network: all modules with weights, in data order. It is the only list of a model's tensors.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use futures_util::FutureExt;

use crate::{
    config::Config,
    decoder::Decoder,
    error::Error,
    load::{Loader, Parameter},
    meteor::MeteorFusion,
    names::Names,
    projector::Projector,
    vision::VisionTower,
    vision_sampler::ScaleSelector,
};

/// The modules of a checkpoint that its family does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// The scale selector of the vision-guided sampler.
    pub selector: bool,
    /// The fusion of LLaVA-Meteor, in our interpretation.
    pub meteor: bool,
}

/// All modules with weights.
#[derive(Module, Debug)]
pub struct Network {
    /// From tiles to features.
    pub tower: VisionTower,
    /// From features to visual tokens.
    pub projector: Projector,
    /// The embedding after every row of the map, (C); None if the family has none.
    pub newline: Option<Param<Tensor<1>>>,
    /// Chooses a scale per region (Eq. 1); None in a stock checkpoint.
    pub selector: Option<ScaleSelector>,
    /// The fusion of LLaVA-Meteor, in our interpretation; None in other checkpoints.
    pub meteor: Option<MeteorFusion>,
    /// The text model.
    pub decoder: Decoder,
}

impl Network {
    /// Loads all modules.
    ///
    /// # Errors
    /// Those of [`Loader`].
    pub async fn load(load: &Loader<'_>, names: &Names, config: &Config, extras: Extras) -> Result<Self, Error> {
        Ok(Self {
            tower: VisionTower::load(load, names, config).await?,
            projector: Projector::load(load, names, config).await?,
            newline: match config.newline {
                true => Some(load.vector(names.newline, config.text.d_model).await?),
                false => None,
            },
            selector: if extras.selector { Some(ScaleSelector::load(load, config).await?) } else { None },
            meteor: if extras.meteor { Some(MeteorFusion::load(load, config).await?) } else { None },
            decoder: Decoder::load(load, names, config).await?,
        })
    }

    /// Every tensor that [`Network::load`] loads, in the order of the modules' fields: a dry run of it.
    pub fn parameters(names: &Names, config: &Config, extras: Extras) -> Vec<Parameter> {
        let listing = Loader::listing();
        // A dry run reads nothing, so it never waits and never fails.
        let _ = Self::load(&listing, names, config, extras).now_or_never();
        listing.listed()
    }
}
