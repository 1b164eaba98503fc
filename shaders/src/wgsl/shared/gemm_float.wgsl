// Operands and products in f32 of the linear layers of many rows (gemm, gemm_direct). The weight may be codes.

@group(0) @binding(0) var<storage, read_write> x: array<Wide>; // (tokens, packs)

// Bindings of the weight, (rows, packs) or with GATE (2 rows, packs), and of its scales.
const WEIGHT: u32 = 1u;
const SCALES: u32 = 5u;

// Adds the products of one token and four rows of W: `w` has the elements of the four rows by column of W.
fn add(sum: vec4<f32>, w: mat4x4<f32>, x: vec4<f32>) -> vec4<f32> {
    let low = fma(w[1], vec4<f32>(x.y), fma(w[0], vec4<f32>(x.x), sum));
    return fma(w[3], vec4<f32>(x.w), fma(w[2], vec4<f32>(x.z), low));
}

// The same for four tokens.
fn add4(sums: mat4x4<f32>, w: mat4x4<f32>, x: mat4x4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(add(sums[0], w, x[0]), add(sums[1], w, x[1]), add(sums[2], w, x[2]), add(sums[3], w, x[3]));
}
