//! Describes a checkpoint without loading it. Input: an open checkpoint. Output: architecture, dtypes, and tensors that are
//! missing, not used, unknown, or not finite.

use std::collections::{BTreeMap, BTreeSet};

use fovea_runtime::weights::StoredDtype;
use serde::Serialize;

use crate::{checkpoint::Checkpoint, config::Config, error::Error, names::Naming};

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

/// Tensors that the network does not use: the vision tower after the feature layer. Stock checkpoints have them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NotUsed {
    /// Number of tensors.
    pub tensors: u64,
    /// One pattern per layer, and one for the last norm: `vision_tower.vision_model.encoder.layers.23.*`.
    pub names: BTreeSet<String>,
}

/// A tensor with a value that is not finite.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NonFinite {
    /// Its name.
    pub tensor: String,
    /// The index of the first such value.
    pub index: u64,
    /// The value, as text: JSON has no NaN.
    pub value: String,
}

/// What is in a checkpoint.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// Architecture and sampler settings.
    pub config: Config,
    /// The layout of the tensors' names.
    pub naming: Naming,
    /// Whether the checkpoint has a scale selector.
    pub scale_selector: bool,
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
    /// Ids that end an answer.
    pub stop_ids: Vec<u32>,
    /// Number of rows of the embedding, and how many of them have a token.
    pub vocabulary: (usize, usize),
}

/// Reads the headers of a checkpoint, and every needed value once, in pieces. It allocates no tensor.
///
/// # Errors
/// [`fovea_runtime::Error::Io`] if a file cannot be read. Problems of tensors are in the result, not errors.
pub async fn inspect(checkpoint: &Checkpoint) -> Result<Inspection, Error> {
    let (weights, needed) = (&checkpoint.weights, checkpoint.needed());
    let mut by_dtype: BTreeMap<String, Stored> = BTreeMap::new();
    let (mut missing, mut non_finite) = (Vec::new(), Vec::new());
    for (name, shape) in &needed {
        let (entry, dtype) = match weights.check(name, shape) {
            Ok(found) => found,
            Err(wrong) => {
                missing.push(wrong.to_string());
                continue;
            }
        };
        let dtype = match dtype {
            StoredDtype::F32 => "f32",
            StoredDtype::F16 => "f16",
            StoredDtype::Bf16 => "bf16",
        };
        let stored = by_dtype.entry(dtype.to_owned()).or_default();
        stored.tensors += 1;
        stored.values += entry.values();
        stored.bytes += entry.bytes();
        if let Some((index, value)) = weights.first_non_finite(name).await? {
            non_finite.push(NonFinite { tensor: name.clone(), index, value: value.to_string() });
        }
    }
    let needed: BTreeSet<String> = needed.into_iter().map(|(name, _)| name).collect();
    let (mut not_used, mut extra) = (NotUsed::default(), Vec::new());
    for name in weights.entries().keys().filter(|name| !needed.contains(*name)) {
        match checkpoint.names.after_feature_layer(name, &checkpoint.config.vision) {
            Some(pattern) => {
                not_used.tensors += 1;
                not_used.names.insert(pattern);
            }
            None => extra.push(name.clone()),
        }
    }
    Ok(Inspection {
        config: checkpoint.config.clone(),
        naming: checkpoint.names.naming,
        scale_selector: checkpoint.selector,
        files: weights.files().to_vec(),
        needed: by_dtype,
        missing,
        not_used,
        extra,
        non_finite,
        stop_ids: checkpoint.prompter.stop_ids().to_vec(),
        vocabulary: (
            checkpoint.config.text.vocab,
            checkpoint.prompter.allowed().iter().filter(|&&known| known).count(),
        ),
    })
}
