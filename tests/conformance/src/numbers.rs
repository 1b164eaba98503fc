//! Numbers for cases: the same on every machine and in every run, without a crate for it.

use half::f16;

/// A linear congruential generator (Knuth's MMIX constants). A case names its seed, so it can be run again alone.
pub struct Numbers(u64);

impl Numbers {
    /// Starts at `seed`.
    pub fn new(seed: u64) -> Self {
        let mut numbers = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1));
        numbers.bits();
        numbers
    }

    /// Starts at the seed that a case's text stands for (FNV-1a): whoever reads the text can run the case again.
    pub fn of(text: &str) -> Self {
        let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Self::new(hash)
    }

    /// 32 random bits: the upper half of the state, whose period is long.
    pub fn bits(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 32) as u32
    }

    /// A whole number below `end`.
    ///
    /// # Panics
    /// Where `end` is 0.
    pub fn below(&mut self, end: usize) -> usize {
        self.bits() as usize % end
    }

    /// `count` numbers from -`reach` to `reach`.
    pub fn floats(&mut self, count: usize, reach: f32) -> Vec<f32> {
        // 24 bits: every one of these fractions is an f32.
        (0..count).map(|_| ((self.bits() >> 8) as f32 / 8_388_608.0 - 1.0) * reach).collect()
    }
}

/// The same numbers in f64, for a twin.
pub fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

/// The values as a device keeps them: rounded to f16 where it stores `half`, so that it and the twin start equal.
pub fn stored(values: Vec<f32>, half: bool) -> Vec<f32> {
    if !half {
        return values;
    }
    // Adding 0 turns -0 into 0: which of the two wins a maximum is nobody's promise.
    values.into_iter().map(|v| f16::from_f32(v).to_f32() + 0.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_a_seed() {
        let draw = |text| Numbers::of(text).floats(4, 1.0);
        assert_eq!(draw("top_k n=2"), draw("top_k n=2"));
        assert_ne!(draw("top_k n=2"), draw("top_k n=3"));
    }

    #[test]
    fn halves_have_eleven_bits() {
        assert_eq!(stored(vec![1.0 / 3.0, -1e-9], true), [0.333_251_95, 0.0]);
        assert_eq!(stored(vec![1.0 / 3.0], false), [1.0 / 3.0]);
    }
}
