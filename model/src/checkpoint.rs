//! Opens a checkpoint. Input: a directory in the published layout. Output: everything except the values of the weights.
//!
//! It reads configs, tokenizer, template and the headers of the weights, and checks that they match. It allocates no tensor.

use std::{collections::HashSet, sync::Arc};

use fovea_runtime::{
    Error as RuntimeError,
    source::Source,
    weights::{Quantisation, Stored, TensorEntry, Weights, other_content},
};
use serde_json::Value;

use crate::{
    cancel::Cancel,
    chat_template::{read_template, special_names},
    compression::Fits,
    config::{Config, ProjectorKind, TileConfig},
    conversations,
    error::Error,
    gguf::GgufCheckpoint,
    json_files::{read_json, read_optional_json},
    load::Parameter,
    names::{METEOR, Names, SELECTOR},
    network::{Extras, Network},
    original,
    plan::stored_bits,
    prompt::Prompter,
    quantised,
};

/// Largest tokenizer.json, in bytes.
const MAX_TOKENIZER: u64 = 128 << 20;

/// What config.json and the settings of the image processor say.
pub struct Outline {
    /// Architecture and sampler settings.
    pub config: Config,
    /// How pictures are cut.
    pub tiles: TileConfig,
    /// The conversation's template, if the layout of config.json determines it.
    template: Option<&'static str>,
    /// Notes for the user, one sentence each.
    pub notes: Vec<String>,
    /// config.json, translated if it is in the original layout.
    json: Value,
    /// processor_config.json.
    processor: Value,
    /// How the matrices are quantised, if they are.
    quantisation: Option<Quantisation>,
    /// What GGUF files have instead of all other files.
    gguf: Option<GgufCheckpoint>,
    /// Names of the tensors: those of the family on the Hugging Face hub, until the weights are opened.
    pub(crate) names: Names,
    /// The modules that its family does not have, if the weights are open.
    pub(crate) extras: Extras,
}

/// A checkpoint without its weights.
pub struct Blueprint {
    /// Architecture and sampler settings.
    pub config: Config,
    /// How pictures are cut.
    pub tiles: TileConfig,
    /// Tokenizer, chat template and stop ids.
    pub prompter: Prompter,
    /// Notes for the user, one sentence each.
    pub notes: Vec<String>,
}

/// A checkpoint that has been read but not loaded.
pub struct Checkpoint {
    /// Architecture and sampler settings.
    pub config: Config,
    /// How pictures are cut.
    pub tiles: TileConfig,
    /// Tokenizer, chat template and stop ids.
    pub prompter: Arc<Prompter>,
    /// Names of the tensors.
    pub names: Names,
    /// Files and headers of the tensors.
    pub weights: Weights,
    /// The modules that its family does not have.
    pub extras: Extras,
    /// Notes for the user, one sentence each.
    pub notes: Vec<String>,
}

impl Outline {
    /// Reads and checks config.json, and the settings of the image processor if they are there; or the metadata of GGUF files.
    ///
    /// # Errors
    /// [`fovea_runtime::Error::NoCheckpoint`] where there is no config.json and no GGUF file; [`Error::Config`] with
    /// file and key, expected and found value; an I/O error.
    pub async fn open(source: &Source) -> Result<Self, Error> {
        if GgufCheckpoint::present(source) {
            return Self::of_gguf(GgufCheckpoint::open(source).await?);
        }
        if !source.contains("config.json") {
            return Err(no_config(source));
        }
        let mut json = read_json(source, "config.json").await?;
        let own = [
            ("quantize_config.json", read_optional_json(source, "quantize_config.json").await?),
            ("quant_config.json", read_optional_json(source, "quant_config.json").await?),
            ("hf_quant_config.json", read_optional_json(source, "hf_quant_config.json").await?),
        ];
        let quantisation = quantised::settings(&json, &own)?;
        let processor = read_optional_json(source, "processor_config.json").await?;
        let (mut template, mut notes) = (None, Vec::new());
        // transformers 5 writes the settings into the processor's file; the older separate file may still be there, and is
        // then ignored.
        let (mut file, mut image) = match processor.get("image_processor").filter(|v| !v.is_null()) {
            Some(nested) => ("processor_config.json: image_processor", nested.clone()),
            None => ("preprocessor_config.json", read_optional_json(source, "preprocessor_config.json").await?),
        };
        if let Some(translated) = original::translated(&json)? {
            (json, file, image) = (translated.config, "config.json", translated.image);
            template = Some(translated.conversation);
        }
        let mut config = match template {
            None => Config::from_json(&json)?,
            Some(_) => Config::from_json(&json).map_err(original::by_its_own_key)?,
        };
        if template.is_some() {
            config.image_token = None;
        }
        if image.is_null() {
            image = TileConfig::usual(&config);
            let name = config.family;
            notes.push(format!("no preprocessor_config.json: the usual image settings of {name} are assumed"));
        }
        // The processor's canvases pad a picture and the model's canvases unpad it: it is an error if they differ.
        let tiles = TileConfig::from_json(file, &image, &config.layout, config.vision.side)?;
        let names = Names::of_family(config.projector == ProjectorKind::Shuffle);
        Ok(Self {
            config,
            tiles,
            template,
            notes,
            json,
            processor,
            quantisation,
            names,
            extras: Extras::default(),
            gguf: None,
        })
    }

    fn of_gguf(gguf: GgufCheckpoint) -> Result<Self, Error> {
        let own = |error| gguf.in_its_terms(error);
        let mut config = Config::from_json(&gguf.config).map_err(own)?;
        config.image_token = gguf.image_token;
        let tiles = TileConfig::from_json(&gguf.files[1], &gguf.image, &config.layout, config.vision.side);
        let tiles = tiles.map_err(own)?;
        let (notes, json, names) = (gguf.notes.clone(), gguf.config.clone(), Names::hub());
        let (template, processor, quantisation) = (None, Value::Null, None);
        let gguf = Some(gguf);
        Ok(Self {
            config,
            tiles,
            template,
            notes,
            json,
            processor,
            quantisation,
            names,
            extras: Extras::default(),
            gguf,
        })
    }

    /// Every tensor that the model needs; before the weights are opened, by the names of the family on the Hugging Face hub, and
    /// without the modules that the family does not have.
    pub fn needed(&self) -> Vec<Parameter> {
        Network::parameters(&self.names, &self.config, self.extras)
    }

    /// Whether config.json has the layout of the original LLaVA.
    pub(crate) fn is_original(&self) -> bool {
        self.template.is_some()
    }

    /// Tokenizer, chat template and stop ids; and where the template is from.
    pub(crate) async fn prompter(&self, source: &Source) -> Result<(Prompter, String), Error> {
        if let Some(gguf) = &self.gguf {
            let special = special_names(&gguf.tokenizer_config, &Value::Null);
            let settings = [&gguf.generation, &self.json];
            let prompter = Prompter::new(&gguf.tokenizer, gguf.template.clone(), special, settings, &self.config);
            return Ok((prompter.map_err(|error| gguf.in_its_terms(error))?, gguf.template_from.clone()));
        }
        let tokenizer_config = read_optional_json(source, "tokenizer_config.json").await?;
        let special_tokens = read_optional_json(source, "special_tokens_map.json").await?;
        let generation = read_optional_json(source, "generation_config.json").await?;
        let (template, from) = match self.template {
            Some(template) => (template.to_owned(), built_in(template)),
            None => read_template(source, &self.processor, &tokenizer_config).await?,
        };
        if !source.contains("tokenizer.json") && source.contains("tokenizer.model") {
            return Err(original::without_tokenizer_json());
        }
        let tokenizer = source.read("tokenizer.json", MAX_TOKENIZER).await?;
        if let Some(other) = other_content(&tokenizer) {
            let why = format!("expected a tokenizer, got {other}");
            return Err(Error::Tokenizer { file: "tokenizer.json".into(), why });
        }
        let special = special_names(&tokenizer_config, &special_tokens);
        let prompter = Prompter::new(&tokenizer, template, special, [&generation, &self.json], &self.config)?;
        Ok((prompter, from))
    }

    /// Opens the weights, and finds in them the names of the tensors, the output head and the modules that the family does not
    /// have.
    pub(crate) async fn open_weights(&mut self, source: Source) -> Result<Weights, Error> {
        let mut weights = match &self.gguf {
            Some(gguf) => Weights::gguf(source, gguf.files.clone(), gguf.tensors.clone())?,
            None => Weights::open(source).await?,
        };
        if let Some(settings) = &self.quantisation {
            let names = weights.entries().keys().map(String::as_str);
            let packed = matches!(settings, Quantisation::Packed);
            if let Some(wrong) = packed.then(|| quantised::without_zero_points(&self.json, names)).flatten() {
                return Err(wrong);
            }
            weights = weights.with_quantisation(settings).await?;
        }
        self.names = Names::detect(&weights, self.config.text.tied)?;
        // Like Hugging Face (transformers 5.24, `tie_weights`): a head in the file is used, even if the config ties it.
        self.config.text.tied &= self.names.head_is_embedding() || !weights.entries().contains_key(&self.names.head());
        let has = |name: String| weights.entries().contains_key(&name);
        self.extras = Extras {
            selector: has(format!("{SELECTOR}.weight")),
            meteor: has(format!("{METEOR}.blocks.0.norm.weight")),
        };
        let note = self.note_of_extra(&weights);
        self.notes.extend(note);
        Ok(weights)
    }

    /// Checks one needed tensor, as [`Weights::check`] does.
    ///
    /// # Errors
    /// [`fovea_runtime::Error::Tensor`] with file and tensor as they are in the files, expected and got.
    pub(crate) fn check<'a>(
        &self,
        weights: &'a Weights,
        needed: &Parameter,
    ) -> Result<(&'a TensorEntry, Stored), Error> {
        weights.check(&needed.name, &needed.shape).map_err(|wrong| match &self.gguf {
            Some(gguf) => gguf.in_its_terms(wrong.into()),
            None => wrong.into(),
        })
    }

    /// The error of [`Outline::check`], with what to do if it does not say it.
    fn advised(&self, error: Error) -> Error {
        match error {
            Error::Runtime(RuntimeError::Tensor { file, tensor, expected, got }) if !got.contains("; ") => {
                let parts = if self.is_gguf() { "both GGUF files" } else { "config.json and weights" };
                let got = format!("{got}; take {parts} from one repository");
                RuntimeError::Tensor { file, tensor, expected, got }.into()
            }
            other => other,
        }
    }

    /// Whether the checkpoint is in GGUF.
    pub(crate) fn is_gguf(&self) -> bool {
        self.gguf.is_some()
    }

    /// The tensors that the network does not need and that published checkpoints do not have, by their names in the
    /// files.
    pub(crate) fn extra(&self, weights: &Weights) -> Vec<String> {
        let entries = self.extra_entries(weights).into_iter().map(|(_, entry)| entry.own_name().to_owned());
        entries.chain(self.gguf.iter().flat_map(|gguf| gguf.unknown.clone())).collect()
    }

    fn extra_entries<'a>(&self, weights: &'a Weights) -> Vec<(&'a String, &'a TensorEntry)> {
        let needed: HashSet<String> = self.needed().into_iter().map(|parameter| parameter.name).collect();
        let entries = weights.entries().iter().filter(|(name, _)| !needed.contains(*name));
        entries.filter(|(name, _)| self.names.not_used(name, &self.config).is_none()).collect()
    }

    /// A note about tensors that are not used, as Hugging Face warns of them: the network may be another one than that
    /// of the weights.
    fn note_of_extra(&self, weights: &Weights) -> Option<String> {
        let extra = self.extra(weights);
        let first = extra.first()?;
        // More layers in the weights than in the config are the common case.
        let entries = self.extra_entries(weights);
        let layers = |tower: bool, prefix: String, have: usize| {
            let number = |name: &str| name.strip_prefix(&prefix)?.split('.').next()?.parse::<usize>().ok();
            let last = entries.iter().filter_map(|(name, _)| number(name)).max().filter(|last| *last >= have)?;
            let what = if tower { "the vision tower" } else { "the text model" };
            let key = self.layers_key(tower);
            Some(format!("; the weights have {} layers of {what}, {key} says {have}", last.saturating_add(1)))
        };
        let text = layers(false, self.names.text("layers."), self.config.text.n_layers);
        let tower = layers(true, self.names.vision("encoder.layers."), self.config.vision.n_layers);
        let why = text.into_iter().chain(tower).collect::<String>();
        let what = match extra.len() {
            1 => format!("the tensor `{first}` is not used"),
            count => format!("{count} tensors are not used, such as `{first}`"),
        };
        Some(format!("{what}{why}: answers are wrong if the model needs what is not used"))
    }

    /// The key that has the number of layers of the text model, or of the tower; and its file.
    fn layers_key(&self, tower: bool) -> String {
        let key = match (&self.gguf, tower) {
            (Some(gguf), _) => return gguf.layers_key(tower),
            (_, true) => "vision_config.num_hidden_layers",
            _ if self.is_original() => "num_hidden_layers",
            _ => "text_config.num_hidden_layers",
        };
        format!("{key} of config.json")
    }
}

/// The error for a checkpoint without config.json.
fn no_config(source: &Source) -> Error {
    const SHOWN: usize = 5;
    let files: Vec<&str> = source.files().collect();
    let got = match files.len() {
        0 => "the folder has no files".to_owned(),
        count => {
            let rest = if count > SHOWN { format!(" and {} more", count - SHOWN) } else { String::new() };
            format!("the folder has {}{rest}", files[..count.min(SHOWN)].join(", "))
        }
    };
    let why = format!(
        "expected config.json with its weights, or two GGUF files (a text model and its mmproj file), got no such \
         file: {got}; download a checkpoint with `fovea pull ORG/NAME`, or give the folder of one"
    );
    RuntimeError::NoCheckpoint { given: source.name().to_owned(), why }.into()
}

/// The name of a built-in conversation, for users.
fn built_in(template: &str) -> String {
    let names = conversations::names();
    let name = names.split(" or ").find(|name| conversations::conversation(name) == Some(template));
    format!("built in: LLaVA's conversation {}", name.unwrap_or_default())
}

impl Blueprint {
    /// Reads and checks everything except the weights.
    ///
    /// # Errors
    /// [`Error::Config`] or [`Error::Tokenizer`] with file and key, expected and found value; an I/O error.
    pub async fn open(source: &Source) -> Result<Self, Error> {
        let outline = Outline::open(source).await?;
        let (prompter, _) = outline.prompter(source).await?;
        let Outline { config, tiles, notes, .. } = outline;
        Ok(Self { config, tiles, prompter, notes })
    }
}

/// The error for weights whose names show a method of quantisation. Without it, tensors would only look wrong.
pub(crate) fn quantised_weights(weights: &Weights) -> Option<Error> {
    let method = quantised::by_tensors(weights.entries().keys().map(String::as_str))?;
    let file = weights.files().first().cloned().unwrap_or_default();
    Some(RuntimeError::WeightFile { file, why: quantised::sentence(method) }.into())
}

impl Checkpoint {
    /// Reads and checks everything except the values of the tensors.
    ///
    /// # Errors
    /// Those of [`Blueprint::open`]; [`fovea_runtime::Error::Tensor`] or [`fovea_runtime::Error::WeightFile`] with file and
    /// tensor, expected and found value.
    pub async fn open(source: Source) -> Result<Self, Error> {
        let mut outline = Outline::open(&source).await?;
        let (prompter, _) = outline.prompter(&source).await?;
        let weights = outline.open_weights(source).await?;
        for needed in outline.needed() {
            outline
                .check(&weights, &needed)
                .map_err(|wrong| quantised_weights(&weights).unwrap_or_else(|| outline.advised(wrong)))?;
        }
        let Outline { config, tiles, notes, names, extras, .. } = outline;
        let prompter = Arc::new(prompter);
        Ok(Self { config, tiles, prompter, names, weights, extras, notes })
    }

    /// Whether most bytes of the needed tensors are stored in 16 bits.
    pub fn mostly_16_bit(&self) -> bool {
        let (mut half, mut all) = (0, 0);
        for parameter in self.needed() {
            let Some(entry) = self.weights.entries().get(&parameter.name) else { continue };
            all += entry.bytes();
            let is_half = matches!(&entry.stored, Ok(Stored::Float(float)) if float.dtype.size() == 2);
            half += if is_half { entry.bytes() } else { 0 };
        }
        2 * half > all
    }

    /// The bits per code of most values in the layers of the text model; None where most are stored as floats.
    pub fn stored_bits(&self) -> Option<u32> {
        stored_bits(&self.needed(), &self.weights)
    }

    /// What a compression is checked against.
    pub fn fits(&self) -> Fits<'_> {
        let Extras { selector, meteor } = self.extras;
        Fits { config: &self.config, selector, meteor }
    }

    /// Every tensor that the model needs.
    pub fn needed(&self) -> Vec<Parameter> {
        Network::parameters(&self.names, &self.config, self.extras)
    }

    /// Reads every needed value once, to refuse NaN and infinities before any weight is copied to a device.
    ///
    /// `progress` receives the number of bytes read and the total.
    ///
    /// # Errors
    /// [`fovea_runtime::Error::Tensor`] with file, tensor, index and value; [`Error::Cancelled`]; an I/O error.
    pub async fn verify(&self, cancel: &Cancel, mut progress: impl FnMut(u64, u64)) -> Result<(), Error> {
        let needed = self.needed();
        let bytes = |name: &String| self.weights.entries().get(name).map_or(0, |e| e.bytes());
        let total = needed.iter().map(|parameter| bytes(&parameter.name)).sum();
        let mut done = 0;
        for Parameter { name, .. } in &needed {
            cancel.check().await?;
            if let Some(bad) = self.weights.first_non_finite(name).await? {
                return Err(RuntimeError::from(bad).into());
            }
            done += bytes(name);
            progress(done, total);
        }
        Ok(())
    }
}
