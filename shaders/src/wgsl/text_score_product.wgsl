// Attention scores of a block of text tokens (paper Sec. 3.3, Eq. 7).
//
//     scores[h, i, n] = q[h, first + i] . k[n] / sqrt(d)
//
// A block is a few text tokens, to limit the memory for the scores of a long question. The query heads of one key head
// are rows of one product. One workgroup computes 32 rows and 256 keys. An invocation computes 16 rows and eight keys,
// so that it uses each pack that it reads in eight or sixteen products. Its keys are ACROSS apart, so that neighbours
// write adjacent elements.

struct Params {
    share: u32, // query heads per key head
    text: u32, // T
    first: u32, // first text token of the block
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
const ROWS: u32 = 16u; // per invocation
const ACROSS: u32 = 32u; // invocations across the keys
const KEYS: u32 = 8u * ACROSS; // per workgroup

// Writes the eight scores of one row.
fn write(row: u32, n: vec4<u32>, low: vec4<f32>, high: vec4<f32>) {
    for (var j = 0u; j < 4u; j++) {
        if (n[j] < params.visual) {
            scores[row * params.visual + n[j]] = low[j] * params.factor;
        }
        if (n[j] + 4u * ACROSS < params.visual) {
            scores[row * params.visual + n[j] + 4u * ACROSS] = high[j] * params.factor;
        }
    }
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    // group: (256 keys, 32 rows, key head)
    let rows = params.share * params.block; // per key head
    let first_row = (group.y * 2u + lane / ACROSS) * ROWS;
    let first_key = group.x * KEYS + lane % ACROSS;
    if (first_row >= rows || first_key >= params.visual) {
        return;
    }
    // The start of rows and keys. An extra row or key repeats the last one: it is computed, but not written.
    var q_at: array<u32, ROWS>;
    for (var i = 0u; i < ROWS; i++) {
        let row = min(first_row + i, rows - 1u);
        let head = group.z * params.share + row / params.block;
        q_at[i] = (head * params.text + params.first + row % params.block) * params.packs;
    }
    let key_0 = group.z * params.visual;
    let n = vec4<u32>(first_key) + vec4<u32>(0u, ACROSS, 2u * ACROSS, 3u * ACROSS);
    let a = (key_0 + min(n, vec4<u32>(params.visual - 1u))) * params.packs;
    let b = (key_0 + min(n + 4u * ACROSS, vec4<u32>(params.visual - 1u))) * params.packs;

    // Row i with its first four keys and its last four keys. Not an array with a loop: that would be in memory, and the
    // kernel would take twice as long.
    var low_0 = vec4<f32>(0.0);
    var high_0 = vec4<f32>(0.0);
    var low_1 = vec4<f32>(0.0);
    var high_1 = vec4<f32>(0.0);
    var low_2 = vec4<f32>(0.0);
    var high_2 = vec4<f32>(0.0);
    var low_3 = vec4<f32>(0.0);
    var high_3 = vec4<f32>(0.0);
    var low_4 = vec4<f32>(0.0);
    var high_4 = vec4<f32>(0.0);
    var low_5 = vec4<f32>(0.0);
    var high_5 = vec4<f32>(0.0);
    var low_6 = vec4<f32>(0.0);
    var high_6 = vec4<f32>(0.0);
    var low_7 = vec4<f32>(0.0);
    var high_7 = vec4<f32>(0.0);
    var low_8 = vec4<f32>(0.0);
    var high_8 = vec4<f32>(0.0);
    var low_9 = vec4<f32>(0.0);
    var high_9 = vec4<f32>(0.0);
    var low_10 = vec4<f32>(0.0);
    var high_10 = vec4<f32>(0.0);
    var low_11 = vec4<f32>(0.0);
    var high_11 = vec4<f32>(0.0);
    var low_12 = vec4<f32>(0.0);
    var high_12 = vec4<f32>(0.0);
    var low_13 = vec4<f32>(0.0);
    var high_13 = vec4<f32>(0.0);
    var low_14 = vec4<f32>(0.0);
    var high_14 = vec4<f32>(0.0);
    var low_15 = vec4<f32>(0.0);
    var high_15 = vec4<f32>(0.0);
    for (var p = 0u; p < params.packs; p++) {
        let k_low = mat4x4<f32>(Wide(key[a.x + p]), Wide(key[a.y + p]), Wide(key[a.z + p]), Wide(key[a.w + p]));
        let k_high = mat4x4<f32>(Wide(key[b.x + p]), Wide(key[b.y + p]), Wide(key[b.z + p]), Wide(key[b.w + p]));
        var q = Wide(query[q_at[0] + p]);
        low_0 += q * k_low;
        high_0 += q * k_high;
        q = Wide(query[q_at[1] + p]);
        low_1 += q * k_low;
        high_1 += q * k_high;
        q = Wide(query[q_at[2] + p]);
        low_2 += q * k_low;
        high_2 += q * k_high;
        q = Wide(query[q_at[3] + p]);
        low_3 += q * k_low;
        high_3 += q * k_high;
        q = Wide(query[q_at[4] + p]);
        low_4 += q * k_low;
        high_4 += q * k_high;
        q = Wide(query[q_at[5] + p]);
        low_5 += q * k_low;
        high_5 += q * k_high;
        q = Wide(query[q_at[6] + p]);
        low_6 += q * k_low;
        high_6 += q * k_high;
        q = Wide(query[q_at[7] + p]);
        low_7 += q * k_low;
        high_7 += q * k_high;
        q = Wide(query[q_at[8] + p]);
        low_8 += q * k_low;
        high_8 += q * k_high;
        q = Wide(query[q_at[9] + p]);
        low_9 += q * k_low;
        high_9 += q * k_high;
        q = Wide(query[q_at[10] + p]);
        low_10 += q * k_low;
        high_10 += q * k_high;
        q = Wide(query[q_at[11] + p]);
        low_11 += q * k_low;
        high_11 += q * k_high;
        q = Wide(query[q_at[12] + p]);
        low_12 += q * k_low;
        high_12 += q * k_high;
        q = Wide(query[q_at[13] + p]);
        low_13 += q * k_low;
        high_13 += q * k_high;
        q = Wide(query[q_at[14] + p]);
        low_14 += q * k_low;
        high_14 += q * k_high;
        q = Wide(query[q_at[15] + p]);
        low_15 += q * k_low;
        high_15 += q * k_high;
    }

    // The rows of a key head are adjacent in `scores` too.
    let row = group.z * rows + first_row;
    let last = rows - first_row;
    write(row, n, low_0, high_0);
    if (last > 1u) { write(row + 1u, n, low_1, high_1); }
    if (last > 2u) { write(row + 2u, n, low_2, high_2); }
    if (last > 3u) { write(row + 3u, n, low_3, high_3); }
    if (last > 4u) { write(row + 4u, n, low_4, high_4); }
    if (last > 5u) { write(row + 5u, n, low_5, high_5); }
    if (last > 6u) { write(row + 6u, n, low_6, high_6); }
    if (last > 7u) { write(row + 7u, n, low_7, high_7); }
    if (last > 8u) { write(row + 8u, n, low_8, high_8); }
    if (last > 9u) { write(row + 9u, n, low_9, high_9); }
    if (last > 10u) { write(row + 10u, n, low_10, high_10); }
    if (last > 11u) { write(row + 11u, n, low_11, high_11); }
    if (last > 12u) { write(row + 12u, n, low_12, high_12); }
    if (last > 13u) { write(row + 13u, n, low_13, high_13); }
    if (last > 14u) { write(row + 14u, n, low_14, high_14); }
    if (last > 15u) { write(row + 15u, n, low_15, high_15); }
}
