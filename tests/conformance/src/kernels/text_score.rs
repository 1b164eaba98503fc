//! `text_score`: the importance of every visual token for the text.

use std::fmt;

use fovea_runtime::{Error, read::read_f32, sampler_ops::text_score};

use super::{Operation, Outputs, Planned, output};
use crate::{
    bed::Bed,
    bound::{Bound, Comparison},
    numbers::{Numbers, stored, wide},
};

/// The values of queries and keys.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Values {
    /// Numbers around zero.
    Spread,
    /// Integer scores from -96 to 96: unless the maximum is subtracted, their exponentials overflow.
    Steep,
    /// All zero: all tokens are equally important.
    Flat,
    /// Two heads, three tokens: softmax(ln p) = p, and the maximum over heads is .5, .7, .2.
    Hand,
}

/// Queries (heads, T, d) and keys (kv, N, d).
#[derive(Clone, Debug)]
pub(crate) struct TextScore {
    heads: usize,
    kv: usize,
    text: usize,
    visual: usize,
    width: usize,
    values: Values,
}

impl fmt::Display for TextScore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { heads, kv, text, visual, width, values } = self;
        let values = match values {
            Values::Spread => "spread",
            Values::Steep => "steep",
            Values::Flat => "flat",
            Values::Hand => "hand",
        };
        write!(f, "text_score heads={heads} kv={kv} t={text} n={visual} d={width} values={values}")
    }
}

fn op([heads, kv, text, visual, width]: [usize; 5], values: Values) -> TextScore {
    TextScore { heads, kv, text, visual, width, values }
}

/// Shapes (heads, key heads, T, N, d) and their purposes.
pub(crate) fn cases() -> Vec<Planned<TextScore>> {
    let mut all: Vec<Planned<TextScore>> = [
        ("one of each, one pack", [1, 1, 1, 1, 4]),
        ("no kernel: a head's width is no multiple of four", [4, 2, 7, 13, 6]),
        ("one visual token", [8, 2, 7, 1, 64]),
        ("one query head per key head", [4, 4, 31, 64, 64]),
        ("two query heads per key head", [4, 2, 11, 97, 64]),
        ("four query heads per key head", [8, 2, 11, 97, 64]),
        ("three query heads per key head, a tile of SmolVLM 256M", [9, 3, 11, 64, 64]),
        ("seven query heads per key head, SigLIP's thumbnail", [14, 2, 11, 729, 64]),
        ("eight query heads per key head", [8, 1, 11, 97, 64]),
        ("the smallest width", [8, 2, 33, 70, 4]),
        ("width 80", [4, 2, 9, 67, 80]),
        ("width 96", [4, 2, 9, 67, 96]),
        ("width 128, Llama's", [8, 2, 9, 67, 128]),
        ("one text token", [8, 2, 1, 136, 64]),
        ("one row less than a tile", [1, 1, 31, 40, 64]),
        ("a tile of rows", [1, 1, 32, 40, 64]),
        ("one row more", [1, 1, 33, 40, 64]),
        ("one key less than a tile", [4, 2, 5, 255, 64]),
        ("a tile of keys", [4, 2, 5, 256, 64]),
        ("one key more", [4, 2, 5, 257, 64]),
        ("three blocks of text tokens, the last of one", [32, 8, 33, 8192, 4]),
        ("blocks of four text tokens, the last of one", [32, 8, 9, 32768, 4]),
        ("more text tokens than lanes take at once, no multiple of them", [4, 2, 37, 67, 4]),
        ("heads that are no multiple of four", [6, 2, 9, 67, 64]),
        ("CLIP-336's thumbnail", [8, 2, 13, 576, 64]),
        ("a long question", [4, 2, 2048, 32, 64]),
        ("all tokens of a picture", [8, 2, 17, 2928, 64]),
    ]
    .map(|(why, shape)| Planned::new(why, op(shape, Values::Spread)))
    .into();
    all.push(Planned::new("computed by hand", op([2, 2, 1, 3, 4], Values::Hand)));
    all.push(Planned::new("scores whose exponentials overflow", op([4, 2, 33, 97, 64], Values::Steep)));
    all.push(Planned::new("scores whose exponentials overflow, one pack", op([2, 1, 3, 40, 4], Values::Steep)));
    all.push(Planned::new("equal scores have equal shares", op([8, 2, 7, 100, 64], Values::Flat)));
    let real = op([32, 8, 60, 2928, 128], Values::Spread);
    all.push(Planned::large("Llama 3 8B on LLaVA-NeXT's largest canvas", real));
    let odd = op([14, 2, 60, 7371, 64], Values::Spread);
    all.push(Planned::large("Qwen2 0.5B on LLaVA-OneVision's largest map", odd));
    let long = op([8, 2, 3, 32768, 64], Values::Spread);
    all.push(Planned::large("more visual tokens than any picture has", long));
    all
}

impl TextScore {
    /// Queries and keys.
    fn inputs(&self, half: bool) -> (Vec<f32>, Vec<f32>) {
        let Self { heads, kv, text, visual, width, values } = *self;
        let (queries, keys) = (heads * text * width, kv * visual * width);
        let mut numbers = Numbers::of(&self.to_string());
        let (query, key) = match values {
            Values::Spread => (numbers.floats(queries, 2.0), numbers.floats(keys, 2.0)),
            Values::Flat => (vec![0.0; queries], numbers.floats(keys, 2.0)),
            // Only one channel. Widths are powers of four here, so that roots, products and scores are integers.
            Values::Steep => {
                let root = (width as f32).sqrt();
                let signs: Vec<f32> =
                    (0..heads * text).map(|_| if numbers.below(2) == 0 { root } else { -root }).collect();
                let scores: Vec<f32> = (0..kv * visual).map(|_| numbers.below(193) as f32 - 96.0).collect();
                (in_first_channel(&signs, width), in_first_channel(&scores, width))
            }
            Values::Hand => {
                let root = (width as f32).sqrt();
                let key = [0.5f32, 0.3, 0.2, 0.1, 0.7, 0.2].map(|p| root * p.ln());
                (in_first_channel(&[1.0, 1.0], width), in_first_channel(&key, width))
            }
        };
        (stored(query, half), stored(key, half))
    }
}

fn in_first_channel(values: &[f32], width: usize) -> Vec<f32> {
    let mut all = vec![0.0; values.len() * width];
    for (row, &value) in all.chunks_exact_mut(width).zip(values) {
        row[0] = value;
    }
    all
}

const fn bound(half: bool) -> Bound {
    Bound::Nmse(if half { 1e-6 } else { 1e-9 })
}

impl Operation for TextScore {
    const NAME: &'static str = "text_score";

    fn tolerance(&self, half: bool) -> String {
        format!(
            "{}: products and exponentials in f32 have an NMSE of 1e-13, and sums of some thousand terms little more",
            bound(half)
        )
    }

    fn has_kernel(&self) -> bool {
        self.width.is_multiple_of(4)
    }

    async fn run(&self, half: bool, bed: &mut Bed<'_>) -> Result<Outputs, Error> {
        let Self { heads, kv, text, visual, width, .. } = *self;
        let (query, key) = self.inputs(half);
        let importance = text_score(bed.floats(&query, [heads, text, width]), bed.floats(&key, [kv, visual, width]))?;
        Ok(Outputs::from([("importance", read_f32(importance).await?)]))
    }

    fn check(&self, half: bool, got: &Outputs) -> Vec<Comparison> {
        let Self { heads, kv, text, visual, width, .. } = *self;
        let (query, key) = self.inputs(half);
        let twin = fovea_shaders::text_score(&wide(&query), &wide(&key), [heads, kv, text, visual, width]);
        let importance = output(got, "importance");
        let mut checked = vec![bound(half).check("importance", &twin, importance)];
        if matches!(self.values, Values::Hand) && !half {
            checked.push(Bound::Abs(1e-6).check("importance, by hand", &[0.5, 0.7, 0.2], importance));
        }
        checked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_cases_process_the_text_in_blocks() {
        let blocks = |op: &TextScore| op.text.div_ceil(fovea_shaders::text_block(op.heads, op.text, op.visual));
        let quick = cases().into_iter().filter(|case| !case.large);
        assert_eq!(quick.filter(|case| blocks(&case.op) == 3).count(), 2, "cases of three blocks (got, expected)");
    }

    #[test]
    fn a_wrong_score_is_a_fault() {
        let op = op([2, 2, 1, 3, 4], Values::Hand);
        let fault = |values: &[f32]| {
            let got = Outputs::from([("importance", values.to_vec())]);
            op.check(false, &got).into_iter().find_map(|checked| checked.fault)
        };
        assert_eq!(fault(&[0.5, 0.7, 0.2]), None);
        assert!(fault(&[0.5, 0.7001, 0.2]).is_some());
        assert!(fault(&[0.5, f32::NAN, 0.2]).is_some());
    }
}
