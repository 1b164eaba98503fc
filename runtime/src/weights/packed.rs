//! compressed-tensors' format `pack-quantized`: `X.weight_packed` (rows, K bits / 32) in I32 with the first code in the
//! lowest bits, `X.weight_scale` (rows, groups) in floats, `X.weight_shape` = [rows, K] and, if it is not symmetric,
//! `X.weight_zero_point` (rows bits / 32, groups) in I32, packed along the rows; value = scale (code - zero point).
//!
//! Source: `compressors/pack_quantized` of compressed-tensors. Bits and groups follow from the shapes.

use std::ops::Range;

use super::{Bad, Codes, Format, Kind, Stored, StoredDtype, Weights, half};
use crate::error::Error;

/// A matrix in compressed-tensors' layout. Its parts are codes, scales and, where there is a minimum, zero points.
#[derive(Clone, Copy, Debug)]
pub struct Packed {
    format: Format,
    width: u64,
    scale: StoredDtype,
    /// Scales per row in the file: each is for one or several groups of `format`.
    groups: u64,
}

impl Packed {
    /// Codes per word.
    fn per_word(&self) -> u64 {
        32 / u64::from(self.format.bits)
    }
}

impl Kind for Packed {
    fn name(&self) -> String {
        self.format.to_string()
    }

    fn format(&self) -> Option<Format> {
        Some(self.format)
    }

    fn spans(&self, rows: &Range<u64>) -> Vec<Range<u64>> {
        let (codes, scales) = (self.width / self.per_word() * 4, self.groups * self.scale.size());
        let mut spans = vec![rows.start * codes..rows.end * codes, rows.start * scales..rows.end * scales];
        if self.format.minimum {
            let zeros = self.groups * 4;
            spans.push(rows.start / self.per_word() * zeros..rows.end.div_ceil(self.per_word()) * zeros);
        }
        spans
    }

    fn without_codes(&self, spans: &mut [Range<u64>]) {
        spans[0] = 0..0;
    }

    fn repack(&self, parts: &[Vec<u8>], rows: &Range<u64>, codes: &mut Codes) {
        codes.push_words(&parts[0], self.format.bits);
        let scales: Vec<f32> = self.scale.floats(&parts[1]).collect();
        let (stored, groups) = (self.groups as usize, self.width as usize / self.format.group as usize);
        let shared = groups / stored;
        for (row, scales) in rows.clone().zip(scales.chunks_exact(stored)) {
            let of = |group: usize| scales[group / shared];
            if self.format.minimum {
                // Words of zero points start at a whole word of rows.
                let word = (row / self.per_word() - rows.start / self.per_word()) as usize * stored;
                let shift = row % self.per_word() * u64::from(self.format.bits);
                let zero = |group: usize| {
                    let bytes = &parts[2][(word + group / shared) * 4..][..4];
                    let codes = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                    (codes >> shift & ((1 << self.format.bits) - 1)) as f32
                };
                codes.scales.extend((0..groups).map(|group| half(of(group)) | half(-of(group) * zero(group)) << 16));
            } else {
                codes.push_scales(&(0..groups).map(|group| half(of(group))).collect::<Vec<u32>>(), groups);
            }
        }
    }

    fn non_finite(&self, parts: &[Vec<u8>], rows: &Range<u64>) -> Option<Bad> {
        let (at, value) = self.scale.non_finite(&parts[1])?;
        Some(Bad { part: 1, index: rows.start * self.groups + at, block: None, value })
    }
}

/// Makes one entry `X.weight` of codes, scales, shape and zero points.
pub(super) async fn join(weights: &mut Weights) -> Result<(), Error> {
    let module =
        |name: &String| name.strip_suffix("_packed").filter(|name| name.ends_with(".weight")).map(str::to_owned);
    for name in weights.entries.keys().filter_map(module).collect::<Vec<String>>() {
        let [packed, scale, shape, zeros, order] =
            ["packed", "scale", "shape", "zero_point", "g_idx"].map(|part| format!("{name}_{part}"));
        if weights.entries.contains_key(&order) {
            let expected = "columns in the order of the input: use another quantised version, or the float checkpoint";
            return Err(weights.wrong(&order, expected));
        }
        let [rows, words] = weights.matrix_of(&packed, "I32")?;
        let width = width(weights, &shape, rows).await?;
        // Rows of whole words of 4 or 8 bits; another number of bits, or a padded row, has no kernel.
        let bits = [4u32, 8].into_iter().find(|&bits| words.checked_mul(32 / u64::from(bits)) == Some(width));
        let Some(bits) = bits else {
            return Err(weights.wrong(&packed, format!("rows of {width} codes of 4 or 8 bits")));
        };
        let groups = weights.entries.get(&scale).and_then(|entry| entry.shape.get(1)).copied().unwrap_or(1);
        let size = width.checked_div(groups).filter(|size| size * groups == width);
        let group = [128, 64, 32].into_iter().find(|&group| size.is_some_and(|size| size.is_multiple_of(group)));
        let Some(group) = group else {
            return Err(weights.wrong(&scale, format!("scales for groups of a multiple of 32 of {width} columns")));
        };
        let dtype = weights.floats_of(&scale, &[rows, groups], "")?;
        let format = Format { bits, minimum: weights.entries.contains_key(&zeros), group: group as u32 };
        if !usize::try_from(width).is_ok_and(|width| format.fits(width)) {
            return Err(weights.wrong(&packed, "rows of whole groups of 32 codes"));
        }
        let kind = Packed { format, width, scale: dtype, groups };
        let mut parts = vec![packed, scale];
        if format.minimum {
            let expected = [rows.div_ceil(kind.per_word()), groups];
            if weights.matrix_of(&zeros, "I32")? != expected {
                return Err(weights.wrong(&zeros, format!("zero points of shape {expected:?}")));
            }
            parts.push(zeros);
        }
        weights.entries.remove(&shape);
        weights.replace(name, &parts, Stored::Packed(kind), vec![rows, width]);
    }
    Ok(())
}

/// The number of columns, from the tensor `X.weight_shape`.
async fn width(weights: &Weights, shape: &str, rows: u64) -> Result<u64, Error> {
    let expected = format!("two integers, the first of them {rows}");
    let Some(entry) = weights.entries.get(shape).filter(|entry| entry.shape == [2]) else {
        return Err(weights.wrong(shape, expected));
    };
    let size = match entry.stored.as_ref().map_err(String::as_str) {
        Err("I64") => 8,
        Err("I32") => 4,
        _ => return Err(weights.wrong(shape, expected)),
    };
    let mut bytes = Vec::new();
    weights.read(entry, 0, &(0..2 * size as u64), &mut bytes).await?;
    let value =
        |at: usize| bytes[at * size..][..size].iter().rev().fold(0u64, |value, &byte| value << 8 | u64::from(byte));
    let (first, second) = (value(0), value(1));
    if first != rows || second == 0 {
        let got = format!("[{first}, {second}]");
        let file = weights.file_of(entry).to_owned();
        return Err(Error::Tensor { file, tensor: shape.to_owned(), expected, got });
    }
    Ok(second)
}
