// Attention of the best head, summed over a block of text tokens (paper Sec. 3.3, Eq. 7 and 8).
//
//     partial[block, n] = sum over the block's t of max_h exp(q[h, t] . k[n] / sqrt(d) - lse[h, t])
//
// One workgroup takes 32 text tokens and 32 visual ones, head after head; an invocation four of each. The exponential
// rises with its argument, so the maximum over the heads is taken before it. Nothing of (H, T, N) is stored.

struct Params {
    heads: u32,
    share: u32, // query heads of one key head
    text: u32, // T
    visual: u32, // N
    packs: u32, // d / 4
    factor: f32, // 1 / sqrt(d)
    unused_0: u32,
    unused_1: u32,
}

@group(0) @binding(0) var<storage, read_write> query: array<Pack>; // (heads, text, packs)
@group(0) @binding(1) var<storage, read_write> key: array<Pack>; // (heads / share, visual, packs)
@group(0) @binding(2) var<storage, read_write> lse: array<f32>; // (heads, text)
@group(0) @binding(3) var<storage, read_write> partial: array<f32>; // (blocks of text tokens, visual)
@group(0) @binding(4) var<uniform> params: Params;

const LANES: u32 = 64u;
const NOTHING: f32 = -1e30; // far below every score, and finite

var<workgroup> sums: array<vec4<f32>, LANES>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    // group: (32 visual tokens, 32 text tokens)
    let n = vec4<u32>((group.x * 8u + lane % 8u) * 4u) + vec4<u32>(0u, 1u, 2u, 3u);
    let t = vec4<u32>((group.y * 8u + lane / 8u) * 4u) + vec4<u32>(0u, 1u, 2u, 3u);
    // A token too many is the last one again: it is computed, and not counted.
    let n_at = min(n, vec4<u32>(params.visual - 1u));
    let t_at = min(t, vec4<u32>(params.text - 1u));
    var best = mat4x4<f32>(vec4<f32>(NOTHING), vec4<f32>(NOTHING), vec4<f32>(NOTHING), vec4<f32>(NOTHING));
    for (var h = 0u; h < params.heads; h++) {
        let row = h * params.text + t_at;
        var s = scores(row * params.packs, (h / params.share * params.visual + n_at) * params.packs);
        for (var i = 0u; i < 4u; i++) {
            best[i] = max(best[i], s[i] * params.factor - lse[row[i]]);
        }
    }
    var sum = vec4<f32>(0.0);
    for (var i = 0u; i < 4u; i++) {
        if (t[i] < params.text) {
            sum += exp(best[i]);
        }
    }
    sums[lane] = sum;
    workgroupBarrier();
    if (lane < 8u) {
        for (var i = lane + 8u; i < LANES; i += 8u) {
            sum += sums[i];
        }
        for (var j = 0u; j < 4u; j++) {
            if (n[j] < params.visual) {
                partial[group.y * params.visual + n[j]] = sum[j];
            }
        }
    }
}
