//! Rotary positions of queries and keys; keys and values go to the cache.

use half::f16;
use half::slice::HalfFloatSliceExt;
use pulp::{Arch, Simd, WithSimd};

use super::for_each_chunk;
use crate::network_ops::Heads;

/// Query values per task: large enough that the overhead of a task does not matter.
const GRAIN: usize = 1 << 14;

/// The keys or the values of a cache, (G, capacity, D).
pub(crate) enum Cache<'a> {
    F32(&'a mut [f32]),
    F16(&'a mut [f16]),
}

/// Rotates the queries and keys of T tokens, and writes keys and values to the rows `at..at + T` of the cache.
///
/// `(a, b) -> (a cos - b sin, b cos + a sin)` with `a` in the first and `b` in the second half of a head. Rows that the
/// cache does not have are not written.
///
/// # Shapes
/// `qkv` (T, (H + 2 G) D), `table` (at least T, D): the cosines and the sines of the first new token, and so on. `query`
/// (T, H D), `key` and `value` (G, capacity, D).
///
/// # Panics
/// Where the lengths do not agree.
pub(crate) fn rotate_and_store(
    qkv: &[f32],
    table: &[f32],
    heads: Heads,
    at: usize,
    query: &mut [f32],
    key: Cache,
    value: Cache,
) {
    let (columns, width) = (heads.query * heads.width, heads.width);
    let tokens = query.len() / columns;
    let fits = query.len() == tokens * columns && qkv.len() == tokens * heads.joined();
    assert!(fits && table.len() >= tokens * width && width.is_multiple_of(2), "rotate_and_store: lengths");
    let arch = Arch::new();
    let size = (GRAIN / columns).max(1);
    for_each_chunk(query, size * columns, |i, query| {
        let qkv = qkv[i * size * heads.joined()..].chunks_exact(heads.joined());
        let table = table[i * size * width..].chunks_exact(width);
        for ((query, qkv), table) in query.chunks_exact_mut(columns).zip(qkv).zip(table) {
            arch.dispatch(Rotate { from: &qkv[..columns], table, to: query });
        }
    });
    let keys = |rotated: bool| {
        move |g: usize, t: usize, to: &mut [f32]| {
            let column = columns + (g + if rotated { 0 } else { heads.key }) * width;
            let from = &qkv[t * heads.joined() + column..][..width];
            if rotated {
                arch.dispatch(Rotate { from, table: &table[t * width..][..width], to });
            } else {
                to.copy_from_slice(from);
            }
        }
    };
    store(key, heads, at, tokens, keys(true));
    store(value, heads, at, tokens, keys(false));
}

/// `row(g, t, to)` gives the row of head `g` and token `t`.
fn store(cache: Cache, heads: Heads, at: usize, tokens: usize, row: impl Fn(usize, usize, &mut [f32]) + Sync) {
    let width = heads.width;
    // A few tokens are not worth a task for each head.
    let per_task = if tokens * heads.key * width <= GRAIN { heads.key } else { 1 };
    match cache {
        Cache::F32(values) => {
            let room = values.len() / heads.key;
            for_each_chunk(values, per_task * room, |i, values| {
                for (g, rows) in values.chunks_exact_mut(room).enumerate() {
                    let rows = rows.chunks_exact_mut(width).skip(at).take(tokens);
                    rows.enumerate().for_each(|(t, to)| row(i * per_task + g, t, to));
                }
            });
        }
        Cache::F16(values) => {
            let room = values.len() / heads.key;
            for_each_chunk(values, per_task * room, |i, values| {
                let mut full = vec![0.0; width];
                for (g, rows) in values.chunks_exact_mut(room).enumerate() {
                    for (t, to) in rows.chunks_exact_mut(width).skip(at).take(tokens).enumerate() {
                        row(i * per_task + g, t, &mut full);
                        to.convert_from_f32_slice(&full);
                    }
                }
            });
        }
    }
}

/// The heads of one token.
struct Rotate<'a> {
    from: &'a [f32],
    table: &'a [f32],
    to: &'a mut [f32],
}

impl WithSimd for Rotate<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let width = self.table.len();
        let (cos, sin) = self.table.split_at(width / 2);
        for (from, to) in self.from.chunks_exact(width).zip(self.to.chunks_exact_mut(width)) {
            let (a, b) = from.split_at(width / 2);
            let (to_a, to_b) = to.split_at_mut(width / 2);
            for ((((to, a), b), cos), sin) in to_a.iter_mut().zip(a).zip(b).zip(cos).zip(sin) {
                *to = a * cos - b * sin;
            }
            for ((((to, a), b), cos), sin) in to_b.iter_mut().zip(a).zip(b).zip(cos).zip(sin) {
                *to = b * cos + a * sin;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::super::test_values;
    use super::{Cache, Heads, rotate_and_store};

    #[test]
    fn rotations_are_close_to_f64() {
        for (tokens, heads, kv_heads, width, capacity, at) in
            [(1, 14, 2, 64, 5, 4), (1, 1, 1, 2, 1, 0), (3, 4, 2, 10, 8, 2), (60, 6, 3, 72, 64, 1), (4, 2, 1, 8, 6, 4)]
        {
            let shape = Heads { query: heads, key: kv_heads, width };
            let (qkv, table) = (test_values(tokens * shape.joined(), 1), test_values(tokens * width, 2));
            let mut query = vec![f32::NAN; tokens * heads * width];
            let mut sides = [vec![9.0; kv_heads * capacity * width], vec![9.0; kv_heads * capacity * width]];
            let mut halves = [1, 2].map(|_| vec![f16::from_f32(9.0); kv_heads * capacity * width]);
            let [key, value] = &mut sides;
            rotate_and_store(&qkv, &table, shape, at, &mut query, Cache::F32(key), Cache::F32(value));
            let [key, value] = &mut halves;
            rotate_and_store(&qkv, &table, shape, at, &mut query, Cache::F16(key), Cache::F16(value));
            let rotated = |t: usize, head: usize, d: usize| {
                let x = |d: usize| f64::from(qkv[t * shape.joined() + head * width + d]);
                let [cos, sin] = [0, width / 2].map(|part| f64::from(table[t * width + part + d % (width / 2)]));
                if d < width / 2 { x(d) * cos - x(d + width / 2) * sin } else { x(d) * cos + x(d - width / 2) * sin }
            };
            for (i, got) in query.iter().enumerate() {
                let expected = rotated(i / (heads * width), i / width % heads, i % width);
                assert!((f64::from(*got) - expected).abs() < 1e-6, "query {i}: expected {expected}, got {got}");
            }
            for i in 0..kv_heads * capacity * width {
                let (g, row, d) = (i / width / capacity, i / width % capacity, i % width);
                let expected = match row.checked_sub(at).filter(|t| *t < tokens) {
                    None => [9.0, 9.0],
                    Some(t) => {
                        let column = (heads + kv_heads + g) * width + d;
                        [rotated(t, heads + g, d), f64::from(qkv[t * shape.joined() + column])]
                    }
                };
                for side in 0..2 {
                    let (full, half) = (f64::from(sides[side][i]), f64::from(halves[side][i].to_f32()));
                    assert!((full - expected[side]).abs() < 1e-6, "{side}, {i}: {}, got {full}", expected[side]);
                    assert!((half - expected[side]).abs() < 1e-3, "{side}, {i}: {}, got {half}", expected[side]);
                }
            }
        }
    }
}
