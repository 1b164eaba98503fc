//! Training (Sec. 3.2 "Objective", Sec. 9). Input: a run's file with its stages. Output: a checkpoint in the published layout.
//!
//! Training uses the modules of inference; only the forward pass over a batch is separate. The random numbers of a step depend
//! only on the scenes' numbers, the run's seed and the step's number. Every save writes the complete state to disk, so a run that
//! was killed resumes from its last save and gives the same weights as a run without a stop. Native only; it blocks.
//!
//! Data flow of a step: `batch` (scenes to numbers) · `sequence` (indices of the token rows) · `forward` · `losses` · `optimise`.
//! `network` names and stores the weights, `labels` has the classes of the dense labels, `config` reads the run's file.

mod config;
mod labels;
mod network;
mod batch;
mod sequence;
mod forward;
mod losses;
mod optimise;
#[cfg(test)]
mod tests;

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use burn::tensor::{Device, Tensor};
use fovea_model::{
    Before, Blueprint, Compression, Config, Error, Fits, Layout, Meteor, MeteorConfig,
    parts::{Rope, Wanted},
};
use fovea_runtime::source::Source;
use fovea_scenes::{CANVASES, Kind, PATCH, TILE};
use fovea_shaders::Scale;
use serde::{Deserialize, Serialize};

use crate::{
    batch::{Batch, Maker, dice},
    forward::Passed,
    network::Trained,
    optimise::{Optimisers, rates},
};

pub use config::{Rates, Stage, Task, TextPruning, TrainConfig, Vision};

/// The order of the parameters in a saved run. Another order gives an optimiser the moments of other parameters.
const FORMAT: u32 = 1;

/// The position of a run.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct At {
    /// See [`FORMAT`].
    #[serde(default)]
    format: u32,
    stage: usize,
    step: usize,
    /// Steps of all stages.
    total: u64,
    /// Numbers of the next drill and of the next scene.
    drills: u64,
    scenes: u64,
}

/// The report of one step.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Step {
    /// Index of the stage.
    pub stage: usize,
    /// Number of the step within the stage.
    pub step: usize,
    /// Cross entropy of the answers. None in a drill.
    pub answers: Option<f64>,
    /// Loss of the dense labels.
    pub dense: Option<f64>,
    /// Balance loss, Eq. 10 without alpha.
    pub balance: Option<f64>,
    /// Cross entropy of the scale hint.
    pub hint: Option<f64>,
    /// Loss of the attention hint.
    pub look: Option<f64>,
    /// Norm of the gradient before clipping.
    pub norm: f64,
    /// Share of the regions at each scale.
    pub scales: Vec<f64>,
    /// Share of the visual tokens that stay, averaged over the questions. None without the text-guided sampler.
    pub kept: Option<f64>,
    /// Correct and all dense labels: kinds, colours, whole numbers, words.
    pub labels: [(usize, usize); 4],
    /// Correct and all answers per kind of question, in the order of [`Kind::ALL`]. Each token is predicted from the correct ones
    /// before it (teacher forcing).
    pub kinds: Vec<(usize, usize)>,
}

/// A training run.
pub struct Trainer {
    config: TrainConfig,
    blueprint: Blueprint,
    device: Device,
    network: Option<Trained>,
    optimisers: Optimisers,
    rope: Rope,
    at: At,
    begun_at_random: usize,
    dir: PathBuf,
}

const STATE: &str = "state.json";
/// The files of a checkpoint besides the weights.
const BLUEPRINT: [&str; 9] = [
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
];

impl Trainer {
    /// Opens a run in `dir`: at its last save, or at its start.
    ///
    /// # Errors
    /// Those of [`Blueprint::open`]; [`Error::Config`] if the run does not fit the model; [`Error::Training`] if a file of the run
    /// cannot be read or written.
    pub async fn open(config: TrainConfig, dir: &Path, device: Device) -> Result<Self, Error> {
        let blueprint = blueprint(&config).await?;
        let model = &blueprint.config;
        let device = device.autodiff();
        fs::create_dir_all(dir).map_err(|e| broken(dir, &e))?;
        let (at, state) = match fs::read(dir.join(STATE)) {
            Ok(json) => {
                let at: At = serde_json::from_slice(&json).map_err(|e| broken(&dir.join(STATE), &e))?;
                if at.format != FORMAT {
                    let (file, got) = (dir.join(STATE), at.format);
                    return Err(Error::Training(format!(
                        "{}: expected a run of format {FORMAT}, got {got}; finish it with the program that started it, or \
                         start from its weights",
                        file.display()
                    )));
                }
                (at, Some(dir.join(format!("at-{}", at.total))))
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {
                (At { format: FORMAT, drills: config.first, scenes: config.first, ..At::default() }, None)
            }
            Err(e) => return Err(broken(&dir.join(STATE), &e)),
        };
        let mut begun_at_random = 0;
        let bytes = match (&state, &config.start) {
            (Some(state), _) => read(&state.join("weights.safetensors"))?,
            (None, Some(start)) => {
                let (weights, at_random) = network::completed(read(start)?, model, config.seed, &config.random)?;
                begun_at_random = at_random;
                weights
            }
            (None, None) => network::safetensors(&network::first_weights(model, config.seed), false)?,
        };
        let network = Trained::load(&network::open(bytes).await?, model, &device).await?;
        let mut optimisers = Optimisers::new(&network);
        if let Some(state) = &state {
            optimisers = optimisers.load(state)?;
        }
        let rope = Rope::new(&model.text);
        let dir = dir.to_owned();
        let network = Some(network);
        Ok(Self { config, blueprint, device, network, optimisers, rope, at, begun_at_random, dir })
    }

    /// The stages of the run.
    pub fn stages(&self) -> &[Stage] {
        &self.config.stages
    }

    /// Number of tensors that start at random although the run starts from a file: the file does not have them, or has them in
    /// another shape.
    pub fn begun_at_random(&self) -> usize {
        self.begun_at_random
    }

    /// The next stage and step. None at the end of the run.
    pub fn next(&self) -> Option<(usize, usize)> {
        (self.at.stage < self.config.stages.len()).then_some((self.at.stage, self.at.step))
    }

    /// Computes one step. None if all stages are done.
    ///
    /// # Errors
    /// [`Error::Training`] if the loss or the gradient is not finite; the weights do not change then. [`Error::TooLong`] if a scene
    /// with its questions exceeds the context.
    pub async fn step(&mut self) -> Result<Option<Step>, Error> {
        let Some(stage) = self.config.stages.get(self.at.stage).cloned() else { return Ok(None) };
        let Some(network) = &self.network else {
            return Err(Error::Training("an earlier step failed; open the run again".into()));
        };
        let mut report = Step { stage: self.at.stage, step: self.at.step, ..Step::default() };
        let batch = self.batch(&stage)?;
        let config = &self.blueprint.config;
        let mut loss: Option<Tensor<1>> = None;
        let mut add = |part: Tensor<1>, weight: f64| -> f64 {
            let value = value(&part);
            if weight > 0.0 {
                let part = part * weight;
                loss = Some(match loss.take() {
                    Some(sum) => sum + part,
                    None => part,
                });
            }
            value
        };
        let passed = match stage.task {
            Task::Drill => Passed {
                features: network.features(&batch, stage.frozen, &Wanted::default(), config, &self.device).await?.0,
                selector: None,
                choice: Vec::new(),
                logits: None,
                sequences: None,
                kept: None,
                importance: None,
            },
            Task::Primer | Task::Scenes => {
                let mut dice = dice(self.config.seed, self.at.total);
                network.pass(&batch, &stage, config, &self.rope, &mut dice, &self.device).await?
            }
        };
        if stage.dense > 0.0
            && let Some((part, right)) = losses::dense(&passed.features, &batch, &network.heads, &self.device)?
        {
            report.dense = Some(add(part, stage.dense));
            report.labels = right;
        }
        if let Some(selector) = &passed.selector {
            let scales = &config.focus.scales;
            let weights = stage.balance_weights(scales)?;
            let balance = losses::balance(selector, &passed.choice, &weights, &self.device);
            report.balance = Some(add(balance, stage.balance));
            let wishes = sequence::wishes(&batch, config.focus.window, scales);
            let hint = losses::cross_entropy(selector.clone(), &wishes, &self.device);
            report.hint = Some(add(hint, stage.hint));
            let share = |i| passed.choice.iter().filter(|&&c| c == i).count() as f64 / passed.choice.len() as f64;
            report.scales = (0..scales.len()).map(share).collect();
        }
        if let (Some(importance), Some(s)) = (&passed.importance, &passed.sequences) {
            let part = losses::look(importance, s.aims(&batch), &self.device);
            report.look = part.map(|part| add(part, stage.look));
        }
        if let (Some(logits), Some(s)) = (&passed.logits, &passed.sequences) {
            let targets: Vec<usize> = s.targets.iter().map(|(_, id)| *id as usize).collect();
            report.answers = Some(add(losses::cross_entropy(logits.clone(), &targets, &self.device), 1.0));
            report.kinds = by_kind(logits, &batch, s);
        }
        report.kept = passed.kept.map(|kept| {
            let all: Vec<&Vec<bool>> = kept.iter().flatten().collect();
            let share = |kept: &&Vec<bool>| kept.iter().filter(|k| **k).count() as f64 / kept.len().max(1) as f64;
            all.iter().map(share).sum::<f64>() / all.len().max(1) as f64
        });
        if let Some(loss) = loss {
            let size = value(&loss);
            if !size.is_finite() {
                return Err(Error::Training(format!("expected a finite loss, got {size}; try lower rates")));
            }
            let rates = rates(stage.rates, stage.share(self.at.step));
            let gradients = self.optimisers.gradients(network, loss.backward(), rates)?;
            report.norm = gradients.norm;
            // The optimiser takes the network by value and returns it.
            if let Some(network) = self.network.take() {
                self.network = Some(self.optimisers.step(network, gradients, rates));
            }
        }
        self.at.step += 1;
        self.at.total += 1;
        match stage.task {
            Task::Drill => self.at.drills += stage.batch as u64,
            Task::Primer | Task::Scenes => self.at.scenes += stage.batch as u64,
        }
        if self.at.step >= stage.steps {
            self.at = At { stage: self.at.stage + 1, step: 0, ..self.at };
        }
        Ok(Some(report))
    }

    fn batch(&self, stage: &Stage) -> Result<Batch, Error> {
        let patches = self.blueprint.config.vision.patches();
        let maker = Maker { tiles: &self.blueprint.tiles, prompter: &self.blueprint.prompter, patches };
        match stage.task {
            Task::Drill => maker.drill(stage, self.at.drills),
            Task::Primer | Task::Scenes => maker.scenes(stage, self.at.scenes),
        }
    }

    /// Writes the complete state to disk. The previous state stays until the new one is complete.
    ///
    /// # Errors
    /// [`Error::Training`] if a file cannot be written.
    pub fn save(&self) -> Result<(), Error> {
        let Some(network) = &self.network else { return Ok(()) };
        let dir = self.dir.join(format!("at-{}", self.at.total));
        fs::create_dir_all(&dir).map_err(|e| broken(&dir, &e))?;
        let bytes = network::safetensors(&network.stored(&self.blueprint.config), false)?;
        write(&dir.join("weights.safetensors"), &bytes)?;
        self.optimisers.save(&dir)?;
        let json = serde_json::to_vec(&self.at).map_err(|e| broken(&dir, &e))?;
        let fresh = self.dir.join("state.json.new");
        write(&fresh, &json)?;
        fs::rename(&fresh, self.dir.join(STATE)).map_err(|e| broken(&fresh, &e))?;
        for entry in fs::read_dir(&self.dir).map_err(|e| broken(&self.dir, &e))?.flatten() {
            let name = entry.file_name();
            let total = name.to_str().and_then(|n| n.strip_prefix("at-")).and_then(|n| n.parse::<u64>().ok());
            if total.is_some_and(|total| total != self.at.total) {
                // An old state that remains does no harm.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        Ok(())
    }

    /// Writes a checkpoint to `dir`: the weights in f16, the fusion of LLaVA-Meteor in f32, and copies of the model's other files.
    /// [`fovea_model::Checkpoint`] reads it.
    ///
    /// # Errors
    /// [`Error::Training`] if a file cannot be read or written.
    pub async fn export(&self, dir: &Path) -> Result<(), Error> {
        let Some(network) = &self.network else { return Ok(()) };
        fs::create_dir_all(dir).map_err(|e| broken(dir, &e))?;
        let mut stored = network.stored(&self.blueprint.config);
        stored.retain(|t| !network::only_for_training(&t.name));
        write(&dir.join("model.safetensors"), &network::safetensors(&stored, true)?)?;
        let whole = |path: &Path| path.canonicalize().map_err(|e| broken(path, &e));
        // Copying a file onto itself empties it.
        if whole(&self.config.model)? != whole(dir)? {
            for name in BLUEPRINT.iter().filter(|name| self.config.model.join(name).is_file()) {
                fs::copy(self.config.model.join(name), dir.join(name)).map_err(|e| broken(&dir.join(name), &e))?;
            }
        }
        if let Some(json) = replaced(&self.config)? {
            write(&dir.join("config.json"), format!("{json:#}").as_bytes())?;
        }
        Ok(())
    }
}

/// The model of a run without its weights, with the settings of the run.
///
/// # Errors
/// Those of [`Blueprint::open`]; [`Error::Config`] if the run does not fit the model.
async fn blueprint(config: &TrainConfig) -> Result<Blueprint, Error> {
    let mut blueprint = Blueprint::open(&Source::directory(&config.model)?).await?;
    if let Some(json) = replaced(config)? {
        blueprint.config = Config::from_json(&json)?;
    }
    if config.stages.iter().any(|s| s.vision == Vision::Meteor) {
        let settings = blueprint.config.meteor.get_or_insert_default().clone();
        check_fusion(&blueprint.config, &settings)?;
    }
    let model = &blueprint.config;
    let last = |s: &Stage| s.text.map_or(0, |t| t.layers[1]);
    if let Some(stage) = config.stages.iter().find(|s| last(s) >= model.text.n_layers) {
        let why = format!("expected layers below {}, got {}", model.text.n_layers, last(stage));
        return Err(Error::Config { key: format!("stage {}: text.layers", stage.name), why });
    }
    // A hint without an effect is a mistake in the file.
    let no_effect = |s: &&Stage| s.task == Task::Drill || s.text.is_none() && model.focus.text_layer.is_none();
    if let Some(stage) = config.stages.iter().filter(|s| s.look > 0.0).find(no_effect) {
        let why = "expected questions, and `text` or the model's `focus.text_layer`, got none".to_owned();
        return Err(Error::Config { key: format!("stage {}: look", stage.name), why });
    }
    for stage in &config.stages {
        stage.balance_weights(&model.focus.scales)?;
        stage.check_meteor()?;
    }
    let without = [Vision::Thumbnail, Vision::Meteor];
    let regions = config.stages.iter().any(|s| s.task != Task::Drill && !without.contains(&s.vision));
    check_geometry(model, regions)?;
    Ok(blueprint)
}

/// The model's config.json with the settings that the run replaces; None if it replaces none.
fn replaced(run: &TrainConfig) -> Result<Option<serde_json::Value>, Error> {
    let TrainConfig { model, window, scales, meteor, .. } = run;
    if window.is_none() && scales.is_none() && meteor.is_none() {
        return Ok(None);
    }
    let mut json = read_json(&model.join("config.json"))?;
    if let Some(window) = window {
        json["focus"]["window"] = serde_json::json!(window);
    }
    if let Some(scales) = scales {
        json["focus"]["scales"] = serde_json::json!(scales);
    }
    if let Some(meteor) = meteor {
        json["meteor"] = meteor.clone();
    }
    Ok(Some(json))
}

/// Checks that the fusion of LLaVA-Meteor can be trained in this model.
///
/// # Errors
/// [`Error::Config`] for a selection that training does not support; [`Error::Option`] if the method does not fit the model.
fn check_fusion(config: &Config, settings: &MeteorConfig) -> Result<(), Error> {
    let Meteor { keep, visual_weight, native_pool, .. } = settings.selection;
    let supported = Meteor { keep, visual_weight, native_pool, ..Meteor::default() };
    if !settings.instruction || settings.selection != supported {
        let why = "expected `instruction` after_image, and of the selection only keep, visual_weight and native_pool to differ \
                   from the defaults, the only settings that training supports";
        return Err(Error::Config { key: "config.json: meteor".into(), why: why.into() });
    }
    Compression::from(Before::Meteor(supported)).check(Fits { config, selector: true, meteor: true })
}

/// Checks that the scenes fit this model: labels and questions depend on the geometry of tiles and patches. The scales are checked
/// only if the run uses `regions` of the map.
///
/// # Errors
/// [`Error::Config`] with the key that does not fit.
fn check_geometry(model: &Config, regions: bool) -> Result<(), Error> {
    let wrong = |key: &str, why: String| Err(Error::Config { key: format!("config.json: {key}"), why });
    let (side, patch) = (model.vision.side, model.vision.patch);
    if (side, patch) != (TILE, PATCH) {
        return wrong(
            "vision_config",
            format!("expected tiles of {TILE} in patches of {PATCH}, got {side} and {patch}"),
        );
    }
    let canvases: Vec<_> = CANVASES.iter().map(|(rows, cols)| (rows * TILE, cols * TILE)).collect();
    let layout = Layout::Anyres { pinpoints: canvases, most_tiles: None };
    if model.layout != layout || model.text.multipliers.is_some() {
        let got = format!("{:?} of {}", model.layout, model.model_type);
        return wrong("image_grid_pinpoints", format!("expected {layout:?} of llava_next with Llama, got {got}"));
    }
    let focus = &model.focus;
    if focus.score_rope || !focus.thumbnail {
        return wrong(
            "focus",
            "expected score_rope off and the thumbnail kept, the only settings that training supports".into(),
        );
    }
    let whole = Scale::new(1, 1);
    let fits = |side: usize| (1..=focus.window).contains(&side);
    let pools = |s: &Scale| s.drops() || fits(s.rows) && fits(s.cols);
    if regions && (!focus.scales.contains(&whole) || !focus.scales.iter().all(pools)) {
        return wrong(
            "focus.scales",
            format!("expected {whole}, and others of sides from 1 to {} or 0x0, got {:?}", focus.window, focus.scales),
        );
    }
    Ok(())
}

/// Correct and all answers per kind of question.
fn by_kind(logits: &Tensor<2>, batch: &Batch, s: &sequence::Sequences) -> Vec<(usize, usize)> {
    let guessed = logits.clone().inner().argmax(1).into_data();
    let mut right: std::collections::BTreeMap<(usize, usize), bool> = s.owners.iter().map(|&o| (o, true)).collect();
    for ((guess, (_, id)), owner) in guessed.iter::<i64>().zip(&s.targets).zip(&s.owners) {
        if guess as u32 != *id {
            right.insert(*owner, false);
        }
    }
    let mut kinds = vec![(0, 0); Kind::ALL.len()];
    for ((b, q), right) in right {
        let asked = batch.asked[b][q].kind;
        let Some(kind) = Kind::ALL.iter().position(|k| Some(*k) == asked) else { continue };
        kinds[kind].0 += usize::from(right);
        kinds[kind].1 += 1;
    }
    kinds
}

fn value(loss: &Tensor<1>) -> f64 {
    loss.clone().inner().into_data().iter::<f64>().next().unwrap_or(f64::NAN)
}

fn read(file: &Path) -> Result<Vec<u8>, Error> {
    fs::read(file).map_err(|e| broken(file, &e))
}

fn read_json(file: &Path) -> Result<serde_json::Value, Error> {
    serde_json::from_slice(&read(file)?).map_err(|e| broken(file, &e))
}

fn write(file: &Path, bytes: &[u8]) -> Result<(), Error> {
    fs::write(file, bytes).map_err(|e| broken(file, &e))
}

fn broken(file: &Path, why: &dyn std::fmt::Display) -> Error {
    Error::Training(format!("{}: {why}", file.display()))
}

/// LibTorch on the CPU.
#[cfg(feature = "libtorch")]
#[expect(deprecated, reason = "burn will drop LibTorch; until then it is used for long runs on a CPU")]
pub fn libtorch() -> Device {
    Device::libtorch()
}
