//! The kernels of linear layers of many rows: a prefill, and the vision tower. The twin is `linear`.

use bytemuck::{Pod, Zeroable};

use crate::kernel::{Kernel, Variant, WEIGHT};

/// `Params` of `gemm.wgsl`, `gemm_direct.wgsl` and `gemm_dot4.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct GemmParams {
    /// T.
    pub tokens: u32,
    /// Packs per row.
    pub packs: u32,
    /// Columns of the result from this part of the matrix; with a gate half the rows of the part.
    pub rows: u32,
    /// Column of the whole result where this part of the matrix begins.
    pub first: u32,
    /// Columns of the whole result.
    pub width: u32,
    /// Factor of the sums that are added to the residual.
    pub factor: f32,
    /// Padding to 16 bytes.
    pub unused_0: u32,
    /// Padding to 16 bytes.
    pub unused_1: u32,
}

/// The kernel with operands in workgroup memory. Constant `ROWS`: tokens per invocation.
pub const GEMM: Kernel = Kernel {
    name: "gemm",
    body: include_str!("wgsl/gemm.wgsl"),
    lanes: 128,
    buffers: 5,
    parameters: size_of::<GemmParams>(),
    variants: Variant::FOURS,
    constants: &["BIAS", "RESIDUAL", "ACTIVATION", "GATE", "ROWS"],
    shared: &[
        include_str!("wgsl/shared/activation.wgsl"),
        include_str!("wgsl/shared/gemm.wgsl"),
        include_str!("wgsl/shared/gemm_float.wgsl"),
    ],
    weight: WEIGHT,
};

/// The kernel that reads its operands directly. Constants `ROWS`: tokens per invocation; `SPLIT`: 1 where the lanes of
/// a workgroup divide the columns of the weight, 0 where they divide its rows.
pub const GEMM_DIRECT: Kernel = Kernel {
    name: "gemm_direct",
    body: include_str!("wgsl/gemm_direct.wgsl"),
    lanes: 32,
    constants: &["BIAS", "RESIDUAL", "ACTIVATION", "GATE", "ROWS", "SPLIT"],
    ..GEMM
};

/// Workgroups that fill a large GPU several times.
pub(crate) const MANY: usize = 512;

/// One launch of a product of many rows.
#[derive(Clone, Debug)]
pub struct GemmPlan {
    /// [`GEMM`], [`GEMM_DIRECT`] or [`GEMM_DOT4`](crate::GEMM_DOT4).
    pub kernel: &'static Kernel,
    /// The values of its constants.
    pub constants: Vec<u32>,
    /// Workgroups per dimension.
    pub groups: [usize; 3],
}

/// The kernel and the tile for `tokens` tokens and `rows` rows ([`GemmParams::rows`]). `options` are the values of
/// `BIAS`, `RESIDUAL`, `ACTIVATION` and `GATE`. `software`: the device is a CPU.
pub fn gemm_plan(tokens: usize, rows: usize, options: [u32; 4], software: bool) -> GemmPlan {
    let share = 1 + options[3] as usize; // rows of the weight per column of the result
    let groups = |by: usize| [rows.div_ceil(64 / share), tokens.div_ceil(8 * by), 1];
    let count = |by| groups(by).iter().product::<usize>();
    // A few workgroups with a large tile leave most of a GPU idle.
    if !software && tokens > 16 && count(4) >= MANY / 8 {
        let by = [16, 8].into_iter().find(|&by| count(by) >= MANY).unwrap_or(4);
        let constants = [&options[..], &[by as u32]].concat();
        return GemmPlan { kernel: &GEMM, constants, groups: groups(by) };
    }
    // In each step an invocation reads `by` packs of tokens and eight of the weight. The sums of 16 tokens and eight
    // rows are too many for the registers of a GPU; on a CPU they are in its cache.
    let sizes: &[usize] = if software { &[16, 8, 4] } else { &[8, 4] };
    let by = sizes.iter().copied().min_by_key(|by| tokens.div_ceil(*by) * (by + 8)).unwrap_or(4);
    let across = rows.div_ceil(8 / share).div_ceil(if software { GEMM_DIRECT.lanes as usize } else { 1 });
    let constants = [&options[..], &[by as u32, u32::from(!software)]].concat();
    GemmPlan { kernel: &GEMM_DIRECT, constants, groups: [across, tokens.div_ceil(by), 1] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workgroups_cover_the_result() {
        for tokens in [1, 2, 7, 16, 17, 33, 130, 577, 2928] {
            for (rows, gate) in [(1, 0), (77, 1), (896, 0), (1152, 0), (4864, 1)] {
                for software in [false, true] {
                    let GemmPlan { kernel, constants, groups } = gemm_plan(tokens, rows, [1, 0, 2, gate], software);
                    assert_eq!(constants.len(), kernel.constants.len(), "{}: values of its constants", kernel.name);
                    let (by, share) = (constants[4] as usize, 1 + gate as usize);
                    let tile = match constants.get(5) {
                        None => [64 / share, 8 * by],
                        Some(1) => [8 / share, by],
                        Some(_) => [32 * 8 / share, by],
                    };
                    assert_eq!(groups, [rows.div_ceil(tile[0]), tokens.div_ceil(tile[1]), 1], "{tokens} x {rows}");
                }
            }
        }
    }

    #[test]
    fn the_tile_fits_the_work() {
        let choice = |tokens, rows, software| {
            let plan = gemm_plan(tokens, rows, [0; 4], software);
            (plan.kernel.name, plan.constants[4])
        };
        assert_eq!(choice(2, 896, true), ("gemm_direct", 4));
        assert_eq!(choice(7, 896, true), ("gemm_direct", 8));
        assert_eq!(choice(577, 896, true), ("gemm_direct", 16));
        assert_eq!(choice(3, 896, false), ("gemm_direct", 4));
        assert_eq!(choice(16, 9728, false), ("gemm_direct", 8));
        assert_eq!(choice(577, 896, false), ("gemm", 4));
        assert_eq!(choice(2928, 896, false), ("gemm", 8));
        assert_eq!(choice(2928, 9728, false), ("gemm", 16));
    }
}
