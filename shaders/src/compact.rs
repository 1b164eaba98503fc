//! The order of the visual tokens once every region has its scale (paper Sec. 3.2; scanline order is our choice).

use bytemuck::{Pod, Zeroable};

use crate::{Kernel, MAX_SCALES, PoolLayout, Scale, ScalePlan, Variant, regions};

/// The patches that a token stands for: y0, x0 inclusive; y1, x1 exclusive. A newline's is (y, width, y + 1, width).
pub type TokenBox = [usize; 4];

/// Where a token comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// Token (row, col) of `region` at its chosen scale.
    Pooled {
        /// Index of the region, raster order.
        region: usize,
        /// Row of the token within the region.
        row: usize,
        /// Column of the token within the region.
        col: usize,
    },
    /// The `image_newline` embedding.
    Newline,
}

/// Tokens in scanline order: by the top-left patch each stands for, row by row over the whole map, and a newline
/// after every row that holds a token. With every region at 1x1 this is LLaVA-NeXT's own sequence.
///
/// `choice` holds, per region in raster order, an index into `scales`.
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

/// Where the tokens of one scale come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The scale drops a region.
    Nowhere,
    /// One patch a token: the map itself.
    Map,
    /// The scale of this index in the pooled tokens' layout.
    Pooled(usize),
}

/// The scales to choose from, and where the tokens of each lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompactLayout {
    /// Where the pooled tokens lie.
    pub pool: PoolLayout,
    /// What a choice is an index into.
    pub scales: Vec<Scale>,
    /// One a scale.
    pub places: Vec<Place>,
}

impl CompactLayout {
    /// None where a scale that pools is not in `pool`.
    pub fn new(pool: PoolLayout, scales: &[Scale]) -> Option<Self> {
        let place = |scale: &Scale| {
            let cut = Scale::new(scale.rows.min(pool.window), scale.cols.min(pool.window));
            match *scale {
                scale if scale.drops() => Some(Place::Nowhere),
                Scale { rows: 1, cols: 1 } => Some(Place::Map),
                _ => pool.scales.iter().position(|&s| s == cut).map(Place::Pooled),
            }
        };
        let places: Option<Vec<Place>> = scales.iter().map(place).collect();
        places.map(|places| Self { pool, scales: scales.to_vec(), places })
    }

    /// The parameters of both kernels, but for `packs` and `tokens`. At most [`MAX_SCALES`] scales.
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
            scale,
        }
    }
}

/// In [`ScalePlan`]: this scale's tokens are the map's own patches.
pub const FROM_MAP: u32 = u32::MAX;

/// `Params` of `compact_rows.wgsl` and `compact.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct CompactParams {
    /// Of the map, in patches.
    pub height: u32,
    /// Of the map, in patches.
    pub width: u32,
    /// Side of a region, in patches.
    pub window: u32,
    /// Regions in a row.
    pub across: u32,
    /// Scales to choose from.
    pub scales: u32,
    /// Packs of channels.
    pub packs: u32,
    /// Rows of the result.
    pub tokens: u32,
    /// Rows of what region_pool made.
    pub pooled_rows: u32,
    /// One a scale.
    pub scale: [ScalePlan; MAX_SCALES],
}

/// The shader: where every row of the map starts.
pub const ROWS: Kernel = Kernel {
    name: "compact_rows",
    body: include_str!("wgsl/compact_rows.wgsl"),
    lanes: 256,
    buffers: 3,
    parameters: size_of::<CompactParams>(),
    variants: Variant::ONLY_F32,
    constants: &[],
};

/// The shader: tokens, newlines and boxes.
pub const KERNEL: Kernel = Kernel {
    name: "compact",
    body: include_str!("wgsl/compact.wgsl"),
    lanes: 64,
    buffers: 7,
    parameters: size_of::<CompactParams>(),
    variants: Variant::ALL,
    constants: &[],
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
