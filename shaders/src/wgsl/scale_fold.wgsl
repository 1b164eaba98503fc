// The product of the weights of the selector and the thumbnail (paper Sec. 3.2, Eq. 1).
//
//     fold[s, c] = sum_p weight[s, p] * thumbnail[p, c] / sqrt(C)
//
// FC(x . X_g) = x . (FC X_g), so the products of regions and thumbnail, (M, P*P), are never stored. One workgroup
// computes eight packs of channels at one scale. Eight slices of the context tokens are summed in a fixed order.

struct Params {
    context: u32, // P * P
    packs: u32, // of channels
    factor: f32, // 1 / sqrt(C)
    unused_0: u32,
}

@group(0) @binding(0) var<storage, read_write> thumbnail: array<Pack>; // (context, packs)
@group(0) @binding(1) var<storage, read_write> weight: array<Elem>; // (scales, context)
@group(0) @binding(2) var<storage, read_write> fold: array<Wide>; // (scales, packs)
@group(0) @binding(3) var<uniform> params: Params;

const LANES: u32 = 64u;
const COLUMNS: u32 = 8u;

var<workgroup> parts: array<Wide, LANES>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    // group: (eight packs, scale)
    let pack = group.x * COLUMNS + lane % COLUMNS;
    var sum = Wide(0.0);
    if (pack < params.packs) {
        for (var p = lane / COLUMNS; p < params.context; p += LANES / COLUMNS) {
            sum += f32(weight[group.y * params.context + p]) * Wide(thumbnail[p * params.packs + pack]);
        }
    }
    parts[lane] = sum;
    workgroupBarrier();
    if (lane < COLUMNS && pack < params.packs) {
        for (var i = lane + COLUMNS; i < LANES; i += COLUMNS) {
            sum += parts[i];
        }
        fold[group.y * params.packs + pack] = sum * params.factor;
    }
}
