// The last of three passes of the selective scan (S6, arXiv 2312.00752): the result.
//
//     h = ends[chunk - 1]; 0 for the first chunk
//     for each step of the chunk: h = exp(delta a) h + drive; y = sum over states of c h, + d u
//
// It repeats the steps of the first pass from the right states. A correction of a result of the first pass would need as
// many exponentials, and would write y twice; and one chunk needs this pass alone. One workgroup computes 64 channels of
// one chunk; an invocation computes one channel, and BLOCK states at a time, which it adds to y in a fixed order.
//
// Constants: PACKS, ZOH.

@group(0) @binding(0) var<storage, read_write> u: array<f32>; // (length, channels)
@group(0) @binding(1) var<storage, read_write> delta: array<f32>; // (length, channels)
@group(0) @binding(2) var<storage, read_write> a: array<f32>; // (channels, states)
@group(0) @binding(3) var<storage, read_write> b: array<f32>; // (length, states)
@group(0) @binding(4) var<storage, read_write> c: array<f32>; // (length, states)
@group(0) @binding(5) var<storage, read_write> d: array<f32>; // (channels,)
@group(0) @binding(6) var<storage, read_write> ends: array<f32>; // (chunks - 1, states + 1, channels)
@group(0) @binding(7) var<storage, read_write> y: array<f32>; // (length, channels)
@group(0) @binding(8) var<uniform> params: Params;

const LANES: u32 = 64u;
const TILE: u32 = 32u; // steps whose b and c are in workgroup memory

var<workgroup> inputs: array<vec4<f32>, TILE * PACKS>;
var<workgroup> outputs: array<vec4<f32>, TILE * PACKS>;

// Copies b and c of one step, four states from s on. Beyond the last state 0, so that nothing is added to y.
fn copy(to: u32, t: u32, s: u32) {
    var input = vec4<f32>(0.0);
    var output = vec4<f32>(0.0);
    for (var j = 0u; j < 4u; j++) {
        if (s + j < params.states) {
            input[j] = b[t * params.states + s + j];
            output[j] = c[t * params.states + s + j];
        }
    }
    inputs[to] = input;
    outputs[to] = output;
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    // group: (64 channels, chunk)
    let first = group.y * params.chunk;
    let count = min(params.chunk, params.length - first);
    // An extra channel repeats the last one: it is computed, but not written.
    let channel = min(group.x * LANES + lane, params.channels - 1u);
    let own = group.x * LANES + lane < params.channels;
    let skip = d[channel];
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
        if (group.y > 0u) {
            h_0 = states_at(group.y - 1u, s, channel);
            if (PACKS > 1u) { h_1 = states_at(group.y - 1u, s + 4u, channel); }
            if (PACKS > 2u) { h_2 = states_at(group.y - 1u, s + 8u, channel); }
            if (PACKS > 3u) { h_3 = states_at(group.y - 1u, s + 12u, channel); }
        }
        for (var tile = 0u; tile * TILE < count; tile++) {
            let start = first + tile * TILE;
            let steps = min(TILE, count - tile * TILE);
            workgroupBarrier();
            for (var i = lane; i < steps * PACKS; i += LANES) {
                copy(i, start + i / PACKS, s + i % PACKS * 4u);
            }
            workgroupBarrier();
            for (var t = 0u; t < steps; t++) {
                let at = (start + t) * params.channels + channel;
                let time = delta[at];
                let x = u[at];
                h_0 = advance(h_0, a_0, time, x * inputs[t * PACKS]);
                var sum = dot(h_0, outputs[t * PACKS]);
                if (PACKS > 1u) {
                    h_1 = advance(h_1, a_1, time, x * inputs[t * PACKS + 1u]);
                    sum += dot(h_1, outputs[t * PACKS + 1u]);
                }
                if (PACKS > 2u) {
                    h_2 = advance(h_2, a_2, time, x * inputs[t * PACKS + 2u]);
                    sum += dot(h_2, outputs[t * PACKS + 2u]);
                }
                if (PACKS > 3u) {
                    h_3 = advance(h_3, a_3, time, x * inputs[t * PACKS + 3u]);
                    sum += dot(h_3, outputs[t * PACKS + 3u]);
                }
                if (own) {
                    if (block == 0u) {
                        y[at] = skip * x + sum;
                    } else {
                        y[at] += sum;
                    }
                }
            }
        }
    }
}
