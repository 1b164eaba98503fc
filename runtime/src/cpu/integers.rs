//! Products of codes with many rows, in integers: `x` is rounded to 8 bits, with one scale per row and group.
//!
//! ```text
//! q = round(x / a), a = max |x| / 127 over a group of the weight's format
//! y = sum over groups of a (scale sum (code - zero) q + minimum sum q)
//! ```
//!
//! The sums of integers are exact. The error is that of the rounding: for values of similar size a NMSE of about 2e-5,
//! which is that of codes of 8 bits. llama.cpp rounds the activations in the same way.
//!
//! An instruction of AVX-512 VNNI or AVX-VNNI adds the products of four bytes, on each lane. A lane is a row of the weight.

use fovea_shaders::Format;

use super::{codes::Codes, tiled::Tiling};

/// Rows of the weight per panel.
const ROWS: usize = 32;
/// Bytes of codes that are in panels at once.
const PANELS: usize = 1 << 21;

/// A word of each row of a panel.
#[repr(C, align(64))]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Words([u32; ROWS]);

/// A value of each row of a panel.
#[repr(C, align(64))]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Values([f32; ROWS]);

/// Some rows of a weight, column after column.
struct Panel {
    /// Four codes of each row.
    words: Vec<Words>,
    /// Per group.
    scales: Vec<Values>,
    /// Per group; empty where the format has no minima.
    minima: Vec<Values>,
}

impl Panel {
    /// Rows of zeros follow the last row.
    fn of(weight: Codes) -> Self {
        let Codes { words, width, format, .. } = weight;
        let groups = width / format.group as usize;
        let zeros = |count: usize| vec![Values([0.0; ROWS]); count];
        let minima = zeros(if format.minimum { groups } else { 0 });
        let mut out = Self { words: vec![Words([0; ROWS]); width / 4], scales: zeros(groups), minima };
        let per = 8 / format.bits as usize;
        // A few columns of all rows at once: they stay in the first cache.
        for (first, columns) in out.words.chunks_mut(16).enumerate() {
            let first = first * 16 / per;
            for (r, row) in words.chunks_exact(format.words(width)).enumerate() {
                for (word, columns) in row[first..].iter().zip(columns.chunks_exact_mut(per)) {
                    if per == 1 {
                        columns[0].0[r] = *word;
                    } else {
                        columns[0].0[r] = word & 0x0f0f_0f0f;
                        columns[1].0[r] = word >> 4 & 0x0f0f_0f0f;
                    }
                }
            }
        }
        let ([scales, minima], stride) = (weight.groups(format.zero()), weight.stride());
        for (to, from) in [(&mut out.scales, scales), (&mut out.minima, minima)] {
            for (r, row) in from.chunks_exact(stride).enumerate() {
                to.iter_mut().zip(row).for_each(|(to, from)| to.0[r] = *from);
            }
        }
        out
    }
}

/// `M` rows of `x`, rounded.
struct Tile<const M: usize> {
    /// Four codes of each row.
    words: Vec<[i32; M]>,
    groups: Vec<Group<M>>,
}

/// A group of each of `M` rows.
#[derive(Clone, Copy)]
struct Group<const M: usize> {
    scale: [f32; M],
    /// `-zero sum q`: where the sum of `code q` starts.
    start: [i32; M],
    /// The sum of the rounded values.
    sum: [f32; M],
}

impl<const M: usize> Tile<M> {
    /// Rows of zeros follow the last row of `x`.
    fn of(x: &[f32], width: usize, format: Format) -> Self {
        let group = format.group as usize;
        let empty = Group { scale: [0.0; M], start: [0; M], sum: [0.0; M] };
        let mut out = Self { words: vec![[0; M]; width / 4], groups: vec![empty; width / group] };
        for (m, x) in x.chunks_exact(width).enumerate() {
            let words = out.words.chunks_exact_mut(group / 4);
            for ((x, words), to) in x.chunks_exact(group).zip(words).zip(&mut out.groups) {
                let (scale, sum) = round(x, words, m);
                to.scale[m] = scale;
                to.start[m] = -(format.zero() as i32) * sum;
                to.sum[m] = scale * sum as f32;
            }
        }
        out
    }
}

/// Rounds a group: its scale, and the sum of its codes. The scale is NaN if a value is not finite.
fn round<const M: usize>(x: &[f32], words: &mut [[i32; M]], m: usize) -> (f32, i32) {
    // The bits of positive floats have their order, and NaN is above all.
    let largest = f32::from_bits(x.iter().map(|x| x.to_bits() & 0x7fff_ffff).max().unwrap_or(0));
    if !largest.is_finite() {
        return (f32::NAN, 0);
    }
    if largest < 1e-30 {
        return (0.0, 0);
    }
    let (factor, mut sum) = (127.0 / largest, 0);
    for (x, word) in x.as_chunks::<4>().0.iter().zip(words) {
        let mut codes = [0; 4];
        for (x, code) in x.iter().zip(&mut codes) {
            // Adding 1.5 * 2^23 rounds to an integer, which is then in the low bits.
            *code = (x * factor + 12_582_912.0).to_bits() as i8;
        }
        sum += codes.iter().map(|code| i32::from(*code)).sum::<i32>();
        word[m] = i32::from_le_bytes(codes.map(|code| code as u8));
    }
    (largest / 127.0, sum)
}

/// The products of a panel with a tile, with the instructions of `$features`: `$vectors` vectors of rows at once.
macro_rules! products {
    ($name:ident, $features:literal, $vectors:literal, $ints:ident, $floats:ident,
     $integer:ident, $float:ident, $dot:ident, $convert:ident, $times:ident, $add:ident) => {
        #[target_feature(enable = $features)]
        fn $name<const M: usize>(panel: &Panel, tile: &Tile<M>) -> [Values; M] {
            use std::arch::x86_64::{$add, $convert, $dot, $float, $floats, $integer, $ints, $times};
            const PARTS: usize = ROWS * 4 / size_of::<[$floats; $vectors]>();
            let mut out = [Values([0.0; ROWS]); M];
            let per = tile.words.len() / tile.groups.len();
            for part in 0..PARTS {
                let mut total = [[$float(0.0); $vectors]; M];
                let groups = panel.words.chunks_exact(per).zip(tile.words.chunks_exact(per)).zip(&tile.groups);
                for (g, ((weights, x), group)) in groups.enumerate() {
                    let mut sum = [[$integer(0); $vectors]; M];
                    for m in 0..M {
                        sum[m] = [$integer(group.start[m]); $vectors];
                    }
                    for (weights, x) in weights.iter().zip(x) {
                        let weights: &[[$ints; $vectors]; PARTS] = bytemuck::cast_ref(weights);
                        for m in 0..M {
                            let x = $integer(x[m]);
                            for v in 0..$vectors {
                                sum[m][v] = $dot(sum[m][v], weights[part][v], x);
                            }
                        }
                    }
                    let scales: &[[$floats; $vectors]; PARTS] = bytemuck::cast_ref(&panel.scales[g]);
                    for m in 0..M {
                        let scale = $float(group.scale[m]);
                        for v in 0..$vectors {
                            let scale = $times(scales[part][v], scale);
                            total[m][v] = $add($convert(sum[m][v]), scale, total[m][v]);
                        }
                    }
                    if let Some(minima) = panel.minima.get(g) {
                        let minima: &[[$floats; $vectors]; PARTS] = bytemuck::cast_ref(minima);
                        for m in 0..M {
                            for v in 0..$vectors {
                                total[m][v] = $add(minima[part][v], $float(group.sum[m]), total[m][v]);
                            }
                        }
                    }
                }
                for m in 0..M {
                    let out: &mut [[$floats; $vectors]; PARTS] = bytemuck::cast_mut(&mut out[m]);
                    out[part] = total[m];
                }
            }
            out
        }
    };
}

products!(
    products_512,
    "avx512f,avx512vnni",
    2,
    __m512i,
    __m512,
    _mm512_set1_epi32,
    _mm512_set1_ps,
    _mm512_dpbusd_epi32,
    _mm512_cvtepi32_ps,
    _mm512_mul_ps,
    _mm512_fmadd_ps
);
products!(
    products_256,
    "avx2,fma,avxvnni",
    2,
    __m256i,
    __m256,
    _mm256_set1_epi32,
    _mm256_set1_ps,
    _mm256_dpbusd_avx_epi32,
    _mm256_cvtepi32_ps,
    _mm256_mul_ps,
    _mm256_fmadd_ps
);

/// `out[t][n]` is the product of row `n` of the weight with row `t` of `x`, rounded. Returns whether the processor has the
/// instruction; otherwise `out` stays as it is.
///
/// # Shapes
/// `weight` (height, width), `x` (rows, width), `out` (rows, height).
///
/// # Panics
/// Where the lengths do not agree.
pub(crate) fn matmul(weight: Codes, x: &[f32], out: &mut [f32]) -> bool {
    let Some(instructions) = Instructions::of_processor().next() else { return false };
    instructions.matmul(weight, x, out);
    true
}

/// Instructions that add four products of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Instructions {
    /// AVX-512 VNNI: 32 registers.
    Wide,
    /// AVX-VNNI: 16 registers.
    Narrow,
}

impl Instructions {
    /// Those that the processor has, the fastest first.
    fn of_processor() -> impl Iterator<Item = Self> {
        let wide = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni");
        let narrow = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        let narrow = narrow && is_x86_feature_detected!("avxvnni");
        [(Self::Wide, wide), (Self::Narrow, narrow)].into_iter().filter_map(|(which, has)| has.then_some(which))
    }

    /// See [`matmul`]. The processor has these instructions.
    #[expect(unsafe_code, reason = "the compiler cannot know that the processor has these instructions")]
    fn matmul(self, weight: Codes, x: &[f32], out: &mut [f32]) {
        assert!(Self::of_processor().any(|of| of == self), "{self:?}: expected instructions of this processor");
        match self {
            // SAFETY: checked above.
            Self::Wide => run::<6>(weight, x, out, |panel, tile| unsafe { products_512(panel, tile) }),
            // SAFETY: checked above.
            Self::Narrow => run::<3>(weight, x, out, |panel, tile| unsafe { products_256(panel, tile) }),
        }
    }
}

/// All products, by those of a panel with a tile.
fn run<const M: usize>(
    weight: Codes,
    x: &[f32],
    out: &mut [f32],
    products: impl Fn(&Panel, &Tile<M>) -> [Values; M] + Sync,
) {
    let (width, height) = (weight.width, weight.height());
    let tokens = x.len() / width;
    assert_eq!(tokens * width, x.len(), "matmul: lengths");
    let panels = (PANELS / width / ROWS).max(1);
    Tiling { tokens, height, tile: M, panel: ROWS, panels }.run(
        out,
        |rows| Panel::of(weight.rows(rows.start, rows.len())),
        |tokens| Tile::of(&x[tokens.start * width..tokens.end * width], width, weight.format),
        |panel, tiles, sums| {
            let sums = sums.as_chunks_mut::<ROWS>().0.as_chunks_mut::<M>().0;
            for (tile, sums) in tiles.iter().zip(sums) {
                *sums = products(panel, tile).map(|values| values.0);
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use fovea_shaders::dequantise;

    use super::super::{
        codes::tests::{FORMATS, weight},
        test_values,
    };
    use super::*;

    /// The values of `x` after rounding.
    fn rounded(x: &[f32], width: usize, format: Format) -> Vec<f64> {
        let mut out = Vec::new();
        for row in x.chunks_exact(width) {
            let tile = Tile::<1>::of(row, width, format);
            for (words, group) in tile.words.chunks_exact(format.group as usize / 4).zip(&tile.groups) {
                let codes = words.iter().flat_map(|word| word[0].to_le_bytes());
                out.extend(codes.map(|code| f64::from(group.scale[0]) * f64::from(code as i8)));
            }
        }
        out
    }

    /// Normalised mean square error.
    fn error(expected: &[f64], got: &[f64]) -> f64 {
        let square = |difference: f64| difference * difference;
        let all = expected.iter().zip(got).map(|(e, g)| square(e - g)).sum::<f64>();
        all / expected.iter().copied().map(square).sum::<f64>()
    }

    /// Products in f64.
    fn products(values: &[f64], x: &[f64], width: usize) -> Vec<f64> {
        let row = |x: &[f64]| values.chunks_exact(width).map(|v| v.iter().zip(x).map(|(v, x)| v * x).sum()).collect();
        x.chunks_exact(width).flat_map(|x| -> Vec<f64> { row(x) }).collect()
    }

    #[test]
    fn values_are_rounded_to_255_steps() {
        let mut x = vec![0.0; 64];
        (x[0], x[1], x[2], x[3], x[33]) = (-127.0, 0.49, 0.51, 63.5, 1e-38);
        let tile = Tile::<2>::of(&x, 64, Format::Q8);
        assert_eq!(tile.words[0][0].to_le_bytes().map(|code| code as i8), [-127, 0, 1, 64]);
        assert_eq!((tile.groups[0].scale, tile.groups[0].start), ([1.0, 0.0], [128 * 62, 0]));
        assert_eq!((tile.groups[1].scale, tile.groups[1].start), ([0.0, 0.0], [0, 0]));
        let close = |values: Vec<f32>| {
            let rounded = rounded(&values, 64, Format::Q8);
            let largest = values.iter().fold(0.0, |most: f64, x| most.max(f64::from(x.abs())));
            values.iter().zip(rounded).all(|(x, got)| (f64::from(*x) - got).abs() <= 0.5001 * largest / 127.0)
        };
        for x in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let tile = Tile::<1>::of(&[[0.5; 32], [x; 32]].concat(), 64, Format::Q8);
            assert!(tile.groups[0].scale[0].is_finite() && tile.groups[1].scale[0].is_nan(), "{x}");
        }
        assert!(close(test_values(64, 1)) && close(vec![f32::MAX; 64]) && close(vec![1e-29; 64]));
    }

    #[test]
    fn products_are_those_of_the_rounded_values() {
        let all: Vec<Instructions> = Instructions::of_processor().collect();
        if all.is_empty() {
            return eprintln!("skipped: this processor has no VNNI");
        }
        for format in FORMATS {
            for (height, width) in [(3, 32), (5, 96), (7, 128), (70, 896), (33, 4864)] {
                if !format.fits(width) {
                    continue;
                }
                let [words, scales] = weight(height, width, format);
                let codes = Codes { words: &words, scales: &scales, width, format };
                let values = dequantise(&words, &scales, width, format);
                for rows in [1, 2, 3, 5, 6, 7, 13, 50, 200] {
                    let noise = test_values(rows * width, 2);
                    let far: Vec<f32> = noise.iter().map(|x| 10.0 + x).collect();
                    for (x, with) in
                        [noise, far].into_iter().flat_map(|x| all.iter().map(move |with| (x.clone(), with)))
                    {
                        let mut got = vec![f32::NAN; rows * height];
                        with.matmul(codes, &x, &mut got);
                        let got: Vec<f64> = got.into_iter().map(f64::from).collect();
                        let exact = error(&products(&values, &rounded(&x, width, format), width), &got);
                        assert!(exact < 1e-12, "{format}, ({height}, {width}), {rows} rows: error {exact:e}");
                        let x: Vec<f64> = x.into_iter().map(f64::from).collect();
                        let error = error(&products(&values, &x, width), &got);
                        // A few products can be small beside their terms.
                        let most = if height < 33 { 1e-2 } else { 1e-4 };
                        assert!(error < most, "{format}, ({height}, {width}), {rows} rows: error {error:e}");
                    }
                }
            }
        }
    }
}
