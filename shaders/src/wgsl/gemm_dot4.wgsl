// Many rows times a matrix of codes, in integers: the linear layers of a prefill whose inputs may be rounded to 8 bits.
// round_rows.wgsl rounds them to q, with a scale a per group of the weight. See shared/gemm.wgsl for what follows.
//
//     y = sum over groups of a (scale sum (code - zero) q + minimum sum q)
//
// The sums over a group are exact: an instruction of the GPU, or what stands for it, adds the products of four bytes.
//
// One workgroup computes 8 ROWS tokens and 64 rows of W; with GATE these are 32 rows of the gate and the same 32 of
// `up`. An invocation computes ROWS tokens and four rows of W. Its tokens are DOWN apart and its rows ACROSS apart, so
// that neighbours read the same packs of tokens and write adjacent elements.
//
// Constants: BIAS, RESIDUAL, GATE, 0 or 1; ACTIVATION, see `activate`; ROWS, 4 or 8.

@group(0) @binding(0) var<storage, read_write> x: array<vec4<u32>>; // 16 q each, (tokens, packs / 4)
@group(0) @binding(5) var<storage, read_write> x_groups: array<vec2<u32>>; // bits of a, sum of q: (tokens, groups)

// Bindings of the weight, (rows, words) or with GATE (2 rows, words), and of its scales.
const WEIGHT: u32 = 1u;
const SCALES: u32 = 6u;

const LANES: u32 = 128u;
const ACROSS: u32 = 16u;
const DOWN: u32 = 8u;
const RESULTS: u32 = 4u * ACROSS / (1u + GATE);
const STEPS: u32 = GROUP / 16u; // of 16 columns, per group
const MIDDLE: u32 = BITS / 8u * 128u; // which is subtracted from codes of 8 bits, so that they have a sign
const REST: i32 = i32(MIDDLE) - i32((1u - MINIMUM) << (BITS - 1u)); // MIDDLE - zero

// 16 columns of four rows of W: four bytes with a sign per word.
struct Columns {
    a: vec4<u32>,
    b: vec4<u32>,
    c: vec4<u32>,
    d: vec4<u32>,
}

// Step s of a row of W: code - MIDDLE.
fn columns_at(row: u32, s: u32) -> vec4<u32> {
    let at = row * (params.packs / 4u) + s;
    if (BITS == 8u) {
        return weight[at] ^ vec4<u32>(0x80808080u); // the lowest byte of code - 128
    }
    let words = weight[at / 2u];
    let two = select(words.xy, words.zw, at % 2u == 1u);
    return (two.xxyy >> vec4<u32>(0u, 4u, 0u, 4u)) & vec4<u32>(0x0f0f0f0fu);
}

fn dot16(x: vec4<u32>, w: vec4<u32>) -> i32 {
    return (dot4I8Packed(x.x, w.x) + dot4I8Packed(x.y, w.y)) + (dot4I8Packed(x.z, w.z) + dot4I8Packed(x.w, w.w));
}

// The products of one token with four rows of W.
fn dots(x: vec4<u32>, w: Columns) -> vec4<i32> {
    return vec4<i32>(dot16(x, w.a), dot16(x, w.b), dot16(x, w.c), dot16(x, w.d));
}

fn halves_of(words: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(half_of(words.x), half_of(words.y), half_of(words.z), half_of(words.w));
}

// The products with four rows of W of a group of x, whose scale and sum of q are `of_x`.
fn scaled(sums: vec4<i32>, of_x: vec2<u32>, scale: vec4<f32>, minimum: vec4<f32>) -> vec4<f32> {
    let sum = bitcast<i32>(of_x.y);
    var y = scale * vec4<f32>(sums + REST * sum);
    if (MINIMUM == 1u) {
        y += minimum * f32(sum);
    }
    return bitcast<f32>(of_x.x) * y;
}

// Four tokens, DOWN apart. A token after the last one repeats it: it is computed, but not written.
fn four(first: u32) -> vec4<u32> {
    return min(vec4<u32>(first) + DOWN * vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(params.tokens - 1u));
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    // group: (RESULTS columns of the result, DOWN ROWS tokens)
    let row = group.x * RESULTS + lane % ACROSS;
    let token = group.y * DOWN * ROWS + lane / ACROSS;
    let low = four(token);
    let high = four(token + 4u * DOWN);
    // A row after the last one repeats it, too.
    let last = vec4<u32>(params.rows - 1u);
    var rows = min(vec4<u32>(row) + ACROSS * vec4<u32>(0u, 1u, 2u, 3u), last);
    if (GATE == 1u) {
        rows = vec4<u32>(rows.xy, rows.xy + params.rows);
    }
    let steps = params.packs / 4u;
    let x_low = low * steps;
    let x_high = high * steps;
    let groups = params.packs * 4u / GROUP;

    // By token. Not an array: that would be in memory.
    var sums_0 = mat4x4<f32>();
    var sums_1 = mat4x4<f32>();
    // A product in the test: see shared/flash.wgsl.
    for (var g = 0u; g * STEPS < steps; g++) {
        var part_0 = vec4<i32>();
        var part_1 = vec4<i32>();
        var part_2 = vec4<i32>();
        var part_3 = vec4<i32>();
        var part_4 = vec4<i32>();
        var part_5 = vec4<i32>();
        var part_6 = vec4<i32>();
        var part_7 = vec4<i32>();
        for (var i = 0u; i < STEPS; i++) {
            let s = g * STEPS + i;
            let w = Columns(
                columns_at(rows.x, s),
                columns_at(rows.y, s),
                columns_at(rows.z, s),
                columns_at(rows.w, s),
            );
            part_0 += dots(x[x_low.x + s], w);
            part_1 += dots(x[x_low.y + s], w);
            part_2 += dots(x[x_low.z + s], w);
            part_3 += dots(x[x_low.w + s], w);
            if (ROWS > 4u) {
                part_4 += dots(x[x_high.x + s], w);
                part_5 += dots(x[x_high.y + s], w);
                part_6 += dots(x[x_high.z + s], w);
                part_7 += dots(x[x_high.w + s], w);
            }
        }
        let p = g * (GROUP / 4u);
        let words = vec4<u32>(scale_at(rows.x, p), scale_at(rows.y, p), scale_at(rows.z, p), scale_at(rows.w, p));
        let scale = halves_of(words);
        let minimum = halves_of(words >> vec4<u32>(16u)); // not used without MINIMUM
        sums_0 += mat4x4<f32>(
            scaled(part_0, x_groups[low.x * groups + g], scale, minimum),
            scaled(part_1, x_groups[low.y * groups + g], scale, minimum),
            scaled(part_2, x_groups[low.z * groups + g], scale, minimum),
            scaled(part_3, x_groups[low.w * groups + g], scale, minimum),
        );
        if (ROWS > 4u) {
            sums_1 += mat4x4<f32>(
                scaled(part_4, x_groups[high.x * groups + g], scale, minimum),
                scaled(part_5, x_groups[high.y * groups + g], scale, minimum),
                scaled(part_6, x_groups[high.z * groups + g], scale, minimum),
                scaled(part_7, x_groups[high.w * groups + g], scale, minimum),
            );
        }
    }

    // Loops, so that the text of the activation is not repeated for each element: some compilers need minutes for that.
    for (var i = 0u; i < ROWS / 4u; i++) {
        var sums = sums_0;
        if (i == 1u) {
            sums = sums_1;
        }
        for (var t = 0u; t < 4u; t++) {
            for (var j = 0u; j < 4u - 2u * GATE; j++) {
                write(token + (4u * i + t) * DOWN, row + j * ACROSS, sums[t][j], sums[t][j + 2u * GATE]);
            }
        }
    }
}
