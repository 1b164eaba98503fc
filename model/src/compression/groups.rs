//! Groups of patches for the methods that pick diverse patches one after the other. Input: the patches of each group and
//! their cosines. Output: the patches that a method picks.

use super::select::Budget;

/// The patches that a method compares with each other: those of a picture or of a tile.
pub(crate) struct Group {
    /// Stock indices, rising.
    pub members: Vec<usize>,
    /// Cosines (n, n) of the projected features: symmetric to the bit, so that equal distances stay equal; 1 on the
    /// diagonal.
    pub cosines: Vec<f32>,
}

impl Group {
    /// The cosines of the member at `index` with every member.
    pub(super) fn cosines_of(&self, index: usize) -> &[f32] {
        let n = self.members.len();
        &self.cosines[index * n..][..n]
    }
}

/// The stock indices, rising, that `choose` picks in all groups: `choose(group, k)` returns k indices of members.
pub(super) fn pick(groups: &[Group], keep: Budget, choose: impl Fn(&Group, usize) -> Vec<usize>) -> Vec<usize> {
    let mut kept = Vec::new();
    for group in groups {
        kept.extend(choose(group, keep.of(group.members.len())).into_iter().map(|index| group.members[index]));
    }
    kept.sort_unstable();
    kept
}

/// The index with the largest value among those that are not taken; of equal values the first one. `None` where all are
/// taken.
pub(super) fn largest(taken: &[bool], value: impl Fn(usize) -> f64) -> Option<usize> {
    let free = (0..taken.len()).filter(|&index| !taken[index]);
    free.reduce(|best, index| if value(index) > value(best) { index } else { best })
}

/// A group of the rows of x, with the stock indices 10, 11, ...
#[cfg(test)]
pub(super) fn group(x: &[[f64; 2]]) -> Group {
    let unit: Vec<[f64; 2]> = x.iter().map(|row| row.map(|v| v / row[0].hypot(row[1]).max(1e-12))).collect();
    let cosine = |i: usize, j: usize| if i == j { 1.0 } else { unit[i][0] * unit[j][0] + unit[i][1] * unit[j][1] };
    let n = x.len();
    let cosines = (0..n * n).map(|at| cosine(at / n, at % n) as f32).collect();
    Group { members: (10..10 + n).collect(), cosines }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_per_group_and_the_result_is_rising() {
        let groups = [[3, 5, 6], [1, 2, 9]].map(|members| Group { members: members.to_vec(), cosines: vec![1.0; 9] });
        let kept = pick(&groups, Budget::Ratio(0.5), |_, k| (0..3).rev().take(k).collect());
        assert_eq!(kept, [2, 5, 6, 9], "(got, expected)");
        assert_eq!(pick(&[], Budget::Count(3), |_, _| vec![0]), [0; 0]);
    }

    #[test]
    fn of_equal_values_the_first_free_one_is_the_largest() {
        let values = [3.0, 1.0, 3.0, f64::NAN];
        let of = |taken: [bool; 4]| largest(&taken, |index| values[index]);
        assert_eq!(of([false; 4]), Some(0));
        assert_eq!(of([true, false, false, true]), Some(2));
        assert_eq!(of([true, true, true, false]), Some(3), "a value that is not a number is still a candidate");
        assert_eq!(of([true; 4]), None);
    }
}
