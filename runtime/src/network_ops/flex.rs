//! The operations on the CPU: the loops of [`crate::cpu`], and some products of many rows by burn.

use std::{borrow::Cow, ops::Range};

use burn::backend::{
    Flex, TensorMetadata,
    ops::{FloatTensorOps, IntTensorOps},
    tensor::{FloatTensor, IntTensor},
};
use burn::tensor::{DType, Slice, TensorData};
use fovea_shaders::Format;
use half::f16;

use super::{
    AttendPlan, EmbedPlan, FEW_ROWS, Heads, LinearPlan, Maybe, NetworkOps, Operand, StorePlan,
    tensor_ops::{self, Extra},
};
use crate::cpu::{
    Matrix,
    after::{After, first_halves},
    attend,
    codes::{self, Codes},
    for_each_chunk, matmul,
    matvec::{matvec, widen},
    norm, rotary,
};

/// Fewest rows for which the weight is copied into panels.
const MANY: usize = 48;
/// Most values of a weight that are converted to f32 at once.
const PANEL: usize = 1 << 24;

/// The tensor with a contiguous, row-major buffer: a view is copied. `x` is dropped, so that the buffer has one owner and
/// can be written in place.
pub(crate) fn whole(x: FloatTensor<Flex>) -> FloatTensor<Flex> {
    let contiguous = x.to_contiguous();
    drop(x);
    contiguous
}

pub(crate) fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> FloatTensor<Flex> {
    Flex::float_from_data(TensorData::new(values, shape), &Default::default())
}

/// The values of a contiguous tensor in f32 or f16.
fn matrix(x: &FloatTensor<Flex>) -> Matrix<'_> {
    if x.dtype() == DType::F16 { Matrix::F16(x.storage::<f16>()) } else { Matrix::F32(x.storage::<f32>()) }
}

/// Whether the loops can read all tensors.
fn fits<'a>(x: impl IntoIterator<Item = &'a FloatTensor<Flex>>) -> bool {
    x.into_iter().all(|x| [DType::F32, DType::F16].contains(&x.dtype()))
}

/// The codes of contiguous tensors.
fn rows<'a>(words: &'a IntTensor<Flex>, scales: &'a IntTensor<Flex>, format: Format) -> Codes<'a> {
    Codes {
        words: bytemuck::cast_slice(words.storage::<i32>()),
        scales: bytemuck::cast_slice(scales.storage::<i32>()),
        width: words.shape()[1] * 32 / format.bits as usize,
        format,
    }
}

/// `x W^T` for many rows. Codes are multiplied as integers where this is wanted and the processor can do it; otherwise
/// weights are converted to f32, some rows at once: products in f16 are slower.
fn product(x: &FloatTensor<Flex>, weight: &Operand<Flex>, height: usize) -> FloatTensor<Flex> {
    let [tokens, width] = x.shape().dims();
    let mut out = vec![0.0; tokens * height];
    #[cfg(any(
        target_arch = "x86_64",
        target_arch = "aarch64",
        all(target_arch = "wasm32", target_feature = "simd128")
    ))]
    if let Operand::Codes(words, scales, format, true) = weight
        && crate::cpu::integers::matmul(rows(words, scales, *format), x.storage::<f32>(), &mut out)
    {
        return tensor(out, [tokens, height]);
    }
    if tokens >= MANY && matmul::is_fast() {
        matmul::matmul(width, height, x.storage::<f32>(), &mut out, |part| values(weight, part, width));
        return tensor(out, [tokens, height]);
    }
    // burn's product is faster for fewer rows: it does not copy the weight.
    let times = |part: FloatTensor<Flex>| whole(Flex::float_matmul(x.clone(), Flex::float_transpose(part)));
    if let Operand::Float(weight) = weight
        && weight.dtype() == DType::F32
    {
        return times(weight.clone());
    }
    let most = (PANEL / width).clamp(1, height);
    for first in (0..height).step_by(most) {
        let count = most.min(height - first);
        let y = times(tensor(values(weight, first..first + count, width).into_owned(), [count, width]));
        if count == height {
            return y;
        }
        let y = y.storage::<f32>();
        for_each_chunk(&mut out, height, |t, row| row[first..][..count].copy_from_slice(&y[t * count..][..count]));
    }
    tensor(out, [tokens, height])
}

/// Some rows of a weight in f32.
fn values<'a>(weight: &'a Operand<Flex>, part: Range<usize>, width: usize) -> Cow<'a, [f32]> {
    let (first, len) = (part.start * width, part.len() * width);
    let converted = |convert: &dyn Fn(&mut [f32])| {
        let mut values = vec![0.0; len];
        convert(&mut values);
        Cow::Owned(values)
    };
    match weight {
        Operand::Float(weight) if weight.dtype() == DType::F32 => {
            Cow::Borrowed(&weight.storage::<f32>()[first..][..len])
        }
        Operand::Float(weight) => converted(&|to| widen(&weight.storage::<f16>()[first..][..len], to)),
        Operand::Codes(words, scales, format, _) => {
            converted(&|to| codes::values(rows(words, scales, *format).rows(part.start, part.len()), to))
        }
        // `linear` has taken it.
        Operand::Product(_) => Cow::Borrowed(&[]),
    }
}

impl NetworkOps for Flex {
    fn embed(
        ids: IntTensor<Self>,
        table: Operand<Self>,
        _: Maybe<Self>, // tables are in one part
        plan: EmbedPlan,
    ) -> FloatTensor<Self> {
        let Operand::Codes(words, scales, format, _) = table else {
            return tensor_ops::embed::<Self>(ids, table, &plan);
        };
        let ids = Self::int_slice(ids, &[Slice::from(0..plan.tokens)]);
        let [words, scales] = [words, scales].map(|all| whole(Self::int_select(all, 0, ids.clone())));
        let rows = rows(&words, &scales, format);
        let mut out = vec![0.0; plan.tokens * rows.width];
        codes::values(rows, &mut out);
        if plan.factor != 1.0 {
            out.iter_mut().for_each(|value| *value *= plan.factor as f32);
        }
        tensor(out, [plan.tokens, rows.width])
    }

    fn norm(x: FloatTensor<Self>, gamma: FloatTensor<Self>, beta: Maybe<Self>, epsilon: f64) -> FloatTensor<Self> {
        let beta = beta.take();
        if [&x, &gamma].into_iter().chain(&beta).any(|x| x.dtype() != DType::F32) {
            return tensor_ops::norm::<Self>(x, gamma, beta, epsilon);
        }
        let (shape, x, gamma) = (x.shape().dims::<2>(), whole(x), whole(gamma));
        let (values, gamma, epsilon) = (x.storage::<f32>(), gamma.storage::<f32>(), epsilon as f32);
        tensor(
            match beta.map(whole) {
                Some(beta) => norm::layer_norm(values, gamma, beta.storage::<f32>(), epsilon),
                None => norm::rms_norm(values, gamma, epsilon),
            },
            shape,
        )
    }

    fn linear(
        x: FloatTensor<Self>,
        weight: Operand<Self>,
        bias: Maybe<Self>,
        gamma: Maybe<Self>,
        residual: Maybe<Self>,
        out: Maybe<Self>,
        plan: LinearPlan,
    ) -> FloatTensor<Self> {
        let (height, readable) = match &weight {
            Operand::Float(weight) => (weight.shape()[0], fits([weight])),
            Operand::Codes(words, ..) => (words.shape()[0], true),
            Operand::Product(y) => (y.shape()[1], true),
        };
        let [tokens, width] = x.shape().dims();
        let (gamma, extra) = (gamma.take(), Extra { bias: bias.take(), residual: residual.take(), out: out.take() });
        let count = if plan.gated { height / 2 } else { height };
        if x.dtype() != DType::F32 || !readable {
            return tensor_ops::linear::<Self>(x, weight, gamma, extra, &plan);
        }
        let x = match gamma {
            Some(gamma) => Self::norm(x, gamma, Maybe::No, plan.epsilon),
            None => x,
        };
        let x = whole(x);
        let weight = match weight {
            Operand::Float(weight) => Operand::Float(whole(weight)),
            Operand::Codes(words, scales, format, rounded) => {
                Operand::Codes(whole(words), whole(scales), format, rounded)
            }
            product => product,
        };
        let few = |product: &dyn Fn(&mut [f32])| {
            let mut y = vec![0.0; tokens * height];
            product(&mut y);
            tensor(y, [tokens, height])
        };
        let mut y = match &weight {
            Operand::Product(y) => whole(y.clone()),
            Operand::Float(weight) if tokens <= FEW_ROWS => {
                few(&|y| matvec(matrix(weight), width, x.storage::<f32>(), y))
            }
            Operand::Codes(words, scales, format, _) if tokens <= FEW_ROWS => {
                few(&|y| codes::matvec(rows(words, scales, *format), x.storage::<f32>(), y))
            }
            weight => product(&x, weight, height),
        };
        // Several parts: joined matrices whose rows have different formats.
        if count != plan.width {
            return tensor_ops::finish::<Self>(y, extra, &plan);
        }
        let (bias, residual) = (extra.bias.map(whole), extra.residual.map(whole));
        let after = After {
            bias: bias.as_ref().map(|bias| bias.storage::<f32>()),
            activation: plan.activation,
            gated: plan.gated,
            residual: residual.as_ref().map(|residual| (residual.storage::<f32>(), plan.factor as f32)),
        };
        after.run(y.storage_mut::<f32>(), height);
        if plan.gated { tensor(first_halves(y.storage::<f32>(), height), [tokens, count]) } else { y }
    }

    fn rotate_and_store(
        qkv: FloatTensor<Self>,
        table: FloatTensor<Self>,
        _: IntTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        plan: StorePlan,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        if qkv.dtype() != DType::F32 || !fits([&key, &value]) {
            return tensor_ops::rotate_and_store::<Self>(qkv, table, key, value, &plan);
        }
        let (Heads { query: heads, width: d, .. }, tokens) = (plan.heads, qkv.shape()[0]);
        let (qkv, table, mut key, mut value) = (whole(qkv), whole(table), whole(key), whole(value));
        let mut query = vec![0.0; tokens * heads * d];
        let table = &table.storage::<f32>()[plan.first * d..];
        let (key_cache, value_cache) = (cache(&mut key), cache(&mut value));
        let qkv = qkv.storage::<f32>();
        rotary::rotate_and_store(qkv, table, plan.heads, plan.len, &mut query, key_cache, value_cache);
        (tensor(query, [tokens, heads * d]), key, value)
    }

    fn attend(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        _: IntTensor<Self>,
        plan: AttendPlan,
    ) -> FloatTensor<Self> {
        if query.dtype() != DType::F32 || !fits([&key, &value]) {
            return tensor_ops::attend::<Self>(query, key, value, &plan);
        }
        let (shape, query, key, value) = (query.shape().dims::<2>(), whole(query), whole(key), whole(value));
        let mut out = vec![0.0; shape[0] * shape[1]];
        let (keys, factor) = (plan.keys, plan.factor as f32);
        attend::attend(query.storage::<f32>(), matrix(&key), matrix(&value), keys, plan.heads, factor, &mut out);
        tensor(out, shape)
    }

    fn attend_full(qkv: FloatTensor<Self>, tiles: usize, heads: Heads) -> FloatTensor<Self> {
        if qkv.dtype() != DType::F32 {
            return tensor_ops::attend_full::<Self>(qkv, tiles, heads);
        }
        let (shape, qkv) = ([qkv.shape()[0], heads.query * heads.width], whole(qkv));
        let mut out = vec![0.0; shape[0] * shape[1]];
        attend::attend_full(qkv.storage::<f32>(), tiles, heads, &mut out);
        tensor(out, shape)
    }
}

/// The values of a cache, to write.
fn cache(x: &mut FloatTensor<Flex>) -> rotary::Cache<'_> {
    if x.dtype() == DType::F16 {
        rotary::Cache::F16(x.storage_mut::<f16>())
    } else {
        rotary::Cache::F32(x.storage_mut::<f32>())
    }
}
