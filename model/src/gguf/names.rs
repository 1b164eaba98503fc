//! Names of tensors in GGUF. Input: the tensors of both files. Output: the same under the names of the Hugging Face
//! hub.
//! Source: `gguf-py/gguf/tensor_mapping.py` and `tools/mtmd/clip-impl.h` in llama.cpp.

use std::collections::BTreeMap;

use fovea_runtime::gguf::{Gguf, GgufTensor, TensorInfo};

use super::config::{Text, Tower};
use crate::{error::Error, names::Names};

/// Names of the newline embedding.
pub(super) const NEWLINES: [&str; 2] = ["model.image_newline", "v.image_newline"];

/// Parts of a layer of the text model.
const TEXT_LAYER: [(&str, &str); 9] = [
    ("attn_norm", "input_layernorm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// Parts of a layer of the vision tower.
const VISION_LAYER: [(&str, &str); 8] = [
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_out", "self_attn.out_proj"),
    ("ffn_up", "mlp.fc1"),
    ("ffn_down", "mlp.fc2"),
    ("ln1", "layer_norm1"),
    ("ln2", "layer_norm2"),
];

/// The tensors of both files.
pub(super) struct Tensors {
    /// By their names on the hub.
    pub known: BTreeMap<String, GgufTensor>,
    /// Those that have no name on the hub, by their own names.
    pub unknown: Vec<String>,
}

/// The tensors of both files. `swapped` is the result of [`is_swapped`].
pub(super) fn tensors(
    text: &Gguf,
    vision: &Gguf,
    sizes: &Text,
    tower: &Tower,
    swapped: bool,
) -> Result<Tensors, Error> {
    let names = Names::hub();
    let mut found = BTreeMap::new();
    let mut unknown = Vec::new();
    let mut insert = |name: String, tensor: GgufTensor, gguf: &Gguf| {
        let own = tensor.info.name.clone();
        match found.insert(name, tensor) {
            None => Ok(()),
            Some(other) => {
                let got = format!("also `{}`", other.info.name);
                Err(Error::from(gguf.wrong_tensor(&own, "one tensor that has this role".into(), got)))
            }
        }
    };
    for tensor in &text.tensors {
        let Some((name, role)) = text_name(&names, &tensor.name) else {
            unknown.extend((tensor.name != super::ROPE_FACTORS).then(|| tensor.name.clone()));
            continue;
        };
        let heads = match (sizes.permuted, role) {
            (Some([heads, _]), "attn_q") => Some(heads),
            (Some([_, heads]), "attn_k") => Some(heads),
            _ => None,
        };
        insert(name, GgufTensor { file: 0, info: tensor.clone(), shape: tensor.shape.clone(), heads }, text)?;
    }
    for tensor in &vision.tensors {
        let Some(name) = vision_name(&names, &tensor.name, swapped) else {
            // Old files can have the text encoder of CLIP, which no LLaVA uses.
            unknown.extend((!tensor.name.starts_with("t.")).then(|| tensor.name.clone()));
            continue;
        };
        let shape = vision_shape(tensor, tower);
        insert(name, GgufTensor { file: 1, info: tensor.clone(), shape, heads: None }, vision)?;
    }
    Ok(Tensors { known: found, unknown })
}

/// The index of the file and the name there of a tensor of the hub; None for another name.
pub(super) fn own(name: &str, swapped: bool) -> Option<(usize, String)> {
    let names = Names::hub();
    let of_layer = |rest: &str, parts: &[(&str, &str)]| {
        let (number, rest) = rest.split_once('.')?;
        let number: usize = number.parse().ok()?;
        let (hub, end) = rest.rsplit_once('.').filter(|(_, end)| ["weight", "bias"].contains(end))?;
        let (own, _) = parts.iter().find(|(_, known)| *known == hub)?;
        Some(format!("blk.{number}.{own}.{end}"))
    };
    if let Some(rest) = name.strip_prefix(&names.text("layers.")) {
        return of_layer(rest, &TEXT_LAYER).map(|own| (0, own));
    }
    if let Some(rest) = name.strip_prefix(&names.vision("encoder.layers.")) {
        let own = of_layer(rest, &VISION_LAYER)?;
        let own = match own.split_once("ffn_") {
            Some((layer, rest)) if swapped => {
                let other =
                    if rest.starts_with("up") { rest.replace("up", "down") } else { rest.replace("down", "up") };
                format!("{layer}ffn_{other}")
            }
            _ => own,
        };
        return Some((1, format!("v.{own}")));
    }
    if name == names.newline {
        return Some((1, NEWLINES[0].to_owned()));
    }
    let text = TEXT_ALONE.iter().find(|own| text_name(&names, own).is_some_and(|(hub, _)| hub == name));
    let vision = VISION_ALONE.iter().find(|own| vision_name(&names, own, swapped).as_deref() == Some(name));
    text.map(|own| (0, (*own).to_owned())).or_else(|| vision.map(|own| (1, (*own).to_owned())))
}

/// The tensors of the text model that are in no layer.
const TEXT_ALONE: [&str; 3] = ["token_embd.weight", "output_norm.weight", "output.weight"];

/// Those of the vision tower and the projector, without the newline.
const VISION_ALONE: [&str; 12] = [
    "v.class_embd",
    "v.patch_embd.weight",
    "v.patch_embd.bias",
    "v.position_embd.weight",
    "v.pre_ln.weight",
    "v.pre_ln.bias",
    "v.post_ln.weight",
    "v.post_ln.bias",
    "mm.0.weight",
    "mm.0.bias",
    "mm.2.weight",
    "mm.2.bias",
];

/// The number and the rest of `blk.N.rest`.
fn layer(name: &str) -> Option<(usize, &str)> {
    let (number, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    Some((number.parse().ok()?, rest))
}

/// The hub's spelling of `part.weight` or `part.bias`, and the part.
fn part<'a>(parts: &[(&'a str, &str)], rest: &str) -> Option<(String, &'a str)> {
    let (name, end) = rest.rsplit_once('.').filter(|(_, end)| ["weight", "bias"].contains(end))?;
    let (own, hub) = parts.iter().find(|(own, _)| *own == name)?;
    Some((format!("{hub}.{end}"), own))
}

/// The hub's name of a tensor of the text model, and its role in a layer.
fn text_name(names: &Names, name: &str) -> Option<(String, &'static str)> {
    match name {
        "token_embd.weight" => Some((names.embedding(), "")),
        "output_norm.weight" => Some((names.text("norm.weight"), "")),
        "output.weight" => Some((names.head(), "")),
        _ => {
            let (number, rest) = layer(name)?;
            let (hub, role) = part(&TEXT_LAYER, rest)?;
            Some((names.text_layer(number, &hub), role))
        }
    }
}

/// The hub's name of a tensor of the vision tower or the projector.
fn vision_name(names: &Names, name: &str, swapped: bool) -> Option<String> {
    if NEWLINES.contains(&name) {
        return Some(names.newline.to_owned());
    }
    if let Some(rest) = name.strip_prefix("mm.") {
        let (number, end) = rest.split_once('.')?;
        let layer = ["0", "2"].iter().position(|known| *known == number)?;
        return ["weight", "bias"].contains(&end).then(|| format!("{}.{end}", names.projector(layer)));
    }
    let own = name.strip_prefix("v.")?;
    if let Some((number, rest)) = layer(own) {
        let (hub, role) = part(&VISION_LAYER, rest)?;
        let hub = match role {
            "ffn_up" if swapped => hub.replace("fc1", "fc2"),
            "ffn_down" if swapped => hub.replace("fc2", "fc1"),
            _ => hub,
        };
        return Some(names.vision_layer(number, &hub));
    }
    match own {
        "class_embd" => Some(names.vision("embeddings.class_embedding")),
        "patch_embd.weight" => Some(names.vision("embeddings.patch_embedding.weight")),
        "patch_embd.bias" => Some(names.vision("embeddings.patch_embedding.bias")),
        "position_embd.weight" => Some(names.vision("embeddings.position_embedding.weight")),
        "pre_ln.weight" | "pre_ln.bias" => Some(own.replace("pre_ln", &names.pre_layer_norm())),
        "post_ln.weight" | "post_ln.bias" => Some(own.replace("post_ln", &names.post_layer_norm())),
        _ => None,
    }
}

/// Whether `ffn_down` is the first layer: llama.cpp's first converter has the two names the wrong way round. Its rows
/// have the width of the tower then. Where both layers are square, the shapes do not show it; no published tower is so.
pub(super) fn is_swapped(vision: &Gguf, tower: &Tower) -> bool {
    vision.tensor("v.blk.0.ffn_down.weight").is_some_and(|info| match info.shape[..] {
        [rows, width] => rows != width && width == tower.width,
        _ => false,
    })
}

/// The hub's shape of a tensor of the vision tower or the projector. Converters drop or add dimensions of size 1, and
/// some write the kernel of the patches as a matrix.
fn vision_shape(tensor: &TensorInfo, tower: &Tower) -> Vec<u64> {
    let values: u64 = tensor.shape.iter().product();
    let vector = tensor.name == "v.class_embd" || NEWLINES.contains(&tensor.name.as_str());
    let kernel = [tower.width, 3, tower.patch, tower.patch];
    if vector {
        return vec![values];
    }
    let kernel_values = kernel.iter().try_fold(1u64, |n, &d| n.checked_mul(d));
    if tensor.name == "v.patch_embd.weight" && kernel_values == Some(values) {
        return kernel.to_vec();
    }
    tensor.shape.clone()
}
