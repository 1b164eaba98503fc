// The index of the first visual token of each row of the map (paper Sec. 3.2; scanline order is our choice).
//
//     starts[y]  tokens and newlines before row y; starts[height]: the total
//     counts     the total; the newlines in it, one for each row that has a token; the regions without a valid choice
//
// One workgroup: each lane counts the tokens of rows, and a prefix sum over blocks of LANES rows adds them.

struct Params {
    height: u32, // of the map, in patches
    width: u32,
    window: u32, // side of a region, in patches
    across: u32, // regions per row
    scales: u32,
    packs: u32,
    tokens: u32,
    pooled_rows: u32,
    newlines: u32, // 1: after each row that has a token; 0: none
    unused_0: u32,
    unused_1: u32,
    unused_2: u32,
    scale: array<vec4<u32>, 16>, // kernel rows (0: the region is dropped), kernel columns, -, -
}

@group(0) @binding(0) var<storage, read_write> choice: array<u32>; // (regions,)
@group(0) @binding(1) var<storage, read_write> starts: array<u32>; // (height + 1,)
@group(0) @binding(2) var<storage, read_write> counts: array<u32>; // (3,)
@group(0) @binding(3) var<uniform> params: Params;

var<workgroup> sums: array<u32, LANES>;
var<workgroup> newlines: array<u32, LANES>;
var<workgroup> bad: array<u32, LANES>;

@compute @workgroup_size(LANES)
fn main(@builtin(local_invocation_index) lane: u32) {
    newlines[lane] = 0u;
    bad[lane] = 0u;
    var before = 0u; // tokens and newlines of the blocks of rows before this one
    for (var block = 0u; block < params.height; block += LANES) {
        let y = block + lane;
        var count = 0u;
        if (y < params.height) {
            count = tokens_in_row(y, lane);
            if (count > 0u) {
                newlines[lane] += params.newlines;
                count += params.newlines;
            }
        }
        sums[lane] = count;
        workgroupBarrier();
        for (var reach = 1u; reach < LANES; reach *= 2u) {
            var left = 0u;
            if (lane >= reach) {
                left = sums[lane - reach];
            }
            workgroupBarrier();
            sums[lane] += left;
            workgroupBarrier();
        }
        if (y < params.height) {
            starts[y] = before + sums[lane] - count;
        }
        before += sums[LANES - 1u];
        workgroupBarrier(); // before the next block overwrites the sums
    }
    workgroupBarrier();
    if (lane == 0u) {
        var rows = 0u;
        var missing = 0u;
        for (var i = 0u; i < LANES; i++) {
            rows += newlines[i];
            missing += bad[i];
        }
        starts[params.height] = before;
        counts[0] = before;
        counts[1] = rows;
        counts[2] = missing;
    }
}

// The tokens of row y: from all regions that have a row of tokens starting in it.
fn tokens_in_row(y: u32, lane: u32) -> u32 {
    let inside = y % params.window;
    let first = y / params.window * params.across;
    var count = 0u;
    for (var rx = 0u; rx < params.across; rx++) {
        let chosen = choice[first + rx];
        if (chosen >= params.scales || chosen >= 16u) {
            bad[lane] += select(0u, 1u, inside == 0u); // once per region
            continue;
        }
        let scale = params.scale[chosen];
        if (scale.x != 0u && inside % scale.x == 0u) {
            let columns = min(params.window, params.width - rx * params.window);
            count += (columns + scale.y - 1u) / scale.y;
        }
    }
    return count;
}
