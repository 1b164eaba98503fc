// The second of three passes of the selective scan (S6, arXiv 2312.00752): over the ends of the chunks, in place.
//
//     ends[chunk] = ends[chunk] + exp(a * sum of delta in the chunk) ends[chunk - 1]
//
// One invocation computes four states of one channel, from the first chunk to the last but one. Nothing is divided by a
// product of decays, which may be 0.
//
// Constants: PACKS, ZOH, which the shared text has.

@group(0) @binding(0) var<storage, read_write> a: array<f32>; // (channels, states)
@group(0) @binding(1) var<storage, read_write> ends: array<f32>; // (chunks - 1, states + 1, channels)
@group(0) @binding(2) var<uniform> params: Params;

const LANES: u32 = 64u;

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = (group.y * groups.x + group.x) * LANES + lane;
    let channel = at % params.channels;
    let s = at / params.channels * 4u;
    if (s >= params.states) {
        return;
    }
    let rate = rates(channel, s);
    var h = vec4<f32>(0.0);
    // A product in the test: see shared/flash.wgsl.
    for (var chunk = 0u; (chunk + 1u) * params.chunk < params.length; chunk++) {
        let sum = ends[end_of(chunk, params.states, channel)];
        h = decayed(h, power(sum * rate), states_at(chunk, s, channel));
        write_states(chunk, s, channel, h);
    }
}
