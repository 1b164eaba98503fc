//! The settings of FastV. Source: arXiv 2403.06764; github.com/pkunlp-icler/FastV, commit d165972.

use super::{Budget, MethodRow, Place, Pruning, Quota, Score, Settings, Within};
use crate::{config::Config, error::Error};

pub(crate) const ROW: MethodRow = MethodRow {
    name: "fastv",
    title: "FastV",
    about: "Drops the visual tokens that the end of the prompt attends to least in an early layer",
    source: "arXiv 2403.06764",
    place: Place::Within,
    default: "fastv:layer=2,keep=0.5",
    read: |settings| Ok(Within::FastV(FastV::read(settings)?).into()),
};

/// FastV (arXiv 2403.06764): before one layer, the visual tokens stay that the last token of the prompt attends to most in the
/// layer below, mean over query heads.
///
/// `layer` is the paper's K, and `keep` is `1 - R` of all visual tokens. Tokens keep their positions, as in the authors' in-place
/// version.
#[derive(Clone, Debug, PartialEq)]
pub struct FastV {
    /// The layer, from 1, whose input is pruned. Default: 2.
    pub layer: usize,
    /// Kept visual tokens. Default: a ratio of 0.5.
    pub keep: Budget,
}

impl Default for FastV {
    fn default() -> Self {
        Self { layer: 2, keep: Budget::Ratio(0.5) }
    }
}

impl FastV {
    pub(crate) fn read(settings: &mut Settings<'_>) -> Result<Self, Error> {
        let usual = Self::default();
        Ok(Self {
            layer: settings.count("layer", usual.layer, 1..=usize::MAX)?,
            keep: settings.budget("keep", usual.keep)?,
        })
    }

    pub(crate) fn written(&self) -> Vec<(&'static str, String)> {
        vec![("layer", self.layer.to_string()), ("keep", self.keep.to_string())]
    }

    /// One pruning.
    pub(crate) fn prunings(&self, _: &Config) -> Vec<Pruning> {
        vec![Pruning { layer: self.layer, score: Score::RowBelow, keep: Quota::Budget(self.keep) }]
    }
}
