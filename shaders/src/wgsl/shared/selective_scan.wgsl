// Parameters and one step of the selective scan (selective_scan_ends, selective_scan_carry, selective_scan).
//
//     h = exp(delta a) h + drive; the drive is delta b u, with ZOH (exp(delta a) - 1) / a b u
//
// exp(x) is a power of two and a rest, which are never added. So a small x changes h by the right amount, and with ZOH
// the difference from 1 has all its bits. The exponential of a device has an error of 1e-7 or more near 1, which would
// add up over thousands of steps with a small delta.

struct Params {
    length: u32, // L
    channels: u32, // E
    states: u32, // S
    chunk: u32, // steps per chunk
}

const BLOCK: u32 = 4u * PACKS; // states that an invocation computes at once

struct Power {
    whole: vec4<f32>, // a power of two
    rest: vec4<f32>,
}

// exp(x) = whole + rest, for x <= 0. At least 2^-126.
fn power(x: vec4<f32>) -> Power {
    let binary = max(x * 1.44269504, vec4<f32>(-126.0));
    let exponent = round(binary);
    let part = binary - exponent;
    // (2^part - 1) / part for |part| <= 1/2: a minimax polynomial, relative error of 2^part 2e-9.
    var quotient = vec4<f32>(1.534732e-4);
    quotient = fma(quotient, part, vec4<f32>(1.3400154e-3));
    quotient = fma(quotient, part, vec4<f32>(9.618484e-3));
    quotient = fma(quotient, part, vec4<f32>(5.550328e-2));
    quotient = fma(quotient, part, vec4<f32>(2.4022646e-1));
    quotient = fma(quotient, part, vec4<f32>(6.931472e-1));
    let whole = bitcast<vec4<f32>>(vec4<u32>(vec4<i32>(exponent) + vec4<i32>(127)) << vec4<u32>(23u));
    return Power(whole, whole * (part * quotient));
}

// The states after `passed` of decay, plus `drive`.
fn decayed(h: vec4<f32>, passed: Power, drive: vec4<f32>) -> vec4<f32> {
    return fma(passed.whole, h, fma(passed.rest, h, drive));
}

// The states after one step.
fn advance(h: vec4<f32>, rate: vec4<f32>, time: f32, input: vec4<f32>) -> vec4<f32> {
    let passed = power(time * rate);
    if (ZOH == 1u) {
        return decayed(h, passed, ((passed.whole - 1.0) + passed.rest) / rate * input);
    }
    return decayed(h, passed, time * input);
}

// Four values of `a`, from state s of a channel on. Beyond the last state -1, so that nothing is divided by 0.
fn rates(channel: u32, s: u32) -> vec4<f32> {
    var four = vec4<f32>(-1.0);
    for (var j = 0u; j < 4u; j++) {
        if (s + j < params.states) {
            four[j] = a[channel * params.states + s + j];
        }
    }
    return four;
}

// Where `ends` has state s of a channel at the end of a chunk. After the last state is the sum of delta.
fn end_of(chunk: u32, s: u32, channel: u32) -> u32 {
    return (chunk * (params.states + 1u) + s) * params.channels + channel;
}

// Four states at the end of a chunk, from state s on; 0 beyond the last state.
fn states_at(chunk: u32, s: u32, channel: u32) -> vec4<f32> {
    var four = vec4<f32>(0.0);
    for (var j = 0u; j < 4u; j++) {
        if (s + j < params.states) {
            four[j] = ends[end_of(chunk, s + j, channel)];
        }
    }
    return four;
}

fn write_states(chunk: u32, s: u32, channel: u32, four: vec4<f32>) {
    for (var j = 0u; j < 4u; j++) {
        if (s + j < params.states) {
            ends[end_of(chunk, s + j, channel)] = four[j];
        }
    }
}
