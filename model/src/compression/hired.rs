//! HiRED. Input: class attention of an early and of the last used layer of the vision tower. Output: the kept patches, with one
//! budget that all tiles share. Source: arXiv 2408.10945; github.com/hasanar1f/HiRED, commit 502d6dd.

use super::{
    Method, MethodRow, Patches, Place, Settings, Stock, ThumbnailTokens, name_of,
    select::{best, best_of},
    stock::tile_at,
};
use crate::error::Error;

pub(crate) const ROW: MethodRow = MethodRow {
    name: "hired",
    title: "HiRED",
    about: "Shares one budget among the tiles by early attention, and keeps the patches with the most late attention",
    source: "arXiv 2408.10945",
    place: Place::Before,
    default: "hired:rate=0.2,alpha=0.5",
    read: |settings| Patches::read(Method::Hired(Hired::read(settings)?), settings),
};

/// Which tile shows the same part of the picture as a patch of the thumbnail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum BudgetMap {
    /// The tile at the centre of the patch, scaled to the map without its padding (our choice).
    #[default]
    Spatial,
    /// What the authors' code computes: it cuts the thumbnail into horizontal strips, one per tile.
    Strips,
}

const MAPS: [(&str, BudgetMap); 2] = [("spatial", BudgetMap::Spatial), ("strips", BudgetMap::Strips)];

/// HiRED (arXiv 2408.10945): one budget for the picture, which the tiles share by the early attention of the thumbnail.
///
/// - `B = floor(rate * n)` of all n candidates. The thumbnail keeps `min(floor(alpha * B), P*P)`, at least 1; the tiles share
///   the rest.
/// - Salient are the `floor((1 - alpha) * P*P)` patches of the thumbnail with the most class attention in layer
///   `budget_layer`. A tile of n_t candidates with m_t salient patches keeps `min(n_t, floor(rest * m_t / sum m))`; without
///   salient patches, `m_t = n_t` (our choice).
/// - Each tile keeps the patches with the most class attention in the layer whose output are the features.
///
/// What rounding loses is lost, as in the original. The original counts padding in n, and cuts it off afterwards; that n has
/// no padding is our choice. A picture of one tile without a thumbnail keeps B patches of that tile, at least 1 (our choice).
#[derive(Clone, Debug, PartialEq)]
pub struct Hired {
    /// Kept share of all candidates; 1 keeps everything. Default: 0.2.
    pub rate: f64,
    /// Share of the budget for the thumbnail, 0 to 1. Default: 0.5.
    pub alpha: f64,
    /// The layer of the vision tower, from 0, whose attention shares the budget. Default: 0.
    pub budget_layer: usize,
    /// How patches of the thumbnail are mapped to tiles.
    pub map: BudgetMap,
}

impl Default for Hired {
    fn default() -> Self {
        Self { rate: 0.2, alpha: 0.5, budget_layer: 0, map: BudgetMap::default() }
    }
}

impl Hired {
    pub(crate) fn read(settings: &mut Settings<'_>) -> Result<Self, Error> {
        let usual = Self::default();
        Ok(Self {
            rate: settings.share("rate", usual.rate)?,
            alpha: settings.weight("alpha", usual.alpha)?,
            budget_layer: settings.count("budget-layer", usual.budget_layer, 0..=usize::MAX)?,
            map: settings.one_of("map", usual.map, &MAPS)?,
        })
    }

    pub(crate) fn written(&self) -> Vec<(&'static str, String)> {
        vec![
            ("rate", self.rate.to_string()),
            ("alpha", self.alpha.to_string()),
            ("budget-layer", self.budget_layer.to_string()),
            ("map", name_of(&MAPS, self.map)),
        ]
    }

    /// The kept stock indices, rising.
    ///
    /// `early` is the class attention of layer `budget_layer` to the P*P patches of the thumbnail (without a thumbnail: of the
    /// only tile); `late` that of the feature layer, one value per stock index.
    pub(crate) fn choose(&self, stock: &Stock, early: &[f32], late: &[f32]) -> Vec<usize> {
        let thumbnail = ThumbnailTokens::Compress;
        if self.rate >= 1.0 {
            return stock.candidates(thumbnail);
        }
        let area = stock.patches * stock.patches;
        let mut tiles = vec![Vec::new(); 1 + stock.rows * stock.cols];
        for (tile, members) in stock.per_tile(thumbnail) {
            tiles[tile] = members;
        }
        let sizes: Vec<usize> = tiles.iter().map(Vec::len).collect();
        let total = (sizes.iter().sum::<usize>() as f64 * self.rate) as usize;
        let own = ((total as f64 * self.alpha) as usize).min(area);
        let salient = best(early, (area as f64 * (1.0 - self.alpha)) as usize);
        let mut shares = match sizes[0] {
            0 => self.shares(stock, &salient, &sizes[1..], total.max(1)),
            _ => self.shares(stock, &salient, &sizes[1..], total - own),
        };
        shares.insert(0, own.max(1).min(sizes[0]));
        let mut kept: Vec<usize> =
            tiles.iter().zip(shares).flat_map(|(members, share)| best_of(members, late, share)).collect();
        kept.sort_unstable();
        kept
    }

    /// The budgets of all tiles of `sizes` candidates.
    fn shares(&self, stock: &Stock, salient: &[usize], sizes: &[usize], total: usize) -> Vec<usize> {
        let regions = self.regions(stock);
        let count = |tile| salient.iter().filter(|&&patch| regions[patch] == tile).count();
        budgets(&(0..sizes.len()).map(count).collect::<Vec<_>>(), sizes, total)
    }

    /// The tile (from 0, in raster order) of each patch of the thumbnail.
    fn regions(&self, stock: &Stock) -> Vec<usize> {
        let &Stock { patches: p, rows, cols, top, left, .. } = stock;
        let at =
            |v: usize, pad: usize, tiles: usize| tile_at(v, [p, (tiles * p).saturating_sub(2 * pad), pad, p, tiles]);
        let spatial = |i: usize| at(i / p, top, rows) * cols + at(i % p, left, cols);
        let strip = |i: usize| (i / (p * p / (rows * cols)).max(1)).min(rows * cols - 1);
        (0..p * p).map(|i| if self.map == BudgetMap::Spatial { spatial(i) } else { strip(i) }).collect()
    }
}

/// `min(n_t, floor(total * m_t / sum m))` for each tile; without salient patches by area.
fn budgets(salient: &[usize], sizes: &[usize], total: usize) -> Vec<usize> {
    let total = total.min(sizes.iter().sum());
    let counts = if salient.iter().all(|&count| count == 0) { sizes } else { salient };
    let sum = counts.iter().sum::<usize>().max(1);
    counts.iter().zip(sizes).map(|(&m, &n)| (total * m / sum).min(n)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grid::{Grid, Newline, Thumbnail};

    /// 2 x 2 tiles of 4 x 4 patches without padding.
    fn square() -> Stock {
        let (cut, patches) = ((8, 8), 4);
        Stock::of(&Grid { rows: 2, cols: 2, patches, side: 4, cut, height: 8, width: 8, ..Grid::default() })
    }

    #[test]
    fn tiles_share_the_budget_by_their_salient_patches() {
        assert_eq!(budgets(&[4, 2, 1, 1], &[16; 4], 20), [10, 5, 2, 2], "(got, expected)");
        assert_eq!(budgets(&[6, 2, 0, 0], &[16; 4], 30), [16, 7, 0, 0], "(got, expected)");
        assert_eq!(budgets(&[0; 3], &[16, 8, 8], 16), [8, 4, 4], "nothing salient: by area (got, expected)");
        assert_eq!(budgets(&[1, 0], &[0, 0], 7), [0, 0], "an empty map (got, expected)");
    }

    #[test]
    fn a_patch_of_the_thumbnail_belongs_to_the_tile_that_shows_it() {
        let regions = |map, stock: &Stock| Hired { map, ..Hired::default() }.regions(stock);
        let quarters = [0, 0, 1, 1, 0, 0, 1, 1, 2, 2, 3, 3, 2, 2, 3, 3];
        assert_eq!(regions(BudgetMap::Spatial, &square()), quarters, "(got, expected)");
        let strips = [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3];
        assert_eq!(regions(BudgetMap::Strips, &square()), strips, "(got, expected)");
        // 8 rows of 4 patches with 2 rows of padding at each end: the row of a centre is 2 + (y + .5) = 2.5, 3.5, 4.5, 5.5
        let (cut, patches) = ((4, 4), 4);
        let tall = Grid { rows: 2, cols: 1, patches, side: 4, top: 2, cut, height: 4, width: 4, ..Grid::default() };
        let halves = [[0; 8], [1; 8]].concat();
        assert_eq!(regions(BudgetMap::Spatial, &Stock::of(&tall)), halves, "(got, expected)");
    }

    #[test]
    fn early_attention_shares_and_late_attention_chooses() {
        let stock = square();
        // the salient patches are in the last quarter: floor(.5 * 16) = 8, of which the last 8 patches hold 4 + 4
        let early: Vec<f32> = (0..16).map(|patch| patch as f32).collect();
        let late: Vec<f32> = (0..stock.slots.len()).map(|i| i as f32).collect();
        // n = 80, B = 16: the thumbnail 8, tiles 2 and 3 (from 0) 4 each
        let kept = Hired::default().choose(&stock, &early, &late);
        let thumbnail: Vec<usize> = (8..16).collect();
        // the last row of the map is 16 + 7 * 9 = 79 to 86
        assert_eq!(kept, [thumbnail, (79..87).collect()].concat(), "(got, expected)");
        let all = Hired { rate: 1.0, ..Hired::default() }.choose(&stock, &early, &late);
        assert_eq!(all, stock.candidates(ThumbnailTokens::Compress), "(got, expected)");
        let least = Hired { rate: 1e-9, ..Hired::default() }.choose(&stock, &early, &late);
        assert_eq!(least, [15], "(got, expected)");
        // alpha 0: one of the thumbnail, and all its patches are salient, so each tile has a quarter of 16
        let map = Hired { alpha: 0.0, ..Hired::default() }.choose(&stock, &early, &late);
        assert_eq!(stock.tiles.iter().enumerate().filter(|(i, _)| map.contains(i)).count(), 17, "(got, expected)");
        let per_tile = |tile| map.iter().filter(|&&i| stock.tiles[i] == tile).count();
        assert_eq!([0, 1, 2, 3, 4].map(per_tile), [1, 4, 4, 4, 4], "(got, expected)");
        // alpha 1: the whole budget is the thumbnail's
        let own = Hired { alpha: 1.0, ..Hired::default() }.choose(&stock, &early, &late);
        assert_eq!(own, (0..16).collect::<Vec<_>>(), "(got, expected)");
    }

    #[test]
    fn a_single_tile_keeps_the_whole_budget() {
        let (thumbnail, newline) = (Thumbnail::Own, Newline::None);
        let grid = Grid { rows: 1, cols: 1, patches: 4, side: 4, cut: (4, 4), height: 4, width: 4, ..Grid::default() };
        let stock = Stock::of(&Grid { thumbnail, newline, ..grid });
        let attention: Vec<f32> = (0..16).map(|patch| patch as f32).collect();
        for (rate, expected) in [(0.2, vec![13, 14, 15]), (0.01, vec![15])] {
            let kept = Hired { rate, ..Hired::default() }.choose(&stock, &attention, &attention);
            assert_eq!(kept, expected, "{rate} (got, expected)");
        }
    }
}
