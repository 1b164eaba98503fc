// Importance of every visual token: the blocks of text tokens added in order, over their number (paper Sec. 3.3, Eq. 8).
//
//     importance[n] = sum_block partial[block, n] / T
//
// One invocation takes one visual token.

struct Params {
    blocks: u32,
    visual: u32, // N
    text: u32, // T
    unused_0: u32,
}

@group(0) @binding(0) var<storage, read_write> partial: array<f32>; // (blocks, visual)
@group(0) @binding(1) var<storage, read_write> importance: array<f32>; // (visual,)
@group(0) @binding(2) var<uniform> params: Params;

const LANES: u32 = 64u;

@compute @workgroup_size(LANES)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let n = id.x;
    if (n >= params.visual) {
        return;
    }
    var sum = 0.0;
    for (var block = 0u; block < params.blocks; block++) {
        sum += partial[block * params.visual + n];
    }
    importance[n] = sum / f32(params.text);
}
