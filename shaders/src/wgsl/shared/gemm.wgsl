// Operands, products and result of the linear layers of many rows (gemm, gemm_direct).
//
//     y = W x; with BIAS + bias
//     z = activate(y); with GATE activate(gate) * up, where W has the rows of the gate and then those of `up`
//     out = z; with RESIDUAL residual + factor * z

struct Params {
    tokens: u32, // T
    packs: u32, // per row
    rows: u32, // of the result in this part of the matrix; with GATE half the rows of `weight`
    first: u32, // column of the whole result where this part begins
    width: u32, // of the whole result
    factor: f32, // of the sums that are added to `residual`
    unused_0: u32,
    unused_1: u32,
}

@group(0) @binding(0) var<storage, read_write> x: array<Wide>; // (tokens, packs)
@group(0) @binding(2) var<storage, read_write> bias: array<f32>; // of the whole result; with GATE (2 rows,)
@group(0) @binding(3) var<storage, read_write> residual: array<f32>; // (tokens, width)
@group(0) @binding(4) var<storage, read_write> out: array<f32>; // (tokens, width)
@group(0) @binding(SCALES + CODES) var<uniform> params: Params;

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

// Writes one element of the result. Without GATE, `up` is not used.
fn write(token: u32, row: u32, sum: f32, up: f32) {
    if (token >= params.tokens || row >= params.rows) {
        return;
    }
    let column = params.first + row;
    var y = sum;
    if (BIAS == 1u) {
        y += bias[select(column, row, GATE == 1u)];
    }
    y = activate(y);
    if (GATE == 1u) {
        if (BIAS == 1u) {
            y *= up + bias[params.rows + row];
        } else {
            y *= up;
        }
    }
    let at = token * params.width + column;
    if (RESIDUAL == 1u) {
        y = residual[at] + params.factor * y;
    }
    out[at] = y;
}
