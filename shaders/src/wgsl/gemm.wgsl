// Many rows times a matrix, for GPUs: the linear layers of a prefill and of the vision tower. See shared/gemm.wgsl.
//
// One workgroup computes 8 ROWS tokens and 64 rows of W; with GATE these are 32 rows of the gate and the same 32 of
// `up`. It copies a slice of 16 columns of both to workgroup memory, where each pack is used by 8 or 16 invocations. An
// invocation computes ROWS tokens and four rows of W. Its tokens are DOWN apart and its rows ACROSS apart, so that
// neighbours read adjacent packs of workgroup memory and write adjacent elements.
//
// Constants: BIAS, RESIDUAL, GATE, 0 or 1; ACTIVATION, see `activate`; ROWS, 4, 8 or 16.

const LANES: u32 = 128u;
const ACROSS: u32 = 16u;
const DOWN: u32 = 8u;
const SLICE: u32 = 4u; // packs
const TOKENS: u32 = DOWN * ROWS;
const COLUMNS: u32 = 4u * ACROSS;
const RESULTS: u32 = COLUMNS / (1u + GATE);
// Distances between the packs of a row. Two more than the number of rows, so that the eight lanes that write two rows
// use different banks of memory.
const STEP_X: u32 = TOKENS + 2u;
const STEP_W: u32 = COLUMNS + 2u;

var<workgroup> tile_x: array<vec4<f32>, SLICE * STEP_X>; // (packs, tokens)
var<workgroup> tile_w: array<vec4<f32>, SLICE * STEP_W>; // (packs, rows of W)

fn tokens_at(at: u32) -> mat4x4<f32> {
    return mat4x4<f32>(tile_x[at], tile_x[at + DOWN], tile_x[at + 2u * DOWN], tile_x[at + 3u * DOWN]);
}

fn rows_at(at: u32) -> mat4x4<f32> {
    let rows = mat4x4<f32>(tile_w[at], tile_w[at + ACROSS], tile_w[at + 2u * ACROSS], tile_w[at + 3u * ACROSS]);
    return transpose(rows);
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    // group: (RESULTS columns of the result, TOKENS tokens)
    let first_row = group.x * RESULTS;
    let first_token = group.y * TOKENS;
    let across = lane % ACROSS;
    let down = lane / ACROSS;
    // By four tokens. Not an array: that would be in memory.
    var sums_0 = mat4x4<f32>();
    var sums_1 = mat4x4<f32>();
    var sums_2 = mat4x4<f32>();
    var sums_3 = mat4x4<f32>();
    // A product in the test: see shared/flash.wgsl.
    for (var slices = 0u; slices * SLICE < params.packs; slices++) {
        let p = slices * SLICE;
        // Four lanes copy a slice of one row. A token or row after the last one repeats it: it is computed, but not
        // written. A pack after the last one is zero.
        let k = p + lane % SLICE;
        let pack = min(k, params.packs - 1u);
        for (var i = lane / SLICE; i < TOKENS; i += LANES / SLICE) {
            let value = x[min(first_token + i, params.tokens - 1u) * params.packs + pack];
            tile_x[lane % SLICE * STEP_X + i] = select(Wide(0.0), value, k < params.packs);
        }
        for (var i = lane / SLICE; i < COLUMNS; i += LANES / SLICE) {
            let row = i / RESULTS * params.rows + min(first_row + i % RESULTS, params.rows - 1u);
            tile_w[lane % SLICE * STEP_W + i] = weight_at(row, pack);
        }
        workgroupBarrier();
        for (var i = 0u; i < SLICE; i++) {
            let w = rows_at(i * STEP_W + across);
            let at = i * STEP_X + down;
            sums_0 = add4(sums_0, w, tokens_at(at));
            if (ROWS > 4u) {
                sums_1 = add4(sums_1, w, tokens_at(at + 4u * DOWN));
            }
            if (ROWS > 8u) {
                sums_2 = add4(sums_2, w, tokens_at(at + 8u * DOWN));
                sums_3 = add4(sums_3, w, tokens_at(at + 12u * DOWN));
            }
        }
        workgroupBarrier(); // before the next slice overwrites this one
    }

    // Loops, so that the text of the activation is not repeated for each element: some compilers need minutes for that.
    for (var i = 0u; i < ROWS / 4u; i++) {
        var sums = sums_0;
        switch i {
            case 1u: { sums = sums_1; }
            case 2u: { sums = sums_2; }
            case 3u: { sums = sums_3; }
            default: {}
        }
        let token = first_token + 4u * DOWN * i + down;
        for (var t = 0u; t < 4u; t++) {
            for (var j = 0u; j < 4u - 2u * GATE; j++) {
                let row = first_row + across + j * ACROSS;
                write(token + t * DOWN, row, sums[t][j], sums[t][j + 2u * GATE]);
            }
        }
    }
}
