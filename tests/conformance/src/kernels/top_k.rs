//! `top_k`: the visual tokens that stay.

use std::fmt;

use fovea_runtime::{Error, Keep, device::read_indices, sampler_ops::top_k};
use fovea_shaders::MAX_SCORES;

use super::{Operation, Outputs, Planned, REFUSED, output, refusal, whole};
use crate::{
    bed::Bed,
    bound::{Bound, Held},
    numbers::Numbers,
};

/// How far every cumulated share stays from gamma, where numbers are drawn: no order of a sum tips the cut.
const CLEAR: f64 = 1e-5;

/// What the scores are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scores {
    /// Many small and few large, as importance is.
    Steep,
    /// The same, falling.
    Falling,
    /// The same, rising.
    Rising,
    /// Quarters, halves and ones: sums are exact, and the cut goes through equal scores.
    Ties,
    /// All the same.
    Equal,
    /// All zero: no share is defined, and all stay under gamma.
    Zero,
    /// Below the least normal number: a device that flushes them sees zeros.
    Denormal,
    /// One that outweighs all others.
    Dominating,
    /// One is NaN.
    Nan,
    /// One is infinite.
    Infinite,
}

/// Scores and a budget.
#[derive(Clone, Debug)]
pub(crate) struct TopK {
    count: usize,
    keep: Keep,
    scores: Scores,
}

impl fmt::Display for TopK {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "top_k n={} ", self.count)?;
        match self.keep {
            Keep::Gamma(gamma) => write!(f, "gamma={gamma}")?,
            Keep::Ratio(ratio) => write!(f, "ratio={ratio}")?,
            Keep::Count(count) => write!(f, "count={count}")?,
        }
        write!(f, " scores={}", format!("{:?}", self.scores).to_lowercase())
    }
}

/// Shapes with their reasons.
pub(crate) fn cases() -> Vec<Planned<TopK>> {
    let case = |why, count, keep, scores| Planned::new(why, TopK { count, keep, scores });
    let mut all = Vec::new();
    for (count, why) in [
        (1, "one score: it stays"),
        (2, "two scores"),
        (255, "one score less than a workgroup has lanes"),
        (256, "a workgroup's lanes"),
        (257, "one score more"),
        (2928, "LLaVA-NeXT's largest canvas"),
        (MAX_SCORES, "the most of one launch"),
    ] {
        all.push(case(why, count, Keep::Gamma(0.85), Scores::Steep));
        all.push(case(why, count, Keep::Ratio(0.3), Scores::Steep));
    }
    for gamma in [0.7, 0.95, 1e-9, 0.99, 1.0, 1.5] {
        all.push(case("thresholds, also those that none and all exceed", 2928, Keep::Gamma(gamma), Scores::Steep));
    }
    for count in [0, 1, 7, 2928, 2929] {
        all.push(case("budgets by count: one stays at least, all at most", 2928, Keep::Count(count), Scores::Steep));
    }
    for ratio in [1e-9, 0.07, 1.0] {
        all.push(case("budgets by ratio, rounded up", 100, Keep::Ratio(ratio), Scores::Steep));
    }
    for scores in [Scores::Falling, Scores::Rising, Scores::Ties, Scores::Equal, Scores::Zero, Scores::Denormal] {
        for keep in [Keep::Gamma(0.85), Keep::Count(100)] {
            all.push(case("scores that order badly", 257, keep, scores));
            all.push(case("scores that order badly, more than one a lane", 2928, keep, scores));
        }
    }
    all.push(case("equal scores to the last place of one launch", MAX_SCORES, Keep::Gamma(0.85), Scores::Equal));
    all.push(case("one holds the whole share", 2928, Keep::Gamma(0.85), Scores::Dominating));
    all.push(case("one holds the share, and others are asked for", 2928, Keep::Count(10), Scores::Dominating));
    all.push(case("no kernel: more scores than one launch takes", MAX_SCORES + 1, Keep::Ratio(0.5), Scores::Steep));
    for scores in [Scores::Nan, Scores::Infinite] {
        all.push(case("a score that is no number is an error", 257, Keep::Gamma(0.85), scores));
        all.push(case("a score that is no number is an error, also by count", 2928, Keep::Count(5), scores));
    }
    all
}

impl TopK {
    fn input(&self) -> Vec<f32> {
        let mut numbers = Numbers::of(&self.to_string());
        // Drawn again until the cut is clear; nearly always at once. Where equal scores leave no choice, sums are exact.
        let mut scores = self.draw(&mut numbers);
        for _ in 0..64 {
            if self.clearance(&scores) > CLEAR {
                break;
            }
            scores = self.draw(&mut numbers);
        }
        scores
    }

    fn draw(&self, numbers: &mut Numbers) -> Vec<f32> {
        let steep = |numbers: &mut Numbers| {
            // To the 32nd, by squares: the same on every machine.
            let square = |v: f32| v * v;
            let spread = numbers.floats(self.count, 1.0).into_iter().map(|v| (v + 1.0) * 0.5);
            spread.map(|v| (0..5).fold(v, |v, _| square(v)) + 1e-6).collect::<Vec<f32>>()
        };
        let middle = self.count / 2;
        match self.scores {
            Scores::Steep => steep(numbers),
            Scores::Falling | Scores::Rising => {
                let mut scores = steep(numbers);
                scores.sort_by(f32::total_cmp);
                if self.scores == Scores::Falling {
                    scores.reverse();
                }
                scores
            }
            Scores::Ties => (0..self.count).map(|_| [0.25, 0.5, 1.0][numbers.below(3)]).collect(),
            Scores::Equal => vec![0.25; self.count],
            Scores::Zero => vec![0.0; self.count],
            Scores::Denormal => (0..self.count).map(|_| f32::from_bits(1 + numbers.bits() % 0x7f_fffe)).collect(),
            Scores::Dominating => {
                let mut scores: Vec<f32> = steep(numbers).into_iter().map(|v| v * 1e-6).collect();
                scores[middle] = 1.0;
                scores
            }
            Scores::Nan | Scores::Infinite => {
                let mut scores = steep(numbers);
                scores[middle] = if self.scores == Scores::Nan { f32::NAN } else { f32::INFINITY };
                scores
            }
        }
    }

    /// The least distance of a cumulated share from gamma; endless where the budget is no share.
    fn clearance(&self, scores: &[f32]) -> f64 {
        let Keep::Gamma(gamma) = self.keep else { return f64::INFINITY };
        let mut sorted = scores.to_vec();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let total: f64 = sorted.iter().map(|&s| f64::from(s)).sum();
        let mut sum = 0.0;
        let distances = sorted.iter().map(|&s| {
            sum += f64::from(s);
            (sum / total - gamma).abs()
        });
        distances.fold(f64::INFINITY, f64::min)
    }

    fn is_refused(&self) -> bool {
        matches!(self.scores, Scores::Nan | Scores::Infinite)
    }
}

impl Operation for TopK {
    const NAME: &'static str = "top_k";

    fn tolerance(&self, _half: bool) -> String {
        format!("exact: scores are ordered by their bits, and no cumulated share is within {CLEAR:e} of gamma")
    }

    fn has_kernel(&self) -> bool {
        self.count <= MAX_SCORES
    }

    async fn run(&self, _half: bool, bed: &mut Bed<'_>) -> Result<Outputs, Error> {
        match top_k(bed.full(&self.input(), [self.count]), self.keep).await {
            Ok(kept) => Ok(Outputs::from([("kept", whole(read_indices(kept).await?)), (REFUSED, vec![0.0])])),
            Err(Error::Shape { .. }) => Ok(Outputs::from([(REFUSED, vec![1.0])])),
            Err(other) => Err(other),
        }
    }

    fn hold(&self, _half: bool, got: &Outputs) -> Vec<Held> {
        let refused = refusal(got, self.is_refused());
        if self.is_refused() {
            return vec![refused];
        }
        let kept = whole(fovea_shaders::top_k(&self.input(), self.keep));
        vec![refused, Bound::Exact.hold("kept", &kept, output(got, "kept"))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_drawn_cut_is_too_close_to_call() {
        for Planned { op, .. } in cases() {
            let drawn = matches!(op.scores, Scores::Steep | Scores::Falling | Scores::Rising | Scores::Dominating);
            if let (true, Keep::Gamma(gamma)) = (drawn, op.keep)
                && gamma < 1.0
                && op.count > 1
            {
                let clear = op.clearance(&op.input());
                assert!(clear > CLEAR, "{op}: expected shares further than {CLEAR:e} from gamma, got {clear:e}");
            }
        }
    }

    #[test]
    fn one_kept_too_many_is_a_fault() {
        let op = TopK { count: 4, keep: Keep::Count(2), scores: Scores::Equal };
        let fault = |kept: &[f32]| {
            let got = Outputs::from([("kept", kept.to_vec()), (REFUSED, vec![0.0])]);
            op.hold(false, &got).into_iter().find_map(|held| held.fault)
        };
        assert_eq!(fault(&[0.0, 1.0]), None);
        assert!(fault(&[0.0, 1.0, 2.0]).is_some() && fault(&[0.0, 2.0]).is_some());
        assert!(op.hold(false, &Outputs::from([(REFUSED, vec![1.0])])).iter().any(|held| held.fault.is_some()));
    }
}
