//! What a caller gives with a question, and what comes back while it is answered.

use std::{collections::BTreeMap, sync::Arc};

use fovea_runtime::{Keep, Scale, TokenBox};
use serde::Serialize;

use crate::{cancel::Cancel, config::Config, error::Error, grid::Grid, pace::Progress, pick::Pick, prompt::Prompt};

/// How one question is to be answered.
#[derive(Clone, Debug)]
pub struct AskOptions {
    /// Whether the vision-guided sampler is on. None: as the checkpoint has it ([`crate::Config::has_focus`]). Without a
    /// selector it is off.
    pub vision: Option<bool>,
    /// Seed of a scale drawn evenly for every region, where the vision-guided sampler is on: the paper's random
    /// sampling (Table 6), the same for the same seed and size of the map. None: the selector chooses.
    pub random_scales: Option<u64>,
    /// Whether the text-guided sampler is on. None: as the checkpoint has it, or on where `keep` or `layer` is given.
    pub text: Option<bool>,
    /// Its budget; None: the checkpoint's gamma.
    pub keep: Option<Keep>,
    /// The decoder layer whose input it prunes; None: the checkpoint's.
    pub layer: Option<usize>,
    /// Most tokens of the answer.
    pub max_new_tokens: usize,
    /// How tokens are chosen.
    pub pick: Pick,
    /// Whether [`Turn::step_logits`] is kept, for conformance.
    pub keep_logits: bool,
    /// Ids to answer with, instead of those that the logits would pick, for conformance; after them the logits decide.
    pub forced: Vec<u32>,
    /// Stops the run.
    pub cancel: Cancel,
}

impl Default for AskOptions {
    fn default() -> Self {
        Self {
            vision: None,
            random_scales: None,
            text: None,
            keep: None,
            layer: None,
            max_new_tokens: 128,
            pick: Pick::default(),
            keep_logits: false,
            forced: Vec::new(),
            cancel: Cancel::default(),
        }
    }
}

impl AskOptions {
    /// Whether the vision-guided sampler is wanted of a model with this configuration; a selector is needed as well.
    pub fn vision_is_on(&self, config: &Config) -> bool {
        self.vision.unwrap_or(config.has_focus)
    }

    /// Whether the text-guided sampler runs in a model with this configuration.
    pub fn text_is_on(&self, config: &Config) -> bool {
        self.text.unwrap_or(config.has_focus || self.keep.is_some() || self.layer.is_some())
    }

    /// Whether these settings make sense for a model of `n_layers` decoder layers. [`crate::Conversation::ask`] checks
    /// them too; a caller may want to know before it loads a model.
    ///
    /// # Errors
    /// [`Error::Option`] naming the option, what it may be, and what it was.
    pub fn check(&self, n_layers: usize) -> Result<(), Error> {
        let wrong = |option, expected: String, got: String| Err(Error::Option { option, expected, got });
        match self.keep {
            Some(Keep::Gamma(gamma)) if !(gamma > 0.0 && gamma <= 1.0) => {
                return wrong("gamma", "a number above 0 and at most 1".into(), gamma.to_string());
            }
            Some(Keep::Ratio(ratio)) if !(ratio > 0.0 && ratio <= 1.0) => {
                return wrong("keep", "a ratio above 0 and at most 1".into(), ratio.to_string());
            }
            Some(Keep::Count(0)) => return wrong("keep", "at least 1 token".into(), "0".into()),
            _ => {}
        }
        if let Some(layer) = self.layer.filter(|&layer| layer >= n_layers) {
            return wrong("layer", format!("a layer from 0 to {}", n_layers - 1), layer.to_string());
        }
        if self.max_new_tokens == 0 {
            return wrong("max-new-tokens", "at least 1".into(), "0".into());
        }
        self.pick.check()
    }
}

/// A part of the way to an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Picture to tiles: resize, pad, normalise. On the host.
    Tiles,
    /// Question to token ids: template and tokenizer. On the host.
    Prompt,
    /// Vision tower, projector, map.
    VisionTower,
    /// The vision-guided sampler.
    VisionSampler,
    /// Text before the picture and visual tokens through the layers below the text-guided sampler.
    ImagePrefill,
    /// The question through the same layers, and the text-guided sampler.
    TextSampler,
    /// Survivors and question through the other layers, and the first token.
    Prefill,
    /// Every token after the first.
    Decode,
}

impl Stage {
    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tiles => "tiles",
            Self::Prompt => "prompt",
            Self::VisionTower => "vision_tower",
            Self::VisionSampler => "vision_sampler",
            Self::ImagePrefill => "image_prefill",
            Self::TextSampler => "text_sampler",
            Self::Prefill => "prefill",
            Self::Decode => "decode",
        }
    }
}

/// What the model looked at, for drawing: everything that an overlay needs besides the picture.
#[derive(Clone, Debug)]
pub struct Looked {
    /// Where the map lies on the picture's canvas.
    pub grid: Grid,
    /// Side of a region in patches.
    pub window: usize,
    /// The scales that regions chose from.
    pub scales: Arc<Vec<Scale>>,
    /// Index of every region's scale, chosen or drawn, raster order; empty without the vision-guided sampler.
    pub choice: Arc<Vec<usize>>,
    /// How many visual tokens are the thumbnail's; they come first.
    pub thumbnail: usize,
    /// The patches of each visual token after the thumbnail's; a newline's lie right of the map.
    pub boxes: Arc<Vec<TokenBox>>,
    /// Importance of every visual token; empty without the text-guided sampler.
    pub importance: Vec<f32>,
    /// Indices of the visual tokens that the upper layers saw, rising.
    pub kept: Vec<usize>,
}

/// Counts of visual tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TokenCounts {
    /// LLaVA-NeXT's own.
    pub stock: usize,
    /// After the vision-guided sampler.
    pub vision: usize,
    /// After the text-guided sampler.
    pub text: usize,
}

/// Bytes held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MemoryBytes {
    /// Weights on the device.
    pub weights: u64,
    /// KV cache at the end of the answer.
    pub kv_cache: u64,
    /// Peak of this process on the host, where the system tells.
    pub host_peak: Option<u64>,
}

/// What an answer cost.
#[derive(Clone, Debug, Serialize)]
pub struct Statistics {
    /// Visual tokens.
    pub tokens: TokenCounts,
    /// Tokens per layer, averaged over the layers, over LLaVA-NeXT's: `(n - (n - k)(1 - layer / layers)) / stock`
    /// (Sec. 4.4).
    pub equivalent_share: f64,
    /// Milliseconds by stage. A stage that was reused from an earlier question is not there.
    pub stage_ms: BTreeMap<Stage, f64>,
    /// Milliseconds from the question to the first token.
    pub first_token_ms: f64,
    /// Tokens after the first, by the second; None for an answer of one token.
    pub tokens_per_second: Option<f64>,
    /// Memory.
    pub memory: MemoryBytes,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Turn {
    /// The question as tokens.
    pub prompt: Prompt,
    /// What the model looked at.
    pub looked: Arc<Looked>,
    /// The answer's ids, a stop id included.
    pub answer_ids: Vec<u32>,
    /// Logits of every step, where asked for.
    pub step_logits: Vec<Vec<f32>>,
    /// What it cost.
    pub statistics: Statistics,
}

/// What happens while a question is answered: a stage as it ends, how far a long one is, what was looked at once both samplers are through,
/// tokens as they come, and the whole last.
#[derive(Clone, Debug)]
pub enum Event {
    /// A stage has ended.
    Stage {
        /// Which.
        stage: Stage,
        /// How long it took.
        milliseconds: f64,
    },
    /// A stage that takes long is under way. Comes a few times a second at most.
    Progress(Progress),
    /// Both samplers are through.
    Looked(Arc<Looked>),
    /// One more token.
    Token {
        /// Its id.
        id: u32,
        /// The text that it adds; empty for special tokens and unfinished characters.
        text: String,
    },
    /// The answer is whole.
    Done(Box<Turn>),
}
