//! Attention with an online softmax: of one token, causal, and of all tokens of a tile. No score matrix is stored.
//!
//! A vector has one score of each of several queries. So keys and values are read as they are stored, one value for all
//! queries of a block at a time, and the softmax needs no sum across a vector.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

#[cfg(not(target_family = "wasm"))]
use super::threads;
use super::{Matrix, for_each_chunk, lanes, matvec};
use crate::network_ops::Heads;

/// Keys whose scores are in memory at a time.
const KEYS: usize = 64;
/// Keys per task for one token. A constant: the order of a sum does not depend on the number of threads.
const CHUNK: usize = 256;
/// The score of a key that a query does not see.
const HIDDEN: f32 = f32::MIN;

/// Causal attention: query `t` of T sees the keys `0..=len - T + t`.
///
/// # Shapes
/// `query` and `out` (T, H D), `key` and `value` (G, capacity, D) with `len` keys each.
///
/// # Panics
/// Where the lengths do not agree.
pub(crate) fn attend(
    query: &[f32],
    key: Matrix,
    value: Matrix,
    len: usize,
    heads: Heads,
    factor: f32,
    out: &mut [f32],
) {
    let (columns, room) = (heads.query * heads.width, key.len() / heads.key);
    let tokens = query.len() / columns;
    let fits = query.len() == out.len() && key.len() == value.len() && tokens <= len && len * heads.width <= room;
    assert!(fits && query.len() == tokens * columns && heads.query.is_multiple_of(heads.key), "attend: lengths");
    let group = heads.query / heads.key;
    let sides = |g: usize| [key, value].map(|side| side.part(g * room..(g + 1) * room));
    if tokens == 1 {
        return attend_one(query, sides, len, heads, factor, out);
    }
    let block = Arch::new().dispatch(Queries);
    let mut tasks = Vec::with_capacity(heads.query * tokens.div_ceil(block));
    for (h, rows) in rows_by_head(out, heads.query, heads.width).into_iter().enumerate() {
        let [key, value] = sides(h / group);
        for (i, out) in blocks(rows, block).into_iter().enumerate() {
            let first = i * block;
            let query = query[first * columns + h * heads.width..].chunks(columns);
            let query = query.take(out.len()).map(|row| &row[..heads.width]).collect();
            let seen = Some(len - tokens + first);
            let keys = 0..len - tokens + first + out.len();
            tasks.push(Task { query, key, value, keys, seen, factor, out });
        }
    }
    run_all(tasks);
}

/// Attention in which every token of a tile sees all tokens of its tile, scaled by `1 / sqrt(D)`.
///
/// # Shapes
/// `qkv` (tiles tokens, 3 H D): queries, keys and values side by side. `out` (tiles tokens, H D).
///
/// # Panics
/// Where the lengths do not agree.
pub(crate) fn attend_full(qkv: &[f32], tiles: usize, heads: Heads, out: &mut [f32]) {
    let columns = heads.query * heads.width;
    let tokens = out.len() / tiles / columns;
    assert!(out.len() == tiles * tokens * columns && qkv.len() == 3 * out.len(), "attend_full: lengths");
    let factor = (heads.width as f32).sqrt().recip();
    let block = Arch::new().dispatch(Queries);
    // Rows at a distance of a power of two share few places of a cache. So keys and values are copied, head by head.
    let side = tokens * heads.width;
    let mut sides = vec![0.0; 2 * heads.query * side];
    for (qkv, out) in qkv.chunks_exact(3 * tokens * columns).zip(out.chunks_exact_mut(tokens * columns)) {
        for_each_chunk(&mut sides, side, |i, to| {
            let from = qkv[columns + i * heads.width..].chunks(3 * columns);
            to.chunks_exact_mut(heads.width).zip(from).for_each(|(to, from)| to.copy_from_slice(&from[..heads.width]));
        });
        let (key, value) = sides.split_at(heads.query * side);
        let mut tasks = Vec::with_capacity(heads.query * tokens.div_ceil(block));
        for (h, rows) in rows_by_head(out, heads.query, heads.width).into_iter().enumerate() {
            let [key, value] = [key, value].map(|all| Matrix::F32(&all[h * side..(h + 1) * side]));
            for (i, out) in blocks(rows, block).into_iter().enumerate() {
                let query = qkv[i * block * 3 * columns + h * heads.width..].chunks(3 * columns);
                let query = query.take(out.len()).map(|row| &row[..heads.width]).collect();
                tasks.push(Task { query, key, value, keys: 0..tokens, seen: None, factor, out });
            }
        }
        run_all(tasks);
    }
}

/// One token. Tasks divide the keys, and each key and value is read once for up to 8 heads of its group.
fn attend_one<'a>(
    query: &'a [f32],
    sides: impl Fn(usize) -> [Matrix<'a>; 2],
    len: usize,
    heads: Heads,
    factor: f32,
    out: &mut [f32],
) {
    let (width, group) = (heads.width, heads.query / heads.key);
    let chunks = len.div_ceil(CHUNK);
    // Per head: the sum of the weighted values, the sum of the weights, the largest score.
    let size = width + 2;
    let mut parts = vec![0.0; heads.query * chunks * size];
    let mut tasks = Vec::with_capacity(heads.query * chunks);
    let mut free = &mut parts[..];
    let mut starts = Vec::with_capacity(heads.query);
    for (g, query) in query.chunks_exact(group * width).enumerate() {
        let [key, value] = sides(g);
        for query in query.chunks(8 * width) {
            let here = query.len() / width;
            let start = heads.query * chunks * size - free.len();
            starts.extend((0..here).map(|i| (start + i * size, here * size)));
            for first in (0..len).step_by(CHUNK) {
                let keys = first * width..len.min(first + CHUNK) * width;
                let (out, rest) = free.split_at_mut(here * size);
                free = rest;
                tasks.push(One { query, key: key.part(keys.clone()), value: value.part(keys), factor, out });
            }
        }
    }
    run_all(tasks);
    for ((start, step), out) in starts.into_iter().zip(out.chunks_exact_mut(width)) {
        merge((0..chunks).map(|c| &parts[start + c * step..][..size]), out);
    }
}

/// Merges the parts of one head; see [`attend_one`].
fn merge<'a>(parts: impl Iterator<Item = &'a [f32]> + Clone, out: &mut [f32]) {
    let width = out.len();
    let largest = parts.clone().map(|part| part[width + 1]).fold(f32::MIN, f32::max);
    let mut sum = 0.0;
    out.fill(0.0);
    for part in parts {
        let scale = (part[width + 1] - largest).exp2();
        sum += part[width] * scale;
        out.iter_mut().zip(part).for_each(|(out, value)| *out += value * scale);
    }
    out.iter_mut().for_each(|out| *out /= sum);
}

/// The rows of `out` of each head, in the order of the tokens.
fn rows_by_head(out: &mut [f32], heads: usize, width: usize) -> Vec<Vec<&mut [f32]>> {
    let mut rows: Vec<_> = (0..heads).map(|_| Vec::with_capacity(out.len() / heads / width)).collect();
    for (i, row) in out.chunks_exact_mut(width).enumerate() {
        rows[i % heads].push(row);
    }
    rows
}

/// `rows` in blocks of `size`.
fn blocks(rows: Vec<&mut [f32]>, size: usize) -> Vec<Vec<&mut [f32]>> {
    let mut rows = rows.into_iter();
    (0..rows.len().div_ceil(size)).map(|_| rows.by_ref().take(size).collect()).collect()
}

/// The tasks on all threads.
fn run_all<T: WithSimd<Output = ()> + Send>(tasks: Vec<T>) {
    let arch = Arch::new();
    #[cfg(target_family = "wasm")]
    tasks.into_iter().for_each(|task| arch.dispatch(task));
    #[cfg(not(target_family = "wasm"))]
    threads::for_each(tasks.into_iter(), |task| arch.dispatch(task));
}

/// Attention of one token to some keys: up to 8 heads of a group.
struct One<'a> {
    query: &'a [f32],
    key: Matrix<'a>,
    value: Matrix<'a>,
    factor: f32,
    /// See [`attend_one`].
    out: &'a mut [f32],
}

impl WithSimd for One<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match (self.out.len() - self.query.len()) / 2 {
            1 => one::<S, 1, 4>(simd, self),
            2 => one::<S, 2, 4>(simd, self),
            3 => one::<S, 3, 2>(simd, self),
            4 => one::<S, 4, 2>(simd, self),
            5 => one::<S, 5, 1>(simd, self),
            6 => one::<S, 6, 1>(simd, self),
            7 => one::<S, 7, 1>(simd, self),
            _ => one::<S, 8, 1>(simd, self),
        }
    }
}

/// `R` heads; see [`matvec::Products`].
#[inline(always)]
fn one<S: Simd, const R: usize, const A: usize>(simd: S, task: One) {
    let width = task.query.len() / R;
    let count = task.key.len() / width;
    // Powers of two need fewer operations than powers of e.
    let factor = task.factor * std::f32::consts::LOG2_E;
    let query: Vec<f32> = task.query.iter().map(|x| x * factor).collect();
    let x = matvec::Spread { x: &query, width, half: matches!(task.key, Matrix::F16(_)) }.with_simd(simd);
    let mut scores = vec![0.0; count * R];
    matvec::Products::<R, A> { weight: task.key, width, x: &x, sums: &mut scores }.with_simd(simd);
    let padded = count.next_multiple_of(S::F32_LANES);
    let mut weights = vec![HIDDEN; R * padded];
    for (k, scores) in scores.chunks_exact(R).enumerate() {
        for r in 0..R {
            weights[r * padded + k] = scores[r];
        }
    }
    for (weights, out) in weights.chunks_exact_mut(padded).zip(task.out.chunks_exact_mut(width + 2)) {
        let weights = S::as_mut_simd_f32s(weights).0;
        let mut largest = weights[0];
        for weight in weights.iter() {
            largest = simd.max_f32s(largest, *weight);
        }
        out[width + 1] = simd.reduce_max_f32s(largest);
        let largest = simd.splat_f32s(out[width + 1]);
        let mut total = simd.splat_f32s(0.0);
        for weight in weights {
            *weight = lanes::exp2(simd, simd.sub_f32s(*weight, largest));
            total = simd.add_f32s(total, *weight);
        }
        out[width] = simd.reduce_sum_f32s(total);
    }
    for (k, scores) in scores.chunks_exact_mut(R).enumerate() {
        for r in 0..R {
            scores[r] = weights[r * padded + k];
        }
    }
    let mut room = Vec::new();
    for first in (0..count).step_by(KEYS) {
        let value = rows(simd, task.value.part(first * width..count.min(first + KEYS) * width), &mut room);
        let weights = scores[first * R..].as_chunks::<R>().0;
        let mut d = 0;
        while d + A * S::F32_LANES <= width {
            add::<S, R, A>(simd, &value[d..], width, weights, &mut task.out[d..]);
            d += A * S::F32_LANES;
        }
        while d + S::F32_LANES <= width {
            add::<S, R, 1>(simd, &value[d..], width, weights, &mut task.out[d..]);
            d += S::F32_LANES;
        }
        while d < width {
            for (r, out) in task.out.chunks_exact_mut(width + 2).enumerate() {
                for (values, weights) in value.chunks_exact(width).zip(weights) {
                    out[d] += weights[r] * values[d];
                }
            }
            d += 1;
        }
    }
}

/// Adds rows of values with the weights of `R` heads: `A` vectors of columns.
#[inline(always)]
fn add<S: Simd, const R: usize, const A: usize>(
    simd: S,
    values: &[f32],
    width: usize,
    weights: &[[f32; R]],
    out: &mut [f32],
) {
    let mut sum = [[simd.splat_f32s(0.0); A]; R];
    for (values, weights) in values.chunks(width).zip(weights) {
        let values = S::as_simd_f32s(values).0;
        let values = &values[..A];
        for r in 0..R {
            let weight = simd.splat_f32s(weights[r]);
            for a in 0..A {
                sum[r][a] = simd.mul_add_e_f32s(weight, values[a], sum[r][a]);
            }
        }
    }
    for r in 0..R {
        let out = &mut S::as_mut_simd_f32s(&mut out[r * (width + 2)..]).0[..A];
        for a in 0..A {
            out[a] = simd.add_f32s(out[a], sum[r][a]);
        }
    }
}

/// The number of queries in a block: two vectors.
struct Queries;

impl WithSimd for Queries {
    type Output = usize;

    fn with_simd<S: Simd>(self, _: S) -> usize {
        2 * S::F32_LANES
    }
}

/// Attention of the queries of a block to `keys`.
struct Task<'a> {
    query: Vec<&'a [f32]>,
    key: Matrix<'a>,
    value: Matrix<'a>,
    keys: Range<usize>,
    /// The last key that the first query sees; each further query sees one more. Without it, all see all.
    seen: Option<usize>,
    factor: f32,
    /// One row for each query.
    out: Vec<&'a mut [f32]>,
}

impl WithSimd for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // Registers: M N sums, N queries or weights, one key or value. WebAssembly has 32 in name only.
        if S::REGISTER_COUNT >= 32 && !cfg!(target_family = "wasm") {
            block::<S, 8, 2>(simd, self);
        } else {
            block::<S, 4, 2>(simd, self);
        }
    }
}

/// `N` vectors of queries; `M` keys, then `M` columns of the values, at a time.
#[inline(always)]
fn block<S: Simd, const M: usize, const N: usize>(simd: S, task: Task) {
    let width = task.query[0].len();
    let zero = [simd.splat_f32s(0.0); N];
    let factor = task.factor * std::f32::consts::LOG2_E;
    let mut query = vec![zero; width];
    for (i, row) in task.query.iter().enumerate() {
        let columns =
            bytemuck::cast_slice_mut::<S::f32s, f32>(query.as_flattened_mut()).chunks_exact_mut(N * S::F32_LANES);
        for (column, x) in columns.zip(*row) {
            column[i] = factor * x;
        }
    }
    let mut sums = vec![zero; width];
    let mut scores = [zero; KEYS];
    let mut largest = [simd.splat_f32s(HIDDEN); N];
    let mut total = zero;
    let (mut key_room, mut value_room) = (Vec::new(), Vec::new());
    for first in task.keys.clone().step_by(KEYS) {
        let count = KEYS.min(task.keys.end - first);
        let scores = &mut scores[..count];
        let key = rows(simd, task.key.part(first * width..(first + count) * width), &mut key_room);
        let mut k = 0;
        while k + M <= count {
            score::<S, M, N>(simd, &key[k * width..], &query, &mut scores[k..]);
            k += M;
        }
        while k < count {
            score::<S, 1, N>(simd, &key[k * width..], &query, &mut scores[k..]);
            k += 1;
        }
        if let Some(seen) = task.seen {
            for (k, row) in scores.iter_mut().enumerate() {
                let hidden = (first + k).saturating_sub(seen).min(N * S::F32_LANES);
                bytemuck::cast_slice_mut::<S::f32s, f32>(row)[..hidden].fill(HIDDEN);
            }
        }
        let mut scale = zero;
        for n in 0..N {
            let mut high = largest[n];
            for row in scores.iter() {
                high = simd.max_f32s(high, row[n]);
            }
            scale[n] = lanes::exp2(simd, simd.sub_f32s(largest[n], high));
            let mut sum = simd.mul_f32s(total[n], scale[n]);
            for row in scores.iter_mut() {
                row[n] = lanes::exp2(simd, simd.sub_f32s(row[n], high));
                sum = simd.add_f32s(sum, row[n]);
            }
            (largest[n], total[n]) = (high, sum);
        }
        let value = rows(simd, task.value.part(first * width..(first + count) * width), &mut value_room);
        let mut d = 0;
        while d + M <= width {
            weigh::<S, M, N>(simd, &value[d..], width, scores, scale, &mut sums[d..]);
            d += M;
        }
        while d < width {
            weigh::<S, 1, N>(simd, &value[d..], width, scores, scale, &mut sums[d..]);
            d += 1;
        }
    }
    let (sums, total) = (bytemuck::cast_slice::<S::f32s, f32>(sums.as_flattened()), bytemuck::cast_slice(&total));
    for (i, out) in task.out.into_iter().enumerate() {
        let total: f32 = total[i];
        for (out, sums) in out.iter_mut().zip(sums.chunks_exact(N * S::F32_LANES)) {
            *out = sums[i] / total;
        }
    }
}

/// The values of `from`; f16 are widened into `room`.
#[inline(always)]
fn rows<'a, S: Simd>(simd: S, from: Matrix<'a>, room: &'a mut Vec<f32>) -> &'a [f32] {
    match from {
        Matrix::F32(values) => values,
        Matrix::F16(values) => {
            room.resize(values.len(), 0.0);
            matvec::Widen { from: values, to: room }.with_simd(simd);
            room
        }
    }
}

/// The scores of `M` keys.
#[inline(always)]
fn score<S: Simd, const M: usize, const N: usize>(
    simd: S,
    key: &[f32],
    query: &[[S::f32s; N]],
    scores: &mut [[S::f32s; N]],
) {
    let mut keys = [key; M];
    for (i, row) in keys.iter_mut().enumerate() {
        *row = &key[i * query.len()..][..query.len()];
    }
    let mut sum = [[simd.splat_f32s(0.0); N]; M];
    for d in 0..query.len() {
        for i in 0..M {
            let x = simd.splat_f32s(keys[i][d]);
            for n in 0..N {
                sum[i][n] = simd.mul_add_e_f32s(x, query[d][n], sum[i][n]);
            }
        }
    }
    let scores = &mut scores[..M];
    for i in 0..M {
        for n in 0..N {
            scores[i][n] = sum[i][n];
        }
    }
}

/// `sums = sums * scale + values * weights` for `M` columns of the values.
#[inline(always)]
fn weigh<S: Simd, const M: usize, const N: usize>(
    simd: S,
    value: &[f32],
    stride: usize,
    weights: &[[S::f32s; N]],
    scale: [S::f32s; N],
    sums: &mut [[S::f32s; N]],
) {
    let sums = &mut sums[..M];
    let mut sum = [scale; M];
    for i in 0..M {
        for n in 0..N {
            sum[i][n] = simd.mul_f32s(sums[i][n], scale[n]);
        }
    }
    for (row, weight) in value.chunks(stride).zip(weights) {
        let row = &row[..M];
        for i in 0..M {
            let x = simd.splat_f32s(row[i]);
            for n in 0..N {
                sum[i][n] = simd.mul_add_e_f32s(x, weight[n], sum[i][n]);
            }
        }
    }
    for i in 0..M {
        for n in 0..N {
            sums[i][n] = sum[i][n];
        }
    }
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::super::{Matrix, test_values};
    use super::{Heads, attend, attend_full};

    /// Attention of one query in f64.
    fn expected(query: &[f32], keys: &[&[f32]], values: &[&[f32]], factor: f64) -> Vec<f64> {
        let dot =
            |key: &&[f32]| query.iter().zip(*key).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>() * factor;
        let scores: Vec<f64> = keys.iter().map(dot).collect();
        let largest = scores.iter().copied().fold(f64::MIN, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
        let total: f64 = weights.iter().sum();
        (0..query.len())
            .map(|d| weights.iter().zip(values).map(|(w, v)| w * f64::from(v[d])).sum::<f64>() / total)
            .collect()
    }

    fn check(got: &[f32], expected: &[f64], place: &str) {
        for (d, (got, expected)) in got.iter().zip(expected).enumerate() {
            assert!((f64::from(*got) - expected).abs() <= 2e-6, "{place}, {d}: expected {expected}, got {got}");
        }
    }

    #[test]
    fn causal_attention_is_close_to_f64() {
        for (heads, kv_heads, width, tokens, len) in [
            (1, 1, 4, 1, 1),
            (14, 2, 64, 1, 700),
            (40, 1, 20, 1, 300),
            (4, 4, 128, 1, 257),
            (2, 1, 8, 2, 3),
            (4, 2, 36, 5, 130),
            (2, 2, 72, 33, 33),
            (3, 1, 64, 100, 230),
        ] {
            let (capacity, columns, factor) = (len + 3, heads * width, 1.0);
            let query = test_values(tokens * columns, 1);
            let sides = [2, 3].map(|seed| test_values(kv_heads * capacity * width, seed));
            let halves = sides.each_ref().map(|side| side.iter().map(|v| f16::from_f32(*v)).collect::<Vec<_>>());
            let widened = halves.each_ref().map(|side| side.iter().map(|v| v.to_f32()).collect::<Vec<_>>());
            let full = (&sides, sides.each_ref().map(|side| Matrix::F32(side)));
            let half = (&widened, halves.each_ref().map(|side| Matrix::F16(side)));
            for (sides, [key, value]) in [full, half] {
                let mut out = vec![f32::NAN; tokens * columns];
                let shape = Heads { query: heads, key: kv_heads, width };
                attend(&query, key, value, len, shape, factor as f32, &mut out);
                for t in 0..tokens {
                    for h in 0..heads {
                        let at = t * columns + h * width;
                        let [keys, values] = sides.each_ref().map(|side| {
                            let side = &side[h / (heads / kv_heads) * capacity * width..];
                            side.chunks(width).take(len - tokens + t + 1).collect::<Vec<_>>()
                        });
                        let expected = expected(&query[at..at + width], &keys, &values, factor);
                        check(&out[at..at + width], &expected, &format!("{shape:?}, token {t}, head {h}"));
                    }
                }
            }
        }
    }

    #[test]
    fn full_attention_is_close_to_f64() {
        for (tiles, tokens, heads, width) in [(1, 1, 1, 4), (2, 70, 3, 72), (3, 33, 2, 64), (1, 129, 1, 12)] {
            let columns = heads * width;
            let qkv = test_values(tiles * tokens * 3 * columns, 1);
            let mut out = vec![f32::NAN; tiles * tokens * columns];
            attend_full(&qkv, tiles, Heads { query: heads, key: heads, width }, &mut out);
            let row = |i: usize, part: usize, h: usize| &qkv[(3 * i + part) * columns + h * width..][..width];
            for i in 0..tiles * tokens {
                let tile = i / tokens * tokens..(i / tokens + 1) * tokens;
                for h in 0..heads {
                    let [keys, values] = [1, 2].map(|part| tile.clone().map(|j| row(j, part, h)).collect::<Vec<_>>());
                    let expected = expected(row(i, 0, h), &keys, &values, 1.0 / (width as f64).sqrt());
                    check(&out[i * columns + h * width..][..width], &expected, &format!("row {i}, head {h}"));
                }
            }
        }
    }
}
