//! Describes a checkpoint without loading it: whether it runs, and if not, what to do. Input: its files, of which only config.json
//! must be there. Output: architecture, prompt, memory, dtypes, and tensors that are missing, not used, unknown, or not finite.

use std::collections::{BTreeMap, BTreeSet};

use fovea_runtime::{Error as RuntimeError, source::Source, weights::Weights};
use serde::{Serialize, Serializer};
use serde_json::json;

use crate::{
    checkpoint::{Outline, quantised_weights},
    config::{Config, Cut, TileConfig},
    error::Error,
    gguf::GgufCheckpoint,
    names::Naming,
    plan::Plan,
    storage::{self, LoadOptions},
};

/// The picture for which tokens and memory are given: width and height in pixels.
const PICTURE: (usize, usize) = (672, 672);

/// What to do if weights or tokenizer are not there.
const DOWNLOAD: &str = "download what is missing with `fovea pull ORG/NAME`, or copy it into the folder";
/// What to do if a file cannot be used.
const AGAIN: &str = "correct this file, or download it again with `fovea pull --check ORG/NAME`";
/// What to do if the weights are quantised.
const NOT_QUANTISED: &str = "use the checkpoint from which this one was made";
/// What to do if there is no vision tower in the weights, as in some original LLaVA checkpoints.
const NO_TOWER: &str = "the weights have no vision tower: use a conversion that has one, such as those of llava-hf on the Hugging Face hub";
/// What to do if tensors are missing.
const MISSING: &str =
    "download the weights again with `fovea pull --check ORG/NAME`; config.json must be from the same checkpoint";
/// What to do if tensors have another shape or dtype.
const OTHER_SHAPE: &str = "take config.json and weights from the same checkpoint; their types are in docs/weights.md";
/// What to do if tensors of GGUF files are missing or have another shape or type.
const OTHER_PAIR: &str = "take both GGUF files from one repository; the types that can be read are in docs/weights.md";
/// What to do if values are not finite.
const BROKEN_VALUES: &str =
    "download the file again with `fovea pull --check ORG/NAME`; if the values stay, the checkpoint itself is broken";

/// Whether a checkpoint runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runs {
    /// Yes.
    Yes,
    /// Yes, and there are notes that the user should read.
    WithNotes,
    /// Not before the weights are there.
    NotYet,
    /// No.
    No,
}

impl Runs {
    /// The answer in words, which are stable.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::WithNotes => "yes, with notes",
            Self::NotYet => "not yet",
            Self::No => "no",
        }
    }
}

impl Serialize for Runs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// The part of a checkpoint that is stored in one dtype.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stored {
    /// Number of tensors.
    pub tensors: u64,
    /// Their values.
    pub values: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Tensors that the network does not use and that published checkpoints have, such as vision layers after the feature layer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NotUsed {
    /// Number of tensors.
    pub tensors: u64,
    /// One pattern per layer or kind of tensor: `vision_tower.vision_model.encoder.layers.23.*`.
    pub names: BTreeSet<String>,
}

/// A stored tensor with a value that is not finite; of codes, that of the scales.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NonFinite {
    /// Its name.
    pub tensor: String,
    /// The index of the first such value; in a block of GGUF, that of the block's first value.
    pub index: u64,
    /// The value, as text: JSON has no NaN.
    pub value: String,
}

/// A token of the vocabulary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// Its spelling. None if there is no tokenizer, or if the tokenizer has no such id.
    pub text: Option<String>,
}

/// The token before every prompt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bos {
    /// The token.
    pub token: Token,
    /// What adds it: `template` or `tokenizer`.
    pub added_by: &'static str,
}

/// The prompt: what tokenizer and chat template determine.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PromptFacts {
    /// The file of the chat template, or the name of the built-in conversation.
    pub template: String,
    /// The token before every prompt.
    pub bos: Option<Bos>,
    /// The tokens that end an answer.
    pub stop: Vec<Token>,
    /// Divides the logits of tokens that already occurred; 1 changes nothing.
    pub repetition_penalty: f32,
}

/// Tokens of a picture, without samplers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PictureFacts {
    /// Its width in pixels.
    pub width: usize,
    /// Its height in pixels.
    pub height: usize,
    /// Tiles that the vision tower reads.
    pub tiles: u64,
    /// Visual tokens that enter the text model.
    pub tokens: u64,
}

/// Memory with matrices that are stored in one dtype.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// The dtype.
    pub dtype: &'static str,
    /// Bytes of the weights.
    pub weights: u64,
    /// Largest number of bytes on a GPU during one question about the picture, with every visual token.
    pub peak: u64,
    /// The same on the CPU.
    pub cpu_peak: u64,
}

/// What is in a checkpoint.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// Whether it runs.
    pub runs: Runs,
    /// Why it does not run.
    pub reason: Option<String>,
    /// What to do so that it runs.
    pub next: Option<&'static str>,
    /// What the user should know about answers, one sentence each.
    pub notes: Vec<String>,
    /// Architecture and sampler settings.
    pub config: Config,
    /// Whether config.json has the layout of the original LLaVA, which is translated.
    pub original: bool,
    /// How pictures are cut.
    #[serde(serialize_with = "tiles")]
    pub tiles: TileConfig,
    /// The tokens of a 672x672 picture.
    pub picture: PictureFacts,
    /// The prompt. None if there is no usable tokenizer or chat template.
    pub prompt: Option<PromptFacts>,
    /// The token that stands for the picture. None in the original LLaVA, which has none.
    pub image_token: Option<Token>,
    /// Ids that end an answer.
    pub stop_ids: Vec<u32>,
    /// Number of rows of the embedding, and how many of them have a token; null if there is no usable tokenizer.
    pub vocabulary: (usize, Option<usize>),
    /// The memory of the model, one entry per dtype.
    pub memory: Vec<Memory>,
    /// The layout of the tensors' names. None if there are no usable weights.
    pub naming: Option<Naming>,
    /// Whether the weights have a scale selector.
    pub scale_selector: bool,
    /// Whether the weights have the fusion of LLaVA-Meteor, in our interpretation.
    pub meteor: bool,
    /// Files of the weights.
    pub files: Vec<String>,
    /// The tensors that the model needs, by the dtype in which they are stored.
    pub needed: BTreeMap<String, Stored>,
    /// Needed tensors that are missing, or have another shape or dtype: one sentence for each.
    pub missing: Vec<String>,
    /// Known tensors that the network does not use.
    pub not_used: NotUsed,
    /// All other tensors that the network does not need.
    pub extra: Vec<String>,
    /// Needed tensors that have values which are not finite.
    pub non_finite: Vec<NonFinite>,
}

fn tiles<S: Serializer>(tiles: &TileConfig, serializer: S) -> Result<S::Ok, S::Error> {
    let cut = match &tiles.cut {
        Cut::Anyres { pinpoints, most_tiles } => json!({"anyres": {"pinpoints": pinpoints, "most_tiles": most_tiles}}),
        Cut::Squash => json!("squash"),
        Cut::Pad => json!("pad"),
        Cut::CenterCrop { shortest } => json!({"center_crop": {"shortest": shortest}}),
        Cut::Split { longest, into_tiles } => json!({"split": {"longest": longest, "into_tiles": into_tiles}}),
    };
    json!({"side": tiles.side, "cut": cut}).serialize(serializer)
}

/// Reads the files of a checkpoint, and every needed value once, in pieces. It allocates no tensor.
///
/// # Errors
/// [`Error::Config`] if config.json or the settings of the image processor are not supported; an I/O error if config.json or a value
/// cannot be read. Problems of all other files are in the result, not errors.
pub async fn inspect(source: Source) -> Result<Inspection, Error> {
    let mut outline = Outline::open(&source).await?;
    let gguf = GgufCheckpoint::present(&source);
    let present = gguf || Weights::present(&source);
    let has_tokenizer = gguf || source.contains("tokenizer.json") || source.contains("tokenizer.model");
    let prompter = outline.prompter(&source).await;
    let mut problems: Vec<(String, &'static str)> = Vec::new();
    let mut tensors = Tensors::default();
    let weights = outline.open_weights(source).await;
    match &weights {
        Ok(weights) => {
            tensors = Tensors::read(&outline, weights).await?;
            problems.extend(tensors.problem(&outline, weights));
        }
        Err(Error::Runtime(RuntimeError::WeightFile { why, .. })) if !present => {
            problems.push((format!("no weights: {why}"), DOWNLOAD));
        }
        Err(wrong) => problems.push((wrong.to_string(), AGAIN)),
    }
    let mut notes = outline.notes.clone();
    let (mut prompt, mut known): (Option<PromptFacts>, Option<usize>) = (None, None);
    let mut image_token = outline.config.image_token.map(|id| Token { id, text: None });
    match prompter {
        Ok((prompter, template)) => {
            let generation = prompter.generation();
            let token = |id| Token { id, text: prompter.spelling(id) };
            let bos = prompter.bos()?.map(|(id, added_by)| Bos { token: token(id), added_by });
            let stop = generation.stop_ids.iter().map(|&id| token(id)).collect();
            notes.extend(generation.notes.iter().cloned());
            prompt = Some(PromptFacts { template, bos, stop, repetition_penalty: generation.repetition_penalty });
            known = Some(prompter.allowed().iter().filter(|&&known| known).count());
            image_token = prompter.image_token().map(|(id, text)| Token { id, text: Some(text.to_owned()) });
        }
        Err(_) if !has_tokenizer => problems.push(("no tokenizer.json".to_owned(), DOWNLOAD)),
        Err(wrong) => problems.push((wrong.to_string(), AGAIN)),
    }
    if outline.config.has_focus && tensors.naming.is_some() && !outline.extras.selector {
        notes.push("the weights have no scale selector: the vision-guided sampler stays off".to_owned());
    }
    let options = LoadOptions::default();
    let planned = |stored| Plan::without_weights(&outline, weights.as_ref().ok(), Some(PICTURE), stored, &options);
    let memory = storage::Stored::ALL.map(|stored| {
        let plan = planned(stored);
        let (weights, peak, cpu_peak) = (plan.weight_bytes, plan.peak_bytes(), plan.cpu_peak);
        Memory { dtype: stored.name(), weights, peak, cpu_peak }
    });
    let Plan { picture: (width, height), tiles, full, .. } = planned(storage::Stored::F32);
    let runs = match (problems.is_empty(), present) {
        (false, false) => Runs::NotYet,
        (false, true) => Runs::No,
        _ if notes.is_empty() => Runs::Yes,
        _ => Runs::WithNotes,
    };
    let reasons: Vec<&str> = problems.iter().map(|(why, _)| why.as_str()).collect();
    let stop_ids = prompt.iter().flat_map(|prompt| &prompt.stop).map(|token| token.id).collect();
    let Tensors { naming, files, needed, missing, not_used, extra, non_finite, .. } = tensors;
    Ok(Inspection {
        runs,
        reason: (!reasons.is_empty()).then(|| reasons.join("; ")),
        next: problems.first().map(|&(_, next)| next),
        notes,
        original: outline.is_original(),
        picture: PictureFacts { width, height, tiles, tokens: full.visual_tokens },
        prompt,
        image_token,
        stop_ids,
        vocabulary: (outline.config.text.vocab, known),
        memory: memory.to_vec(),
        naming,
        scale_selector: outline.extras.selector,
        meteor: outline.extras.meteor,
        files,
        needed,
        missing,
        not_used,
        extra,
        non_finite,
        config: outline.config,
        tiles: outline.tiles,
    })
}

/// What is in the files of the weights.
#[derive(Default)]
struct Tensors {
    naming: Option<Naming>,
    files: Vec<String>,
    needed: BTreeMap<String, Stored>,
    missing: Vec<String>,
    /// Whether a needed tensor exists, but with another shape or dtype.
    other_shape: bool,
    not_used: NotUsed,
    extra: Vec<String>,
    non_finite: Vec<NonFinite>,
}

impl Tensors {
    async fn read(outline: &Outline, weights: &Weights) -> Result<Self, Error> {
        let naming = Some(outline.names.naming);
        let mut found = Self { naming, files: weights.files().to_vec(), ..Self::default() };
        let needed = outline.needed();
        for parameter in &needed {
            let name = &parameter.name;
            let (entry, kind) = match outline.check(weights, parameter) {
                Ok(found) => found,
                Err(wrong) => {
                    found.missing.push(wrong.to_string());
                    found.other_shape |= weights.entries().contains_key(name);
                    continue;
                }
            };
            let stored = found.needed.entry(kind.name()).or_default();
            stored.tensors += 1;
            stored.values += entry.values();
            stored.bytes += entry.bytes();
            if let Some(bad) = weights.first_non_finite(name).await? {
                let (tensor, value) = (bad.tensor, bad.value.to_string());
                found.non_finite.push(NonFinite { tensor, index: bad.index, value });
            }
        }
        let needed: BTreeSet<String> = needed.into_iter().map(|parameter| parameter.name).collect();
        for name in weights.entries().keys().filter(|name| !needed.contains(*name)) {
            if let Some(pattern) = outline.names.not_used(name, &outline.config) {
                found.not_used.tensors += 1;
                found.not_used.names.insert(pattern);
            }
        }
        found.extra = outline.extra(weights);
        Ok(found)
    }

    /// Why the model cannot be loaded from these tensors, and what to do.
    fn problem(&self, outline: &Outline, weights: &Weights) -> Option<(String, &'static str)> {
        let total =
            || format!(" (in total {} missing or wrong, {} not finite)", self.missing.len(), self.non_finite.len());
        if let Some(first) = self.missing.first() {
            if let Some(quantised) = quantised_weights(weights) {
                return Some((quantised.to_string(), NOT_QUANTISED));
            }
            let patches = outline.names.vision("embeddings.patch_embedding.weight");
            let next = match weights.entries().contains_key(&patches) {
                _ if outline.is_gguf() => OTHER_PAIR,
                false => NO_TOWER,
                true if self.other_shape => OTHER_SHAPE,
                true => MISSING,
            };
            return Some((format!("{first}{}", total()), next));
        }
        let NonFinite { tensor, index, value } = self.non_finite.first()?;
        let why = format!("tensor `{tensor}`: expected finite values, got {value} at index {index}{}", total());
        Some((why, BROKEN_VALUES))
    }
}
