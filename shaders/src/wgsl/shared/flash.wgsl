// Attention of a block of query rows, by online softmax (FlashAttention): there is no buffer for scores.
//
//     result[row] = sum_n softmax_n(factor * query[row] . key[n]) value[n], n < seen(row)
//
// The body has `seen`, `query_row`, `query_at`, `key_at`, `value_at` and `write`. The lanes are 8 across and LANES / 8
// down. A lane computes the scores of ROWS rows (4 or 8) and four keys, and then WIDTH packs of the result of the same
// rows. Queries and keys are in workgroup memory, eight packs at a time; with DIRECT they are read in place, for software
// GPUs: there a copy costs more than it saves, and SwiftShader compiles a store for each word of workgroup memory. Values
// are read in place: neighbours read adjacent packs. Sums have names and are not in arrays, because an array would be in
// memory.
//
// The loops test a product (`steps * KEYS < count`) and not the counter: if only parameters end a plain loop, Mesa's
// lavapipe compiles the kernel again for each dispatch, and does not free it.

const ACROSS: u32 = 8u; // lanes across the keys, and across the packs of the result
const BLOCK: u32 = LANES / ACROSS * ROWS; // rows per workgroup
const KEYS: u32 = 4u * ACROSS; // keys per step
const SLICE: u32 = 8u; // packs of queries and keys in workgroup memory
const QUADS: u32 = BLOCK / 4u; // rows in fours
const LOG2_E: f32 = 1.4426950408889634;
const NOTHING: f32 = -1e30; // far below every score, and finite

// Rows of keys and weights are one longer than needed, so that neighbours use different banks.
var<workgroup> keys: array<vec4<f32>, SLICE * (KEYS + 1u) * (1u - DIRECT) + DIRECT>; // (pack, key)
var<workgroup> weights: array<vec4<f32>, KEYS * (QUADS + 1u)>; // (key, four rows); before, queries (pack, row)
var<workgroup> lanes: array<vec4<f32>, ACROSS * QUADS>; // (lane across, four rows): maxima, and at the end sums

// The result before the division by the sum of the weights: sum_ROW_PACK.
var<private> sum_0_0: vec4<f32>;
var<private> sum_0_1: vec4<f32>;
var<private> sum_0_2: vec4<f32>;
var<private> sum_0_3: vec4<f32>;
var<private> sum_1_0: vec4<f32>;
var<private> sum_1_1: vec4<f32>;
var<private> sum_1_2: vec4<f32>;
var<private> sum_1_3: vec4<f32>;
var<private> sum_2_0: vec4<f32>;
var<private> sum_2_1: vec4<f32>;
var<private> sum_2_2: vec4<f32>;
var<private> sum_2_3: vec4<f32>;
var<private> sum_3_0: vec4<f32>;
var<private> sum_3_1: vec4<f32>;
var<private> sum_3_2: vec4<f32>;
var<private> sum_3_3: vec4<f32>;
var<private> sum_4_0: vec4<f32>;
var<private> sum_4_1: vec4<f32>;
var<private> sum_4_2: vec4<f32>;
var<private> sum_4_3: vec4<f32>;
var<private> sum_5_0: vec4<f32>;
var<private> sum_5_1: vec4<f32>;
var<private> sum_5_2: vec4<f32>;
var<private> sum_5_3: vec4<f32>;
var<private> sum_6_0: vec4<f32>;
var<private> sum_6_1: vec4<f32>;
var<private> sum_6_2: vec4<f32>;
var<private> sum_6_3: vec4<f32>;
var<private> sum_7_0: vec4<f32>;
var<private> sum_7_1: vec4<f32>;
var<private> sum_7_2: vec4<f32>;
var<private> sum_7_3: vec4<f32>;

// Adds the first pack of the value of a key to each row, where `low` and `high` are its weights; then the other packs.
fn add_0(low: vec4<f32>, high: vec4<f32>, v: vec4<f32>) {
    sum_0_0 += low.x * v;
    sum_1_0 += low.y * v;
    sum_2_0 += low.z * v;
    sum_3_0 += low.w * v;
    if (ROWS > 4u) {
        sum_4_0 += high.x * v;
        sum_5_0 += high.y * v;
        sum_6_0 += high.z * v;
        sum_7_0 += high.w * v;
    }
}

fn add_1(low: vec4<f32>, high: vec4<f32>, v: vec4<f32>) {
    sum_0_1 += low.x * v;
    sum_1_1 += low.y * v;
    sum_2_1 += low.z * v;
    sum_3_1 += low.w * v;
    if (ROWS > 4u) {
        sum_4_1 += high.x * v;
        sum_5_1 += high.y * v;
        sum_6_1 += high.z * v;
        sum_7_1 += high.w * v;
    }
}

fn add_2(low: vec4<f32>, high: vec4<f32>, v: vec4<f32>) {
    sum_0_2 += low.x * v;
    sum_1_2 += low.y * v;
    sum_2_2 += low.z * v;
    sum_3_2 += low.w * v;
    if (ROWS > 4u) {
        sum_4_2 += high.x * v;
        sum_5_2 += high.y * v;
        sum_6_2 += high.z * v;
        sum_7_2 += high.w * v;
    }
}

fn add_3(low: vec4<f32>, high: vec4<f32>, v: vec4<f32>) {
    sum_0_3 += low.x * v;
    sum_1_3 += low.y * v;
    sum_2_3 += low.z * v;
    sum_3_3 += low.w * v;
    if (ROWS > 4u) {
        sum_4_3 += high.x * v;
        sum_5_3 += high.y * v;
        sum_6_3 += high.z * v;
        sum_7_3 += high.w * v;
    }
}

// Scales the first pack of each row; then the other packs.
fn fade_0(low: vec4<f32>, high: vec4<f32>) {
    sum_0_0 *= low.x;
    sum_1_0 *= low.y;
    sum_2_0 *= low.z;
    sum_3_0 *= low.w;
    sum_4_0 *= high.x;
    sum_5_0 *= high.y;
    sum_6_0 *= high.z;
    sum_7_0 *= high.w;
}

fn fade_1(low: vec4<f32>, high: vec4<f32>) {
    sum_0_1 *= low.x;
    sum_1_1 *= low.y;
    sum_2_1 *= low.z;
    sum_3_1 *= low.w;
    sum_4_1 *= high.x;
    sum_5_1 *= high.y;
    sum_6_1 *= high.z;
    sum_7_1 *= high.w;
}

fn fade_2(low: vec4<f32>, high: vec4<f32>) {
    sum_0_2 *= low.x;
    sum_1_2 *= low.y;
    sum_2_2 *= low.z;
    sum_3_2 *= low.w;
    sum_4_2 *= high.x;
    sum_5_2 *= high.y;
    sum_6_2 *= high.z;
    sum_7_2 *= high.w;
}

fn fade_3(low: vec4<f32>, high: vec4<f32>) {
    sum_0_3 *= low.x;
    sum_1_3 *= low.y;
    sum_2_3 *= low.z;
    sum_3_3 *= low.w;
    sum_4_3 *= high.x;
    sum_5_3 *= high.y;
    sum_6_3 *= high.z;
    sum_7_3 *= high.w;
}

// Adds the values of a key: `n` is its index, `at` its position in the step, `x` and `y` the lane.
fn weigh(n: u32, at: u32, x: u32, y: u32) {
    let quad = at * (QUADS + 1u) + y * (ROWS / 4u);
    let low = weights[quad];
    var high = low;
    if (ROWS > 4u) {
        high = weights[quad + 1u];
    }
    let last = params.packs - 1u;
    add_0(low, high, value_at(n, min(x, last)));
    if (WIDTH > 1u) { add_1(low, high, value_at(n, min(x + ACROSS, last))); }
    if (WIDTH > 2u) { add_2(low, high, value_at(n, min(x + 2u * ACROSS, last))); }
    if (WIDTH > 3u) { add_3(low, high, value_at(n, min(x + 3u * ACROSS, last))); }
}

// A pack of a key: `i` is its position in the step, `n` its index, `p` the position of the pack in the slice.
fn key_pack(i: u32, n: u32, slice: u32, p: u32) -> vec4<f32> {
    if (DIRECT == 1u) {
        return key_at(n, slice + p);
    }
    return keys[p * (KEYS + 1u) + i];
}

// The same pack of four queries: `i` is the row of the first one in the block, `at` are their first packs.
fn query_packs(i: u32, at: vec4<u32>, slice: u32, p: u32) -> mat4x4<f32> {
    if (DIRECT == 1u) {
        let q = at + (slice + p);
        return mat4x4<f32>(query_at(q.x), query_at(q.y), query_at(q.z), query_at(q.w));
    }
    let a = p * (BLOCK + 1u) + i;
    return mat4x4<f32>(weights[a], weights[a + 1u], weights[a + 2u], weights[a + 3u]);
}

fn query_rows(rows: vec4<u32>) -> vec4<u32> {
    return vec4<u32>(query_row(rows.x), query_row(rows.y), query_row(rows.z), query_row(rows.w));
}

// The scores of a key for four rows.
fn masked(product: vec4<f32>, n: u32, seen: vec4<u32>) -> vec4<f32> {
    return select(vec4<f32>(NOTHING), product * (params.factor * LOG2_E), vec4<u32>(n) < seen);
}

// The maximum over the lanes across, for four rows.
fn top_of(quad: u32) -> vec4<f32> {
    let low = max(max(lanes[quad], lanes[quad + QUADS]), max(lanes[quad + 2u * QUADS], lanes[quad + 3u * QUADS]));
    let at = quad + 4u * QUADS;
    return max(low, max(max(lanes[at], lanes[at + QUADS]), max(lanes[at + 2u * QUADS], lanes[at + 3u * QUADS])));
}

// The sum over the lanes across, for four rows.
fn sum_of(quad: u32) -> vec4<f32> {
    let low = (lanes[quad] + lanes[quad + QUADS]) + (lanes[quad + 2u * QUADS] + lanes[quad + 3u * QUADS]);
    let at = quad + 4u * QUADS;
    return low + ((lanes[at] + lanes[at + QUADS]) + (lanes[at + 2u * QUADS] + lanes[at + 3u * QUADS]));
}

fn write_row(row: u32, x: u32, factor: f32, a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>) {
    write(row, x, a * factor);
    if (WIDTH > 1u) { write(row, x + ACROSS, b * factor); }
    if (WIDTH > 2u) { write(row, x + 2u * ACROSS, c * factor); }
    if (WIDTH > 3u) { write(row, x + 3u * ACROSS, d * factor); }
}

// The rows of `block` over the keys below `count`, which is more than 0.
fn attend_block(block: u32, lane: u32, count: u32) {
    let x = lane % ACROSS;
    let y = lane / ACROSS;
    let row = block * BLOCK + y * ROWS;
    let quad = y * (ROWS / 4u);
    let here = row + vec4<u32>(0u, 1u, 2u, 3u);
    let seen_low = vec4<u32>(seen(here.x), seen(here.y), seen(here.z), seen(here.w));
    let there = here + (ROWS - 4u);
    let seen_high = vec4<u32>(seen(there.x), seen(there.y), seen(there.z), seen(there.w));
    let from_low = query_rows(here);
    let from_high = query_rows(there);
    var top_low = vec4<f32>(NOTHING);
    var top_high = vec4<f32>(NOTHING);
    var share_low = vec4<f32>(0.0); // sums of this lane's weights
    var share_high = vec4<f32>(0.0);
    for (var steps = 0u; steps * KEYS < count; steps++) {
        let n = steps * KEYS;
        let mine = n + x;
        // A key after the last one repeats it.
        let n_0 = min(mine, count - 1u);
        let n_1 = min(mine + ACROSS, count - 1u);
        let n_2 = min(mine + 2u * ACROSS, count - 1u);
        let n_3 = min(mine + 3u * ACROSS, count - 1u);
        // Scores of four keys, for rows 0 to 3 and 4 to 7.
        var low_0 = vec4<f32>(0.0);
        var high_0 = vec4<f32>(0.0);
        var low_1 = vec4<f32>(0.0);
        var high_1 = vec4<f32>(0.0);
        var low_2 = vec4<f32>(0.0);
        var high_2 = vec4<f32>(0.0);
        var low_3 = vec4<f32>(0.0);
        var high_3 = vec4<f32>(0.0);
        for (var slices = 0u; slices * SLICE < params.packs; slices++) {
            let slice = slices * SLICE;
            if (DIRECT == 0u) {
                workgroupBarrier();
                for (var i = lane; i < SLICE * KEYS; i += LANES) {
                    let pack = min(slice + i % SLICE, params.packs - 1u);
                    keys[i % SLICE * (KEYS + 1u) + i / SLICE] = key_at(min(n + i / SLICE, count - 1u), pack);
                }
                for (var i = lane; i < SLICE * BLOCK; i += LANES) {
                    let at = query_row(block * BLOCK + i / SLICE) + min(slice + i % SLICE, params.packs - 1u);
                    weights[i % SLICE * (BLOCK + 1u) + i / SLICE] = query_at(at);
                }
                workgroupBarrier();
            }
            for (var p = 0u; p < min(SLICE, params.packs - slice); p++) {
                let low = query_packs(y * ROWS, from_low, slice, p);
                let k_0 = key_pack(x, n_0, slice, p);
                let k_1 = key_pack(x + ACROSS, n_1, slice, p);
                let k_2 = key_pack(x + 2u * ACROSS, n_2, slice, p);
                let k_3 = key_pack(x + 3u * ACROSS, n_3, slice, p);
                low_0 += k_0 * low;
                low_1 += k_1 * low;
                low_2 += k_2 * low;
                low_3 += k_3 * low;
                if (ROWS > 4u) {
                    let high = query_packs(y * ROWS + 4u, from_high, slice, p);
                    high_0 += k_0 * high;
                    high_1 += k_1 * high;
                    high_2 += k_2 * high;
                    high_3 += k_3 * high;
                }
            }
        }
        low_0 = masked(low_0, mine, seen_low);
        high_0 = masked(high_0, mine, seen_high);
        low_1 = masked(low_1, mine + ACROSS, seen_low);
        high_1 = masked(high_1, mine + ACROSS, seen_high);
        low_2 = masked(low_2, mine + 2u * ACROSS, seen_low);
        high_2 = masked(high_2, mine + 2u * ACROSS, seen_high);
        low_3 = masked(low_3, mine + 3u * ACROSS, seen_low);
        high_3 = masked(high_3, mine + 3u * ACROSS, seen_high);
        // The weights of these keys, and the factor that corrects those of earlier keys.
        lanes[x * QUADS + quad] = max(max(low_0, low_1), max(low_2, low_3));
        if (ROWS > 4u) {
            lanes[x * QUADS + quad + 1u] = max(max(high_0, high_1), max(high_2, high_3));
        }
        workgroupBarrier();
        let new_low = max(top_low, top_of(quad));
        let fade_low = exp2(top_low - new_low);
        top_low = new_low;
        low_0 = exp2(low_0 - new_low);
        weights[x * (QUADS + 1u) + quad] = low_0;
        low_1 = exp2(low_1 - new_low);
        weights[(x + ACROSS) * (QUADS + 1u) + quad] = low_1;
        low_2 = exp2(low_2 - new_low);
        weights[(x + 2u * ACROSS) * (QUADS + 1u) + quad] = low_2;
        low_3 = exp2(low_3 - new_low);
        weights[(x + 3u * ACROSS) * (QUADS + 1u) + quad] = low_3;
        share_low = share_low * fade_low + ((low_0 + low_1) + (low_2 + low_3));
        var fade_high = fade_low;
        if (ROWS > 4u) {
            let new_high = max(top_high, top_of(quad + 1u));
            fade_high = exp2(top_high - new_high);
            top_high = new_high;
            high_0 = exp2(high_0 - new_high);
            weights[x * (QUADS + 1u) + quad + 1u] = high_0;
            high_1 = exp2(high_1 - new_high);
            weights[(x + ACROSS) * (QUADS + 1u) + quad + 1u] = high_1;
            high_2 = exp2(high_2 - new_high);
            weights[(x + 2u * ACROSS) * (QUADS + 1u) + quad + 1u] = high_2;
            high_3 = exp2(high_3 - new_high);
            weights[(x + 3u * ACROSS) * (QUADS + 1u) + quad + 1u] = high_3;
            share_high = share_high * fade_high + ((high_0 + high_1) + (high_2 + high_3));
        }
        fade_0(fade_low, fade_high);
        if (WIDTH > 1u) { fade_1(fade_low, fade_high); }
        if (WIDTH > 2u) { fade_2(fade_low, fade_high); }
        if (WIDTH > 3u) { fade_3(fade_low, fade_high); }
        workgroupBarrier();
        for (var j = 0u; j < min(KEYS, count - n); j += 4u) {
            weigh(n + j, j, x, y);
            weigh(min(n + j + 1u, count - 1u), j + 1u, x, y);
            weigh(min(n + j + 2u, count - 1u), j + 2u, x, y);
            weigh(min(n + j + 3u, count - 1u), j + 3u, x, y);
        }
    }
    // `lanes` was last read before the last barrier.
    lanes[x * QUADS + quad] = share_low;
    if (ROWS > 4u) {
        lanes[x * QUADS + quad + 1u] = share_high;
    }
    workgroupBarrier();
    let factor_low = 1.0 / sum_of(quad);
    write_row(here.x, x, factor_low.x, sum_0_0, sum_0_1, sum_0_2, sum_0_3);
    write_row(here.y, x, factor_low.y, sum_1_0, sum_1_1, sum_1_2, sum_1_3);
    write_row(here.z, x, factor_low.z, sum_2_0, sum_2_1, sum_2_2, sum_2_3);
    write_row(here.w, x, factor_low.w, sum_3_0, sum_3_1, sum_3_2, sum_3_3);
    if (ROWS > 4u) {
        let factor_high = 1.0 / sum_of(quad + 1u);
        write_row(there.x, x, factor_high.x, sum_4_0, sum_4_1, sum_4_2, sum_4_3);
        write_row(there.y, x, factor_high.y, sum_5_0, sum_5_1, sum_5_2, sum_5_3);
        write_row(there.z, x, factor_high.z, sum_6_0, sum_6_1, sum_6_2, sum_6_3);
        write_row(there.w, x, factor_high.w, sum_7_0, sum_7_1, sum_7_2, sum_7_3);
    }
}
