// A weight whose elements are codes of BITS bits, 4 or 8, with a scale and with MINIMUM a minimum per GROUP elements:
//
//     element = scale (code - ZERO); with MINIMUM scale code + minimum
//
// The layout is that of codes.rs. The body has WEIGHT, SCALES and `params.packs`, the packs per row.
const CODES: u32 = 1u; // 1 where a buffer with scales follows
const PACKS: u32 = 8u / BITS; // per word
const ZERO: f32 = f32(1u << (BITS - 1u));

@group(0) @binding(WEIGHT) var<storage, read_write> weight: array<vec4<u32>>; // words of codes, (rows, packs / PACKS / 4)
@group(0) @binding(SCALES) var<storage, read_write> scales: array<u32>; // (rows, words)

fn word_at(at: u32) -> u32 {
    return weight[at / 4u][at % 4u];
}

// The codes of pack i of a word.
fn codes_of(word: u32, i: u32) -> vec4<f32> {
    let shifts = vec4<u32>(0u, 8u, 16u, 24u) + 4u * i;
    return vec4<f32>((vec4<u32>(word) >> shifts) & vec4<u32>((1u << BITS) - 1u));
}

// The f16 in the low half of a word. unpack2x16float is not on all devices, and may turn the smallest numbers into 0.
fn half_of(word: u32) -> f32 {
    let exponent = (word >> 10u) & 31u;
    let mantissa = f32((word & 1023u) | select(0u, 1024u, exponent > 0u));
    return mantissa * bitcast<f32>(((word & 0x8000u) << 16u) | ((max(exponent, 1u) + 102u) << 23u));
}

// The scale of pack p of a row, in the low half of a word; with MINIMUM the minimum is in the high half.
fn scale_at(row: u32, p: u32) -> u32 {
    let groups = params.packs * 4u / GROUP;
    let at = p * 4u / GROUP;
    if (MINIMUM == 1u) {
        return scales[row * groups + at];
    }
    return scales[row * ((groups + 1u) / 2u) + at / 2u] >> (at % 2u * 16u);
}

// Pack p of a row. Only the sum with a minimum is rounded: a code has 8 bits, a scale 11, and f32 has 24.
fn weight_at(row: u32, p: u32) -> vec4<f32> {
    let scale = scale_at(row, p);
    let codes = codes_of(word_at((row * params.packs + p) / PACKS), p % PACKS);
    if (MINIMUM == 1u) {
        return half_of(scale) * codes + half_of(scale >> 16u);
    }
    return half_of(scale) * (codes - ZERO);
}
