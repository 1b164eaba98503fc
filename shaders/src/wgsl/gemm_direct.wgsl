// Many rows times a matrix, without a copy of the operands in workgroup memory: for software GPUs, where such a copy
// costs more than it saves, and for a few rows on other GPUs. See shared/gemm.wgsl.
//
// An invocation computes ROWS tokens and eight rows of W; with GATE these are four rows of the gate and the same four
// of `up`. Without SPLIT, each lane has its own rows of W. With SPLIT, the lanes of a workgroup share eight rows of W,
// and each lane computes every LANES-th pack: neighbours read adjacent packs, and a narrow matrix still fills a GPU.
//
// Constants: BIAS, RESIDUAL, GATE, SPLIT, 0 or 1; ACTIVATION, see `activate`; ROWS, 4, 8 or 16.

const LANES: u32 = 32u;
const RESULTS: u32 = 8u / (1u + GATE); // per set of rows of W
const STEP: u32 = 9u; // not eight packs per lane, so that the lanes use different banks of memory

// The sums of the first four and the last four rows of W, of each of four tokens: with SPLIT by lane, else of this lane.
var<workgroup> parts: array<vec4<f32>, STEP * LANES * SPLIT + 1u - SPLIT>;
var<private> own: array<vec4<f32>, 8>;

fn keep(lane: u32, i: u32, low: vec4<f32>, high: vec4<f32>) {
    if (SPLIT == 1u) {
        parts[STEP * lane + i] = low;
        parts[STEP * lane + i + 1u] = high;
    } else {
        own[i] = low;
        own[i + 1u] = high;
    }
}

fn tokens_at(at: vec4<u32>) -> mat4x4<f32> {
    return mat4x4<f32>(x[at.x], x[at.y], x[at.z], x[at.w]);
}

fn rows_at(rows: vec4<u32>, p: u32) -> mat4x4<f32> {
    return transpose(mat4x4<f32>(weight_at(rows.x, p), weight_at(rows.y, p), weight_at(rows.z, p), weight_at(rows.w, p)));
}

// Where four tokens start. A token or row after the last one repeats it: it is computed, but not written.
fn start(first: u32) -> vec4<u32> {
    return min(vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(params.tokens - 1u)) * params.packs;
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    // group: (sets of RESULTS columns of the result: one with SPLIT, else LANES; ROWS tokens)
    let row = select(group.x * LANES + lane, group.x, SPLIT == 1u) * RESULTS;
    let token = group.y * ROWS;
    let last = vec4<u32>(params.rows - 1u);
    let four = vec4<u32>(row) + vec4<u32>(0u, 1u, 2u, 3u);
    let w_low = min(four, last);
    let w_high = select(min(four + 4u, last), min(four, last) + params.rows, GATE == 1u);
    let x_0 = start(token);
    let x_1 = start(token + 4u);
    let x_2 = start(token + 8u);
    let x_3 = start(token + 12u);

    // By four tokens: the first four and the last four rows of W. Not an array: that would be in memory.
    var low_0 = mat4x4<f32>();
    var high_0 = mat4x4<f32>();
    var low_1 = mat4x4<f32>();
    var high_1 = mat4x4<f32>();
    var low_2 = mat4x4<f32>();
    var high_2 = mat4x4<f32>();
    var low_3 = mat4x4<f32>();
    var high_3 = mat4x4<f32>();
    let end = select(0u, params.packs, row < params.rows);
    for (var p = SPLIT * lane; p < end; p += select(1u, LANES, SPLIT == 1u)) {
        let low = rows_at(w_low, p);
        let high = rows_at(w_high, p);
        var tokens = tokens_at(x_0 + p);
        low_0 = add4(low_0, low, tokens);
        high_0 = add4(high_0, high, tokens);
        if (ROWS > 4u) {
            tokens = tokens_at(x_1 + p);
            low_1 = add4(low_1, low, tokens);
            high_1 = add4(high_1, high, tokens);
        }
        if (ROWS > 8u) {
            tokens = tokens_at(x_2 + p);
            low_2 = add4(low_2, low, tokens);
            high_2 = add4(high_2, high, tokens);
            tokens = tokens_at(x_3 + p);
            low_3 = add4(low_3, low, tokens);
            high_3 = add4(high_3, high, tokens);
        }
    }

    for (var i = 0u; i < ROWS / 4u; i++) {
        var low = low_0;
        var high = high_0;
        switch i {
            case 1u: {
                low = low_1;
                high = high_1;
            }
            case 2u: {
                low = low_2;
                high = high_2;
            }
            case 3u: {
                low = low_3;
                high = high_3;
            }
            default: {}
        }
        keep(lane, 0u, low[0], high[0]);
        keep(lane, 2u, low[1], high[1]);
        keep(lane, 4u, low[2], high[2]);
        keep(lane, 6u, low[3], high[3]);
        if (SPLIT == 1u) {
            workgroupBarrier();
        }
        // With SPLIT, the first four lanes add the sums of all lanes, in a fixed order. Else a lane reads its own sums:
        // the loop keeps the text of the activation short.
        for (var t = SPLIT * lane; t < 4u; t += select(1u, LANES, SPLIT == 1u)) {
            var y = vec4<f32>(0.0);
            var z = vec4<f32>(0.0);
            if (SPLIT == 1u) {
                for (var other = 0u; other < LANES; other++) {
                    y += parts[STEP * other + 2u * t];
                    z += parts[STEP * other + 2u * t + 1u];
                }
            } else {
                y = own[2u * t];
                z = own[2u * t + 1u];
            }
            for (var j = 0u; j < 4u; j++) {
                write(token + 4u * i + t, row + j, y[j], z[j]);
                if (GATE == 0u) {
                    write(token + 4u * i + t, row + 4u + j, z[j], 0.0);
                }
            }
        }
        if (SPLIT == 1u) {
            workgroupBarrier(); // before the next sums overwrite these
        }
    }
}
