//! A weight on a device: floats, or codes with their scales.

use std::ops::Range;

use burn::backend::Dispatch;
use burn::tensor::{Int, Tensor};
use fovea_shaders::Format;

use super::{backend::Operand, tensor_ops};

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
        }
    }

    /// The values, (rows, K): f32 where there are codes.
    pub fn floats(&self) -> Tensor<2> {
        Tensor::from_dispatch(tensor_ops::floats::<Dispatch>(self.clone().stored()))
    }

    /// Its sizes, for errors.
    pub(super) fn sizes(&self) -> String {
        match self {
            Self::Float(values) => format!("{:?}", values.dims()),
            Self::Codes { words, scales, format, .. } => {
                format!("{format}: words {:?}, scales {:?}", words.dims(), scales.dims())
            }
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

    /// For the operations of a backend.
    pub(super) fn stored(self) -> Operand<Dispatch> {
        match self {
            Self::Float(values) => Operand::Float(values.into_dispatch()),
            Self::Codes { words, scales, format, rounded } => {
                Operand::Codes(words.into_dispatch(), scales.into_dispatch(), format, rounded)
            }
        }
    }
}
