// Rounds rows to 8 bits for gemm_dot4, with one scale per GROUP elements:
//
//     q = round(x / a), halves to the even number; a = max |x| / 127 over a group
//
// If all |x| are below 1e-30, a and q are 0. If an element is not finite, a is NaN and q is 0, so that the products are
// not finite. This is decided by the bits: WGSL may assume that there is no NaN and no infinity.
//
// One invocation has one pack. Rows consist of whole groups, and a workgroup has whole groups.

struct Params {
    packs: u32, // of all rows
    unused_0: u32,
    unused_1: u32,
    unused_2: u32,
}

@group(0) @binding(0) var<storage, read_write> x: array<vec4<u32>>; // bits of four f32, (packs,)
@group(0) @binding(1) var<storage, read_write> codes: array<u32>; // four q, the first in the lowest byte, (packs,)
@group(0) @binding(2) var<storage, read_write> x_groups: array<vec2<u32>>; // bits of a, and the sum of q, by group
@group(0) @binding(3) var<uniform> params: Params;

const LANES: u32 = 64u;
const PER: u32 = GROUP / 4u; // packs per group
const INFINITE: u32 = 0x7f800000u;
const NAN: u32 = 0x7fc00000u;
const SMALLEST: u32 = 0x0da24260u; // 1e-30

var<workgroup> tops: array<u32, LANES>; // max |x| of each pack
var<workgroup> sums: array<i32, LANES>;

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let p = (group.y * groups.x + group.x) * LANES + lane;
    // A pack after the last one repeats it: it is computed, but not written.
    let bits = x[min(p, params.packs - 1u)];
    // The bits of positive floats have their order, and NaN is above all.
    let sizes = bits & vec4<u32>(0x7fffffffu);
    tops[lane] = max(max(sizes.x, sizes.y), max(sizes.z, sizes.w));
    workgroupBarrier();
    let first = lane / PER * PER;
    var top = 0u;
    for (var i = 0u; i < PER; i++) {
        top = max(top, tops[first + i]);
    }
    var q = vec4<i32>();
    var a = 0u;
    if (top >= INFINITE) {
        a = NAN;
    } else if (top >= SMALLEST) {
        // A division by a is in the range in which WGSL bounds its error, also where max |x| is the largest f32.
        let scale = bitcast<f32>(top) / 127.0;
        a = bitcast<u32>(scale);
        q = vec4<i32>(round(bitcast<vec4<f32>>(bits) / scale));
    }
    sums[lane] = (q.x + q.y) + (q.z + q.w);
    workgroupBarrier();
    if (p >= params.packs) {
        return;
    }
    let bytes = vec4<u32>(q) & vec4<u32>(0xffu);
    codes[p] = (bytes.x | (bytes.y << 8u)) | ((bytes.z << 16u) | (bytes.w << 24u));
    if (lane == first) {
        var sum = 0i;
        for (var i = 0u; i < PER; i++) {
            sum += sums[first + i];
        }
        x_groups[p / PER] = vec2<u32>(a, u32(sum));
    }
}
