//! `fovea plan`: tokens and memory of a run, and the memory of this machine, before anything is loaded.

use std::io::{self, Write};

use fovea_model::{Checkpoint, Cost, LoadOptions, Outline, Plan, Stored, gguf::GgufCheckpoint};
use fovea_runtime::{DeviceInfo, device::adapters, memory, weights::Weights};
use fovea_terminal::{failure::Failure, load, text};
use serde_json::{Map, json};

use crate::args::PlanArgs;

/// Prints the plan for every way to store matrices. config.json is enough; without weights, a scale selector is not assumed.
pub async fn run(args: PlanArgs) -> Result<(), Failure> {
    let source = load::source(args.dir.as_deref())?;
    let options = LoadOptions::from(args.store);
    let plan: Box<dyn Fn(Stored) -> Plan> =
        if GgufCheckpoint::present(&source) || Weights::present(&source) && source.contains("tokenizer.json") {
            let checkpoint = Checkpoint::open(source).await?;
            Box::new(move |stored| Plan::chosen(&checkpoint, args.image, stored, &options))
        } else {
            let outline = Outline::open(&source).await?;
            let notes = outline.notes.iter().map(|note| format!("note: {note}"));
            notes
                .chain(["note: no safetensors, or no tokenizer.json: planned from config.json".to_owned()])
                .for_each(|note| text::note(&note));
            Box::new(move |stored| Plan::without_weights(&outline, None, args.image, stored, &options))
        };
    let plans = Stored::ALL.map(|stored| (stored.name(), plan(stored)));
    let mut gpus = adapters().await;
    gpus.retain(|gpu| gpu.memory.is_some());
    if args.json {
        let by_dtype: Map<String, serde_json::Value> = plans
            .iter()
            .map(|(name, plan)| {
                let mut plan_json = json!(plan);
                plan_json["peak"] = json!(plan.peak_bytes());
                ((*name).to_owned(), plan_json)
            })
            .collect();
        let gpus: Vec<_> = gpus.iter().map(|gpu| json!({"name": gpu.to_string(), "memory": gpu.memory})).collect();
        let report = json!({"dtypes": by_dtype, "host_available": memory::host_available(), "gpus": gpus});
        return text::out(|to| writeln!(to, "{report}"));
    }
    text::out(|to| print(to, &plans, &gpus))
}

fn print(to: &mut dyn Write, plans: &[(&str, Plan)], gpus: &[DeviceInfo]) -> io::Result<()> {
    if let Some((_, plan)) = plans.first() {
        let ((width, height), tiles) = (plan.picture, plan.tiles);
        writeln!(to, "picture {width}x{height}: {}", text::counted(tiles as usize, "tile"))?;
    }
    writeln!(to, "full: every visual token, as without samplers")?;
    writeln!(to, "compressed: middle scale everywhere, then half of the tokens (an assumption)")?;
    writeln!(to, "equivalent tokens: mean number per decoder layer, as a share of all")?;
    for (name, plan) in plans {
        writeln!(to, "\n{name:26}{:>14}{:>14}", "full", "compressed")?;
        let mut row = |what: &str, of: fn(&Cost) -> String| {
            writeln!(to, "  {what:24}{:>14}{:>14}", of(&plan.full), of(&plan.compressed))
        };
        row("visual tokens", |c| c.visual_tokens.to_string())?;
        row("kept for the question", |c| c.kept_tokens.to_string())?;
        row("equivalent tokens", |c| format!("{:.1} %", 100.0 * c.equivalent_share))?;
        row("KV cache", |c| text::bytes(c.kv_cache))?;
        row("prefill activations", |c| text::bytes(c.prefill_activations))?;
        let mut both = |what: &str, n: u64| writeln!(to, "  {what:24}{:>28}", text::bytes(n));
        both("weights", plan.weight_bytes)?;
        both("vision activations", plan.vision_activations)?;
        both("stored features", plan.features)?;
        both("copies in f32, on a CPU", plan.f32_copies)?;
        both("peak on a GPU, full", plan.peak_bytes())?;
        both("peak on a CPU, full", plan.cpu_peak)?;
    }
    if let Some(have) = memory::host_available() {
        writeln!(to, "\nhost memory available {}", text::bytes(have))?;
    }
    for gpu in gpus {
        writeln!(to, "memory of {gpu} {}", text::bytes(gpu.memory.unwrap_or_default()))?;
    }
    Ok(())
}
