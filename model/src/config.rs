//! Input: `config.json`. Output: checked numbers.
//!
//! Hugging Face omits a class's defaults from the file; they are applied here. Every number that determines a size is
//! bounded before it is used. The samplers' settings are in the object `focus`, which only Fovea's checkpoints have.

use serde::Serialize;
use serde_json::Value;

use crate::error::Error;

mod keys;
mod activation;
mod vision;
mod text;
mod focus;
mod image;

use activation::ACTIVATIONS;
pub use activation::Activation;
pub use focus::FocusConfig;
pub use image::TileConfig;
pub(crate) use keys::Keys;
use keys::LONGEST_SIDE;
pub use text::{RopeScaling, TextConfig};
pub use vision::VisionConfig;

/// All of `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Config {
    /// The vision tower.
    pub vision: VisionConfig,
    /// The text model.
    pub text: TextConfig,
    /// The samplers.
    pub focus: FocusConfig,
    /// Whether the file has the object `focus`. With it the checkpoint was trained with the samplers, and they are on by
    /// default. Without it the checkpoint is a stock one, and they are off by default.
    pub has_focus: bool,
    /// Nonlinearity between the projector's two layers.
    pub projector_activation: Activation,
    /// Whether the projector's layers have biases.
    pub projector_bias: bool,
    /// The id of the picture in a prompt.
    pub image_token: usize,
    /// Allowed canvases, (height, width) in pixels.
    pub pinpoints: Vec<(usize, usize)>,
}

/// The canvases of LLaVA-NeXT's class default.
const PINPOINTS: [(usize, usize); 5] = [(336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)];
/// Most tiles of a canvas. LLaVA-NeXT has at most 4, related models 36.
const MOST_TILES: usize = 100;

impl Config {
    /// Reads and checks `config.json`.
    ///
    /// # Errors
    /// [`Error::Config`] with the key, the expected and the found value.
    pub fn from_json(json: &Value) -> Result<Self, Error> {
        let keys = Keys::new("config.json", json)?;
        keys.one_of("model_type", (), &[("llava_next", ())])?;
        let tied = keys.flag("tie_word_embeddings", false)?;
        let vision = VisionConfig::from_keys(&keys)?;
        let text = TextConfig::from_keys(&keys.object("text_config")?, tied)?;
        let focus = FocusConfig::from_keys(&keys.object("focus")?, text.n_layers)?;
        let pinpoints = keys.pairs("image_grid_pinpoints", 1, LONGEST_SIDE)?.unwrap_or(PINPOINTS.to_vec());
        if let Some((h, w)) = pinpoints.iter().find(|(h, w)| h % vision.side != 0 || w % vision.side != 0) {
            return Err(Error::Config {
                key: "config.json: image_grid_pinpoints".into(),
                why: format!("expected multiples of the tile's side {}, got [{h}, {w}]", vision.side),
            });
        }
        if let Some((h, w)) = pinpoints.iter().find(|(h, w)| (h / vision.side) * (w / vision.side) > MOST_TILES) {
            return Err(Error::Config {
                key: "config.json: image_grid_pinpoints".into(),
                why: format!("expected canvases of at most {MOST_TILES} tiles, got [{h}, {w}]"),
            });
        }
        keys.one_of("vision_feature_select_strategy", (), &[("default", ())])?;
        // Before transformers 4.50 the key was `image_token_index`.
        let older = keys.count_in("image_token_index", 32000, 0, usize::MAX)?;
        let image_token = keys.count_in("image_token_id", older, 0, usize::MAX)?;
        if image_token >= text.vocab {
            return Err(Error::Config {
                key: "config.json: image_token_id".into(),
                why: format!("expected an id below the vocabulary's {}, got {image_token}", text.vocab),
            });
        }
        Ok(Self {
            projector_activation: keys.one_of("projector_hidden_act", Activation::Gelu, &ACTIVATIONS)?,
            projector_bias: keys.flag("multimodal_projector_bias", true)?,
            image_token,
            pinpoints,
            vision,
            text,
            has_focus: keys.get("focus").is_some(),
            focus,
        })
    }
}
