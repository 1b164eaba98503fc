//! `attend`: causal attention of the newest tokens over the cache of a layer.

use std::fmt;

use burn::tensor::DType;
use fovea_runtime::{
    Error,
    kv_cache::LayerCache,
    network_ops::{Cursor, Heads, attend},
    read::read_f32,
};

use super::{Operation, Outputs, Planned, output};
use crate::{
    bed::Bed,
    bound::{Bound, Comparison},
    numbers::{Numbers, stored, wide},
};

/// The values of queries and keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Values {
    /// Numbers around zero.
    Spread,
    /// Integer scores from -80 to 80: unless the maximum is subtracted, sums of their exponentials overflow.
    Steep,
    /// Scores ln 1, ln 3, ln 4 of values 8, 16, 32.
    Hand,
}

/// Heads (H, G, D), T new tokens, and S keys.
#[derive(Clone, Debug)]
pub(crate) struct Attend {
    heads: [usize; 3],
    tokens: usize,
    keys: usize,
    /// Rows of the cache after the keys.
    spare: usize,
    values: Values,
}

impl fmt::Display for Attend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { heads: [h, g, d], tokens, keys, spare, values } = self;
        let values = format!("{values:?}").to_lowercase();
        write!(f, "attend h={h} g={g} d={d} t={tokens} s={keys} spare={spare} values={values}")
    }
}

/// Shapes and their purposes.
pub(crate) fn cases() -> Vec<Planned<Attend>> {
    let op = |heads, [tokens, keys, spare]: [usize; 3], values| Attend { heads, tokens, keys, spare, values };
    let case = |why, heads, shape| Planned::new(why, op(heads, shape, Values::Spread));
    let mut all = vec![
        case("one key, one pack", [1, 1, 4], [1, 1, 0]),
        case("no kernel: a head's width is no multiple of four", [4, 2, 6], [1, 5, 2]),
        case("no kernel: a head's width is no multiple of four, several tokens", [4, 2, 6], [3, 5, 2]),
        case("one key of many rows", [14, 2, 64], [1, 1, 64]),
        case("one token, one key less than a chunk", [14, 2, 64], [1, 127, 1]),
        case("one token, a chunk", [14, 2, 64], [1, 128, 7]),
        case("one token, one key more", [14, 2, 64], [1, 129, 200]),
        case("one token, chunks that are no multiple of four", [2, 2, 64], [1, 773, 3]),
        case("one token, nine query heads per key head", [18, 2, 64], [1, 131, 2]),
        case("one token, eleven query heads per key head", [11, 1, 64], [1, 131, 2]),
        case("one token, all tokens of a picture", [14, 2, 64], [1, 2928, 61]),
        case("two tokens, two keys", [1, 1, 4], [2, 2, 0]),
        case("as many tokens as keys: one step of keys", [14, 2, 64], [32, 32, 0]),
        case("as many tokens as keys: one more", [14, 2, 64], [33, 33, 5]),
        case("a block of rows", [1, 1, 64], [64, 64, 0]),
        case("one row more", [1, 1, 64], [65, 65, 1]),
        case("a question after a picture", [14, 2, 64], [23, 1021, 40]),
        case("tokens of a block that see different steps of keys", [2, 1, 128], [97, 131, 4]),
        case("blocks that see different steps of keys", [7, 1, 64], [211, 257, 13]),
        case("many rows of SigLIP's width", [7, 1, 72], [79, 97, 2]),
        case("many rows of a width of 128", [4, 1, 128], [131, 150, 3]),
        case("two tokens after many", [32, 8, 128], [2, 503, 9]),
    ];
    // Each width with each number of query heads per key head.
    for width in [64, 72, 80, 96, 128] {
        for share in [1, 2, 7, 8] {
            all.push(case("one token of a real width", [2 * share, 2, width], [1, 151, 10]));
            all.push(case("new tokens of a real width", [2 * share, 2, width], [37, 61, 10]));
        }
    }
    for tokens in [1, 2] {
        all.push(Planned::new("computed by hand", op([1, 1, 4], [tokens, 3, 2], Values::Hand)));
    }
    for tokens in [1, 41] {
        let steep = op([14, 2, 64], [tokens, 307, 3], Values::Steep);
        all.push(Planned::new("scores whose exponentials overflow", steep));
    }
    let large = |why, tokens, keys| Planned::large(why, op([32, 8, 128], [tokens, keys, 100], Values::Spread));
    all.push(large("one token, a long cache of Llama 3 8B", 1, 8000));
    all.push(large("a few tokens, a long cache of Llama 3 8B", 3, 8000));
    all.push(large("a prefill of Llama 3 8B", 577, 577));
    all
}

impl Attend {
    /// 1 / sqrt(D).
    fn factor(&self) -> f64 {
        1.0 / (self.heads[2] as f64).sqrt()
    }

    /// Queries, keys and values.
    fn inputs(&self, half: bool) -> [Vec<f32>; 3] {
        let Self { heads: [h, g, d], tokens, keys, values, .. } = *self;
        let mut numbers = Numbers::of(&self.to_string());
        let root = (d as f32).sqrt();
        let (query, key) = match values {
            Values::Spread => (numbers.floats(tokens * h * d, 2.0), numbers.floats(g * keys * d, 2.0)),
            Values::Steep => {
                let signs: Vec<f32> =
                    (0..tokens * h).map(|_| if numbers.below(2) == 0 { root } else { -root }).collect();
                let scores: Vec<f32> = (0..g * keys).map(|_| numbers.below(161) as f32 - 80.0).collect();
                (in_first_channel(&signs, d), in_first_channel(&scores, d))
            }
            Values::Hand => {
                (in_first_channel(&vec![root; tokens], d), in_first_channel(&[1f32, 3.0, 4.0].map(f32::ln), d))
            }
        };
        let value = match values {
            Values::Hand => in_first_channel(&[8.0, 16.0, 32.0], d),
            _ => numbers.floats(g * keys * d, 2.0),
        };
        [query, stored(key, half), stored(value, half)]
    }
}

/// Rows of `width` numbers: one of `values`, and zeros.
fn in_first_channel(values: &[f32], width: usize) -> Vec<f32> {
    let mut all = vec![0.0; values.len() * width];
    for (row, &value) in all.chunks_exact_mut(width).zip(values) {
        row[0] = value;
    }
    all
}

/// The bound.
const BOUND: Bound = Bound::Nmse(1e-9);

impl Operation for Attend {
    const NAME: &'static str = "attend";

    fn tolerance(&self, _half: bool) -> String {
        format!("{BOUND}: f32 sums have an NMSE of 1e-13, and exponentials of scores of 80 have 1e-11")
    }

    fn has_kernel(&self) -> bool {
        self.heads[2].is_multiple_of(4)
    }

    async fn run(&self, half: bool, bed: &mut Bed<'_>) -> Result<Outputs, Error> {
        let Self { heads: [h, g, d], tokens, keys, spare, .. } = *self;
        let [query, key, value] = self.inputs(half);
        let query = bed.full(&query, [tokens, h * d]);
        let dtype = if half { DType::F16 } else { DType::F32 };
        let mut cache = LayerCache::new(bed.floats(&key, [g, keys, d]), bed.floats(&value, [g, keys, d]), dtype);
        cache.reserve(spare);
        // The other word has a number of tokens that does not fit.
        let words = [0, 0, keys + 1, keys - tokens];
        let at = Cursor { state: bed.indices(&words), slot: Cursor::UPPER, first: 0 };
        let out = attend(query, &cache, &at, Heads { query: h, key: g, width: d }, self.factor())?;
        Ok(Outputs::from([("attended", read_f32(out).await?)]))
    }

    fn check(&self, half: bool, got: &Outputs) -> Vec<Comparison> {
        let [query, key, value] = self.inputs(half).map(|values| wide(&values));
        let shape = [self.tokens, self.keys];
        let twin = fovea_shaders::attention(&query, &key, &value, shape, self.heads, self.factor(), true);
        let attended = output(got, "attended");
        let mut checked = vec![BOUND.check("attended", &twin, attended)];
        if self.values == Values::Hand && !half {
            // Shares of 1/4, 3/4 and 1/8, 3/8, 4/8.
            let hand: &[f64] = if self.tokens == 1 { &[23.0] } else { &[14.0, 23.0] };
            let first: Vec<f32> = attended.iter().copied().step_by(self.heads[2]).collect();
            checked.push(Bound::Abs(1e-5).check("attended, by hand", hand, &first));
        }
        checked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_too_many_or_too_few_is_a_fault() {
        let op = Attend { heads: [2, 1, 4], tokens: 2, keys: 5, spare: 0, values: Values::Spread };
        let [query, key, value] = op.inputs(false).map(|values| wide(&values));
        let fault = |keys: usize, causal: bool| {
            let out = fovea_shaders::attention(&query, &key, &value, [2, keys], op.heads, op.factor(), causal);
            let got = Outputs::from([("attended", out.iter().map(|&x| x as f32).collect())]);
            op.check(false, &got).into_iter().find_map(|checked| checked.fault)
        };
        assert_eq!(fault(5, true), None);
        assert!(fault(4, true).is_some());
        assert!(fault(5, false).is_some());
    }
}
