// Which visual tokens are kept (paper Sec. 3.3, Eq. 9): in the order of falling score, equal scores by rising index,
// the fewest tokens whose share of the sum is above gamma, or a given number of tokens.
//
//     count[0]      K, or 0 where a score is not finite
//     kept[0 .. K]  the K indices, rising
//
// There is no sort. A radix select over the bits of the scores, eight bits per pass, finds the last score that is kept.
// Each pass counts scores and sums their weights in 256 bins, and goes down from the highest bin to the bin in which
// the budget is reached. Equal scores are selected by index.
//
// Weights are integers of 48 bits, scaled so that the largest score uses the highest bit. Integer sums do not depend on
// the order, so each run has the same bits; the error of a share is below 2^-31. One workgroup, at most 65536 scores.

struct Params {
    count: u32, // N, 1 to 65536
    by_count: u32, // 1: keep `keep` tokens; 0: use gamma
    keep: u32,
    gamma: u32, // times 2^32
}

@group(0) @binding(0) var<storage, read_write> scores: array<u32>; // (N,), the bits of f32
@group(0) @binding(1) var<storage, read_write> kept: array<u32>; // (N,)
@group(0) @binding(2) var<storage, read_write> count: array<u32>; // (1,)
@group(0) @binding(3) var<uniform> params: Params;

const LANES: u32 = 256u; // one per bin

var<workgroup> largest: atomic<u32>; // exponent
var<workgroup> bin_count: array<atomic<u32>, LANES>;
// The weights of the bins as 16-bit digits, lowest first: sums of 65536 digits fit in 32 bits.
var<workgroup> bin_low: array<atomic<u32>, LANES>;
var<workgroup> bin_middle: array<atomic<u32>, LANES>;
var<workgroup> bin_high: array<atomic<u32>, LANES>;
// Groups of sixteen bins, so that the search takes at most 32 steps, not 256.
var<workgroup> group_count: array<u32, 16>;
var<workgroup> group_weight: array<vec2<u32>, 16>;
var<workgroup> tally: array<u32, LANES>;
// Results of lane 0 for all lanes.
var<workgroup> last: u32; // the key of the last score that is kept: the digits found so far
var<workgroup> above: u32; // scores above the chosen bin
var<workgroup> above_weight: vec2<u32>; // their weight: low word, high word
var<workgroup> limit: vec2<u32>; // the weight that the kept scores must exceed
var<workgroup> ties: u32; // how many scores equal to the last one are kept
var<workgroup> everything: u32; // 1: the budget is never reached, all are kept

// Integers of 64 bits as (low word, high word).
fn add(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let low = a.x + b.x;
    return vec2<u32>(low, a.y + b.y + select(0u, 1u, low < a.x));
}

fn exceeds(a: vec2<u32>, b: vec2<u32>) -> bool {
    return a.y > b.y || (a.y == b.y && a.x > b.x);
}

fn multiply(a: u32, b: u32) -> vec2<u32> {
    let low = (a & 0xffffu) * (b & 0xffffu);
    let cross = (a >> 16u) * (b & 0xffffu) + (low >> 16u);
    let other = (a & 0xffffu) * (b >> 16u) + (cross & 0xffffu);
    return vec2<u32>((other << 16u) | (low & 0xffffu), (a >> 16u) * (b >> 16u) + (cross >> 16u) + (other >> 16u));
}

// low + middle * 2^16 + high * 2^32
fn from_digits(low: u32, middle: u32, high: u32) -> vec2<u32> {
    return add(add(vec2<u32>(low, 0u), vec2<u32>(middle << 16u, middle >> 16u)), vec2<u32>(0u, high));
}

// An integer with the same order as the score.
fn key_of(bits: u32) -> u32 {
    return select(bits | 0x80000000u, ~bits, (bits >> 31u) == 1u);
}

fn bits_of(key: u32) -> u32 {
    return select(~key, key & 0x7fffffffu, (key >> 31u) == 1u);
}

// The weight of a score as 16-bit digits, lowest first; 0 for a negative score.
fn weight_of(bits: u32, top: u32) -> vec3<u32> {
    if ((bits >> 31u) == 1u) {
        return vec3<u32>(0u);
    }
    let exponent = (bits >> 23u) & 0xffu;
    let fraction = (bits & 0x7fffffu) | select(0u, 0x800000u, exponent != 0u);
    let down = top - max(exponent, 1u);
    var high = 0u; // 24 bits each
    var low = 0u;
    if (down < 24u) {
        high = fraction >> down;
        low = (fraction << (24u - down)) & 0xffffffu;
    } else if (down < 48u) {
        low = fraction >> (down - 24u);
    }
    return vec3<u32>(low & 0xffffu, (low >> 16u) | ((high & 0xffu) << 8u), high >> 8u);
}

fn reached(scores_so_far: u32, weight: vec2<u32>) -> bool {
    if (params.by_count == 1u) {
        return scores_so_far >= params.keep;
    }
    return exceeds(weight, limit);
}

fn bin_weight(bin: u32) -> vec2<u32> {
    return from_digits(atomicLoad(&bin_low[bin]), atomicLoad(&bin_middle[bin]), atomicLoad(&bin_high[bin]));
}

// Finds the highest bin in which the budget is reached. Only lane 0 runs it.
fn choose_bin(pass_index: u32) {
    if (pass_index == 0u) {
        var sum = vec2<u32>(0u);
        for (var i = 0u; i < 16u; i++) {
            sum = add(sum, group_weight[i]);
        }
        // floor(sum * gamma): an integer exceeds the product exactly where it exceeds this.
        limit = add(vec2<u32>(multiply(sum.x, params.gamma).y, 0u), multiply(sum.y, params.gamma));
    }
    var before = above;
    var weight = above_weight;
    var place = 16u;
    loop {
        if (place == 0u) {
            everything = 1u;
            return;
        }
        place -= 1u;
        let next = before + group_count[place];
        let next_weight = add(weight, group_weight[place]);
        if (group_count[place] > 0u && reached(next, next_weight)) {
            break;
        }
        before = next;
        weight = next_weight;
    }
    for (var down = 0u; down < 16u; down++) {
        let bin = place * 16u + 15u - down;
        let in_bin = atomicLoad(&bin_count[bin]);
        let next = before + in_bin;
        let next_weight = add(weight, bin_weight(bin));
        if (in_bin > 0u && reached(next, next_weight)) {
            last = (last << 8u) | bin;
            above = before;
            above_weight = weight;
            return;
        }
        before = next;
        weight = next_weight;
    }
}

// How many of the scores equal to the last one are kept: the fewest that reach the budget.
fn choose_ties(top: u32) {
    let equal = atomicLoad(&bin_count[last & 0xffu]);
    let each = weight_of(bits_of(last), top);
    var low = 1u;
    var high = max(equal, 1u);
    while (low < high) {
        let middle = (low + high) / 2u;
        let weight = from_digits(each.x * middle, each.y * middle, each.z * middle);
        if (reached(above + middle, add(above_weight, weight))) {
            high = middle;
        } else {
            low = middle + 1u;
        }
    }
    ties = low;
}

// The sum of the values of all lanes before this one. All lanes must call it.
fn sum_before(lane: u32, value: u32) -> u32 {
    tally[lane] = value;
    workgroupBarrier();
    if (lane < 16u) {
        var sum = 0u;
        for (var i = lane * 16u; i < lane * 16u + 16u; i++) {
            sum += tally[i];
        }
        group_count[lane] = sum;
    }
    workgroupBarrier();
    var before = 0u;
    for (var i = 0u; i < lane / 16u; i++) {
        before += group_count[i];
    }
    for (var i = lane / 16u * 16u; i < lane; i++) {
        before += tally[i];
    }
    workgroupBarrier(); // before the next use overwrites them
    return before;
}

@compute @workgroup_size(LANES)
fn main(@builtin(local_invocation_index) lane: u32) {
    if (lane == 0u) {
        atomicStore(&largest, 1u);
        last = 0u;
        above = 0u;
        above_weight = vec2<u32>(0u);
        limit = vec2<u32>(0u);
        ties = 0u;
        everything = 0u;
    }
    workgroupBarrier();
    var exponent = 1u;
    for (var i = lane; i < params.count; i += LANES) {
        exponent = max(exponent, (scores[i] >> 23u) & 0xffu);
    }
    atomicMax(&largest, exponent);
    workgroupBarrier();
    let top = atomicLoad(&largest); // 255: NaN or infinity

    for (var pass_index = 0u; pass_index < 4u; pass_index++) {
        let shift = 24u - 8u * pass_index;
        let chosen = last;
        atomicStore(&bin_count[lane], 0u);
        atomicStore(&bin_low[lane], 0u);
        atomicStore(&bin_middle[lane], 0u);
        atomicStore(&bin_high[lane], 0u);
        workgroupBarrier();
        for (var i = lane; i < params.count; i += LANES) {
            let bits = scores[i];
            let key = key_of(bits);
            // The first pass has no chosen digits; a shift by 32 bits would be undefined.
            if (pass_index == 0u || (key >> ((shift + 8u) & 31u)) == chosen) {
                let bin = (key >> shift) & 0xffu;
                atomicAdd(&bin_count[bin], 1u);
                if (params.by_count == 0u) {
                    let weight = weight_of(bits, top);
                    atomicAdd(&bin_low[bin], weight.x);
                    atomicAdd(&bin_middle[bin], weight.y);
                    atomicAdd(&bin_high[bin], weight.z);
                }
            }
        }
        workgroupBarrier();
        if (lane < 16u) {
            var in_group = 0u;
            var weight = vec2<u32>(0u);
            for (var bin = lane * 16u; bin < lane * 16u + 16u; bin++) {
                in_group += atomicLoad(&bin_count[bin]);
                weight = add(weight, bin_weight(bin));
            }
            group_count[lane] = in_group;
            group_weight[lane] = weight;
        }
        workgroupBarrier();
        if (lane == 0u) {
            choose_bin(pass_index);
            if (pass_index == 3u) {
                choose_ties(top);
            }
        }
        workgroupBarrier();
    }

    // Output in rising order: each lane processes a range of indices. Two prefix sums give the ties that are kept and
    // the positions of all.
    let stretch = (params.count + LANES - 1u) / LANES;
    let start = min(lane * stretch, params.count);
    let end = min(start + stretch, params.count);
    let all = everything == 1u;
    var equal = 0u;
    var greater = 0u;
    for (var i = start; i < end; i++) {
        let key = key_of(scores[i]);
        equal += select(0u, 1u, key == last);
        greater += select(0u, 1u, key > last);
    }
    var ties_before = sum_before(lane, equal);
    var staying = greater + min(equal, ties - min(ties, ties_before));
    if (all) {
        staying = end - start;
    }
    var to = sum_before(lane, staying);
    for (var i = start; i < end; i++) {
        let key = key_of(scores[i]);
        var stays = all || key > last;
        if (key == last) {
            stays = stays || ties_before < ties;
            ties_before += 1u;
        }
        if (stays && to < params.count) {
            kept[to] = i;
            to += 1u;
        }
    }
    if (lane == LANES - 1u) {
        count[0] = select(to, 0u, top == 255u);
    }
}
