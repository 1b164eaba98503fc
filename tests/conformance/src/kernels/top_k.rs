//! `top_k`: the kept visual tokens.

use std::fmt;

use fovea_runtime::{Error, Keep, read::read_indices, sampler_ops::top_k};
use fovea_shaders::MAX_SCORES;

use super::{Operation, Outputs, Planned, REFUSED, output, refusal, whole};
use crate::{
    bed::Bed,
    bound::{Bound, Comparison},
    numbers::Numbers,
};

/// Minimum distance of every cumulative share from gamma for random scores, so that no order of summation changes the
/// cut.
const CLEAR: f64 = 1e-5;

/// The scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scores {
    /// Many small and few large scores, like real importance.
    Steep,
    /// The same, in descending order.
    Falling,
    /// The same, in ascending order.
    Rising,
    /// Quarters, halves and ones: sums are exact, and the cut goes through equal scores.
    Ties,
    /// All equal.
    Equal,
    /// All zero: shares are undefined, and a gamma budget keeps all.
    Zero,
    /// Subnormal: a device that flushes subnormals computes with zeros.
    Denormal,
    /// One score is larger than the sum of all others.
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

/// Shapes and their purposes.
pub(crate) fn cases() -> Vec<Planned<TopK>> {
    let case = |why, count, keep, scores| Planned::new(why, TopK { count, keep, scores });
    let mut all = Vec::new();
    for (count, why) in [
        (1, "one score: it is kept"),
        (2, "two scores"),
        (255, "one score less than a workgroup has lanes"),
        (256, "a workgroup's lanes"),
        (257, "one score more"),
        (729, "SigLIP's odd tile"),
        (2928, "LLaVA-NeXT's largest canvas"),
        (7371, "LLaVA-OneVision's largest map"),
        (MAX_SCORES, "the most that one launch supports"),
    ] {
        all.push(case(why, count, Keep::Gamma(0.85), Scores::Steep));
        all.push(case(why, count, Keep::Ratio(0.3), Scores::Steep));
    }
    for gamma in [0.7, 0.95, 1e-9, 0.99, 1.0, 1.5] {
        all.push(case(
            "thresholds, including those that no sum and every sum exceeds",
            2928,
            Keep::Gamma(gamma),
            Scores::Steep,
        ));
    }
    for count in [0, 1, 7, 2928, 2929] {
        all.push(case("budgets by count: keeps at least one, at most all", 2928, Keep::Count(count), Scores::Steep));
    }
    for ratio in [1e-9, 0.07, 1.0] {
        all.push(case("budgets by ratio, rounded up", 100, Keep::Ratio(ratio), Scores::Steep));
    }
    for scores in [Scores::Falling, Scores::Rising, Scores::Ties, Scores::Equal, Scores::Zero, Scores::Denormal] {
        for keep in [Keep::Gamma(0.85), Keep::Count(100)] {
            all.push(case("scores that are hard to order", 257, keep, scores));
            all.push(case("scores that are hard to order, more than one per lane", 2928, keep, scores));
        }
    }
    all.push(case("equal scores, the most that one launch supports", MAX_SCORES, Keep::Gamma(0.85), Scores::Equal));
    all.push(case("one score has almost the whole share", 2928, Keep::Gamma(0.85), Scores::Dominating));
    all.push(case(
        "one score has almost the whole share, and ten are requested",
        2928,
        Keep::Count(10),
        Scores::Dominating,
    ));
    all.push(case("no kernel: more scores than one launch supports", MAX_SCORES + 1, Keep::Ratio(0.5), Scores::Steep));
    for scores in [Scores::Nan, Scores::Infinite] {
        all.push(case("a score that is not finite is an error", 257, Keep::Gamma(0.85), scores));
        all.push(case("a score that is not finite is an error, also with a count", 2928, Keep::Count(5), scores));
    }
    all
}

impl TopK {
    fn input(&self) -> Vec<f32> {
        let mut numbers = Numbers::of(&self.to_string());
        // Repeats until the cut is clear, which nearly always succeeds at once. With equal scores, sums are exact.
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
            // The 32nd power by squaring: equal on every machine.
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

    /// The smallest distance of a cumulative share from gamma; infinite if the budget is not a gamma.
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
        format!(
            "exact: scores are ordered by their bits, and no cumulative share is within {CLEAR:e} of gamma. On the \
             CPU the host ranks the scores with the twin itself"
        )
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

    fn check(&self, _half: bool, got: &Outputs) -> Vec<Comparison> {
        let refused = refusal(got, self.is_refused());
        if self.is_refused() {
            return vec![refused];
        }
        let kept = whole(fovea_shaders::top_k(&self.input(), self.keep));
        vec![refused, Bound::Exact.check("kept", &kept, output(got, "kept"))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_cuts_are_clear() {
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
    fn a_wrong_kept_set_is_a_fault() {
        let op = TopK { count: 4, keep: Keep::Count(2), scores: Scores::Equal };
        let fault = |kept: &[f32]| {
            let got = Outputs::from([("kept", kept.to_vec()), (REFUSED, vec![0.0])]);
            op.check(false, &got).into_iter().find_map(|checked| checked.fault)
        };
        assert_eq!(fault(&[0.0, 1.0]), None);
        assert!(fault(&[0.0, 1.0, 2.0]).is_some() && fault(&[0.0, 2.0]).is_some());
        assert!(op.check(false, &Outputs::from([(REFUSED, vec![1.0])])).iter().any(|checked| checked.fault.is_some()));
    }
}
