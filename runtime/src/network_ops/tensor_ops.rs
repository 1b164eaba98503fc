//! The operations as tensor operations of burn: for LibTorch, automatic differentiation, and shapes without a kernel.

use burn::backend::{
    Backend, TensorMetadata,
    tensor::{FloatTensor, IntTensor},
};
use burn::tensor::{DType, FloatDType, IntDType, Shape, Slice, TensorData, ops::AttentionModuleOptions};
use fovea_shaders::Activation;

use super::{AttendPlan, EmbedPlan, Heads, LinearPlan, Operand, StorePlan};

/// Most query rows of attention at once: causal attention skips the keys after each block, which is half of the work of a
/// long prefill.
const BLOCK: usize = 512;
/// Most scores at once: 64 MiB, half of the smallest binding of WebGPU.
const SCORES: usize = 1 << 24;
/// Most values of codes that are f32 at once.
const PANEL: usize = 1 << 24;

/// `x` as f32.
pub(crate) fn wide<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    if x.dtype() == DType::F32 { x } else { B::float_cast(x, FloatDType::F32) }
}

pub(crate) fn shaped<B: Backend, const D: usize>(x: FloatTensor<B>, shape: [usize; D]) -> FloatTensor<B> {
    B::float_reshape(x, Shape::new(shape))
}

/// `count` elements of dimension `dim`, from `first` on.
pub(crate) fn narrow<B: Backend>(x: FloatTensor<B>, dim: usize, first: usize, count: usize) -> FloatTensor<B> {
    let shape = x.shape();
    let all = |d: usize| if d == dim { first..first + count } else { 0..shape[d] };
    let slices: Vec<Slice> = (0..shape.num_dims()).map(|d| Slice::from(all(d))).collect();
    B::float_slice(x, &slices)
}

/// `count` bits of each word, from bit `first` on, as f32.
fn bits<B: Backend>(words: &IntTensor<B>, first: u32, count: u32) -> FloatTensor<B> {
    let shifted = B::bitwise_right_shift_scalar(words.clone(), i64::from(first).into());
    let own = B::bitwise_and_scalar(shifted, ((1i64 << count) - 1).into());
    B::int_into_float(own, FloatDType::F32)
}

/// One half of each word of `scales` as f16: `(-1)^s (1024 + m) 2^(e - 25)`; if e is 0, without the 1024 and with e = 1.
fn halves<B: Backend>(scales: &IntTensor<B>, first: u32) -> FloatTensor<B> {
    let [rows, words] = scales.shape().dims();
    let powers: Vec<f32> = (0..64).map(|e: i32| (e & 31).max(1)).map(|e| 2f32.powi(e - 25)).collect();
    let signed = powers.iter().enumerate().map(|(i, power)| if i < 32 { *power } else { -power }).collect();
    let powers = B::float_from_data(TensorData::new::<f32, _>(signed, [64]), &scales.device());
    let sign_and_exponent = B::bitwise_right_shift_scalar(scales.clone(), i64::from(first + 10).into());
    let sign_and_exponent = B::bitwise_and_scalar(sign_and_exponent, 63i64.into());
    let sign_and_exponent = B::int_reshape(sign_and_exponent, Shape::new([rows * words]));
    let power = shaped::<B, 2>(B::float_select(powers, 0, sign_and_exponent), [rows, words]);
    // 1 for a positive exponent.
    let leading = B::float_clamp(bits::<B>(scales, first + 10, 5), 0.0.into(), 1.0.into());
    let mantissa = B::float_add(bits::<B>(scales, first, 10), B::float_mul_scalar(leading, 1024.0.into()));
    B::float_mul(mantissa, power)
}

/// The values of a weight: of codes, [`fovea_shaders::dequantise`] in f32.
pub(super) fn floats<B: Backend>(weight: Operand<B>) -> FloatTensor<B> {
    let (words, scales, format) = match weight {
        Operand::Float(values) | Operand::Product(values) => return values,
        Operand::Codes(words, scales, format, _) => (words, scales, format),
    };
    let [rows, count] = words.shape().dims();
    let (width, group) = (count * 32 / format.bits as usize, format.group as usize);
    let groups = width / group;
    // The codes of a word in their order: byte by byte, of 4 bits first all low halves.
    let shifts: &[u32] = if format.bits == 8 { &[0, 8, 16, 24] } else { &[0, 8, 16, 24, 4, 12, 20, 28] };
    let side_by_side = |parts: Vec<FloatTensor<B>>| {
        let shape = [rows, parts[0].shape()[1], 1];
        B::float_cat(parts.into_iter().map(|part| shaped::<B, 3>(part, shape)).collect(), 2)
    };
    let codes = side_by_side(shifts.iter().map(|&shift| bits::<B>(&words, shift, format.bits)).collect());
    let codes = shaped::<B, 3>(codes, [rows, groups, group]);
    let each = |x| shaped::<B, 3>(x, [rows, groups, 1]);
    let values = if format.minimum {
        let scaled = B::float_mul(codes, each(halves::<B>(&scales, 0)));
        B::float_add(scaled, each(halves::<B>(&scales, 16)))
    } else {
        let both = side_by_side(vec![halves::<B>(&scales, 0), halves::<B>(&scales, 16)]);
        let all = shaped::<B, 2>(both, [rows, 2 * scales.shape()[1]]);
        let codes = B::float_add_scalar(codes, (-f64::from(format.zero())).into());
        B::float_mul(codes, each(narrow::<B>(all, 1, 0, groups)))
    };
    shaped::<B, 2>(values, [rows, width])
}

pub(super) fn embed<B: Backend>(ids: IntTensor<B>, table: Operand<B>, plan: &EmbedPlan) -> FloatTensor<B> {
    let ids = B::int_slice(ids, &[Slice::from(0..plan.tokens)]);
    let rows = match table {
        Operand::Float(table) | Operand::Product(table) => Operand::Float(B::float_select(table, 0, ids)),
        Operand::Codes(words, scales, format, rounded) => {
            Operand::Codes(B::int_select(words, 0, ids.clone()), B::int_select(scales, 0, ids), format, rounded)
        }
    };
    let rows = wide::<B>(floats::<B>(rows));
    if plan.factor == 1.0 { rows } else { B::float_mul_scalar(rows, plan.factor.into()) }
}

pub(super) fn norm<B: Backend>(
    x: FloatTensor<B>,
    gamma: FloatTensor<B>,
    beta: Option<FloatTensor<B>>,
    epsilon: f64,
) -> FloatTensor<B> {
    if beta.is_some() {
        return B::layer_norm(x, gamma, beta, epsilon);
    }
    let width = gamma.shape()[0];
    let mean = B::float_mean_dim(B::float_mul(x.clone(), x.clone()), 1);
    let size = B::float_sqrt(B::float_add_scalar(mean, epsilon.into()));
    B::float_mul(B::float_div(x, size), shaped::<B, 2>(gamma, [1, width]))
}

/// Products with a weight in f16 are in f16; the backend decides in which dtype it sums.
fn product<B: Backend>(x: FloatTensor<B>, weight: FloatTensor<B>) -> FloatTensor<B> {
    let dtype = weight.dtype();
    let x = if dtype == DType::F32 { x } else { B::float_cast(x, FloatDType::from(dtype)) };
    wide::<B>(B::float_matmul(x, B::float_transpose(weight)))
}

pub(super) fn linear<B: Backend>(
    x: FloatTensor<B>,
    weight: Operand<B>,
    gamma: Option<FloatTensor<B>>,
    extra: Extra<B>,
    plan: &LinearPlan,
) -> FloatTensor<B> {
    let x = match gamma {
        Some(gamma) => norm::<B>(x, gamma, None, plan.epsilon),
        None => x,
    };
    let y = match weight {
        Operand::Codes(words, scales, format, rounded) => {
            let [rows, count] = words.shape().dims();
            let most = (PANEL / (count * 32 / format.bits as usize)).clamp(1, rows);
            let panels = (0..rows).step_by(most).map(|first| {
                let of = |all: &IntTensor<B>| B::int_slice(all.clone(), &[Slice::from(first..rows.min(first + most))]);
                product::<B>(x.clone(), floats::<B>(Operand::Codes(of(&words), of(&scales), format, rounded)))
            });
            B::float_cat(panels.collect(), 1)
        }
        Operand::Product(y) => y,
        Operand::Float(values) => product::<B>(x, values),
    };
    finish::<B>(y, extra, plan)
}

/// The tensors of what follows a product.
pub(super) struct Extra<B: Backend> {
    pub bias: Option<FloatTensor<B>>,
    pub residual: Option<FloatTensor<B>>,
    /// The result, with the columns of the parts before this one.
    pub out: Option<FloatTensor<B>>,
}

/// All that follows a product `y` (T, rows).
pub(super) fn finish<B: Backend>(y: FloatTensor<B>, extra: Extra<B>, plan: &LinearPlan) -> FloatTensor<B> {
    let Extra { bias, residual, out } = extra;
    let [tokens, rows] = y.shape().dims();
    let y = match bias {
        Some(bias) => {
            let own = if bias.shape()[0] == rows { bias } else { narrow::<B>(bias, 0, plan.first, rows) };
            B::float_add(y, shaped::<B, 2>(own, [1, rows]))
        }
        None => y,
    };
    let count = if plan.gated { rows / 2 } else { rows };
    let y = match plan.activation {
        Some(f) if plan.gated => {
            let (gate, up) = (narrow::<B>(y.clone(), 1, 0, count), narrow::<B>(y, 1, count, count));
            B::float_mul(activate::<B>(gate, f), up)
        }
        Some(f) => activate::<B>(y, f),
        None => y,
    };
    let y = match residual {
        Some(residual) => {
            let own = if plan.width == count { residual } else { narrow::<B>(residual, 1, plan.first, count) };
            let y = if plan.factor == 1.0 { y } else { B::float_mul_scalar(y, plan.factor.into()) };
            B::float_add(own, y)
        }
        None => y,
    };
    if count == plan.width {
        return y;
    }
    let whole = out.unwrap_or_else(|| B::float_zeros(Shape::new([tokens, plan.width]), &y.device(), FloatDType::F32));
    let columns = plan.first..plan.first + count;
    B::float_slice_assign(whole, &[Slice::from(0..tokens), Slice::from(columns)], y)
}

/// An activation, element by element.
pub(super) fn activate<B: Backend>(x: FloatTensor<B>, f: Activation) -> FloatTensor<B> {
    match f {
        Activation::QuickGelu => B::float_mul(x.clone(), B::sigmoid(B::float_mul_scalar(x, 1.702f32.into()))),
        Activation::Gelu => B::gelu(x),
        Activation::GeluTanh => {
            // x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))
            let cube = B::float_mul(x.clone(), B::float_mul(x.clone(), x.clone()));
            let inner = B::float_add(x.clone(), B::float_mul_scalar(cube, 0.044715.into()));
            let inner = B::float_mul_scalar(inner, (2.0 / std::f64::consts::PI).sqrt().into());
            let half = B::float_mul_scalar(x, 0.5.into());
            B::float_mul(half, B::float_add_scalar(B::float_tanh(inner), 1.0.into()))
        }
        Activation::Silu => B::float_mul(x.clone(), B::sigmoid(x)),
    }
}

pub(super) fn rotate_and_store<B: Backend>(
    qkv: FloatTensor<B>,
    table: FloatTensor<B>,
    key: FloatTensor<B>,
    value: FloatTensor<B>,
    plan: &StorePlan,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let (Heads { query: h, key: g, width: d }, tokens) = (plan.heads, qkv.shape()[0]);
    let table = narrow::<B>(table, 0, plan.first, tokens);
    let half = |from: usize| shaped::<B, 3>(narrow::<B>(table.clone(), 1, from, d / 2), [tokens, 1, d / 2]);
    let (cos, sin) = (half(0), half(d / 2));
    // (tokens, heads, D)
    let part = |first: usize, heads: usize| {
        shaped::<B, 3>(narrow::<B>(qkv.clone(), 1, first * d, heads * d), [tokens, heads, d])
    };
    let rotated = |x: FloatTensor<B>| {
        let (a, b) = (narrow::<B>(x.clone(), 2, 0, d / 2), narrow::<B>(x, 2, d / 2, d / 2));
        let first = B::float_sub(B::float_mul(a.clone(), cos.clone()), B::float_mul(b.clone(), sin.clone()));
        let second = B::float_add(B::float_mul(b, cos.clone()), B::float_mul(a, sin.clone()));
        B::float_cat(vec![first, second], 2)
    };
    let store = |cache: FloatTensor<B>, new: FloatTensor<B>| {
        let new = B::float_cast(B::float_swap_dims(new, 0, 1), FloatDType::from(cache.dtype()));
        let rows = plan.len..plan.len + tokens;
        B::float_slice_assign(cache, &[Slice::from(0..g), Slice::from(rows), Slice::from(0..d)], new)
    };
    let query = shaped::<B, 2>(rotated(part(0, h)), [tokens, h * d]);
    (query, store(key, rotated(part(h, g))), store(value, part(h + g, g)))
}

pub(super) fn attend<B: Backend>(
    query: FloatTensor<B>,
    key: FloatTensor<B>,
    value: FloatTensor<B>,
    plan: &AttendPlan,
) -> FloatTensor<B> {
    let (Heads { query: h, key: g, width: d }, new, all) = (plan.heads, query.shape()[0], plan.keys);
    let [key, value] = [key, value].map(|x| wide::<B>(narrow::<B>(x, 1, 0, all)));
    if new == 1 {
        // One token sees all keys: the query heads of a group are the rows of one small product.
        let scores = B::float_matmul(shaped::<B, 3>(query, [g, h / g, d]), B::float_transpose(key));
        let shares = B::softmax(B::float_mul_scalar(scores, plan.factor.into()), 2);
        return shaped::<B, 2>(B::float_matmul(shares, value), [1, h * d]);
    }
    // Key heads are the batch, the query heads of a group its heads: keys and values are not repeated.
    let query = B::float_swap_dims(shaped::<B, 3>(query, [new, h, d]), 0, 1);
    let query = shaped::<B, 4>(query, [g, h / g, new, d]);
    let [key, value] = [key, value].map(|x| shaped::<B, 4>(x, [g, 1, all, d]));
    let options = AttentionModuleOptions { is_causal: true, scale: Some(plan.factor), ..Default::default() };
    let block = (SCORES / (h * all)).clamp(1, BLOCK);
    let blocks = (0..new).step_by(block).map(|start| {
        let rows = block.min(new - start);
        let seen = all - new + start + rows;
        let of = |x: &FloatTensor<B>| narrow::<B>(x.clone(), 2, 0, seen);
        B::attention(narrow::<B>(query.clone(), 2, start, rows), of(&key), of(&value), None, None, options)
    });
    let seen = shaped::<B, 3>(B::float_cat(blocks.collect(), 2), [h, new, d]);
    shaped::<B, 2>(B::float_swap_dims(seen, 0, 1), [new, h * d])
}

pub(super) fn attend_full<B: Backend>(qkv: FloatTensor<B>, tiles: usize, heads: Heads) -> FloatTensor<B> {
    let (rows, Heads { query: h, width: d, .. }) = (qkv.shape()[0], heads);
    let tokens = rows / tiles;
    let part = |i: usize| {
        let x = shaped::<B, 4>(narrow::<B>(qkv.clone(), 1, i * h * d, h * d), [tiles, tokens, h, d]);
        B::float_swap_dims(x, 1, 2)
    };
    let [query, key, value] = [0, 1, 2].map(part);
    let block = (SCORES / (h * tokens)).clamp(1, tokens);
    let group = (SCORES / (h * tokens) / tokens).clamp(1, tiles);
    let groups = (0..tiles).step_by(group).map(|first| {
        let [query, key, value] =
            [&query, &key, &value].map(|x| narrow::<B>(x.clone(), 0, first, group.min(tiles - first)));
        let blocks = (0..tokens).step_by(block).map(|start| {
            let rows = narrow::<B>(query.clone(), 2, start, block.min(tokens - start));
            B::attention(rows, key.clone(), value.clone(), None, None, AttentionModuleOptions::default())
        });
        B::float_cat(blocks.collect(), 2)
    });
    let seen = B::float_cat(groups.collect(), 0);
    shaped::<B, 2>(B::float_swap_dims(seen, 1, 2), [rows, h * d])
}

/// The host picks: on these devices the logits are read for each token.
pub(super) async fn pick<B: Backend>(
    logits: FloatTensor<B>,
    allowed: IntTensor<B>,
    state: IntTensor<B>,
) -> IntTensor<B> {
    let device = logits.device();
    let logits = B::float_into_data(logits).await.map(|data| data.iter::<f32>().collect::<Vec<f32>>());
    let words = |data: TensorData| data.iter::<i64>().map(|word| word as u32).collect::<Vec<u32>>();
    let allowed = B::int_into_data(allowed).await.map(words);
    let state = B::int_into_data(state).await.map(words);
    let state = state.ok().and_then(|words| <[u32; 4]>::try_from(words).ok());
    let (Ok(logits), Ok(allowed), Some(state)) = (logits, allowed, state) else {
        // The device is lost; the next read reports it.
        return B::int_zeros(Shape::new([4]), &device, IntDType::I32);
    };
    let next = fovea_shaders::pick(&logits, &allowed, state).map(u32::cast_signed);
    B::int_from_data(TensorData::new(next.to_vec(), [4]), &device)
}
