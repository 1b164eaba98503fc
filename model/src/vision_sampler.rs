//! The vision-guided sampler (Sec. 3.2): a feature map in, the tokens of every region at its chosen scale out.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use fovea_runtime::{
    Cell, Scale, TokenBox, compact,
    device::read_f32,
    sampler_ops::{region_pool, row_gather, scale_logits},
};

use crate::{
    config::{Config, FocusConfig},
    error::Error,
    load::Loader,
    names::SELECTOR,
};

/// The sampler's one learned layer: `FC`, weight (S, P*P), bias (S), always in f32.
#[derive(Module, Debug)]
pub struct ScaleSelector {
    weight: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
}

impl ScaleSelector {
    pub(crate) async fn load(load: &Loader<'_>, config: &Config) -> Result<Self, Error> {
        let (scales, patches) = (config.focus.scales.len(), config.vision.patches());
        let weight = load.f32(&format!("{SELECTOR}.weight"), [scales, patches * patches]).await?;
        Ok(Self { weight: Param::from_tensor(weight), bias: load.vector(&format!("{SELECTOR}.bias"), scales).await? })
    }
}

/// What the sampler made of a map.
#[derive(Clone, Debug)]
pub struct Sampled {
    /// (N', C): the kept tokens in scanline order, newlines included. None where there is no token.
    pub tokens: Option<Tensor<2>>,
    /// Z, (regions, scales), row-major.
    pub logits: Vec<f32>,
    /// The index of every region's scale, raster order.
    pub choice: Vec<usize>,
    /// The patches that each token stands for.
    pub boxes: Vec<TokenBox>,
}

/// Eq. 1: every region keeps its tokens at the scale with the largest logit; equal logits: the first.
///
/// `map` (Hx, Wx, C), None where cutting the padding left nothing; `thumbnail` (P*P, C); `newline` (C), all f32.
pub(crate) async fn vision_guided(
    map: Option<&Tensor<3>>,
    thumbnail: &Tensor<2>,
    newline: Tensor<1>,
    selector: &ScaleSelector,
    focus: &FocusConfig,
) -> Result<Sampled, Error> {
    let Some(map) = map else {
        return Ok(Sampled { tokens: None, logits: Vec::new(), choice: Vec::new(), boxes: Vec::new() });
    };
    let [height, width, c] = map.dims();
    let window = focus.window;
    let whole = region_pool(map.clone(), window, Scale::new(window, window))?;
    let regions = whole.dims()[0];
    let pooled = whole.reshape([regions, c]);
    let logits = scale_logits(pooled, thumbnail.clone(), selector.weight.val(), selector.bias.val())?;
    let logits = read_f32(logits).await?;
    if !logits.iter().all(|z| z.is_finite()) {
        return Err(Error::NotFinite { stage: "the vision-guided sampler's logits" });
    }
    let choice: Vec<usize> = logits.chunks_exact(focus.scales.len()).map(first_largest).collect();
    let cells = compact(height, width, window, &focus.scales, &choice);
    let tokens = gather(map, newline, focus, &choice, &cells)?;
    Ok(Sampled { tokens, logits, choice, boxes: cells.into_iter().map(|(b, _)| b).collect() })
}

/// Pools the map at every scale that some region chose, and takes each token from its place.
fn gather(
    map: &Tensor<3>,
    newline: Tensor<1>,
    focus: &FocusConfig,
    choice: &[usize],
    cells: &[(TokenBox, Cell)],
) -> Result<Option<Tensor<2>>, Error> {
    if cells.is_empty() {
        return Ok(None);
    }
    let c = map.dims()[2];
    // Rows of `source`: the newline, then every region's tokens at each scale in use.
    let mut source = vec![newline.reshape([1, c])];
    let mut rows = 1;
    let mut places = vec![(0, 0, 0); focus.scales.len()]; // (first row, token rows, token columns) of a scale
    for (index, &scale) in focus.scales.iter().enumerate() {
        if scale.drops() || !choice.contains(&index) {
            continue;
        }
        let pooled = region_pool(map.clone(), focus.window, scale)?;
        let [regions, token_rows, token_cols, _] = pooled.dims();
        places[index] = (rows, token_rows, token_cols);
        rows += regions * token_rows * token_cols;
        source.push(pooled.reshape([regions * token_rows * token_cols, c]));
    }
    let at: Vec<usize> = cells
        .iter()
        .map(|(_, cell)| match *cell {
            Cell::Newline => 0,
            Cell::Pooled { region, row, col } => {
                let (first, token_rows, token_cols) = places[choice[region]];
                first + (region * token_rows + row) * token_cols + col
            }
        })
        .collect();
    Ok(Some(row_gather(Tensor::cat(source, 0), &at)?))
}

/// LLaVA-NeXT's own sequence, without the sampler: the map in raster order, a newline after every row, also after rows
/// that hold no patch. None where there is no row.
///
/// `map` (Hx, Wx, C), None where it is empty -> (Hx * (Wx + 1), C).
pub(crate) fn every_token(map: Option<&Tensor<3>>, height: usize, newline: Tensor<1>) -> Option<Tensor<2>> {
    let c = newline.dims()[0];
    if height == 0 {
        return None;
    }
    let newlines = newline.reshape([1, 1, c]).expand([height, 1, c]);
    let rows = match map {
        Some(map) => Tensor::cat(vec![map.clone(), newlines], 1),
        None => newlines,
    };
    let width = rows.dims()[1];
    Some(rows.reshape([height * width, c]))
}

/// The patches of [`every_token`]'s tokens.
pub(crate) fn every_box(height: usize, width: usize) -> Vec<TokenBox> {
    (0..height).flat_map(|y| (0..=width).map(move |x| [y, x, y + 1, (x + 1).min(width)])).collect()
}

fn first_largest(logits: &[f32]) -> usize {
    (0..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best })
}
