//! Products of a weight with many rows, in tiles of the result that stay in registers.
//!
//! ```text
//! weight -> panels: some rows, column after column
//! x -> tiles: some rows, column after column        -> products of a panel with a tile -> out
//! ```
//!
//! Both are made once. A task has some tiles and goes through all panels, each of which it reads once for its tiles. With
//! few tiles, a task has a panel and all tiles.

use std::ops::Range;

use super::for_each_chunk;

/// Fewest tiles for tasks that go through all panels: enough tasks for the threads of most processors.
const MANY: usize = 32;

/// The sizes of a product.
#[derive(Clone, Copy)]
pub(super) struct Tiling {
    /// Rows of `x`.
    pub(super) tokens: usize,
    /// Rows of the weight.
    pub(super) height: usize,
    /// Rows of `x` in a tile.
    pub(super) tile: usize,
    /// Rows of the weight in a panel.
    pub(super) panel: usize,
    /// Panels in memory at once.
    pub(super) panels: usize,
}

impl Tiling {
    /// `out` (tokens, height) from the products of all panels and tiles. `panel` and `tile` get the rows that exist, which
    /// can be fewer for the last one; `products` fills the results (tile, panel) of a panel and some tiles.
    ///
    /// # Panics
    /// If `out` has another length.
    pub(super) fn run<P: Send + Sync, T: Send + Sync>(
        self,
        out: &mut [f32],
        panel: impl Fn(Range<usize>) -> P + Sync,
        tile: impl Fn(Range<usize>) -> T + Sync,
        products: impl Fn(&P, &[T], &mut [f32]) + Sync,
    ) {
        let Self { tokens, height, .. } = self;
        assert_eq!(out.len(), tokens * height, "product: lengths");
        let tiles = all(tokens.div_ceil(self.tile), |i| tile(i * self.tile..tokens.min((i + 1) * self.tile)));
        if tiles.len() < MANY {
            let rows = |i: usize| i * self.panel..height.min((i + 1) * self.panel);
            let parts = all(height.div_ceil(self.panel), |i| {
                let mut sums = vec![0.0; tiles.len() * self.tile * self.panel];
                products(&panel(rows(i)), &tiles, &mut sums);
                sums
            });
            for_each_chunk(out, height, |token, out| {
                for (i, sums) in parts.iter().enumerate() {
                    let out = &mut out[rows(i)];
                    out.copy_from_slice(&sums[token * self.panel..][..out.len()]);
                }
            });
            return;
        }
        let count = (tiles.len() / MANY).clamp(1, 48_usize.div_ceil(self.tile));
        for first in (0..height).step_by(self.panels * self.panel) {
            let left = (height - first).min(self.panels * self.panel);
            let rows = |i: usize| first + i * self.panel..first + left.min((i + 1) * self.panel);
            let panels = all(left.div_ceil(self.panel), |i| panel(rows(i)));
            for_each_chunk(out, count * self.tile * height, |i, out| {
                let tiles = &tiles[i * count..tiles.len().min((i + 1) * count)];
                let mut sums = vec![0.0; tiles.len() * self.tile * self.panel];
                for (p, panel) in panels.iter().enumerate() {
                    products(panel, tiles, &mut sums);
                    for (sums, out) in sums.chunks_exact(self.panel).zip(out.chunks_exact_mut(height)) {
                        let out = &mut out[rows(p)];
                        out.copy_from_slice(&sums[..out.len()]);
                    }
                }
            });
        }
    }
}

/// `f(i)` for each i below `count`, on all threads.
fn all<T: Send>(count: usize, f: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let mut out: Vec<Option<T>> = (0..count).map(|_| None).collect();
    for_each_chunk(&mut out, 1, |i, out| out[0] = Some(f(i)));
    out.into_iter().flatten().collect()
}
