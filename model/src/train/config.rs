//! What a training run is told: a JSON file in, checked stages out.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// A training run: a checkpoint directory without weights, and the stages that make them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Directory of `config.json`, tokenizer and template, relative to this file.
    pub model: PathBuf,
    /// Weights to start from instead of random ones, relative to this file: another run's, or a checkpoint's in the names
    /// of the hub. Tensors that it has not, or has in another shape, begin at random.
    #[serde(default)]
    pub start: Option<PathBuf>,
    /// Beginnings of tensors' names that begin at random although the weights to start from have them.
    #[serde(default)]
    pub anew: Vec<String>,
    /// Scales (rows, cols) to choose from instead of the model's own, also in the checkpoint that is written.
    #[serde(default)]
    pub scales: Option<Vec<(usize, usize)>>,
    /// Seed of the first weights, and of each step's layer and thresholds.
    pub seed: u64,
    /// Number of the first drill and of the first scene; no run sees one twice. A run that starts from another's weights
    /// goes on behind it.
    #[serde(default)]
    pub first: u64,
    /// What is done, in order.
    pub stages: Vec<Stage>,
}

/// What a stage trains on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Single tiles full of text and shapes: the vision tower alone, by the dense labels.
    Drill,
    /// Scenes of few objects with questions: the whole model learns to look for what is asked.
    Primer,
    /// Whole scenes with questions: the whole model.
    Scenes,
}

/// Which visual tokens the text model sees in training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Vision {
    /// Every patch, as LLaVA-NeXT has them.
    Full,
    /// What the vision-guided sampler picks (Eq. 1), with gradients by Eq. 2.
    #[default]
    Selected,
    /// A scale drawn evenly for every region: Table 6's random sampling.
    Random,
    /// The thumbnail alone.
    Thumbnail,
}

/// The text-guided sampler in training: per batch a layer, per question a threshold, each drawn evenly.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextPruning {
    /// First and last layer whose input may be pruned.
    pub layers: [usize; 2],
    /// Least and greatest threshold.
    pub gamma: [f64; 2],
}

/// Learning rates of the three groups of parameters.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rates {
    /// The vision tower, and the dense labels' heads.
    pub tower: f64,
    /// Projector, newline and text model.
    #[serde(default)]
    pub text: f64,
    /// The scale selector.
    #[serde(default)]
    pub selector: f64,
}

/// One stage.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// What it is called in the log.
    pub name: String,
    /// What it trains on.
    pub task: Task,
    /// Optimiser steps.
    pub steps: usize,
    /// Tiles or scenes a step.
    pub batch: usize,
    /// Learning rates after warming up; they fall to `end` of these along half a cosine.
    pub rates: Rates,
    /// Steps of linear warming up.
    #[serde(default = "warmup")]
    pub warmup: usize,
    /// The last learning rate, as a share of the first.
    #[serde(default = "end")]
    pub end: f64,
    /// Questions asked about each scene.
    #[serde(default = "questions")]
    pub questions: usize,
    /// Whether each scene's objects are also listed.
    #[serde(default)]
    pub list: bool,
    /// Which visual tokens the text model sees.
    #[serde(default)]
    pub vision: Vision,
    /// The text-guided sampler; none: every visual token stays in every layer.
    #[serde(default)]
    pub text: Option<TextPruning>,
    /// Whether the vision tower stays as it is, which spares the way back through it. The dense labels' heads learn all
    /// the same.
    #[serde(default)]
    pub frozen: bool,
    /// Weight of the dense labels' loss.
    #[serde(default)]
    pub dense: f64,
    /// Weight of the balance loss, alpha of Eq. 5.
    #[serde(default)]
    pub balance: f64,
    /// Weight of the hint: cross entropy of the selector's logits to the scales that the generator would pick.
    #[serde(default)]
    pub hint: f64,
    /// Weight of the hint of where to look: the importance that the text-guided sampler's layer gives the tokens of the
    /// objects asked about.
    #[serde(default)]
    pub look: f64,
}

fn warmup() -> usize {
    100
}

fn end() -> f64 {
    0.02
}

fn questions() -> usize {
    8
}

impl TrainConfig {
    /// Reads a run's file. Paths in it are taken relative to it.
    ///
    /// # Errors
    /// [`Error::Config`] where it is no JSON, or a number makes no sense.
    pub fn read(file: &Path) -> Result<Self, Error> {
        let wrong = |key: &str, why: String| Error::Config { key: format!("{}: {key}", file.display()), why };
        let text = std::fs::read(file).map_err(|e| wrong("the file", e.to_string()))?;
        let mut config: Self = serde_json::from_slice(&text).map_err(|e| wrong("the file", e.to_string()))?;
        let beside = file.parent().unwrap_or(Path::new("."));
        config.model = beside.join(&config.model);
        config.start = config.start.map(|start| beside.join(start));
        if config.stages.is_empty() {
            return Err(wrong("stages", "expected at least one, got none".into()));
        }
        for (i, stage) in config.stages.iter().enumerate() {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            if !stage.name.chars().all(plain) || config.stages[..i].iter().any(|s| s.name == stage.name) {
                return Err(wrong(
                    "stages",
                    format!("expected names of [A-Za-z0-9_-], none twice, got {:?}", stage.name),
                ));
            }
            let key = |name: &str| format!("stage {}: {name}", stage.name);
            if stage.steps == 0 || stage.batch == 0 || stage.batch > 4096 {
                let got = format!("{} steps of {}", stage.steps, stage.batch);
                return Err(wrong(&key("steps and batch"), format!("expected 1 or more, batch up to 4096, got {got}")));
            }
            if !(1..=64).contains(&stage.questions) {
                return Err(wrong(&key("questions"), format!("expected 1 to 64, got {}", stage.questions)));
            }
            if !(0.0..=1.0).contains(&stage.end) {
                return Err(wrong(&key("end"), format!("expected a share from 0 to 1, got {}", stage.end)));
            }
            let Rates { tower, text, selector } = stage.rates;
            let numbers = [tower, text, selector, stage.dense, stage.balance, stage.hint, stage.look];
            if let Some(got) = numbers.iter().find(|n| !(0.0..=1e3).contains(*n)) {
                return Err(wrong(&key("rates and weights"), format!("expected numbers from 0 to 1000, got {got}")));
            }
            if let Some(TextPruning { layers: [first, last], gamma: [least, most] }) = stage.text
                && (first > last || !(0.0..=1.0).contains(&least) || !(least..=1.0).contains(&most))
            {
                return Err(wrong(&key("text"), "expected rising layers and thresholds from 0 to 1".into()));
            }
        }
        Ok(config)
    }
}

impl Stage {
    /// The learning rate's share at `step` of this stage: up along a line, then down along half a cosine.
    pub fn share(&self, step: usize) -> f64 {
        if step < self.warmup {
            return (step + 1) as f64 / self.warmup as f64;
        }
        let way = (step - self.warmup) as f64 / (self.steps.saturating_sub(self.warmup)).max(1) as f64;
        self.end + (1.0 - self.end) * 0.5 * (1.0 + (std::f64::consts::PI * way).cos())
    }
}
