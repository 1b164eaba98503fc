// A weight whose elements are floats. The body has WEIGHT, SCALES and `params.packs`.
const CODES: u32 = 0u; // 1 where a buffer with scales follows
const PACKS: u32 = 1u; // that are read at once

@group(0) @binding(WEIGHT) var<storage, read_write> weight: array<Pack>; // (rows, packs)

// Pack p of a row.
fn weight_at(row: u32, p: u32) -> Wide {
    return Wide(weight[row * params.packs + p]);
}
