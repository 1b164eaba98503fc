//! A scale is named by its pooling kernel, not by an index: the tables of the paper list the scales in two orders.

/// A max-pooling kernel, in patches. `0x0` drops the region: it has no token (window 1 in Table 4 of the paper).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Scale {
    /// Rows of patches that become one token.
    pub rows: usize,
    /// Columns of patches that become one token.
    pub cols: usize,
}

impl Scale {
    /// `rows x cols` patches per token.
    pub const fn new(rows: usize, cols: usize) -> Self {
        Self { rows, cols }
    }

    /// Whether a region at this scale has no token.
    pub const fn drops(self) -> bool {
        self.rows == 0 || self.cols == 0
    }

    /// Tokens (rows, cols) of a region of `height x width` patches: `ceil(height / rows) x ceil(width / cols)`.
    pub const fn tokens(self, height: usize, width: usize) -> (usize, usize) {
        if self.drops() { (0, 0) } else { (height.div_ceil(self.rows), width.div_ceil(self.cols)) }
    }
}

impl std::fmt::Display for Scale {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.drops() { f.write_str("drop") } else { write!(f, "{}x{}", self.rows, self.cols) }
    }
}

/// The top-left corners (y, x) of the `window x window` regions of a `height x width` map, in raster order.
///
/// The last row and column of regions may be partial: there is no padding.
pub fn regions(height: usize, width: usize, window: usize) -> Vec<(usize, usize)> {
    let window = window.max(1);
    (0..height).step_by(window).flat_map(|y| (0..width).step_by(window).map(move |x| (y, x))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_regions_may_be_partial() {
        assert_eq!(regions(6, 8, 4), [(0, 0), (0, 4), (4, 0), (4, 4)]);
        assert_eq!(regions(0, 8, 4), []);
        assert_eq!(Scale::new(4, 4).tokens(2, 3), (1, 1));
        assert_eq!(Scale::new(2, 1).tokens(3, 3), (2, 3));
        assert_eq!(Scale::new(0, 0).tokens(3, 3), (0, 0));
    }
}
