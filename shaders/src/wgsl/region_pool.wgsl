// Max pooling of each region of a map at all scales in one pass: `DS[s](X_i)` (paper Sec. 3.2).
//
//     pooled[first_s + region * tokens_s + token] = max over the patches of the token
//
// One workgroup copies CHUNK packs of channels of one region to workgroup memory, so that each element of the map is
// read once. Then it writes the tokens at each scale. Patches outside the map are LOWEST and never win; a token without
// a patch in the map is LOWEST.
//
// Constants: WINDOW, side of a region in patches; CHUNK, such that WINDOW * WINDOW * CHUNK packs are at most 16 KiB.

struct Params {
    height: u32, // of the map, in patches
    width: u32,
    packs: u32, // of channels
    across: u32, // regions per row
    scales: u32,
    rows: u32, // of `pooled`
    unused_0: u32,
    unused_1: u32,
    scale: array<vec4<u32>, 16>, // kernel rows, kernel columns, first row of `pooled`, tokens per row of the region
}

@group(0) @binding(0) var<storage, read_write> map: array<Pack>; // (height, width, packs)
@group(0) @binding(1) var<storage, read_write> pooled: array<Pack>; // (rows, packs)
@group(0) @binding(2) var<uniform> params: Params;

const LANES: u32 = 64u;

var<workgroup> tile: array<Pack, WINDOW * WINDOW * CHUNK>; // (WINDOW, WINDOW, CHUNK)

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    // group: (chunk, column of the region, row of the region)
    let first = group.x * CHUNK;
    for (var i = lane; i < WINDOW * WINDOW * CHUNK; i += LANES) {
        let place = i / CHUNK;
        let y = group.z * WINDOW + place / WINDOW;
        let x = group.y * WINDOW + place % WINDOW;
        let pack = first + i % CHUNK;
        var value = Pack(LOWEST);
        if (y < params.height && x < params.width && pack < params.packs) {
            value = map[(y * params.width + x) * params.packs + pack];
        }
        tile[i] = value;
    }
    workgroupBarrier();

    let region = group.z * params.across + group.y;
    for (var s = 0u; s < params.scales; s++) {
        let scale = params.scale[s];
        let tokens = (WINDOW + scale.x - 1u) / scale.x * scale.w;
        for (var i = lane; i < tokens * CHUNK; i += LANES) {
            let token = i / CHUNK;
            let top = token / scale.w * scale.x;
            let left = token % scale.w * scale.y;
            var best = Pack(LOWEST);
            for (var y = top; y < min(top + scale.x, WINDOW); y++) {
                for (var x = left; x < min(left + scale.y, WINDOW); x++) {
                    best = max(best, tile[(y * WINDOW + x) * CHUNK + i % CHUNK]);
                }
            }
            let row = scale.z + region * tokens + token;
            let pack = first + i % CHUNK;
            if (row < params.rows && pack < params.packs) {
                pooled[row * params.packs + pack] = best;
            }
        }
    }
}
