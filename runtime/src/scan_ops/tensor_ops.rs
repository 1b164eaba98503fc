//! The selective scan as tensor operations of burn: for LibTorch and automatic differentiation.

use burn::backend::{Backend, TensorMetadata, get_or_init_device_settings, tensor::FloatTensor};
use burn::tensor::{FloatDType, Shape};
use fovea_shaders::Discretisation;

use crate::network_ops::tensor_ops::{narrow, shaped, wide};

/// Three passes over chunks of about sqrt(L) steps: each chunk from 0; over the ends of the chunks; the contribution of
/// what was before the chunk. A pass handles one step of all chunks at once, or one chunk, so that about 3 sqrt(L)
/// operations follow each other, and none is on (L, E, S).
pub(super) fn selective_scan<B: Backend>(
    u: FloatTensor<B>,
    delta: FloatTensor<B>,
    a: FloatTensor<B>,
    b: FloatTensor<B>,
    c: FloatTensor<B>,
    d: FloatTensor<B>,
    discretisation: Discretisation,
) -> FloatTensor<B> {
    let ([length, channels], states) = (u.shape().dims::<2>(), a.shape()[1]);
    let device = u.device();
    let [u, delta, a, b, c, d] = [u, delta, a, b, c, d].map(wide::<B>);
    let steps = length.isqrt();
    let chunks = length.div_ceil(steps);
    let zeros = |shape: Shape| B::float_zeros(shape, &device, FloatDType::F32);
    // Added steps have a delta of 0: they change nothing.
    let added = chunks * steps - length;
    let in_chunks = |x: FloatTensor<B>| {
        let width = x.shape()[1];
        let whole = if added == 0 { x } else { B::float_cat(vec![x, zeros(Shape::new([added, width]))], 0) };
        shaped::<B, 3>(whole, [chunks, steps, width])
    };
    let skip = B::float_mul(u.clone(), shaped::<B, 2>(d, [1, channels]));
    let a = shaped::<B, 3>(B::float_transpose(a), [1, states, channels]);
    let [u, delta, b, c] = [u, delta, b, c].map(in_chunks);
    // Of one step of all chunks: (chunks, 1, E) and (chunks, S, 1).
    let of_channels = |x: &FloatTensor<B>, step| narrow::<B>(x.clone(), 1, step, 1);
    let of_states = |x: &FloatTensor<B>, step| B::float_swap_dims(narrow::<B>(x.clone(), 1, step, 1), 1, 2);

    let mut h = zeros(Shape::new([chunks, states, channels]));
    let mut since = zeros(Shape::new([chunks, 1, channels]));
    let mut each = Vec::with_capacity(steps);
    for step in 0..steps {
        let (time, c) = (of_channels(&delta, step), of_states(&c, step));
        let passed = B::float_mul(time.clone(), a.clone());
        let decay = B::float_exp(passed.clone());
        let hold = match discretisation {
            Discretisation::Euler => time.clone(),
            Discretisation::Zoh => zero_order_hold::<B>(time.clone(), a.clone(), passed, decay.clone()),
        };
        let input = B::float_mul(of_states(&b, step), of_channels(&u, step));
        h = B::float_add(B::float_mul(decay, h), B::float_mul(hold, input));
        since = B::float_add(since, time);
        each.push((over_states::<B>(h.clone(), c.clone()), since.clone(), c));
    }
    let through = B::float_exp(B::float_mul(since, a.clone()));
    let mut starts = vec![zeros(Shape::new([1, states, channels]))];
    for chunk in 1..chunks {
        let before = starts[chunk - 1].clone();
        let kept = B::float_mul(narrow::<B>(through.clone(), 0, chunk - 1, 1), before);
        starts.push(B::float_add(kept, narrow::<B>(h.clone(), 0, chunk - 1, 1)));
    }
    let start = B::float_cat(starts, 0);
    let rows = each.into_iter().map(|(own, since, c)| {
        let kept = B::float_mul(B::float_exp(B::float_mul(since, a.clone())), start.clone());
        B::float_add(own, over_states::<B>(kept, c))
    });
    let y = shaped::<B, 2>(B::float_cat(rows.collect(), 1), [chunks * steps, channels]);
    B::float_add(narrow::<B>(y, 0, 0, length), skip)
}

/// `sum over states of c h`: (chunks, S, E) and (chunks, S, 1) -> (chunks, 1, E). Not a product of matrices, which CUDA
/// would round to TF32.
fn over_states<B: Backend>(h: FloatTensor<B>, c: FloatTensor<B>) -> FloatTensor<B> {
    B::float_sum_dim(B::float_mul(h, c), 1)
}

/// `(exp(x) - 1) / a` with `x = delta a`, and `decay = exp(x)`.
fn zero_order_hold<B: Backend>(
    delta: FloatTensor<B>,
    a: FloatTensor<B>,
    x: FloatTensor<B>,
    decay: FloatTensor<B>,
) -> FloatTensor<B> {
    let bools = get_or_init_device_settings::<B>(&x.device()).bool_dtype;
    let is_small = B::float_greater_elem(x.clone(), (-0.1).into(), bools);
    let plain = B::float_div(B::float_add_scalar(decay, (-1.0).into()), a);
    // Near 0 the difference has few bits: delta (1 + x/2 (1 + x/3 (1 + x/4))), relative error 8e-7.
    let mut series = B::float_add_scalar(B::float_mul_scalar(x.clone(), 0.25.into()), 1.0.into());
    for divisor in [3.0, 2.0] {
        let next = B::float_mul(series, B::float_mul_scalar(x.clone(), (1.0 / divisor).into()));
        series = B::float_add_scalar(next, 1.0.into());
    }
    B::float_mask_where(plain, is_small, B::float_mul(series, delta))
}
