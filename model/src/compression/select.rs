//! Budgets, and the choice by score. Input: a score per token. Output: the indices of the kept tokens, rising.

use std::{cmp::Ordering, fmt};

use super::{ThumbnailTokens, settings::share, stock::Stock};

/// How many of n candidates are kept: at least one, and at most n. It is spelled as a ratio with a point (`0.25`), or as
/// a count without one (`64`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Budget {
    /// `ceil(r * n - 1e-9)`. The small number is our choice: 0.07 of 100 is 7.000000000000001 in f64, and must keep 7.
    Ratio(f64),
    /// This number, or all where there are fewer.
    Count(usize),
}

impl Budget {
    /// The number of kept tokens of `n` candidates.
    #[must_use]
    pub fn of(self, n: usize) -> usize {
        let count = match self {
            Self::Ratio(ratio) => (ratio * n as f64 - 1e-9).ceil() as usize,
            Self::Count(count) => count,
        };
        count.max(1).min(n)
    }

    /// A ratio above 0 and at most 1 if `text` has a point, else a count.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.contains('.') { share(text).map(Self::Ratio) } else { text.parse().ok().map(Self::Count) }
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Without a point it would be a count.
            Self::Ratio(ratio) if ratio.fract() == 0.0 => write!(f, "{ratio}.0"),
            Self::Ratio(ratio) => write!(f, "{ratio}"),
            Self::Count(count) => write!(f, "{count}"),
        }
    }
}

/// The candidates that share one budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Scope {
    /// The candidates of all tiles together.
    #[default]
    Image,
    /// Those of each tile.
    Tile,
}

/// The names of [`Scope`].
pub(crate) const SCOPES: [(&str, Scope); 2] = [("image", Scope::Image), ("tile", Scope::Tile)];

/// The positions of the `k` largest scores, rising. Of equal scores, the lower position is kept (our choice); a NaN is
/// less than every number.
pub(crate) fn best<T: PartialOrd>(scores: &[T], k: usize) -> Vec<usize> {
    let is_nan = |score: &T| score.partial_cmp(score).is_none();
    let falling = |a: &T, b: &T| -> Ordering { b.partial_cmp(a).unwrap_or_else(|| is_nan(a).cmp(&is_nan(b))) };
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| falling(&scores[a], &scores[b]));
    order.truncate(k);
    order.sort_unstable();
    order
}

/// In each tile, the candidates with the largest scores: stock indices, rising.
///
/// `scores` has one value per stock index; those that are no candidates are not read. A tile of n candidates keeps
/// `keep.of(n)`.
pub(crate) fn by_score(stock: &Stock, scores: &[f32], keep: Budget, thumbnail: ThumbnailTokens) -> Vec<usize> {
    let mut kept = Vec::new();
    for (_, members) in stock.per_tile(thumbnail) {
        kept.extend(best_of(&members, scores, keep.of(members.len())));
    }
    kept.sort_unstable();
    kept
}

/// The `k` of `members` (stock indices, rising) with the largest scores, rising. `scores` has one value per stock index.
pub(crate) fn best_of(members: &[usize], scores: &[f32], k: usize) -> Vec<usize> {
    let own: Vec<f32> = members.iter().map(|&i| scores[i]).collect();
    best(&own, k).into_iter().map(|position| members[position]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grid::Grid;

    #[test]
    fn a_budget_rounds_up_and_keeps_at_least_one() {
        for (ratio, n, expected) in [(0.07, 100, 7), (0.5, 5, 3), (0.001, 5, 1), (1.0, 5, 5), (1.0, 0, 0)] {
            assert_eq!(Budget::Ratio(ratio).of(n), expected, "{ratio} of {n} (got, expected)");
        }
        for (count, n, expected) in [(3, 5, 3), (9, 5, 5), (0, 5, 1), (3, 0, 0), (usize::MAX, 7, 7)] {
            assert_eq!(Budget::Count(count).of(n), expected, "{count} of {n} (got, expected)");
        }
    }

    #[test]
    fn a_budget_is_read_as_it_is_written() {
        for (text, budget) in [
            ("1.0", Budget::Ratio(1.0)),
            ("0.25", Budget::Ratio(0.25)),
            ("1", Budget::Count(1)),
            ("0.0000000000000000000001", Budget::Ratio(1e-22)),
            ("18446744073709551615", Budget::Count(usize::MAX)),
        ] {
            assert_eq!((budget.to_string().as_str(), Budget::parse(text)), (text, Some(budget)), "(got, expected)");
        }
    }

    #[test]
    fn the_largest_scores_are_kept_in_rising_order() {
        let scores = [0.20, 0.25, 0.20, 0.25, 0.10];
        assert_eq!(best(&scores, 2), [1, 3], "(got, expected)");
        assert_eq!(best(&scores, 3), [0, 1, 3], "0 and 2 are equal (got, expected)");
        assert_eq!(best(&scores, Budget::Ratio(0.5).of(5)), [0, 1, 3], "2.5 rounds up (got, expected)");
        assert_eq!(best(&[0.0, -0.0, f32::NAN, f32::INFINITY, 0.0], 3), [0, 1, 3], "(got, expected)");
        assert_eq!((best(&scores, 9), best::<f32>(&[], 1)), (vec![0, 1, 2, 3, 4], vec![]), "(got, expected)");
    }

    #[test]
    fn each_tile_has_its_budget() {
        // a thumbnail of 2 x 2 (0 to 3), two tiles (4 5 9 10 and 6 7 11 12), newlines at 8 and 13
        let grid = Grid { rows: 1, cols: 2, patches: 2, side: 2, cut: (2, 4), height: 2, width: 4, ..Grid::default() };
        let stock = Stock::of(&grid);
        let scores: Vec<f32> = [1, 9, 3, 2, 5, 5, 1, 2, 99, 5, 4, 3, 4, 99].map(|score| score as f32).to_vec();
        let of = |keep, thumbnail| by_score(&stock, &scores, keep, thumbnail);
        assert_eq!(of(Budget::Count(1), ThumbnailTokens::Compress), [1, 4, 12], "(got, expected)");
        assert_eq!(of(Budget::Ratio(0.5), ThumbnailTokens::Keep), [4, 5, 11, 12], "(got, expected)");
        assert_eq!(of(Budget::Ratio(1.0), ThumbnailTokens::Drop), [4, 5, 6, 7, 9, 10, 11, 12], "(got, expected)");
    }
}
