//! Measures one question about one picture in each mode. Each run starts from the pixels.

use std::{error::Error, path::PathBuf, time::Instant};

use fovea_model::{AskOptions, Cancel, Checkpoint, Conversation, Event, LoadOptions, Model, Stage, Statistics, Turn};
use fovea_runtime::{DeviceChoice, OpenDevice, memory, source::Source};
use futures_util::{StreamExt, pin_mut};
use serde_json::{Value, json};

use crate::{
    counters::Launches,
    picture,
    pytorch::{self, QUESTION},
};

/// A second question about the same picture.
const ANOTHER: &str = "How many people are there?";

/// What to measure.
pub struct Settings {
    /// The folder of the checkpoint.
    pub dir: PathBuf,
    /// cpu, wgpu, wgpu:N, cuda or auto.
    pub device: String,
    /// Largest number of tokens per answer.
    pub new_tokens: usize,
    /// Runs of each mode; the fastest one is reported.
    pub repeat: usize,
    /// Modes to run: compressions; `off` is none, `both` is focus.
    pub modes: Vec<String>,
    /// How the model is loaded.
    pub load: LoadOptions,
    /// A Python with torch and transformers, to also measure the same model in PyTorch eager.
    pub pytorch: Option<PathBuf>,
    /// Whether to print JSON.
    pub json: bool,
}

/// Runs every mode and prints a table, or JSON.
pub async fn run(settings: &Settings) -> Result<(), Box<dyn Error>> {
    let device = OpenDevice::open(&settings.device.parse::<DeviceChoice>()?).await?;
    let start = Instant::now();
    let checkpoint = Checkpoint::open(Source::directory(&settings.dir)?).await?;
    let model = Model::load(checkpoint, device, settings.load, &Cancel::default(), |_| {}).await?;
    let load = start.elapsed().as_secs_f64();
    eprintln!("{}, {}, loaded in {load:.1} s", model.device().info, model.dtype_name());
    let load_peak = memory::host_peak();
    let mut rows = Vec::new();
    let (mut again, mut text_tokens) = (None, 0);
    for mode in &settings.modes {
        let options = options(mode, settings.new_tokens)?;
        let mut best: Option<(f64, Statistics)> = None;
        let mut launched = Vec::new();
        for _ in 0..settings.repeat.max(1) {
            let start = Instant::now();
            let mut conversation = Conversation::new(&model, picture::picture()?);
            launched.clear();
            let (launches, observation) = Launches::observe(false);
            let turn = answer(&mut conversation, QUESTION, &options, &mut || launched.push(launches.count())).await?;
            let whole = start.elapsed().as_secs_f64() * 1e3;
            drop(observation);
            text_tokens = turn.prompt.text_tokens();
            if mode == "both" {
                again = Some(first_token(&mut conversation, &options).await?);
            }
            if best.as_ref().is_none_or(|(ms, _)| whole < *ms) {
                best = Some((whole, turn.statistics));
            }
        }
        let (whole, statistics) = best.ok_or("no run")?;
        let mut row = row(mode, whole, &statistics);
        // Those of the prefill are before the first token.
        let steps = launched.len().saturating_sub(1);
        let decode = launched.last().zip(launched.first()).map_or(0, |(last, first)| last - first);
        row["launches_per_token"] = json!((decode > 0).then(|| decode as f64 / steps as f64));
        if let Some(python) = &settings.pytorch {
            row["pytorch_ms"] = pytorch::run(python, &settings.dir, mode, settings.new_tokens)?;
        }
        eprintln!("{}", line(&row));
        rows.push(row);
    }
    let find = |mode: &str, key: &str| rows.iter().find(|r| r["mode"] == mode).and_then(|r| r[key].as_f64());
    let ratio = |key: &str| find("off", key).zip(find("both", key)).map(|(off, both)| off / both);
    let report = json!({
        "device": model.device().info, "dtype": model.dtype_name(), "tower": model.tower_name(),
        "activations": model.activations_name(), "load_s": load, "rows": rows,
        "text_tokens": text_tokens,
        "memory_bytes": {"weights": model.weight_bytes(), "host_peak_after_load": load_peak},
        "second_question_first_token_ms": again,
        "off_over_both": {"prefill": ratio("prefill_ms"), "first_token": ratio("first_token_ms")},
    });
    if settings.json {
        println!("{report:#}");
    } else {
        println!(
            "| mode | tokens | equivalent | tiles | vision | compress | prefill | first token | outside network | launches/token | tokens/s | whole | PyTorch whole | ratio |"
        );
        println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|");
        rows.iter().for_each(|row| println!("{}", line(row)));
        println!("\noff / both: {}", report["off_over_both"]);
        println!("second question on the same picture, both: {}", report["second_question_first_token_ms"]);
        println!("bytes: {}", report["memory_bytes"]);
    }
    Ok(())
}

/// Milliseconds to the first token of a second question about the same picture.
async fn first_token(conversation: &mut Conversation, options: &AskOptions) -> Result<f64, Box<dyn Error>> {
    Ok(answer(conversation, ANOTHER, options, &mut || ()).await?.statistics.first_token_ms)
}

/// The options of a mode: a compression, `off` (none) or `both` (focus).
pub fn options(mode: &str, max_new_tokens: usize) -> Result<AskOptions, Box<dyn Error>> {
    let spec = match mode {
        "off" => "none",
        "both" => "focus",
        other => other,
    };
    Ok(AskOptions { compression: Some(spec.parse()?), max_new_tokens, ..AskOptions::default() })
}

/// Answers `question`, and calls `at_token` after each token.
pub async fn answer(
    conversation: &mut Conversation,
    question: &str,
    options: &AskOptions,
    at_token: &mut dyn FnMut(),
) -> Result<Box<Turn>, Box<dyn Error>> {
    let events = conversation.ask(question, options);
    pin_mut!(events);
    let mut turn = None;
    while let Some(event) = events.next().await {
        match event? {
            Event::Token { .. } => at_token(),
            Event::Done(done) => turn = Some(done),
            _ => {}
        }
    }
    turn.ok_or_else(|| "expected a complete answer, got an early end".into())
}

fn row(mode: &str, whole: f64, s: &Statistics) -> Value {
    let ms = |stages: &[Stage]| stages.iter().filter_map(|stage| s.stage_ms.get(stage)).sum::<f64>();
    let outside = ms(&[Stage::Tiles, Stage::Prompt]);
    json!({
        "mode": mode, "tokens": s.tokens, "equivalent_share": s.equivalent_share,
        "tiles_ms": ms(&[Stage::Tiles]), "prompt_ms": ms(&[Stage::Prompt]), "vision_ms": ms(&[Stage::VisionTower]),
        "compress_ms": ms(&[Stage::Compress]),
        "prefill_ms": ms(&[Stage::ImagePrefill, Stage::Prune, Stage::Prefill]),
        "decode_ms": ms(&[Stage::Decode]),
        "first_token_ms": s.first_token_ms, "outside_network": outside / s.first_token_ms,
        "tokens_per_second": s.tokens_per_second, "whole_ms": whole, "memory": s.memory, "stages_ms": s.stage_ms,
    })
}

fn line(row: &Value) -> String {
    let ms = |key: &str| row[key].as_f64().map_or("-".to_owned(), |v| format!("{v:.0} ms"));
    let percent = |key: &str| row[key].as_f64().map_or("-".to_owned(), |v| format!("{:.1} %", 100.0 * v));
    let rate = row["tokens_per_second"].as_f64().map_or("-".to_owned(), |v| format!("{v:.2}"));
    let launches = row["launches_per_token"].as_f64().map_or("-".to_owned(), |v| format!("{v:.0}"));
    let pytorch = row["pytorch_ms"]["total"].as_f64();
    let ratio = pytorch.zip(row["whole_ms"].as_f64()).map_or("-".to_owned(), |(p, w)| format!("{:.2}x", w / p));
    let pytorch = pytorch.map_or("-".to_owned(), |p| format!("{p:.0} ms"));
    let tokens = ["all", "compressed", "kept"].map(|k| row["tokens"][k].to_string()).join(" -> ");
    format!(
        "| {} | {tokens} | {} | {} | {} | {} | {} | {} | {} | {launches} | {rate} | {} | {pytorch} | {ratio} |",
        row["mode"].as_str().unwrap_or_default(),
        percent("equivalent_share"),
        ms("tiles_ms"),
        ms("vision_ms"),
        ms("compress_ms"),
        ms("prefill_ms"),
        ms("first_token_ms"),
        percent("outside_network"),
        ms("whole_ms"),
    )
}
