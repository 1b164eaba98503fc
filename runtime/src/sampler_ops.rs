//! The operations that Fovea exists for, behind one trait: [`SamplerOps`].
//!
//! The trait's bodies are plain tensor operations, so every backend runs them and gradients come for free. A
//! hand-written kernel overrides a body for the backends that can run it. Shapes are checked once, in the functions
//! of this module, and nowhere below; a body may rely on them.

use burn::backend::{
    Backend, Dispatch, Flex, TensorMetadata, backend_extension,
    tensor::{FloatTensor, IntTensor},
};
use burn::tensor::{FloatDType, Int, Shape, Slice, Tensor};
use burn_wgpu::CubeBackend;

use crate::{Error, Keep, Scale, device::read_f32, top_k};

/// Scores held at once by [`text_score`]: 32 MiB in f32.
const SCORE_BUDGET: usize = 8 << 20;

/// What stands for "nothing here" in a maximum. Finite: WGSL may assume that infinities do not exist.
const NOTHING: f32 = f32::MIN;

/// The samplers' operations on a backend's own tensors, in f32. Shapes as in the functions of this module.
#[backend_extension(Cube, Flex)]
pub trait SamplerOps: Backend {
    /// See [`region_pool`](crate::sampler_ops::region_pool).
    fn region_pool(map: FloatTensor<Self>, window: usize, rows: usize, cols: usize) -> FloatTensor<Self> {
        region_pool_ops::<Self>(map, window, rows, cols)
    }

    /// See [`scale_logits`](crate::sampler_ops::scale_logits).
    fn scale_logits(
        pooled: FloatTensor<Self>,
        thumbnail: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        scale_logits_ops::<Self>(pooled, thumbnail, weight, bias)
    }

    /// See [`text_score`](crate::sampler_ops::text_score).
    fn text_score(query: FloatTensor<Self>, key: FloatTensor<Self>) -> FloatTensor<Self> {
        text_score_ops::<Self>(query, key)
    }

    /// See [`row_gather`](crate::sampler_ops::row_gather).
    fn row_gather(rows: FloatTensor<Self>, indices: IntTensor<Self>) -> FloatTensor<Self> {
        Self::float_select(rows, 0, indices)
    }
}

impl SamplerOps for CubeBackend {}
impl SamplerOps for Flex {}

fn region_pool_ops<B: Backend>(map: FloatTensor<B>, window: usize, rows: usize, cols: usize) -> FloatTensor<B> {
    let [height, width, c] = map.shape().dims::<3>();
    let (down, across) = (height.div_ceil(window), width.div_ceil(window));
    let (token_rows, token_cols) = (window.div_ceil(rows), window.div_ceil(cols));
    // Whole regions, then whole kernels within each: what is added never wins a maximum.
    let map = pad_end::<B, _>(map, [down * window, across * window, c]);
    let map = B::float_reshape(map, Shape::new([down, window, across, window, c]));
    let map = B::float_permute(map, &[0, 2, 1, 3, 4]); // (down, across, window, window, C)
    let map = pad_end::<B, _>(map, [down, across, token_rows * rows, token_cols * cols, c]);
    let map = B::float_reshape(map, Shape::new([down * across * token_rows, rows, token_cols * cols * c]));
    let map = B::float_max_dim(map, 1);
    let map = B::float_reshape(map, Shape::new([down * across * token_rows * token_cols, cols, c]));
    B::float_reshape(B::float_max_dim(map, 1), Shape::new([down * across, token_rows, token_cols, c]))
}

/// Grows `x` to `shape` at the end of each dimension, with [`NOTHING`].
fn pad_end<B: Backend, const D: usize>(x: FloatTensor<B>, shape: [usize; D]) -> FloatTensor<B> {
    let old = x.shape();
    if old == Shape::new(shape) {
        return x;
    }
    let dtype = FloatDType::from(x.dtype());
    let full = B::float_full(Shape::new(shape), NOTHING.into(), &x.device(), dtype);
    let slices: Vec<Slice> = (0..D).map(|d| Slice::from(0..old[d])).collect();
    B::float_slice_assign(full, &slices, x)
}

fn scale_logits_ops<B: Backend>(
    pooled: FloatTensor<B>,
    thumbnail: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
) -> FloatTensor<B> {
    let c = pooled.shape()[1];
    let scales = bias.shape()[0];
    let scores = B::float_matmul(pooled, B::float_transpose(thumbnail)); // (M, P*P)
    let scores = B::float_div_scalar(scores, (c as f64).sqrt().into());
    let logits = B::float_matmul(scores, B::float_transpose(weight)); // (M, S)
    B::float_add(logits, B::float_reshape(bias, Shape::new([1, scales])))
}

fn text_score_ops<B: Backend>(query: FloatTensor<B>, key: FloatTensor<B>) -> FloatTensor<B> {
    let [heads, text, d_head] = query.shape().dims::<3>();
    let [kv_heads, visual, _] = key.shape().dims::<3>();
    let key = B::float_transpose(key); // (kv_heads, d_head, visual)
    let step = (SCORE_BUDGET / (heads * visual).max(1)).clamp(1, text);
    let mut total: Option<FloatTensor<B>> = None;
    for start in (0..text).step_by(step) {
        let end = (start + step).min(text);
        let t = end - start;
        let all = [Slice::from(0..heads), Slice::from(start..end), Slice::from(0..d_head)];
        // The query heads of one key head lie side by side: one product a key head, keys never repeated.
        let q =
            B::float_reshape(B::float_slice(query.clone(), &all), Shape::new([kv_heads, heads / kv_heads * t, d_head]));
        let scores = B::float_div_scalar(B::float_matmul(q, key.clone()), (d_head as f64).sqrt().into());
        let top = B::float_max_dim(scores.clone(), 2);
        let exp = B::float_exp(B::float_sub(scores, top));
        let share = B::float_div(exp.clone(), B::float_sum_dim(exp, 2));
        let best = B::float_max_dim(B::float_reshape(share, Shape::new([heads, t, visual])), 0);
        let sum = B::float_sum_dim(best, 1); // (1, 1, visual)
        total = Some(match total {
            None => sum,
            Some(before) => B::float_add(before, sum),
        });
    }
    // `text` is at least one: checked by the caller, so there is a total.
    let total = total.unwrap_or_else(|| B::float_max_dim(B::float_max_dim(query, 0), 1));
    B::float_reshape(B::float_div_scalar(total, (text as f64).into()), Shape::new([visual]))
}

/// Max pooling of every region at one scale: `DS[s](X_i)` (Sec. 3.2).
///
/// `map` (H, W, C), f32 -> (regions, ceil(window / rows), ceil(window / cols), C). Tokens of a partial region that lie
/// outside the map hold a large negative number; [`crate::compact`] never asks for them.
///
/// # Errors
/// [`Error::Shape`] for an empty map, window or scale.
pub fn region_pool(map: Tensor<3>, window: usize, scale: Scale) -> Result<Tensor<4>, Error> {
    let [height, width, c] = map.dims();
    if [height, width, c, window].contains(&0) || scale.drops() {
        return Err(Error::Shape {
            op: "region_pool",
            expected: "a map, a window and a scale that hold something".into(),
            got: format!("map ({height}, {width}, {c}), window {window}, scale {scale}"),
        });
    }
    // A kernel larger than the region is cut by its edge: the same as one of the region's size.
    let (rows, cols) = (scale.rows.min(window), scale.cols.min(window));
    Ok(Tensor::from_dispatch(<Dispatch as SamplerOps>::region_pool(map.into_dispatch(), window, rows, cols)))
}

/// Logits of every region's scale: `Z = FC(pool(X_i) . X_g / sqrt(C))` (Sec. 3.2).
///
/// `pooled` (M, C), the maximum over each region; `thumbnail` (P*P, C); `weight` (S, P*P), `bias` (S) -> (M, S), f32.
///
/// # Errors
/// [`Error::Shape`] where these do not belong together.
pub fn scale_logits(
    pooled: Tensor<2>,
    thumbnail: Tensor<2>,
    weight: Tensor<2>,
    bias: Tensor<1>,
) -> Result<Tensor<2>, Error> {
    let ([regions, c], [context, thumbnail_c], [scales, inputs]) = (pooled.dims(), thumbnail.dims(), weight.dims());
    if c != thumbnail_c || context != inputs || bias.dims() != [scales] || regions == 0 || scales == 0 {
        return Err(Error::Shape {
            op: "scale_logits",
            expected: "pooled (M, C), thumbnail (P*P, C), weight (S, P*P), bias (S)".into(),
            got: format!("({regions}, {c}), ({context}, {thumbnail_c}), ({scales}, {inputs}), {:?}", bias.dims()),
        });
    }
    Ok(Tensor::from_dispatch(<Dispatch as SamplerOps>::scale_logits(
        pooled.into_dispatch(),
        thumbnail.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
    )))
}

/// Importance of each visual token: softmax over the visual tokens, max over heads, mean over text (Eq. 7, 8).
///
/// `query` (heads, T, d_head), `key` (kv_heads, N, d_head), f32 -> (N,). (heads, T, N) is never held whole.
///
/// # Errors
/// [`Error::Shape`] where these do not belong together, or there is no text or no visual token.
pub fn text_score(query: Tensor<3>, key: Tensor<3>) -> Result<Tensor<1>, Error> {
    let ([heads, text, d_head], [kv_heads, visual, key_d]) = (query.dims(), key.dims());
    if d_head != key_d || text == 0 || visual == 0 || kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
        return Err(Error::Shape {
            op: "text_score",
            expected: "query (heads, T, d), key (kv_heads, N, d), heads a multiple of kv_heads, T and N at least 1"
                .into(),
            got: format!("({heads}, {text}, {d_head}), ({kv_heads}, {visual}, {key_d})"),
        });
    }
    Ok(Tensor::from_dispatch(<Dispatch as SamplerOps>::text_score(query.into_dispatch(), key.into_dispatch())))
}

/// `out[i] = rows[indices[i]]`. `rows` (R, C) -> (indices, C).
///
/// # Errors
/// [`Error::Shape`] where an index is out of range: it is checked here, on the host, before a GPU sees it.
pub fn row_gather(rows: Tensor<2>, indices: &[usize]) -> Result<Tensor<2>, Error> {
    let [count, _] = rows.dims();
    if let Some(bad) = indices.iter().find(|&&i| i >= count) {
        return Err(Error::Shape {
            op: "row_gather",
            expected: format!("indices below {count}"),
            got: bad.to_string(),
        });
    }
    let at: Vec<i32> = indices.iter().map(|&i| i as i32).collect();
    let at = Tensor::<1, Int>::from_data(at.as_slice(), &rows.device());
    Ok(Tensor::from_dispatch(<Dispatch as SamplerOps>::row_gather(rows.into_dispatch(), at.into_dispatch())))
}

/// The kept visual tokens in rising order (Eq. 9), and the importance that decided.
///
/// # Errors
/// [`Error::DeviceLost`] where the read-back fails; [`Error::Shape`] where a score is no number.
pub async fn keep_by_score(scores: Tensor<1>, keep: Keep) -> Result<(Vec<usize>, Vec<f32>), Error> {
    let scores = read_f32(scores).await?;
    if let Some(bad) = scores.iter().position(|s| !s.is_finite()) {
        return Err(Error::Shape {
            op: "keep_by_score",
            expected: "finite scores".into(),
            got: format!("{} at index {bad}", scores[bad]),
        });
    }
    Ok((top_k(&scores, keep), scores))
}
