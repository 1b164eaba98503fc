//! `DS[s](X_i)`: every region of a map, max-pooled by one kernel (paper Sec. 3.2).

use crate::{Scale, regions};

/// Max pooling of every region of `map` (height, width, channels; row-major) by `scale`.
///
/// `out[i][r][c] = max over map[y + r*rows .. , x + c*cols ..]`, cut by the region's own edge: the max over what is there.
/// Returns, for every region in raster order, its tokens (rows, cols) and their values (rows * cols * channels).
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
