//! The types of a question: its options (input), and its events, answer and statistics (output).

use std::{collections::BTreeMap, sync::Arc};

use serde::Serialize;

use crate::{
    cancel::Cancel,
    compression::{Compression, Fits},
    error::Error,
    looked::Looked,
    pace::Progress,
    pick::Pick,
    prompt::Prompt,
    stage::Stage,
};

/// Most texts that end an answer, and the bytes of the longest one.
const MOST_STOPS: usize = 16;
const LONGEST_STOP: usize = 256;

/// Options of one question.
#[derive(Clone, Debug)]
pub struct AskOptions {
    /// Which visual tokens the text model reads. None: the default of the checkpoint ([`Compression::default_of`]).
    pub compression: Option<Compression>,
    /// Largest number of tokens of the answer.
    pub max_new_tokens: usize,
    /// How tokens are chosen.
    pub pick: Pick,
    /// Texts that end the answer, and are not part of it: at most 16, of 1 to 256 bytes each.
    pub stop: Vec<String>,
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
            compression: None,
            max_new_tokens: 128,
            pick: Pick::default(),
            stop: Vec::new(),
            keep_logits: false,
            forced: Vec::new(),
            cancel: Cancel::default(),
        }
    }
}

impl AskOptions {
    /// The compression of a question to this model.
    pub fn compression_for(&self, model: Fits<'_>) -> Compression {
        self.compression.clone().unwrap_or_else(|| Compression::default_of(model))
    }

    /// Checks the options for a checkpoint. [`crate::Conversation::ask`] does this too; this function serves a caller that has
    /// not loaded the model yet.
    ///
    /// # Errors
    /// [`Error::Option`] with the option, the expected and the given value.
    pub fn check(&self, fits: Fits<'_>) -> Result<(), Error> {
        self.compression_for(fits).check(fits)?;
        if self.max_new_tokens == 0 {
            let (expected, got) = ("at least 1".into(), "0".into());
            return Err(Error::Option { option: "max-new-tokens", expected, got });
        }
        if self.stop.len() > MOST_STOPS || !self.stop.iter().all(|stop| (1..=LONGEST_STOP).contains(&stop.len())) {
            let expected = format!("at most {MOST_STOPS} texts of 1 to {LONGEST_STOP} bytes");
            let bytes: Vec<usize> = self.stop.iter().map(String::len).take(MOST_STOPS + 1).collect();
            let got = format!("{} with the bytes {bytes:?}", self.stop.len());
            return Err(Error::Option { option: "stop", expected, got });
        }
        self.pick.check()
    }
}

/// Numbers of visual tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TokenCounts {
    /// Without compression, as in the stock model.
    pub all: usize,
    /// The tokens that enter the text model.
    pub compressed: usize,
    /// The tokens that the last layer reads.
    pub kept: usize,
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
    /// Visual tokens in the caches of the layers, averaged over the layers, relative to all tokens of the family (Sec. 4.4). 1
    /// for text alone.
    pub equivalent_share: f64,
    /// Milliseconds per stage. A stage that was reused from an earlier question is absent.
    pub stage_ms: BTreeMap<Stage, f64>,
    /// Milliseconds from the question to the first token.
    pub first_token_ms: f64,
    /// Tokens of the prompt (text and visual tokens) whose lower layers were computed for an earlier question.
    pub cached_tokens: usize,
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
    /// The answer ends with a stop token, or before a text of [`AskOptions::stop`].
    Stop,
    /// The answer has the largest allowed number of tokens.
    Length,
}

/// Visual tokens that were dropped between two layers.
#[derive(Clone, Debug, PartialEq)]
pub struct Pruned {
    /// The layer whose input was pruned, from 0.
    pub layer: usize,
    /// Importance of every visual token that was left before.
    pub importance: Vec<f32>,
    /// Indices of those that stay, among all visual tokens, rising.
    pub kept: Vec<usize>,
}

/// A complete answer.
#[derive(Clone, Debug)]
pub struct Turn {
    /// The messages as tokens.
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
    /// Which compression ran.
    pub compression: Compression,
    /// What was dropped inside the model, by rising layer.
    pub pruned: Vec<Pruned>,
    /// Number of visual tokens in every layer.
    pub layers: Vec<usize>,
    /// Tokens, time and memory.
    pub statistics: Statistics,
}

/// An event while a question is answered: ends of stages, progress of a long stage, the attention overlay after the
/// compression, tokens, and the complete answer as the last event.
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
    /// It is known which visual tokens are kept: the data of the attention overlay, one event per picture.
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
