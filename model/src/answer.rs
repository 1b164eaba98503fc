//! The types of a question: its options (input), and its events, answer and statistics (output).

use std::{collections::BTreeMap, sync::Arc};

use fovea_runtime::Keep;
use serde::Serialize;

use crate::{
    cancel::Cancel, config::Config, error::Error, looked::Looked, pace::Progress, pick::Pick, prompt::Prompt,
    stage::Stage,
};

/// Options of one question.
#[derive(Clone, Debug)]
pub struct AskOptions {
    /// Whether the vision-guided sampler is on. None: the default of the checkpoint ([`crate::Config::has_focus`]). Without
    /// a selector it is always off.
    pub vision: Option<bool>,
    /// Seed of random scales, uniformly distributed, if the vision-guided sampler is on: the paper's random sampling
    /// (Table 6). Equal for equal seed and size of the map. None: the selector chooses.
    pub random_scales: Option<u64>,
    /// Whether the text-guided sampler is on. None: the default of the checkpoint, or on if `keep` or `layer` is given.
    pub text: Option<bool>,
    /// Budget of the text-guided sampler. None: gamma of the checkpoint.
    pub keep: Option<Keep>,
    /// The decoder layer whose input it prunes. None: that of the checkpoint.
    pub layer: Option<usize>,
    /// Largest number of tokens of the answer.
    pub max_new_tokens: usize,
    /// How tokens are chosen.
    pub pick: Pick,
    /// Whether to keep [`Turn::step_logits`], for conformance.
    pub keep_logits: bool,
    /// Ids at the start of the answer, instead of the chosen ones, for conformance. After them the logits decide again.
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
    /// Whether the vision-guided sampler is requested for a model with this configuration. It also needs a selector.
    pub fn vision_is_on(&self, config: &Config) -> bool {
        self.vision.unwrap_or(config.has_focus)
    }

    /// Whether the text-guided sampler is on in a model with this configuration.
    pub fn text_is_on(&self, config: &Config) -> bool {
        self.text.unwrap_or(config.has_focus || self.keep.is_some() || self.layer.is_some())
    }

    /// Checks the options for a model with `n_layers` decoder layers. [`crate::Conversation::ask`] does this too; this
    /// function serves a caller that has not loaded the model yet.
    ///
    /// # Errors
    /// [`Error::Option`] with the option, the expected and the given value.
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

/// Numbers of visual tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TokenCounts {
    /// Without samplers, as in the stock model.
    pub all: usize,
    /// After the vision-guided sampler: the tokens that enter the text model.
    pub after_vision_sampler: usize,
    /// After the text-guided sampler: the tokens that enter the upper layers.
    pub after_text_sampler: usize,
}

/// Memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MemoryBytes {
    /// Weights on the device.
    pub weights: u64,
    /// KV cache at the end of the answer.
    pub kv_cache: u64,
    /// Peak of this process on the host, if the system reports it.
    pub host_peak: Option<u64>,
}

/// Tokens, time and memory of an answer.
#[derive(Clone, Debug, Serialize)]
pub struct Statistics {
    /// Visual tokens.
    pub tokens: TokenCounts,
    /// Visual tokens per layer, averaged over the layers, relative to all tokens of the family (Sec. 4.4):
    /// `(n - (n - k)(1 - layer / layers)) / stock`.
    pub equivalent_share: f64,
    /// Milliseconds per stage. A stage that was reused from an earlier question is absent.
    pub stage_ms: BTreeMap<Stage, f64>,
    /// Milliseconds from the question to the first token.
    pub first_token_ms: f64,
    /// Tokens per second after the first token; None for an answer of one token.
    pub tokens_per_second: Option<f64>,
    /// Memory.
    pub memory: MemoryBytes,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FinishReason {
    /// The answer ends with a stop token.
    Stop,
    /// The answer has the largest allowed number of tokens.
    Length,
}

/// A complete answer.
#[derive(Clone, Debug)]
pub struct Turn {
    /// The question as tokens.
    pub prompt: Prompt,
    /// The data of the attention overlay, one per picture.
    pub looked: Vec<Arc<Looked>>,
    /// The answer, without special tokens.
    pub text: String,
    /// The ids of the answer, including a stop id.
    pub answer_ids: Vec<u32>,
    /// Why the answer ended.
    pub finish_reason: FinishReason,
    /// Logits of every step, if [`AskOptions::keep_logits`] is set; else empty.
    pub step_logits: Vec<Vec<f32>>,
    /// Tokens, time and memory.
    pub statistics: Statistics,
}

/// An event while a question is answered: ends of stages, progress of a long stage, the attention overlay after both
/// samplers, tokens, and the complete answer as the last event.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub enum Event {
    /// A stage has ended.
    Stage {
        /// The stage.
        stage: Stage,
        /// Its duration.
        milliseconds: f64,
    },
    /// Progress of a long stage; at most a few times per second.
    Progress(Progress),
    /// Both samplers have finished: the data of the attention overlay, one event per picture.
    Looked(Arc<Looked>),
    /// One more token.
    Token {
        /// Its id.
        id: u32,
        /// The text that it adds; empty for special tokens and unfinished characters.
        text: String,
    },
    /// The answer is complete.
    Done(Box<Turn>),
}
