//! The operations as tensor operations of burn: for the CPU, automatic differentiation, and shapes without a kernel.
//!
//! The host counts and ranks, with the twins of `fovea-shaders`: no tensor operation does that well.

use burn::backend::{
    Backend, TensorMetadata, get_or_init_device_settings,
    tensor::{FloatTensor, IntTensor},
};
use burn::tensor::{DType, FloatDType, IntDType, Shape, Slice, TensorData};
use fovea_shaders::{Cell, CompactLayout, Keep, Place, PoolLayout, Scale};

use super::results::{CompactCounts, CompactParts, Ranked};
use crate::{error::Error, read::lost};

/// Scores that [`text_score`] computes at once: 32 MiB in f32.
const SCORE_BUDGET: usize = 8 << 20;

pub(super) fn region_pool<B: Backend>(map: FloatTensor<B>, layout: &PoolLayout) -> FloatTensor<B> {
    let c = map.shape()[2];
    let pool = |scale: &Scale| {
        let pooled = pool_at::<B>(map.clone(), layout.window, *scale);
        let rows = pooled.shape().num_elements() / c;
        B::float_reshape(pooled, Shape::new([rows, c]))
    };
    B::float_cat(layout.scales.iter().map(pool).collect(), 0)
}

/// (regions, token rows, token columns, C) at one scale.
fn pool_at<B: Backend>(map: FloatTensor<B>, window: usize, scale: Scale) -> FloatTensor<B> {
    let [height, width, c] = map.shape().dims::<3>();
    let (down, across) = (height.div_ceil(window), width.div_ceil(window));
    let (token_rows, token_cols) = scale.tokens(window, window);
    // Pad to whole regions, then to whole kernels in each region. The padding never wins a maximum.
    let map = pad_end::<B, _>(map, [down * window, across * window, c]);
    let map = B::float_reshape(map, Shape::new([down, window, across, window, c]));
    let map = B::float_permute(map, &[0, 2, 1, 3, 4]); // (down, across, window, window, C)
    let map = pad_end::<B, _>(map, [down, across, token_rows * scale.rows, token_cols * scale.cols, c]);
    let map = B::float_reshape(map, Shape::new([down * across * token_rows, scale.rows, token_cols * scale.cols * c]));
    let map = B::float_max_dim(map, 1);
    let map = B::float_reshape(map, Shape::new([down * across * token_rows * token_cols, scale.cols, c]));
    B::float_reshape(B::float_max_dim(map, 1), Shape::new([down * across, token_rows, token_cols, c]))
}

/// Pads `x` to `shape` at the end of each dimension, with the smallest finite number of its type, as the kernels do.
fn pad_end<B: Backend, const D: usize>(x: FloatTensor<B>, shape: [usize; D]) -> FloatTensor<B> {
    let old = x.shape();
    if old == Shape::new(shape) {
        return x;
    }
    let dtype = x.dtype();
    let lowest = if dtype == DType::F16 { half::f16::MIN.to_f32() } else { f32::MIN };
    let full = B::float_full(Shape::new(shape), lowest.into(), &x.device(), FloatDType::from(dtype));
    let slices: Vec<Slice> = (0..D).map(|d| Slice::from(0..old[d])).collect();
    B::float_slice_assign(full, &slices, x)
}

/// As f32: sums are f32 for each storage type.
fn wide<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    if x.dtype() == DType::F32 { x } else { B::float_cast(x, FloatDType::F32) }
}

pub(super) fn scale_select<B: Backend>(
    pooled: FloatTensor<B>,
    thumbnail: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
) -> (FloatTensor<B>, IntTensor<B>) {
    let ([regions, c], scales) = (pooled.shape().dims::<2>(), bias.shape()[0]);
    // FC(x . X_g) = x . (FC X_g), so the products of regions and thumbnail, (M, P*P), are never stored.
    let fold = B::float_matmul(wide::<B>(weight), wide::<B>(thumbnail)); // (S, C)
    let fold = B::float_div_scalar(fold, (c as f64).sqrt().into());
    let logits = B::float_matmul(wide::<B>(pooled), B::float_transpose(fold)); // (M, S)
    let logits = B::float_add(logits, B::float_reshape(wide::<B>(bias), Shape::new([1, scales])));

    // The first of the largest logits: the argmax of a backend may take any of them. Numbers that fall from S give the
    // order.
    let device = logits.device();
    let top = B::float_max_dim(logits.clone(), 1);
    let order: Vec<f32> = (0..scales).map(|s| (scales - s) as f32).collect();
    let order = B::float_from_data(TensorData::new(order, [1, scales]), &device);
    let (bools, floats) = (get_or_init_device_settings::<B>(&device).bool_dtype, FloatDType::F32);
    let is_top =
        B::bool_into_float(B::float_equal(logits.clone(), B::float_expand(top, logits.shape()), bools), floats);
    let first = B::float_max_dim(B::float_mul(is_top, order), 1); // 0 where all comparisons fail (NaN)
    let choice = B::float_add_scalar(B::float_neg(first), (scales as f64).into());
    // x - x is 0 only for finite numbers. A region with another number gets the choice S.
    let zero = B::float_sub(logits.clone(), logits.clone());
    let odd = B::float_not_equal_elem(B::float_sum_dim(B::float_abs(zero), 1), 0.0.into(), bools);
    let choice = B::float_mask_fill(choice, odd, (scales as f64).into());
    (logits, B::int_reshape(B::float_into_int(choice, IntDType::I32), Shape::new([regions])))
}

pub(super) async fn compact<B: Backend>(
    map: FloatTensor<B>,
    pooled: FloatTensor<B>,
    newline: FloatTensor<B>,
    choice: IntTensor<B>,
    layout: CompactLayout,
) -> CompactParts<B> {
    let (device, c) = (map.device(), map.shape()[2]);
    let (height, width) = layout.pool.map;
    let nothing = |counts| CompactParts {
        tokens: B::float_reshape(newline.clone(), Shape::new([1, c])),
        boxes: B::int_from_data(TensorData::new(vec![0i32; 4], [1, 4]), &device),
        counts,
    };
    let choice: Vec<usize> = match B::int_into_data(choice).await {
        Ok(data) => data.iter::<i64>().map(|i| usize::try_from(i).unwrap_or(usize::MAX)).collect(),
        Err(e) => return nothing(Err(lost(e))),
    };
    let bad = choice.iter().filter(|&&i| i >= layout.scales.len()).count();
    if bad > 0 {
        return nothing(Err(Error::NoChoice { regions: bad }));
    }
    let mut cells = fovea_shaders::compact(height, width, layout.pool.window, &layout.scales, &choice);
    cells.retain(|(_, cell)| layout.newlines || *cell != Cell::Newline);
    if cells.is_empty() {
        return nothing(Ok(CompactCounts::default()));
    }
    // Source rows: the newline, the pooled tokens, the patches of the map.
    let at: Vec<i32> = cells
        .iter()
        .map(|(token_box, cell)| match *cell {
            Cell::Newline => 0,
            Cell::Pooled { region, row, col } => match layout.places[choice[region]] {
                Place::Pooled(scale) => 1 + layout.pool.row(scale, region, row, col) as i32,
                Place::Map | Place::Nowhere => (1 + layout.pool.rows + token_box[0] * width + token_box[1]) as i32,
            },
        })
        .collect();
    let newlines = cells.iter().filter(|(_, cell)| *cell == Cell::Newline).count();
    let count = cells.len();
    let rows = vec![
        B::float_reshape(newline, Shape::new([1, c])),
        pooled,
        B::float_reshape(map, Shape::new([height * width, c])),
    ];
    let tokens = B::float_select(B::float_cat(rows, 0), 0, B::int_from_data(TensorData::new(at, [count]), &device));
    let boxes: Vec<i32> = cells.iter().flat_map(|(token_box, _)| token_box.map(|side| side as i32)).collect();
    let boxes = B::int_from_data(TensorData::new(boxes, [count, 4]), &device);
    CompactParts { tokens, boxes, counts: Ok(CompactCounts { tokens: count, newlines }) }
}

pub(super) fn text_score<B: Backend>(query: FloatTensor<B>, key: FloatTensor<B>) -> FloatTensor<B> {
    let [heads, text, d_head] = query.shape().dims::<3>();
    let [kv_heads, visual, _] = key.shape().dims::<3>();
    let key = B::float_transpose(wide::<B>(key)); // (kv_heads, d_head, visual)
    let step = (SCORE_BUDGET / (heads * visual).max(1)).clamp(1, text);
    let mut total: Option<FloatTensor<B>> = None;
    for start in (0..text).step_by(step) {
        let end = (start + step).min(text);
        let t = end - start;
        let all = [Slice::from(0..heads), Slice::from(start..end), Slice::from(0..d_head)];
        // The query heads of one key head are adjacent: one product per key head, keys are never repeated.
        let q = B::float_reshape(
            wide::<B>(B::float_slice(query.clone(), &all)),
            Shape::new([kv_heads, heads / kv_heads * t, d_head]),
        );
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
    // The caller checked that `text` is at least one, so there is a total.
    let total = total.unwrap_or_else(|| B::float_max_dim(B::float_max_dim(query, 0), 1));
    B::float_reshape(B::float_div_scalar(total, (text as f64).into()), Shape::new([visual]))
}

pub(super) async fn top_k<B: Backend>(scores: FloatTensor<B>, keep: Keep) -> Ranked<B> {
    let device = scores.device();
    let upload = |kept: Vec<i32>| {
        let shape = [kept.len()];
        B::int_from_data(TensorData::new(kept, shape), &device)
    };
    let scores: Vec<f32> = match B::float_into_data(scores).await {
        Ok(data) => data.iter::<f32>().collect(),
        Err(e) => return Ranked { kept: upload(vec![0]), count: Err(lost(e)) },
    };
    if scores.iter().any(|s| !s.is_finite()) {
        return Ranked { kept: upload(vec![0]), count: Ok(0) };
    }
    let kept = fovea_shaders::top_k(&scores, keep);
    let count = Ok(kept.len());
    Ranked { kept: upload(kept.into_iter().map(|i| i as i32).collect()), count }
}

pub(super) fn row_gather<B: Backend>(rows: FloatTensor<B>, indices: IntTensor<B>) -> FloatTensor<B> {
    B::float_select(rows, 1, indices)
}
