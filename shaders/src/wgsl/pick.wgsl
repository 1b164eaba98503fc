// The token with the largest allowed logit, and the next position; equal logits: the lower id.
//
//     next[0]      the id; 0 where no id is allowed; u32's largest number where a logit is not finite, allowed or not
//     next[1 to 3] one more than in `state`: the row of the rotary table, and the tokens in the lower and upper caches
//
// One workgroup. Logits are compared as integers in the same order: WGSL may assume that there are no NaN and
// infinities, and may turn numbers near zero into zero.

struct Params {
    vocab: u32, // V
    unused_0: u32,
    unused_1: u32,
    unused_2: u32,
}

@group(0) @binding(0) var<storage, read_write> logits: array<i32>; // (V,), the bits of f32
@group(0) @binding(1) var<storage, read_write> allowed: array<u32>; // (ceil(V / 32),): bit i % 32 of word i / 32
@group(0) @binding(2) var<storage, read_write> state: array<u32>; // (4,)
@group(0) @binding(3) var<storage, read_write> next: array<u32>; // (4,)
@group(0) @binding(4) var<uniform> params: Params;

const NOTHING: i32 = -0x7fffffff; // below the key of every finite number

struct Best {
    key: i32,
    id: u32,
    size: i32, // the largest absolute value, as bits
}

var<workgroup> keys: array<i32, LANES>;
var<workgroup> ids: array<u32, LANES>;
var<workgroup> sizes: array<i32, LANES>;

// The better one of the best so far and `id`, which is higher than the ids before.
fn with_id(best: Best, id: u32) -> Best {
    let bits = logits[id];
    let size = bits & 0x7fffffff;
    var key = select(size, -size, bits < 0); // 0.0 and -0.0 have equal keys
    key = select(NOTHING, key, ((allowed[id / 32u] >> (id % 32u)) & 1u) == 1u);
    let better = key > best.key;
    return Best(select(best.key, key, better), select(best.id, id, better), max(best.size, size));
}

@compute @workgroup_size(LANES)
fn main(@builtin(local_invocation_index) lane: u32) {
    var best = Best(NOTHING, 0u, 0);
    var id = lane;
    for (; id + 7u * LANES < params.vocab; id += 8u * LANES) {
        best = with_id(best, id);
        best = with_id(best, id + LANES);
        best = with_id(best, id + 2u * LANES);
        best = with_id(best, id + 3u * LANES);
        best = with_id(best, id + 4u * LANES);
        best = with_id(best, id + 5u * LANES);
        best = with_id(best, id + 6u * LANES);
        best = with_id(best, id + 7u * LANES);
    }
    for (; id < params.vocab; id += LANES) {
        best = with_id(best, id);
    }
    keys[lane] = best.key;
    ids[lane] = best.id;
    sizes[lane] = best.size;
    workgroupBarrier();
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        if (lane < half) {
            let key = keys[lane + half];
            let other = ids[lane + half];
            if (key > keys[lane] || (key == keys[lane] && other < ids[lane])) {
                keys[lane] = key;
                ids[lane] = other;
            }
            sizes[lane] = max(sizes[lane], sizes[lane + half]);
        }
        workgroupBarrier();
    }
    if (lane == 0u) {
        next[0] = select(ids[0], 0xffffffffu, sizes[0] >= 0x7f800000);
        next[1] = state[1] + 1u;
        next[2] = state[2] + 1u;
        next[3] = state[3] + 1u;
    }
}
