//! Loads a checkpoint. Input: an open checkpoint and a device. Output: a model that can answer questions about pictures.

use std::sync::Arc;

use burn::tensor::{DType, Int, Tensor, TensorData};
use fovea_runtime::{Error as RuntimeError, OpenDevice, device::DeviceClass, memory};
use serde_json::{Value, json};

use crate::{
    answer::Turn,
    cancel::Cancel,
    checkpoint::Checkpoint,
    config::{Config, TileConfig},
    decoder::Decoder,
    error::Error,
    load::Loader,
    network::Network,
    pace::Steps,
    picture::Picture,
    plan::{Plan, Stored},
    prompt::Prompter,
    rope::Rope,
};

/// The dtype of the matrices on the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Precision {
    /// f16 if most weights are stored in 16 bits and the device computes in f16, or, on the CPU, if only f16 fits into memory;
    /// else f32.
    #[default]
    Auto,
    /// f32, for any stored dtype.
    F32,
    /// f16, for any stored dtype: half of the memory of f32.
    F16,
}

/// A stage of loading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoadStage {
    /// Reads every value once, to refuse NaN and infinities before anything is allocated.
    Checking,
    /// Copies the tensors to the device.
    Loading,
}

impl LoadStage {
    /// Its name, for users.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Checking => "checking",
            Self::Loading => "loading",
        }
    }
}

/// Progress of loading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadProgress {
    /// The running stage.
    pub stage: LoadStage,
    /// Bytes read in this stage.
    pub done: u64,
    /// Bytes in total in this stage.
    pub total: u64,
}

/// A loaded model.
pub struct Model {
    pub(crate) config: Config,
    pub(crate) tiles: TileConfig,
    pub(crate) prompter: Prompter,
    pub(crate) device: OpenDevice,
    pub(crate) dtype: DType,
    pub(crate) network: Network,
    pub(crate) rope: Rope,
    pub(crate) steps: Steps,
    /// The tokens that may be chosen: bit `i % 32` of word `i / 32`.
    pub(crate) allowed: Tensor<1, Int>,
    notes: Vec<String>,
    weight_bytes: u64,
}

impl Model {
    /// Checks that the model fits, checks every value, and loads tensor by tensor.
    ///
    /// # Errors
    /// [`fovea_runtime::Error::OutOfMemory`] before anything is allocated, if the plan does not fit;
    /// [`fovea_runtime::Error::MissingFeature`] if a tensor other than a matrix exceeds the buffers of the device, or if f16 is
    /// requested of a device without it;
    /// [`fovea_runtime::Error::Tensor`] for a value that is not finite; [`Error::Cancelled`]; errors of device and files.
    pub async fn load(
        checkpoint: Checkpoint,
        device: OpenDevice,
        precision: Precision,
        cancel: &Cancel,
        progress: impl Fn(LoadProgress),
    ) -> Result<Arc<Self>, Error> {
        let have = if device.info.backend == "cpu" { memory::host_available() } else { None };
        let Fit { dtype, plan, note } = fit(&checkpoint, &device, precision, have)?;
        let own = checkpoint.prompter.generation().notes.iter();
        let notes = checkpoint.notes.iter().chain(own).cloned().chain(note).collect();
        // A matrix is cut where a binding is too small; all others must fit.
        for parameter in checkpoint.needed().into_iter().filter(|parameter| !parameter.is_matrix) {
            let (name, need) = (&parameter.name, parameter.values().saturating_mul(4));
            let have = device.info.max_binding_size.min(device.info.max_buffer_size);
            if need > have {
                let what = format!(
                    "room for tensor `{name}`: expected a binding of {need} bytes, got at most {have}; try another --device"
                );
                return Err(RuntimeError::MissingFeature { device: device.info.to_string(), what }.into());
            }
        }
        let report = |stage| {
            let progress = &progress;
            move |done, total| progress(LoadProgress { stage, done, total })
        };
        checkpoint.verify(cancel, report(LoadStage::Checking)).await?;
        let needed = checkpoint.needed();
        let entries = checkpoint.weights.entries();
        let total = needed.iter().filter_map(|p| entries.get(&p.name)).map(|e| e.bytes()).sum();
        let loaded = report(LoadStage::Loading);
        let progress = |done| loaded(done, total);
        let largest = device.info.max_binding_size.min(device.info.max_buffer_size);
        let load = Loader::new(&checkpoint.weights, &device.device, dtype, cancel, &progress).cut_at(largest);
        let (names, config) = (&checkpoint.names, &checkpoint.config);
        let loading = async {
            let network = Network::load(&load, names, config, checkpoint.selector).await?;
            // A small tensor that comes late: all copies before it are done.
            let last = network.decoder.embed(&[0], &device.device, &config.text)?;
            fovea_runtime::read::settle(&last).await?;
            Ok::<_, Error>(network)
        };
        let network = device.guard(loading).await?;
        Ok(Arc::new(Self {
            rope: Rope::new(&config.text),
            allowed: bits(checkpoint.prompter.allowed(), config.text.vocab, &device),
            steps: Steps::of(&device.info),
            notes,
            weight_bytes: plan.weight_bytes,
            config: checkpoint.config,
            tiles: checkpoint.tiles,
            prompter: checkpoint.prompter,
            device,
            dtype,
            network,
        }))
    }

    pub(crate) fn decoder(&self) -> &Decoder {
        &self.network.decoder
    }

    /// Architecture and sampler settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The device on which it runs.
    pub fn device(&self) -> &OpenDevice {
        &self.device
    }

    /// The text of answer `ids`, without special tokens.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the tokenizer fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String, Error> {
        self.prompter.decode(ids)
    }

    /// An answer as JSON, as `fovea ask --json` and the page report it: `question`, `answer`, `answer_ids`,
    /// `finish_reason`, `tokens`, `equivalent_share`, `timing_ms` (one key per stage, and `first_token`),
    /// `tokens_per_second`, `memory_bytes`, `device` and `dtype`.
    pub fn report(&self, question: &str, turn: &Turn) -> Value {
        let s = &turn.statistics;
        let mut timing = json!(s.stage_ms);
        timing["first_token"] = json!(s.first_token_ms);
        json!({
            "question": question,
            "answer": turn.text,
            "answer_ids": turn.answer_ids,
            "finish_reason": turn.finish_reason,
            "tokens": s.tokens,
            "equivalent_share": s.equivalent_share,
            "timing_ms": timing,
            "tokens_per_second": s.tokens_per_second,
            "memory_bytes": s.memory,
            "device": self.device.info.to_string(),
            "dtype": self.dtype_name(),
        })
    }

    /// Notes for the user, one sentence each: settings of the checkpoint that differ from Hugging Face, and a dtype that was
    /// chosen because of the memory.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// What a stock checkpoint (no `focus` in config.json) could save on a picture of this size, as one sentence. None for a
    /// checkpoint that was trained with the samplers.
    pub fn stock_note(&self, picture: &Picture) -> Option<String> {
        if self.config.has_focus {
            return None;
        }
        let saved = Plan::halved(&self.config, &self.tiles, picture.height(), picture.width());
        let (tokens, what) = match saved {
            (tokens, Some((layer, share))) => {
                let share = 100.0 * share;
                (
                    tokens,
                    format!("keeps about half of them from layer {layer} on, {share:.0} % of the work (estimated)"),
                )
            }
            (tokens, None) => (tokens, "keeps about half of them from a layer that you choose".to_owned()),
        };
        Some(format!(
            "a stock checkpoint (no `focus` in config.json): all {tokens} visual tokens are used, as Hugging Face does; the \
             text-guided sampler, which it was not trained with, {what}"
        ))
    }

    /// Whether it has a scale selector. A stock checkpoint has none, so only the text-guided sampler can be on.
    pub fn has_selector(&self) -> bool {
        self.network.selector.is_some()
    }

    /// The dtype of the matrices.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The name of the dtype in reports: `f32` or `f16`.
    pub fn dtype_name(&self) -> String {
        format!("{:?}", self.dtype).to_lowercase()
    }

    /// Bytes of the weights on the device.
    pub fn weight_bytes(&self) -> u64 {
        self.weight_bytes
    }
}

/// One bit per token of the vocabulary: whether it may be chosen.
fn bits(allowed: &[bool], vocab: usize, device: &OpenDevice) -> Tensor<1, Int> {
    let mut words = vec![0u32; vocab.div_ceil(32)];
    for id in (0..vocab.min(allowed.len())).filter(|&id| allowed[id]) {
        words[id / 32] |= 1 << (id % 32);
    }
    let words: Vec<i32> = words.into_iter().map(|word| word as i32).collect();
    let count = words.len();
    Tensor::from_data(TensorData::new(words, [count]), &device.device)
}

/// How a checkpoint is loaded.
struct Fit {
    dtype: DType,
    plan: Plan,
    /// Why the dtype is not the default, if so.
    note: Option<String>,
}

/// The dtype of the matrices: the requested one; with `Precision::Auto` f16 instead of f32 if only f16 fits into `have` bytes.
///
/// # Errors
/// [`RuntimeError::OutOfMemory`] if the model does not fit; [`RuntimeError::MissingFeature`] if f16 is requested of a device
/// without it.
fn fit(checkpoint: &Checkpoint, device: &OpenDevice, precision: Precision, have: Option<u64>) -> Result<Fit, Error> {
    if precision == Precision::F16 && device.info.class != DeviceClass::Cpu && !device.has_f16() {
        let what = "f16, which the dtype f16 needs: choose f32, or another device".to_owned();
        return Err(RuntimeError::MissingFeature { device: device.info.to_string(), what }.into());
    }
    let of = |dtype: DType| Plan::new(checkpoint, None, Stored::of(dtype));
    let fits = |plan: &Plan| have.is_none_or(|have| plan.peak_bytes() <= have);
    let usual = match precision {
        Precision::F32 => DType::F32,
        Precision::F16 => DType::F16,
        Precision::Auto if device.has_f16() && checkpoint.mostly_16_bit() => DType::F16,
        Precision::Auto => DType::F32,
    };
    let plan = of(usual);
    if fits(&plan) {
        return Ok(Fit { dtype: usual, plan, note: None });
    }
    let (need, available) = (plan.peak_bytes(), have.unwrap_or_default());
    let half = of(DType::F16);
    let hint = match (usual, precision) {
        (DType::F32, Precision::Auto) if fits(&half) => {
            let note = format!(
                "the weights are in f16: in f32 they and one question need {}, {} are available",
                memory::bytes(need),
                memory::bytes(available)
            );
            return Ok(Fit { dtype: DType::F16, plan: half, note: Some(note) });
        }
        (DType::F32, Precision::F32) if fits(&half) => {
            format!("in f16 it needs {}: choose --dtype f16 or auto", memory::bytes(half.peak_bytes()))
        }
        (DType::F32, _) => {
            let needs = memory::bytes(half.peak_bytes());
            format!("in f16 it needs {needs}; use a smaller checkpoint, or a device with more memory")
        }
        _ => "use a smaller checkpoint, or a device with more memory".to_owned(),
    };
    let what = format!("the weights in {usual:?} and one question").to_lowercase();
    Err(RuntimeError::OutOfMemory { what, need, have: available, hint }.into())
}
