//! A random choice of patches, as a baseline (ours). Input: a seed. Output: in each tile, random patches.

use super::{Budget, Method, MethodRow, Patches, Place, Settings, Stock, ThumbnailTokens, select::by_score};
use crate::error::Error;

pub(crate) const ROW: MethodRow = MethodRow {
    name: "random",
    title: "Random patches",
    about: "Keeps random patches of each tile, as a baseline",
    source: "a baseline of Fovea",
    place: Place::Before,
    default: "random:keep=0.25,seed=0",
    read: |settings| Patches::read(Method::Random(RandomPatches::read(settings)?), settings),
};

/// A baseline of ours: in each tile a random choice, equal for equal seed on every machine.
///
/// The score of stock index i is the output i of SplitMix64 from `seed`; the largest scores are kept.
#[derive(Clone, Debug, PartialEq)]
pub struct RandomPatches {
    /// Kept patches of each tile. Default: a ratio of 0.25.
    pub keep: Budget,
    /// The seed. Default: 0.
    pub seed: u64,
}

impl Default for RandomPatches {
    fn default() -> Self {
        Self { keep: Budget::Ratio(0.25), seed: 0 }
    }
}

impl RandomPatches {
    pub(crate) fn read(settings: &mut Settings<'_>) -> Result<Self, Error> {
        let usual = Self::default();
        Ok(Self { keep: settings.budget("keep", usual.keep)?, seed: settings.seed("seed")?.unwrap_or(usual.seed) })
    }

    pub(crate) fn written(&self) -> Vec<(&'static str, String)> {
        vec![("keep", self.keep.to_string()), ("seed", self.seed.to_string())]
    }

    /// The kept stock indices, rising.
    pub(crate) fn choose(&self, stock: &Stock, thumbnail: ThumbnailTokens) -> Vec<usize> {
        let scores: Vec<f32> = (0..stock.slots.len() as u64).map(|i| split_mix(self.seed, i)).collect();
        by_score(stock, &scores, self.keep, thumbnail)
    }
}

/// Output `i`, from 0, of SplitMix64 from `seed`: its top 24 bits as a number in [0, 1), which f32 holds exactly.
fn split_mix(seed: u64, i: u64) -> f32 {
    let z = seed.wrapping_add(i.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 40) as f32 / (1u32 << 24) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grid::Grid;

    #[test]
    fn split_mix_is_the_published_generator() {
        // e220a8397b1dcdaf, 6e789e6aa1b965f4, 06c45d188009454f: the top 24 bits
        let expected = [0xe2_20a8, 0x6e_789e, 0x06_c45d].map(|bits: u32| bits as f32 / 16_777_216.0);
        let got = [0, 1, 2].map(|i| split_mix(0, i));
        assert_eq!(got, expected, "(got, expected)");
        for (got, near) in got.into_iter().zip([0.883_310_8, 0.431_527_97, 0.026_433_77]) {
            assert!((got - near).abs() < 1e-7f32, "expected {near}, got {got}");
        }
        assert_ne!(split_mix(u64::MAX, u64::MAX), split_mix(0, 0), "another seed");
    }

    #[test]
    fn the_choice_depends_on_the_seed_alone() {
        let grid = Grid { rows: 2, cols: 1, patches: 4, side: 4, cut: (8, 4), height: 8, width: 4, ..Grid::default() };
        let stock = Stock::of(&grid);
        let of = |seed| RandomPatches { seed, ..RandomPatches::default() }.choose(&stock, ThumbnailTokens::Compress);
        assert_eq!(of(7), of(7), "a second choice (got, expected)");
        assert_ne!(of(7), of(8), "another seed");
        for tile in 0..3 {
            assert_eq!(of(7).iter().filter(|&&i| stock.tiles[i] == tile).count(), 4, "tile {tile} (got, expected)");
        }
    }
}
