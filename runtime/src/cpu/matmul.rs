//! Products of a weight with many rows, in f32.

use std::{borrow::Cow, ops::Range};

use pulp::{Arch, Simd, WithSimd};

use super::{Line, lines, tiled::Tiling};

/// Vectors of rows in a panel.
const VECTORS: usize = 2;
/// Columns after which the next tile follows: their part of a panel stays in the second cache.
const BLOCK: usize = 1 << 10;
/// Values of a weight that are in panels at once.
const PANELS: usize = 1 << 19;

/// Rows of `x` in a tile: with 32 registers, 24 sums, two vectors of the weight and a value of `x`. On x86-64 a browser
/// has 16 registers and keeps one of them for itself: sums of more than 4 rows did not stay in registers.
const M: usize = if cfg!(target_arch = "wasm32") { 4 } else { 12 };

/// Whether this is faster than burn's product.
pub(crate) fn is_fast() -> bool {
    #[cfg(target_arch = "x86_64")]
    return matches!(Arch::new(), Arch::V4(_));
    #[cfg(target_arch = "wasm32")]
    return matches!(Arch::new(), Arch::RelaxedSimd(_) | Arch::Simd128(_));
    #[cfg(not(any(target_arch = "x86_64", target_arch = "wasm32")))]
    false
}

/// `out[t][n]` is the product of row `n` of the weight with row `t` of `x`, summed in f32. `values` has some rows of the
/// weight.
///
/// # Shapes
/// The weight (height, width), `x` (rows, width), `out` (rows, height).
///
/// # Panics
/// Where the lengths do not agree.
pub(crate) fn matmul<'a>(
    width: usize,
    height: usize,
    x: &[f32],
    out: &mut [f32],
    values: impl Fn(Range<usize>) -> Cow<'a, [f32]> + Sync,
) {
    let arch = Arch::new();
    let panel = VECTORS * arch.dispatch(Lanes);
    let tokens = x.len() / width;
    assert_eq!(tokens * width, x.len(), "matmul: lengths");
    let tiling = Tiling { tokens, height, tile: M, panel, panels: (PANELS / width / panel).max(1) };
    tiling.run(
        out,
        |rows| columns(&values(rows), width, panel),
        |tokens| columns(&x[tokens.start * width..tokens.end * width], width, M),
        |panel, tiles, sums| arch.dispatch(Products { panel, tiles, width, sums }),
    );
}

/// Rows of `width` values, column after column; each column has `count` values, zeros after the last row.
fn columns(rows: &[f32], width: usize, count: usize) -> Vec<Line> {
    let mut out = lines(width * count);
    let columns = &mut bytemuck::cast_slice_mut(&mut out)[..width * count];
    Arch::new().dispatch(Turn { rows, width, count, columns });
    out
}

/// Transposes.
struct Turn<'a> {
    rows: &'a [f32],
    width: usize,
    count: usize,
    columns: &'a mut [f32],
}

impl WithSimd for Turn<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { rows, width, count, columns } = self;
        // Blocks of 16 x 4 stay in registers, and the columns of a block in the first cache.
        for (first, columns) in columns.chunks_mut(16 * count).enumerate() {
            let (first, wide) = (16 * first, columns.len() / count);
            for (group, rows) in rows.chunks(4 * width).enumerate() {
                let mut block = [[0.0; 16]; 4];
                for (block, row) in block.iter_mut().zip(rows.chunks_exact(width)) {
                    block[..wide].copy_from_slice(&row[first..][..wide]);
                }
                let [a, b, c, d] = block;
                for (i, column) in columns.chunks_exact_mut(count).enumerate() {
                    let to = &mut column[4 * group..];
                    if let Some(to) = to.first_chunk_mut::<4>() {
                        *to = [a[i], b[i], c[i], d[i]];
                    } else {
                        to.iter_mut().zip([a[i], b[i], c[i], d[i]]).for_each(|(to, from)| *to = from);
                    }
                }
            }
        }
    }
}

/// The lanes of a vector.
struct Lanes;

impl WithSimd for Lanes {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        S::F32_LANES
    }
}

/// The products of a panel with tiles of `M` rows.
struct Products<'a> {
    panel: &'a [Line],
    tiles: &'a [Vec<Line>],
    width: usize,
    /// (tiles, M, rows of the panel).
    sums: &'a mut [f32],
}

impl WithSimd for Products<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        self.sums.fill(0.0);
        let sums = S::as_mut_simd_f32s(self.sums).0.as_chunks_mut::<VECTORS>().0.as_chunks_mut::<M>().0;
        let weights = S::as_simd_f32s(bytemuck::cast_slice(self.panel)).0.as_chunks::<VECTORS>().0;
        for (i, weights) in weights[..self.width].chunks(BLOCK).enumerate() {
            for (tile, sums) in self.tiles.iter().zip(&mut *sums) {
                let x: &[f32] = bytemuck::cast_slice(tile);
                let x = &x[..self.width * M].as_chunks::<M>().0[i * BLOCK..];
                let mut sum = *sums;
                for (weights, x) in weights.iter().zip(x) {
                    for m in 0..M {
                        let x = simd.splat_f32s(x[m]);
                        for v in 0..VECTORS {
                            sum[m][v] = simd.mul_add_e_f32s(weights[v], x, sum[m][v]);
                        }
                    }
                }
                *sums = sum;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use pulp::{Scalar, Simd};

    use super::super::test_values;
    #[cfg(not(target_family = "wasm"))]
    use super::super::threads::tests::with;
    use super::{M, Products, VECTORS, columns};

    #[test]
    fn products_are_close_to_f64() {
        for (height, width) in [(1, 1), (3, 7), (31, 16), (33, 17), (65, 129), (300, 896), (2, 70_001)] {
            let weight = test_values(height * width, 1);
            for rows in [1, 2, 6, 9, 13, 50, 400] {
                let (x, mut out) = (test_values(rows * width, 2), vec![f32::NAN; rows * height]);
                super::matmul(width, height, &x, &mut out, |rows| {
                    Cow::Borrowed(&weight[rows.start * width..rows.end * width])
                });
                for (i, got) in out.into_iter().enumerate() {
                    let (x, weight) = (&x[i / height * width..], &weight[i % height * width..][..width]);
                    let products = weight.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x));
                    let (sum, size) = products.fold((0.0, 0.0), |(sum, size), p| (sum + p, size + p.abs()));
                    let error = (f64::from(got) - sum).abs();
                    assert!(error <= 2e-5 * size, "({height}, {width}), {rows} rows, {i}: expected {sum}, got {got}");
                }
            }
        }
    }

    /// The products of `M` rows with as many rows of a weight as `simd` has in a panel.
    fn products<S: Simd>(simd: S, width: usize, weight: &[f32], x: &[f32]) -> Vec<f32> {
        let rows = VECTORS * S::F32_LANES;
        let panel = columns(&weight[..rows * width], width, rows);
        let mut sums = vec![f32::NAN; M * rows];
        simd.vectorize(Products { panel: &panel, tiles: &[columns(x, width, M)], width, sums: &mut sums });
        sums
    }

    #[test]
    fn other_vectors_give_the_same_products() {
        for width in [1, 7, 64, 2100] {
            let (x, weight) = (test_values(M * width, 2), test_values(32 * width, 1));
            #[allow(unused_mut)]
            let mut all = vec![products(Scalar, width, &weight, &x)];
            all.push(products(pulp::Scalar128b, width, &weight, &x));
            #[cfg(target_arch = "x86_64")]
            all.extend(pulp::x86::V3::try_new().map(|simd| products(simd, width, &weight, &x)));
            for sums in all {
                let rows = sums.len() / M;
                for (i, got) in sums.into_iter().enumerate() {
                    let (x, weight) = (&x[i / rows * width..][..width], &weight[i % rows * width..]);
                    let expected: f64 = x.iter().zip(weight).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
                    let size = 2e-5 * (width as f64).sqrt();
                    assert!((f64::from(got) - expected).abs() < size, "{width}, {i}: expected {expected}, got {got}");
                }
            }
        }
    }

    #[test]
    #[cfg(not(target_family = "wasm"))]
    fn products_are_the_same_for_every_number_of_threads() {
        for rows in [50, 500] {
            let (height, width) = (100, 130);
            let (weight, x) = (test_values(height * width, 1), test_values(rows * width, 2));
            let run = |threads| {
                let mut out = vec![f32::NAN; rows * height];
                let values =
                    |rows: std::ops::Range<usize>| Cow::Borrowed(&weight[rows.start * width..rows.end * width]);
                with(threads, || super::matmul(width, height, &x, &mut out, values));
                out
            };
            assert!([2, 3, 5].map(run).iter().all(|out| *out == run(1)), "{rows} rows");
        }
    }
}
