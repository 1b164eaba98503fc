// Rotates new queries and keys, and stores the keys and values in the cache of a layer.
//
//     (a, b) -> (a cos - b sin, b cos + a sin)
//
// a and b are the two halves of a head of q or k; v is copied. Token t takes row state[FIRST] + t of the table, and row
// state[slot] + t of the cache; rows beyond the capacity are not written.
//
// One invocation processes one pack of the first half of a head, and its partner in the second half.

struct Params {
    tokens: u32, // T
    heads: u32, // H, of queries
    groups: u32, // G: heads of keys, and of values
    half: u32, // D / 2, in packs
    capacity: u32, // rows of the cache
    slot: u32, // the word of `state` with the tokens in the cache
    unused_0: u32,
    unused_1: u32,
}

@group(0) @binding(0) var<storage, read_write> qkv: array<Wide>; // (T, H + G + G, 2, half): q | k | v
@group(0) @binding(1) var<storage, read_write> table: array<Wide>; // (positions, 2, half): cosines | sines
@group(0) @binding(2) var<storage, read_write> state: array<u32>; // (4,)
@group(0) @binding(3) var<storage, read_write> query: array<Wide>; // (T, H, 2, half)
@group(0) @binding(4) var<storage, read_write> key: array<Pack>; // (G, capacity, 2, half)
@group(0) @binding(5) var<storage, read_write> value: array<Pack>; // (G, capacity, 2, half)
@group(0) @binding(6) var<uniform> params: Params;

const LANES: u32 = 64u;
const FIRST: u32 = 1u; // the word of `state` with the row of the table of the first new token

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = (group.y * groups.x + group.x) * LANES + lane;
    let half = params.half;
    let heads = params.heads + 2u * params.groups; // per token
    let i = at % half;
    let head = at / half % heads;
    let t = at / half / heads;
    if (t >= params.tokens) {
        return;
    }
    let source = (t * heads + head) * 2u * half + i;
    var a = qkv[source];
    var b = qkv[source + half];
    if (head < params.heads + params.groups) {
        let angle = (state[FIRST] + t) * 2u * half + i;
        let cosine = table[angle];
        let sine = table[angle + half];
        let turned = a * cosine - b * sine;
        b = b * cosine + a * sine;
        a = turned;
    }
    if (head < params.heads) {
        let to = (t * params.heads + head) * 2u * half + i;
        query[to] = a;
        query[to + half] = b;
        return;
    }
    let row = state[params.slot] + t;
    if (row >= params.capacity) {
        return;
    }
    let stored = head - params.heads; // heads of keys, then of values
    let to = (stored % params.groups * params.capacity + row) * 2u * half + i;
    if (stored < params.groups) {
        key[to] = Pack(a);
        key[to + half] = Pack(b);
    } else {
        value[to] = Pack(a);
        value[to + half] = Pack(b);
    }
}
