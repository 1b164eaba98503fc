//! Input: a seed and a purpose. Output: random numbers, the same on every machine.

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

/// The purpose of a stream of numbers. Streams with the same seed and different purposes are independent, so that additional
/// questions do not change the picture.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    /// Layout and drawing of a scene.
    Scene = 1,
    /// The choices for its questions.
    Questions = 2,
    /// The choice of one question of each kind.
    Pick = 3,
    /// Layout and drawing of a reading drill.
    Drill = 4,
    /// The noise table that all pictures share.
    Noise = 5,
    /// Layout and drawing of a primer.
    Primer = 6,
}

/// A stream of numbers.
pub(crate) struct Random(ChaCha8Rng);

impl Random {
    /// The stream of `seed` for `purpose`.
    pub(crate) fn new(seed: u64, purpose: Purpose) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8] = purpose as u8;
        Self(ChaCha8Rng::from_seed(key))
    }

    /// 64 random bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A whole number below `n`; 0 where `n` is 0. (The bias, 2^-32 * n, is too small to matter here.)
    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((u64::from(self.0.next_u32()) * n as u64) >> 32) as usize
    }

    /// A number in `[low, high)`.
    pub(crate) fn within(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * ((self.0.next_u32() >> 8) as f32 / (1 << 24) as f32)
    }

    /// True with this probability.
    pub(crate) fn chance(&mut self, probability: f32) -> bool {
        self.within(0.0, 1.0) < probability
    }

    /// One of the items. Panics where there are none.
    pub(crate) fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    /// The items in random order.
    pub(crate) fn shuffled<T: Copy>(&mut self, items: &[T]) -> Vec<T> {
        let mut items = items.to_vec();
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
        items
    }
}
