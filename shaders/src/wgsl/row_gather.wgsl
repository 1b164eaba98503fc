// Rows by index, the same for each batch: hidden states and rotary tables.
//
//     picked[b, i] = rows[b, indices[i]]
//
// One invocation copies one pack. For an index out of range the result is zero.

struct Params {
    rows: u32, // per batch
    packs: u32, // per row
    count: u32, // indices
    total: u32, // packs in the result
}

@group(0) @binding(0) var<storage, read_write> rows: array<Pack>; // (batches, rows, packs)
@group(0) @binding(1) var<storage, read_write> indices: array<u32>; // (count,)
@group(0) @binding(2) var<storage, read_write> picked: array<Pack>; // (batches, count, packs)
@group(0) @binding(3) var<uniform> params: Params;

const LANES: u32 = 256u;

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = (group.y * groups.x + group.x) * LANES + lane;
    if (at >= params.total) {
        return;
    }
    let to = at / params.packs; // row of the result
    let row = indices[to % params.count];
    var value = Pack(0.0);
    if (row < params.rows) {
        value = rows[(to / params.count * params.rows + row) * params.packs + at % params.packs];
    }
    picked[at] = value;
}
