//! The operations of the two token samplers, in the order of the data.
//!
//! | operation | paper | result |
//! |---|---|---|
//! | [`region_pool`] | Sec. 3.2, `DS[s]` | each region at each scale |
//! | [`scale_select`] | Sec. 3.2, Eq. 1 | the scale of each region |
//! | [`compact`] | Sec. 3.2 | the chosen tokens in scanline order |
//! | [`text_score`] | Sec. 3.3, Eq. 7, 8 | importance of each visual token |
//! | [`top_k`] | Sec. 3.3, Eq. 9 | the tokens that are kept |
//! | [`row_gather`] | | rows by index: hidden states, rotary tables |
//!
//! The functions here check shapes, and call the trait [`SamplerOps`]. Its default bodies are tensor operations, which
//! run on each backend (`tensor_ops`). Hand-written WGSL kernels replace them where the device compiles WGSL and
//! on CUDA (`kernels`). Shapes are checked only here; the bodies rely on it. Storage is f32 or f16, sums are f32.

use burn::backend::{BackendTensor, Dispatch, DispatchTensorKind};
use burn::tensor::{Device, Int, Tensor, TensorData};
use fovea_shaders::{CompactLayout, Keep, PoolLayout, Scale};

mod backend;
mod kernels;
mod results;
mod tensor_ops;

pub use backend::SamplerOps;
pub use results::CompactCounts;

use crate::{error::Error, launch};

/// Whether the hand-written kernels run on a device. Else the tensor operations run.
pub fn runs_kernels(device: &Device) -> bool {
    let probe = Tensor::<1>::zeros([1], device);
    match probe.into_dispatch().kind {
        DispatchTensorKind::Cube(BackendTensor::Float(tensor)) => launch::runs_kernels(&tensor),
        _ => false,
    }
}

/// Each region at each scale, and where each token is.
#[derive(Clone, Debug)]
pub struct Pooled {
    /// (rows, C).
    pub rows: Tensor<2>,
    /// Which token is in which row.
    pub layout: PoolLayout,
}

impl Pooled {
    /// The tokens at one scale: (regions * token rows * token columns, C).
    ///
    /// # Panics
    /// Where `index` is not below the number of scales.
    pub fn scale(&self, index: usize) -> Tensor<2> {
        let end = self.layout.first.get(index + 1).copied().unwrap_or(self.layout.rows);
        let first = self.layout.first[index];
        self.rows.clone().narrow(0, first, end - first)
    }
}

/// Max pooling of each region at each scale: `DS[s](X_i)` (Sec. 3.2).
///
/// A token of a partial region that is outside the map has the smallest finite number of its type. No later operation
/// reads it.
///
/// # Shapes
/// `map` (H, W, C) -> (rows, C). Rows are ordered by scale, then region, then token in raster order ([`PoolLayout`]).
///
/// # Errors
/// [`Error::Shape`] for an empty map, window, list or scale.
pub fn region_pool(map: Tensor<3>, window: usize, scales: &[Scale]) -> Result<Pooled, Error> {
    let [height, width, c] = map.dims();
    if [height, width, c, window, scales.len()].contains(&0) || scales.iter().any(|s| s.drops()) {
        let scales: Vec<String> = scales.iter().map(Scale::to_string).collect();
        return Err(Error::Shape {
            op: "region_pool",
            expected: "a map, a window and scales, none of them empty".into(),
            got: format!("map ({height}, {width}, {c}), window {window}, scales {scales:?}"),
        });
    }
    let layout = PoolLayout::new((height, width), window, scales);
    let rows = <Dispatch as SamplerOps>::region_pool(map.into_dispatch(), layout.clone());
    Ok(Pooled { rows: Tensor::from_dispatch(rows), layout })
}

/// The scale of each region: `Z = FC(pooled . X_g / sqrt(C))`, choice = argmax Z (Sec. 3.2, Eq. 1).
///
/// Equal logits: the first scale. A region with a logit that is not finite gets the choice S, which is no scale.
///
/// # Shapes
/// `pooled` (M, C), the maximum over each region; `thumbnail` (P*P, C); `weight` (S, P*P), `bias` (S) -> logits (M, S),
/// f32, and choice (M,).
///
/// # Errors
/// [`Error::Shape`] where the shapes do not match.
pub fn scale_select(
    pooled: Tensor<2>,
    thumbnail: Tensor<2>,
    weight: Tensor<2>,
    bias: Tensor<1>,
) -> Result<(Tensor<2>, Tensor<1, Int>), Error> {
    let ([regions, c], [context, thumbnail_c], [scales, inputs]) = (pooled.dims(), thumbnail.dims(), weight.dims());
    let counts = [regions, c, context, scales];
    if c != thumbnail_c || context != inputs || bias.dims() != [scales] || counts.contains(&0) {
        return Err(Error::Shape {
            op: "scale_select",
            expected: "pooled (M, C), thumbnail (P*P, C), weight (S, P*P), bias (S), none empty".into(),
            got: format!("({regions}, {c}), ({context}, {thumbnail_c}), ({scales}, {inputs}), {:?}", bias.dims()),
        });
    }
    let (logits, choice) = <Dispatch as SamplerOps>::scale_select(
        pooled.into_dispatch(),
        thumbnail.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
    );
    Ok((Tensor::from_dispatch(logits), Tensor::from_dispatch(choice)))
}

/// The chosen tokens in scanline order, with newlines.
#[derive(Clone, Debug)]
pub struct Compacted {
    /// (tokens, C).
    pub tokens: Tensor<2>,
    /// The patches of each token: y0, x0 inclusive; y1, x1 exclusive. (tokens, 4).
    pub boxes: Tensor<2, Int>,
    /// The number of tokens.
    pub counts: CompactCounts,
}

/// The tokens of each region at its chosen scale, in scanline order, with the `newline`, if there is one, after each row
/// that has a token (Sec. 3.2; the order is our choice). None where all regions are dropped.
///
/// Tokens of one patch come from `map`. All other scales that do not drop the region must be in `pooled`.
///
/// # Shapes
/// `map` (H, W, C), and `pooled` made from it; `newline` (C); `choice` (regions,), each an index into `scales`.
///
/// # Errors
/// [`Error::Shape`] where the shapes do not match, [`Error::NoChoice`] where a choice is out of range,
/// [`Error::DeviceLost`].
pub async fn compact(
    map: Tensor<3>,
    pooled: &Pooled,
    newline: Option<Tensor<1>>,
    choice: Tensor<1, Int>,
    scales: &[Scale],
) -> Result<Option<Compacted>, Error> {
    let [height, width, c] = map.dims();
    let wrong = |got: String| Error::Shape {
        op: "compact",
        expected: "a map (H, W, C), pooled tokens of this map at each scale, a newline (C), one choice per region"
            .into(),
        got,
    };
    let layout = CompactLayout::new(pooled.layout.clone(), scales, newline.is_some())
        .ok_or_else(|| wrong(format!("scales {scales:?}, pooled at {:?}", pooled.layout.scales)))?;
    let newline = newline.unwrap_or_else(|| Tensor::zeros([c], (&map.device(), map.dtype())));
    let (regions, pool) = (layout.pool.regions(), layout.pool.map);
    if pool != (height, width) || pooled.rows.dims()[1] != c || newline.dims() != [c] || choice.dims() != [regions] {
        return Err(wrong(format!(
            "map ({height}, {width}, {c}), pooled of {pool:?} with {:?}, newline {:?}, choice {:?} for {regions} regions",
            pooled.rows.dims(),
            newline.dims(),
            choice.dims()
        )));
    }
    let done = <Dispatch as SamplerOps>::compact(
        map.into_dispatch(),
        pooled.rows.clone().into_dispatch(),
        newline.into_dispatch(),
        choice.into_dispatch(),
        layout,
    )
    .await;
    let counts = done.counts?;
    let (tokens, boxes) = (Tensor::from_dispatch(done.tokens), Tensor::from_dispatch(done.boxes));
    Ok((counts.tokens > 0).then_some(Compacted { tokens, boxes, counts }))
}

/// Importance of each visual token: softmax over the visual tokens, max over heads, mean over text (Eq. 7, 8).
///
/// The inputs must be finite: the result for a NaN depends on the device. The scores (heads, T, N) are computed in
/// blocks of text tokens, to limit the memory.
///
/// # Shapes
/// `query` (heads, T, d_head), `key` (kv_heads, N, d_head) -> (N,), f32.
///
/// # Errors
/// [`Error::Shape`] where the shapes do not match, or where one is empty.
pub fn text_score(query: Tensor<3>, key: Tensor<3>) -> Result<Tensor<1>, Error> {
    let ([heads, text, d_head], [kv_heads, visual, key_d]) = (query.dims(), key.dims());
    let counts = [heads, text, d_head, kv_heads, visual];
    if d_head != key_d || counts.contains(&0) || !heads.is_multiple_of(kv_heads) {
        return Err(Error::Shape {
            op: "text_score",
            expected: "query (heads, T, d), key (kv_heads, N, d), heads a multiple of kv_heads, none empty".into(),
            got: format!("({heads}, {text}, {d_head}), ({kv_heads}, {visual}, {key_d})"),
        });
    }
    Ok(Tensor::from_dispatch(<Dispatch as SamplerOps>::text_score(query.into_dispatch(), key.into_dispatch())))
}

/// The indices of the tokens that are kept, in rising order (Eq. 9). Tokens are selected by falling score, equal scores
/// by rising index. The host reads back K.
///
/// # Shapes
/// `scores` (N,), f32 -> (K,), with K at least 1.
///
/// # Errors
/// [`Error::Shape`] where there is no score, or a score is not finite; [`Error::DeviceLost`].
pub async fn top_k(scores: Tensor<1>, keep: Keep) -> Result<Tensor<1, Int>, Error> {
    let [n] = scores.dims();
    let wrong = |got: String| Error::Shape { op: "top_k", expected: "finite scores, at least one".into(), got };
    if n == 0 {
        return Err(wrong("none".into()));
    }
    let ranked = <Dispatch as SamplerOps>::top_k(scores.into_dispatch(), keep).await;
    match ranked.count? {
        0 => Err(wrong(format!("one of {n} that is NaN or infinite"))),
        _ => Ok(Tensor::from_dispatch(ranked.kept)),
    }
}

/// Uploads indices to a device. The host checks each one first.
///
/// # Errors
/// [`Error::Shape`] where an index is not below `bound`.
pub fn indices(at: &[usize], bound: usize, device: &Device) -> Result<Tensor<1, Int>, Error> {
    if let Some(bad) = at.iter().find(|&&i| i >= bound) {
        return Err(Error::Shape { op: "indices", expected: format!("indices below {bound}"), got: bad.to_string() });
    }
    let at: Vec<i32> = at.iter().map(|&i| i as i32).collect();
    let shape = [at.len()];
    Ok(Tensor::from_data(TensorData::new(at, shape), device))
}

/// Rows by index: `out[b, i] = rows[b, indices[i]]`.
///
/// Take indices from [`indices`] or [`top_k`], which keep them in range. For an index out of range a kernel returns
/// zeros.
///
/// # Shapes
/// `rows` (B, R, C), `indices` (K,) -> (B, K, C).
///
/// # Errors
/// [`Error::Shape`] where an input is empty.
pub fn row_gather(rows: Tensor<3>, indices: Tensor<1, Int>) -> Result<Tensor<3>, Error> {
    let (dims, count) = (rows.dims(), indices.dims()[0]);
    if dims.contains(&0) || count == 0 {
        return Err(Error::Shape {
            op: "row_gather",
            expected: "rows (B, R, C) and indices, none empty".into(),
            got: format!("{dims:?} and {count} indices"),
        });
    }
    Ok(Tensor::from_dispatch(<Dispatch as SamplerOps>::row_gather(rows.into_dispatch(), indices.into_dispatch())))
}
