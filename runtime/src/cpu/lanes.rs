//! Vector operations that `pulp` does not have: f16 to f32, shifts by one amount, and powers of two.

use pulp::Simd;

/// Between the exponents of f32 and f16.
const REBIAS: u32 = 112 << 23;
/// The smallest normal f16. Below it, the exponent of an f16 is that of this value and the mantissa has no leading 1.
const SMALLEST: f32 = 1.0 / 16384.0;

/// The largest f16. A larger value is the bits of an infinity or NaN.
const LARGEST: f32 = 65504.0;

/// The value of the bits of an f16, exact; NaN for infinities and NaN, so that a cache that overflowed is noticed. No operand is a subnormal f32: these are slow on some processors.
#[inline(always)]
pub(super) fn widen(bits: u16) -> f32 {
    let bits = u32::from(bits);
    let magnitude = f32::from_bits(((bits & 0x7fff) << 13).wrapping_add(REBIAS));
    // Without a leading 1, `magnitude` is SMALLEST/2 (1 + m) and should be SMALLEST m.
    let below = magnitude - SMALLEST;
    let fixed = magnitude + if below < 0.0 { below } else { 0.0 };
    let fixed = if magnitude > LARGEST { f32::NAN } else { fixed };
    f32::from_bits(fixed.to_bits() | (bits & 0x8000) << 16)
}

/// Whether these vectors are those of AVX-512, which has an instruction for f16 to f32: [`convert`].
#[inline(always)]
pub(super) fn converts<S: Simd>() -> bool {
    #[cfg(target_arch = "x86_64")]
    let with = [std::any::TypeId::of::<pulp::x86::V4>()];
    #[cfg(not(target_arch = "x86_64"))]
    let with: [std::any::TypeId; 0] = [];
    with.contains(&std::any::TypeId::of::<S>())
}

/// The bits of 16 f16 as a vector; zeros where [`converts`] is false.
#[inline(always)]
pub(super) fn convert<S: Simd>(simd: S, bits: &[u16; 16]) -> S::f32s {
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = (&simd as &dyn std::any::Any).downcast_ref::<pulp::x86::V4>() {
        let mut vector = simd.avx._mm256_setzero_si256();
        *bytemuck::cast_mut(&mut vector) = *bits;
        return *bytemuck::cast_ref(&simd.avx512f._mm512_cvtph_ps(vector));
    }
    let _ = bits;
    simd.splat_f32s(0.0)
}

/// Vectors of more than 4 lanes: lane l has value `index[l]` of `values`. Other vectors: all lanes have value 0.
#[inline(always)]
pub(super) fn pick<S: Simd>(simd: S, values: &[f32], index: S::u32s) -> S::f32s {
    #[cfg(target_arch = "x86_64")]
    {
        let any = &simd as &dyn std::any::Any;
        if let Some(simd) = any.downcast_ref::<pulp::x86::V4>() {
            let (mut order, mut from) = (simd.avx512f._mm512_setzero_si512(), simd.avx512f._mm512_setzero_ps());
            *bytemuck::cast_mut(&mut order) = index;
            *bytemuck::cast_mut(&mut from) = S::as_simd_f32s(&values[..16]).0[0];
            return *bytemuck::cast_ref(&simd.avx512f._mm512_permutexvar_ps(order, from));
        }
        if let Some(simd) = any.downcast_ref::<pulp::x86::V3>() {
            let (mut order, mut from) = (simd.avx._mm256_setzero_si256(), simd.avx._mm256_setzero_ps());
            *bytemuck::cast_mut(&mut order) = index;
            *bytemuck::cast_mut(&mut from) = S::as_simd_f32s(&values[..8]).0[0];
            return *bytemuck::cast_ref(&simd.avx2._mm256_permutevar8x32_ps(from, order));
        }
    }
    let _ = index;
    simd.splat_f32s(values[0])
}

/// `x << by` in each lane. `pulp` shifts each lane by its own amount, for which WebAssembly has no instruction.
#[inline(always)]
pub(super) fn shl<S: Simd>(simd: S, x: S::u32s, by: u32) -> S::u32s {
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    if size_of::<S::u32s>() == size_of::<std::arch::wasm32::v128>() {
        return bytemuck::cast(std::arch::wasm32::u32x4_shl(bytemuck::cast(x), by));
    }
    simd.wrapping_dyn_shl_u32s(x, simd.splat_u32s(by))
}

/// `x >> by` in each lane; see [`shl`].
#[inline(always)]
pub(super) fn shr<S: Simd>(simd: S, x: S::u32s, by: u32) -> S::u32s {
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    if size_of::<S::u32s>() == size_of::<std::arch::wasm32::v128>() {
        return bytemuck::cast(std::arch::wasm32::u32x4_shr(bytemuck::cast(x), by));
    }
    simd.wrapping_dyn_shr_u32s(x, simd.splat_u32s(by))
}

/// The bits of pairs of f16 in two vectors: those of even and those of odd index. See [`widen`].
///
/// No value changes its lane: cheaper than an order that needs a shuffle, and the order of a sum is free.
#[inline(always)]
pub(super) fn widen_pairs<S: Simd>(simd: S, pairs: S::u32s) -> [S::f32s; 2] {
    let magnitude = simd.splat_u32s(0x0fff_e000);
    let sign = simd.splat_u32s(0x8000_0000);
    let even = shl(simd, pairs, 13);
    let odd = shr(simd, pairs, 3);
    let even_sign = shl(simd, pairs, 16);
    [
        rebias(simd, simd.and_u32s(even, magnitude), simd.and_u32s(even_sign, sign)),
        rebias(simd, simd.and_u32s(odd, magnitude), simd.and_u32s(pairs, sign)),
    ]
}

#[inline(always)]
fn rebias<S: Simd>(simd: S, magnitude: S::u32s, sign: S::u32s) -> S::f32s {
    let magnitude = from_bits::<S>(simd.add_u32s(magnitude, simd.splat_u32s(REBIAS)));
    let below = simd.sub_f32s(magnitude, simd.splat_f32s(SMALLEST));
    let fixed = simd.add_f32s(magnitude, simd.min_f32s(below, simd.splat_f32s(0.0)));
    let over = simd.less_than_f32s(simd.splat_f32s(LARGEST), magnitude);
    let fixed = simd.select_f32s(over, simd.splat_f32s(f32::NAN), fixed);
    from_bits::<S>(simd.or_u32s(to_bits::<S>(fixed), sign))
}

/// As `transmute_u32s_f32s` of `pulp`, whose checks in a build with debug assertions keep vectors in memory.
#[inline(always)]
fn to_bits<S: Simd>(x: S::f32s) -> S::u32s {
    *bytemuck::cast_ref(&x)
}

/// See [`to_bits`].
#[inline(always)]
pub(super) fn from_bits<S: Simd>(x: S::u32s) -> S::f32s {
    *bytemuck::cast_ref(&x)
}

/// The absolute value. That of `pulp` calls a function which is not inlined.
#[inline(always)]
pub(super) fn abs<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    from_bits::<S>(simd.and_u32s(to_bits::<S>(x), simd.splat_u32s(0x7fff_ffff)))
}

/// `2^x` for `x <= 0`: relative error below 2e-7, exactly 1 for 0, and 0 below -126 (infinities too).
#[inline(always)]
pub(super) fn exp2<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let [shifted, part] = split(simd, x);
    let power = simd.mul_add_e_f32s(quotient(simd, part), part, simd.splat_f32s(1.0));
    let exponent = shl(simd, to_bits::<S>(shifted), 23);
    let scaled = from_bits::<S>(simd.add_u32s(to_bits::<S>(power), exponent));
    simd.select_f32s(simd.less_than_f32s(x, simd.splat_f32s(-126.0)), simd.splat_f32s(0.0), scaled)
}

/// `2^x` for `x <= 0` as a power of two and a rest, which is accurate where their sum is almost 1. Below -126 as at -126.
#[inline(always)]
pub(super) fn exp2_parts<S: Simd>(simd: S, x: S::f32s) -> [S::f32s; 2] {
    let [shifted, part] = split(simd, simd.max_f32s(x, simd.splat_f32s(-126.0)));
    let exponent = shl(simd, to_bits::<S>(shifted), 23);
    let power = from_bits::<S>(simd.add_u32s(simd.splat_u32s(1f32.to_bits()), exponent));
    [power, simd.mul_f32s(power, simd.mul_f32s(part, quotient(simd, part)))]
}

/// An integer in the low bits, and the part of `x` beyond it, at most 1/2.
#[inline(always)]
fn split<S: Simd>(simd: S, x: S::f32s) -> [S::f32s; 2] {
    // Adding 1.5 * 2^23 rounds to an integer, which is then in the low bits.
    let shift = simd.splat_f32s(12_582_912.0);
    let shifted = simd.add_f32s(x, shift);
    [shifted, simd.sub_f32s(x, simd.sub_f32s(shifted, shift))]
}

/// `(2^part - 1) / part`: minimax polynomial of 2^part, |part| <= 1/2, relative error 2e-9.
#[inline(always)]
fn quotient<S: Simd>(simd: S, part: S::f32s) -> S::f32s {
    let mut quotient = simd.splat_f32s(1.534_732e-4);
    quotient = simd.mul_add_e_f32s(quotient, part, simd.splat_f32s(1.340_015_4e-3));
    quotient = simd.mul_add_e_f32s(quotient, part, simd.splat_f32s(9.618_484e-3));
    quotient = simd.mul_add_e_f32s(quotient, part, simd.splat_f32s(5.550_328e-2));
    quotient = simd.mul_add_e_f32s(quotient, part, simd.splat_f32s(2.402_264_6e-1));
    simd.mul_add_e_f32s(quotient, part, simd.splat_f32s(6.931_472e-1))
}

#[cfg(test)]
mod tests {
    use half::f16;
    use pulp::{Arch, Simd, WithSimd};

    struct Widen<'a>(&'a [u32], &'a mut [f32]);

    impl WithSimd for Widen<'_> {
        type Output = ();

        fn with_simd<S: Simd>(self, simd: S) {
            let lanes = S::F32_LANES;
            for (from, to) in S::as_simd_u32s(self.0).0.iter().zip(self.1.chunks_exact_mut(2 * lanes)) {
                let pairs = super::widen_pairs(simd, *from);
                let [even, odd] = [bytemuck::cast_slice(&pairs[..1]), bytemuck::cast_slice(&pairs[1..])];
                for i in 0..lanes {
                    (to[2 * i], to[2 * i + 1]) = (even[i], odd[i]);
                }
            }
        }
    }

    #[test]
    fn every_finite_f16_widens_exactly() {
        let bits: Vec<u16> = (0..=u16::MAX).map(|b| if f16::from_bits(b).is_finite() { b } else { 0 }).collect();
        let expected: Vec<u32> = bits.iter().map(|b| f16::from_bits(*b).to_f32().to_bits()).collect();
        let mut got = vec![f32::NAN; bits.len()];
        let pairs: Vec<u32> = bits.chunks(2).map(|pair| u32::from(pair[0]) | u32::from(pair[1]) << 16).collect();
        Arch::new().dispatch(Widen(&pairs, &mut got));
        assert!(got.iter().map(|v| v.to_bits()).eq(expected.iter().copied()));
        assert!(bits.iter().map(|b| super::widen(*b).to_bits()).eq(expected.iter().copied()));
        for infinite in [0x7c00, 0xfc00, 0x7e00, 0x7c01] {
            assert!(super::widen(infinite).is_nan(), "{infinite:x}: expected NaN");
        }
    }

    struct Powers<'a>(&'a mut [f32]);

    impl WithSimd for Powers<'_> {
        type Output = ();

        fn with_simd<S: Simd>(self, simd: S) {
            for x in S::as_mut_simd_f32s(self.0).0 {
                *x = super::exp2(simd, *x);
            }
        }
    }

    #[test]
    fn powers_of_two_are_close_to_f64() {
        let x: Vec<f32> = (0..1 << 20).map(|i| -150.0 * i as f32 / (1 << 20) as f32).collect();
        let mut got = x.clone();
        Arch::new().dispatch(Powers(&mut got));
        assert_eq!(got[0], 1.0);
        for (x, got) in x.into_iter().zip(got) {
            let expected = if x < -126.0 { 0.0 } else { f64::from(x).exp2() };
            assert!((f64::from(got) - expected).abs() <= 2e-7 * expected, "2^{x}: expected {expected}, got {got}");
        }
        let mut low = vec![f32::NEG_INFINITY; 64];
        low[1..32].fill(-3.4e38);
        Arch::new().dispatch(Powers(&mut low));
        assert!(low.iter().all(|v| *v == 0.0));
    }
}
