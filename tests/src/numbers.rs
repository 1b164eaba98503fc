//! Numbers for cases: the same on every machine and in every run, without a crate for it.

/// A linear congruential generator (Knuth's MMIX constants). A case names its seed, so it can be run again alone.
pub struct Numbers(u64);

impl Numbers {
    /// Starts at `seed`.
    pub fn new(seed: u64) -> Self {
        let mut numbers = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1));
        numbers.bits();
        numbers
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
