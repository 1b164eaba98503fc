// The softmax's denominator of every head and text token (paper Sec. 3.3, Eq. 7).
//
//     lse[h, t] = log sum_n exp(q[h, t] . k[n] / sqrt(d))
//
// The query heads of one key head lie side by side: `rows` of them times text tokens are the rows of one product. One
// workgroup takes 32 rows over all keys, 32 keys at a time; an invocation keeps maximum and sum of four rows over every
// eighth group of four keys, and lanes meet at the end in a fixed order. Nothing of (H, T, N) is stored.

struct Params {
    rows: u32, // query heads of one key head * text tokens
    visual: u32, // N
    packs: u32, // d / 4
    factor: f32, // 1 / sqrt(d)
}

@group(0) @binding(0) var<storage, read_write> query: array<Pack>; // (kv_heads, rows, packs)
@group(0) @binding(1) var<storage, read_write> key: array<Pack>; // (kv_heads, visual, packs)
@group(0) @binding(2) var<storage, read_write> lse: array<f32>; // (kv_heads, rows)
@group(0) @binding(3) var<uniform> params: Params;

const LANES: u32 = 64u;
const NOTHING: f32 = -1e30; // far below every score, and finite

var<workgroup> tops: array<vec4<f32>, LANES>;
var<workgroup> sums: array<vec4<f32>, LANES>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    // group: (32 rows, key head)
    let row = vec4<u32>((group.x * 8u + lane / 8u) * 4u) + vec4<u32>(0u, 1u, 2u, 3u);
    // A row or key too many is the last one again: it is computed, and not counted.
    let query_at = (group.y * params.rows + min(row, vec4<u32>(params.rows - 1u))) * params.packs;
    var top = vec4<f32>(NOTHING);
    var sum = vec4<f32>(0.0);
    for (var base = 0u; base < params.visual; base += 32u) {
        let n = vec4<u32>(base + lane % 8u * 4u) + vec4<u32>(0u, 1u, 2u, 3u);
        let key_at = (group.y * params.visual + min(n, vec4<u32>(params.visual - 1u))) * params.packs;
        let here = n < vec4<u32>(params.visual);
        var s = scores(query_at, key_at);
        for (var i = 0u; i < 4u; i++) {
            let score = select(vec4<f32>(NOTHING), s[i] * params.factor, here);
            let new_top = max(top[i], max(max(score.x, score.y), max(score.z, score.w)));
            let exps = select(vec4<f32>(0.0), exp(score - new_top), here);
            sum[i] = sum[i] * exp(top[i] - new_top) + ((exps.x + exps.y) + (exps.z + exps.w));
            top[i] = new_top;
        }
    }
    tops[lane] = top;
    sums[lane] = sum;
    workgroupBarrier();
    if (lane % 8u == 0u) {
        for (var i = 1u; i < 8u; i++) {
            let new_top = max(top, tops[lane + i]);
            sum = sum * exp(top - new_top) + sums[lane + i] * exp(tops[lane + i] - new_top);
            top = new_top;
        }
        let result = top + log(sum);
        for (var i = 0u; i < 4u; i++) {
            if (row[i] < params.rows) {
                lse[group.y * params.rows + row[i]] = result[i];
            }
        }
    }
}
