//! CDPruner without its text. Input: the cosines of projected patches; class attention, if that is the relevance. Output:
//! diverse patches, by a determinantal point process.
//! Source: arXiv 2506.10967; github.com/Theia-4869/CDPruner, commit 9541616.

use super::{
    Budget, Method, MethodRow, Patches, Place, Scope, Settings,
    groups::{Group, largest, pick},
    name_of,
    select::SCOPES,
};
use crate::error::Error;

pub(crate) const ROW: MethodRow = MethodRow {
    name: "cd-pruner",
    title: "CDPruner",
    about: "Keeps diverse patches of each tile, by a determinantal point process",
    source: "arXiv 2506.10967",
    place: Place::Before,
    default: "cd-pruner:keep=0.25",
    read: |settings| Patches::read(Method::CdPruner(CdPruner::read(settings)?), settings),
};

/// What is left of a patch below this share of the largest diagonal value is noise.
const NOISE: f64 = 1e-5;

/// How much a patch matters, besides its difference from the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Relevance {
    /// All patches matter alike.
    #[default]
    None,
    /// The attention of the vision tower's class token (our extension), scaled over all candidates:
    /// `r = (a - min a + 1e-6) / (max a - min a)`.
    Class,
}

/// The names of [`Relevance`].
const RELEVANCES: [(&str, Relevance); 2] = [("none", Relevance::None), ("class", Relevance::Class)];

/// CDPruner (arXiv 2506.10967) without its text: diverse patches, by greedy MAP of a determinantal point process with the
/// kernel `L_ij = r_i cos(x_i, x_j) r_j` of the projected features.
///
/// The relevance r of the original is the likeness to the question by CLIP's text tower, which checkpoints of LLaVA do not
/// have.
#[derive(Clone, Debug, PartialEq)]
pub struct CdPruner {
    /// Kept patches, per tile or of all; k of n candidates take `n k^2 / 2` multiplications and `n k` values of memory.
    /// Default: a ratio of 0.25.
    pub keep: Budget,
    /// The patches that are compared with each other. Default: those of each tile.
    pub scope: Scope,
    /// How much each patch matters. Default: none.
    pub relevance: Relevance,
}

impl Default for CdPruner {
    fn default() -> Self {
        Self { keep: Budget::Ratio(0.25), scope: Scope::Tile, relevance: Relevance::None }
    }
}

/// At most `k` members in the order of picking: greedy MAP of a determinantal point process with the kernel
/// `L_ij = r_i cos(i, j) r_j` (Chen et al., NeurIPS 2018), relevance `r` (n).
///
/// `left_i = r_i^2` at first. Each pick is `j = argmax_i left_i`, of equal ones the first; then
/// `e_i = (L_ji - sum_m c_mj c_mi) / sqrt(left_j)`, `left_i -= e_i^2`, and `e` is the next row of c. Once no `left_i`
/// is above [`NOISE`] of the largest `r_i^2`, the remaining picks go by rising index.
fn fast_map(group: &Group, r: &[f64], k: usize) -> Vec<usize> {
    let n = group.members.len();
    let mut left: Vec<f64> = r.iter().map(|r| r * r).collect();
    let floor = NOISE * left.iter().copied().fold(0.0, f64::max);
    let (mut taken, mut order, mut rows) = (vec![false; n], Vec::new(), Vec::new());
    while order.len() < k {
        let Some(index) = largest(&taken, |i| left[i]).filter(|&index| left[index] > floor) else { break };
        let mut row = vec![0.0; n];
        for earlier in rows.chunks_exact(n) {
            let own: f64 = earlier[index];
            row.iter_mut().zip(earlier).for_each(|(sum, value)| *sum += own * value);
        }
        let root = left[index].sqrt();
        for (i, (e, cosine)) in row.iter_mut().zip(group.cosines_of(index)).enumerate() {
            *e = (r[index] * f64::from(*cosine) * r[i] - *e) / root;
            left[i] -= *e * *e;
        }
        rows.extend(row);
        taken[index] = true;
        order.push(index);
    }
    let rest: Vec<usize> = (0..n).filter(|&index| !taken[index]).take(k.saturating_sub(order.len())).collect();
    order.extend(rest);
    order
}

/// Relevance of one patch by its class attention, of all candidates' attention between `least` and `most`.
fn relevance(own: f64, least: f64, most: f64) -> f64 {
    (own - least + 1e-6) / (most - least).max(1e-12)
}

impl CdPruner {
    pub(crate) fn read(settings: &mut Settings<'_>) -> Result<Self, Error> {
        let default = Self::default();
        Ok(Self {
            keep: settings.budget("keep", default.keep)?,
            scope: settings.one_of("scope", default.scope, &SCOPES)?,
            relevance: settings.one_of("relevance", default.relevance, &RELEVANCES)?,
        })
    }

    pub(crate) fn written(&self) -> Vec<(&'static str, String)> {
        vec![
            ("keep", self.keep.to_string()),
            ("scope", name_of(&SCOPES, self.scope)),
            ("relevance", name_of(&RELEVANCES, self.relevance)),
        ]
    }

    /// The kept stock indices, rising. `attention` is the class attention per stock index, which the relevance
    /// `Class` needs; without it all patches matter alike.
    pub(crate) fn choose(&self, groups: &[Group], attention: Option<&[f32]>) -> Vec<usize> {
        let attention = attention.filter(|_| self.relevance == Relevance::Class);
        let range = attention.map(|of| {
            let values = groups.iter().flat_map(|group| &group.members).map(|&index| f64::from(of[index]));
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), own| (least.min(own), most.max(own)))
        });
        pick(groups, self.keep, |group, k| {
            let of = |&index: &usize| match (attention, range) {
                (Some(of), Some((least, most))) => relevance(f64::from(of[index]), least, most),
                _ => 1.0,
            };
            fast_map(group, &group.members.iter().map(of).collect::<Vec<f64>>(), k)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::groups::group, *};

    /// (1, 0), (0.8, 0.6), (0, 1), (-1, 0).
    const ROWS: [[f64; 2]; 4] = [[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-1.0, 0.0]];

    #[test]
    fn each_pick_is_what_the_picks_before_it_explain_least() {
        // left = 1 1 1 1 -> 0; - .36 1 0 -> 2; - 0 - 0: exhausted, by rising index: 1, 3
        for (k, order) in [(1, vec![0]), (2, vec![0, 2]), (3, vec![0, 2, 1]), (4, vec![0, 2, 1, 3])] {
            assert_eq!(fast_map(&group(&ROWS), &[1.0; 4], k), order, "k = {k} (got, expected)");
        }
        assert_eq!(fast_map(&group(&ROWS), &[1.0; 4], 9).len(), 4, "never more than there are");
    }

    #[test]
    fn relevance_scales_the_kernel() {
        // left = .25 1 1 1 -> 1; .09 - .64 .36 -> 2; exhausted: 0, 3
        assert_eq!(fast_map(&group(&ROWS), &[0.5, 1.0, 1.0, 1.0], 4), [1, 2, 0, 3], "(got, expected)");
    }

    #[test]
    fn a_pick_uses_all_rows_before_it() {
        // (1, 0, 0), (0, 1, 0), (.8, .6, 0), (.6, .6, .53): left = 1 1 1 1 -> 0; 1 .36 .64 -> 1; 0 .28 -> 3
        let cosines = vec![1.0, 0.0, 0.8, 0.6, 0.0, 1.0, 0.6, 0.6, 0.8, 0.6, 1.0, 0.84, 0.6, 0.6, 0.84, 1.0];
        let group = Group { members: vec![0, 1, 2, 3], cosines };
        assert_eq!(fast_map(&group, &[1.0; 4], 4), [0, 1, 3, 2], "(got, expected)");
    }

    #[test]
    fn rows_of_zeros_and_equal_rows() {
        // zeros: their diagonal is still r^2, so they count as a direction of their own
        let rows = [[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]];
        assert_eq!(fast_map(&group(&rows), &[1.0; 3], 3), [0, 2, 1], "(got, expected)");
        assert_eq!(fast_map(&group(&[[1.0, 1.0]; 4]), &[1.0; 4], 3), [0, 1, 2], "exhausted after one pick");
        assert_eq!(fast_map(&group(&ROWS), &[0.0; 4], 2), [0, 1], "a kernel of zeros is exhausted at once");
    }

    #[test]
    fn one_patch_and_no_patch() {
        assert_eq!(fast_map(&group(&[[1.0, 0.0]]), &[1.0], 1), [0]);
        assert_eq!(fast_map(&group(&[]), &[], 1), [0; 0]);
    }

    #[test]
    fn values_that_are_not_numbers_end_in_some_choice() {
        let broken = Group { members: vec![0, 1, 2], cosines: vec![f32::NAN; 9] };
        assert_eq!(fast_map(&broken, &[1.0; 3], 2), [0, 1]);
        assert_eq!(fast_map(&broken, &[f64::NAN; 3], 2), [0, 1]);
    }

    #[test]
    fn class_attention_is_scaled_over_all_groups() {
        assert!((relevance(0.2, 0.1, 0.5) - 0.250_002_5).abs() < 1e-12);
        assert_eq!(relevance(0.3, 0.3, 0.3), 1e6, "equal attention: equal relevance, above 0");
        let class = CdPruner { keep: Budget::Count(2), relevance: Relevance::Class, ..CdPruner::default() };
        let mut attention = [0.0; 14];
        attention[10..].copy_from_slice(&[0.3, 0.5, 0.5, 0.1]);
        // r = .5 1 1 0 (each a little more): 1, then 2
        assert_eq!(class.choose(&[group(&ROWS)], Some(&attention)), [11, 12], "(got, expected)");
        let plain = CdPruner { relevance: Relevance::None, ..class };
        assert_eq!(plain.choose(&[group(&ROWS)], Some(&attention)), [10, 12], "(got, expected)");
        assert_eq!(plain.choose(&[], None), [0; 0]);
    }
}
