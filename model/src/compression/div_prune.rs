//! DivPrune. Input: the cosines of projected patches. Output: the patches whose closest pair is as far apart as a greedy
//! choice makes it. Source: arXiv 2503.02175; only the published idea.

use super::{
    Budget, Method, MethodRow, Patches, Place, Scope, Settings,
    groups::{Group, largest, pick},
    name_of,
    select::SCOPES,
};
use crate::error::Error;

pub(crate) const ROW: MethodRow = MethodRow {
    name: "div-prune",
    title: "DivPrune",
    about: "Keeps patches that differ from each other as much as possible",
    source: "arXiv 2503.02175",
    place: Place::Before,
    default: "div-prune:keep=0.25",
    read: |settings| Patches::read(Method::DivPrune(DivPrune::read(settings)?), settings),
};

/// DivPrune (arXiv 2503.02175): the patches whose closest pair is as far apart as a greedy choice makes it.
///
/// `d(i, j) = 1 - cos(x_i, x_j)` of the projected features. The first patch is the one farthest from its nearest other, then
/// each is the one farthest from all before it. It needs no attention and no class token. In the original newlines are
/// candidates too; patches only is our choice.
#[derive(Clone, Debug, PartialEq)]
pub struct DivPrune {
    /// Kept patches, per tile or of all. Default: a ratio of 0.25.
    pub keep: Budget,
    /// The patches that are compared with each other. Default: those of all tiles.
    pub scope: Scope,
}

impl Default for DivPrune {
    fn default() -> Self {
        Self { keep: Budget::Ratio(0.25), scope: Scope::Image }
    }
}

/// At most `k` members in the order of picking: `d(i, j) = 1 - cos(i, j)`; first `argmax_i min_{j != i} d(i, j)`, then
/// `argmax_i min_{j picked} d(i, j)`; of equal ones the first. n (n + k) steps for n members.
fn max_min(group: &Group, k: usize) -> Vec<usize> {
    let n = group.members.len();
    // The largest cosine is the smallest distance.
    let closest = |i: usize| {
        let row = group.cosines_of(i);
        row[..i].iter().chain(&row[i + 1..]).copied().fold(f32::NEG_INFINITY, f32::max)
    };
    let mut nearest: Vec<f32> = (0..n).map(closest).collect();
    let (mut taken, mut order) = (vec![false; n], Vec::new());
    while order.len() < k {
        let Some(index) = largest(&taken, |i| -f64::from(nearest[i])) else { break };
        let row = group.cosines_of(index);
        if order.is_empty() {
            nearest = row.to_vec();
        } else {
            nearest.iter_mut().zip(row).for_each(|(near, own)| *near = near.max(*own));
        }
        taken[index] = true;
        order.push(index);
    }
    order
}

impl DivPrune {
    pub(crate) fn read(settings: &mut Settings<'_>) -> Result<Self, Error> {
        let default = Self::default();
        Ok(Self {
            keep: settings.budget("keep", default.keep)?,
            scope: settings.one_of("scope", default.scope, &SCOPES)?,
        })
    }

    pub(crate) fn written(&self) -> Vec<(&'static str, String)> {
        vec![("keep", self.keep.to_string()), ("scope", name_of(&SCOPES, self.scope))]
    }

    /// The kept stock indices, rising.
    pub(crate) fn choose(&self, groups: &[Group]) -> Vec<usize> {
        pick(groups, self.keep, max_min)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::groups::group, *};

    /// (1, 0), (0.8, 0.6), (0, 1), (-1, 0).
    const ROWS: [[f64; 2]; 4] = [[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-1.0, 0.0]];

    #[test]
    fn each_pick_is_the_farthest_from_all_picks_before_it() {
        // nearest other: .2 .2 .4 1; to {3}: 2 1.8 1; to {3, 0}: .2 1
        for (k, order) in [(1, vec![3]), (2, vec![3, 0]), (3, vec![3, 0, 2]), (4, vec![3, 0, 2, 1])] {
            assert_eq!(max_min(&group(&ROWS), k), order, "k = {k} (got, expected)");
        }
        assert_eq!(max_min(&group(&ROWS), 9).len(), 4, "never more than there are");
        // lengths do not matter
        let long = [[5.0, 0.0], [4.0, 3.0], [0.0, 0.1], [-7.0, 0.0]];
        assert_eq!(max_min(&group(&long), 4), [3, 0, 2, 1], "(got, expected)");
    }

    #[test]
    fn of_equal_patches_the_first_is_picked() {
        // 1 and 2 are each other's nearest, as are 0 and 3
        let pairs = [[1.0, 0.0], [0.0, 1.0], [0.0, 2.0], [3.0, 0.0]];
        assert_eq!(max_min(&group(&pairs), 4), [0, 1, 2, 3], "(got, expected)");
        assert_eq!(max_min(&group(&[[1.0, 1.0]; 3]), 2), [0, 1], "all alike (got, expected)");
    }

    #[test]
    fn one_patch_and_no_patch() {
        assert_eq!(max_min(&group(&[[1.0, 0.0]]), 1), [0]);
        assert_eq!(max_min(&group(&[]), 1), [0; 0]);
    }

    #[test]
    fn a_patch_of_zeros_is_at_distance_1_of_all() {
        // nearest other: .2 .2 1 1: the zeros (2) before the opposite (3); then all at 1: the first; then 3
        let rows = [[1.0, 0.0], [0.8, 0.6], [0.0, 0.0], [-1.0, 0.0]];
        assert_eq!(max_min(&group(&rows), 3), [2, 0, 3], "(got, expected)");
    }

    #[test]
    fn values_that_are_not_numbers_end_in_some_choice() {
        let broken = Group { members: vec![0, 1, 2], cosines: vec![f32::NAN; 9] };
        assert_eq!(max_min(&broken, 2).len(), 2);
    }

    #[test]
    fn patches_stay_in_the_order_of_the_sequence() {
        let method = DivPrune { keep: Budget::Count(3), ..DivPrune::default() };
        assert_eq!(method.choose(&[group(&ROWS)]), [10, 12, 13], "(got, expected)");
        let half = DivPrune { keep: Budget::Ratio(0.5), ..DivPrune::default() };
        assert_eq!(half.choose(&[group(&ROWS)]), [10, 13], "(got, expected)");
        assert_eq!(half.choose(&[]), [0; 0]);
    }
}
