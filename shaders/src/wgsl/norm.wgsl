// Each row divided by its root mean square or its standard deviation.
//
//     LAYER 0: out = x * gamma / sqrt(mean(x^2) + epsilon)
//     LAYER 1: out = (x - mean(x)) * gamma / sqrt(variance(x) + epsilon) + beta, with the biased variance
//
// One workgroup computes one row; the sums of its lanes are added in a fixed order. With LAYER 1 the first pass sums x,
// and the second sums deviations from the rounded mean and their squares. The mean of these deviations corrects the
// rounding, so that a mean far above the deviations costs no accuracy. With LAYER 0 `beta` is not read.
//
// Constant: LAYER.

struct Params {
    rows: u32,
    packs: u32, // per row
    epsilon: f32,
    unused_0: u32,
}

@group(0) @binding(0) var<storage, read_write> x: array<Wide>; // (rows, packs)
@group(0) @binding(1) var<storage, read_write> gamma: array<Wide>; // (packs,)
@group(0) @binding(2) var<storage, read_write> beta: array<Wide>; // (packs,)
@group(0) @binding(3) var<storage, read_write> out: array<Wide>; // (rows, packs)
@group(0) @binding(4) var<uniform> params: Params;

const LANES: u32 = 64u;

var<workgroup> parts: array<vec2<f32>, LANES>;
var<workgroup> eighths: array<vec2<f32>, 8>;

// The sum over all lanes, in two steps of eight. All lanes must call it.
fn sum_of_lanes(lane: u32, part: vec2<f32>) -> vec2<f32> {
    parts[lane] = part;
    workgroupBarrier();
    if (lane < 8u) {
        eighths[lane] = ((parts[lane] + parts[lane + 8u]) + (parts[lane + 16u] + parts[lane + 24u]))
            + ((parts[lane + 32u] + parts[lane + 40u]) + (parts[lane + 48u] + parts[lane + 56u]));
    }
    workgroupBarrier();
    return ((eighths[0] + eighths[1]) + (eighths[2] + eighths[3]))
        + ((eighths[4] + eighths[5]) + (eighths[6] + eighths[7]));
}

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = group.y * groups.x + group.x;
    let first = min(row, params.rows - 1u) * params.packs; // an extra row is computed, but not written
    let end = select(0u, params.packs, row < params.rows);
    let count = f32(params.packs) * total(Wide(1.0)); // elements per row

    var mean = 0.0;
    if (LAYER == 1u) {
        var sum = Wide(0.0);
        for (var i = lane; i < params.packs; i += LANES) {
            sum += x[first + i];
        }
        mean = sum_of_lanes(lane, vec2<f32>(total(sum), 0.0)).x / count;
    }
    var deviations = Wide(0.0);
    var squares = Wide(0.0);
    for (var i = lane; i < params.packs; i += LANES) {
        let deviation = x[first + i] - mean;
        deviations += deviation;
        squares += deviation * deviation;
    }
    let means = sum_of_lanes(lane, vec2<f32>(total(deviations), total(squares))) / count;
    if (LAYER == 1u) {
        let scale = inverseSqrt(max(means.y - means.x * means.x, 0.0) + params.epsilon);
        for (var i = lane; i < end; i += LANES) {
            out[first + i] = ((x[first + i] - mean) - means.x) * scale * gamma[i] + beta[i];
        }
    } else {
        let scale = inverseSqrt(means.y + params.epsilon);
        for (var i = lane; i < end; i += LANES) {
            out[first + i] = x[first + i] * scale * gamma[i];
        }
    }
}
