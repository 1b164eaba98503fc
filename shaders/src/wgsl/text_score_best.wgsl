// Attention of the best head, added up over the text tokens, block after block (paper Sec. 3.3, Eq. 7 and 8).
//
//     importance[n] += sum_i max_h exp(scores[h, i, n] - lse[h, i]) / T
//
// The exponential rises with its argument, so the maximum over the heads is taken before it. One invocation takes four
// visual tokens, LANES apart. The first block writes, the others add.

struct Params {
    heads: u32,
    block: u32, // text tokens in the block
    visual: u32, // N
    first: u32, // text token of the block
    share: f32, // 1 / T
    unused_0: u32,
    unused_1: u32,
    unused_2: u32,
}

@group(0) @binding(0) var<storage, read_write> scores: array<f32>; // (heads, block, visual)
@group(0) @binding(1) var<storage, read_write> lse: array<f32>; // (heads, block)
@group(0) @binding(2) var<storage, read_write> importance: array<f32>; // (visual,)
@group(0) @binding(3) var<uniform> params: Params;

const LANES: u32 = 64u;
const NOTHING: f32 = -1e30; // far below every score, and finite

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = vec4<u32>(group.x * 4u * LANES + lane) + vec4<u32>(0u, LANES, 2u * LANES, 3u * LANES);
    // A token too many is the last one again: it is computed, and not written.
    let at = min(n, vec4<u32>(params.visual - 1u));
    var sum = vec4<f32>(0.0);
    for (var i = 0u; i < params.block; i++) {
        var best = vec4<f32>(NOTHING);
        for (var h = 0u; h < params.heads; h++) {
            let row = h * params.block + i;
            let score = row * params.visual + at;
            best = max(best, vec4<f32>(scores[score.x], scores[score.y], scores[score.z], scores[score.w]) - lse[row]);
        }
        sum += exp(best);
    }
    for (var j = 0u; j < 4u; j++) {
        if (n[j] < params.visual) {
            var before = 0.0;
            if (params.first > 0u) {
                before = importance[n[j]];
            }
            importance[n[j]] = before + sum[j] * params.share;
        }
    }
}
