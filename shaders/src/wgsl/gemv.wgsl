// One row times a matrix: the linear layers of a decoder step.
//
//     y = W x, or with NORM W (gamma * x / sqrt(mean(x^2) + epsilon)); with BIAS + bias
//     out = activate(y); with GATE activate(gate) * up; with RESIDUAL residual + factor * activate(y)
//
// One workgroup computes ROWS rows of W. Neighbours read adjacent packs of one row; a pack of x is used for all rows.
// With GATE, W has the rows of the gate and then those of `up`: a workgroup computes ROWS / 2 of each. The sum of x^2
// needs no separate pass, because the norm is a factor of the sums.
//
// `read_x` reads x for a step of a lane, `add` adds its products of one row: see gemv_float.wgsl and gemv_codes.wgsl.
//
// Constants: NORM, BIAS, RESIDUAL, GATE, 0 or 1; ACTIVATION, see `activate`; ROWS, 1, 2, 4 or 8, with GATE at least 2;
// UNIT, words per step of a weight of codes, 1 or 4; else 1; LANES, a multiple of 8.

struct Params {
    packs: u32, // per row
    rows: u32, // of the result; with GATE half the rows of `weight`
    first: u32, // row of the whole result where this part of the matrix begins
    epsilon: f32,
    factor: f32, // of the sums that are added to `residual`
    unused_0: u32,
    unused_1: u32,
    unused_2: u32,
}

@group(0) @binding(0) var<storage, read_write> x: array<Wide>; // (packs,)
@group(0) @binding(1) var<storage, read_write> gamma: array<Wide>; // (packs,)
@group(0) @binding(3) var<storage, read_write> bias: array<f32>; // of the whole result; with GATE (2 rows,)
@group(0) @binding(4) var<storage, read_write> residual: array<f32>; // of the whole result
@group(0) @binding(5) var<storage, read_write> out: array<f32>; // of the whole result
@group(0) @binding(SCALES + CODES) var<uniform> params: Params;

// Bindings of the weight, (rows, packs) or with GATE (2 rows, packs), and of its scales.
const WEIGHT: u32 = 2u;
const SCALES: u32 = 6u;

const STEP: u32 = UNIT * PACKS; // packs per step of a lane
const RESULTS: u32 = ROWS / (1u + GATE); // per workgroup
const STRIDE: u32 = LANES + 8u; // not LANES, so that the rows are in different banks of memory

// The sums of a lane. Not an array: that would be in memory.
var<private> sum_0: Wide;
var<private> sum_1: Wide;
var<private> sum_2: Wide;
var<private> sum_3: Wide;
var<private> sum_4: Wide;
var<private> sum_5: Wide;
var<private> sum_6: Wide;
var<private> sum_7: Wide;
var<private> squares: Wide; // of x

// By row, and then the squares.
var<workgroup> parts: array<f32, STRIDE * (ROWS + NORM)>;

// A row of the workgroup. A row after the last one repeats it: it is computed, but not written.
fn row_at(first: u32, i: u32) -> u32 {
    return i / RESULTS * params.rows + min(first + i % RESULTS, params.rows - 1u);
}

// x of a pack. Each pack is read once.
fn x_at(p: u32) -> Wide {
    var v = x[p];
    if (NORM == 1u) {
        squares += v * v;
        v *= gamma[p];
    }
    return v;
}

// Adds the products of step s.
fn add_step(first: u32, s: u32) {
    read_x(s);
    sum_0 = add(row_at(first, 0u), s, sum_0);
    if (ROWS > 1u) {
        sum_1 = add(row_at(first, 1u), s, sum_1);
    }
    if (ROWS > 2u) {
        sum_2 = add(row_at(first, 2u), s, sum_2);
        sum_3 = add(row_at(first, 3u), s, sum_3);
    }
    if (ROWS > 4u) {
        sum_4 = add(row_at(first, 4u), s, sum_4);
        sum_5 = add(row_at(first, 5u), s, sum_5);
        sum_6 = add(row_at(first, 6u), s, sum_6);
        sum_7 = add(row_at(first, 7u), s, sum_7);
    }
}

// The sum of the slices.
fn sum_of(i: u32) -> f32 {
    let at = i * STRIDE;
    return ((parts[at] + parts[at + 1u]) + (parts[at + 2u] + parts[at + 3u]))
        + ((parts[at + 4u] + parts[at + 5u]) + (parts[at + 6u] + parts[at + 7u]));
}

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = (group.y * groups.x + group.x) * RESULTS;
    let steps = params.packs / STEP;
    var s = lane;
    if (ROWS < 8u) {
        // With few rows, a GPU needs more loads at once.
        for (; s + LANES < steps; s += 2u * LANES) {
            add_step(first, s);
            add_step(first, s + LANES);
        }
    }
    for (; s < steps; s += LANES) {
        add_step(first, s);
    }

    parts[lane] = total(sum_0);
    if (ROWS > 1u) {
        parts[STRIDE + lane] = total(sum_1);
    }
    if (ROWS > 2u) {
        parts[2u * STRIDE + lane] = total(sum_2);
        parts[3u * STRIDE + lane] = total(sum_3);
    }
    if (ROWS > 4u) {
        parts[4u * STRIDE + lane] = total(sum_4);
        parts[5u * STRIDE + lane] = total(sum_5);
        parts[6u * STRIDE + lane] = total(sum_6);
        parts[7u * STRIDE + lane] = total(sum_7);
    }
    if (NORM == 1u) {
        parts[ROWS * STRIDE + lane] = total(squares);
    }
    workgroupBarrier();
    // Eight slices of LANES / 8 lanes, then the slices: a tree would need more barriers.
    for (var i = lane; i < 8u * (ROWS + NORM); i += LANES) {
        let at = i / 8u * STRIDE + i % 8u;
        var sum = parts[at];
        for (var other = 8u; other < LANES; other += 8u) {
            sum += parts[at + other];
        }
        parts[at] = sum;
    }
    workgroupBarrier();

    let row = first + lane;
    if (lane >= RESULTS || row >= params.rows) {
        return;
    }
    var factor = 1.0;
    if (NORM == 1u) {
        factor = inverseSqrt(sum_of(ROWS) / (f32(params.packs) * total(Wide(1.0))) + params.epsilon);
    }
    let at = select(params.first + row, row, GATE == 1u);
    var y = factor * sum_of(lane);
    if (BIAS == 1u) {
        y += bias[at];
    }
    y = activate(y);
    if (GATE == 1u) {
        var up = factor * sum_of(RESULTS + lane);
        if (BIAS == 1u) {
            up += bias[params.rows + row];
        }
        y *= up;
    }
    if (RESIDUAL == 1u) {
        y = residual[params.first + row] + params.factor * y;
    }
    out[params.first + row] = y;
}
