//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use fovea_model::{AskOptions, Pick, Precision};
use fovea_runtime::{DeviceChoice, Keep};

pub use crate::eval::Study;
use crate::failure::Failure;

/// Ask questions about pictures, and see what the model looked at.
#[derive(Parser)]
#[command(name = "fovea", version)]
pub struct Cli {
    /// What to do; nothing: open the window.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Open the window: ask about a picture, and see what the model looked at.
    App(AppArgs),
    /// Answer questions about a picture.
    Ask(AskArgs),
    /// Write every stage of one greedy run in f32 as a safetensors file. Both samplers run unless they are off.
    Trace(TraceArgs),
    /// Tell what a checkpoint is and whether it is whole, without loading it.
    Inspect(DirArgs),
    /// Tell how many tokens and bytes a run takes, before anything is loaded.
    Plan(PlanArgs),
    /// List adapters, what they have and need, and test each with a known computation.
    Doctor(DoctorArgs),
    /// Hold a device to what PyTorch and the f64 twins computed, operation by operation and stage by stage.
    Conformance(ConformanceArgs),
    /// Count right answers on held-out scenes, or on a folder of pictures: the paper's Table 2, and its other studies.
    Eval(EvalArgs),
    /// Draw held-out scenes with questions, to look at or to evaluate on.
    Scenes(ScenesArgs),
    /// Train a checkpoint on drawn scenes, by the paper's recipe. Goes on where it was stopped.
    Train(TrainArgs),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// One of the two samplers.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Sampler {
    /// The vision-guided sampler.
    Vision,
    /// The text-guided sampler.
    Text,
    /// Both of them.
    Both,
}

/// What matrices are kept in.
#[derive(Clone, Copy, ValueEnum)]
pub enum Dtype {
    /// f16 where the weights are stored in 16 bits and the device computes in f16, or f32 does not fit into memory; else f32.
    Auto,
    /// f32.
    F32,
    /// f16.
    F16,
}

impl From<Dtype> for Precision {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::Auto => Self::Auto,
            Dtype::F32 => Self::F32,
            Dtype::F16 => Self::F16,
        }
    }
}

/// A ratio of the visual tokens where it holds a point, else a count.
fn keep(text: &str) -> Result<Keep, String> {
    let expected = "expected a ratio such as 0.25, or a count such as 300";
    if text.contains('.') {
        text.parse().map(Keep::Ratio).map_err(|_| expected.to_owned())
    } else {
        text.parse().map(Keep::Count).map_err(|_| expected.to_owned())
    }
}

fn count(text: &str) -> Result<usize, String> {
    let within = text.parse().ok().filter(|n| (1..=1_000_000).contains(n));
    within.ok_or_else(|| "expected a whole number from 1 to 1000000".to_owned())
}

fn device(text: &str) -> Result<DeviceChoice, String> {
    text.parse().map_err(|e: fovea_runtime::Error| e.to_string())
}

/// `fovea app`.
#[derive(Args, Default)]
pub struct AppArgs {
    /// A picture to open.
    pub image: Option<PathBuf>,
    /// A LLaVA-NeXT checkpoint directory; without it the last one, at first the embedded demo checkpoint.
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// auto, cpu, wgpu, wgpu:N or wgpu:NAME; without it the last one, at first auto.
    #[arg(long, value_parser = device)]
    pub device: Option<DeviceChoice>,
}

/// `fovea ask`.
#[derive(Args)]
pub struct AskArgs {
    /// The picture: png, jpeg, webp, gif or bmp; - reads it from standard input.
    pub image: PathBuf,
    /// One or more questions; each is answered on its own. One that begins with a hyphen goes behind --.
    #[arg(required = true)]
    pub questions: Vec<String>,
    /// A LLaVA-NeXT checkpoint: a folder, or a repository in the model hub's cache (ORG/NAME); without it the embedded demo
    /// checkpoint.
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// auto, cpu, wgpu, wgpu:N, wgpu:NAME or cuda. auto takes a real GPU, else the CPU.
    #[arg(long, default_value = "auto", value_parser = device)]
    pub device: DeviceChoice,
    /// What matrices are kept in.
    #[arg(long, value_enum, default_value = "auto")]
    pub dtype: Dtype,
    #[command(flatten)]
    pub sampling: SamplingArgs,
    /// Threshold of the text-guided sampler: the fewest tokens whose share of the importance exceeds it.
    #[arg(long, value_name = "G", conflicts_with = "keep", allow_negative_numbers = true)]
    pub gamma: Option<f64>,
    /// Budget of the text-guided sampler instead: a ratio such as 0.25, or a count such as 300.
    #[arg(long, value_name = "RATIO|COUNT", value_parser = keep, allow_negative_numbers = true)]
    pub keep: Option<Keep>,
    /// The decoder layer whose input the text-guided sampler prunes.
    #[arg(long, value_name = "L", allow_negative_numbers = true)]
    pub layer: Option<usize>,
    /// Most tokens of an answer.
    #[arg(long, value_name = "N", default_value_t = 128, allow_negative_numbers = true)]
    pub max_new_tokens: usize,
    /// 0: the most likely token. Above: drawn.
    #[arg(long, value_name = "T", default_value_t = 0.0, allow_negative_numbers = true)]
    pub temperature: f64,
    /// Draw from the fewest most likely tokens that hold this share.
    #[arg(long, value_name = "P", default_value_t = 1.0, allow_negative_numbers = true)]
    pub top_p: f64,
    /// Draw from this many of the most likely tokens; 0: all.
    #[arg(long, value_name = "K", default_value_t = 0, allow_negative_numbers = true)]
    pub top_k: usize,
    /// Seed of the draws.
    #[arg(long, value_name = "S", default_value_t = 0, allow_negative_numbers = true)]
    pub seed: u64,
    /// Weakens tokens that prompt or answer already holds; 1: not at all. Without it, as generation_config.json has it.
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub repetition_penalty: Option<f64>,
    /// One JSON object a question, on stdout.
    #[arg(long)]
    pub json: bool,
    /// Draw what the model looked at for the last question, as png, jpg, webp or bmp.
    #[arg(long, value_name = "OUT.png")]
    pub overlay: Option<PathBuf>,
}

/// Which samplers run.
#[derive(Args)]
pub struct SamplingArgs {
    /// Samplers to switch off: vision, text, or both.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "SAMPLERS")]
    pub off: Vec<Sampler>,
    /// Samplers to switch on, where the checkpoint was not trained with them: vision (which needs a scale selector), text, or both.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "SAMPLERS")]
    pub on: Vec<Sampler>,
}

impl SamplingArgs {
    /// Whether `sampler` runs; None: as the checkpoint has it.
    pub fn wanted(&self, sampler: Sampler) -> Option<bool> {
        let named = |list: &[Sampler]| list.contains(&sampler) || list.contains(&Sampler::Both);
        if named(&self.off) { Some(false) } else { named(&self.on).then_some(true) }
    }

    /// # Errors
    /// [`Failure::Usage`] where a sampler is both on and off.
    pub fn check(&self) -> Result<(), Failure> {
        let both = |sampler: &Sampler| self.off.contains(sampler) || self.off.contains(&Sampler::Both);
        let samplers = [Sampler::Vision, Sampler::Text];
        let on = |sampler: &&Sampler| self.on.contains(sampler) || self.on.contains(&Sampler::Both);
        match samplers.iter().filter(on).find(|s| both(s)) {
            None => Ok(()),
            Some(_) => Err(Failure::Usage("expected each sampler in --on or in --off, got one in both".to_owned())),
        }
    }
}

impl AskArgs {
    /// The options of every question.
    pub fn options(&self) -> AskOptions {
        AskOptions {
            vision: self.sampling.wanted(Sampler::Vision),
            text: self.sampling.wanted(Sampler::Text),
            keep: self.gamma.map(Keep::Gamma).or(self.keep),
            layer: self.layer,
            max_new_tokens: self.max_new_tokens,
            pick: Pick {
                temperature: self.temperature,
                top_k: self.top_k,
                top_p: self.top_p,
                seed: self.seed,
                repetition_penalty: self.repetition_penalty,
            },
            ..AskOptions::default()
        }
    }
}

/// `fovea trace`.
#[derive(Args)]
pub struct TraceArgs {
    /// A checkpoint directory.
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// The picture.
    #[arg(long, value_name = "FILE")]
    pub image: PathBuf,
    /// The question.
    #[arg(long, value_name = "TEXT")]
    pub prompt: String,
    #[command(flatten)]
    pub sampling: SamplingArgs,
    /// Most tokens of the answer.
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub max_new_tokens: usize,
    /// As of `fovea ask`.
    #[arg(long, default_value = "auto", value_parser = device)]
    pub device: DeviceChoice,
    /// Where to write.
    #[arg(long, value_name = "FILE.safetensors")]
    pub out: PathBuf,
}

/// `fovea inspect`.
#[derive(Args)]
pub struct DirArgs {
    /// A checkpoint directory; without it the embedded demo checkpoint.
    pub dir: Option<PathBuf>,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// `fovea plan`.
#[derive(Args)]
pub struct PlanArgs {
    /// A checkpoint directory; without it the embedded demo checkpoint.
    pub dir: Option<PathBuf>,
    /// Size of the picture in pixels; without it the model's largest canvas.
    #[arg(long, value_name = "WxH", value_parser = size)]
    pub image: Option<(usize, usize)>,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

fn size(text: &str) -> Result<(usize, usize), String> {
    let expected = "expected WIDTHxHEIGHT, such as 1024x768, each from 1 to 16384";
    let side = |s: &str| s.parse().ok().filter(|n| (1..=16384).contains(n));
    let (w, h) = text.split_once('x').ok_or(expected)?;
    side(w).zip(side(h)).ok_or_else(|| expected.to_owned())
}

/// `fovea doctor`.
#[derive(Args)]
pub struct DoctorArgs {
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// `fovea eval`.
#[derive(Args)]
pub struct EvalArgs {
    /// A folder with pictures and a `questions.jsonl`, one {"image", "question", "answer", "kind"} a line; without it,
    /// held-out scenes.
    pub dir: Option<PathBuf>,
    /// A LLaVA-NeXT checkpoint: a folder, or a repository in the model hub's cache (ORG/NAME); without it the embedded demo
    /// checkpoint.
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// As of `fovea ask`.
    #[arg(long, default_value = "auto", value_parser = device)]
    pub device: DeviceChoice,
    /// What matrices are kept in.
    #[arg(long, value_enum, default_value = "auto")]
    pub dtype: Dtype,
    /// The first held-out scene.
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub seed: u64,
    /// How many held-out scenes.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = count)]
    pub scenes: usize,
    /// Pictures that are answered afresh in every mode, in turn, for the speed.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = count)]
    pub timed: usize,
    /// Instead of the table: another table or figure of the paper.
    #[arg(long, value_enum)]
    pub study: Option<Study>,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
    /// Also draw the table, or the study's figure.
    #[arg(long, value_name = "OUT.png")]
    pub png: Option<PathBuf>,
    /// Compare answers letter by letter; without it case, articles, punctuation and number words do not count, as in VQA's metric.
    #[arg(long)]
    pub exact: bool,
    /// Also list what was answered wrong with both samplers on.
    #[arg(long, value_name = "OUT.tsv", conflicts_with = "study")]
    pub wrong: Option<PathBuf>,
}

/// `fovea scenes`.
#[derive(Args)]
pub struct ScenesArgs {
    /// The first held-out scene.
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub seed: u64,
    /// How many.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = count)]
    pub count: usize,
    /// Where pictures and `questions.jsonl` go.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// `fovea train`.
#[derive(Args)]
pub struct TrainArgs {
    /// The run: model, seed and stages, as JSON.
    pub config: PathBuf,
    /// Where its state and log are kept.
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// Also write a checkpoint of the published layout whenever the state is saved.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// As of `fovea ask`; and libtorch, where the build has it.
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// Minutes between two saved states.
    #[arg(long, value_name = "M", default_value_t = 3.0)]
    pub every: f64,
    /// Stop after this many steps, as if killed after a save.
    #[arg(long, value_name = "N")]
    pub steps: Option<u64>,
}

/// `fovea conformance`.
#[derive(Args)]
pub struct ConformanceArgs {
    /// As of `fovea ask`.
    #[arg(long, default_value = "auto", value_parser = device)]
    pub device: DeviceChoice,
    /// The whole report as JSON.
    #[arg(long)]
    pub json: bool,
    /// Also write the report as one HTML file.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// The largest shapes too.
    #[arg(long)]
    pub full: bool,
    /// Only cases whose text holds this, such as top_k or "text_score heads=32".
    #[arg(long, value_name = "TEXT")]
    pub cases: Option<String>,
    /// Whole runs of a directory such as tests/fixtures; without it three that are embedded.
    #[arg(long, value_name = "DIR")]
    pub fixtures: Option<PathBuf>,
    /// Instead: put the JSON reports of a directory side by side, as Markdown.
    #[arg(
        long,
        value_name = "DIR",
        group = "page",
        requires = "out",
        conflicts_with_all = ["json", "html", "full", "cases", "fixtures", "device"]
    )]
    pub matrix: Option<PathBuf>,
    /// Instead: run on the CPU and every adapter, leave their JSON reports in a directory, and put all that are there side by
    /// side, as Markdown.
    #[arg(long, value_name = "DIR", group = "page", requires = "out", conflicts_with_all = ["json", "html", "device"])]
    pub every: Option<PathBuf>,
    /// Where that goes.
    #[arg(long, value_name = "FILE.md", requires = "page")]
    pub out: Option<PathBuf>,
}
