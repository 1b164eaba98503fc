// Attention of one new token over chunks of the keys in the cache (flash decoding). attend_merge merges the chunks.
//
//     s[n] = log2(e) * factor * q . k[n],  top = max_n s[n],  w[n] = 2^(s[n] - top)
//     part = sum_n w[n] v[n], top, sum_n w[n]
//
// One workgroup computes a chunk of KEYS keys for SHARE query heads of a key head, at most eight. First a lane computes
// the scores of four keys. Then the lanes are 8 across the packs of the values and 4 down the keys. The number of keys
// comes from a buffer, so no barrier may depend on it: in a chunk without keys, the loops end at once.

struct Params {
    heads: u32, // query heads
    groups: u32, // key heads
    packs: u32, // per head: d / 4
    capacity: u32, // keys per key head in the buffers
    slot: u32, // the word of `state` with the tokens before the new one
    chunks: u32,
    factor: f32, // of the scores
    unused_0: u32,
}

@group(0) @binding(0) var<storage, read_write> query: array<vec4<f32>>; // (heads, packs)
@group(0) @binding(1) var<storage, read_write> key: array<Pack>; // (groups, capacity, packs)
@group(0) @binding(2) var<storage, read_write> value: array<Pack>; // (groups, capacity, packs)
@group(0) @binding(3) var<storage, read_write> state: array<u32>; // (4,)
@group(0) @binding(4) var<storage, read_write> parts: array<vec4<f32>>; // (heads, chunks, packs + 1): top and sum last
@group(0) @binding(5) var<uniform> params: Params;

const LANES: u32 = 32u;
const ACROSS: u32 = 8u;
const DOWN: u32 = LANES / ACROSS;
const KEYS: u32 = 4u * LANES; // per chunk
const LOG2_E: f32 = 1.4426950408889634;
const NOTHING: f32 = -1e30; // far below every score, and finite

var<workgroup> weights: array<vec4<f32>, SHARE * LANES>; // (head, four keys): scores, then weights
var<workgroup> tops: array<f32, LANES>; // (head, every DOWN-th four keys)
var<workgroup> shares: array<f32, LANES>; // of the same
var<workgroup> sums: array<vec4<f32>, DOWN * SHARE * ACROSS>; // (lane down, head, lane across)

fn top_of(head: u32) -> f32 {
    let at = head * DOWN;
    return max(max(tops[at], tops[at + 1u]), max(tops[at + 2u], tops[at + 3u]));
}

fn put_score(head: u32, lane: u32, here: vec4<bool>, score: vec4<f32>) {
    weights[head * LANES + lane] = select(vec4<f32>(NOTHING), score * (params.factor * LOG2_E), here);
}

fn put_weight(head: u32, lane: u32) {
    weights[head * LANES + lane] = exp2(weights[head * LANES + lane] - top_of(head));
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    // group: (chunk, key head, SHARE of its query heads)
    let keys = min(state[params.slot] + 1u, params.capacity);
    let start = min(group.x * KEYS, keys);
    let count = min(keys - start, KEYS);
    let last = max(count, 1u) - 1u; // extra keys repeat the last one; their weight is 0
    let head = group.y * (params.heads / params.groups) + group.z * SHARE;
    let first = (group.y * params.capacity + start) * params.packs;
    let four = vec4<u32>(0u, 1u, 2u, 3u);
    let mine = 4u * lane + four;
    let here = mine < vec4<u32>(count);
    let rows = first + min(mine, vec4<u32>(last)) * params.packs;
    var score_0 = vec4<f32>(0.0);
    var score_1 = vec4<f32>(0.0);
    var score_2 = vec4<f32>(0.0);
    var score_3 = vec4<f32>(0.0);
    var score_4 = vec4<f32>(0.0);
    var score_5 = vec4<f32>(0.0);
    var score_6 = vec4<f32>(0.0);
    var score_7 = vec4<f32>(0.0);
    for (var p = 0u; p < select(0u, params.packs, here.x); p++) {
        let r = rows + p;
        let k = mat4x4<f32>(Wide(key[r.x]), Wide(key[r.y]), Wide(key[r.z]), Wide(key[r.w]));
        let q = head * params.packs + p;
        score_0 += query[q] * k;
        if (SHARE > 1u) { score_1 += query[q + params.packs] * k; }
        if (SHARE > 2u) { score_2 += query[q + 2u * params.packs] * k; }
        if (SHARE > 3u) { score_3 += query[q + 3u * params.packs] * k; }
        if (SHARE > 4u) { score_4 += query[q + 4u * params.packs] * k; }
        if (SHARE > 5u) { score_5 += query[q + 5u * params.packs] * k; }
        if (SHARE > 6u) { score_6 += query[q + 6u * params.packs] * k; }
        if (SHARE > 7u) { score_7 += query[q + 7u * params.packs] * k; }
    }
    put_score(0u, lane, here, score_0);
    if (SHARE > 1u) { put_score(1u, lane, here, score_1); }
    if (SHARE > 2u) { put_score(2u, lane, here, score_2); }
    if (SHARE > 3u) { put_score(3u, lane, here, score_3); }
    if (SHARE > 4u) { put_score(4u, lane, here, score_4); }
    if (SHARE > 5u) { put_score(5u, lane, here, score_5); }
    if (SHARE > 6u) { put_score(6u, lane, here, score_6); }
    if (SHARE > 7u) { put_score(7u, lane, here, score_7); }
    workgroupBarrier();
    let x = lane % ACROSS;
    let y = lane / ACROSS;
    let side = lane % DOWN;
    let own = lane / DOWN; // a head
    if (own < SHARE) {
        var top = vec4<f32>(NOTHING);
        for (var i = side; i < LANES; i += DOWN) {
            top = max(top, weights[own * LANES + i]);
        }
        tops[lane] = max(max(top.x, top.y), max(top.z, top.w));
    }
    workgroupBarrier();
    put_weight(0u, lane);
    if (SHARE > 1u) { put_weight(1u, lane); }
    if (SHARE > 2u) { put_weight(2u, lane); }
    if (SHARE > 3u) { put_weight(3u, lane); }
    if (SHARE > 4u) { put_weight(4u, lane); }
    if (SHARE > 5u) { put_weight(5u, lane); }
    if (SHARE > 6u) { put_weight(6u, lane); }
    if (SHARE > 7u) { put_weight(7u, lane); }
    workgroupBarrier();
    if (own < SHARE) {
        var share = vec4<f32>(0.0);
        for (var i = side; i < LANES; i += DOWN) {
            share += weights[own * LANES + i];
        }
        shares[lane] = (share.x + share.y) + (share.z + share.w);
    }
    // A product in the test: see shared/flash.wgsl.
    for (var blocks = 0u; blocks * ACROSS < params.packs; blocks++) {
        let block = blocks * ACROSS;
        let at = first + min(block + x, params.packs - 1u);
        var sum_0 = vec4<f32>(0.0);
        var sum_1 = vec4<f32>(0.0);
        var sum_2 = vec4<f32>(0.0);
        var sum_3 = vec4<f32>(0.0);
        var sum_4 = vec4<f32>(0.0);
        var sum_5 = vec4<f32>(0.0);
        var sum_6 = vec4<f32>(0.0);
        var sum_7 = vec4<f32>(0.0);
        for (var i = y; 4u * i < count; i += DOWN) {
            let r = at + min(4u * i + four, vec4<u32>(last)) * params.packs;
            let v = mat4x4<f32>(Wide(value[r.x]), Wide(value[r.y]), Wide(value[r.z]), Wide(value[r.w]));
            sum_0 += v * weights[i];
            if (SHARE > 1u) { sum_1 += v * weights[LANES + i]; }
            if (SHARE > 2u) { sum_2 += v * weights[2u * LANES + i]; }
            if (SHARE > 3u) { sum_3 += v * weights[3u * LANES + i]; }
            if (SHARE > 4u) { sum_4 += v * weights[4u * LANES + i]; }
            if (SHARE > 5u) { sum_5 += v * weights[5u * LANES + i]; }
            if (SHARE > 6u) { sum_6 += v * weights[6u * LANES + i]; }
            if (SHARE > 7u) { sum_7 += v * weights[7u * LANES + i]; }
        }
        let to = y * SHARE * ACROSS + x;
        sums[to] = sum_0;
        if (SHARE > 1u) { sums[to + ACROSS] = sum_1; }
        if (SHARE > 2u) { sums[to + 2u * ACROSS] = sum_2; }
        if (SHARE > 3u) { sums[to + 3u * ACROSS] = sum_3; }
        if (SHARE > 4u) { sums[to + 4u * ACROSS] = sum_4; }
        if (SHARE > 5u) { sums[to + 5u * ACROSS] = sum_5; }
        if (SHARE > 6u) { sums[to + 6u * ACROSS] = sum_6; }
        if (SHARE > 7u) { sums[to + 7u * ACROSS] = sum_7; }
        workgroupBarrier();
        for (var h = y; h < select(0u, SHARE, count > 0u); h += DOWN) {
            let chunk = ((head + h) * params.chunks + group.x) * (params.packs + 1u);
            let a = h * ACROSS + x;
            let low = sums[a] + sums[a + SHARE * ACROSS];
            let high = sums[a + 2u * SHARE * ACROSS] + sums[a + 3u * SHARE * ACROSS];
            if (block + x < params.packs) {
                parts[chunk + block + x] = low + high;
            }
            if (block + x == 0u) {
                let at = h * DOWN;
                let share = (shares[at] + shares[at + 1u]) + (shares[at + 2u] + shares[at + 3u]);
                parts[chunk + params.packs] = vec4<f32>(top_of(h), share, 0.0, 0.0);
            }
        }
        workgroupBarrier(); // before the next packs overwrite `sums`
    }
}
