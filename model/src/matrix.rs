//! A weight matrix as a module: some rows of floats or of codes, on a device.

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Int, Tensor};
use fovea_runtime::{
    helpers::Shared,
    network_ops::{Format, Weight},
};

/// Some rows of a matrix (rows, K).
#[derive(Module, Debug)]
pub enum Part {
    /// (rows, K), f32 or f16.
    Float(Param<Tensor<2>>),
    /// Codes of 8 or 4 bits.
    Codes(Codes),
    /// Rows of which some are in helpers.
    Shared(InHelpers),
}

/// Rows of which some are in helpers: no parameters, so it cannot be trained, moved or saved.
#[derive(Module, Debug)]
pub struct InHelpers {
    #[module(skip)]
    rows: Shared,
}

/// Codes and scales of some rows, in the layout of [`Format`].
#[derive(Module, Debug)]
pub struct Codes {
    words: Param<Tensor<2, Int>>,
    scales: Param<Tensor<2, Int>>,
    #[module(skip)]
    format: Format,
    /// Whether many rows of inputs are rounded to 8 bits.
    #[module(skip)]
    rounded: bool,
}

impl Part {
    /// Rows of floats.
    pub(crate) fn floats(values: Tensor<2>) -> Self {
        Self::Float(Param::from_tensor(values))
    }

    /// Rows of codes. `rounded`: see [`Weight::Codes`].
    pub(crate) fn codes([words, scales]: [Tensor<2, Int>; 2], format: Format, rounded: bool) -> Self {
        let [words, scales] = [words, scales].map(|words| Param::initialized(ParamId::new(), words));
        Self::Codes(Codes { words, scales, format, rounded })
    }

    /// The rows of `weight`.
    pub(crate) fn of(weight: Weight) -> Self {
        match weight {
            Weight::Float(values) => Self::floats(values),
            Weight::Codes { words, scales, format, rounded } => Self::codes([words, scales], format, rounded),
            Weight::Shared(rows) => Self::Shared(InHelpers { rows }),
        }
    }

    /// The rows, for an operation.
    pub(crate) fn weight(&self) -> Weight {
        match self {
            Self::Float(values) => Weight::Float(values.val()),
            Self::Codes(Codes { words, scales, format, rounded }) => {
                Weight::Codes { words: words.val(), scales: scales.val(), format: *format, rounded: *rounded }
            }
            Self::Shared(InHelpers { rows }) => Weight::Shared(rows.clone()),
        }
    }
}

/// The parts of a matrix, for an operation.
pub(crate) fn weights(parts: &[Part]) -> Vec<Weight> {
    parts.iter().map(Part::weight).collect()
}
