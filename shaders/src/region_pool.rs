//! Max pooling of each region of a map: `DS[s](X_i)` (paper Sec. 3.2).

use bytemuck::{Pod, Zeroable};

use crate::{
    kernel::{Kernel, Variant},
    scale::{Scale, regions},
};

/// Max pooling of each region of `map` at one scale.
///
/// `out[i][r][c] = max over map[y + r*rows .. , x + c*cols ..]`, limited to the region and the map.
///
/// # Shapes
/// `map` (height, width, channels), row-major -> for each region in raster order its tokens (rows, cols) and their
/// values (rows * cols * channels).
///
/// # Panics
/// Where `map` has another size.
pub fn region_pool(
    map: &[f64],
    [height, width, channels]: [usize; 3],
    window: usize,
    scale: Scale,
) -> Vec<((usize, usize), Vec<f64>)> {
    assert_eq!(map.len(), height * width * channels, "map: expected height * width * channels values");
    regions(height, width, window)
        .into_iter()
        .map(|(y, x)| {
            let (bottom, right) = ((y + window).min(height), (x + window).min(width));
            let (rows, cols) = scale.tokens(bottom - y, right - x);
            let mut values = Vec::with_capacity(rows * cols * channels);
            for r in 0..rows {
                for c in 0..cols {
                    for channel in 0..channels {
                        let mut best = f64::NEG_INFINITY;
                        for py in y + r * scale.rows..(y + (r + 1) * scale.rows).min(bottom) {
                            for px in x + c * scale.cols..(x + (c + 1) * scale.cols).min(right) {
                                best = best.max(map[(py * width + px) * channels + channel]);
                            }
                        }
                        values.push(best);
                    }
                }
            }
            ((rows, cols), values)
        })
        .collect()
}

/// The rows of the pooled matrix: ordered by scale, then region, then token in raster order.
///
/// A partial region has as many rows as a complete one. The rows of its tokens outside the map are not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolLayout {
    /// Height and width of the map, in patches.
    pub map: (usize, usize),
    /// Side of a region, in patches.
    pub window: usize,
    /// The pooling kernels, limited to the window: a larger kernel has the same result as the window.
    pub scales: Vec<Scale>,
    /// First row of each scale.
    pub first: Vec<usize>,
    /// Number of rows of the matrix.
    pub rows: usize,
}

impl PoolLayout {
    /// The layout of `scales`. None of them may drop the region.
    pub fn new((height, width): (usize, usize), window: usize, scales: &[Scale]) -> Self {
        let cut = |s: &Scale| Scale::new(s.rows.min(window), s.cols.min(window));
        let mut layout =
            Self { map: (height, width), window, scales: scales.iter().map(cut).collect(), first: Vec::new(), rows: 0 };
        for index in 0..scales.len() {
            let (rows, cols) = layout.tokens(index);
            layout.first.push(layout.rows);
            layout.rows += layout.regions() * rows * cols;
        }
        layout
    }

    /// Number of regions.
    pub fn regions(&self) -> usize {
        self.map.0.div_ceil(self.window) * self.map.1.div_ceil(self.window)
    }

    /// Tokens (rows, columns) of a complete region at a scale.
    pub fn tokens(&self, scale: usize) -> (usize, usize) {
        self.scales[scale].tokens(self.window, self.window)
    }

    /// The row of a token.
    pub fn row(&self, scale: usize, region: usize, row: usize, col: usize) -> usize {
        let (rows, cols) = self.tokens(scale);
        self.first[scale] + (region * rows + row) * cols + col
    }

    /// A scale in the form that the kernels use.
    pub fn plan(&self, scale: usize) -> ScalePlan {
        let Scale { rows, cols } = self.scales[scale];
        [rows as u32, cols as u32, self.first[scale] as u32, self.tokens(scale).1 as u32]
    }
}

/// Largest number of scales per launch.
pub const MAX_SCALES: usize = 16;

/// Largest side of a region.
pub const MAX_WINDOW: usize = 16;

/// A scale in the form that the kernels use: rows of its pooling kernel (0: the region is dropped), columns, first row
/// of the matrix, tokens per row of a region.
pub type ScalePlan = [u32; 4];

/// `Params` of `region_pool.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct RegionPoolParams {
    /// Height of the map, in patches.
    pub height: u32,
    /// Width of the map, in patches.
    pub width: u32,
    /// Packs per patch.
    pub packs: u32,
    /// Regions per row.
    pub across: u32,
    /// Number of scales.
    pub scales: u32,
    /// Rows of the result.
    pub rows: u32,
    /// Padding to the alignment of `scale`.
    pub unused_0: u32,
    /// Padding to the alignment of `scale`.
    pub unused_1: u32,
    /// The scales.
    pub scale: [ScalePlan; MAX_SCALES],
}

/// The kernel: all scales in one pass. Constants: WINDOW, CHUNK ([`region_pool_chunk`]).
pub const KERNEL: Kernel = Kernel {
    name: "region_pool",
    body: include_str!("wgsl/region_pool.wgsl"),
    lanes: 64,
    buffers: 2,
    parameters: size_of::<RegionPoolParams>(),
    variants: Variant::ALL,
    constants: &["WINDOW", "CHUNK"],
    shared: &[],
    weight: None,
};

/// Packs of channels per workgroup: the largest power of two with which a region fits in 16 KiB, at most 64. On a CPU
/// (`software`) it fits in 1 KiB, or is one pack, because SwiftShader compiles a store for each word of workgroup memory.
pub const fn region_pool_chunk(window: usize, variant: Variant, software: bool) -> u32 {
    let memory = if software { 1024 } else { 16 * 1024 };
    let fit = memory / (window * window * variant.bytes() as usize);
    let mut chunk = 64;
    while chunk > 1 && chunk > fit {
        chunk /= 2;
    }
    chunk as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_cut_by_the_edge_takes_what_is_there() {
        // 3 x 3 map of one channel, window 2: regions (0,0) 2x2, (0,2) 2x1, (2,0) 1x2, (2,2) 1x1.
        let map = [1., 2., 3., 4., 5., 6., 7., 8., 9.];
        let pooled = region_pool(&map, [3, 3, 1], 2, Scale::new(2, 2));
        let values: Vec<f64> = pooled.iter().flat_map(|(_, v)| v.clone()).collect();
        assert_eq!(values, [5., 6., 8., 9.]);
        let rows = region_pool(&map, [3, 3, 1], 2, Scale::new(1, 2));
        assert_eq!(rows[0], ((2, 1), vec![2., 5.]));
    }
}
