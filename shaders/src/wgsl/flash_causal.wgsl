// Causal attention of new tokens over the keys and values in the cache.
//
// Query head h uses key head h / share. The rows of one key head are its (token, query head) pairs, so that they share
// the keys in workgroup memory.

struct Params {
    tokens: u32, // T: new tokens
    keys: u32, // S: keys in the cache, with the new ones
    heads: u32, // query heads
    groups: u32, // key heads
    capacity: u32, // keys per key head in the buffers
    packs: u32, // per head: d / 4
    factor: f32, // of the scores
    unused_0: u32,
}

@group(0) @binding(0) var<storage, read_write> query: array<vec4<f32>>; // (T, heads, packs)
@group(0) @binding(1) var<storage, read_write> key: array<Pack>; // (groups, capacity, packs)
@group(0) @binding(2) var<storage, read_write> value: array<Pack>; // (groups, capacity, packs)
@group(0) @binding(3) var<storage, read_write> attended: array<vec4<f32>>; // (T, heads, packs)
@group(0) @binding(4) var<uniform> params: Params;

var<private> kv: u32; // the key head
var<private> share: u32; // query heads per key head

// An extra row repeats the last one: it is computed, but not written.
fn token(row: u32) -> u32 {
    return min(row / share, params.tokens - 1u);
}

fn query_row(row: u32) -> u32 {
    return (token(row) * params.heads + kv * share + row % share) * params.packs;
}

fn query_at(at: u32) -> vec4<f32> {
    return query[at];
}

fn key_at(n: u32, pack: u32) -> vec4<f32> {
    return Wide(key[(kv * params.capacity + n) * params.packs + pack]);
}

fn value_at(n: u32, pack: u32) -> vec4<f32> {
    return Wide(value[(kv * params.capacity + n) * params.packs + pack]);
}

fn seen(row: u32) -> u32 {
    return params.keys - params.tokens + token(row) + 1u;
}

fn write(row: u32, pack: u32, result: vec4<f32>) {
    if (row < params.tokens * share && pack < params.packs) {
        attended[query_row(row) + pack] = result;
    }
}

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    // group: (block of rows, key head). The blocks with the most keys start first. The number of keys depends on
    // parameters only, because barriers depend on it.
    kv = group.y;
    share = params.heads / params.groups;
    let block = groups.x - 1u - group.x;
    let last = min((block * BLOCK + BLOCK - 1u) / (params.heads / params.groups), params.tokens - 1u);
    attend_block(block, lane, params.keys - params.tokens + last + 1u);
}
