//! VisionZip. Input: class attention, keys and output of the tower's last layer in use. Output: in each tile, the patches
//! with the most attention, and a few tokens that the other patches are merged into.
//! Source: arXiv 2412.04467; github.com/dvlab-research/VisionZip, commit 3151f6d.

use super::{Budget, Method, MethodRow, Patches, Place, Settings, Stock, ThumbnailTokens, name_of, select::best_of};
use crate::error::Error;

pub(crate) const ROW: MethodRow = MethodRow {
    name: "vision-zip",
    title: "VisionZip",
    about: "Keeps the patches of each tile that the vision tower's class token attends to most, and merges the others",
    source: "arXiv 2412.04467",
    place: Place::Before,
    default: "vision-zip:dominant=0.092,contextual=0.017",
    read: |settings| Patches::read(Method::VisionZip(VisionZip::read(settings)?), settings),
};

/// What a merged token is: h are the values of its target and of the patches that join it, before the projector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Merge {
    /// `h_target + mean h_joined`, as in the repository.
    #[default]
    AddMean,
    /// `mean(h_target, h_joined)`.
    Mean,
}

/// The names of [`Merge`].
const MERGES: [(&str, Merge); 2] = [("add-mean", Merge::AddMean), ("mean", Merge::Mean)];

/// VisionZip (arXiv 2412.04467): in each tile, the patches that the class token attends to most, and the others merged.
///
/// Of the n others, in raster order, every `max(1, floor(n / contextual))`-th is a target. Each remaining patch j joins the
/// target t of the nearest key, `argmax_t cos(k_j, k_t)`, mean over heads. A merged token is at its target's place, the
/// thumbnail's class token comes first and those of the other tiles last; the original has other places, and no newlines.
#[derive(Clone, Debug, PartialEq)]
pub struct VisionZip {
    /// Patches of each tile that stay as they are. A count includes the class token, if that is sent; a ratio does not.
    /// Default: 0.092, which with the class token is the original's 54 of 576 patches.
    pub dominant: Budget,
    /// Merged tokens of each tile. With 0 the other patches are dropped. Default: 0.017, the original's 10 of 576
    /// patches.
    pub contextual: Budget,
    /// Whether each tile's class token is sent too. The projector of LLaVA-NeXT was not trained with it. Default: true.
    pub class_token: bool,
    /// What a merged token is. Default: add-mean.
    pub merge: Merge,
}

impl Default for VisionZip {
    fn default() -> Self {
        let (dominant, contextual) = (Budget::Ratio(0.092), Budget::Ratio(0.017));
        Self { dominant, contextual, class_token: true, merge: Merge::AddMean }
    }
}

/// The visual tokens of a picture, as stock indices.
#[derive(Debug, PartialEq, Default)]
pub(crate) struct Zipped {
    /// Patches that stay as they are, rising.
    pub dominant: Vec<usize>,
    /// Merged tokens, by rising target.
    pub merged: Vec<Merged>,
    /// Tiles whose class token is sent, rising; 0 is the thumbnail.
    pub class_tiles: Vec<usize>,
}

/// One merged token, as stock indices.
#[derive(Debug, PartialEq)]
pub(crate) struct Merged {
    /// The patch whose place it takes.
    pub target: usize,
    /// The other patches that it stands for, rising.
    pub joined: Vec<usize>,
}

/// Every `max(1, floor(n / count))`-th of n items from the first on, at most `count` of them.
fn spaced(items: &[usize], count: usize) -> Vec<usize> {
    items.iter().copied().step_by((items.len() / count.max(1)).max(1)).take(count).collect()
}

/// A row divided by its length, in f64; a row of zeros stays one.
fn unit(row: &[f32]) -> Vec<f64> {
    let length = row.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt().max(1e-12);
    row.iter().map(|&value| f64::from(value) / length).collect()
}

impl VisionZip {
    pub(crate) fn read(settings: &mut Settings<'_>) -> Result<Self, Error> {
        let default = Self::default();
        Ok(Self {
            dominant: settings.budget("dominant", default.dominant)?,
            contextual: settings.budget_or_none("contextual", default.contextual)?,
            class_token: settings.flag("class-token", default.class_token)?,
            merge: settings.one_of("merge", default.merge, &MERGES)?,
        })
    }

    pub(crate) fn written(&self) -> Vec<(&'static str, String)> {
        vec![
            ("dominant", self.dominant.to_string()),
            ("contextual", self.contextual.to_string()),
            ("class-token", self.class_token.to_string()),
            ("merge", name_of(&MERGES, self.merge)),
        ]
    }

    /// The tokens of a picture, from the class attention (slots) and the keys (slots, d), both by stock index. Equal
    /// attention: the lower stock index; equal likeness: the earlier target.
    pub(crate) fn choose(&self, stock: &Stock, attention: &[f32], keys: &[f32], thumbnail: ThumbnailTokens) -> Zipped {
        let width = keys.len() / stock.slots.len().max(1);
        let key = |index: usize| &keys[index * width..][..width];
        let mut zipped = Zipped::default();
        for (tile, members) in stock.per_tile(thumbnail) {
            let n = members.len();
            let counted = matches!(self.dominant, Budget::Count(_)) && self.class_token;
            let dominant = best_of(&members, attention, self.dominant.of(n) - usize::from(counted));
            let others: Vec<usize> =
                members.into_iter().filter(|index| dominant.binary_search(index).is_err()).collect();
            zipped.dominant.extend(dominant);
            zipped.class_tiles.extend(self.class_token.then_some(tile));

            let contextual = if self.contextual == Budget::Count(0) { 0 } else { self.contextual.of(n) };
            let targets = spaced(&others, contextual);
            let directions: Vec<Vec<f64>> = targets.iter().map(|&target| unit(key(target))).collect();
            let mut joined = vec![Vec::new(); targets.len()];
            for index in others.into_iter().filter(|index| targets.binary_search(index).is_err()) {
                let own = unit(key(index));
                let cosine = |to: &Vec<f64>| to.iter().zip(&own).map(|(a, b)| a * b).sum::<f64>();
                let cosines = directions.iter().map(cosine).enumerate();
                if let Some((at, _)) = cosines.reduce(|best, next| if next.1 > best.1 { next } else { best }) {
                    joined[at].push(index);
                }
            }
            let tokens = targets.into_iter().zip(joined).map(|(target, joined)| Merged { target, joined });
            zipped.merged.extend(tokens);
        }
        zipped.dominant.sort_unstable();
        zipped.merged.sort_unstable_by_key(|token| token.target);
        zipped
    }

    /// The values (d) of a merged token before the projector, from those of all patches (slots, d) by stock index, in f64:
    /// `h_target + mean_j h_j` or `mean(h_target, h_j, ...)` over the patches j that join; `h_target` where none joins.
    pub(crate) fn merge(&self, hidden: &[f32], d: usize, merged: &Merged) -> Vec<f32> {
        let count = merged.joined.len() as f64;
        let value = |at: usize| {
            let of = |index: usize| f64::from(hidden[index * d + at]);
            let (own, sum) = (of(merged.target), merged.joined.iter().map(|&index| of(index)).sum::<f64>());
            match self.merge {
                Merge::AddMean => own + sum / count.max(1.0),
                Merge::Mean => (own + sum) / (count + 1.0),
            }
        };
        (0..d).map(|at| value(at) as f32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grid::{Grid, Newline, Thumbnail};

    /// One tile, of which one row of 5 patches is left, without thumbnail and newlines.
    fn row() -> Stock {
        let (thumbnail, newline) = (Thumbnail::Own, Newline::None);
        let side = Grid { rows: 1, cols: 1, patches: 5, side: 5, top: 2, cut: (1, 5), ..Grid::default() };
        Stock::of(&Grid { height: 1, width: 5, thumbnail, newline, ..side })
    }

    const ATTENTION: [f32; 5] = [0.1, 0.5, 0.1, 0.2, 0.1];
    /// (1, 0), (0, 0), (3, 4), (0, 2), (2, 1).
    const KEYS: [f32; 10] = [1.0, 0.0, 0.0, 0.0, 3.0, 4.0, 0.0, 2.0, 2.0, 1.0];

    fn zip(dominant: Budget, contextual: Budget, class_token: bool) -> VisionZip {
        VisionZip { dominant, contextual, class_token, merge: Merge::AddMean }
    }

    /// Dominant patches; merged tokens, each with the patches that join it; tiles whose class token is sent.
    type Chosen = (Vec<usize>, Vec<(usize, Vec<usize>)>, Vec<usize>);

    fn choose(method: &VisionZip) -> Chosen {
        let zipped = method.choose(&row(), &ATTENTION, &KEYS, ThumbnailTokens::Compress);
        let merged = zipped.merged.into_iter().map(|token| (token.target, token.joined)).collect();
        (zipped.dominant, merged, zipped.class_tiles)
    }

    #[test]
    fn targets_are_evenly_spaced_from_the_first() {
        assert_eq!(spaced(&[0, 2, 3, 4], 2), [0, 3], "(got, expected)");
        assert_eq!(spaced(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 4), [0, 2, 4, 6], "(got, expected)");
        assert_eq!(spaced(&[0, 1, 2, 3, 4], 3), [0, 1, 2], "(got, expected)");
        assert_eq!(spaced(&[0, 1], 9), [0, 1], "(got, expected)");
        assert_eq!((spaced(&[0, 1], 0), spaced(&[], 2)), (vec![], vec![]));
    }

    #[test]
    fn a_patch_joins_the_target_with_the_nearest_key() {
        // cosines to 0: .6, .894; to 3: .8, .447: 2 joins 3, 4 joins 0
        let method = zip(Budget::Count(1), Budget::Count(2), false);
        assert_eq!(choose(&method), (vec![1], vec![(0, vec![4]), (3, vec![2])], vec![]), "(got, expected)");
    }

    #[test]
    fn a_merged_token_is_its_target_and_a_mean() {
        // one column of 1 and one of zeros and threes, of which only 1 and 4 count
        let hidden = [1.0, 0.0, 9.0, 9.0, 3.0, 6.0, 4.0, 2.0, 5.0, 3.0];
        for (merge, first, second, alone) in
            [(Merge::AddMean, [6.0, 3.0], [7.0, 8.0], [1.0, 0.0]), (Merge::Mean, [3.0, 1.5], [3.5, 4.0], [1.0, 0.0])]
        {
            let method = VisionZip { merge, ..VisionZip::default() };
            let of = |target, joined: &[usize]| method.merge(&hidden, 2, &Merged { target, joined: joined.to_vec() });
            assert_eq!((of(0, &[4]), of(3, &[2])), (first.to_vec(), second.to_vec()), "{merge:?} (got, expected)");
            assert_eq!(of(0, &[]), alone, "{merge:?}: no patch joins (got, expected)");
        }
        // add-mean is not the sum of all: 1 + (3 + 5) / 2; mean: (1 + 3 + 5) / 3
        let both = Merged { target: 0, joined: vec![2, 4] };
        for (merge, expected) in [(Merge::AddMean, 5.0), (Merge::Mean, 3.0)] {
            let method = VisionZip { merge, ..VisionZip::default() };
            assert_eq!(method.merge(&[1.0, 9.0, 3.0, 4.0, 5.0], 1, &both), [expected], "{merge:?} (got, expected)");
        }
    }

    #[test]
    fn a_count_includes_the_class_token_and_a_ratio_does_not() {
        let (two, some) = (Budget::Count(2), Budget::Count(1));
        assert_eq!(choose(&zip(two, some, true)), (vec![1], vec![(0, vec![2, 3, 4])], vec![1]), "(got, expected)");
        assert_eq!(choose(&zip(two, some, false)), (vec![1, 3], vec![(0, vec![2, 4])], vec![]), "(got, expected)");
        let ratio = zip(Budget::Ratio(0.4), Budget::Ratio(0.2), true);
        assert_eq!(choose(&ratio), (vec![1, 3], vec![(0, vec![2, 4])], vec![1]), "(got, expected)");
        assert_eq!(choose(&zip(Budget::Count(1), some, true)).0, [0; 0], "the class token alone");
    }

    #[test]
    fn the_default_is_the_original_s_of_576_patches_and_less_of_a_small_tile() {
        for (side, patches, merged) in [(24, 53, 10), (8, 6, 2)] {
            let (thumbnail, newline) = (Thumbnail::Own, Newline::None);
            let grid = Grid { rows: 1, cols: 1, patches: side, side, cut: (side, side), ..Grid::default() };
            let stock = Stock::of(&Grid { height: side, width: side, thumbnail, newline, ..grid });
            let n = side * side;
            let zipped =
                VisionZip::default().choose(&stock, &vec![1.0; n], &vec![1.0; 2 * n], ThumbnailTokens::Compress);
            // The class token is the 54th of 576.
            let got = (zipped.dominant.len(), zipped.merged.len(), zipped.class_tiles.len());
            assert_eq!(got, (patches, merged, 1), "{side} x {side} patches (got, expected)");
        }
    }

    #[test]
    fn large_budgets_keep_every_patch() {
        let all = choose(&zip(Budget::Count(9), Budget::Count(9), false));
        assert_eq!(all, (vec![0, 1, 2, 3, 4], vec![], vec![]), "(got, expected)");
        let rest = choose(&zip(Budget::Count(2), Budget::Count(9), false));
        let alone = |target| (target, vec![]);
        assert_eq!(rest, (vec![1, 3], vec![alone(0), alone(2), alone(4)], vec![]), "(got, expected)");
        let dropped = choose(&zip(Budget::Count(2), Budget::Count(0), false));
        assert_eq!(dropped, (vec![1, 3], vec![], vec![]), "(got, expected)");
    }

    #[test]
    fn of_equal_targets_and_for_zeros_the_first_is_joined() {
        let method = zip(Budget::Count(1), Budget::Count(2), false);
        for keys in [[0.0; 10], [1.0; 10], [f32::NAN; 10]] {
            let zipped = method.choose(&row(), &ATTENTION, &keys, ThumbnailTokens::Compress);
            let joined: Vec<_> = zipped.merged.into_iter().map(|token| token.joined).collect();
            assert_eq!(joined, [vec![2, 4], vec![]], "keys {} (got, expected)", keys[0]);
        }
    }

    #[test]
    fn each_tile_has_its_own_tokens() {
        // a thumbnail of 2 x 2 (0 to 3), two tiles (4 5 9 10 and 6 7 11 12), newlines at 8 and 13
        let grid = Grid { rows: 1, cols: 2, patches: 2, side: 2, cut: (2, 4), height: 2, width: 4, ..Grid::default() };
        let stock = Stock::of(&grid);
        let attention: Vec<f32> = (0..14).map(|index| index as f32).collect();
        let method = zip(Budget::Count(2), Budget::Count(1), true);
        let zipped = method.choose(&stock, &attention, &[1.0; 28], ThumbnailTokens::Compress);
        let merged = |target, joined: [usize; 2]| Merged { target, joined: joined.to_vec() };
        let expected = Zipped {
            dominant: vec![3, 10, 12],
            merged: vec![merged(0, [1, 2]), merged(4, [5, 9]), merged(6, [7, 11])],
            class_tiles: vec![0, 1, 2],
        };
        assert_eq!(zipped, expected, "(got, expected)");
        let map = method.choose(&stock, &attention, &[1.0; 28], ThumbnailTokens::Drop);
        assert_eq!((map.dominant, map.merged.len(), map.class_tiles), (vec![10, 12], 2, vec![1, 2]), "(got, expected)");
    }
}
