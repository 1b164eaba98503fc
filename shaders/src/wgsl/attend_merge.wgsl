// The result of attend_split's chunks: attention of one new token.
//
//     attended = sum_c 2^(top[c] - top) part[c] / sum_c 2^(top[c] - top) weight[c],  top = max_c top[c]
//
// One workgroup computes a head, a lane one pack. The lanes read the same tops, so there is no barrier.

struct Params {
    packs: u32, // per head: d / 4
    slot: u32, // the word of `state` with the tokens before the new one
    chunks: u32, // in `parts`
    keys: u32, // per chunk
}

@group(0) @binding(0) var<storage, read_write> parts: array<vec4<f32>>; // (heads, chunks, packs + 1): top and sum last
@group(0) @binding(1) var<storage, read_write> state: array<u32>; // (4,)
@group(0) @binding(2) var<storage, read_write> attended: array<vec4<f32>>; // (heads, packs)
@group(0) @binding(3) var<uniform> params: Params;

const LANES: u32 = 32u;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = params.packs + 1u; // of a chunk
    let first = group.x * params.chunks * row;
    let last = min(state[params.slot] / params.keys, params.chunks - 1u); // the chunk of the new key
    // Four chunks at a time, so that four reads are in progress at once. An extra chunk repeats the last one: that does
    // not change a maximum, and its weight is 0.
    var tops = vec4<f32>(parts[first + params.packs].x);
    for (var c = 0u; c <= last; c += 4u) {
        let at = first + min(vec4<u32>(c) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(last)) * row + params.packs;
        tops = max(tops, vec4<f32>(parts[at.x].x, parts[at.y].x, parts[at.z].x, parts[at.w].x));
    }
    let top = max(max(tops.x, tops.y), max(tops.z, tops.w));
    for (var p = lane; p < params.packs; p += LANES) {
        var sum = vec4<f32>(0.0);
        var weight = 0.0;
        for (var c = 0u; c <= last; c += 4u) {
            let chunk = vec4<u32>(c) + vec4<u32>(0u, 1u, 2u, 3u);
            let at = first + min(chunk, vec4<u32>(last)) * row;
            let end = at + params.packs;
            let a = parts[end.x].xy;
            let b = parts[end.y].xy;
            let e = parts[end.z].xy;
            let d = parts[end.w].xy;
            let there = select(vec4<f32>(0.0), vec4<f32>(1.0), chunk <= vec4<u32>(last));
            let share = exp2(vec4<f32>(a.x, b.x, e.x, d.x) - top) * there;
            weight += dot(share, vec4<f32>(a.y, b.y, e.y, d.y));
            sum += mat4x4<f32>(parts[at.x + p], parts[at.y + p], parts[at.z + p], parts[at.w + p]) * share;
        }
        attended[group.x * params.packs + p] = sum / weight;
    }
}
