// Attention scores of a block of text tokens (paper Sec. 3.3, Eq. 7).
//
//     scores[h, i, n] = q[h, first + i] . k[n] / sqrt(d)
//
// A block is a few text tokens, so that the scores of a long question are never held at once. The query heads of one key
// head are rows of one product. One workgroup takes 32 rows and 128 keys; an invocation eight of each, so that each pack
// that it reads takes part in eight products.

struct Params {
    share: u32, // query heads of one key head
    text: u32, // T
    first: u32, // text token of the block
    block: u32, // text tokens in the block
    visual: u32, // N
    packs: u32, // d / 4
    factor: f32, // 1 / sqrt(d)
    unused_0: u32,
}

@group(0) @binding(0) var<storage, read_write> query: array<Pack>; // (heads, text, packs)
@group(0) @binding(1) var<storage, read_write> key: array<Pack>; // (heads / share, visual, packs)
@group(0) @binding(2) var<storage, read_write> scores: array<f32>; // (heads, block, visual)
@group(0) @binding(3) var<uniform> params: Params;

const LANES: u32 = 64u;
const SIDE: u32 = 8u; // rows and keys of an invocation

// The eight scores of one row.
fn write(row: u32, n: u32, low: vec4<f32>, high: vec4<f32>) {
    for (var j = 0u; j < 4u; j++) {
        if (n + j < params.visual) {
            scores[row * params.visual + n + j] = low[j] * params.factor;
        }
        if (n + 4u + j < params.visual) {
            scores[row * params.visual + n + 4u + j] = high[j] * params.factor;
        }
    }
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    // group: (128 keys, 32 rows, key head)
    let rows = params.share * params.block; // of one key head
    let first_row = (group.y * 4u + lane / 16u) * SIDE;
    let first_key = (group.x * 16u + lane % 16u) * SIDE;
    if (first_row >= rows || first_key >= params.visual) {
        return;
    }
    // Where the rows and keys start. One too many is the last one again: it is computed, and not written.
    var q_at: array<u32, 8>;
    var k_at: array<u32, 8>;
    for (var i = 0u; i < SIDE; i++) {
        let row = min(first_row + i, rows - 1u);
        let head = group.z * params.share + row / params.block;
        q_at[i] = (head * params.text + params.first + row % params.block) * params.packs;
        k_at[i] = (group.z * params.visual + min(first_key + i, params.visual - 1u)) * params.packs;
    }
    // Row i against keys 0 to 3 and 4 to 7. Named, not an array: an array would live in memory.
    var a0 = vec4<f32>(0.0);
    var a1 = vec4<f32>(0.0);
    var a2 = vec4<f32>(0.0);
    var a3 = vec4<f32>(0.0);
    var a4 = vec4<f32>(0.0);
    var a5 = vec4<f32>(0.0);
    var a6 = vec4<f32>(0.0);
    var a7 = vec4<f32>(0.0);
    var b0 = vec4<f32>(0.0);
    var b1 = vec4<f32>(0.0);
    var b2 = vec4<f32>(0.0);
    var b3 = vec4<f32>(0.0);
    var b4 = vec4<f32>(0.0);
    var b5 = vec4<f32>(0.0);
    var b6 = vec4<f32>(0.0);
    var b7 = vec4<f32>(0.0);
    for (var p = 0u; p < params.packs; p++) {
        let low = mat4x4<f32>(
            Wide(key[k_at[0] + p]), Wide(key[k_at[1] + p]), Wide(key[k_at[2] + p]), Wide(key[k_at[3] + p]),
        );
        let high = mat4x4<f32>(
            Wide(key[k_at[4] + p]), Wide(key[k_at[5] + p]), Wide(key[k_at[6] + p]), Wide(key[k_at[7] + p]),
        );
        var q = Wide(query[q_at[0] + p]);
        a0 += q * low;
        b0 += q * high;
        q = Wide(query[q_at[1] + p]);
        a1 += q * low;
        b1 += q * high;
        q = Wide(query[q_at[2] + p]);
        a2 += q * low;
        b2 += q * high;
        q = Wide(query[q_at[3] + p]);
        a3 += q * low;
        b3 += q * high;
        q = Wide(query[q_at[4] + p]);
        a4 += q * low;
        b4 += q * high;
        q = Wide(query[q_at[5] + p]);
        a5 += q * low;
        b5 += q * high;
        q = Wide(query[q_at[6] + p]);
        a6 += q * low;
        b6 += q * high;
        q = Wide(query[q_at[7] + p]);
        a7 += q * low;
        b7 += q * high;
    }
    // Rows of a key head lie side by side in `scores` as well.
    let row = group.z * rows + first_row;
    let last = rows - first_row; // rows from here on
    write(row, first_key, a0, b0);
    if (last > 1u) { write(row + 1u, first_key, a1, b1); }
    if (last > 2u) { write(row + 2u, first_key, a2, b2); }
    if (last > 3u) { write(row + 3u, first_key, a3, b3); }
    if (last > 4u) { write(row + 4u, first_key, a4, b4); }
    if (last > 5u) { write(row + 5u, first_key, a5, b5); }
    if (last > 6u) { write(row + 6u, first_key, a6, b6); }
    if (last > 7u) { write(row + 7u, first_key, a7, b7); }
}
