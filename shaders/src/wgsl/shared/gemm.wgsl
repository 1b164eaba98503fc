// Parameters and result of the linear layers of many rows (gemm, gemm_direct, gemm_dot4).
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

// The body has binding 0 (x), 1 (the weight, WEIGHT) and those from 5 on, SCALES among them.
@group(0) @binding(2) var<storage, read_write> bias: array<f32>; // of the whole result; with GATE (2 rows,)
@group(0) @binding(3) var<storage, read_write> residual: array<f32>; // (tokens, width)
@group(0) @binding(4) var<storage, read_write> out: array<f32>; // (tokens, width)
@group(0) @binding(SCALES + CODES) var<uniform> params: Params;

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
