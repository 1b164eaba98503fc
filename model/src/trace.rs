//! Records every stage of one run, for conformance. Input: a question. Output: named tensors, with the names and shapes of
//! the traces of the PyTorch specification (`tests/reference/focus_reference.py`).
//!
//! | name | shape | |
//! |---|---|---|
//! | `pixel_values` | (tiles, 3, S, S) | of one picture |
//! | `thumbnail` | (P*P, C) | of one picture |
//! | `feature_map` | (Hx, Wx, C) | of one picture |
//! | `scale_logits`, `scale_choice`, `token_boxes` | (M, S), (M,), (N', 4) | of one picture, with the vision-guided sampler |
//! | `token_kind` | (N,) | of one picture: 0 a patch, 1 a newline, 2 merged patches, 3 a class token |
//! | `visual_tokens` | (N, C) | |
//! | `importance` | (N,) | if something is pruned inside the model: by the first pruning |
//! | `origin_offsets`, `origin_index` | (N + 1,), (M,) | of one picture: token i is made of `origin_index[offsets[i]..offsets[i + 1]]`, its places in the family's own sequence |
//! | `stageS.layer`, `.scores`, `.kept` | (1,), (n,), (k,) | the pruning number S inside the model; `kept` among the N visual tokens |
//! | `layer_visual` | (layers,) | visual tokens in every layer |
//! | `kept_visual` | (K,) | |
//! | `input_ids` | (ids,) | each place of a picture is one id |
//! | `prefill_logits` | (V,) | |
//! | `answer_ids`, `step_logits` | (steps,), (steps, V) | |
//! | `token_counts` | (3,) | stock, before the model, in the last layer |
//! | `equivalent_share` | (1,) | |

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use fovea_runtime::{TokenBox, read::read_f32};
use safetensors::{Dtype, tensor::TensorView};

use crate::{
    answer::{AskOptions, Turn},
    compression::{Before, Slot, Stock},
    conversation::Conversation,
    error::Error,
    looked::Origin,
};

/// A named tensor of a trace.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Numbers.
    F32 {
        /// Dimensions.
        shape: Vec<usize>,
        /// Row-major.
        data: Vec<f32>,
    },
    /// Indices and ids.
    I64 {
        /// Dimensions.
        shape: Vec<usize>,
        /// Row-major.
        data: Vec<i64>,
    },
}

/// All stages of one run.
pub type Trace = BTreeMap<String, Value>;

/// Answers `question` and records every stage.
///
/// # Errors
/// Those of [`Conversation::ask`].
pub async fn trace(conversation: &mut Conversation, question: &str, options: &AskOptions) -> Result<Trace, Error> {
    let options = AskOptions { keep_logits: true, ..options.clone() };
    let turn = conversation.answer(question, &options).await?;
    let mut trace = Trace::new();
    stages(&mut trace, conversation).await?;
    outcome(&mut trace, &turn);
    Ok(trace)
}

async fn stages(trace: &mut Trace, conversation: &Conversation) -> Result<(), Error> {
    let Some((made, visuals)) = &conversation.visual else { return Ok(()) };
    if let ([features], [visual]) = (conversation.features.as_slice(), visuals.as_slice()) {
        let tiles = conversation.tiles()?;
        put(trace, "pixel_values", &[tiles.count, 3, tiles.side, tiles.side], tiles.pixel_values);
        let c = features.thumbnail.dims()[1];
        put(trace, "thumbnail", &features.thumbnail.dims(), read_f32(features.thumbnail.clone()).await?);
        let map = match &features.map {
            Some(map) => read_f32(map.clone()).await?,
            None => Vec::new(),
        };
        put(trace, "feature_map", &[features.grid.height, features.grid.width, c], map);
        let kind = |origin: &Origin| match origin {
            Origin::Thumbnail(patches) => usize::from(patches.len() > 1) * 2,
            Origin::Map(patches) => usize::from(patches.len() > 1) * 2,
            Origin::Newline(_) => 1,
            Origin::Class(_) => 3,
        };
        put_indices(trace, "token_kind", &[visual.origins.len()], &visual.origins.iter().map(kind).collect::<Vec<_>>());
        let of = stock_indices(&Stock::of(&features.grid), &visual.origins);
        let offsets = of.iter().scan(0, |end, own| {
            *end += own.len();
            Some(*end)
        });
        let offsets: Vec<usize> = std::iter::once(0).chain(offsets).collect();
        put_indices(trace, "origin_offsets", &[offsets.len()], &offsets);
        let of = of.concat();
        put_indices(trace, "origin_index", &[of.len()], &of);
        if matches!(made.before, Before::Vision { .. }) {
            let scales = conversation.model.config().focus.scales.len();
            put(trace, "scale_logits", &[visual.choice.len(), scales], visual.scale_logits.clone());
            put_indices(trace, "scale_choice", &[visual.choice.len()], &visual.choice);
            let boxes = |origin: &Origin| match origin {
                Origin::Map(patches) => patches.clone(),
                Origin::Newline(patches) => vec![*patches],
                Origin::Thumbnail(_) | Origin::Class(_) => Vec::new(),
            };
            let boxes: Vec<TokenBox> = visual.origins.iter().flat_map(boxes).collect();
            put_indices(trace, "token_boxes", &[boxes.len(), 4], boxes.as_flattened());
        }
    }
    let tokens = Tensor::cat(visuals.iter().map(|visual| visual.tokens.clone()).collect(), 0);
    put(trace, "visual_tokens", &tokens.dims(), read_f32(tokens).await?);
    Ok(())
}

/// The stock indices of the patches, or of the newline, of each token: its places in the family's own sequence.
fn stock_indices(stock: &Stock, origins: &[Origin]) -> Vec<Vec<usize>> {
    let (mut thumbnail, mut map, mut ends) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for (index, slot) in stock.slots.iter().enumerate() {
        match *slot {
            Slot::Thumbnail { patch } => thumbnail.insert(patch, index),
            Slot::Map { y, x } => map.insert((y, x), index),
            Slot::Newline { y } => ends.insert(y, index),
        };
    }
    let of = |origin: &Origin| -> Vec<usize> {
        match origin {
            Origin::Thumbnail(patches) => patches.iter().filter_map(|patch| thumbnail.get(patch).copied()).collect(),
            Origin::Map(boxes) => {
                let within = |&[y0, x0, y1, x1]: &TokenBox| (y0..y1).flat_map(move |y| (x0..x1).map(move |x| (y, x)));
                boxes.iter().flat_map(within).filter_map(|place| map.get(&place).copied()).collect()
            }
            Origin::Newline([y, ..]) => ends.get(y).copied().into_iter().collect(),
            Origin::Class(_) => Vec::new(),
        }
    };
    origins.iter().map(of).collect()
}

fn outcome(trace: &mut Trace, turn: &Turn) {
    let importance: Vec<f32> = turn.looked.iter().flat_map(|looked| looked.importance.iter().copied()).collect();
    if !importance.is_empty() {
        put(trace, "importance", &[importance.len()], importance);
    }
    let (mut kept, mut first) = (Vec::new(), 0);
    for looked in &turn.looked {
        kept.extend(looked.kept.iter().map(|index| first + index));
        first += looked.token_count();
    }
    put_indices(trace, "kept_visual", &[kept.len()], &kept);
    let ids = |ids: &[u32]| ids.iter().map(|&id| id as usize).collect::<Vec<usize>>();
    put_indices(trace, "input_ids", &[turn.prompt.ids.len()], &ids(&turn.prompt.ids));
    put_indices(trace, "answer_ids", &[turn.answer_ids.len()], &ids(&turn.answer_ids));
    if let Some(first) = turn.step_logits.first() {
        put(trace, "prefill_logits", &[first.len()], first.clone());
        put(trace, "step_logits", &[turn.step_logits.len(), first.len()], turn.step_logits.concat());
    }
    for (stage, pruned) in turn.pruned.iter().enumerate() {
        put_indices(trace, &format!("stage{stage}.layer"), &[1], &[pruned.layer]);
        put(trace, &format!("stage{stage}.scores"), &[pruned.importance.len()], pruned.importance.clone());
        put_indices(trace, &format!("stage{stage}.kept"), &[pruned.kept.len()], &pruned.kept);
    }
    put_indices(trace, "layer_visual", &[turn.layers.len()], &turn.layers);
    let tokens = turn.statistics.tokens;
    put_indices(trace, "token_counts", &[3], &[tokens.all, tokens.compressed, tokens.kept]);
    put(trace, "equivalent_share", &[1], vec![turn.statistics.equivalent_share as f32]);
}

fn put(trace: &mut Trace, name: &str, shape: &[usize], data: Vec<f32>) {
    trace.insert(name.to_owned(), Value::F32 { shape: shape.to_vec(), data });
}

fn put_indices(trace: &mut Trace, name: &str, shape: &[usize], data: &[usize]) {
    let data = data.iter().map(|&i| i as i64).collect();
    trace.insert(name.to_owned(), Value::I64 { shape: shape.to_vec(), data });
}

/// The trace as a safetensors file: F32, and I64 for indices.
///
/// # Errors
/// [`Error::Config`] if the safetensors crate refuses a tensor.
pub fn to_safetensors(trace: &Trace) -> Result<Vec<u8>, Error> {
    let bytes: Vec<(&String, Dtype, &[usize], Vec<u8>)> = trace
        .iter()
        .map(|(name, value)| match value {
            Value::F32 { shape, data } => {
                (name, Dtype::F32, shape.as_slice(), data.iter().flat_map(|v| v.to_le_bytes()).collect())
            }
            Value::I64 { shape, data } => {
                (name, Dtype::I64, shape.as_slice(), data.iter().flat_map(|v| v.to_le_bytes()).collect())
            }
        })
        .collect();
    let failed = |e: safetensors::SafeTensorError| Error::Config { key: "trace".into(), why: e.to_string() };
    let views = bytes.iter().map(|(name, dtype, shape, bytes)| {
        TensorView::new(*dtype, shape.to_vec(), bytes).map(|view| (name.as_str(), view)).map_err(failed)
    });
    safetensors::serialize(views.collect::<Result<Vec<_>, _>>()?, None).map_err(failed)
}
