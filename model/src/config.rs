//! Input: `config.json`. Output: checked numbers.
//!
//! Hugging Face omits a class's defaults from the file; they are applied here. Every number that determines a size is
//! bounded before it is used. The samplers' settings are in the object `focus`, which only Fovea's checkpoints have.

use serde::Serialize;
use serde_json::Value;

use crate::error::Error;

mod keys;
mod activation;
mod family;
mod vision;
mod text;
mod focus;
mod meteor;
mod image;

use activation::ACTIVATIONS;
use family::Family;
pub use family::{Layout, ProjectorKind};
pub use focus::FocusConfig;
pub use fovea_runtime::network_ops::Activation;
pub use image::{Cut, TileConfig};
pub(crate) use keys::Keys;
pub use meteor::{MeteorConfig, ScanOrder, ScanPlace, ScanSequence};
pub use text::{Multipliers, RopeScaling, TextConfig};
pub use vision::VisionConfig;

/// All of `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Config {
    /// `model_type`, such as `llava_next`.
    pub model_type: &'static str,
    /// The name of the family, such as `LLaVA-NeXT`.
    pub family: &'static str,
    /// The vision tower.
    pub vision: VisionConfig,
    /// The text model.
    pub text: TextConfig,
    /// The samplers.
    pub focus: FocusConfig,
    /// Whether the file has the object `focus`. With it the checkpoint was trained with the samplers, and they are on by
    /// default. Without it the checkpoint is a stock one, and they are off by default.
    pub has_focus: bool,
    /// The fusion of LLaVA-Meteor, in our interpretation, from the object `meteor`; None without it.
    pub meteor: Option<MeteorConfig>,
    /// The layers of the projector.
    pub projector: ProjectorKind,
    /// Nonlinearity between the projector's two layers.
    #[serde(serialize_with = "activation::name")]
    pub projector_activation: Activation,
    /// Whether the projector's layers have biases.
    pub projector_bias: bool,
    /// The id of the picture in a prompt. None in the original layout, whose tokenizers have no token for the picture.
    pub image_token: Option<u32>,
    /// How the tiles of a picture are arranged in the prompt.
    pub layout: Layout,
    /// Whether the checkpoint has the newline embedding.
    pub newline: bool,
}

impl Config {
    /// Reads and checks `config.json`.
    ///
    /// # Errors
    /// [`Error::Config`] with the key, the expected and the found value.
    pub fn from_json(json: &Value) -> Result<Self, Error> {
        let keys = Keys::new("config.json", json)?;
        let family = Family::from_keys(&keys)?;
        let tied = keys.flag("tie_word_embeddings", false)?;
        let vision = VisionConfig::from_keys(&keys, family.vision, family.shuffle(&keys)?)?;
        let text = TextConfig::from_keys(&keys.object("text_config")?, family.text, tied)?;
        let focus = FocusConfig::from_keys(&keys.object("focus")?, text.n_layers)?;
        // Before transformers 4.50 the key was `image_token_index`.
        let older = keys.count_in("image_token_index", family.image_token, 0, usize::MAX)?;
        let image_token = keys.count_in("image_token_id", older, 0, usize::MAX)?;
        if image_token >= text.vocab {
            return Err(Error::Config {
                key: "config.json: image_token_id".into(),
                why: format!("expected an id below the vocabulary's {}, got {image_token}", text.vocab),
            });
        }
        let shuffles = family.projector == ProjectorKind::Shuffle;
        Ok(Self {
            model_type: family.model_type,
            family: family.name,
            projector: family.projector,
            projector_activation: keys.one_of("projector_hidden_act", Activation::Gelu, &ACTIVATIONS)?,
            projector_bias: !shuffles && keys.flag("multimodal_projector_bias", true)?,
            image_token: u32::try_from(image_token).ok(),
            layout: family.layout(&keys, vision.side)?,
            newline: family.newline,
            vision,
            text,
            has_focus: keys.get("focus").is_some(),
            meteor: match keys.get("meteor") {
                Some(_) => Some(MeteorConfig::from_keys(&keys.object("meteor")?)?),
                None => None,
            },
            focus,
        })
    }
}
