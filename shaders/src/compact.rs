//! The order of the visual tokens at the chosen scales (paper Sec. 3.2; scanline order is our choice).

use bytemuck::{Pod, Zeroable};

use crate::{
    kernel::{Kernel, Variant},
    region_pool::{MAX_SCALES, PoolLayout, ScalePlan},
    scale::{Scale, regions},
};

/// The patches of a token: y0, x0 inclusive; y1, x1 exclusive. A newline has (y, width, y + 1, width).
pub type TokenBox = [usize; 4];

/// The source of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// Token (row, col) of `region` at its chosen scale.
    Pooled {
        /// Index of the region, in raster order.
        region: usize,
        /// Row of the token in the region.
        row: usize,
        /// Column of the token in the region.
        col: usize,
    },
    /// The `image_newline` embedding.
    Newline,
}

/// Tokens in scanline order: by the top-left patch of each token, row by row over the map, with a newline after each
/// row that has a token. With all regions at 1x1 this is the sequence of LLaVA-NeXT.
///
/// `choice` has an index into `scales` for each region in raster order.
///
/// # Panics
/// Where a choice is out of range.
pub fn compact(
    height: usize,
    width: usize,
    window: usize,
    scales: &[Scale],
    choice: &[usize],
) -> Vec<(TokenBox, Cell)> {
    let mut cells: Vec<(TokenBox, Cell)> = Vec::new();
    for (region, ((y, x), &chosen)) in regions(height, width, window).into_iter().zip(choice).enumerate() {
        let scale = scales[chosen];
        let (bottom, right) = ((y + window).min(height), (x + window).min(width));
        let (rows, cols) = scale.tokens(bottom - y, right - x);
        for row in 0..rows {
            for col in 0..cols {
                let (y0, x0) = (y + row * scale.rows, x + col * scale.cols);
                let token_box = [y0, x0, (y0 + scale.rows).min(bottom), (x0 + scale.cols).min(right)];
                cells.push((token_box, Cell::Pooled { region, row, col }));
            }
        }
    }
    let mut rows: Vec<usize> = cells.iter().map(|(b, _)| b[0]).collect();
    rows.sort_unstable();
    rows.dedup();
    cells.extend(rows.into_iter().map(|y| ([y, width, y + 1, width], Cell::Newline)));
    cells.sort_by_key(|(b, _)| (b[0], b[1]));
    cells
}

/// The source of the tokens of one scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// None: the scale drops the region.
    Nowhere,
    /// The map: one patch per token.
    Map,
    /// The pooled tokens: the scale with this index in their layout.
    Pooled(usize),
}

/// The available scales, and the source of the tokens of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompactLayout {
    /// The layout of the pooled tokens.
    pub pool: PoolLayout,
    /// The available scales. A choice is an index into them.
    pub scales: Vec<Scale>,
    /// One per scale.
    pub places: Vec<Place>,
    /// Whether a newline goes after each row that has a token.
    pub newlines: bool,
}

impl CompactLayout {
    /// None where a scale that needs pooled tokens is not in `pool`.
    pub fn new(pool: PoolLayout, scales: &[Scale], newlines: bool) -> Option<Self> {
        let place = |scale: &Scale| {
            let cut = Scale::new(scale.rows.min(pool.window), scale.cols.min(pool.window));
            match *scale {
                scale if scale.drops() => Some(Place::Nowhere),
                Scale { rows: 1, cols: 1 } => Some(Place::Map),
                _ => pool.scales.iter().position(|&s| s == cut).map(Place::Pooled),
            }
        };
        let places: Option<Vec<Place>> = scales.iter().map(place).collect();
        places.map(|places| Self { pool, scales: scales.to_vec(), places, newlines })
    }

    /// The parameters of both kernels, without `packs` and `tokens`. At most [`MAX_SCALES`] scales.
    pub fn params(&self) -> CompactParams {
        let (height, width) = self.pool.map;
        let mut scale = [[0; 4]; MAX_SCALES];
        for (plan, place) in scale.iter_mut().zip(&self.places) {
            *plan = match *place {
                Place::Nowhere => [0; 4],
                Place::Map => [1, 1, FROM_MAP, 0],
                Place::Pooled(index) => self.pool.plan(index),
            };
        }
        CompactParams {
            height: height as u32,
            width: width as u32,
            window: self.pool.window as u32,
            across: width.div_ceil(self.pool.window) as u32,
            scales: self.scales.len().min(MAX_SCALES) as u32,
            packs: 0,
            tokens: 0,
            pooled_rows: self.pool.rows as u32,
            newlines: u32::from(self.newlines),
            unused_0: 0,
            unused_1: 0,
            unused_2: 0,
            scale,
        }
    }
}

/// The first row in a [`ScalePlan`] whose tokens are patches of the map.
pub const FROM_MAP: u32 = u32::MAX;

/// `Params` of `compact_rows.wgsl` and `compact.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct CompactParams {
    /// Height of the map, in patches.
    pub height: u32,
    /// Width of the map, in patches.
    pub width: u32,
    /// Side of a region, in patches.
    pub window: u32,
    /// Regions per row.
    pub across: u32,
    /// Number of scales.
    pub scales: u32,
    /// Packs per token.
    pub packs: u32,
    /// Rows of the result.
    pub tokens: u32,
    /// Rows of the pooled tokens.
    pub pooled_rows: u32,
    /// 1: a newline goes after each row that has a token; 0: there are no newlines.
    pub newlines: u32,
    /// Padding.
    pub unused_0: u32,
    /// Padding.
    pub unused_1: u32,
    /// Padding.
    pub unused_2: u32,
    /// The scales.
    pub scale: [ScalePlan; MAX_SCALES],
}

/// The kernel: the first token of each row of the map.
pub const ROWS: Kernel = Kernel {
    name: "compact_rows",
    body: include_str!("wgsl/compact_rows.wgsl"),
    lanes: 256,
    buffers: 3,
    parameters: size_of::<CompactParams>(),
    variants: Variant::ONLY_F32,
    constants: &["LANES"],
    shared: &[],
    weight: None,
};

/// The kernel: tokens, newlines and boxes.
pub const KERNEL: Kernel = Kernel {
    name: "compact",
    body: include_str!("wgsl/compact.wgsl"),
    lanes: 64,
    buffers: 7,
    parameters: size_of::<CompactParams>(),
    variants: Variant::ALL,
    constants: &[],
    shared: &[],
    weight: None,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_6_by_8_map_of_mixed_scales_is_23_tokens_and_5_newlines() {
        let scales = [Scale::new(4, 4), Scale::new(2, 2), Scale::new(1, 1)];
        // Regions [[1x1, 2x2], [4x4, 2x2]]: 16 + 4 + 1 + 2 = 23 tokens; rows 0, 1, 2, 3 and 4 hold one.
        let cells = compact(6, 8, 4, &scales, &[2, 1, 0, 1]);
        let newlines = cells.iter().filter(|(_, c)| *c == Cell::Newline).count();
        assert_eq!((cells.len() - newlines, newlines), (23, 5));
        assert_eq!(cells[4].0, [0, 4, 2, 6]);
        assert_eq!(cells.last().unwrap().0, [4, 8, 5, 8]);
    }
}
