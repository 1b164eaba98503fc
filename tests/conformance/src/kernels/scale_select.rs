//! `scale_select`: logits and chosen scale of every region.

use std::fmt;

use burn::tensor::Transaction;
use fovea_runtime::{
    Error,
    read::{into_f32, into_indices, read_all},
    sampler_ops::scale_select,
};

use super::{Operation, Outputs, Planned, output, whole};
use crate::{
    bed::Bed,
    bound::{Bound, Comparison},
    numbers::{Numbers, stored, wide},
};

/// Below this margin between the best two logits, another choice than the twin's is accepted: a different order of
/// summation can change it.
const MARGIN: f64 = 1e-4;

/// The values of the inputs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Values {
    /// Numbers around zero.
    Spread,
    /// Small integers, and every scale twice: sums are exact in any order, and every region has a tie.
    Ties,
    /// As `Spread`, but every third region contains one NaN.
    Nan,
}

/// Pooled regions (regions, C), thumbnail (context, C), and the number of scales.
#[derive(Clone, Debug)]
pub(crate) struct ScaleSelect {
    regions: usize,
    channels: usize,
    context: usize,
    scales: usize,
    values: Values,
}

impl fmt::Display for ScaleSelect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { regions, channels, context, scales, values } = self;
        let values = match values {
            Values::Spread => "spread",
            Values::Ties => "ties",
            Values::Nan => "nan",
        };
        write!(f, "scale_select regions={regions} c={channels} context={context} scales={scales} values={values}")
    }
}

/// Shapes and their purposes.
pub(crate) fn cases() -> Vec<Planned<ScaleSelect>> {
    let case = |why, [regions, channels, context, scales]: [usize; 4], values| {
        Planned::new(why, ScaleSelect { regions, channels, context, scales, values })
    };
    let mut all: Vec<Planned<ScaleSelect>> = [
        ("one of each", [1, 1, 1, 1]),
        ("primes", [7, 5, 49, 3]),
        ("more context tokens than slices, by one", [13, 31, 9, 7]),
        ("the fixtures' size", [16, 64, 64, 3]),
        ("CLIP-336's context, the paper's scales", [36, 128, 576, 7]),
        ("SigLIP's context", [3, 64, 729, 3]),
        ("SigLIP's odd tile, the channels of Qwen2 0.5B", [49, 896, 729, 3]),
        ("a tile of SmolVLM 256M", [4, 576, 64, 3]),
        ("a tile of SmolVLM 2.2B", [9, 2048, 81, 3]),
        ("sixteen scales", [9, 12, 49, 16]),
        ("more scales than region_pool takes in a launch", [9, 12, 49, 20]),
        ("one channel less than a workgroup has lanes", [5, 63, 49, 3]),
        ("one channel more than a workgroup has lanes", [5, 65, 49, 3]),
        ("one pack more than a workgroup has lanes", [5, 260, 49, 3]),
        ("CLIP ViT-L's channels", [12, 1024, 49, 3]),
        ("thousands of regions", [4096, 16, 49, 3]),
    ]
    .into_iter()
    .map(|(why, shape)| case(why, shape, Values::Spread))
    .collect();
    // C is a power of four, so its root and all products and sums are exact.
    all.push(case("equal logits take the first scale", [33, 64, 49, 6], Values::Ties));
    all.push(case("equal logits, one pack", [8, 4, 9, 16], Values::Ties));
    all.push(case("NaN logits give no choice", [10, 64, 49, 3], Values::Nan));
    all.push(case("NaN logits give no choice, channels read one by one", [10, 3, 9, 1], Values::Nan));
    let [regions, channels, context, scales] = [144, 4096, 576, 3];
    let real = ScaleSelect { regions, channels, context, scales, values: Values::Spread };
    all.push(Planned::large("LLaVA-NeXT 7B's largest canvas", real));
    all
}

struct Inputs {
    pooled: Vec<f32>,
    thumbnail: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl ScaleSelect {
    fn inputs(&self, half: bool) -> Inputs {
        let Self { regions, channels, context, scales, .. } = *self;
        let mut numbers = Numbers::of(&self.to_string());
        let mut draw = |count: usize, reach: f32| match self.values {
            Values::Ties => (0..count).map(|_| numbers.below(5) as f32 - 2.0).collect(),
            Values::Spread | Values::Nan => stored(numbers.floats(count, reach), half),
        };
        let (mut pooled, thumbnail) = (draw(regions * channels, 2.0), draw(context * channels, 2.0));
        let (mut weight, mut bias) = (draw(scales * context, 1.0), draw(scales, 1.0));
        match self.values {
            Values::Spread => {}
            Values::Ties => {
                // The second half of the scales repeats the first half.
                weight.truncate(scales / 2 * context);
                weight.extend_from_within(..);
                bias.truncate(scales / 2);
                bias.extend_from_within(..);
            }
            Values::Nan => {
                for region in (0..regions).step_by(3) {
                    pooled[region * channels + region % channels] = f32::NAN;
                }
            }
        }
        Inputs { pooled, thumbnail, weight, bias }
    }

    /// Whether a region's logits are finite.
    fn is_finite(&self, region: usize) -> bool {
        self.values != Values::Nan || !region.is_multiple_of(3)
    }
}

/// The first index of the largest value.
fn first_best<T: PartialOrd>(logits: &[T]) -> usize {
    (0..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best })
}

/// The difference between the two largest values; infinite if there is only one.
fn margin(logits: &[f64]) -> f64 {
    let best = first_best(logits);
    let others = logits.iter().enumerate().filter(|(i, _)| *i != best);
    others.map(|(_, z)| logits[best] - z).fold(f64::INFINITY, f64::min)
}

impl Operation for ScaleSelect {
    const NAME: &'static str = "scale_select";

    fn tolerance(&self, half: bool) -> String {
        let bound = logits_bound(half);
        format!(
            "logits {bound}: f32 sums of some thousand terms give 1e-14; choices exact if the margin exceeds \
             {MARGIN:e}, and always the first of the device's own largest logits"
        )
    }

    async fn run(&self, half: bool, bed: &mut Bed<'_>) -> Result<Outputs, Error> {
        let Self { regions, channels, context, scales, .. } = *self;
        let inputs = self.inputs(half);
        let (logits, choice) = scale_select(
            bed.floats(&inputs.pooled, [regions, channels]),
            bed.floats(&inputs.thumbnail, [context, channels]),
            bed.floats(&inputs.weight, [scales, context]),
            bed.floats(&inputs.bias, [scales]),
        )?;
        let mut read = read_all(Transaction::default().register(logits).register(choice)).await?.into_iter();
        let logits = read.next().map_or_else(Vec::new, into_f32);
        let choice = whole(read.next().map_or_else(Vec::new, into_indices));
        Ok(Outputs::from([("logits", logits), ("choice", choice)]))
    }

    fn check(&self, half: bool, got: &Outputs) -> Vec<Comparison> {
        let inputs = self.inputs(half);
        let [pooled, thumbnail, weight, bias] =
            [&inputs.pooled, &inputs.thumbnail, &inputs.weight, &inputs.bias].map(|values| wide(values));
        let twin = fovea_shaders::scale_select(&pooled, &thumbnail, &weight, &bias, self.channels);
        let (logits, choice) = (output(got, "logits"), output(got, "choice"));
        if (logits.len(), choice.len()) != (twin.logits.len(), self.regions) {
            let checked = Bound::Exact.check("choice", &whole(twin.choice), choice);
            return vec![Bound::Exact.check("logits", &twin.logits, logits), checked];
        }
        let mut finite = (Vec::new(), Vec::new());
        let (mut by_twin, mut by_own, mut flips) = (Vec::new(), Vec::new(), 0);
        for region in 0..self.regions {
            if !self.is_finite(region) {
                by_twin.push(self.scales);
                by_own.push(self.scales);
                continue;
            }
            let of = region * self.scales..(region + 1) * self.scales;
            let (expected, own) = (&twin.logits[of.clone()], &logits[of]);
            finite.0.extend_from_slice(expected);
            finite.1.extend_from_slice(own);
            by_own.push(first_best(own));
            let flipped = by_own[region] != twin.choice[region];
            let accepted = flipped && self.values != Values::Ties && margin(expected) <= MARGIN;
            flips += usize::from(accepted);
            by_twin.push(if accepted { by_own[region] } else { twin.choice[region] });
        }
        let mut checked = Bound::Exact.check("choice", &whole(by_twin), choice);
        checked.flips = flips;
        vec![
            logits_bound(half).check("logits", &finite.0, &finite.1),
            checked,
            Bound::Exact.check("choice, by the device's own logits", &whole(by_own), choice),
        ]
    }
}

const fn logits_bound(half: bool) -> Bound {
    Bound::Nmse(if half { 1e-6 } else { 1e-9 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flip_is_accepted_only_below_the_margin() {
        assert_eq!((first_best(&[1.0, 2.0, 2.0]), margin(&[1.0, 2.0, 1.5])), (1, 0.5));
        assert_eq!(margin(&[1.0]), f64::INFINITY);
        let op = ScaleSelect { regions: 4, channels: 64, context: 9, scales: 4, values: Values::Ties };
        let inputs = op.inputs(false);
        let [pooled, thumbnail, weight, bias] =
            [&inputs.pooled, &inputs.thumbnail, &inputs.weight, &inputs.bias].map(|values| wide(values));
        let twin = fovea_shaders::scale_select(&pooled, &thumbnail, &weight, &bias, 64);
        let logits: Vec<f32> = twin.logits.iter().map(|&z| z as f32).collect();
        let checked = |choice: Vec<usize>| {
            let got = Outputs::from([("logits", logits.clone()), ("choice", whole(choice))]);
            op.check(false, &got).into_iter().find_map(|checked| checked.fault)
        };
        assert_eq!(checked(twin.choice.clone()), None);
        // The second of two equal scales.
        let mut other = twin.choice.clone();
        other[2] += 2;
        assert!(checked(other).is_some_and(|(bad, _)| bad.index == 2));
    }
}
