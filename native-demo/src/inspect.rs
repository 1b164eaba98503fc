//! `fovea inspect`: what a checkpoint is, and whether it is whole.

use std::io::{self, Write};

use fovea_model::{Checkpoint, Inspection, inspect};
use serde_json::json;

use crate::{args::DirArgs, failure::Failure, load, text};

/// Prints the inspection; fails where tensors are missing or hold values that are not finite.
pub async fn run(args: DirArgs) -> Result<(), Failure> {
    let checkpoint = Checkpoint::read(load::source(args.dir.as_deref())?).await?;
    let found = inspect(&checkpoint).await?;
    if args.json {
        text::out(|to| writeln!(to, "{}", json!(found)))?;
    } else {
        text::out(|to| print(to, &found))?;
    }
    let not_finite = found
        .non_finite
        .first()
        .map(|n| format!("tensor `{}`: expected finite values, got {} at index {}", n.tensor, n.value, n.index));
    match found.missing.first().cloned().or(not_finite) {
        None => Ok(()),
        Some(first) => {
            let (missing, bad) = (found.missing.len(), found.non_finite.len());
            Err(Failure::NotWhole(format!("{first} (in all {missing} missing or wrong, {bad} not finite)")))
        }
    }
}

fn print(to: &mut dyn Write, found: &Inspection) -> io::Result<()> {
    let (v, t, f) = (&found.config.vision, &found.config.text, &found.config.focus);
    writeln!(
        to,
        "vision   CLIP, {} of {} layers used, {} wide, {} heads, {} px tiles in {} px patches",
        v.n_used, v.n_layers, v.d_model, v.n_heads, v.side, v.patch
    )?;
    writeln!(
        to,
        "text     {}, {} layers, {} wide, {} heads, {} key heads of {}, {} tokens of context",
        t.family, t.n_layers, t.d_model, t.n_heads, t.n_kv_heads, t.d_head, t.context
    )?;
    writeln!(
        to,
        "         {} rows of vocabulary, {} with a token, stop at {:?}",
        found.vocabulary.0, found.vocabulary.1, found.stop_ids
    )?;
    let scales: Vec<String> = f.scales.iter().map(ToString::to_string).collect();
    let selector = if found.scale_selector { "there" } else { "none: a stock LLaVA-NeXT" };
    writeln!(to, "vision-guided sampler   window {}, scales {}, selector {selector}", f.window, scales.join(" "))?;
    let layer = f.text_layer.map_or("none".into(), |l| l.to_string());
    let rope = if f.score_rope { ", with rotary positions" } else { "" };
    writeln!(to, "text-guided sampler     layer {layer}, gamma {}{rope}", f.gamma)?;
    writeln!(to, "weights  {:?} naming in {}", found.naming, found.files.join(", "))?;
    for (dtype, stored) in &found.needed {
        writeln!(
            to,
            "         {dtype:5} {} tensors, {} values, {}",
            stored.tensors,
            stored.values,
            text::bytes(stored.bytes)
        )?;
    }
    list(to, "missing", &found.missing)?;
    list(to, "extra", &found.extra)?;
    let bad: Vec<String> =
        found.non_finite.iter().map(|n| format!("{}: {} at index {}", n.tensor, n.value, n.index)).collect();
    list(to, "not finite", &bad)
}

fn list(to: &mut dyn Write, what: &str, items: &[String]) -> io::Result<()> {
    writeln!(to, "{what:10} {}", items.len())?;
    for item in items.iter().take(20) {
        writeln!(to, "           {}", text::line(item))?;
    }
    if items.len() > 20 {
        writeln!(to, "           and {} more (all with --json)", items.len() - 20)?;
    }
    Ok(())
}
