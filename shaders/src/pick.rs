//! The next token of a greedy answer, and the position after it.

use bytemuck::{Pod, Zeroable};

use crate::kernel::{Kernel, Variant};

/// The state after a token: the token with the largest allowed logit, of equal logits the lower one, 0 where no token is
/// allowed, and `u32::MAX` where a logit is not finite, allowed or not; then the row of the rotary table, and the tokens
/// in the lower and the upper caches, each one more than before.
///
/// # Shapes
/// `logits` (V,); `allowed`: token i is bit `i % 32` of word `i / 32`.
///
/// # Panics
/// Where `allowed` has too few words.
pub fn pick(logits: &[f32], allowed: &[u32], state: [u32; 4]) -> [u32; 4] {
    let is_allowed = |id: usize| (allowed[id / 32] >> (id % 32)) & 1 == 1;
    let mut best = None;
    for (id, &logit) in logits.iter().enumerate().filter(|(id, _)| is_allowed(*id)) {
        if best.is_none_or(|(_, top)| logit > top) {
            best = Some((id, logit));
        }
    }
    let finite = logits.iter().all(|logit| logit.is_finite());
    let id = if finite { best.map_or(0, |(id, _)| id as u32) } else { u32::MAX };
    let [_, row, lower, upper] = state.map(|word| word.wrapping_add(1));
    [id, row, lower, upper]
}

/// `Params` of `pick.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct PickParams {
    /// V.
    pub vocab: u32,
    /// Padding to 16 bytes.
    pub unused_0: u32,
    /// Padding to 16 bytes.
    pub unused_1: u32,
    /// Padding to 16 bytes.
    pub unused_2: u32,
}

/// The kernel: one workgroup. Constant `LANES`: [`one_workgroup`](crate::one_workgroup).
pub const KERNEL: Kernel = Kernel {
    name: "pick",
    body: include_str!("wgsl/pick.wgsl"),
    lanes: 256,
    buffers: 4,
    parameters: size_of::<PickParams>(),
    variants: Variant::ONLY_F32,
    constants: &["LANES"],
    shared: &[],
    weight: None,
};

#[cfg(test)]
mod tests {
    use super::*;

    const STATE: [u32; 4] = [9, 10, 20, 30];

    #[test]
    fn equal_logits_give_the_lower_id() {
        assert_eq!(pick(&[-3.0, 2.0, 1.0, 2.0], &[0b1111], STATE), [1, 11, 21, 31]);
        assert_eq!(pick(&[-1.0, -0.0, 0.0], &[0b111], STATE)[0], 1);
        assert_eq!(pick(&[-1.0, 0.0, -0.0], &[0b111], STATE)[0], 1);
    }

    #[test]
    fn only_allowed_tokens_are_picked() {
        assert_eq!(pick(&[-3.0, 2.0, 1.0], &[0b101], STATE)[0], 2);
        assert_eq!(pick(&[-3.0, 2.0, 1.0], &[0], STATE)[0], 0);
        let mut logits = [0.0; 33];
        logits[32] = 1.0;
        assert_eq!(pick(&logits, &[u32::MAX, 1], STATE)[0], 32);
        assert_eq!(pick(&logits, &[u32::MAX - 1, 0], STATE)[0], 1);
    }

    #[test]
    fn any_logit_that_is_not_finite_gives_no_token() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(pick(&[1.0, bad], &[0b01], STATE), [u32::MAX, 11, 21, 31]);
        }
        // The row before the first one wraps.
        assert_eq!(pick(&[1.0], &[1], [9, u32::MAX, 20, 30]), [0, 0, 21, 31]);
    }
}
