//! `rotate_and_store`: rotated queries, and keys and values in the cache of a layer.

use std::fmt;

use burn::tensor::{DType, Transaction};
use fovea_runtime::{
    Error,
    kv_cache::LayerCache,
    network_ops::{Cursor, Heads, rotate_and_store},
    read::{into_f32, read_all},
};

use super::{Operation, Outputs, Planned, output};
use crate::{
    bed::Bed,
    bound::{Bound, Comparison},
    numbers::{Numbers, stored, wide},
};

/// Rows of the rotary table after those of the new tokens.
const MORE_POSITIONS: usize = 3;

/// Heads (H, G, D), T new tokens, and `len` tokens in the cache.
#[derive(Clone, Debug)]
pub(crate) struct Rotate {
    heads: [usize; 3],
    tokens: usize,
    len: usize,
    /// Row of the rotary table of the first new token.
    first: usize,
    /// Rows of the cache after the new tokens.
    spare: usize,
    /// Whether the layer is above the text-guided sampler.
    upper: bool,
    /// Whether a clone of the cache shares its buffers, and gets other tokens.
    shared: bool,
}

impl fmt::Display for Rotate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { heads: [h, g, d], tokens, len, first, spare, upper, shared } = self;
        write!(
            f,
            "rotate_and_store h={h} g={g} d={d} t={tokens} len={len} first={first} spare={spare} upper={upper} \
             shared={shared}"
        )
    }
}

/// Shapes and their purposes.
pub(crate) fn cases() -> Vec<Planned<Rotate>> {
    let case = |why, heads, tokens, [len, first, spare]: [usize; 3], upper, shared| {
        Planned::new(why, Rotate { heads, tokens, len, first, spare, upper, shared })
    };
    let mut all = vec![
        case("one pair", [1, 1, 2], 1, [0, 0, 0], false, false),
        case("an odd half of a head", [7, 1, 6], 5, [3, 4, 2], false, false),
        case("a half that is no multiple of four, one token", [3, 3, 20], 1, [6, 9, 4], true, false),
        case("an empty cache of exactly the new tokens", [14, 2, 64], 5, [0, 0, 0], false, false),
        case("an empty cache with capacity for more", [14, 2, 64], 5, [0, 0, 64], true, false),
        case("the last row of the cache", [14, 2, 64], 1, [9, 30, 0], true, false),
        case("the buffers of a cache are shared, one token", [14, 2, 64], 1, [9, 9, 7], false, true),
        case("the buffers of a cache are shared", [7, 1, 80], 5, [9, 12, 7], true, true),
        case("the prefill of Llama 3 8B, fewer rows", [32, 8, 128], 97, [31, 40, 66], false, false),
    ];
    for [heads, groups] in [[2, 2], [14, 2]] {
        for width in [64, 80, 96, 128] {
            let heads = [heads, groups, width];
            all.push(case("one token of a real width", heads, 1, [7, 11, 8], true, false));
            all.push(case("new tokens of a real width", heads, 5, [7, 7, 8], false, false));
        }
    }
    all
}

struct Inputs {
    qkv: Vec<f32>,
    table: Vec<f32>,
    key: Vec<f32>,
    value: Vec<f32>,
}

impl Rotate {
    fn inputs(&self, half: bool) -> Inputs {
        let Self { heads: [h, g, d], tokens, len, first, .. } = *self;
        let mut numbers = Numbers::of(&self.to_string());
        let qkv = numbers.floats(tokens * (h + 2 * g) * d, 2.0);
        let mut table = Vec::new();
        for _ in 0..first + tokens + MORE_POSITIONS {
            let angles = numbers.floats(d / 2, 3.2);
            table.extend(angles.iter().map(|angle| angle.cos()));
            table.extend(angles.iter().map(|angle| angle.sin()));
        }
        let mut old = || stored(numbers.floats(g * len * d, 2.0), half);
        let (key, value) = (old(), old());
        Inputs { qkv, table, key, value }
    }

    /// The rows `from..to` of a cache of `count` rows per head.
    fn rows<T: Copy>(&self, cache: &[T], count: usize, from: usize, to: usize) -> Vec<T> {
        let row = self.heads[2];
        cache.chunks_exact((count * row).max(1)).flat_map(|head| head[from * row..to * row].to_vec()).collect()
    }
}

impl Operation for Rotate {
    const NAME: &'static str = "rotate_and_store";

    fn tolerance(&self, half: bool) -> String {
        let rounded = if half { "; a key or value rounded to f16 has 1e-7" } else { "" };
        format!("queries {QUERY}: products and a sum in f32 have 1e-14; keys and values {}{rounded}", cached(half))
    }

    async fn run(&self, half: bool, bed: &mut Bed<'_>) -> Result<Outputs, Error> {
        let Self { heads: [h, g, d], tokens, len, first, spare, upper, shared } = *self;
        let Inputs { qkv, table, key, value } = self.inputs(half);
        let others: Vec<f32> = qkv.iter().map(|x| -x).collect();
        let qkv = bed.full(&qkv, [tokens, (h + 2 * g) * d]);
        let table = bed.full(&table, [first + tokens + MORE_POSITIONS, d]);
        let dtype = if half { DType::F16 } else { DType::F32 };
        let mut cache = if len == 0 {
            LayerCache::empty(&[g, tokens + spare, d], dtype, &qkv.device())
        } else {
            LayerCache::new(bed.floats(&key, [g, len, d]), bed.floats(&value, [g, len, d]), dtype)
        };
        cache.reserve(tokens + spare);
        // The other word has a number of tokens that does not fit.
        let (slot, other) = if upper { (Cursor::UPPER, Cursor::LOWER) } else { (Cursor::LOWER, Cursor::UPPER) };
        let mut words = [0, first, 0, 0, 0, 0, 0, 0];
        words[slot as usize] = len;
        words[other as usize] = len + 1;
        let at = Cursor { state: bed.indices(&words), slot, first };
        let heads = Heads { query: h, key: g, width: d };
        let clone = shared.then(|| cache.clone());
        let (query, cache) = rotate_and_store(qkv, table.clone(), &at, cache, heads)?;
        if let Some(clone) = clone {
            // Other tokens at the same place of the clone must not change the first cache.
            let others = bed.full(&others, [tokens, (h + 2 * g) * d]);
            rotate_and_store(others, table, &at, clone, heads)?;
        }
        // The spare rows of an empty cache have no defined value.
        let rows = if len == 0 { cache.len() } else { cache.dims()[1] };
        let (key, value) = cache.whole();
        let (key, value) = (key.narrow(1, 0, rows), value.narrow(1, 0, rows));
        let mut read =
            read_all(Transaction::default().register(query).register(key).register(value)).await?.into_iter();
        let mut next = || read.next().map_or_else(Vec::new, into_f32);
        let (query, key, value) = (next(), next(), next());
        Ok(Outputs::from([
            ("query", query),
            ("key", key),
            ("value", value),
            ("len", vec![cache.len() as f32]),
            ("rows", vec![rows as f32]),
        ]))
    }

    fn check(&self, half: bool, got: &Outputs) -> Vec<Comparison> {
        let Self { heads, tokens, len, first, .. } = *self;
        let [_, g, d] = heads;
        let Inputs { qkv, table, key: old_key, value: old_value } = self.inputs(half);
        let all = len + tokens;
        let capacity = output(got, "rows").first().map_or(all, |&rows| rows as usize);
        let (mut key, mut value) = (vec![0.0; g * all * d], vec![0.0; g * all * d]);
        let query =
            fovea_shaders::rotate_and_store(&wide(&qkv), &wide(&table), &mut key, &mut value, heads, [first, len]);
        let mut checked = vec![
            QUERY.check("query", &query, output(got, "query")),
            Bound::Exact.check("len", &[all as f32], output(got, "len")),
        ];
        for (name, twin, old) in [("key", &key, &old_key), ("value", &value, &old_value)] {
            let stored = output(got, name);
            let new = self.rows(stored, capacity, len, all);
            checked.push(cached(half).check(name, &self.rows(twin, all, len, all), &new));
            checked.push(Bound::Exact.check(&format!("{name}, old rows"), old, &self.rows(stored, capacity, 0, len)));
            let spare = self.rows(stored, capacity, all, capacity);
            checked.push(Bound::Exact.check(&format!("{name}, spare rows"), &vec![0.0; spare.len()], &spare));
        }
        checked
    }
}

/// Bound of rotated queries.
const QUERY: Bound = Bound::Nmse(1e-12);

/// Bound of keys and values in the cache.
const fn cached(half: bool) -> Bound {
    if half { Bound::Nmse(1e-6) } else { QUERY }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_row_is_a_fault() {
        let op = Rotate { heads: [2, 2, 4], tokens: 2, len: 3, first: 1, spare: 0, upper: false, shared: false };
        let Inputs { qkv, table, key: old_key, value: old_value } = op.inputs(false);
        // The twin on caches with the old rows.
        let run = |first: usize, len: usize| {
            let with_room = |old: &[f32]| {
                old.chunks_exact(3 * 4).flat_map(|head| [&wide(head)[..], &[0.0; 2 * 4]].concat()).collect::<Vec<f64>>()
            };
            let (mut key, mut value) = (with_room(&old_key), with_room(&old_value));
            let query = fovea_shaders::rotate_and_store(
                &wide(&qkv),
                &wide(&table),
                &mut key,
                &mut value,
                op.heads,
                [first, len],
            );
            let narrow = |values: Vec<f64>| values.iter().map(|&x| x as f32).collect::<Vec<f32>>();
            let got = [("query", narrow(query)), ("key", narrow(key)), ("value", narrow(value)), ("len", vec![5.0])];
            op.check(false, &Outputs::from(got)).into_iter().find_map(|checked| checked.fault).map(|(bad, _)| bad.stage)
        };
        assert_eq!(run(1, 3), None);
        assert_eq!(run(2, 3).as_deref(), Some("query"));
        assert_eq!(run(1, 2).as_deref(), Some("key"));
    }
}
