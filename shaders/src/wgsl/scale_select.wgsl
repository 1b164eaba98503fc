// The scale of each region (paper Sec. 3.2, Eq. 1): Z = pooled . fold + bias, choice = argmax Z.
//
// `fold` is the result of scale_fold. Equal logits: the first scale. A region with a logit that is not finite gets the
// choice `scales`, which is no scale. One workgroup computes one region; the sums of its lanes are added in a fixed
// tree.

struct Params {
    regions: u32,
    packs: u32, // of channels
    scales: u32,
    unused_0: u32,
}

@group(0) @binding(0) var<storage, read_write> pooled: array<Pack>; // (regions, packs): the max over each region
@group(0) @binding(1) var<storage, read_write> fold: array<Wide>; // (scales, packs)
@group(0) @binding(2) var<storage, read_write> bias: array<Elem>; // (scales,)
@group(0) @binding(3) var<storage, read_write> logits: array<f32>; // (regions, scales)
@group(0) @binding(4) var<storage, read_write> choice: array<u32>; // (regions,)
@group(0) @binding(5) var<uniform> params: Params;

const LANES: u32 = 64u;

var<workgroup> parts: array<f32, LANES>;

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let region = group.y * groups.x + group.x;
    let first = min(region, params.regions - 1u) * params.packs; // an extra region is computed, but not written
    var best = 0.0;
    var chosen = 0u;
    var finite = true;
    for (var s = 0u; s < params.scales; s++) {
        var sum = Wide(0.0);
        for (var i = lane; i < params.packs; i += LANES) {
            sum += Wide(pooled[first + i]) * fold[s * params.packs + i];
        }
        parts[lane] = total(sum);
        workgroupBarrier();
        for (var half = LANES / 2u; half > 0u; half /= 2u) {
            if (lane < half) {
                parts[lane] += parts[lane + half];
            }
            workgroupBarrier();
        }
        let z = parts[0] + f32(bias[s]);
        // Tests the bits: WGSL may assume that there are no NaN and infinities.
        finite = finite && (bitcast<u32>(z) & 0x7f800000u) != 0x7f800000u;
        if (s == 0u || z > best) {
            best = z;
            chosen = s;
        }
        if (lane == 0u && region < params.regions) {
            logits[region * params.scales + s] = z;
        }
        workgroupBarrier(); // before the next scale overwrites parts[0]
    }
    if (lane == 0u && region < params.regions) {
        choice[region] = select(params.scales, chosen, finite);
    }
}
