//! The operations of the vision tower and the text model, in the order of the data.
//!
//! | operation | result | kernels |
//! |---|---|---|
//! | [`embed`] | rows of the embedding | `embed` |
//! | [`norm`] | RMS norm or layer norm of each row | `norm` |
//! | [`linear`] | product with a weight, and what follows it | `gemv` for one row, `gemm` for more; `gemm_dot4` in integers |
//! | [`attend_full`] | attention inside each tile | `flash_full` |
//! | [`rotate_and_store`] | rotated queries; keys and values in the cache | `rope_kv` |
//! | [`attend`] | causal attention over the cache | `attend_split`, `attend_merge` for one token, `flash_causal` for more |
//! | [`pick`] | the most likely token | `pick` |
//!
//! The functions here check shapes, and call the trait [`NetworkOps`]. Its default bodies are tensor operations, which
//! run on each backend (`tensor_ops`). WGSL kernels replace them where the device compiles WGSL and on CUDA
//! (`kernels`), loops of our own on the CPU (`flex`). Activations are f32; the KV cache is f32 or f16; weights are f32,
//! f16 or codes of 8 or 4 bits ([`Weight`]); sums are f32.

use burn::backend::{BackendTensor, Dispatch, DispatchTensorKind};
use burn::tensor::{Device, Int, Tensor, TensorData};
pub use fovea_shaders::{Activation, Format};

mod backend;
pub(crate) mod flex;
mod kernels;
pub(crate) mod tensor_ops;
mod weight;

pub use backend::{AttendPlan, EmbedPlan, LinearPlan, Maybe, NetworkOps, Operand, StorePlan};
pub use weight::Weight;

use crate::{error::Error, kv_cache::LayerCache, launch::runs_dot4, sampler_ops::runs_kernels};

/// Most rows whose inputs are never rounded to 8 bits. On the CPU a weight is read once for all of them.
pub const FEW_ROWS: usize = 8;

/// Whether [`linear`] rounds the inputs of codes to 8 bits on a device, where [`Weight::Codes`] asks for it and there are
/// many rows: on a CPU that has instructions for products of integers, and on GPUs that run our kernels, except where
/// an old browser has no `dot4I8Packed`.
pub fn rounds_inputs(device: &Device) -> bool {
    match Tensor::<1>::zeros([1], device).into_dispatch().kind {
        DispatchTensorKind::Cube(BackendTensor::Float(probe)) => runs_dot4(&probe),
        DispatchTensorKind::Flex(_) => multiplies_integers(),
        _ => false,
    }
}

/// Whether this CPU has instructions for products of integers.
pub fn multiplies_integers() -> bool {
    #[cfg(any(
        target_arch = "x86_64",
        target_arch = "aarch64",
        all(target_arch = "wasm32", target_feature = "simd128")
    ))]
    return crate::cpu::integers::is_possible();
    #[cfg(not(any(
        target_arch = "x86_64",
        target_arch = "aarch64",
        all(target_arch = "wasm32", target_feature = "simd128")
    )))]
    false
}

/// What follows a product.
#[allow(clippy::large_enum_variant, reason = "a tensor handle is large, and few of these exist")]
#[derive(Clone, Debug)]
pub enum After {
    /// Nothing: `y`.
    Nothing,
    /// A residual connection: `residual + factor * y`.
    Add {
        /// The tensor that `y` is added to, of the shape of `y`.
        residual: Tensor<2>,
        /// 1 in most models.
        factor: f64,
    },
    /// An activation: `f(y)`.
    Activate(Activation),
    /// A gate: `f(gate) * up`, where the first half of the rows of each part of the weight gives `gate`, the second half `up`.
    Gate(Activation),
}

/// The heads of an attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Query heads, H.
    pub query: usize,
    /// Key heads, G: each serves `H / G` query heads.
    pub key: usize,
    /// Width of a head, D.
    pub width: usize,
}

impl Heads {
    /// Columns of queries, keys and values side by side: `(H + 2 G) D`.
    pub const fn joined(self) -> usize {
        (self.query + 2 * self.key) * self.width
    }
}

/// Where new tokens are: their rows of the rotary table, and the number of tokens before them in the caches.
///
/// A device reads both from `state`, so that a step needs no upload. `state` has four words: the last token, the row of
/// the first new token, the tokens in the lower and in the upper caches.
#[derive(Clone, Debug)]
pub struct Cursor {
    /// The words.
    pub state: Tensor<1, Int>,
    /// Which word has the number of tokens in the cache: [`Cursor::LOWER`] or [`Cursor::UPPER`].
    pub slot: u32,
    /// The row of the rotary table of the first new token.
    pub first: usize,
}

impl Cursor {
    /// The word of the caches below the text-guided sampler.
    pub const LOWER: u32 = 2;
    /// The word of the caches above it.
    pub const UPPER: u32 = 3;

    /// New tokens whose rotary table starts with their first row, and whose cache has `len` tokens.
    pub fn new(len: usize, device: &Device) -> Self {
        Self { state: Self::words(0, 0, [len, len], device), slot: Self::LOWER, first: 0 }
    }

    /// The words for a token, the row of the rotary table, and the tokens in the lower and upper caches. Both wrap: -1 is
    /// the place before the first one.
    pub fn words(token: u32, row: i32, [lower, upper]: [usize; 2], device: &Device) -> Tensor<1, Int> {
        let words = vec![token as i32, row, lower as i32, upper as i32];
        Tensor::from_data(TensorData::new(words, [4]), device)
    }
}

/// Rows of the embedding: `factor * table[id]` for each id.
///
/// # Shapes
/// `ids` (at least T,), of which the first T are used; `table` in parts, (rows, C) each -> (T, C), f32.
///
/// # Errors
/// [`Error::Shape`] where a tensor is empty or the parts have different widths.
pub fn embed(ids: Tensor<1, Int>, tokens: usize, table: &[Weight], factor: f64) -> Result<Tensor<2>, Error> {
    let width = table.first().map_or(0, |part| part.dims()[1]);
    let fits = |part: &Weight| part.dims()[1] == width && part.is_whole() && part.here().is_some();
    if tokens == 0 || tokens > ids.dims()[0] || width == 0 || !table.iter().all(fits) {
        return Err(Error::Shape {
            op: "embed",
            expected: format!(
                "at least {tokens} ids, and parts of a table of one width, none empty; whole codes and scales, in this memory"
            ),
            got: format!("{:?}, {:?}", ids.dims(), table.iter().map(Weight::sizes).collect::<Vec<_>>()),
        });
    }
    let whole = if table.len() > 1 && !runs_kernels(&ids.device()) {
        vec![Weight::Float(Tensor::cat(table.iter().map(Weight::floats).collect(), 0))]
    } else {
        table.to_vec()
    };
    let mut out = None;
    let mut first = 0;
    for part in whole {
        let rows = part.dims()[0];
        let plan = EmbedPlan { tokens, first, factor };
        let filled = Maybe::of(out.take());
        out = Some(<Dispatch as NetworkOps>::embed(ids.clone().into_dispatch(), part.stored(), filled, plan));
        first += rows;
    }
    out.map(Tensor::from_dispatch).ok_or(Error::Shape { op: "embed", expected: "a table".into(), got: "none".into() })
}

/// The norm of each row. Without `beta` the RMS norm, `x gamma / sqrt(mean(x^2) + epsilon)`; with it the layer norm,
/// `(x - mean) gamma / sqrt(var + epsilon) + beta`, with the biased variance.
///
/// # Shapes
/// `x` (rows, C), `gamma` (C,), `beta` (C,) -> (rows, C), f32.
///
/// # Errors
/// [`Error::Shape`] where the widths differ or a tensor is empty.
pub fn norm(x: Tensor<2>, gamma: Tensor<1>, beta: Option<Tensor<1>>, epsilon: f64) -> Result<Tensor<2>, Error> {
    let [rows, width] = x.dims();
    if [rows, width].contains(&0) || gamma.dims() != [width] || beta.as_ref().is_some_and(|beta| beta.dims() != [width])
    {
        return Err(Error::Shape {
            op: "norm",
            expected: "x (rows, C), gamma (C), beta (C) or none; none empty".into(),
            got: format!("({rows}, {width}), {:?}, {:?}", gamma.dims(), beta.map(|b| b.dims())),
        });
    }
    let beta = Maybe::of(beta.map(Tensor::into_dispatch));
    Ok(Tensor::from_dispatch(<Dispatch as NetworkOps>::norm(x.into_dispatch(), gamma.into_dispatch(), beta, epsilon)))
}

/// `y = W x' + b`, and what follows it. `x'` is `x`, or its RMS norm if `rms` has gamma and epsilon.
///
/// # Shapes
/// `x` (T, K), f32; `weight` in parts, (rows, K) each; `bias` (all rows,), f32 -> (T, N), f32. N is the number of
/// rows; with [`After::Gate`] half of it.
///
/// # Errors
/// [`Error::Shape`] where the shapes do not match or a tensor is empty; [`Error::DeviceLost`] where a helper fails.
pub fn linear(
    x: Tensor<2>,
    weight: &[Weight],
    bias: Option<Tensor<1>>,
    rms: Option<(Tensor<1>, f64)>,
    after: After,
) -> Result<Tensor<2>, Error> {
    let [tokens, width] = x.dims();
    let gated = matches!(after, After::Gate(_));
    let share = if gated { 2 } else { 1 };
    let rows: usize = weight.iter().map(|part| part.dims()[0]).sum();
    let fits = |part: &Weight| part.dims()[1] == width && part.dims()[0].is_multiple_of(share) && part.is_whole();
    let parts_fit = weight.iter().all(fits);
    let bias_fits = bias.as_ref().is_none_or(|bias| bias.dims() == [rows]);
    let gamma_fits = rms.as_ref().is_none_or(|(gamma, _)| gamma.dims() == [width]);
    let residual_fits = match &after {
        After::Add { residual, .. } => residual.dims() == [tokens, rows],
        _ => true,
    };
    if [tokens, width, rows].contains(&0) || !(parts_fit && bias_fits && gamma_fits && residual_fits) {
        return Err(Error::Shape {
            op: "linear",
            expected: "x (T, K), parts of a weight (rows, K), bias (rows), gamma (K), residual (T, rows); none empty; \
                       whole codes and scales"
                .into(),
            got: format!(
                "({tokens}, {width}), {:?}, bias {:?}, residual {:?}",
                weight.iter().map(Weight::sizes).collect::<Vec<_>>(),
                bias.map(|b| b.dims()),
                match &after {
                    After::Add { residual, .. } => Some(residual.dims()),
                    _ => None,
                }
            ),
        });
    }
    // One row: each part computes the norm again, which costs less than a launch.
    let (x, gamma, epsilon) = match rms {
        Some((gamma, epsilon)) if tokens == 1 => (x, Some(gamma), epsilon),
        Some((gamma, epsilon)) => (norm(x, gamma, None, epsilon)?, None, 0.0),
        None => (x, None, 0.0),
    };
    let (residual, factor, activation) = match after {
        After::Nothing => (None, 1.0, None),
        After::Add { residual, factor } => (Some(residual), factor, None),
        After::Activate(f) | After::Gate(f) => (None, 1.0, Some(f)),
    };
    let mut out = None;
    let mut first = 0;
    for part in weight {
        let count = part.dims()[0] / share;
        let plan = LinearPlan { epsilon, width: rows / share, first, factor, activation, gated };
        // A gate needs the biases of its own rows side by side; all others read theirs at `first`.
        let bias = match &bias {
            Some(bias) if gated => {
                let of = |at: usize| bias.clone().narrow(0, at, count);
                Some(if count == plan.width {
                    bias.clone()
                } else {
                    Tensor::cat(vec![of(first), of(plan.width + first)], 0)
                })
            }
            other => other.clone(),
        };
        let filled = out.take();
        let (operand, gamma) = match part {
            Weight::Shared(shared) => {
                let x = match &gamma {
                    Some(gamma) => norm(x.clone(), gamma.clone(), None, epsilon)?,
                    None => x.clone(),
                };
                (Operand::Product(shared.product(x)?.into_dispatch()), None)
            }
            part => (part.clone().stored(), gamma.clone()),
        };
        out = Some(<Dispatch as NetworkOps>::linear(
            x.clone().into_dispatch(),
            operand,
            Maybe::of(bias.map(Tensor::into_dispatch)),
            Maybe::of(gamma.map(Tensor::into_dispatch)),
            Maybe::of(residual.clone().map(Tensor::into_dispatch)),
            Maybe::of(filled),
            plan,
        ));
        first += count;
    }
    out.map(Tensor::from_dispatch).ok_or(Error::Shape { op: "linear", expected: "a weight".into(), got: "none".into() })
}

/// Rotates queries and keys to the positions of their tokens, and writes keys and values into the cache:
/// `(a, b) -> (a cos - b sin, b cos + a sin)`, where a and b are the two halves of a head.
///
/// # Shapes
/// `qkv` (T, (H + 2 G) D): queries, keys and values of each token; `table` (rows, D): D/2 cosines, then D/2 sines of each
/// position. Row `at.first + t` is that of token t -> queries (T, H D), and the cache with T more tokens.
///
/// # Errors
/// [`Error::Shape`] where the shapes do not match, or the table has too few rows.
pub fn rotate_and_store(
    qkv: Tensor<2>,
    table: Tensor<2>,
    at: &Cursor,
    mut cache: LayerCache,
    heads: Heads,
) -> Result<(Tensor<2>, LayerCache), Error> {
    let ([tokens, columns], [rows, width]) = (qkv.dims(), table.dims());
    let [key_heads, _, d] = cache.dims();
    let fits = columns == heads.joined() && [key_heads, d] == [heads.key, heads.width] && width == d && d % 2 == 0;
    if tokens == 0 || !fits || at.first + tokens > rows || !heads.query.is_multiple_of(heads.key) {
        return Err(Error::Shape {
            op: "rotate_and_store",
            expected: format!(
                "(T, {}), a table (at least {} + T, {}) and its cache",
                heads.joined(),
                at.first,
                heads.width
            ),
            got: format!("({tokens}, {columns}), ({rows}, {width}), {:?}, {heads:?}", cache.dims()),
        });
    }
    cache.room_for(tokens);
    let len = cache.len();
    let plan = StorePlan { heads, len, slot: at.slot, first: at.first };
    let (key, value) = cache.take();
    let (query, key, value) = <Dispatch as NetworkOps>::rotate_and_store(
        qkv.into_dispatch(),
        table.into_dispatch(),
        at.state.clone().into_dispatch(),
        key.into_dispatch(),
        value.into_dispatch(),
        plan,
    );
    let cache = LayerCache::of(Tensor::from_dispatch(key), Tensor::from_dispatch(value), len + tokens);
    Ok((Tensor::from_dispatch(query), cache))
}

/// Causal attention of the newest tokens over all tokens of the cache: token t of T sees the first `S - T + t + 1` of S keys,
/// `softmax(factor q k) v`. The mask uses the order of the cache only: positions rise along it, also after visual tokens have
/// been dropped.
///
/// # Shapes
/// `query` (T, H D); the cache has S tokens, the new ones included -> (T, H D).
///
/// # Errors
/// [`Error::Shape`] where the shapes do not match.
pub fn attend(
    query: Tensor<2>,
    cache: &LayerCache,
    at: &Cursor,
    heads: Heads,
    factor: f64,
) -> Result<Tensor<2>, Error> {
    let ([tokens, columns], [key_heads, _, d], keys) = (query.dims(), cache.dims(), cache.len());
    let fits = columns == heads.query * heads.width && [key_heads, d] == [heads.key, heads.width];
    if tokens == 0 || tokens > keys || !fits || !heads.query.is_multiple_of(heads.key.max(1)) {
        return Err(Error::Shape {
            op: "attend",
            expected: format!("(T, {}) and a cache of at least T tokens", heads.query * heads.width),
            got: format!("({tokens}, {columns}), {keys} tokens in {:?}, {heads:?}", cache.dims()),
        });
    }
    let plan = AttendPlan { heads, keys, slot: at.slot, factor };
    let (key, value) = cache.whole();
    Ok(Tensor::from_dispatch(<Dispatch as NetworkOps>::attend(
        query.into_dispatch(),
        key.into_dispatch(),
        value.into_dispatch(),
        at.state.clone().into_dispatch(),
        plan,
    )))
}

/// Attention of each token over all tokens of its tile: `softmax(q k / sqrt(D)) v`.
///
/// # Shapes
/// `qkv` (tiles * tokens, 3 H D): queries, keys and values of each token -> (tiles * tokens, H D).
///
/// # Errors
/// [`Error::Shape`] where the shapes do not match.
pub fn attend_full(qkv: Tensor<2>, tiles: usize, heads: Heads) -> Result<Tensor<2>, Error> {
    let [rows, columns] = qkv.dims();
    if rows == 0 || tiles == 0 || !rows.is_multiple_of(tiles) || columns != heads.joined() || heads.query != heads.key {
        return Err(Error::Shape {
            op: "attend_full",
            expected: format!("(tiles * tokens, {}) with as many key heads as query heads", heads.joined()),
            got: format!("({rows}, {columns}), {tiles} tiles, {heads:?}"),
        });
    }
    Ok(Tensor::from_dispatch(<Dispatch as NetworkOps>::attend_full(qkv.into_dispatch(), tiles, heads)))
}

/// The most likely allowed token, the lower one of equal logits, as word 0 of a new state; words 1 to 3 are one more than
/// before. Without an allowed token it is token 0. If a logit is not finite, word 0 is -1.
///
/// # Shapes
/// `logits` (1, V), f32; `allowed`: bit `i % 32` of word `i / 32`, at least V / 32 words; `state` (4,) -> (4,).
///
/// # Errors
/// [`Error::Shape`] where the shapes do not match; [`Error::DeviceLost`] where the host reads the logits and this fails.
pub async fn pick(logits: Tensor<2>, allowed: Tensor<1, Int>, state: Tensor<1, Int>) -> Result<Tensor<1, Int>, Error> {
    let ([rows, vocab], [words]) = (logits.dims(), allowed.dims());
    if rows != 1 || vocab == 0 || words < vocab.div_ceil(32) || state.dims() != [4] {
        return Err(Error::Shape {
            op: "pick",
            expected: "logits (1, V), at least V / 32 words, a state of 4 words".into(),
            got: format!("({rows}, {vocab}), {words} words, {:?}", state.dims()),
        });
    }
    let picked = <Dispatch as NetworkOps>::pick(logits.into_dispatch(), allowed.into_dispatch(), state.into_dispatch());
    Ok(Tensor::from_dispatch(picked.await))
}
