//! `fovea plan`: tokens and memory of a run, before anything is loaded.

use std::io::{self, Write};

use fovea_model::{Checkpoint, Cost, Plan};
use fovea_runtime::memory;
use fovea_terminal::{failure::Failure, load, text};
use serde_json::{Map, json};

use crate::args::PlanArgs;

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
        both("peak, full", plan.peak_bytes())?;
    }
    if let Some(have) = memory::host_available() {
        writeln!(to, "\nhost memory available {}", text::bytes(have))?;
    }
    Ok(())
}
