//! Loads a checkpoint. Input: an open checkpoint and a device. Output: a model that can answer questions about pictures.

use std::sync::{Arc, atomic::AtomicBool};

use burn::tensor::{DType, Int, Tensor, TensorData};
use fovea_runtime::{Error as RuntimeError, OpenDevice, device::DeviceClass, helpers, network_ops::rounds_inputs};
use serde_json::{Value, json};

use crate::{
    answer::Turn,
    cancel::Cancel,
    checkpoint::Checkpoint,
    compression::{Compression, Fits},
    config::{Config, TileConfig},
    decoder::Decoder,
    error::Error,
    fit::{Fit, fit},
    load::{Loader, ParameterRole},
    network::Network,
    pace::Steps,
    picture::Picture,
    plan::Plan,
    prompt::Prompter,
    rehearsal,
    rope::Rope,
    storage::{Activations, LoadOptions, Storage, Stored, TowerType},
};

/// A stage of loading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoadStage {
    /// Reads every value once, to refuse NaN and infinities before any weight is copied to the device.
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
    pub(crate) prompter: Arc<Prompter>,
    pub(crate) device: OpenDevice,
    /// How the matrices are stored.
    pub(crate) stored: Stored,
    /// dtype of the KV cache.
    pub(crate) cache: DType,
    /// How the matrices of the vision tower are stored.
    tower: TowerType,
    /// dtype of the matrices that are stored as floats.
    floats: DType,
    /// Whether inputs of products are rounded to 8 bits.
    rounds: bool,
    /// Bytes of memory that the caller allows, if there is a limit.
    pub(crate) memory: Option<u64>,
    pub(crate) network: Network,
    pub(crate) rope: Rope,
    pub(crate) steps: Steps,
    /// The tokens that may be chosen: bit `i % 32` of word `i / 32`.
    pub(crate) allowed: Tensor<1, Int>,
    /// Whether [`Conversation::warm_up`](crate::Conversation::warm_up) has ended once.
    pub(crate) warm: AtomicBool,
    notes: Vec<String>,
    weight_bytes: u64,
    /// Most bytes of a matrix that are converted to f32 at once.
    pub(crate) f32_copies: u64,
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
        options: impl Into<LoadOptions>,
        cancel: &Cancel,
        progress: impl Fn(LoadProgress),
    ) -> Result<Arc<Self>, Error> {
        let options = options.into();
        let (shell, rehearse) = (Shell::of(&checkpoint, &device, options)?, options.rehearsal);
        // A matrix is cut where a binding is too small; all others must fit.
        for parameter in checkpoint.needed().into_iter().filter(|parameter| parameter.role == ParameterRole::Exact) {
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
        let needed = checkpoint.needed();
        let entries = checkpoint.weights.entries();
        let total = needed.iter().filter_map(|p| entries.get(&p.name)).map(|e| e.bytes()).sum();
        let loaded = report(LoadStage::Loading);
        let progress = |done| loaded(done, total);
        let largest = device.info.max_binding_size.min(device.info.max_buffer_size);
        let helpers = helpers::registered().filter(|_| device.info.class == DeviceClass::Cpu);
        let load = Loader::new(&checkpoint.weights, &device.device, shell.storage, cancel, &progress);
        let load = load.cut_at(largest).divided(helpers);
        let (names, config) = (&checkpoint.names, &checkpoint.config);
        let loading = async {
            let checking = checkpoint.verify(cancel, report(LoadStage::Checking));
            rehearsal::beside(checking, (&shell, &checkpoint), rehearse, cancel).await?;
            let network = Network::load(&load, names, config, checkpoint.extras).await?;
            // A small tensor that comes late: all copies before it are done.
            let last = network.decoder.embed(&[0], &device.device, &config.text)?;
            fovea_runtime::read::settle(&last).await?;
            Ok::<_, Error>(network)
        };
        let network = device.guard(loading).await?;
        if device.info.class != DeviceClass::Cpu {
            // Copies on the way to the device are free now. On the CPU their memory serves the first question.
            device.release_unused();
        }
        Ok(shell.with(network))
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
    /// `finish_reason`, `compression`, `tokens`, `equivalent_share`, `timing_ms` (one key per stage, and `first_token`),
    /// `tokens_per_second`, `memory_bytes`, `device`, `dtype`, `cache`, `tower` and `activations`.
    pub fn report(&self, question: &str, turn: &Turn) -> Value {
        let s = &turn.statistics;
        let mut timing = json!(s.stage_ms);
        timing["first_token"] = json!(s.first_token_ms);
        json!({
            "question": question,
            "answer": turn.text,
            "answer_ids": turn.answer_ids,
            "finish_reason": turn.finish_reason,
            "compression": turn.compression,
            "tokens": s.tokens,
            "equivalent_share": s.equivalent_share,
            "timing_ms": timing,
            "tokens_per_second": s.tokens_per_second,
            "memory_bytes": s.memory,
            "device": self.device.info.to_string(),
            "dtype": self.dtype_name(),
            "cache": self.cache_name(),
            "tower": self.tower_name(),
            "activations": self.activations_name(),
        })
    }

    /// Notes for the user, one sentence each: settings of the checkpoint that differ from Hugging Face, a dtype that was
    /// chosen because of the memory or that the file has, and activations that this device or these weights cannot
    /// have.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// What a stock checkpoint (no `focus` in config.json) could save on a picture of this size, as one sentence. None for a
    /// checkpoint that was trained with the samplers.
    pub fn stock_note(&self, picture: &Picture) -> Option<String> {
        if self.config.has_focus || !Compression::default_of(self.fits()).is_none() {
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

    /// What a compression is checked against.
    pub fn fits(&self) -> Fits<'_> {
        Fits { config: &self.config, selector: self.network.selector.is_some(), meteor: self.network.meteor.is_some() }
    }

    /// How the matrices are stored: most of those in the text model's layers.
    pub fn stored(&self) -> Stored {
        self.stored
    }

    /// The name of that in reports: `f32`, `f16`, `q8` or `q4`.
    pub fn dtype_name(&self) -> &'static str {
        self.stored.name()
    }

    /// How the KV cache is stored, in reports: `f32` or `f16`.
    pub fn cache_name(&self) -> &'static str {
        if self.cache == DType::F16 { "f16" } else { "f32" }
    }

    /// How the matrices of the vision tower are stored, in reports: `f32`, `f16` or `q8`.
    pub fn tower_name(&self) -> &'static str {
        match (self.tower, self.floats) {
            (TowerType::Q8, _) => TowerType::Q8.name(),
            (_, DType::F16) => Stored::F16.name(),
            _ => Stored::F32.name(),
        }
    }

    /// How the inputs of products with many rows are stored, in reports: `f32` or `int8`.
    pub fn activations_name(&self) -> &'static str {
        if self.rounds { Activations::Int8.name() } else { Activations::F32.name() }
    }

    /// Bytes of the weights on the device.
    pub fn weight_bytes(&self) -> u64 {
        self.weight_bytes
    }
}

/// A model without its network.
#[derive(Clone)]
pub(crate) struct Shell {
    pub(crate) config: Config,
    pub(crate) tiles: TileConfig,
    pub(crate) prompter: Arc<Prompter>,
    pub(crate) device: OpenDevice,
    pub(crate) storage: Storage,
    pub(crate) rounds: bool,
    pub(crate) notes: Vec<String>,
    pub(crate) weight_bytes: u64,
    pub(crate) f32_copies: u64,
    pub(crate) memory: Option<u64>,
}

impl Shell {
    /// How a checkpoint is loaded.
    ///
    /// # Errors
    /// [`RuntimeError::OutOfMemory`] if it does not fit; [`RuntimeError::MissingFeature`] if f16 is requested of a device without it.
    fn of(checkpoint: &Checkpoint, device: &OpenDevice, options: LoadOptions) -> Result<Self, Error> {
        let have = options.memory.or_else(|| {
            // The buffers of a model that was dropped have its sizes, and do not serve this one.
            device.release_unused();
            device.memory_available()
        });
        let Fit { storage, plan, note } = fit(checkpoint, device, options, have)?;
        let rounds = rounds_inputs(&device.device)
            && checkpoint.needed().iter().any(|parameter| {
                let format = storage.format_of(parameter, &|name| checkpoint.weights.format(name));
                format.is_some_and(|format| storage.rounds(format))
            });
        let unused = (options.activations == Activations::Int8 && !rounds).then(|| {
            "activations are f32: int8 needs weights or a tower in q8 or q4, and a CPU or a GPU that multiplies integers"
                .to_owned()
        });
        let own = checkpoint.prompter.generation().notes.iter();
        Ok(Self {
            config: checkpoint.config.clone(),
            tiles: checkpoint.tiles.clone(),
            prompter: checkpoint.prompter.clone(),
            device: device.clone(),
            storage,
            rounds,
            notes: checkpoint.notes.iter().chain(own).cloned().chain(note).chain(unused).collect(),
            weight_bytes: plan.weight_bytes,
            f32_copies: if device.info.class == DeviceClass::Cpu { plan.f32_copies } else { 0 },
            memory: options.memory,
        })
    }

    /// The model with this network.
    pub(crate) fn with(self, network: Network) -> Arc<Model> {
        let Self { config, tiles, prompter, device, storage, rounds, notes, weight_bytes, f32_copies, memory } = self;
        Arc::new(Model {
            rope: Rope::new(&config.text),
            allowed: bits(prompter.allowed(), config.text.vocab, &device),
            steps: Steps::of(&device.info),
            warm: AtomicBool::new(false),
            stored: storage.loaded(),
            cache: storage.cache,
            tower: storage.tower,
            floats: storage.floats,
            config,
            tiles,
            prompter,
            device,
            rounds,
            memory,
            network,
            notes,
            weight_bytes,
            f32_copies,
        })
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
