//! `fovea inspect`: what a checkpoint contains, and whether it is complete.

use std::io::{self, Write};

use fovea_model::{Checkpoint, Inspection, inspect};
use fovea_terminal::{failure::Failure, load, text};
use serde_json::json;

use crate::args::DirArgs;

/// Prints the inspection; fails if tensors are missing or have values that are not finite.
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
            Err(Failure::NotWhole(format!("{first} (in total {missing} missing or wrong, {bad} not finite)")))
        }
    }
}

fn print(to: &mut dyn Write, found: &Inspection) -> io::Result<()> {
    let (v, t, f) = (&found.config.vision, &found.config.text, &found.config.focus);
    writeln!(
        to,
        "vision   CLIP, {} of {} layers used, {} wide, {} heads\n         {} px tiles in {} px patches",
        v.n_used, v.n_layers, v.d_model, v.n_heads, v.side, v.patch
    )?;
    writeln!(
        to,
        "text     {}, {} layers, {} wide, {} heads, {} key heads of {}",
        t.family, t.n_layers, t.d_model, t.n_heads, t.n_kv_heads, t.d_head
    )?;
    writeln!(
        to,
        "         {} tokens of context, stop at {:?}\n         {} rows of vocabulary, {} with a token",
        t.context, found.stop_ids, found.vocabulary.0, found.vocabulary.1
    )?;
    let scales: Vec<String> = f.scales.iter().map(ToString::to_string).collect();
    let selector = if found.scale_selector { "present" } else { "none: a stock LLaVA-NeXT" };
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
    if let Some(parts) = not_used(found) {
        writeln!(to, "{:10} {} (vision, {parts}: after the feature layer)", "not used", found.not_used.tensors)?;
    }
    list(to, "extra", &found.extra)?;
    let bad: Vec<String> =
        found.non_finite.iter().map(|n| format!("{}: {} at index {}", n.tensor, n.value, n.index)).collect();
    list(to, "not finite", &bad)
}

/// The parts of the vision tower that are in the file but not used, as every stock checkpoint has them.
fn not_used(found: &Inspection) -> Option<String> {
    let names = &found.not_used.names;
    let norm = names.iter().any(|name| name.contains("post_layernorm"));
    let layers = names.len() - usize::from(norm);
    let (first, last) = (found.config.vision.n_used, found.config.vision.n_layers.saturating_sub(1));
    let layers = match layers {
        0 => None,
        _ if first == last => Some(format!("layer {first}")),
        _ => Some(format!("layers {first} to {last}")),
    };
    let parts: Vec<String> = layers.into_iter().chain(norm.then(|| "last norm".to_owned())).collect();
    (!parts.is_empty()).then(|| parts.join(" and "))
}

fn list(to: &mut dyn Write, what: &str, items: &[String]) -> io::Result<()> {
    writeln!(to, "{what:10} {}", items.len())?;
    for item in items.iter().take(20) {
        writeln!(to, "           {}", text::line(item))?;
    }
    if items.len() > 20 {
        writeln!(to, "           and {} more (--json lists all)", items.len() - 20)?;
    }
    Ok(())
}
