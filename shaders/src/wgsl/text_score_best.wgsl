// The maximum attention over the heads, summed over the text tokens of a block (paper Sec. 3.3, Eq. 7 and 8).
//
//     importance[n] += sum_i max_h exp(scores[h, i, n] - lse[h, i]) / T
//
// The exponential is monotonic, so the maximum over the heads is taken before it. One workgroup computes 16 visual
// tokens. A lane computes one visual token, every 16th text token, and four heads at a time, so that four reads are in
// progress at once. The lanes are summed in a fixed order. The first block writes the result, the other blocks add to
// it.

struct Params {
    heads: u32,
    block: u32, // text tokens in the block
    visual: u32, // N
    first: u32, // first text token of the block
    share: f32, // 1 / T
    unused_0: u32,
    unused_1: u32,
    unused_2: u32,
}

@group(0) @binding(0) var<storage, read_write> scores: array<f32>; // (heads, block, visual)
@group(0) @binding(1) var<storage, read_write> lse: array<f32>; // (heads, block)
@group(0) @binding(2) var<storage, read_write> importance: array<f32>; // (visual,)
@group(0) @binding(3) var<uniform> params: Params;

const LANES: u32 = 256u;
const ACROSS: u32 = 16u; // visual tokens per workgroup
const NOTHING: f32 = -1e30; // far below every score, and finite

var<workgroup> sums: array<f32, LANES>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = group.x * ACROSS + lane % ACROSS;
    // An extra token or head repeats the last one. The token is not written, and the head does not change a maximum.
    let at = min(n, params.visual - 1u);
    var sum = 0.0;
    for (var i = lane / ACROSS; i < params.block; i += LANES / ACROSS) {
        var best = vec4<f32>(NOTHING);
        // A product in the test: see shared/flash.wgsl.
        for (var fours = 0u; 4u * fours < params.heads; fours++) {
            let heads = min(vec4<u32>(4u * fours) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(params.heads - 1u));
            let row = heads * params.block + i;
            let score = row * params.visual + at;
            let read = vec4<f32>(scores[score.x], scores[score.y], scores[score.z], scores[score.w]);
            best = max(best, read - vec4<f32>(lse[row.x], lse[row.y], lse[row.z], lse[row.w]));
        }
        sum += exp(max(max(best.x, best.y), max(best.z, best.w)));
    }
    sums[lane] = sum;
    workgroupBarrier();
    if (lane < ACROSS && n < params.visual) {
        var all = 0.0;
        for (var j = lane; j < LANES; j += ACROSS) {
            all += sums[j];
        }
        let before = select(importance[n], 0.0, params.first == 0u);
        importance[n] = before + all * params.share;
    }
}
