//! Measures decoding, token by token. Input: a checkpoint and a device. Output: work, time and bandwidth per token.
//!
//! The same question is answered four times: to warm up, for the time, for the number of calls, and for the time on the
//! device. So nothing that counts slows what is timed.

use std::{
    collections::BTreeMap,
    error::Error,
    path::PathBuf,
    time::{Duration, Instant},
};

use fovea_model::{Cancel, Checkpoint, Conversation, Model, Parameter, ParameterRole, Precision, Stored};
use fovea_runtime::{DeviceChoice, OpenDevice, network_ops::Format, source::Source};
use serde_json::{Value, json};

use crate::{
    bandwidth::read_bandwidth,
    counters::{Calls, Counting, Launches, Spent, last_submit},
    picture,
    pipeline::{answer, options},
    pytorch::QUESTION,
};

/// What to measure.
pub struct Settings {
    /// The folder of the checkpoint.
    pub dir: PathBuf,
    /// cpu, wgpu, wgpu:N, cuda or auto.
    pub device: String,
    /// A compression, off or both.
    pub mode: String,
    /// Largest number of tokens of the answer.
    pub new_tokens: usize,
    /// Least number of tokens before the answer without samplers: a small picture and a long question.
    /// None: the picture and the question of `pipeline`.
    pub context: Option<usize>,
    /// How the matrices are stored.
    pub weights: Precision,
    /// Whether to print JSON.
    pub json: bool,
}

/// One decoded token.
struct Step {
    /// Milliseconds from the token before it.
    wall: f64,
    /// Without a GPU: None.
    work: Option<Work>,
    /// The kernels, by name. None without timestamps.
    kernels: Option<BTreeMap<String, Spent>>,
}

/// The work of one token.
struct Work {
    /// Calls of wgpu, and the time from the token before it to the last submit. None with CUDA.
    calls: Option<(Calls, Duration)>,
    /// Launches through CubeCL.
    launches: u64,
    /// As `Step::wall`, while calls are counted.
    wall: f64,
}

/// Prints a row for each token and the medians, or JSON.
pub async fn run(settings: &Settings) -> Result<(), Box<dyn Error>> {
    let open = OpenDevice::open(&settings.device.parse::<DeviceChoice>()?).await?;
    let bandwidth = read_bandwidth(&open);
    let checkpoint = Checkpoint::open(Source::directory(&settings.dir)?).await?;
    let read = read_per_token(&checkpoint);
    let model = Model::load(checkpoint, open, settings.weights, &Cancel::default(), |_| {}).await?;
    let bytes: u64 = read.iter().map(|parameter| device_bytes(parameter, model.stored())).sum();

    let picture = if settings.context.is_some() { picture::strip()? } else { picture::picture()? };
    let mut conversation = Conversation::new(&model, picture);
    let mut question = QUESTION.to_owned();
    let have = conversation.prompt(&question)?.text_tokens() + conversation.grid().stock_tokens();
    question += &" what".repeat(settings.context.unwrap_or(0).saturating_sub(have));
    let options = options(&settings.mode, settings.new_tokens)?;

    answer(&mut conversation, &question, &options, &mut || ()).await?;
    let mut times = Vec::new();
    let turn = answer(&mut conversation, &question, &options, &mut || times.push(Instant::now())).await?;

    let backend = model.device().info.backend.as_str();
    let (on_gpu, on_wgpu) = (backend != "cpu", backend != "cpu" && backend != "cuda");
    let (mut works, mut measured) = (Vec::new(), Vec::new());
    if on_gpu {
        let counting = Counting::start();
        let (launches, observation) = Launches::observe(false);
        let mut before: Option<(Instant, Calls, u64)> = None;
        let mut at_token = || {
            let now = (Instant::now(), Calls::now(), launches.count());
            if let Some((at, calls, launched)) = before.replace(now) {
                works.push(Work {
                    calls: on_wgpu.then(|| (now.1.since(calls), last_submit(at))),
                    launches: now.2 - launched,
                    wall: milliseconds(now.0 - at),
                });
            }
        };
        answer(&mut conversation, &question, &options, &mut at_token).await?;
        drop((counting, observation));
        if on_wgpu && Calls::now().dispatches == 0 {
            return Err("expected a record of wgpu-core for each dispatch, got none; does another crate log?".into());
        }
        // The prefill has many launches; only those after the first token are measured.
        let mut observed = None;
        let mut at_token = || match &observed {
            None => observed = Some(Launches::observe(true)),
            Some((launches, _)) => measured.push(launches.take()),
        };
        answer(&mut conversation, &question, &options, &mut at_token).await?;
    }
    let (mut works, mut measured) = (works.into_iter(), measured.into_iter());
    let steps: Vec<Step> = times
        .windows(2)
        .map(|pair| Step {
            wall: milliseconds(pair[1] - pair[0]),
            work: works.next(),
            kernels: measured.next().flatten(),
        })
        .collect();

    let statistics = &turn.statistics;
    let text = turn.prompt.text_tokens();
    let context = [statistics.tokens.compressed + text, statistics.tokens.kept + text];
    let rows: Vec<Value> = steps.iter().map(row).collect();
    let median = median(&rows);
    let speed = median["wall_ms"].as_f64().map(|ms| bytes as f64 / ms * 1e3);
    let report = json!({
        "device": model.device().info, "dtype": model.dtype_name(), "mode": settings.mode,
        "context": {"lower_layers": context[0], "upper_layers": context[1]}, "tokens": rows, "median": median,
        "kernels": kernels(&steps), "tokens_per_second": statistics.tokens_per_second,
        "bytes_per_token": {"weights": bytes, "kv_cache": statistics.memory.kv_cache},
        "bytes_per_second": {"weights": speed, "read": bandwidth},
        "share_of_bandwidth": speed.zip(bandwidth).map(|(speed, read)| speed / read),
    });
    if settings.json {
        println!("{report:#}")
    } else {
        print(&report)
    }
    Ok(())
}

/// The weights that a decoded token reads: all layers of the text model and the head. Of an embedding that is not the head
/// as well, it reads one row only.
fn read_per_token(checkpoint: &Checkpoint) -> Vec<Parameter> {
    let Checkpoint { names, config, .. } = checkpoint;
    let head = if config.text.tied { names.embedding() } else { names.head() };
    let layers = names.text("layers.");
    checkpoint.needed().into_iter().filter(|p| p.name == head || p.name.starts_with(&layers)).collect()
}

/// Bytes of a parameter on the device. Codes have groups of 32, as those that Fovea makes of floats.
fn device_bytes(parameter: &Parameter, stored: Stored) -> u64 {
    let format = match (parameter.role, stored) {
        (ParameterRole::Layer, Stored::Q4) => Some(Format::Q4),
        (ParameterRole::Layer | ParameterRole::Table, Stored::Q8 | Stored::Q4) => Some(Format::Q8),
        _ => None,
    };
    match format.filter(|format| format.fits(parameter.width())) {
        Some(format) => parameter.shape[0] as u64 * format.row_bytes(parameter.width()),
        None if parameter.role == ParameterRole::Exact || stored == Stored::F32 => 4 * parameter.values(),
        None => 2 * parameter.values(),
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

const COLUMNS: [&str; 9] = [
    "dispatches",
    "launches",
    "uploads",
    "read_backs",
    "submits",
    "host_us",
    "counted_wall_ms",
    "wall_ms",
    "device_ms",
];

fn row(step: &Step) -> Value {
    let calls = step.work.as_ref().and_then(|work| work.calls);
    let call = |value: fn(Calls) -> u64| calls.map(|(calls, _)| value(calls));
    json!({
        "dispatches": call(|c| c.dispatches), "launches": step.work.as_ref().map(|w| w.launches), "uploads": call(|c| c.uploads),
        "read_backs": call(|c| c.read_backs), "submits": call(|c| c.submits),
        "host_us": calls.map(|(_, host)| milliseconds(host) * 1e3), "counted_wall_ms": step.work.as_ref().map(|w| w.wall),
        "wall_ms": step.wall,
        "device_ms": step.kernels.as_ref().map(|kernels| kernels.values().map(|spent| spent.ms).sum::<f64>()),
    })
}

/// The median of each column.
fn median(rows: &[Value]) -> Value {
    let of = |key: &str| {
        let mut values: Vec<f64> = rows.iter().filter_map(|row| row[key].as_f64()).collect();
        values.sort_by(f64::total_cmp);
        (!values.is_empty()).then(|| values[values.len() / 2])
    };
    Value::Object(COLUMNS.iter().map(|&key| (key.to_owned(), json!(of(key)))).collect())
}

/// Launches and milliseconds per token of each kernel, the longest first.
fn kernels(steps: &[Step]) -> Vec<Value> {
    let measured: Vec<_> = steps.iter().filter_map(|step| step.kernels.as_ref()).collect();
    let mut sums = BTreeMap::<&str, Spent>::new();
    for (name, spent) in measured.iter().copied().flatten() {
        let sum = sums.entry(name).or_default();
        sum.launches += spent.launches;
        sum.ms += spent.ms;
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by(|(_, a), (_, b)| b.ms.total_cmp(&a.ms));
    let tokens = measured.len() as f64;
    sums.into_iter()
        .map(|(name, sum)| {
            json!({"kernel": name, "launches": sum.launches as f64 / tokens, "device_ms": sum.ms / tokens})
        })
        .collect()
}

fn print(report: &Value) {
    let number = |value: &Value| match value.as_f64() {
        None => "-".to_owned(),
        Some(v) if v.fract() == 0.0 => format!("{v}"),
        Some(v) if v < 100.0 => format!("{v:.2}"),
        Some(v) => format!("{v:.0}"),
    };
    let gigabytes = |value: &Value| value.as_f64().map_or("-".to_owned(), |v| format!("{:.3}", v / 1e9));
    let text = |key: &str| report[key].as_str().unwrap_or_default().to_owned();
    println!(
        "{}, {}, mode {}; {} tokens before the answer in the lower layers, {} in the upper ones\n",
        report["device"]["name"].as_str().unwrap_or_default(),
        text("dtype"),
        text("mode"),
        report["context"]["lower_layers"],
        report["context"]["upper_layers"],
    );
    println!("| token | {} |", COLUMNS.join(" | ").replace('_', " "));
    println!("|---{}|", "|---".repeat(COLUMNS.len()));
    let line = |name: &str, row: &Value| {
        println!("| {name} | {} |", COLUMNS.map(|key| number(&row[key])).join(" | "));
    };
    // The first token belongs to the prefill.
    report["tokens"].as_array().into_iter().flatten().enumerate().for_each(|(i, row)| line(&(i + 2).to_string(), row));
    line("median", &report["median"]);
    println!(
        "\nWeights read per token: {} GB, {} GB/s. This device reads {} GB/s: {} of its bandwidth. KV cache: {} GB.",
        gigabytes(&report["bytes_per_token"]["weights"]),
        gigabytes(&report["bytes_per_second"]["weights"]),
        gigabytes(&report["bytes_per_second"]["read"]),
        report["share_of_bandwidth"].as_f64().map_or("-".to_owned(), |v| format!("{:.0} %", v * 100.0)),
        gigabytes(&report["bytes_per_token"]["kv_cache"]),
    );
    let kernels = report["kernels"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !kernels.is_empty() {
        println!("\n| kernel | launches per token | device ms per token |\n|---|---|---|");
    }
    for kernel in kernels {
        let name = kernel["kernel"].as_str().unwrap_or_default();
        println!("| {name} | {} | {:.3} |", number(&kernel["launches"]), kernel["device_ms"].as_f64().unwrap_or(0.0));
    }
}
