// The products of gemv with a weight of floats. A step of a lane is one pack.

var<private> x_0: Wide;

fn read_x(s: u32) {
    x_0 = x_at(s);
}

fn add(row: u32, s: u32, sum: Wide) -> Wide {
    return sum + x_0 * weight_at(row, s);
}
