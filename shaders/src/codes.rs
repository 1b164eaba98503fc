//! Quantised matrices: codes of 8 or 4 bits, and one scale per group of codes.
//!
//! A row of K values has two streams of u32 words, so that each is read in aligned vectors.
//!
//! | stream | word | contents |
//! |---|---|---|
//! | codes, 8 bits | w | byte b: element `4 w + b` |
//! | codes, 4 bits | w | low half of byte b: element `8 w + b`; high half: element `8 w + 4 + b` |
//! | scales | g / 2 | f16 scale of group g, in the low half for an even g |
//! | scales with minimum | g | f16 scale of group g in the low half, f16 minimum in the high half |
//!
//! Codes have no sign. `value = scale (code - zero)`, or with a minimum `scale code + minimum`. This layout is our choice:
//! the formats of GGUF and MLX convert to it without loss, and their own blocks of 18 or 34 bytes are not aligned.

use half::f16;

/// How the codes of a quantised matrix are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Format {
    /// Bits per code: 4 or 8.
    pub bits: u32,
    /// Whether a group has a minimum besides its scale.
    pub minimum: bool,
    /// Codes per group: 32, 64 or 128; with 8 bits also 16.
    pub group: u32,
}

impl Format {
    /// 8 bits, groups of 32 without a minimum: 8.5 bits per value.
    pub const Q8: Self = Self { bits: 8, minimum: false, group: 32 };
    /// 4 bits, groups of 32 without a minimum: 4.5 bits per value.
    pub const Q4: Self = Self { bits: 4, minimum: false, group: 32 };

    /// Whether the format exists, and rows of `width` values consist of whole groups and of whole vectors of codes.
    pub const fn fits(self, width: usize) -> bool {
        let exists = matches!((self.bits, self.group), (8, 16) | (4 | 8, 32 | 64 | 128));
        exists && width > 0 && width.is_multiple_of(self.group as usize) && width.is_multiple_of(32)
    }

    /// Words of codes per row.
    pub const fn words(self, width: usize) -> usize {
        width * self.bits as usize / 32
    }

    /// Words of scales per row.
    pub const fn scale_words(self, width: usize) -> usize {
        let groups = width / self.group as usize;
        if self.minimum { groups } else { groups.div_ceil(2) }
    }

    /// Bytes per row.
    pub const fn row_bytes(self, width: usize) -> u64 {
        4 * (self.words(width) + self.scale_words(width)) as u64
    }

    /// The code of the value 0; 0 where there is a minimum.
    pub const fn zero(self) -> u32 {
        if self.minimum { 0 } else { 1 << (self.bits - 1) }
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "q{}{} g{}", self.bits, if self.minimum { "m" } else { "" }, self.group)
    }
}

/// The values of rows of `width`.
///
/// # Shapes
/// `words` (rows, [`Format::words`]), `scales` (rows, [`Format::scale_words`]) -> (rows, `width`).
///
/// # Panics
/// Where `width` does not fit the format, or a slice has another size.
pub fn dequantise(words: &[u32], scales: &[u32], width: usize, format: Format) -> Vec<f64> {
    assert!(format.fits(width), "expected rows of whole groups of {}, got a width of {width}", format.group);
    let rows = words.len() / format.words(width);
    let sizes = (rows * format.words(width), rows * format.scale_words(width));
    assert_eq!((words.len(), scales.len()), sizes, "words, scales: expected whole rows");
    let half =
        |word: u32, high: bool| f64::from(f16::from_bits((if high { word >> 16 } else { word & 0xffff }) as u16));
    let mut out = Vec::with_capacity(rows * width);
    for row in 0..rows {
        let (words, scales) = (&words[row * format.words(width)..], &scales[row * format.scale_words(width)..]);
        for element in 0..width {
            let (word, shift) = match format.bits {
                8 => (element / 4, element % 4 * 8),
                _ => (element / 8, element % 4 * 8 + element % 8 / 4 * 4),
            };
            let code = f64::from(words[word] >> shift & ((1 << format.bits) - 1));
            let group = element / format.group as usize;
            out.push(match format.minimum {
                true => half(scales[group], false) * code + half(scales[group], true),
                false => half(scales[group / 2], group % 2 == 1) * (code - f64::from(format.zero())),
            });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(value: f32) -> u32 {
        u32::from(f16::from_f32(value).to_bits())
    }

    #[test]
    fn values_equal_a_calculation_by_hand() {
        // 8 bits: elements 0 to 3 are in the bytes of word 0. Two groups share a word of scales.
        let mut words = vec![0x8080_8080; 16];
        (words[0], words[15]) = (0xff00_8081, 0x7f80_8080);
        let scales = [bits(0.5) | bits(2.0) << 16];
        let values = dequantise(&words, &scales, 64, Format::Q8);
        assert_eq!((&values[..4], values[63]), ([0.5, 0.0, -64.0, 63.5].as_slice(), -2.0));
        // 4 bits: the low halves of the bytes of a word are elements 0 to 3, the high halves 4 to 7.
        let values = dequantise(&[0x8765_43f0, 0, 0, 0], &[bits(0.25)], 32, Format::Q4);
        let codes = [0x0, 0x3, 0x5, 0x7, 0xf, 0x4, 0x6, 0x8];
        let expected: Vec<f64> = codes.iter().map(|code| 0.25 * (f64::from(*code) - 8.0)).collect();
        assert_eq!((&values[..8], values[31]), (expected.as_slice(), -2.0));
        // A minimum is in the high half of each word of scales.
        let format = Format { minimum: true, ..Format::Q4 };
        let values = dequantise(&[0x8765_43f0, 0, 0, 0], &[bits(0.25) | bits(-3.0) << 16], 32, format);
        assert_eq!((values[0], values[4], values[31]), (-3.0, 0.75, -3.0));
    }

    #[test]
    fn sizes_equal_a_calculation_by_hand() {
        let of = |format: Format, width| (format.words(width), format.scale_words(width), format.row_bytes(width));
        assert_eq!(of(Format::Q8, 96), (24, 2, 104)); // three groups: one and a half words of scales
        assert_eq!(of(Format::Q4, 4096), (512, 64, 2304)); // 4.5 bits per value
        assert_eq!(of(Format { bits: 4, minimum: true, group: 64 }, 4096), (512, 64, 2304));
        assert!(!Format { group: 16, ..Format::Q4 }.fits(64) && !Format { bits: 2, ..Format::Q4 }.fits(64));
        assert!(!Format { group: 64, ..Format::Q4 }.fits(96) && !Format { group: 16, ..Format::Q8 }.fits(48));
    }
}
