// The visual tokens in scanline order: the tokens at the chosen scales, with a newline after each row that has a token.
//
// One workgroup copies the tokens of one region in one row of the map, or the newline of this row. It also writes the
// patches of each token, (y0, x0, y1, x1). Tokens of one patch come from the map.

struct Params {
    height: u32, // of the map, in patches
    width: u32,
    window: u32, // side of a region, in patches
    across: u32, // regions per row
    scales: u32,
    packs: u32, // of channels
    tokens: u32, // in the result
    pooled_rows: u32,
    newlines: u32, // 1: after each row that has a token; 0: none
    unused_0: u32,
    unused_1: u32,
    unused_2: u32,
    // kernel rows (0: the region is dropped), kernel columns, first row of `pooled` or FROM_MAP, tokens per row of the
    // region
    scale: array<vec4<u32>, 16>,
}

@group(0) @binding(0) var<storage, read_write> map: array<Pack>; // (height, width, packs)
@group(0) @binding(1) var<storage, read_write> pooled: array<Pack>; // (pooled_rows, packs), from region_pool
@group(0) @binding(2) var<storage, read_write> newline: array<Pack>; // (packs,)
@group(0) @binding(3) var<storage, read_write> choice: array<u32>; // (regions,)
@group(0) @binding(4) var<storage, read_write> starts: array<u32>; // (height + 1,), from compact_rows
@group(0) @binding(5) var<storage, read_write> tokens: array<Pack>; // (tokens, packs)
@group(0) @binding(6) var<storage, read_write> boxes: array<u32>; // (tokens, 4)
@group(0) @binding(7) var<uniform> params: Params;

const LANES: u32 = 64u;
const FROM_MAP: u32 = 0xffffffffu;

// The number of tokens of the region in column rx that start in row y.
fn tokens_of(y: u32, rx: u32) -> u32 {
    let chosen = choice[y / params.window * params.across + rx];
    if (chosen >= params.scales || chosen >= 16u) {
        return 0u;
    }
    let scale = params.scale[chosen];
    if (scale.x == 0u || y % params.window % scale.x != 0u) {
        return 0u;
    }
    return (min(params.window, params.width - rx * params.window) + scale.y - 1u) / scale.y;
}

fn write_box(token: u32, y0: u32, x0: u32, y1: u32, x1: u32) {
    boxes[token * 4u] = y0;
    boxes[token * 4u + 1u] = x0;
    boxes[token * 4u + 2u] = y1;
    boxes[token * 4u + 3u] = x1;
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    // group: (column of the region, or one more for the newline; row of the map)
    let rx = group.x;
    let y = group.y;
    if (rx > params.across || y >= params.height) {
        return;
    }
    if (rx == params.across) {
        let token = starts[y + 1u] - 1u; // just before the first token of the next row
        if (params.newlines == 0u || starts[y + 1u] == starts[y] || token >= params.tokens) {
            return;
        }
        if (lane == 0u) {
            write_box(token, y, params.width, y + 1u, params.width);
        }
        for (var i = lane; i < params.packs; i += LANES) {
            tokens[token * params.packs + i] = newline[i];
        }
        return;
    }

    let count = tokens_of(y, rx);
    if (count == 0u) {
        return;
    }
    var first = starts[y];
    for (var left = 0u; left < rx; left++) {
        first += tokens_of(y, left);
    }
    let region = y / params.window * params.across + rx;
    let scale = params.scale[choice[region]];
    let row = y % params.window / scale.x;
    let bottom = min(y / params.window * params.window + params.window, params.height);
    let right = min(rx * params.window + params.window, params.width);
    for (var column = 0u; column < count; column++) {
        let token = first + column;
        if (token >= params.tokens) {
            return;
        }
        let x = rx * params.window + column * scale.y;
        if (lane == 0u) {
            write_box(token, y, x, min(y + scale.x, bottom), min(x + scale.y, right));
        }
        if (scale.z == FROM_MAP) {
            for (var i = lane; i < params.packs; i += LANES) {
                tokens[token * params.packs + i] = map[(y * params.width + x) * params.packs + i];
            }
        } else {
            let rows = (params.window + scale.x - 1u) / scale.x; // of tokens per region
            let source = scale.z + (region * rows + row) * scale.w + column;
            if (source < params.pooled_rows) {
                for (var i = lane; i < params.packs; i += LANES) {
                    tokens[token * params.packs + i] = pooled[source * params.packs + i];
                }
            }
        }
    }
}
