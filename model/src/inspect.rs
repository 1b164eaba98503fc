//! What a checkpoint is, without loading it: architecture, dtypes, tensors missing, extra or not finite.

use std::collections::BTreeMap;

use fovea_runtime::weights::StoredDtype;
use serde::Serialize;

use crate::{checkpoint::Checkpoint, config::Config, error::Error, names::Naming};

/// How much of a checkpoint is stored in one dtype.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stored {
    /// Tensors.
    pub tensors: u64,
    /// Their values.
    pub values: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A tensor with a value that is no number.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NonFinite {
    /// Its name.
    pub tensor: String,
    /// The first such value's index.
    pub index: u64,
    /// The value, as text: JSON has no NaN.
    pub value: String,
}

/// What is in a checkpoint.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// Architecture and sampler settings.
    pub config: Config,
    /// The tensors' naming.
    pub naming: Naming,
    /// Whether there is a scale selector.
    pub scale_selector: bool,
    /// The weights' files.
    pub files: Vec<String>,
    /// What the model needs, by the dtype it is stored in.
    pub needed: BTreeMap<String, Stored>,
    /// Needed and not there, or of another shape or dtype: what is wrong with each.
    pub missing: Vec<String>,
    /// There and not needed.
    pub extra: Vec<String>,
    /// Needed tensors with values that are not finite.
    pub non_finite: Vec<NonFinite>,
    /// Ids that end an answer.
    pub stop_ids: Vec<u32>,
    /// Rows of the embedding, and how many have a token.
    pub vocabulary: (usize, usize),
}

/// Reads a checkpoint's headers and every value once, in pieces; allocates no tensor.
///
/// # Errors
/// [`fovea_runtime::Error::Io`] where a file can't be read. What is wrong with tensors is in the result.
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
    let is_needed = |name: &&String| !needed.iter().any(|(n, _)| n == *name);
    Ok(Inspection {
        config: checkpoint.config.clone(),
        naming: checkpoint.names.naming,
        scale_selector: checkpoint.selector,
        files: weights.files().to_vec(),
        needed: by_dtype,
        missing,
        extra: weights.entries().keys().filter(is_needed).cloned().collect(),
        non_finite,
        stop_ids: checkpoint.prompter.stop_ids().to_vec(),
        vocabulary: (
            checkpoint.config.text.vocab,
            checkpoint.prompter.allowed().iter().filter(|&&known| known).count(),
        ),
    })
}
