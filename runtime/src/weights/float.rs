//! Tensors of floats: f32, f16 or bf16, in any number of dimensions.

use std::ops::Range;

use half::{bf16, f16};

use super::{Bad, Kind};

/// A float type of stored weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StoredDtype {
    /// 32 bits.
    F32,
    /// 16 bits, IEEE half precision.
    F16,
    /// 16 bits: the upper half of an f32.
    Bf16,
}

impl StoredDtype {
    /// Bytes of one value.
    pub const fn size(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// The f32 values of little-endian bytes.
    pub(super) fn floats(self, bytes: &[u8]) -> impl Iterator<Item = f32> + '_ {
        bytes.chunks_exact(self.size() as usize).map(move |b| match self {
            Self::F32 => f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
            Self::F16 => f16::from_le_bytes([b[0], b[1]]).to_f32(),
            Self::Bf16 => bf16::from_le_bytes([b[0], b[1]]).to_f32(),
        })
    }

    /// The first value that is NaN or infinite, and its index: all bits of its exponent are set.
    pub(super) fn non_finite(self, bytes: &[u8]) -> Option<(u64, f32)> {
        let halves = |exponent: u16| {
            bytes.chunks_exact(2).position(move |b| u16::from_le_bytes([b[0], b[1]]) & exponent == exponent)
        };
        let at = match self {
            Self::F32 => bytes
                .chunks_exact(4)
                .position(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) & 0x7f80_0000 == 0x7f80_0000),
            Self::F16 => halves(0x7c00),
            Self::Bf16 => halves(0x7f80),
        }?;
        self.floats(bytes).nth(at).map(|value| (at as u64, value))
    }
}

/// A tensor of floats.
#[derive(Clone, Copy, Debug)]
pub struct Float {
    /// The type of its values.
    pub dtype: StoredDtype,
    /// Values per row: the product of all dimensions but the first.
    pub(super) width: u64,
}

impl Kind for Float {
    fn name(&self) -> String {
        format!("{:?}", self.dtype).to_lowercase()
    }

    fn spans(&self, rows: &Range<u64>) -> Vec<Range<u64>> {
        let row = self.width * self.dtype.size();
        let span = rows.start * row..rows.end * row;
        vec![span]
    }

    fn values(&self, parts: &[Vec<u8>], _: &Range<u64>) -> Vec<f32> {
        self.dtype.floats(&parts[0]).collect()
    }

    fn non_finite(&self, parts: &[Vec<u8>], rows: &Range<u64>) -> Option<Bad> {
        let (at, value) = self.dtype.non_finite(&parts[0])?;
        Some(Bad { part: 0, index: rows.start * self.width + at, block: None, value })
    }
}
