//! The configuration of a training run. Input: a JSON file. Output: checked stages.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use fovea_model::Error;
use fovea_shaders::Scale;
use serde::{Deserialize, Serialize};

/// A training run: a checkpoint directory without weights, and the stages that train them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Directory of `config.json`, tokenizer and template, relative to this file.
    pub model: PathBuf,
    /// Weights to start from instead of random ones, relative to this file: those of another run, or of a checkpoint with the names of
    /// the hub. Tensors that the file does not have, or has in another shape, start at random.
    #[serde(default)]
    pub start: Option<PathBuf>,
    /// Tensors whose names start with one of these prefixes start at random, although `start` has them.
    #[serde(default)]
    pub random: Vec<String>,
    /// Side of a region in patches. It replaces the model's own, also in the written checkpoint.
    #[serde(default)]
    pub window: Option<usize>,
    /// Scales (rows, cols) that replace the model's own, also in the written checkpoint. (0, 0) drops the region.
    #[serde(default)]
    pub scales: Option<Vec<(usize, usize)>>,
    /// The object `meteor` of `config.json`, the settings of LLaVA-Meteor. It replaces the model's own, also in the written checkpoint.
    #[serde(default)]
    pub meteor: Option<serde_json::Value>,
    /// Seed of the random weights, and of the pruned layer and the thresholds of each step.
    pub seed: u64,
    /// Number of the first drill and of the first scene. A run uses each only once; a run that starts from another's weights should
    /// start after the numbers of that run.
    #[serde(default)]
    pub first: u64,
    /// The stages, in order.
    pub stages: Vec<Stage>,
}

/// The data of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Single tiles full of text and shapes: trains only the vision tower, with the dense labels.
    Drill,
    /// Scenes of few objects with questions: trains the whole model to attend to the object of a question.
    Primer,
    /// Complete scenes with questions: trains the whole model.
    Scenes,
}

/// The visual tokens that the text model gets in training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Vision {
    /// Every patch, as in LLaVA-NeXT.
    Full,
    /// Those that the vision-guided sampler chooses (Eq. 1), with gradients by Eq. 2.
    #[default]
    Selected,
    /// A random scale for every region, uniformly distributed: the random sampling of Table 6.
    Random,
    /// Only the thumbnail.
    Thumbnail,
    /// Those that LLaVA-Meteor chooses after its fusion, in our interpretation. The fusion reads the question, so each scene has one.
    Meteor,
}

/// The text-guided sampler in training: a random layer per batch and a random threshold per question, uniformly distributed.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextPruning {
    /// First and last layer whose input may be pruned.
    pub layers: [usize; 2],
    /// Smallest and largest threshold.
    pub gamma: [f64; 2],
}

/// Learning rates of the groups of parameters.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rates {
    /// Vision tower and dense heads.
    pub tower: f64,
    /// Projector, newline and text model.
    #[serde(default)]
    pub text: f64,
    /// The scale selector.
    #[serde(default)]
    pub selector: f64,
    /// The fusion of LLaVA-Meteor.
    #[serde(default)]
    pub meteor: f64,
}

/// One stage.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Its name in the log.
    pub name: String,
    /// Its data.
    pub task: Task,
    /// Optimiser steps.
    pub steps: usize,
    /// Tiles or scenes per step.
    pub batch: usize,
    /// Learning rates after the warm-up. They fall to the share `end` of these along half a cosine.
    pub rates: Rates,
    /// Steps of the linear warm-up.
    #[serde(default = "warmup")]
    pub warmup: usize,
    /// The last learning rate, as a share of the first.
    #[serde(default = "end")]
    pub end: f64,
    /// Questions per scene.
    #[serde(default = "questions")]
    pub questions: usize,
    /// Whether each scene also has the question that asks for a list of all objects.
    #[serde(default)]
    pub list: bool,
    /// The visual tokens that the text model gets.
    #[serde(default)]
    pub vision: Vision,
    /// Smallest and largest share of the patches that stay with [`Vision::Meteor`], uniformly distributed over the scenes. None: 0.05 to
    /// 0.5, so that one checkpoint fits every budget.
    #[serde(default)]
    pub keep: Option<[f64; 2]>,
    /// The text-guided sampler. None: every visual token stays in every layer.
    #[serde(default)]
    pub text: Option<TextPruning>,
    /// Whether the vision tower is frozen, which skips its backward pass. The dense heads are trained nevertheless.
    #[serde(default)]
    pub frozen: bool,
    /// Weight of the dense labels' loss.
    #[serde(default)]
    pub dense: f64,
    /// Weight of the balance loss, alpha of Eq. 5.
    #[serde(default)]
    pub balance: f64,
    /// Weight of each scale in the balance loss, by kernel (Eq. 10): `{"1x1": 0.9, "2x2": 1.0, "4x4": 1.1}`. Their sum is the number of
    /// scales. None: 1 each.
    #[serde(default)]
    pub balance_weights: Option<BTreeMap<String, f64>>,
    /// Weight of the scale hint: cross entropy between the selector's logits and the scales that fit the scene's objects.
    #[serde(default)]
    pub hint: f64,
    /// Weight of the attention hint, on the importance that the text-guided sampler's layer gives to the tokens of a question's
    /// objects.
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
    /// Reads a run's file. Paths in it are relative to its directory.
    ///
    /// # Errors
    /// [`Error::Config`] with the key if the file cannot be read, is not JSON, or has a value out of range.
    pub fn read(file: &Path) -> Result<Self, Error> {
        let wrong = |key: &str, why: String| Error::Config { key: format!("{}: {key}", file.display()), why };
        let text = std::fs::read(file)
            .map_err(|e| Error::Config { key: format!("cannot read {}", file.display()), why: e.to_string() })?;
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
                    format!("expected different names of [A-Za-z0-9_-], got {:?}", stage.name),
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
            let Rates { tower, text, selector, meteor } = stage.rates;
            let numbers = [tower, text, selector, meteor, stage.dense, stage.balance, stage.hint, stage.look];
            if let Some(got) = numbers.iter().find(|n| !(0.0..=1e3).contains(*n)) {
                return Err(wrong(&key("rates and weights"), format!("expected numbers from 0 to 1000, got {got}")));
            }
            if let Some(TextPruning { layers: [first, last], gamma: [least, most] }) = stage.text
                && (first > last || !(0.0..=1.0).contains(&least) || !(least..=1.0).contains(&most))
            {
                return Err(wrong(
                    &key("text"),
                    "expected two rising layers, and two rising thresholds from 0 to 1".into(),
                ));
            }
        }
        Ok(config)
    }
}

impl Stage {
    /// The weight of each of `scales` in the balance loss.
    ///
    /// # Errors
    /// [`Error::Config`] if `balance_weights` has other kernels than `scales`, a negative weight, or another sum than their number.
    pub(crate) fn balance_weights(&self, scales: &[Scale]) -> Result<Vec<f32>, Error> {
        let Some(weights) = &self.balance_weights else { return Ok(vec![1.0; scales.len()]) };
        let names: Vec<String> = scales.iter().map(Scale::to_string).collect();
        let found: Option<Vec<f64>> = names.iter().map(|name| weights.get(name).copied()).collect();
        let fits = |w: &Vec<f64>| {
            let sum: f64 = w.iter().sum();
            weights.len() == scales.len() && w.iter().all(|w| *w >= 0.0) && (sum - w.len() as f64).abs() < 1e-6
        };
        let Some(found) = found.filter(fits) else {
            let key = format!("stage {}: balance_weights", self.name);
            let (all, sum) = (names.join(", "), scales.len());
            let why =
                format!("expected one weight, at least 0, for each of {all}, with the sum {sum}, got {weights:?}");
            return Err(Error::Config { key, why });
        };
        Ok(found.into_iter().map(|w| w as f32).collect())
    }

    /// Smallest and largest share of the patches that stay with [`Vision::Meteor`].
    pub(crate) fn kept_share(&self) -> [f64; 2] {
        self.keep.unwrap_or([0.05, 0.5])
    }

    /// Checks the settings that [`Vision::Meteor`] excludes or requires.
    ///
    /// # Errors
    /// [`Error::Config`] with the key, the expected and the found value.
    pub(crate) fn check_meteor(&self) -> Result<(), Error> {
        let wrong = |key: &str, why: String| Err(Error::Config { key: format!("stage {}: {key}", self.name), why });
        if self.vision != Vision::Meteor {
            return match self.keep {
                Some(keep) => wrong("keep", format!("expected none without `\"vision\": \"meteor\"`, got {keep:?}")),
                None => Ok(()),
            };
        }
        if self.task == Task::Drill {
            return wrong("vision", "expected a task with questions for meteor, got drill".into());
        }
        if self.questions != 1 || self.list {
            let got = format!("{}{}", self.questions, if self.list { " and a list" } else { "" });
            let why = "the fusion of LLaVA-Meteor reads the question";
            return wrong("questions", format!("expected 1 and no list, because {why}, got {got}; use more scenes"));
        }
        // The selector takes no part, and importance is of tokens that the question has already chosen.
        for (key, weight) in [("balance", self.balance), ("hint", self.hint), ("look", self.look)] {
            if weight > 0.0 {
                return wrong(key, format!("expected 0 with `\"vision\": \"meteor\"`, got {weight}"));
            }
        }
        let [least, most] = self.kept_share();
        if !(least > 0.0 && (least..=1.0).contains(&most)) {
            return wrong("keep", format!("expected two rising shares above 0, at most 1, got {least} and {most}"));
        }
        Ok(())
    }

    /// The share of the learning rate at `step` of this stage: a linear rise, then half a cosine down to `end`.
    pub fn share(&self, step: usize) -> f64 {
        if step < self.warmup {
            return (step + 1) as f64 / self.warmup as f64;
        }
        let way = (step - self.warmup) as f64 / (self.steps.saturating_sub(self.warmup)).max(1) as f64;
        self.end + (1.0 - self.end) * 0.5 * (1.0 + (std::f64::consts::PI * way).cos())
    }
}
