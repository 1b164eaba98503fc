// Attention in which each token of a tile sees all tokens of its tile: vision towers.

struct Params {
    tokens: u32, // per tile
    heads: u32,
    packs: u32, // per head: d / 4
    factor: f32, // of the scores
}

@group(0) @binding(0) var<storage, read_write> qkv: array<Wide>; // (tiles, tokens, 3, heads, packs)
@group(0) @binding(1) var<storage, read_write> attended: array<Wide>; // (tiles, tokens, heads, packs)
@group(0) @binding(2) var<uniform> params: Params;

var<private> head: u32;
var<private> start: u32; // the first row of the tile

fn seen(row: u32) -> u32 {
    return params.tokens;
}

// An extra row repeats the last one: it is computed, but not written.
fn query_row(row: u32) -> u32 {
    return ((start + min(row, params.tokens - 1u)) * 3u * params.heads + head) * params.packs;
}

fn query_at(at: u32) -> vec4<f32> {
    return qkv[at];
}

fn key_at(n: u32, pack: u32) -> vec4<f32> {
    return qkv[query_row(n) + params.heads * params.packs + pack];
}

fn value_at(n: u32, pack: u32) -> vec4<f32> {
    return qkv[query_row(n) + 2u * params.heads * params.packs + pack];
}

fn write(row: u32, pack: u32, result: vec4<f32>) {
    if (row < params.tokens && pack < params.packs) {
        attended[((start + row) * params.heads + head) * params.packs + pack] = result;
    }
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    // group: (block of rows, head, tile)
    head = group.y;
    start = group.z * params.tokens;
    attend_block(group.x, lane, params.tokens);
}
