//! The settings of PyramidDrop. Source: arXiv 2410.17247; github.com/Cooperx521/PyramidDrop, commit 6444f30.

use super::{MethodRow, Place, Pruning, Quota, Score, Settings, Within, name_of};
use crate::{config::Config, error::Error};

pub(crate) const ROW: MethodRow = MethodRow {
    name: "pyramid-drop",
    title: "PyramidDrop",
    about: "Halves the visual tokens at several layers, by the attention of the end of the prompt",
    source: "arXiv 2410.17247",
    place: Place::Within,
    default: "pyramid-drop:ratios=0.5/0.25/0.125",
    read: |settings| Ok(Within::PyramidDrop(PyramidDrop::read(settings)?).into()),
};

/// The positions of the tokens after a pruning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Positions {
    /// Tokens keep their positions (our choice).
    #[default]
    Original,
    /// 0, 1, 2, ... from each pruning on, tokens of the answer too, as in the authors' code.
    Renumber,
}

const POSITIONS: [(&str, Positions); 2] = [("original", Positions::Original), ("renumber", Positions::Renumber)];

/// PyramidDrop (arXiv 2410.17247): before each of several layers, the visual tokens stay that the last token of the prompt attends
/// to most in that layer, mean over query heads.
///
/// `floor(ratio * n)` of the n visual tokens that entered the text model stay, at least one.
#[derive(Clone, Debug, PartialEq)]
pub struct PyramidDrop {
    /// The layers, from 0 and rising, whose inputs are pruned, one per ratio. None: layer `n_layers * s / (ratios + 1)` for each
    /// stage s from 1, such as 8, 16 and 24 of 32.
    pub layers: Option<Vec<usize>>,
    /// For each layer the share of the first visual tokens that stay, above 0 and at most 1, none above the one before:
    /// a token that has left does not return. Default: 0.5, 0.25, 0.125.
    pub ratios: Vec<f64>,
    /// The positions of the tokens after a pruning.
    pub positions: Positions,
}

impl Default for PyramidDrop {
    fn default() -> Self {
        Self { layers: None, ratios: vec![0.5, 0.25, 0.125], positions: Positions::default() }
    }
}

/// The spelling of a list.
fn joined<T: ToString>(list: &[T]) -> String {
    list.iter().map(T::to_string).collect::<Vec<_>>().join("/")
}

impl PyramidDrop {
    pub(crate) fn read(settings: &mut Settings<'_>) -> Result<Self, Error> {
        let usual = Self::default();
        let layers = settings.list("layers", "layers from 0 such as 8/16/24", |_: &usize| true)?;
        let allowed = |ratio: &f64| *ratio > 0.0 && *ratio <= 1.0;
        let ratios = settings.list("ratios", "numbers above 0 and at most 1 such as 0.5/0.25/0.125", allowed)?;
        let ratios = ratios.unwrap_or(usual.ratios);
        if !ratios.is_sorted_by(|one, next| one >= next) {
            let expected = "falling or equal shares of all visual tokens";
            return Err(settings.wrong("ratios", expected, &joined(&ratios)));
        }
        if let Some(layers) = layers.as_ref().filter(|layers| layers.len() != ratios.len()) {
            let expected = format!("one layer per ratio of {}", joined(&ratios));
            return Err(settings.wrong("layers", &expected, &joined(layers)));
        }
        Ok(Self { layers, ratios, positions: settings.one_of("positions", usual.positions, &POSITIONS)? })
    }

    pub(crate) fn written(&self) -> Vec<(&'static str, String)> {
        vec![
            ("layers", self.layers.as_deref().map_or_else(String::new, joined)),
            ("ratios", joined(&self.ratios)),
            ("positions", name_of(&POSITIONS, self.positions)),
        ]
    }

    /// One pruning per ratio.
    pub(crate) fn prunings(&self, config: &Config) -> Vec<Pruning> {
        let stages = self.ratios.len();
        let layers = self
            .layers
            .clone()
            .unwrap_or_else(|| (1..=stages).map(|stage| config.text.n_layers * stage / (stages + 1)).collect());
        let pruning = |(layer, &ratio)| Pruning { layer, score: Score::RowOwn, keep: Quota::OfFirst(ratio) };
        layers.into_iter().zip(&self.ratios).map(pruning).collect()
    }
}
