//! `pick`: the next token and position.

use std::fmt;

use burn::tensor::{Int, Tensor, TensorData};
use fovea_runtime::{
    Error,
    network_ops::{Cursor, pick},
    read::read_indices,
};

use super::{Operation, Outputs, Planned, output, whole};
use crate::{
    bed::Bed,
    bound::{Bound, Comparison},
    numbers::Numbers,
};

/// The state before: a token, the row of the rotary table, and the tokens in the lower and the upper caches.
const BEFORE: [u32; 4] = [11, 40, 30, 20];

/// The logits, and which tokens are allowed: all, unless the variant's text has another rule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Values {
    /// Numbers around zero.
    Spread,
    /// As `Spread`, but about half of the tokens are allowed, and not the one with the largest logit.
    Disallowed,
    /// As `Spread`, but no token is allowed.
    Nothing,
    /// Integers from -4 to 4, so that many are equal.
    Ties,
    /// All equal.
    Equal,
    /// All equal; the first half of the tokens is not allowed.
    Late,
    /// All negative.
    Negative,
    /// -0.0 in the middle and 0.0 at the end; the others are -1. The two are equal.
    Zeros,
    /// All are the smallest finite number.
    Lowest,
    /// As `Spread`, with NaN at the end.
    Nan,
    /// As `Spread`, with infinity in the middle.
    Infinite,
    /// As `Spread`, with negative infinity at the start, which is not allowed.
    Masked,
}

/// V logits.
#[derive(Clone, Debug)]
pub(crate) struct Pick {
    vocab: usize,
    values: Values,
}

impl fmt::Display for Pick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pick v={} values={}", self.vocab, format!("{:?}", self.values).to_lowercase())
    }
}

/// Shapes and their purposes.
pub(crate) fn cases() -> Vec<Planned<Pick>> {
    let case = |why, vocab, values| Planned::new(why, Pick { vocab, values });
    let mut all: Vec<Planned<Pick>> = [
        ("one token", 1),
        ("one bit less than a word", 31),
        ("one word of bits", 32),
        ("one bit more than a word", 33),
        ("one token more than a workgroup has lanes", 257),
        ("one token more than a workgroup takes at once", 2049),
        ("Llama 2's vocabulary", 32000),
        ("Qwen2's vocabulary", 151_936),
    ]
    .map(|(why, vocab)| case(why, vocab, Values::Spread))
    .into();
    for vocab in [33, 32000] {
        all.extend([
            case("the largest logit is not allowed", vocab, Values::Disallowed),
            case("no token is allowed", vocab, Values::Nothing),
            case("of equal logits the lower id", vocab, Values::Ties),
            case("all logits are equal", vocab, Values::Equal),
            case("all logits are equal, the lower half is not allowed", vocab, Values::Late),
            case("negative logits only", vocab, Values::Negative),
            case("-0.0 and 0.0 are equal", vocab, Values::Zeros),
            case("the smallest finite logits", vocab, Values::Lowest),
            case("NaN is detected", vocab, Values::Nan),
            case("infinity is detected", vocab, Values::Infinite),
            case("infinity is detected where it is not allowed", vocab, Values::Masked),
        ]);
    }
    all.push(case("many equal logits in Qwen2's vocabulary", 151_936, Values::Ties));
    all.push(case("NaN at the end of Qwen2's vocabulary", 151_936, Values::Nan));
    all
}

impl Pick {
    /// Logits, and the words of the allowed tokens. Bits after the last token are 1.
    fn inputs(&self) -> (Vec<f32>, Vec<u32>) {
        let Self { vocab, values } = *self;
        let mut numbers = Numbers::of(&self.to_string());
        let mut logits = numbers.floats(vocab, 8.0);
        let mut allowed = vec![u32::MAX; vocab.div_ceil(32)];
        let mut forbid = |id: usize| allowed[id / 32] &= !(1 << (id % 32));
        match values {
            Values::Spread => {}
            Values::Disallowed => {
                let best = (0..vocab).fold(0, |best, i| if logits[i] > logits[best] { i } else { best });
                (0..vocab).filter(|&id| id == best || numbers.below(2) == 0).for_each(forbid);
            }
            Values::Nothing => (0..vocab).for_each(forbid),
            Values::Ties => logits.iter_mut().for_each(|x| *x = (*x / 2.0).round()),
            Values::Equal => logits.fill(1.5),
            Values::Late => {
                logits.fill(-1.5);
                (0..vocab / 2).for_each(forbid);
            }
            Values::Negative => logits.iter_mut().for_each(|x| *x = -1.0 - x.abs()),
            Values::Zeros => {
                logits.fill(-1.0);
                (logits[vocab / 2], logits[vocab - 1]) = (-0.0, 0.0);
            }
            Values::Lowest => logits.fill(f32::MIN),
            Values::Nan => logits[vocab - 1] = f32::NAN,
            Values::Infinite => logits[vocab / 2] = f32::INFINITY,
            Values::Masked => {
                logits[0] = f32::NEG_INFINITY;
                forbid(0);
            }
        }
        (logits, allowed)
    }
}

impl Operation for Pick {
    const NAME: &'static str = "pick";

    fn tolerance(&self, _half: bool) -> String {
        "exact: logits are compared as they are".into()
    }

    async fn run(&self, _half: bool, bed: &mut Bed<'_>) -> Result<Outputs, Error> {
        let (logits, allowed) = self.inputs();
        let logits = bed.full(&logits, [1, self.vocab]);
        let device = logits.device();
        let words: Vec<i32> = allowed.iter().map(|&word| word.cast_signed()).collect();
        let count = words.len();
        let allowed = Tensor::<1, Int>::from_data(TensorData::new(words, [count]), &device);
        let [token, row, lower, upper] = BEFORE;
        let state = Cursor::words(token, row as i32, [lower as usize, upper as usize], &device);
        let state = pick(logits, allowed, state).await?;
        Ok(Outputs::from([("state", whole(read_indices(state).await?))]))
    }

    fn check(&self, _half: bool, got: &Outputs) -> Vec<Comparison> {
        let (logits, allowed) = self.inputs();
        // A word of -1, no token, is read as `usize::MAX`.
        let index = |word: u32| if word == u32::MAX { usize::MAX } else { word as usize };
        let twin = whole(fovea_shaders::pick(&logits, &allowed, BEFORE).map(index));
        vec![Bound::Exact.check("state", &twin, output(got, "state"))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_token_or_position_is_a_fault() {
        let fault = |values, state: [f32; 4]| {
            let op = Pick { vocab: 33, values };
            let got = Outputs::from([("state", state.to_vec())]);
            op.check(false, &got).into_iter().find_map(|checked| checked.fault).map(|(bad, _)| bad.index)
        };
        let after = |token| [token, 41.0, 31.0, 21.0];
        assert_eq!(fault(Values::Zeros, after(16.0)), None);
        assert_eq!(fault(Values::Zeros, after(32.0)), Some(0));
        assert_eq!(fault(Values::Late, after(16.0)), None);
        assert_eq!(fault(Values::Late, [16.0, 41.0, 30.0, 21.0]), Some(2));
        assert_eq!(fault(Values::Nan, after(usize::MAX as f32)), None);
        assert_eq!(fault(Values::Nan, after(7.0)), Some(0));
    }
}
