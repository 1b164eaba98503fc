//! `fovea inspect`: whether a checkpoint runs, what it contains, and what to do if something is missing.

use std::{
    io::{self, Write},
    mem,
};

use fovea_model::{Before, Compression, Config, Cut, Fits, Inspection, Naming, ProjectorKind, inspect};
use fovea_runtime::memory;
use fovea_terminal::{failure::Failure, load, text};
use serde_json::json;

use crate::args::DirArgs;

/// Columns of the labels.
const LABEL: usize = 11;
/// Longest list of tensors or files.
const LISTED: usize = 20;

/// Prints the inspection; fails if the checkpoint does not run.
pub async fn run(args: DirArgs) -> Result<(), Failure> {
    let found = inspect(load::source(args.dir.as_deref())?).await?;
    if args.json {
        text::out(|to| writeln!(to, "{}", json!(found)))?;
    } else {
        text::out(|to| print(to, &found))?;
    }
    match (found.reason, found.next) {
        (None, _) => Ok(()),
        (Some(why), next) => {
            let next = next.map_or(String::new(), |next| format!("; {next}"));
            Err(Failure::NotWhole(format!("{why}{next}")))
        }
    }
}

fn print(to: &mut dyn Write, found: &Inspection) -> io::Result<()> {
    let why = found.reason.as_ref().map_or(String::new(), |why| format!(": {why}"));
    hang(to, "runs: ", &format!("{}{why}", found.runs.name()))?;
    if let Some(next) = found.next {
        hang(to, "next: ", next)?;
    }
    model(to, found)?;
    prompt(to, found)?;
    samplers(to, found)?;
    weights(to, found)?;
    for note in &found.notes {
        row(to, "note", note)?;
    }
    Ok(())
}

/// The networks, and how a picture becomes visual tokens.
fn model(to: &mut dyn Write, found: &Inspection) -> io::Result<()> {
    let Config { text: t, vision: v, .. } = &found.config;
    let layout = if found.original { ", original layout" } else { "" };
    row(to, "family", &format!("{} ({}){layout}", found.config.family, found.config.model_type))?;
    let (layers, width, heads) = (t.n_layers, t.d_model, t.n_heads);
    let heads = format!("{heads} heads, {} key heads of {}", t.n_kv_heads, t.d_head);
    row(to, "text model", &format!("{}, {layers} layers, {width} wide, {heads}", t.family))?;
    let biases = [(t.qkv_bias, "query, key, value"), (t.output_bias, "attention output"), (t.mlp_bias, "feed-forward")];
    let biases: Vec<&str> = biases.iter().filter(|(has, _)| *has).map(|(_, name)| *name).collect();
    let biases = if biases.is_empty() { "none".to_owned() } else { biases.join(", ") };
    row(to, "", &format!("{} tokens of context, biases: {biases}", t.context))?;
    let head = if t.tied { "the embedding is the output head" } else { "separate output head" };
    let (rows, known) = found.vocabulary;
    let known = known.map_or(String::new(), |known| format!(", {known} with a token"));
    row(to, "", &format!("{rows} rows of vocabulary{known}; {head}"))?;
    let (used, all) = (v.n_used, v.n_layers);
    row(to, "vision", &format!("{}, {used} of {all} layers used, {} wide, {} heads", v.name, v.d_model, v.n_heads))?;
    let rest = match v.side - v.patches() * v.patch {
        0 => String::new(),
        rest => format!(", {rest} px left over at two edges"),
    };
    row(to, "", &format!("{} px tiles in {} px patches{rest}", v.side, v.patch))?;
    let states: Vec<String> = v.feature_layers.iter().map(ToString::to_string).collect();
    let norm = if v.post_norm { ", after the last norm" } else { "" };
    let layer = if states.len() == 1 { "layer" } else { "layers" };
    row(to, "", &format!("features: output of {layer} {} of {all}{norm}", states.join(", ")))?;
    let (inputs, width) = (v.shuffle * v.shuffle * v.d_features(), t.d_model);
    let projector = match found.config.projector {
        ProjectorKind::Mlp => {
            let config = json!(found.config);
            format!(
                "linear {inputs} to {width}, {}, linear {width} to {width}",
                config["projector_activation"].as_str().unwrap_or_default()
            )
        }
        ProjectorKind::Shuffle => format!("{0}x{0} patches become one token, linear {inputs} to {width}", v.shuffle),
    };
    row(to, "projector", &projector)?;
    row(to, "layout", &layout_of(&found.tiles.cut, v.side))?;
    let picture = &found.picture;
    let (tiles, tokens) = (text::counted(picture.tiles as usize, "tile"), picture.tokens);
    row(to, "", &format!("a {}x{} picture: {tiles}, {tokens} tokens", picture.width, picture.height))
}

/// How a picture is cut into tiles of `side` pixels.
fn layout_of(cut: &Cut, side: usize) -> String {
    match cut {
        Cut::Anyres { pinpoints, most_tiles } => {
            let shrunk = most_tiles.map_or(String::new(), |most| format!(", shrunk above {most} tiles"));
            format!("thumbnail, then the best canvas (of {}) in {side} px tiles{shrunk}", pinpoints.len())
        }
        Cut::Squash | Cut::Split { into_tiles: false, .. } => "one tile: the picture, stretched".to_owned(),
        Cut::Pad => "one tile: the picture, padded to a square".to_owned(),
        Cut::CenterCrop { shortest } => {
            format!("one tile: the centre of the picture, with {shortest} px along its short side")
        }
        Cut::Split { longest, into_tiles: true } => {
            format!("tiles of the picture with {longest} px along its long side, then the thumbnail")
        }
    }
}

/// Chat template and special tokens.
fn prompt(to: &mut dyn Write, found: &Inspection) -> io::Result<()> {
    let token = |id: u32, text: Option<&str>| match text {
        Some(text) => format!("{text} ({id})"),
        None => format!("{id}, which the tokenizer does not have"),
    };
    let Some(prompt) = &found.prompt else {
        return row(to, "template", "not known without tokenizer and chat template");
    };
    row(to, "template", &prompt.template)?;
    let bos = prompt.bos.as_ref().map(|bos| {
        let token = token(bos.token.id, bos.token.text.as_deref());
        format!("{token}, added by the {}", bos.added_by)
    });
    row(to, "BOS", &bos.unwrap_or_else(|| "none".to_owned()))?;
    let stop: Vec<String> = prompt.stop.iter().map(|stop| token(stop.id, stop.text.as_deref())).collect();
    row(to, "stop", &if stop.is_empty() { "none".to_owned() } else { stop.join(", ") })?;
    let image = found.image_token.as_ref().map(|image| token(image.id, image.text.as_deref()));
    row(to, "picture", &image.unwrap_or_else(|| "no token: the prompt is cut at <image>".to_owned()))
}

/// What the two samplers and LLaVA-Meteor do without options.
fn samplers(to: &mut dyn Write, found: &Inspection) -> io::Result<()> {
    let f = &found.config.focus;
    if found.meteor {
        let fits = Fits { config: &found.config, selector: found.scale_selector, meteor: true };
        let own = Compression::default_of(fits);
        let default = if matches!(own.before, Before::Meteor(_)) { "on by default" } else { "off by default" };
        row(to, "meteor", &format!("{default}; our interpretation of LLaVA-Meteor"))?;
    }
    let default = if found.config.has_focus { "on by default" } else { "off by default (not trained with it)" };
    let vision = match (found.naming, found.scale_selector) {
        (None, _) => format!("{default}, if the weights have a scale selector"),
        (Some(_), true) => format!("{default}, selector present"),
        (Some(_), false) => "off: no scale selector in the weights".to_owned(),
    };
    row(to, "samplers", &format!("vision-guided: {vision}"))?;
    let scales: Vec<String> = f.scales.iter().map(ToString::to_string).collect();
    row(to, "", &format!("window {}, scales {}", f.window, scales.join(" ")))?;
    let Some(layer) = f.text_layer else {
        return row(to, "", "text-guided: off: the model has no layer 8; --compress text:layer=L sets one");
    };
    row(to, "", &format!("text-guided: {default}"))?;
    let rope = if f.score_rope { ", with rotary positions" } else { "" };
    row(to, "", &format!("layer {layer}, gamma {}{rope}", f.gamma))
}

/// What is stored, what it needs on a device, and what is wrong.
fn weights(to: &mut dyn Write, found: &Inspection) -> io::Result<()> {
    let naming = match found.naming {
        None => None,
        Some(Naming::Hub) => Some("the Hugging Face hub"),
        Some(Naming::Transformers) => Some("transformers 5"),
        Some(Naming::Original) => Some("the original layout"),
        Some(Naming::Idefics3) => Some("SmolVLM"),
    };
    if let Some(naming) = naming {
        row(to, "weights", &format!("names as in {naming}"))?;
        for file in found.files.iter().take(LISTED) {
            row(to, "", file)?;
        }
        more(to, found.files.len())?;
        for (dtype, stored) in &found.needed {
            let (tensors, values) = (stored.tensors, stored.values);
            row(to, "", &format!("{dtype:5} {tensors} tensors, {values} values, {}", text::bytes(stored.bytes)))?;
        }
    }
    let mut label = "memory";
    for memory in &found.memory {
        let [weights, gpu, cpu] = [memory.weights, memory.peak, memory.cpu_peak].map(text::bytes);
        row(to, label, &format!("{:5} weights {weights}, GPU peak {gpu}, CPU peak {cpu}", memory.dtype))?;
        label = "";
    }
    let (width, height) = (found.picture.width, found.picture.height);
    let host = memory::host_available().map_or(String::new(), |have| format!("; the host has {}", text::bytes(have)));
    row(to, "", &format!("peak: weights and one question about a {width}x{height} picture{host}"))?;
    if naming.is_none() {
        return Ok(());
    }
    list(to, "missing", &found.missing)?;
    row(to, "not used", &format!("{}{}", found.not_used.tensors, not_used(found)))?;
    list(to, "extra", &found.extra)?;
    let bad: Vec<String> =
        found.non_finite.iter().map(|n| format!("{}: {} at index {}", n.tensor, n.value, n.index)).collect();
    list(to, "not finite", &bad)
}

/// The tensors that are in the files but not used, as in published checkpoints.
fn not_used(found: &Inspection) -> String {
    let has = |part: &str| found.not_used.names.iter().any(|name| name.contains(part));
    let (first, last) = (found.config.vision.n_used, found.config.vision.n_layers.saturating_sub(1));
    let others = if first == last { String::new() } else { format!(" to {last}") };
    let layers = format!("encoder.layers.{first}{others}");
    let parts = [
        (has("encoder.layers."), layers.as_str()),
        (has("post_layernorm"), "last norm of the vision tower"),
        (has("head."), "classification head"),
        (has("rotary_emb"), "rotary frequencies"),
        (has("position_ids"), "position ids"),
        (has("image_newline"), "newline"),
    ];
    let parts: Vec<&str> = parts.iter().filter(|(has, _)| *has).map(|(_, part)| *part).collect();
    if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) }
}

fn list(to: &mut dyn Write, what: &str, items: &[String]) -> io::Result<()> {
    row(to, what, &items.len().to_string())?;
    for item in items.iter().take(LISTED) {
        row(to, "", item)?;
    }
    more(to, items.len())
}

fn more(to: &mut dyn Write, all: usize) -> io::Result<()> {
    match all.checked_sub(LISTED) {
        None | Some(0) => Ok(()),
        Some(more) => row(to, "", &format!("and {more} more (--json lists all)")),
    }
}

/// `text` after a label.
fn row(to: &mut dyn Write, label: &str, text: &str) -> io::Result<()> {
    hang(to, &format!("{label:LABEL$}"), text)
}

/// `text` after `head`, in lines of at most 80 columns. Following lines begin below the text.
fn hang(to: &mut dyn Write, head: &str, text: &str) -> io::Result<()> {
    let indent = " ".repeat(head.len());
    for (i, line) in folded(&text::line(text), text::COLUMNS - head.len()).iter().enumerate() {
        writeln!(to, "{}{line}", if i == 0 { head } else { &indent })?;
    }
    Ok(())
}

/// `text` in lines of at most `width` characters. Only a word that is longer than a line is cut.
fn folded(text: &str, width: usize) -> Vec<String> {
    let (mut lines, mut line) = (Vec::new(), String::new());
    for word in text.split(' ') {
        let (used, need) = (line.chars().count(), word.chars().count());
        if used > 0 && used + 1 + need > width {
            lines.push(mem::take(&mut line));
        } else if used > 0 {
            line.push(' ');
        }
        for c in word.chars() {
            if line.chars().count() == width {
                lines.push(mem::take(&mut line));
            }
            line.push(c);
        }
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::folded;

    #[test]
    fn lines_have_at_most_the_given_width() {
        assert_eq!(folded("one two three", 7), ["one two", "three"]);
        assert_eq!(folded("a 123456789 b", 4), ["a", "1234", "5678", "9 b"]);
        assert_eq!(folded("  f32 x", 20), ["f32 x"]);
    }
}
