//! The prunings of a method inside the text model. Input: its settings and the configuration. Output: for each pruning the
//! layer, the score of the visual tokens, and how many stay.

use fovea_runtime::Keep;

use super::{Budget, Positions, PyramidDrop, Within};
use crate::config::Config;

/// One pruning of the visual tokens. Those that stay keep their order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pruning {
    /// The layer, from 0, whose input is pruned. All layers below have seen every token that was there before.
    pub layer: usize,
    /// What the tokens are ranked by.
    pub score: Score,
    /// How many stay.
    pub keep: Quota,
}

/// What visual tokens are ranked by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Score {
    /// The importance of FocusLLaVA's text-guided sampler (Eq. 6 to 8): queries of the text after the picture.
    Text,
    /// The attention of the last token of the prompt, with rotary positions, mean over query heads, in the layer below:
    /// `mean_h softmax_j(q_last,h . k_j,h / sqrt(d))`.
    RowBelow,
    /// The same in the pruned layer itself, computed from its input.
    RowOwn,
}

/// How many visual tokens stay; at least one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Quota {
    /// As the text-guided sampler.
    Keep(Keep),
    /// A budget of the tokens that are there.
    Budget(Budget),
    /// `floor(ratio * n)` of the n tokens that entered the text model.
    OfFirst(f64),
}

impl Quota {
    /// The same, where `first` visual tokens entered the text model.
    pub fn keep(self, first: usize) -> Keep {
        match self {
            Self::Keep(keep) => keep,
            Self::Budget(Budget::Ratio(ratio)) => Keep::Ratio(ratio),
            Self::Budget(Budget::Count(count)) => Keep::Count(count),
            Self::OfFirst(ratio) => Keep::Count(((first as f64 * ratio) as usize).max(1)),
        }
    }
}

impl Within {
    /// The prunings, in the order of the layers.
    pub(crate) fn prunings(&self, config: &Config) -> Vec<Pruning> {
        match self {
            Self::Every => Vec::new(),
            Self::Text(it) => it.prunings(config),
            Self::FastV(it) => it.prunings(config),
            Self::PyramidDrop(it) => it.prunings(config),
        }
    }

    /// Whether the positions of all tokens are 0, 1, 2, ... again after each pruning. If not, tokens keep their positions.
    pub(crate) fn renumbers(&self) -> bool {
        matches!(self, Self::PyramidDrop(PyramidDrop { positions: Positions::Renumber, .. }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::compression::{Compression, FastV, TextGuided};

    /// A text model of this many layers; the checkpoint's text-guided sampler prunes layer 1.
    fn config(layers: usize) -> Config {
        let text = json!({ "num_hidden_layers": layers });
        let focus = json!({ "text_layer": 1, "gamma": 0.7 });
        Config::from_json(&json!({ "image_token_id": 5, "text_config": text, "focus": focus })).expect("a config")
    }

    #[test]
    fn fastv_prunes_once_by_the_layer_below() {
        let expected = Pruning { layer: 2, score: Score::RowBelow, keep: Quota::Budget(Budget::Ratio(0.5)) };
        assert_eq!(FastV::default().prunings(&config(32)), [expected], "(got, expected)");
        // 3.5 of 7 rounds up
        assert_eq!((expected.keep.keep(7), Budget::Ratio(0.5).of(7)), (Keep::Ratio(0.5), 4), "(got, expected)");
        assert_eq!(Quota::Budget(Budget::Count(3)).keep(7), Keep::Count(3), "(got, expected)");
    }

    #[test]
    fn pyramid_drop_keeps_shares_of_the_first_tokens() {
        let prunings = PyramidDrop::default().prunings(&config(32));
        assert_eq!(prunings.iter().map(|pruning| pruning.layer).collect::<Vec<_>>(), [8, 16, 24], "(got, expected)");
        assert!(prunings.iter().all(|pruning| pruning.score == Score::RowOwn));
        for (first, expected) in [(10, [5, 2, 1]), (7, [3, 1, 1])] {
            let got: Vec<Keep> = prunings.iter().map(|pruning| pruning.keep.keep(first)).collect();
            assert_eq!(got, expected.map(Keep::Count), "{first} tokens (got, expected)");
        }
        let own = PyramidDrop { layers: Some(vec![0, 5]), ratios: vec![1.0, 0.5], ..PyramidDrop::default() };
        assert_eq!(own.prunings(&config(6)).iter().map(|pruning| pruning.layer).collect::<Vec<_>>(), [0, 5]);
        let six = PyramidDrop::default().prunings(&config(6));
        assert_eq!(six.iter().map(|pruning| pruning.layer).collect::<Vec<_>>(), [1, 3, 4], "(got, expected)");
    }

    #[test]
    fn the_text_guided_sampler_has_the_checkpoint_s_defaults() {
        let of = |layer, keep, config: &Config| TextGuided { layer, keep }.prunings(config);
        let pruning = |layer, keep| vec![Pruning { layer, score: Score::Text, keep: Quota::Keep(keep) }];
        assert_eq!(of(None, None, &config(4)), pruning(1, Keep::Gamma(0.7)), "(got, expected)");
        assert_eq!(of(Some(3), Some(Keep::Count(9)), &config(4)), pruning(3, Keep::Count(9)), "(got, expected)");
        let shallow = Config::from_json(&json!({ "image_token_id": 5, "text_config": { "num_hidden_layers": 4 } }));
        let shallow = shallow.expect("a config");
        assert_eq!((of(None, None, &shallow), of(Some(2), None, &shallow).len()), (vec![], 1), "(got, expected)");
    }

    #[test]
    fn only_pyramid_drop_can_renumber() {
        for (text, renumbers, prunings) in [
            ("none", false, 0),
            ("focus", false, 1),
            ("fastv", false, 1),
            ("pyramid-drop", false, 3),
            ("stride+pyramid-drop:positions=renumber", true, 3),
        ] {
            let Compression { within, .. } = text.parse().expect("a compression");
            assert_eq!((within.renumbers(), within.prunings(&config(32)).len()), (renumbers, prunings), "{text}");
        }
    }
}
