//! LLaVA-Meteor's Visual-Native Selection. Input: two scores of every patch. Output: the patches that stay.
//! Source: arXiv 2505.11945. Our interpretation: the paper's method section is not public.

use super::{
    Before, Budget, MethodRow, NEWLINES, Newlines, Place, Scope, Settings, Stock, THUMBNAILS, ThumbnailTokens, name_of,
    select::{SCOPES, best},
};
use crate::error::Error;

pub(crate) const ROW: MethodRow = MethodRow {
    name: "meteor",
    title: "LLaVA-Meteor (our interpretation)",
    about: "Fuses picture and question, then keeps the patches with the highest score of two experts: class attention, and \
            likeness to the question",
    source: "arXiv 2505.11945",
    place: Place::Before,
    default: "meteor:keep=0.25",
    read: |settings| Ok(Before::Meteor(Meteor::read(settings)?).into()),
};

/// How the scores of both experts become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Aggregate {
    /// `w z(visual) + (1 - w) z(native)`, with `z(x) = (x - mean) / standard deviation`.
    #[default]
    ZSum,
    /// `-(2 w rank(visual) + 2 (1 - w) rank(native))`; the highest score has rank 0.
    RankSum,
    /// `-min(rank(visual), rank(native))`: what either expert prefers. The weight is not used.
    RankMin,
}

/// How the likeness of a patch to the tokens of the question becomes one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Pool {
    /// The mean of the cosines.
    #[default]
    Mean,
    /// The largest cosine.
    Max,
}

const AGGREGATES: [(&str, Aggregate); 3] =
    [("z-sum", Aggregate::ZSum), ("rank-sum", Aggregate::RankSum), ("rank-min", Aggregate::RankMin)];
const POOLS: [(&str, Pool); 2] = [("mean", Pool::Mean), ("max", Pool::Max)];

/// LLaVA-Meteor (arXiv 2505.11945), in our interpretation: the paper's method section is not public.
///
/// A trained fusion ([`MeteorConfig`](crate::MeteorConfig)) first lets every patch read the whole picture and the question. Then
/// two experts score each patch: the visual expert is the class attention in the vision tower's last used layer, of the picture
/// before the fusion; the native expert is the cosine of the fused patch and the tokens after the picture, in the width of the
/// text model. The patches with the highest scores stay, in scanline order.
#[derive(Clone, Debug, PartialEq)]
pub struct Meteor {
    /// Kept patches. Default: a ratio of 0.25.
    pub keep: Budget,
    /// Weight of the visual expert, from 0 to 1; the native expert has the rest. Default: 0.5.
    pub visual_weight: f64,
    /// How the scores of both experts become one.
    pub aggregate: Aggregate,
    /// How the native expert pools over the tokens of the question.
    pub native_pool: Pool,
    /// The patches that share one budget.
    pub select: Scope,
    /// The newline embeddings between the kept tokens.
    pub newlines: Newlines,
    /// What becomes of the thumbnail.
    pub thumbnail: ThumbnailTokens,
}

impl Default for Meteor {
    fn default() -> Self {
        Self {
            keep: Budget::Ratio(0.25),
            visual_weight: 0.5,
            aggregate: Aggregate::default(),
            native_pool: Pool::default(),
            select: Scope::Image,
            newlines: Newlines::default(),
            thumbnail: ThumbnailTokens::default(),
        }
    }
}

/// `(x - mean) / standard deviation`, of the population; zeros if all values are equal.
fn z_score(x: &[f64]) -> Vec<f64> {
    let n = x.len() as f64;
    let mean = x.iter().sum::<f64>() / n;
    let spread = (x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt();
    x.iter().map(|x| if spread > 1e-12 { (x - mean) / spread } else { 0.0 }).collect()
}

/// The place of every score among all: 0 is the highest; of equal ones the first is higher. A NaN is the lowest.
fn ranks(scores: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    // The sum makes both zeros equal.
    let value = |i: usize| if scores[i].is_nan() { f64::NEG_INFINITY } else { scores[i] + 0.0 };
    order.sort_by(|&a, &b| value(b).total_cmp(&value(a)));
    let mut ranks = vec![0.0; scores.len()];
    order.into_iter().enumerate().for_each(|(rank, i)| ranks[i] = rank as f64);
    ranks
}

impl Meteor {
    pub(crate) fn read(settings: &mut Settings<'_>) -> Result<Self, Error> {
        let default = Self::default();
        Ok(Self {
            keep: settings.budget("keep", default.keep)?,
            visual_weight: settings.weight("visual-weight", default.visual_weight)?,
            aggregate: settings.one_of("aggregate", default.aggregate, &AGGREGATES)?,
            native_pool: settings.one_of("native-pool", default.native_pool, &POOLS)?,
            select: settings.one_of("select", default.select, &SCOPES)?,
            newlines: settings.newlines()?,
            thumbnail: settings.thumbnail(default.thumbnail)?,
        })
    }

    pub(crate) fn written(&self) -> Vec<(&'static str, String)> {
        vec![
            ("keep", self.keep.to_string()),
            ("visual-weight", self.visual_weight.to_string()),
            ("aggregate", name_of(&AGGREGATES, self.aggregate)),
            ("native-pool", name_of(&POOLS, self.native_pool)),
            ("select", name_of(&SCOPES, self.select)),
            ("newlines", name_of(&NEWLINES, self.newlines)),
            ("thumbnail", name_of(&THUMBNAILS, self.thumbnail)),
        ]
    }

    /// One score per patch from those of both experts, in any units: see [`Aggregate`].
    fn combine(&self, visual: &[f64], native: &[f64]) -> Vec<f64> {
        let (own, other) = match self.aggregate {
            Aggregate::ZSum => (z_score(visual), z_score(native)),
            Aggregate::RankSum | Aggregate::RankMin => (ranks(visual), ranks(native)),
        };
        let w = self.visual_weight;
        let both = |(v, n): (&f64, &f64)| match self.aggregate {
            Aggregate::ZSum => w * v + (1.0 - w) * n,
            Aggregate::RankSum => -(2.0 * w * v + 2.0 * (1.0 - w) * n),
            Aggregate::RankMin => -v.min(*n),
        };
        own.iter().zip(&other).map(both).collect()
    }

    /// The kept stock indices, rising. `visual` and `native` have one value per stock index, and those of newlines are not read.
    /// Without tokens of a question there is no `native`, and the visual expert decides alone.
    #[doc(hidden)]
    pub fn choose(&self, stock: &Stock, visual: &[f32], native: Option<&[f32]>) -> Vec<usize> {
        let groups: Vec<Vec<usize>> = match self.select {
            Scope::Image => vec![stock.candidates(self.thumbnail)],
            Scope::Tile => stock.per_tile(self.thumbnail).into_iter().map(|(_, members)| members).collect(),
        };
        let mut kept = Vec::new();
        for members in groups {
            let own = |scores: &[f32]| -> Vec<f64> { members.iter().map(|&i| f64::from(scores[i])).collect() };
            let scores = match native {
                Some(native) => self.combine(&own(visual), &own(native)),
                None => z_score(&own(visual)),
            };
            kept.extend(best(&scores, self.keep.of(members.len())).into_iter().map(|at| members[at]));
        }
        kept.sort_unstable();
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        compression::Compression,
        grid::{Grid, Newline, Thumbnail},
    };

    fn assert_near(got: &[f64], expected: &[f64], what: &str) {
        let near = got.len() == expected.len() && got.iter().zip(expected).all(|(g, e)| (g - e).abs() < 5e-7);
        assert!(near, "{what}: expected {expected:?}, got {got:?}");
    }

    #[test]
    fn a_z_score_has_mean_0_and_deviation_1() {
        assert_near(&z_score(&[1.0, 2.0, 3.0]), &[-1.224745, 0.0, 1.224745], "rising");
        assert_near(&z_score(&[0.3, 0.3, 0.3]), &[0.0, 0.0, 0.0], "equal");
        assert_near(&z_score(&[]), &[], "none");
    }

    #[test]
    fn equal_scores_rank_by_index() {
        assert_eq!(ranks(&[0.0, 0.2, 0.1, 0.3]), [3.0, 1.0, 2.0, 0.0], "(got, expected)");
        assert_eq!(ranks(&[-0.0, 1.0, 0.0, f64::NAN]), [1.0, 0.0, 2.0, 3.0], "(got, expected)");
    }

    #[test]
    fn both_experts_become_one_score() {
        let (visual, native) = ([0.4, 0.3, 0.2, 0.1], [0.0, 0.2, 0.1, 0.3]);
        for (aggregate, k, expected, kept) in [
            (Aggregate::ZSum, 1, [0.0, 0.447214, -0.447214, 0.0], vec![1]),
            (Aggregate::RankSum, 1, [-3.0, -2.0, -4.0, -3.0], vec![1]),
            (Aggregate::RankMin, 2, [0.0, -1.0, -2.0, 0.0], vec![0, 3]),
        ] {
            let scores = Meteor { aggregate, ..Meteor::default() }.combine(&visual, &native);
            assert_near(&scores, &expected, &format!("{aggregate:?}"));
            assert_eq!(best(&scores, k), kept, "{aggregate:?} (got, expected)");
        }
        let visual_only = Meteor { visual_weight: 1.0, ..Meteor::default() };
        assert_near(&visual_only.combine(&visual, &native), &z_score(&visual), "weight 1");
    }

    /// A thumbnail of 2 x 2 patches (0 to 3) and one tile (4 5, newline, 7 8, newline).
    fn stock() -> Stock {
        let (thumbnail, newline) = (Thumbnail::First, Newline::Rows);
        let grid = Grid { rows: 1, cols: 1, patches: 2, side: 2, cut: (2, 2), height: 2, width: 2, ..Grid::default() };
        Stock::of(&Grid { thumbnail, newline, ..grid })
    }

    #[test]
    fn a_budget_is_for_the_picture_or_for_each_tile() {
        let visual = [0.9, 0.8, 0.1, 0.1, 0.1, 0.2, 9.0, 0.3, 0.4, 9.0];
        let native = [0.1, 0.2, 0.9, 0.9, 0.1, 0.9, 9.0, 0.1, 0.1, 9.0];
        let of = |select, thumbnail, native: Option<&[f32]>| {
            Meteor { select, thumbnail, ..Meteor::default() }.choose(&stock(), &visual, native)
        };
        let (compress, drop) = (ThumbnailTokens::Compress, ThumbnailTokens::Drop);
        assert_eq!(of(Scope::Image, compress, None), [0, 1], "(got, expected)");
        assert_eq!(of(Scope::Tile, compress, None), [0, 8], "(got, expected)");
        assert_eq!(of(Scope::Image, drop, None), [8], "(got, expected)");
        assert_eq!(of(Scope::Tile, drop, Some(&native)), [5], "(got, expected)");
        let all = Meteor { keep: Budget::Count(100), ..Meteor::default() };
        assert_eq!(all.choose(&stock(), &visual, Some(&native)), [0, 1, 2, 3, 4, 5, 7, 8], "(got, expected)");
    }

    #[test]
    fn every_setting_is_spelled() {
        let text = "meteor:keep=64,visual-weight=0.25,aggregate=rank-min,native-pool=max,select=tile,\
                    newlines=none,thumbnail=drop";
        let expected = Meteor {
            keep: Budget::Count(64),
            visual_weight: 0.25,
            aggregate: Aggregate::RankMin,
            native_pool: Pool::Max,
            select: Scope::Tile,
            newlines: Newlines::None,
            thumbnail: ThumbnailTokens::Drop,
        };
        let read: Compression = text.parse().expect("a compression");
        assert_eq!(read.before, Before::Meteor(expected), "(got, expected)");
        assert_eq!(read.to_string(), text, "(got, expected)");
        assert_eq!("meteor:keep=.25".parse::<Compression>().expect("a compression").to_string(), "meteor");
        for wrong in ["meteor:visual-weight=1.5", "meteor:keep=0", "meteor:aggregate=sum", "meteor:window=4"] {
            assert!(wrong.parse::<Compression>().is_err(), "{wrong}: expected an error");
        }
    }
}
