//! Input: the object `focus` of config.json. Output: the settings of the two samplers.

use fovea_runtime::{Keep, Scale};
use serde::Serialize;

use super::keys::Keys;
use crate::error::Error;

/// Settings of the two samplers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FocusConfig {
    /// Side of a region, in patches.
    pub window: usize,
    /// Max-pool kernels, in the order of the selector's logits.
    #[serde(serialize_with = "scale_names")]
    pub scales: Vec<Scale>,
    /// The decoder layer whose input the text-guided sampler prunes. None if the model has no layer of the default's
    /// number: then nothing is pruned.
    pub text_layer: Option<usize>,
    /// Threshold of the cumulative importance, above 0 and at most 1.
    pub gamma: f64,
    /// Whether queries and keys of the scores have rotary positions.
    pub score_rope: bool,
    /// Whether the text model receives the tokens of the thumbnail.
    pub thumbnail: bool,
}

fn scale_names<S: serde::Serializer>(scales: &[Scale], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(scales.iter().map(Scale::to_string))
}

impl FocusConfig {
    /// The configured budget of the text-guided sampler.
    pub fn keep(&self) -> Keep {
        Keep::Gamma(self.gamma)
    }

    pub(super) fn from_keys(keys: &Keys, n_layers: usize) -> Result<Self, Error> {
        let scales = keys.pairs("scales", 0, 64)?.unwrap_or(vec![(4, 4), (2, 2), (1, 1)]);
        let text_layer = match keys.get("text_layer") {
            Some(_) => Some(keys.count_in("text_layer", 0, 0, n_layers - 1)?),
            None => Some(8).filter(|&layer| layer < n_layers),
        };
        let gamma = keys.number("gamma", 0.85, 0.0, 1.0)?;
        if gamma == 0.0 {
            return Err(Error::Config {
                key: format!("{}gamma", keys.path),
                why: "expected more than 0, got 0".into(),
            });
        }
        Ok(Self {
            window: keys.count("window", 4, 64)?,
            scales: scales.into_iter().map(|(rows, cols)| Scale::new(rows, cols)).collect(),
            text_layer,
            gamma,
            score_rope: keys.flag("score_rope", false)?,
            thumbnail: keys.one_of("thumbnail", true, &[("keep", true), ("drop", false)])?,
        })
    }
}
