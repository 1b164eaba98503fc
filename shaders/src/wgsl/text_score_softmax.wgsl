// The denominator of the softmax for each row of scores (paper Sec. 3.3, Eq. 7).
//
//     lse[row] = log sum_n exp(scores[row, n])
//
// One workgroup computes one row. Each lane computes the maximum and the sum of every 64th score; the lanes are
// combined in a fixed tree.

struct Params {
    rows: u32, // heads * text tokens of the block
    visual: u32, // N
    unused_0: u32,
    unused_1: u32,
}

@group(0) @binding(0) var<storage, read_write> scores: array<f32>; // (rows, visual)
@group(0) @binding(1) var<storage, read_write> lse: array<f32>; // (rows,)
@group(0) @binding(2) var<uniform> params: Params;

const LANES: u32 = 64u;
const NOTHING: f32 = -1e30; // far below every score, and finite

var<workgroup> tops: array<f32, LANES>;
var<workgroup> sums: array<f32, LANES>;

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = group.y * groups.x + group.x;
    let first = min(row, params.rows - 1u) * params.visual; // an extra row is computed, but not written
    // Four scores at a time, so that the sum is rescaled once per four scores.
    var top = NOTHING;
    var sum = 0.0;
    for (var n = lane; n < params.visual; n += 4u * LANES) {
        var four = vec4<f32>(scores[first + n], NOTHING, NOTHING, NOTHING);
        var here = vec4<f32>(1.0, 0.0, 0.0, 0.0);
        for (var j = 1u; j < 4u; j++) {
            if (n + j * LANES < params.visual) {
                four[j] = scores[first + n + j * LANES];
                here[j] = 1.0;
            }
        }
        let both = max(top, max(max(four.x, four.y), max(four.z, four.w)));
        sum = sum * exp(top - both) + dot(exp(four - both), here);
        top = both;
    }
    tops[lane] = top;
    sums[lane] = sum;
    workgroupBarrier();
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        if (lane < half) {
            let other = tops[lane + half];
            let both = max(tops[lane], other);
            sums[lane] = sums[lane] * exp(tops[lane] - both) + sums[lane + half] * exp(other - both);
            tops[lane] = both;
        }
        workgroupBarrier();
    }
    if (lane == 0u && row < params.rows) {
        lse[row] = tops[0] + log(sums[0]);
    }
}
