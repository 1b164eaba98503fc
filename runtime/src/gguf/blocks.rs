//! The block types of GGUF. Input: the bytes of blocks. Output: their values, or their codes in our layout.
//! Source: `ggml-common.h` and `ggml-quants.c` in ggml; `gguf/quants.py` in the Python package gguf 0.19.
//!
//! | type | values | bytes | our format | loss |
//! |---|---|---|---|---|
//! | F32, F16, BF16 | 1 | 4, 2, 2 | none, floats | |
//! | Q8_0 | 32 | 34 | q8 g32 | none |
//! | Q4_0, Q4_1 | 32 | 18, 20 | q4 g32, with a minimum | none |
//! | Q5_0, Q5_1 | 32 | 22, 24 | q8 g32, with a minimum | none |
//! | Q4_K, Q5_K | 256 | 144, 176 | q4 or q8 g32 with a minimum | scales and minimums are rounded to f16 |
//! | Q6_K | 256 | 210 | q8 g16 | scales are rounded to f16 |

use fovea_shaders::Format;
use half::{bf16, f16};

use crate::weights::StoredDtype;

/// Most values of a block.
const LONGEST: usize = 256;

/// A block type that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(non_camel_case_types, reason = "the names of ggml")]
pub enum Block {
    /// Floats of 32 bits.
    F32,
    /// Floats of 16 bits, IEEE half precision.
    F16,
    /// Floats of 16 bits: the upper half of an f32.
    BF16,
    /// 4 bits and a scale.
    Q4_0,
    /// 4 bits, a scale and a minimum.
    Q4_1,
    /// 5 bits and a scale.
    Q5_0,
    /// 5 bits, a scale and a minimum.
    Q5_1,
    /// 8 bits and a scale.
    Q8_0,
    /// 4 bits; 8 groups with a scale and a minimum of 6 bits each.
    Q4_K,
    /// 5 bits; 8 groups with a scale and a minimum of 6 bits each.
    Q5_K,
    /// 6 bits; 16 groups with a scale of 8 bits each.
    Q6_K,
}

/// The types, by ggml's numbers. None: the type cannot be read.
const TYPES: [(u32, &str, Option<Block>); 34] = [
    (0, "F32", Some(Block::F32)),
    (1, "F16", Some(Block::F16)),
    (2, "Q4_0", Some(Block::Q4_0)),
    (3, "Q4_1", Some(Block::Q4_1)),
    (6, "Q5_0", Some(Block::Q5_0)),
    (7, "Q5_1", Some(Block::Q5_1)),
    (8, "Q8_0", Some(Block::Q8_0)),
    (9, "Q8_1", None),
    (10, "Q2_K", None),
    (11, "Q3_K", None),
    (12, "Q4_K", Some(Block::Q4_K)),
    (13, "Q5_K", Some(Block::Q5_K)),
    (14, "Q6_K", Some(Block::Q6_K)),
    (15, "Q8_K", None),
    (16, "IQ2_XXS", None),
    (17, "IQ2_XS", None),
    (18, "IQ3_XXS", None),
    (19, "IQ1_S", None),
    (20, "IQ4_NL", None),
    (21, "IQ3_S", None),
    (22, "IQ2_S", None),
    (23, "IQ4_XS", None),
    (24, "I8", None),
    (25, "I16", None),
    (26, "I32", None),
    (27, "I64", None),
    (28, "F64", None),
    (29, "IQ1_M", None),
    (30, "BF16", Some(Block::BF16)),
    (34, "TQ1_0", None),
    (35, "TQ2_0", None),
    (39, "MXFP4", None),
    (40, "NVFP4", None),
    (41, "Q1_0", None),
];

/// The codes of one block in our layout, with the scale and the minimum of each group.
struct Decoded {
    codes: [u8; LONGEST],
    scales: [f32; 16],
    minimums: [f32; 16],
}

impl Block {
    /// The type with ggml's number `number`, or the name of a type that cannot be read.
    pub(super) fn of_number(number: u32) -> Result<Self, String> {
        match TYPES.iter().find(|(known, ..)| *known == number) {
            Some((_, _, Some(block))) => Ok(*block),
            Some((_, name, None)) => Err((*name).to_owned()),
            None => Err(format!("type {number}")),
        }
    }

    /// What is expected instead of a type that cannot be read, for messages.
    pub fn expected() -> String {
        let names: Vec<&str> = TYPES.iter().filter(|(.., block)| block.is_some()).map(|(_, name, _)| *name).collect();
        format!("a block type of {}; use a file of another quantisation, such as Q4_K_M or Q8_0", names.join(", "))
    }

    /// Whether a file of a quantisation, such as `Q4_K_M`, has only types that can be read. The letters after a K type say
    /// how many tensors have a larger type.
    pub(super) fn reads(quantisation: &str) -> bool {
        TYPES.iter().filter(|(.., block)| block.is_some()).any(|(_, name, _)| {
            let rest = quantisation.strip_prefix(name);
            rest.is_some_and(|rest| rest.is_empty() || name.ends_with("_K") && rest.starts_with('_'))
        })
    }

    /// ggml's name.
    pub fn name(self) -> &'static str {
        TYPES.iter().find(|(.., block)| *block == Some(self)).map_or("", |(_, name, _)| name)
    }

    /// Values of a block.
    pub const fn values_per_block(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Q4_K | Self::Q5_K | Self::Q6_K => 256,
        }
    }

    /// Bytes of a block.
    pub const fn bytes_per_block(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q4_K => 144,
            Self::Q5_K => 176,
            Self::Q6_K => 210,
        }
    }

    /// Bytes of a row of `width` values; None where it does not consist of whole blocks.
    pub const fn row_bytes(self, width: u64) -> Option<u64> {
        let values = self.values_per_block() as u64;
        if width == 0 || !width.is_multiple_of(values) {
            return None;
        }
        (width / values).checked_mul(self.bytes_per_block() as u64)
    }

    /// The dtype of floats; None where the values are quantised.
    pub const fn dtype(self) -> Option<StoredDtype> {
        match self {
            Self::F32 => Some(StoredDtype::F32),
            Self::F16 => Some(StoredDtype::F16),
            Self::BF16 => Some(StoredDtype::Bf16),
            _ => None,
        }
    }

    /// The format into which [`Block::repack`] converts; None for floats.
    pub const fn format(self) -> Option<Format> {
        let (bits, minimum, group) = match self {
            Self::F32 | Self::F16 | Self::BF16 => return None,
            Self::Q4_0 => (4, false, 32),
            Self::Q4_1 | Self::Q4_K => (4, true, 32),
            Self::Q5_0 | Self::Q8_0 => (8, false, 32),
            Self::Q5_1 | Self::Q5_K => (8, true, 32),
            Self::Q6_K => (8, false, 16),
        };
        Some(Format { bits, minimum, group })
    }

    /// The values of whole blocks, in f32, as gguf's `dequantize` computes them: the same bits.
    ///
    /// # Panics
    /// Where `bytes` are not whole blocks, or `out` has another number of values.
    pub fn values(self, bytes: &[u8], out: &mut [f32]) {
        let (values, size) = (self.values_per_block(), self.bytes_per_block());
        assert_eq!((bytes.len() % size, bytes.len() / size * values), (0, out.len()), "bytes of whole blocks, values");
        let Some(format) = self.format() else {
            let floats = bytes.chunks_exact(size).map(|b| match self {
                Self::F32 => f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
                Self::F16 => half_at(b, 0),
                _ => bf16::from_le_bytes([b[0], b[1]]).to_f32(),
            });
            return out.iter_mut().zip(floats).for_each(|(out, value)| *out = value);
        };
        let (group, zero) = (format.group as usize, format.zero() as f32);
        for (block, out) in bytes.chunks_exact(size).zip(out.chunks_exact_mut(values)) {
            let decoded = self.decode(block);
            for (g, (out, codes)) in out.chunks_exact_mut(group).zip(decoded.codes.chunks_exact(group)).enumerate() {
                let (scale, minimum) = (decoded.scales[g], decoded.minimums[g]);
                for (out, code) in out.iter_mut().zip(codes) {
                    *out = if format.minimum {
                        scale * f32::from(*code) + minimum
                    } else {
                        scale * (f32::from(*code) - zero)
                    };
                }
            }
        }
    }

    /// The first stored float of whole blocks that is NaN or infinite, and the index of the first value that it
    /// affects.
    pub fn non_finite(self, bytes: &[u8]) -> Option<(usize, f32)> {
        let halves: &[usize] = match self {
            Self::F32 | Self::F16 | Self::BF16 | Self::Q4_0 | Self::Q5_0 | Self::Q8_0 => &[0],
            Self::Q4_1 | Self::Q5_1 | Self::Q4_K | Self::Q5_K => &[0, 2],
            Self::Q6_K => &[208],
        };
        bytes.chunks_exact(self.bytes_per_block()).enumerate().find_map(|(i, block)| {
            let mut floats = halves.iter().map(|&at| match self {
                Self::F32 => f32::from_le_bytes([block[0], block[1], block[2], block[3]]),
                Self::BF16 => bf16::from_le_bytes([block[0], block[1]]).to_f32(),
                _ => half_at(block, at),
            });
            floats.find(|value| !value.is_finite()).map(|value| (i * self.values_per_block(), value))
        })
    }

    /// The codes and scales of one row of `width` values, in the layout of [`Block::format`].
    ///
    /// Only the scales and minimums of Q4_K, Q5_K and Q6_K are rounded. A scale can be infinite or NaN: the caller must
    /// check it.
    ///
    /// # Panics
    /// For a type of floats, or where a slice does not have the size of one row.
    pub fn repack(self, row: &[u8], width: usize, words: &mut [u32], scales: &mut [u32]) {
        let Some(format) = self.format() else { panic!("expected quantised blocks, got {}", self.name()) };
        let (values, size) = (self.values_per_block(), self.bytes_per_block());
        assert_eq!(self.row_bytes(width as u64), Some(row.len() as u64), "bytes of a row (expected, got)");
        let sizes = (format.words(width), format.scale_words(width));
        assert_eq!((words.len(), scales.len()), sizes, "words and scales of a row (got, expected)");
        let (groups, block_words) = (values / format.group as usize, format.words(values));
        scales.fill(0);
        for (i, block) in row.chunks_exact(size).enumerate() {
            let decoded = self.decode(block);
            let words = &mut words[i * block_words..][..block_words];
            if format.bits == 8 {
                for (word, c) in words.iter_mut().zip(decoded.codes.chunks_exact(4)) {
                    *word = u32::from_le_bytes([c[0], c[1], c[2], c[3]]);
                }
            } else {
                for (word, c) in words.iter_mut().zip(decoded.codes.chunks_exact(8)) {
                    *word =
                        u32::from_le_bytes([c[0] | c[4] << 4, c[1] | c[5] << 4, c[2] | c[6] << 4, c[3] | c[7] << 4]);
                }
            }
            for g in 0..groups {
                let (group, scale) = (i * groups + g, u32::from(f16::from_f32(decoded.scales[g]).to_bits()));
                if format.minimum {
                    scales[group] = scale | u32::from(f16::from_f32(decoded.minimums[g]).to_bits()) << 16;
                } else {
                    scales[group / 2] |= scale << (group % 2 * 16);
                }
            }
        }
    }

    /// One quantised block. Codes have our zero: 8 with 4 bits, 128 with 8 bits, 0 with a minimum.
    fn decode(self, b: &[u8]) -> Decoded {
        let (mut codes, mut scales, mut minimums) = ([0; LONGEST], [0.0; 16], [0.0; 16]);
        scales[0] = half_at(b, 0);
        match self {
            Self::Q4_0 => nibbles(&b[2..18], &mut codes),
            Self::Q4_1 => {
                minimums[0] = half_at(b, 2);
                nibbles(&b[4..20], &mut codes);
            }
            Self::Q5_0 => {
                nibbles(&b[6..22], &mut codes);
                fifth_bits(&b[2..6], &mut codes);
                // Codes from 0 to 31 around 16.
                codes[..32].iter_mut().for_each(|code| *code += 128 - 16);
            }
            Self::Q5_1 => {
                minimums[0] = half_at(b, 2);
                nibbles(&b[8..24], &mut codes);
                fifth_bits(&b[4..8], &mut codes);
            }
            Self::Q8_0 => {
                // Signed bytes.
                codes.iter_mut().zip(&b[2..34]).for_each(|(code, byte)| *code = byte ^ 0x80);
            }
            Self::Q4_K | Self::Q5_K => {
                let (scale, minimum) = (half_at(b, 0), half_at(b, 2));
                for (g, (s, m)) in six_bits(&b[4..16]).into_iter().enumerate() {
                    scales[g] = scale * f32::from(s);
                    minimums[g] = -(minimum * f32::from(m));
                }
                let low = if self == Self::Q4_K { &b[16..144] } else { &b[48..176] };
                for (codes, bytes) in codes.chunks_exact_mut(64).zip(low.chunks_exact(32)) {
                    nibbles(bytes, codes);
                }
                if self == Self::Q5_K {
                    for (g, codes) in codes.chunks_exact_mut(32).enumerate() {
                        codes.iter_mut().zip(&b[16..48]).for_each(|(code, high)| *code |= (high >> g & 1) << 4);
                    }
                }
            }
            Self::Q6_K => {
                let scale = half_at(b, 208);
                for (out, s) in scales.iter_mut().zip(&b[192..208]) {
                    *out = scale * f32::from(*s as i8);
                }
                for (half, codes) in codes.chunks_exact_mut(128).enumerate() {
                    nibbles(&b[64 * half..][..64], codes);
                    for (quarter, codes) in codes.chunks_exact_mut(32).enumerate() {
                        let high = &b[128 + 32 * half..][..32];
                        // Codes from 0 to 63 around 32.
                        let join = |code: u8, high: u8| (code | (high >> (2 * quarter) & 3) << 4) + (128 - 32);
                        codes.iter_mut().zip(high).for_each(|(code, high)| *code = join(*code, *high));
                    }
                }
            }
            Self::F32 | Self::F16 | Self::BF16 => {}
        }
        Decoded { codes, scales, minimums }
    }
}

fn half_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// The low halves of `n` bytes become the first `n` codes, the high halves the next `n`.
fn nibbles(bytes: &[u8], codes: &mut [u8]) {
    let (low, high) = codes.split_at_mut(bytes.len());
    for ((byte, low), high) in bytes.iter().zip(low).zip(high) {
        (*low, *high) = (byte & 15, byte >> 4);
    }
}

/// Bit i of four bytes becomes bit 4 of code i.
fn fifth_bits(bytes: &[u8], codes: &mut [u8]) {
    let bits = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    codes[..32].iter_mut().enumerate().for_each(|(i, code)| *code |= ((bits >> i & 1) as u8) << 4);
}

/// The eight pairs (scale, minimum) of 6 bits each in 12 bytes.
fn six_bits(b: &[u8]) -> [(u8, u8); 8] {
    std::array::from_fn(|g| match g {
        0..4 => (b[g] & 63, b[g + 4] & 63),
        _ => (b[g + 4] & 15 | b[g - 4] >> 2 & 0x30, b[g + 4] >> 4 | b[g] >> 2 & 0x30),
    })
}
