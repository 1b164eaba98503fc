//! Commands and their arguments.

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};
use fovea_eval::EvalArgs;
use fovea_model::{AskOptions, Compression, Pick, Precision};
use fovea_runtime::{DeviceChoice, hub_cache::Repository};
use fovea_serve::ServeArgs;
use fovea_terminal::{
    failure::Failure,
    logging::Verbosity,
    options::{LoadArgs, StoreArgs, compress_help, compression, device, named, whole},
};

use crate::{batch::Shard, chat};

/// The end of `fovea ask --help`.
const NUMBERS: &str = "\
The answer goes to stdout. Two lines of numbers go to stderr:

  visual tokens 304 -> 147 -> 49, 24 % of the work | CPU f32
  first token 20 ms, 950 tokens/s

visual tokens   all of the model, those that enter the text model after
                compression, and those that its last layer reads
of the work     equivalent tokens (mean number of visual tokens per decoder layer)
                as a share of all visual tokens
CPU f32         device, and how the weight matrices are stored
first token     time from the question to the first token of the answer
tokens/s        speed of the tokens after the first";

/// The end of `fovea batch --help`.
const REQUESTS: &str = "\
A line is one of

  {\"image\": \"picture.jpg\", \"question\": \"What is this?\"}
  {\"custom_id\": \"1\", \"method\": \"POST\", \"url\": \"/v1/chat/completions\", \"body\": ...}

image is a path, a data URL, or a list of them. A path is relative to the folder of
the input. The options are for lines without such a key. All keys of both forms, and of
the answers: docs/cli.md";

/// The end of `fovea chat --help`.
fn commands() -> String {
    format!(
        "A line is a question, or one of these commands:\n\n{}\n\nWhere standard input is not a terminal, each line is \
         one question or command; the answers go to stdout.",
        chat::help()
    )
}

/// The end of `fovea pull --help`.
const ENVIRONMENT: &str = "\
Environment:

  HF_TOKEN         the token for private and gated repositories; without it the
                   token that `hf auth login` stored
  HF_HOME          the folder of the cache and the token; without it
                   XDG_CACHE_HOME/huggingface or ~/.cache/huggingface
  HF_HUB_CACHE     the folder of the cache; without it HF_HOME/hub
  HF_ENDPOINT      the address of the hub; without it https://huggingface.co
  HF_HUB_OFFLINE   1: download nothing; print the folder of what is in the cache
  HTTPS_PROXY      a proxy; ALL_PROXY and HTTP_PROXY are read too
  NO_PROXY         hosts that are reached without the proxy";

/// Ask questions about pictures, and see which parts of a picture the model used.
///
/// Without a command, the window opens.
#[derive(Parser)]
#[command(name = "fovea", version, max_term_width = 100)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// What is printed on stderr.
    #[command(flatten)]
    pub verbosity: Verbosity,
}

/// The command.
#[derive(Subcommand)]
pub enum Command {
    /// Open the window: ask about a picture, and see which parts of it the model used.
    App(AppArgs),
    /// Answer questions about a picture.
    #[command(after_long_help = NUMBERS)]
    Ask(AskArgs),
    /// Talk about pictures: ask one question after another, at a prompt or from standard input.
    #[command(after_long_help = commands())]
    Chat(ChatArgs),
    /// Answer HTTP requests in the form of OpenAI's chat completions.
    Serve(ServeArgs),
    /// Answer a file of requests, one per line; a run that was stopped is resumed.
    #[command(after_long_help = REQUESTS)]
    Batch(BatchArgs),
    /// Write the result of every stage of one run, in f32, to a safetensors file.
    ///
    /// The answer is greedy (always the most likely token).
    Trace(TraceArgs),
    /// Download a checkpoint from the Hugging Face hub into its cache, where --model ORG/NAME finds it.
    ///
    /// Only the files that Fovea reads. What is in the cache is not downloaded again, and a download that was cut is
    /// resumed.
    #[command(after_long_help = ENVIRONMENT)]
    Pull(PullArgs),
    /// Write a checkpoint with quantised weights: codes of 8 or 4 bits instead of floats.
    Quantize(QuantizeArgs),
    /// Show whether a checkpoint runs and what is missing, without loading it.
    Inspect(DirArgs),
    /// Show how many tokens and how much memory a run needs, before anything is loaded.
    Plan(PlanArgs),
    /// List all devices with their limits, and test each with a small computation.
    Doctor(DoctorArgs),
    /// Compare the results of a device with PyTorch and with references in f64: every operation, and every stage.
    Conformance(ConformanceArgs),
    /// Count right answers, tokens and speed on a folder of pictures, for several compressions of the visual tokens.
    Eval(EvalArgs),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// `fovea app`.
#[derive(Args, Default)]
pub struct AppArgs {
    /// A picture to open.
    pub image: Option<PathBuf>,
    /// A checkpoint folder; without it the last one, at first the embedded demo checkpoint.
    #[arg(short, long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// auto, cpu, wgpu, wgpu:N or wgpu:NAME; without it the last one, at first auto.
    #[arg(long, value_parser = device)]
    pub device: Option<DeviceChoice>,
}

/// The model, and how it answers: the options that `ask`, `chat` and `batch` have in common.
#[derive(Args)]
pub struct AnswerArgs {
    /// A checkpoint of the LLaVA family: a folder, or a repository in the cache of the Hugging Face hub (ORG/NAME); without it the
    /// embedded demo checkpoint.
    #[arg(short, long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// auto, cpu, wgpu, wgpu:N, wgpu:NAME, cuda or cuda:N. auto selects a GPU, or the CPU where there is none.
    #[arg(long, default_value = "auto", value_parser = device)]
    pub device: DeviceChoice,
    /// How the model is loaded.
    #[command(flatten)]
    pub load: LoadArgs,
    /// Which visual tokens the model uses: a method and its settings; without it as in the checkpoint. --help lists the
    /// methods.
    #[arg(long, value_name = "SPEC", value_parser = compression, long_help = compress_help())]
    pub compress: Option<Compression>,
    /// Largest number of tokens in an answer.
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = whole::<usize>, allow_negative_numbers = true)]
    pub max_new_tokens: usize,
    /// 0 takes the most likely token; above 0, tokens are sampled at random.
    #[arg(long, value_name = "T", default_value_t = 0.0, allow_negative_numbers = true)]
    pub temperature: f64,
    /// Sample from the fewest most likely tokens whose probabilities add up to P; without it 1: from all.
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub top_p: Option<f64>,
    /// Sample from the K most likely tokens; 0, or without it: from all.
    #[arg(long, value_name = "K", value_parser = whole::<usize>, allow_negative_numbers = true)]
    pub top_k: Option<usize>,
    /// Seed of the random numbers; without it 0.
    #[arg(long, value_name = "S", value_parser = whole::<u64>, allow_negative_numbers = true)]
    pub seed: Option<u64>,
    /// Make tokens less likely that are already in the prompt or in the answer; 1 is off. Without it, the value in
    /// generation_config.json.
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub repetition_penalty: Option<f64>,
}

impl AnswerArgs {
    /// # Errors
    /// [`Failure::Usage`] where an option has no effect because of another.
    pub fn check(&self) -> Result<(), Failure> {
        let random =
            [(self.top_p.is_some(), "--top-p"), (self.top_k.is_some(), "--top-k"), (self.seed.is_some(), "--seed")];
        let given = random.iter().find(|(given, _)| *given && self.temperature == 0.0);
        given.map_or(Ok(()), |(_, option)| {
            Err(Failure::Usage(format!("expected --temperature above 0 for {option}, got 0")))
        })
    }

    /// The options of every question.
    pub fn options(&self) -> AskOptions {
        let usual = Pick::default();
        AskOptions {
            compression: self.compress.clone(),
            max_new_tokens: self.max_new_tokens,
            pick: Pick {
                temperature: self.temperature,
                top_k: self.top_k.unwrap_or(usual.top_k),
                top_p: self.top_p.unwrap_or(usual.top_p),
                seed: self.seed.unwrap_or(usual.seed),
                repetition_penalty: self.repetition_penalty,
            },
            ..AskOptions::default()
        }
    }
}

/// `fovea ask`.
#[derive(Args)]
pub struct AskArgs {
    /// The picture: PNG, JPEG, WebP, GIF or BMP, a file or an http(s) address; - reads it from standard input.
    pub image: PathBuf,
    /// One more picture, which comes after the first one; may be repeated. Questions are then about all pictures.
    #[arg(long = "and", value_name = "IMAGE")]
    pub more: Vec<PathBuf>,
    /// One or more questions; each is answered separately. A question that begins with a hyphen goes after --.
    #[arg(required = true)]
    pub questions: Vec<String>,
    /// The model, and how it answers.
    #[command(flatten)]
    pub answer: AnswerArgs,
    /// Print one JSON object per question on stdout.
    #[arg(long)]
    pub json: bool,
    /// Write the attention overlay of the last question, as PNG, JPEG, WebP or BMP.
    #[arg(long, value_name = "OUT.png")]
    pub overlay: Option<PathBuf>,
}

impl AskArgs {
    /// # Errors
    /// [`Failure::Usage`] where an option has no effect because of another, or does not fit the pictures.
    pub fn check(&self) -> Result<(), Failure> {
        self.answer.check()?;
        let standard_input = |image: &PathBuf| image == Path::new("-");
        if self.more.iter().chain([&self.image]).filter(|image| standard_input(image)).count() > 1 {
            return Err(Failure::Usage("expected standard input (-) for one picture, got it for several".to_owned()));
        }
        if self.overlay.is_some() && !self.more.is_empty() {
            let got = self.more.len() + 1;
            return Err(Failure::Usage(format!("expected one picture for --overlay, got {got}")));
        }
        Ok(())
    }
}

/// `fovea chat`.
#[derive(Args)]
#[command(mut_arg("max_new_tokens", |arg| arg.default_value("512")))]
pub struct ChatArgs {
    /// The pictures: files or http(s) addresses of PNG, JPEG, WebP, GIF or BMP. Without one, the model reads text alone.
    #[arg(value_name = "IMAGE")]
    pub images: Vec<PathBuf>,
    /// The model, and how it answers.
    #[command(flatten)]
    pub answer: AnswerArgs,
    /// The system message: instructions before the first question. Not every chat template has a place for it.
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// Do not read and write the file of the lines that were typed earlier.
    #[arg(long)]
    pub no_history: bool,
}

impl ChatArgs {
    /// # Errors
    /// [`Failure::Usage`] where an option has no effect because of another, or a picture is standard input.
    pub fn check(&self) -> Result<(), Failure> {
        self.answer.check()?;
        if self.images.iter().any(|image| image == Path::new("-")) {
            let why = "expected files of pictures, got standard input (-), which has the questions".to_owned();
            return Err(Failure::Usage(why));
        }
        Ok(())
    }
}

/// `fovea batch`.
#[derive(Args)]
pub struct BatchArgs {
    /// The requests: a file with one JSON object per line.
    #[arg(value_name = "IN.jsonl")]
    pub input: PathBuf,
    /// The file of the answers, one line per request. If it exists, the run resumes after its last complete line.
    #[arg(value_name = "OUT.jsonl")]
    pub out: PathBuf,
    /// The model, and how it answers lines without keys of their own.
    #[command(flatten)]
    pub answer: AnswerArgs,
    /// Answer only share I of N equal shares of the lines: lines I, I + N, I + 2N and so on.
    #[arg(long, value_name = "I/N", value_parser = Shard::read)]
    pub shard: Option<Shard>,
    /// Discard the answers of an earlier run, and begin with the first line.
    #[arg(long)]
    pub restart: bool,
    /// End with exit code 1 if a line has an error.
    #[arg(long)]
    pub fail_on_error: bool,
}

/// `fovea trace`.
#[derive(Args)]
pub struct TraceArgs {
    /// The picture: PNG, JPEG, WebP, GIF or BMP, a file or an http(s) address; - reads it from standard input.
    pub image: PathBuf,
    /// One more picture, which comes after the first one; may be repeated.
    #[arg(long = "and", value_name = "IMAGE")]
    pub more: Vec<PathBuf>,
    /// The question. If it begins with a hyphen, it goes after --.
    pub question: String,
    /// A checkpoint: a folder, or a repository in the cache of the Hugging Face hub (ORG/NAME).
    #[arg(short, long, value_name = "DIR")]
    pub model: PathBuf,
    /// As in `fovea ask`.
    #[arg(long, value_name = "SPEC", value_parser = compression)]
    pub compress: Option<Compression>,
    /// Largest number of tokens in the answer.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = whole::<usize>, allow_negative_numbers = true)]
    pub max_new_tokens: usize,
    /// As in `fovea ask`.
    #[arg(long, default_value = "auto", value_parser = device)]
    pub device: DeviceChoice,
    /// The file to write.
    #[arg(long, value_name = "FILE.safetensors")]
    pub out: PathBuf,
}

/// `fovea pull`.
#[derive(Args)]
pub struct PullArgs {
    /// The repository on the hub, such as llava-hf/llava-v1.6-mistral-7b-hf. REVISION is a branch, a tag or a commit;
    /// without it main.
    #[arg(value_name = "ORG/NAME[@REVISION]", value_parser = repository)]
    pub repository: Repository,
    /// A GGUF file: its name, or its quantisation, such as Q4_K_M; may be given twice, for the text model and for its
    /// mmproj file. Without it, safetensors are downloaded where the repository has them.
    #[arg(long = "file", value_name = "NAME")]
    pub files: Vec<String>,
    /// List the files with their sizes, and the free disk space; download nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Also compare the weights that are in the cache with their SHA-256, and download wrong files again.
    #[arg(long)]
    pub check: bool,
}

/// `fovea quantize`.
#[derive(Args)]
pub struct QuantizeArgs {
    /// A checkpoint: a folder, or a repository in the cache of the Hugging Face hub (ORG/NAME).
    pub model: PathBuf,
    /// The folder to write. It must not exist, or be empty.
    pub out: PathBuf,
    /// How the weight matrices are stored.
    #[arg(long, ignore_case = true, value_parser = named::<Precision>(["q8", "q4"]))]
    pub weights: Precision,
    /// Number of neighbouring values that share a scale.
    #[arg(long, value_name = "N", default_value = "32", value_parser = named::<u32>(["32", "64", "128"]))]
    pub group: u32,
    /// Also store a minimum for each group: more exact, and larger.
    #[arg(long)]
    pub minimum: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

fn repository(text: &str) -> Result<Repository, String> {
    let whole = Repository::parse(text).filter(|repository| repository.id.contains('/'));
    let expected = "expected ORG/NAME or ORG/NAME@REVISION of a model, as on https://huggingface.co; a revision with `/` \
                    is not supported; --file chooses a GGUF file";
    whole.ok_or_else(|| expected.to_owned())
}

/// `fovea inspect`.
#[derive(Args)]
pub struct DirArgs {
    /// A checkpoint folder or repository; without it the embedded demo checkpoint.
    pub dir: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `fovea plan`.
#[derive(Args)]
pub struct PlanArgs {
    /// A checkpoint folder or repository; without it the embedded demo checkpoint.
    pub dir: Option<PathBuf>,
    /// Size of the picture in pixels; without it the model's largest canvas.
    #[arg(long, value_name = "WxH", value_parser = size)]
    pub image: Option<(usize, usize)>,
    /// How cache, vision tower and activations are stored.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Print JSON.
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
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `fovea conformance`.
#[derive(Args)]
pub struct ConformanceArgs {
    /// As in `fovea ask`.
    #[arg(long, default_value = "auto", value_parser = device)]
    pub device: DeviceChoice,
    /// Print the whole report as JSON.
    #[arg(long)]
    pub json: bool,
    /// Also write the report as one HTML file.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Also test the largest shapes.
    #[arg(long)]
    pub full: bool,
    /// Only cases whose text contains TEXT, such as top_k or "text_score heads=32".
    #[arg(long, value_name = "TEXT")]
    pub cases: Option<String>,
    /// Whole runs from a folder such as tests/fixtures; without it 15 embedded ones.
    #[arg(long, value_name = "DIR")]
    pub fixtures: Option<PathBuf>,
    /// Do not run anything: compare the JSON reports in a folder in one Markdown page.
    #[arg(
        long,
        value_name = "DIR",
        group = "page",
        requires = "out",
        conflicts_with_all = ["json", "html", "full", "cases", "fixtures", "device"]
    )]
    pub matrix: Option<PathBuf>,
    /// Run on the CPU and on every adapter, write their JSON reports to a folder, and compare all reports in it in one
    /// Markdown page.
    #[arg(long, value_name = "DIR", group = "page", requires = "out", conflicts_with_all = ["json", "html", "device"])]
    pub every: Option<PathBuf>,
    /// The file of the Markdown page.
    #[arg(long, value_name = "FILE.md", requires = "page")]
    pub out: Option<PathBuf>,
}
