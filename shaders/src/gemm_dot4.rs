//! The kernel of linear layers of many rows that multiplies integers: inputs that `round_rows` has rounded to 8 bits,
//! and codes. Its twin is `linear` with the rounded values.

use crate::{
    gemm::{GEMM, GemmPlan, MANY},
    kernel::Kernel,
};

/// The kernel. Constant `ROWS`: tokens per invocation, 4 or 8. It has variants of codes only, and its parameters are
/// [`GemmParams`](crate::GemmParams).
///
/// Its buffers: the codes of `x`; the weight; bias; residual; result; scale and sum of codes of each group of `x`; the
/// scales of the weight.
pub const GEMM_DOT4: Kernel = Kernel {
    name: "gemm_dot4",
    body: include_str!("wgsl/gemm_dot4.wgsl"),
    buffers: 6,
    variants: &[],
    shared: &[include_str!("wgsl/shared/activation.wgsl"), include_str!("wgsl/shared/gemm.wgsl")],
    weight: Some([&[], &[include_str!("wgsl/shared/weight_codes.wgsl")]]),
    ..GEMM
};

/// The tile for `tokens` tokens and `rows` rows. The arguments are those of [`gemm_plan`](crate::gemm_plan).
pub fn gemm_dot4_plan(tokens: usize, rows: usize, options: [u32; 4]) -> GemmPlan {
    let share = 1 + options[3] as usize; // rows of the weight per column of the result
    let groups = |by: usize| [rows.div_ceil(64 / share), tokens.div_ceil(8 * by), 1];
    // A large tile needs fewer reads, and leaves a GPU idle if there are few of them.
    let by = if groups(8).iter().product::<usize>() >= MANY { 8 } else { 4 };
    GemmPlan { kernel: &GEMM_DOT4, constants: [&options[..], &[by as u32]].concat(), groups: groups(by) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workgroups_cover_the_result() {
        for (tokens, rows, gate, by) in
            [(9, 1, 0, 4), (33, 77, 1, 4), (577, 896, 0, 4), (2928, 896, 0, 8), (256, 4864, 1, 8), (130, 11_000, 0, 8)]
        {
            let GemmPlan { kernel, constants, groups } = gemm_dot4_plan(tokens, rows, [1, 0, 2, gate]);
            assert_eq!((kernel.name, &constants[..]), ("gemm_dot4", &[1, 0, 2, gate, by][..]), "{tokens} x {rows}");
            let tile = [64 >> gate, 8 * by as usize];
            assert_eq!(groups, [rows.div_ceil(tile[0]), tokens.div_ceil(tile[1]), 1], "{tokens} x {rows}");
        }
    }
}
