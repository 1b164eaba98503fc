// The products of gemv with a weight of codes. A step of a lane is UNIT words of each row, 1 or 4, all in one group: so the
// codes are multiplied by x first, and their sum by the scale.

// x of a step by pack, and the sum of its packs.
var<private> x_0: Wide;
var<private> x_1: Wide;
var<private> x_2: Wide;
var<private> x_3: Wide;
var<private> x_4: Wide;
var<private> x_5: Wide;
var<private> x_6: Wide;
var<private> x_7: Wide;
var<private> x_sum: Wide;

fn read_x(s: u32) {
    let p = s * STEP;
    x_0 = x_at(p);
    x_sum = x_0;
    if (STEP > 1u) {
        x_1 = x_at(p + 1u);
        x_sum += x_1;
    }
    if (STEP > 2u) {
        x_2 = x_at(p + 2u);
        x_3 = x_at(p + 3u);
        x_sum += x_2 + x_3;
    }
    if (STEP > 4u) {
        x_4 = x_at(p + 4u);
        x_5 = x_at(p + 5u);
        x_6 = x_at(p + 6u);
        x_7 = x_at(p + 7u);
        x_sum += (x_4 + x_5) + (x_6 + x_7);
    }
}

// Adds the products of a word: of one pack, or with 4 bits of two.
fn products(word: u32, low: Wide, high: Wide, sum: Wide) -> Wide {
    let more = fma(codes_of(word, 0u), low, sum);
    if (BITS == 8u) {
        return more;
    }
    return fma(codes_of(word, 1u), high, more);
}

fn add(row: u32, s: u32, sum: Wide) -> Wide {
    let at = row * (params.packs / STEP) + s;
    // What ZERO adds is the same for all rows.
    var dot = select(-ZERO * x_sum, Wide(0.0), MINIMUM == 1u);
    if (UNIT == 1u) {
        dot = products(word_at(at), x_0, x_1, dot);
    } else if (BITS == 8u) {
        let words = weight[at];
        dot = products(words.x, x_0, x_0, dot);
        dot = products(words.y, x_1, x_1, dot);
        dot = products(words.z, x_2, x_2, dot);
        dot = products(words.w, x_3, x_3, dot);
    } else {
        let words = weight[at];
        dot = products(words.x, x_0, x_1, dot);
        dot = products(words.y, x_2, x_3, dot);
        dot = products(words.z, x_4, x_5, dot);
        dot = products(words.w, x_6, x_7, dot);
    }
    let scale = scale_at(row, s * STEP);
    let rest = select(sum, fma(Wide(half_of(scale >> 16u)), x_sum, sum), MINIMUM == 1u);
    return fma(Wide(half_of(scale)), dot, rest);
}
