// The first of three passes of the selective scan (S6, arXiv 2312.00752): each chunk of steps alone.
//
//     from h = 0, for each step of the chunk: h = exp(delta a) h + drive
//     ends[chunk] = h at the end of the chunk, and the sum of delta
//
// The product of the decays of a chunk is the exponential of a times this sum. One workgroup computes 64 channels of
// one chunk; an invocation computes one channel, and BLOCK states at a time. The last chunk is left out, because no
// chunk follows it. So each chunk here has all its steps, which are a multiple of TILE.
//
// Constants: PACKS, ZOH.

@group(0) @binding(0) var<storage, read_write> u: array<f32>; // (length, channels)
@group(0) @binding(1) var<storage, read_write> delta: array<f32>; // (length, channels)
@group(0) @binding(2) var<storage, read_write> a: array<f32>; // (channels, states)
@group(0) @binding(3) var<storage, read_write> b: array<f32>; // (length, states)
@group(0) @binding(4) var<storage, read_write> ends: array<f32>; // (chunks - 1, states + 1, channels)
@group(0) @binding(5) var<uniform> params: Params;

const LANES: u32 = 64u;
const TILE: u32 = 32u; // steps whose b is in workgroup memory

var<workgroup> inputs: array<vec4<f32>, TILE * PACKS>;

fn four_inputs(t: u32, s: u32) -> vec4<f32> {
    var four = vec4<f32>(0.0);
    for (var j = 0u; j < 4u; j++) {
        if (s + j < params.states) {
            four[j] = b[t * params.states + s + j];
        }
    }
    return four;
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    // group: (64 channels, chunk)
    let first = group.y * params.chunk;
    // An extra channel repeats the last one: it is computed, but not written.
    let channel = min(group.x * LANES + lane, params.channels - 1u);
    let own = group.x * LANES + lane < params.channels;
    // A product in the test: see shared/flash.wgsl.
    for (var block = 0u; block * BLOCK < params.states; block++) {
        let s = block * BLOCK;
        let a_0 = rates(channel, s);
        let a_1 = rates(channel, s + 4u);
        let a_2 = rates(channel, s + 8u);
        let a_3 = rates(channel, s + 12u);
        var h_0 = vec4<f32>(0.0);
        var h_1 = vec4<f32>(0.0);
        var h_2 = vec4<f32>(0.0);
        var h_3 = vec4<f32>(0.0);
        var sum = 0.0;
        for (var tile = 0u; tile * TILE < params.chunk; tile++) {
            let start = first + tile * TILE;
            workgroupBarrier();
            for (var i = lane; i < TILE * PACKS; i += LANES) {
                inputs[i] = four_inputs(start + i / PACKS, s + i % PACKS * 4u);
            }
            workgroupBarrier();
            for (var t = 0u; t < TILE; t++) {
                let at = (start + t) * params.channels + channel;
                let time = delta[at];
                let x = u[at];
                sum += time;
                h_0 = advance(h_0, a_0, time, x * inputs[t * PACKS]);
                if (PACKS > 1u) { h_1 = advance(h_1, a_1, time, x * inputs[t * PACKS + 1u]); }
                if (PACKS > 2u) { h_2 = advance(h_2, a_2, time, x * inputs[t * PACKS + 2u]); }
                if (PACKS > 3u) { h_3 = advance(h_3, a_3, time, x * inputs[t * PACKS + 3u]); }
            }
        }
        if (own) {
            write_states(group.y, s, channel, h_0);
            if (PACKS > 1u) { write_states(group.y, s + 4u, channel, h_1); }
            if (PACKS > 2u) { write_states(group.y, s + 8u, channel, h_2); }
            if (PACKS > 3u) { write_states(group.y, s + 12u, channel, h_3); }
            ends[end_of(group.y, params.states, channel)] = sum; // the same for each block
        }
    }
}
