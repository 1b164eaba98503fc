// Rows of the embedding table by token id. The table may be cut into parts; each part has its own launch.
//
//     out[t] = factor * table[ids[t] - first]
//
// One invocation copies one pack. Tokens whose row is in another part are not written.

struct Params {
    tokens: u32,
    packs: u32, // per row
    first: u32, // row of the table with which this part starts
    rows: u32, // of this part
    factor: f32,
    unused_0: u32,
    unused_1: u32,
    unused_2: u32,
}

@group(0) @binding(0) var<storage, read_write> ids: array<u32>; // (tokens,), or the state: its first word is an id
@group(0) @binding(2) var<storage, read_write> out: array<Wide>; // (tokens, packs)
@group(0) @binding(SCALES + CODES) var<uniform> params: Params;

// Bindings of the table, (rows, packs), and of its scales.
const WEIGHT: u32 = 1u;
const SCALES: u32 = 3u;

const LANES: u32 = 64u;

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = (group.y * groups.x + group.x) * LANES + lane;
    let t = at / params.packs;
    if (t >= params.tokens) {
        return;
    }
    let row = ids[t] - params.first; // an id below `first` wraps to a number above `rows`
    if (row < params.rows) {
        out[at] = params.factor * weight_at(row, at % params.packs);
    }
}
