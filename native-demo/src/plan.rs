//! `fovea plan`: tokens and bytes before anything is loaded.

use std::io::{self, Write};

use fovea_model::{Checkpoint, Load, Plan};
use fovea_runtime::memory;
use serde_json::{Map, json};

use crate::{args::PlanArgs, failure::Failure, load, text};

/// Prints the plan for f32 and f16.
pub async fn run(args: PlanArgs) -> Result<(), Failure> {
    let checkpoint = Checkpoint::open(load::source(args.dir.as_deref())?).await?;
    let plans = [("f32", 4), ("f16", 2)].map(|(name, bytes)| (name, Plan::new(&checkpoint, args.image, bytes)));
    if args.json {
        let by_dtype: Map<String, serde_json::Value> = plans
            .iter()
            .map(|(name, plan)| {
                let mut plan_json = json!(plan);
                plan_json["peak"] = json!(plan.peak_bytes());
                ((*name).to_owned(), plan_json)
            })
            .collect();
        let report = json!({"dtypes": by_dtype, "host_available": memory::host_available()});
        return text::out(|to| writeln!(to, "{report}"));
    }
    text::out(|to| print(to, &plans))
}

fn print(to: &mut dyn Write, plans: &[(&str, Plan); 2]) -> io::Result<()> {
    let ((width, height), tiles) = (plans[0].1.picture, plans[0].1.tiles);
    writeln!(to, "picture {width}x{height}: {tiles} tiles")?;
    writeln!(to, "compressed: every region at the middle scale, half of the visual tokens kept by the text")?;
    for (name, plan) in plans {
        writeln!(to, "\n{name:26}{:>14}{:>14}", "full", "compressed")?;
        let mut row = |what: &str, of: fn(&Load) -> String| {
            writeln!(to, "  {what:24}{:>14}{:>14}", of(&plan.full), of(&plan.compressed))
        };
        row("visual tokens", |l| l.visual_tokens.to_string())?;
        row("kept by the text", |l| l.kept_tokens.to_string())?;
        row("equivalent share", |l| format!("{:.1} %", 100.0 * l.equivalent_share))?;
        row("KV cache", |l| text::bytes(l.kv_cache))?;
        row("prefill activations", |l| text::bytes(l.prefill_activations))?;
        let mut both = |what: &str, n: u64| writeln!(to, "  {what:24}{:>28}", text::bytes(n));
        both("weights", plan.weight_bytes)?;
        both("vision activations", plan.vision_activations)?;
        both("features kept", plan.features)?;
        both("peak, full", plan.peak_bytes())?;
    }
    if let Some(have) = memory::host_available() {
        writeln!(to, "\nhost memory available {}", text::bytes(have))?;
    }
    Ok(())
}
