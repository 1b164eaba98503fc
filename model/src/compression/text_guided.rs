//! The settings of FocusLLaVA's text-guided sampler. Source: arXiv 2411.14228, Sec. 3.3.

use fovea_runtime::Keep;

use super::{Budget, MethodRow, Place, Pruning, Quota, Score, Settings, Within, optional, settings::share};
use crate::{config::Config, error::Error};

pub(crate) const ROW: MethodRow = MethodRow {
    name: "text",
    title: "Text-guided sampler",
    about: "Keeps the visual tokens that matter for the question, by the attention of its text at one layer",
    source: "arXiv 2411.14228",
    place: Place::Within,
    default: "text",
    read: |settings| Ok(Within::Text(TextGuided::read(settings)?).into()),
};

/// FocusLLaVA's text-guided sampler (arXiv 2411.14228, Sec. 3.3): before one layer, only the visual tokens stay that matter for
/// the question.
///
/// `S = mean_text max_heads softmax_visual(q k^T / sqrt(d))`, with the layer's own projections (Eq. 6 to 8); tokens are kept by
/// falling S, until their share of the sum is above gamma (Eq. 9), or within another budget. Without training this is "Direct"
/// of Table 6, with a gamma of 0.9.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct TextGuided {
    /// The layer, from 0, whose input is pruned. None: that of the checkpoint; if it has none, nothing is pruned.
    pub layer: Option<usize>,
    /// How many visual tokens stay. None: gamma of the checkpoint.
    pub keep: Option<Keep>,
}

impl TextGuided {
    /// `gamma` is a threshold of the importance, `keep` a budget: one of them, or none.
    pub(crate) fn read(settings: &mut Settings<'_>) -> Result<Self, Error> {
        let gamma = settings.given("gamma", "a number above 0 and at most 1", share)?.map(Keep::Gamma);
        let keep = settings.budget_if_given("keep")?.map(|budget| match budget {
            Budget::Ratio(ratio) => Keep::Ratio(ratio),
            Budget::Count(count) => Keep::Count(count),
        });
        if gamma.is_some() && keep.is_some() {
            return Err(settings.wrong("keep", "no value next to gamma", "both"));
        }
        Ok(Self {
            layer: settings.given("layer", "a layer from 0 on", |text| text.parse().ok())?,
            keep: gamma.or(keep),
        })
    }

    pub(crate) fn written(&self) -> Vec<(&'static str, String)> {
        let (gamma, keep) = match self.keep {
            None => (None, None),
            Some(Keep::Gamma(gamma)) => (Some(gamma), None),
            Some(Keep::Ratio(ratio)) => (None, Some(Budget::Ratio(ratio))),
            Some(Keep::Count(count)) => (None, Some(Budget::Count(count))),
        };
        vec![("gamma", optional(gamma)), ("keep", optional(keep)), ("layer", optional(self.layer))]
    }

    /// One pruning; none if neither the settings nor the checkpoint have a layer.
    pub(crate) fn prunings(&self, config: &Config) -> Vec<Pruning> {
        let keep = Quota::Keep(self.keep.unwrap_or_else(|| config.focus.keep()));
        let layer = self.layer.or(config.focus.text_layer);
        layer.map(|layer| Pruning { layer, score: Score::Text, keep }).into_iter().collect()
    }
}
