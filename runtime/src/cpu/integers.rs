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
//! A lane of a vector is a row of the weight, and an instruction adds the products of its four bytes. The processor
//! must have AVX-512 VNNI, AVX-VNNI, AVX2, or NEON with dot products. WebAssembly must be compiled with `simd128`, and
//! widens bytes to 16 bits first, except for q4 where the browser has relaxed SIMD. AVX2 needs sums of 16 bits, and so
//! does relaxed SIMD on some processors; these never overflow:
//!
//! | | codes | largest sum of 16 bits |
//! |---|---|---|
//! | AVX-512 VNNI, AVX-VNNI | as they are | none |
//! | NEON with dot products, WebAssembly | q4 as they are, q8 minus 128 | none |
//! | AVX2 | q4 as they are | 8 words: 8 * 2 * 15 * 127 = 30480 |
//! | | q8 minus 128 | 1 word: 2 * 128 * 127 = 32512 |
//! | WebAssembly, relaxed SIMD | q4 as they are: 7 bits without a sign | 1 word: 2 * 15 * 127 = 3810 |

use fovea_shaders::Format;
use pulp::Arch;

use super::{
    codes::{Codes, Groups},
    tiled::Tiling,
};
#[cfg(target_arch = "aarch64")]
use arm::Instructions;
#[cfg(target_arch = "wasm32")]
use web::Instructions;
#[cfg(target_arch = "x86_64")]
use x86::Instructions;

/// Rows of the weight per panel.
const ROWS: usize = 32;
/// Bytes of codes that are in panels at once.
const PANELS: usize = 1 << 21;
/// Vectors of rows for which a word of `x` is read once.
const VECTORS: usize = 2;

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
    /// Rows of zeros follow the last row. `center` is subtracted from codes of 8 bits: 0, or 128 to make them signed.
    fn of(weight: Codes, center: u8) -> Self {
        let Codes { words, width, format, .. } = weight;
        let groups = width / format.group as usize;
        let zeros = |count: usize| vec![Values([0.0; ROWS]); count];
        let minima = zeros(if format.minimum { groups } else { 0 });
        let mut out = Self { words: vec![Words([0; ROWS]); width / 4], scales: zeros(groups), minima };
        let per = 8 / format.bits as usize;
        // The lowest byte of `code - 128` is `code ^ 128`.
        let flip = u32::from_ne_bytes([center; 4]);
        // A few columns of all rows at once: they stay in the first cache.
        for (first, columns) in out.words.chunks_mut(16).enumerate() {
            let first = first * 16 / per;
            for (r, row) in words.chunks_exact(format.words(width)).enumerate() {
                for (word, columns) in row[first..].iter().zip(columns.chunks_exact_mut(per)) {
                    if per == 1 {
                        columns[0].0[r] = word ^ flip;
                    } else {
                        columns[0].0[r] = word & 0x0f0f_0f0f;
                        columns[1].0[r] = word >> 4 & 0x0f0f_0f0f;
                    }
                }
            }
        }
        let ([scales, minima], stride) = (Arch::new().dispatch(Groups(weight)), weight.stride());
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
    /// `(center - zero) sum q`: where the sum of `(code - center) q` starts.
    start: [i32; M],
    /// The sum of the rounded values.
    sum: [f32; M],
}

impl<const M: usize> Tile<M> {
    /// Rows of zeros follow the last row of `x`. `center`: see [`Panel::of`].
    fn of(x: &[f32], width: usize, format: Format, center: u8) -> Self {
        let group = format.group as usize;
        let empty = Group { scale: [0.0; M], start: [0; M], sum: [0.0; M] };
        let mut out = Self { words: vec![[0; M]; width / 4], groups: vec![empty; width / group] };
        for (m, x) in x.chunks_exact(width).enumerate() {
            let words = out.words.chunks_exact_mut(group / 4);
            for ((x, words), to) in x.chunks_exact(group).zip(words).zip(&mut out.groups) {
                let (scale, sum) = round(x, words, m);
                to.scale[m] = scale;
                to.start[m] = (i32::from(center) - format.zero() as i32) * sum;
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

/// A function for the products of a panel with a tile, with the instructions of `$features`.
///
/// `$vectors` is a module with vectors of 32 bits. `$begin`, `$dot` and `$end` add the products of `WORDS` words to a sum:
/// `part = begin(sum)`, `part = dot(part, codes, x)` for each word, `sum = end(sum, part)`. A group has a multiple of
/// `WORDS` words. `$read` turns words of codes, and a word of `x` in all lanes, into the operands of `$dot`: once for
/// all products of a word.
macro_rules! products {
    ($name:ident, $features:literal, $vectors:ident, $read:expr, $begin:expr, $dot:expr, $end:expr) => {
        #[target_feature(enable = $features)]
        fn $name<const M: usize, const WORDS: usize>(panel: &Panel, tile: &Tile<M>) -> [Values; M] {
            use $vectors::{Floats, Ints, add, convert, float, integer, times};
            const PARTS: usize = ROWS * 4 / size_of::<[Floats; VECTORS]>();
            let (read, begin, dot, end) = ($read, $begin, $dot, $end);
            let mut out = [Values([0.0; ROWS]); M];
            let per = tile.words.len() / tile.groups.len();
            for p in 0..PARTS {
                let mut total = [[float(0.0); VECTORS]; M];
                let groups = panel.words.chunks_exact(per).zip(tile.words.chunks_exact(per)).zip(&tile.groups);
                for (g, ((weights, x), group)) in groups.enumerate() {
                    let mut sum = [[integer(0); VECTORS]; M];
                    for m in 0..M {
                        sum[m] = [integer(group.start[m]); VECTORS];
                    }
                    for (weights, x) in weights.as_chunks::<WORDS>().0.iter().zip(x.as_chunks::<WORDS>().0) {
                        // `map` is not inlined here: its own code is compiled without these instructions.
                        let mut part = [[begin(sum[0][0]); VECTORS]; M];
                        for m in 0..M {
                            for v in 0..VECTORS {
                                part[m][v] = begin(sum[m][v]);
                            }
                        }
                        for (weights, x) in weights.iter().zip(x) {
                            let weights: &[[Ints; VECTORS]; PARTS] = bytemuck::cast_ref(weights);
                            let mut codes = [read(weights[p][0]); VECTORS];
                            for v in 1..VECTORS {
                                codes[v] = read(weights[p][v]);
                            }
                            for m in 0..M {
                                let x = read(integer(x[m]));
                                for v in 0..VECTORS {
                                    part[m][v] = dot(part[m][v], codes[v], x);
                                }
                            }
                        }
                        for m in 0..M {
                            for v in 0..VECTORS {
                                sum[m][v] = end(sum[m][v], part[m][v]);
                            }
                        }
                    }
                    let scales: &[[Floats; VECTORS]; PARTS] = bytemuck::cast_ref(&panel.scales[g]);
                    for m in 0..M {
                        let scale = float(group.scale[m]);
                        for v in 0..VECTORS {
                            total[m][v] = add(convert(sum[m][v]), times(scales[p][v], scale), total[m][v]);
                        }
                    }
                    if let Some(minima) = panel.minima.get(g) {
                        let minima: &[[Floats; VECTORS]; PARTS] = bytemuck::cast_ref(minima);
                        for m in 0..M {
                            for v in 0..VECTORS {
                                total[m][v] = add(minima[p][v], float(group.sum[m]), total[m][v]);
                            }
                        }
                    }
                }
                for m in 0..M {
                    let out: &mut [[Floats; VECTORS]; PARTS] = bytemuck::cast_mut(&mut out[m]);
                    out[p] = total[m];
                }
            }
            out
        }
    };
}

/// Whether the processor has instructions for [`matmul`].
pub(crate) fn is_possible() -> bool {
    Instructions::of_processor().next().is_some()
}

/// `out[t][n]` is the product of row `n` of the weight with row `t` of `x`, rounded. Returns whether the processor has
/// such instructions; otherwise `out` stays as it is.
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

impl Instructions {
    /// Those that the processor has, the fastest first.
    fn of_processor() -> impl Iterator<Item = Self> {
        Self::all().into_iter().filter_map(|(which, has)| has.then_some(which))
    }

    /// See [`matmul`].
    ///
    /// # Panics
    /// Where the processor does not have these instructions, or the lengths do not agree.
    fn matmul(self, weight: Codes, x: &[f32], out: &mut [f32]) {
        assert!(Self::of_processor().any(|of| of == self), "{self:?}: expected instructions of this processor");
        #[expect(unsafe_code, reason = "the compiler cannot know that the processor has these instructions")]
        // SAFETY: checked above.
        unsafe {
            self.run(weight, x, out);
        }
    }
}

/// Sets of instructions of x86.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        _mm256_abs_epi8, _mm256_add_epi16, _mm256_add_epi32, _mm256_dpbusd_avx_epi32, _mm256_madd_epi16,
        _mm256_maddubs_epi16, _mm256_set1_epi16, _mm256_setzero_si256, _mm256_sign_epi8, _mm512_dpbusd_epi32,
    };

    use super::{Codes, Panel, ROWS, Tile, VECTORS, Values, run};

    /// Vectors of 512 bits.
    mod wide {
        pub(super) use std::arch::x86_64::{
            __m512 as Floats, __m512i as Ints, _mm512_cvtepi32_ps as convert, _mm512_fmadd_ps as add,
            _mm512_mul_ps as times, _mm512_set1_epi32 as integer, _mm512_set1_ps as float,
        };
    }

    /// Vectors of 256 bits.
    mod narrow {
        pub(super) use std::arch::x86_64::{
            __m256 as Floats, __m256i as Ints, _mm256_cvtepi32_ps as convert, _mm256_fmadd_ps as add,
            _mm256_mul_ps as times, _mm256_set1_epi32 as integer, _mm256_set1_ps as float,
        };
    }

    products!(vnni_512, "avx512f,avx512vnni", wide, |word| word, |sum| sum, _mm512_dpbusd_epi32, |_, part| part);
    products!(vnni_256, "avx2,fma,avxvnni", narrow, |word| word, |sum| sum, _mm256_dpbusd_avx_epi32, |_, part| part);
    // A word has two sums of 16 bits. They are added to each other once for all words.
    products!(
        avx2_4,
        "avx2,fma",
        narrow,
        |word| word,
        |_| _mm256_setzero_si256(),
        |part, codes, x| _mm256_add_epi16(part, _mm256_maddubs_epi16(codes, x)),
        |sum, part| _mm256_add_epi32(sum, _mm256_madd_epi16(part, _mm256_set1_epi16(1)))
    );
    // One factor of the instruction has no sign, so the other gets the signs of both.
    products!(
        avx2_8,
        "avx2,fma",
        narrow,
        |word| word,
        |sum| sum,
        |sum, codes, x| {
            let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(x, codes));
            _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        },
        |_, part| part
    );

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) enum Instructions {
        /// AVX-512 VNNI: 32 registers.
        Vnni512,
        /// AVX-VNNI: 16 registers.
        Vnni256,
        /// AVX2: 16 registers.
        Avx2,
    }

    impl Instructions {
        /// All, the fastest first, and whether the processor has them.
        pub(super) fn all() -> [(Self, bool); 3] {
            let wide = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni");
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let narrow = avx2 && is_x86_feature_detected!("avxvnni");
            [(Self::Vnni512, wide), (Self::Vnni256, narrow), (Self::Avx2, avx2)]
        }

        /// See [`super::matmul`].
        ///
        /// # Safety
        /// The processor must have these instructions.
        #[expect(unsafe_code, reason = "the compiler cannot know that the processor has these instructions")]
        pub(super) unsafe fn run(self, weight: Codes, x: &[f32], out: &mut [f32]) {
            match (self, weight.format.bits) {
                // SAFETY: by the caller.
                (Self::Vnni512, _) => run::<6>(weight, x, out, false, |p, t| unsafe { vnni_512::<_, 4>(p, t) }),
                // SAFETY: by the caller.
                (Self::Vnni256, _) => run::<3>(weight, x, out, false, |p, t| unsafe { vnni_256::<_, 4>(p, t) }),
                // SAFETY: by the caller.
                (Self::Avx2, 8) => run::<4>(weight, x, out, true, |p, t| unsafe { avx2_8::<_, 4>(p, t) }),
                // SAFETY: by the caller.
                (Self::Avx2, _) => run::<4>(weight, x, out, false, |p, t| unsafe { avx2_4::<_, 8>(p, t) }),
            }
        }
    }
}

/// Sets of instructions of aarch64.
#[cfg(target_arch = "aarch64")]
mod arm {
    use std::arch::{aarch64::int32x4_t, asm, is_aarch64_feature_detected};

    use super::{Codes, Panel, ROWS, Tile, VECTORS, Values, run};

    /// Vectors of 128 bits.
    mod vectors {
        use std::arch::aarch64::vfmaq_f32;
        pub(super) use std::arch::aarch64::{
            float32x4_t as Floats, int32x4_t as Ints, vcvtq_f32_s32 as convert, vdupq_n_f32 as float,
            vdupq_n_s32 as integer, vmulq_f32 as times,
        };

        /// `x y + z`
        #[target_feature(enable = "neon")]
        #[inline]
        pub(super) fn add(x: Floats, y: Floats, z: Floats) -> Floats {
            vfmaq_f32(z, x, y)
        }
    }

    /// Adds four products of bytes with a sign to each lane: `vdotq_s32`, which Rust 1.95 does not have yet.
    #[target_feature(enable = "neon,dotprod")]
    #[inline]
    #[expect(unsafe_code, reason = "an instruction without a function")]
    fn sdot(mut sum: int32x4_t, codes: int32x4_t, x: int32x4_t) -> int32x4_t {
        // SAFETY: the processor has the instruction, which reads and writes these registers only.
        unsafe {
            asm!(
                "sdot {sum:v}.4s, {codes:v}.16b, {x:v}.16b",
                sum = inout(vreg) sum,
                codes = in(vreg) codes,
                x = in(vreg) x,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        sum
    }

    products!(dot, "neon,dotprod", vectors, |word| word, |sum| sum, sdot, |_, part| part);
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) enum Instructions {
        /// NEON with dot products: 32 registers.
        Dot,
    }

    impl Instructions {
        /// All, the fastest first, and whether the processor has them.
        pub(super) fn all() -> [(Self, bool); 1] {
            let neon = is_aarch64_feature_detected!("neon");
            [(Self::Dot, neon && is_aarch64_feature_detected!("dotprod"))]
        }

        /// See [`super::matmul`].
        ///
        /// # Safety
        /// The processor must have these instructions.
        #[expect(unsafe_code, reason = "the compiler cannot know that the processor has these instructions")]
        pub(super) unsafe fn run(self, weight: Codes, x: &[f32], out: &mut [f32]) {
            match self {
                // SAFETY: by the caller.
                Self::Dot => run::<6>(weight, x, out, true, |p, t| unsafe { dot::<_, 4>(p, t) }),
            }
        }
    }
}

/// The instructions of WebAssembly. A module is compiled with SIMD128 or without it. Relaxed SIMD is used after
/// `use_relaxed_simd`.
#[cfg(target_arch = "wasm32")]
mod web {
    use std::arch::wasm32::{
        i16x8_shl, i16x8_shr, i32x4_add, i32x4_dot_i16x8, i32x4_relaxed_dot_i8x16_i7x16_add, v128,
    };

    use super::{Codes, Panel, ROWS, Tile, VECTORS, Values, run};

    /// Vectors of 128 bits.
    mod vectors {
        use std::arch::wasm32::f32x4_add;
        pub(super) use std::arch::wasm32::{
            f32x4_convert_i32x4 as convert, f32x4_mul as times, f32x4_splat as float, i32x4_splat as integer,
            v128 as Floats, v128 as Ints,
        };

        /// `x y + z`
        #[target_feature(enable = "simd128")]
        #[inline]
        pub(super) fn add(x: Floats, y: Floats, z: Floats) -> Floats {
            f32x4_add(times(x, y), z)
        }
    }

    /// Vectors of 128 bits, with one rounding for a product and its sum where the processor can do it.
    mod fused {
        pub(super) use super::vectors::{Floats, Ints, convert, float, integer, times};
        pub(super) use std::arch::wasm32::f32x4_relaxed_madd as add;
    }

    /// The bytes of words, with their signs, as 16 bits: the first and third of each word, the second and fourth.
    #[target_feature(enable = "simd128")]
    #[inline]
    fn halves(words: v128) -> [v128; 2] {
        [i16x8_shr(i16x8_shl(words, 8), 8), i16x8_shr(words, 8)]
    }

    /// Adds four products to each lane, two by each instruction.
    #[target_feature(enable = "simd128")]
    #[inline]
    fn dot(sum: v128, codes: [v128; 2], x: [v128; 2]) -> v128 {
        i32x4_add(sum, i32x4_add(i32x4_dot_i16x8(codes[0], x[0]), i32x4_dot_i16x8(codes[1], x[1])))
    }

    products!(simd128, "simd128", vectors, halves, |sum| sum, dot, |_, part| part);
    // The second factor must have 7 bits.
    products!(
        relaxed_4,
        "simd128,relaxed-simd",
        fused,
        |word| word,
        |sum| sum,
        |sum, codes, x| i32x4_relaxed_dot_i8x16_i7x16_add(x, codes, sum),
        |_, part| part
    );

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) enum Instructions {
        /// Relaxed SIMD for codes of 4 bits, SIMD128 for others.
        Relaxed,
        /// Vectors of 128 bits: on x86-64 a browser has 16 registers, and keeps one of them for itself.
        Simd128,
    }

    impl Instructions {
        /// All, the fastest first, and whether the browser has them.
        pub(super) fn all() -> [(Self, bool); 2] {
            [(Self::Relaxed, pulp::wasm::is_relaxed_simd_enabled()), (Self::Simd128, true)]
        }

        /// See [`super::matmul`].
        ///
        /// # Safety
        /// The browser must have these instructions.
        #[expect(unsafe_code, reason = "the compiler cannot know that the browser has these instructions")]
        pub(super) unsafe fn run(self, weight: Codes, x: &[f32], out: &mut [f32]) {
            match (self, weight.format.bits) {
                // SAFETY: by the caller.
                (Self::Relaxed, 4) => run::<4>(weight, x, out, true, |p, t| relaxed_4::<_, 4>(p, t)),
                _ => run::<4>(weight, x, out, true, |p, t| simd128::<_, 4>(p, t)),
            }
        }
    }
}

/// All products, by those of a panel with a tile. `signed`: whether `products` reads codes as bytes with a sign.
fn run<const M: usize>(
    weight: Codes,
    x: &[f32],
    out: &mut [f32],
    signed: bool,
    products: impl Fn(&Panel, &Tile<M>) -> [Values; M] + Sync,
) {
    let (width, height) = (weight.width, weight.height());
    let tokens = x.len() / width;
    assert_eq!(tokens * width, x.len(), "matmul: lengths");
    // Codes of 4 bits are the same bytes with and without a sign.
    let center = if signed && weight.format.bits == 8 { 128 } else { 0 };
    let panels = (PANELS / width / ROWS).max(1);
    Tiling { tokens, height, tile: M, panel: ROWS, panels }.run(
        out,
        |rows| Panel::of(weight.rows(rows.start, rows.len()), center),
        |tokens| Tile::of(&x[tokens.start * width..tokens.end * width], width, weight.format, center),
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
            let tile = Tile::<1>::of(row, width, format, 0);
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
        let tile = Tile::<2>::of(&x, 64, Format::Q8, 0);
        assert_eq!(tile.words[0][0].to_le_bytes().map(|code| code as i8), [-127, 0, 1, 64]);
        assert_eq!((tile.groups[0].scale, tile.groups[0].start), ([1.0, 0.0], [128 * 62, 0]));
        assert_eq!((tile.groups[1].scale, tile.groups[1].start), ([0.0, 0.0], [0, 0]));
        let close = |values: Vec<f32>| {
            let rounded = rounded(&values, 64, Format::Q8);
            let largest = values.iter().fold(0.0, |most: f64, x| most.max(f64::from(x.abs())));
            values.iter().zip(rounded).all(|(x, got)| (f64::from(*x) - got).abs() <= 0.5001 * largest / 127.0)
        };
        for x in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let tile = Tile::<1>::of(&[[0.5; 32], [x; 32]].concat(), 64, Format::Q8, 0);
            assert!(tile.groups[0].scale[0].is_finite() && tile.groups[1].scale[0].is_nan(), "{x}");
        }
        assert!(close(test_values(64, 1)) && close(vec![f32::MAX; 64]) && close(vec![1e-29; 64]));
    }

    /// Prints a message if the processor has none.
    fn instructions() -> Vec<Instructions> {
        let all: Vec<Instructions> = Instructions::of_processor().collect();
        if all.is_empty() {
            eprintln!("skipped: this processor has none of AVX-512 VNNI, AVX-VNNI, AVX2, NEON dot products");
        }
        all
    }

    #[test]
    fn extreme_products_do_not_overflow() {
        const WIDTH: usize = 128;
        const HEIGHT: usize = 33;
        // All have the scale 1, and where the format has minima, -3: all sums are exact in f32.
        let signs = [|_| 1.0, |_| -1.0, |i| if i % 2 == 0 { 1.0 } else { -1.0 }, |i| if i < 64 { 1.0 } else { -1.0 }];
        let x: Vec<f32> = signs.iter().flat_map(|sign| (0..WIDTH).map(move |i| 127.0 * sign(i))).collect();
        for (format, with) in
            FORMATS.into_iter().flat_map(|format| instructions().into_iter().map(move |w| (format, w)))
        {
            let (most, all) = if format.bits == 8 { (255, 0x0101_0101) } else { (15, 0x1111_1111) };
            let (scale, minimum) = if format.minimum { (0xc200_3c00, -3.0) } else { (0x3c00_3c00, 0.0) };
            let scales = vec![scale; HEIGHT * format.scale_words(WIDTH)];
            for code in [0, 1, most / 2, most / 2 + 1, most] {
                let words = vec![code * all; HEIGHT * format.words(WIDTH)];
                let mut got = vec![f32::NAN; signs.len() * HEIGHT];
                with.matmul(Codes { words: &words, scales: &scales, width: WIDTH, format }, &x, &mut got);
                let value = code as f32 - format.zero() as f32 + minimum;
                for (i, got) in got.into_iter().enumerate() {
                    let expected = value * 127.0 * [128.0, -128.0, 0.0, 0.0][i / HEIGHT];
                    assert_eq!(got, expected, "{format}, {with:?}, code {code}, product {i} (got, expected)");
                }
            }
        }
    }

    #[test]
    fn products_are_those_of_the_rounded_values() {
        let all = instructions();
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
                        assert!(exact < 1e-12, "{format}, {with:?}, ({height}, {width}), {rows} rows: error {exact:e}");
                        let x: Vec<f64> = x.into_iter().map(f64::from).collect();
                        let error = error(&products(&values, &x, width), &got);
                        // A few products can be small beside their terms.
                        let most = if height < 33 { 1e-2 } else { 1e-4 };
                        assert!(error < most, "{format}, {with:?}, ({height}, {width}), {rows} rows: error {error:e}");
                    }
                }
            }
        }
    }
}
