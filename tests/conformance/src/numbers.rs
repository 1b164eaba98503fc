//! Random numbers for cases: the same on every machine and in every run.

use fovea_shaders::Format;
use half::f16;

/// A linear congruential generator (Knuth's MMIX constants). The case's text is its seed, so a case can be rerun alone.
pub struct Numbers(u64);

impl Numbers {
    /// A generator with this seed.
    pub fn new(seed: u64) -> Self {
        let mut numbers = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1));
        numbers.bits();
        numbers
    }

    /// A generator whose seed is the FNV-1a hash of a case's text.
    pub fn of(text: &str) -> Self {
        let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Self::new(hash)
    }

    /// 32 random bits: the upper half of the state, which has the longer period.
    pub fn bits(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 32) as u32
    }

    /// An integer below `end`.
    ///
    /// # Panics
    /// If `end` is 0.
    pub fn below(&mut self, end: usize) -> usize {
        self.bits() as usize % end
    }

    /// `count` numbers from -`reach` to `reach`.
    pub fn floats(&mut self, count: usize, reach: f32) -> Vec<f32> {
        // 24 bits: each of these fractions is exact in f32.
        (0..count).map(|_| ((self.bits() >> 8) as f32 / 8_388_608.0 - 1.0) * reach).collect()
    }

    /// Words and scales of `rows` rows of `width` values up to about `reach`.
    pub fn codes(&mut self, rows: usize, width: usize, reach: f32, format: Format) -> [Vec<u32>; 2] {
        let words = (0..rows * format.words(width)).map(|_| self.bits()).collect();
        let (groups, step) = (width / format.group as usize, reach / (1 << (format.bits - 1)) as f32);
        let mut scales = Vec::new();
        for _ in 0..rows {
            let low = self.halves(groups, step);
            if format.minimum {
                let high = self.halves(groups, reach);
                scales.extend(low.iter().zip(high).map(|(scale, minimum)| scale | minimum << 16));
            } else {
                scales.extend(low.chunks(2).map(|pair| pair[0] | pair.get(1).map_or(0, |odd| odd << 16)));
            }
        }
        [words, scales]
    }

    /// The bits of `count` numbers in f16.
    fn halves(&mut self, count: usize, reach: f32) -> Vec<u32> {
        self.floats(count, reach).into_iter().map(|value| f16::from_f32(value).to_bits().into()).collect()
    }
}

/// The same numbers in f64, for a twin.
pub fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

/// The values as a device stores them: rounded to f16 if `half`, so that device and twin get equal inputs.
pub fn stored(values: Vec<f32>, half: bool) -> Vec<f32> {
    if !half {
        return values;
    }
    // Adding 0 turns -0 into 0, because the maximum of 0 and -0 is undefined.
    values.into_iter().map(|v| f16::from_f32(v).to_f32() + 0.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_the_seed() {
        let draw = |text| Numbers::of(text).floats(4, 1.0);
        assert_eq!(draw("top_k n=2"), draw("top_k n=2"));
        assert_ne!(draw("top_k n=2"), draw("top_k n=3"));
    }

    #[test]
    fn codes_have_the_sizes_of_their_format() {
        for format in [Format::Q8, Format { minimum: true, ..Format::Q4 }, Format { group: 16, ..Format::Q8 }] {
            let [words, scales] = Numbers::new(1).codes(3, 96, 2.0, format);
            let values = fovea_shaders::dequantise(&words, &scales, 96, format);
            assert_eq!(values.len(), 3 * 96, "{format}: values (got, expected)");
            assert!(values.iter().all(|value| value.abs() <= 6.0), "{format}: expected values up to the reach");
        }
    }

    #[test]
    fn halves_have_eleven_bits() {
        assert_eq!(stored(vec![1.0 / 3.0, -1e-9], true), [0.333_251_95, 0.0]);
        assert_eq!(stored(vec![1.0 / 3.0], false), [1.0 / 3.0]);
    }
}
