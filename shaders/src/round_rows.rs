//! Rounds the inputs of a product with codes to 8 bits, so that `gemm_dot4` can multiply integers.

use bytemuck::{Pod, Zeroable};

use crate::kernel::{Kernel, Variant};

/// The values after rounding: `a round(x / a)`, halves to the even number, where `a = max |x| / 127` over each group of
/// `group` values. A group whose values are all smaller than 1e-30 becomes 0. One with a value that is not finite
/// becomes NaN.
///
/// # Shapes
/// `x` (rows of whole groups) -> the same.
pub fn round_rows(x: &[f64], group: usize) -> Vec<f64> {
    let round = |values: &[f64]| -> Vec<f64> {
        let largest = values.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
        let a = largest / 127.0;
        if !values.iter().all(|x| x.is_finite()) {
            vec![f64::NAN; values.len()]
        } else if largest < 1e-30 {
            vec![0.0; values.len()]
        } else {
            values.iter().map(|x| a * (x / a).round_ties_even()).collect()
        }
    };
    x.chunks(group).flat_map(round).collect()
}

/// `Params` of `round_rows.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct RoundRowsParams {
    /// Packs of all rows.
    pub packs: u32,
    /// Padding to 16 bytes.
    pub unused_0: u32,
    /// Padding to 16 bytes.
    pub unused_1: u32,
    /// Padding to 16 bytes.
    pub unused_2: u32,
}

/// The kernel: one pack per invocation. Constant `GROUP`: elements per group, 16, 32, 64 or 128.
///
/// Its buffers: rows in f32; words of four codes with a sign; for each group two words, the bits of `a` in f32 and the
/// sum of the codes.
pub const KERNEL: Kernel = Kernel {
    name: "round_rows",
    body: include_str!("wgsl/round_rows.wgsl"),
    lanes: 64,
    buffers: 3,
    parameters: size_of::<RoundRowsParams>(),
    variants: &[Variant::F32X4],
    constants: &["GROUP"],
    shared: &[],
    weight: None,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_equal_a_calculation_by_hand() {
        // Steps of 2: 1.5 and -2.5 are rounded to even numbers. Steps of 0.5: 0.2 is less than half a step, 0.3 more.
        let x = [254.0, 3.0, -5.0, 100.9, 0.2, -63.5, 0.3, 0.0];
        assert_eq!(round_rows(&x, 4), [254.0, 4.0, -4.0, 100.0, 0.0, -63.5, 0.5, 0.0]);
        // One group: all steps are 2.
        assert_eq!(round_rows(&x, 8), [254.0, 4.0, -4.0, 100.0, 0.0, -64.0, 0.0, 0.0]);
    }

    #[test]
    fn groups_of_tiny_values_and_of_others_than_numbers() {
        let step = 2f64.powi(-99); // 1.6e-30
        assert_eq!(round_rows(&[9e-31, -9e-31, 127.0 * step, step], 2), [0.0, 0.0, 127.0 * step, step]);
        for wrong in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let rounded = round_rows(&[1.0, 127.0, 2.0, wrong], 2);
            assert_eq!(rounded[..2], [1.0, 127.0]);
            assert!(rounded[2..].iter().all(|x| x.is_nan()), "{wrong}: expected NaN, got {rounded:?}");
        }
    }
}
