//! The texts of all kernels: which variants and constants are tested without a GPU.

use fovea_shaders::{Format, Kernel, MAX_WINDOW, Variant, one_workgroup, region_pool_chunk};

/// The tested values of a kernel's constants.
///
/// # Panics
/// If the kernel has other constants than those of this table.
pub fn constants(kernel: &Kernel, variant: Variant) -> Vec<Vec<u32>> {
    match kernel.constants {
        [] => vec![vec![]],
        ["LANES"] => [false, true].map(|software| vec![one_workgroup(software)]).into(),
        ["ROWS", "WIDTH", "DIRECT", "LANES"] => {
            let tiles = [[4, 0, 64], [8, 0, 64], [4, 1, 8], [8, 1, 8]].into_iter();
            tiles.flat_map(|[rows, direct, lanes]| (1..=4).map(move |width| vec![rows, width, direct, lanes])).collect()
        }
        ["SHARE"] => (1..=8).map(|share| vec![share]).collect(),
        ["LAYER"] => vec![vec![0], vec![1]],
        ["PACKS", "ZOH"] => (1..=4).flat_map(|packs| [vec![packs, 0], vec![packs, 1]]).collect(),
        ["NORM", "BIAS", "RESIDUAL", "ACTIVATION", "GATE", "ROWS", "UNIT", "LANES"] => [
            [0, 0, 0, 0, 0, 1],
            [1, 0, 0, 4, 1, 2],
            [0, 1, 1, 0, 0, 2],
            [1, 1, 0, 0, 0, 4],
            [0, 1, 0, 1, 0, 8],
            [0, 1, 0, 2, 0, 4],
            [0, 1, 0, 3, 0, 8],
            [1, 1, 0, 4, 1, 8],
        ]
        .iter()
        .flat_map(|steps| units(variant).iter().map(move |unit| [&steps[..], &[*unit, 64]].concat()))
        .chain(
            [[1, 1, 0, 4, 1], [0, 1, 1, 0, 0]]
                .map(|with| [&with[..], &[8, units(variant)[units(variant).len() - 1], 8]].concat()),
        )
        .collect(),
        ["GROUP"] => [16, 32, 64, 128].map(|group| vec![group]).into(),
        ["BIAS", "RESIDUAL", "ACTIVATION", "GATE", "ROWS"] if kernel.name == "gemm_dot4" => {
            [[0, 0, 0, 0, 4], [1, 0, 1, 0, 8], [1, 1, 0, 0, 4], [0, 0, 2, 0, 8], [1, 0, 3, 0, 4], [1, 0, 4, 1, 8]]
                .map(Vec::from)
                .into()
        }
        ["BIAS", "RESIDUAL", "ACTIVATION", "GATE", "ROWS"] => {
            [[0, 0, 0, 0, 4], [1, 0, 1, 0, 8], [1, 1, 0, 0, 16], [0, 0, 2, 0, 8], [1, 0, 3, 0, 4], [1, 0, 4, 1, 16]]
                .map(Vec::from)
                .into()
        }
        ["BIAS", "RESIDUAL", "ACTIVATION", "GATE", "ROWS", "SPLIT"] => [
            [0, 0, 0, 0, 4, 0],
            [1, 0, 1, 0, 8, 1],
            [1, 1, 0, 0, 16, 0],
            [0, 0, 2, 0, 8, 1],
            [1, 0, 3, 0, 4, 1],
            [1, 0, 4, 1, 16, 0],
        ]
        .map(Vec::from)
        .into(),
        ["WINDOW", "CHUNK"] => (1..=MAX_WINDOW)
            .flat_map(|w| {
                let mut texts =
                    [false, true].map(|software| vec![w as u32, region_pool_chunk(w, variant, software)]).to_vec();
                texts.dedup();
                texts
            })
            .collect(),
        other => panic!("{}: expected values for {other:?} in this table", kernel.name),
    }
}

/// The values of `UNIT`.
fn units(variant: Variant) -> &'static [u32] {
    if variant.codes.is_some() { &[1, 4] } else { &[1] }
}

/// The variants of a kernel: of floats, and if it reads a weight, of codes.
pub fn variants(kernel: &Kernel) -> Vec<Variant> {
    let codes = [
        Format::Q8,
        Format::Q4,
        Format { minimum: true, ..Format::Q4 },
        Format { minimum: true, group: 128, ..Format::Q4 },
        Format { group: 16, ..Format::Q8 },
        Format { minimum: true, group: 64, ..Format::Q8 },
    ];
    let codes = codes.into_iter().filter(|_| kernel.weight.is_some()).map(Variant::of_codes);
    kernel.variants.iter().copied().chain(codes).collect()
}
