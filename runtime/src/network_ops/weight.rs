//! A weight on a device: floats, or codes with their scales.

use std::ops::Range;

use burn::backend::Dispatch;
use burn::tensor::{Int, Tensor};
use fovea_shaders::Format;

use super::{backend::Operand, tensor_ops};
use crate::helpers::Shared;

/// Some rows of a weight.
#[allow(clippy::large_enum_variant, reason = "tensor handles are large, and few of these exist")]
#[derive(Clone, Debug)]
pub enum Weight {
    /// (rows, K), f32 or f16.
    Float(Tensor<2>),
    /// Codes and scales in the layout of [`Format`].
    Codes {
        /// (rows, [`Format::words`]).
        words: Tensor<2, Int>,
        /// (rows, [`Format::scale_words`]).
        scales: Tensor<2, Int>,
        /// Their layout.
        format: Format,
        /// Whether a product with more than 8 rows rounds these to 8 bits, where the device can multiply integers
        /// ([`rounds_inputs`](super::rounds_inputs)).
        rounded: bool,
    },
    /// Rows of which some are in helpers, on a CPU.
    Shared(Shared),
}

impl Weight {
    /// Rows, and values per row.
    pub fn dims(&self) -> [usize; 2] {
        match self {
            Self::Float(values) => values.dims(),
            Self::Codes { words, format, .. } => {
                let [rows, words] = words.dims();
                [rows, words * 32 / format.bits as usize]
            }
            Self::Shared(shared) => shared.dims(),
        }
    }

    /// Some of the rows.
    ///
    /// # Panics
    /// Where a row does not exist.
    pub fn rows(&self, range: Range<usize>) -> Self {
        let (first, count) = (range.start, range.len());
        match self {
            Self::Float(values) => Self::Float(values.clone().narrow(0, first, count)),
            Self::Codes { words, scales, format, rounded } => Self::Codes {
                words: words.clone().narrow(0, first, count),
                scales: scales.clone().narrow(0, first, count),
                format: *format,
                rounded: *rounded,
            },
            Self::Shared(shared) => Self::Shared(shared.rows(first..first + count)),
        }
    }

    /// The same rows, all of them in this memory; None where some are only in helpers.
    pub(super) fn here(&self) -> Option<&Self> {
        match self {
            Self::Shared(shared) => shared.all(),
            other => Some(other),
        }
    }

    /// The values, (rows, K): f32 where there are codes.
    ///
    /// # Panics
    /// Where some rows are only in helpers: not in a table for lookups.
    pub fn floats(&self) -> Tensor<2> {
        let here = self.here().expect("all rows are in this memory");
        Tensor::from_dispatch(tensor_ops::floats::<Dispatch>(here.clone().stored()))
    }

    /// Its sizes, for errors.
    pub(super) fn sizes(&self) -> String {
        match self {
            Self::Float(values) => format!("{:?}", values.dims()),
            Self::Codes { words, scales, format, .. } => {
                format!("{format}: words {:?}, scales {:?}", words.dims(), scales.dims())
            }
            Self::Shared(shared) => format!("{:?}, some in helpers", shared.dims()),
        }
    }

    /// Whether codes and scales have the sizes of their format.
    pub(super) fn is_whole(&self) -> bool {
        let Self::Codes { words, scales, format, .. } = self else { return true };
        let [rows, width] = self.dims();
        format.fits(width)
            && words.dims() == [rows, format.words(width)]
            && scales.dims() == [rows, format.scale_words(width)]
    }

    /// For the operations of a backend; of shared rows those for lookups.
    ///
    /// # Panics
    /// As [`Weight::floats`].
    pub(super) fn stored(self) -> Operand<Dispatch> {
        match self {
            Self::Float(values) => Operand::Float(values.into_dispatch()),
            Self::Codes { words, scales, format, rounded } => {
                Operand::Codes(words.into_dispatch(), scales.into_dispatch(), format, rounded)
            }
            Self::Shared(shared) => shared.all().expect("all rows are in this memory").clone().stored(),
        }
    }
}
