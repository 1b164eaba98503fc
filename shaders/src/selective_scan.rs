//! The selective scan of a state space model: S6 of Mamba (arXiv 2312.00752).

use bytemuck::{Pod, Zeroable};

use crate::kernel::{Kernel, Variant};

/// How the input of a continuous system becomes that of one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Discretisation {
    /// `delta b u`, as in Mamba's code.
    #[default]
    Euler,
    /// Zero-order hold, exact for an input that is constant during the step: `(exp(delta a) - 1) / a b u`.
    Zoh,
}

/// `h[t] = exp(delta[t] a) h[t - 1] + drive[t]` for each channel and state, from `h = 0`; the result is
/// `y[t] = sum over states of c[t] h[t], + d u[t]`. The [`Discretisation`] gives the drive.
///
/// # Shapes
/// `u` and `delta` (L, E), `delta` not negative; `a` (E, S), negative; `b` and `c` (L, S); `d` (E,) -> (L, E).
pub fn selective_scan(
    u: &[f64],
    delta: &[f64],
    a: &[f64],
    b: &[f64],
    c: &[f64],
    d: &[f64],
    discretisation: Discretisation,
) -> Vec<f64> {
    let channels = d.len();
    let states = a.len() / channels;
    let mut h = vec![0.0; a.len()];
    let mut out = Vec::with_capacity(u.len());
    for (i, (u, delta)) in u.iter().zip(delta).enumerate() {
        let (t, e) = (i / channels, i % channels);
        let mut y = d[e] * u;
        for s in 0..states {
            let (a, h) = (a[e * states + s], &mut h[e * states + s]);
            let hold = match discretisation {
                Discretisation::Euler => *delta,
                Discretisation::Zoh => (delta * a).exp_m1() / a,
            };
            *h = (delta * a).exp() * *h + hold * b[t * states + s] * u;
            y += c[t * states + s] * *h;
        }
        out.push(y);
    }
    out
}

/// Steps per chunk that fit in workgroup memory at once: a chunk is a multiple of it.
const TILE: usize = 32;
/// Fewest steps per chunk on a real GPU.
const CHUNK: usize = 64;
/// Most chunks on a real GPU: it limits the memory for their states, and the steps of the second pass.
const CHUNKS: usize = 64;

/// Steps per chunk. A software GPU has one chunk, so that the third pass alone runs: it has few threads, and the first
/// pass would double the work.
pub fn scan_chunk(length: usize, software: bool) -> usize {
    if software { length.next_multiple_of(TILE) } else { CHUNK * length.div_ceil(CHUNK * CHUNKS) }
}

/// Packs of four states that an invocation computes at once: at most 4, so that they stay in registers.
pub fn scan_packs(states: usize) -> usize {
    let packs = states.div_ceil(4);
    packs.div_ceil(packs.div_ceil(4))
}

/// `Params` of the three kernels of the selective scan.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct ScanParams {
    /// L.
    pub length: u32,
    /// E.
    pub channels: u32,
    /// S.
    pub states: u32,
    /// Steps per chunk.
    pub chunk: u32,
}

/// The first pass: the states at the end of each chunk but the last, from 0 at its start.
///
/// Constants of all three: `PACKS` ([`scan_packs`]), and `ZOH`, 1 for [`Discretisation::Zoh`].
pub const ENDS: Kernel = Kernel {
    name: "selective_scan_ends",
    body: include_str!("wgsl/selective_scan_ends.wgsl"),
    lanes: 64,
    buffers: 5,
    parameters: size_of::<ScanParams>(),
    variants: Variant::ONLY_F32,
    constants: &["PACKS", "ZOH"],
    shared: SHARED,
    weight: None,
};

/// The second pass: the states at the end of each chunk but the last, from the end of the chunk before.
pub const CARRY: Kernel = Kernel {
    name: "selective_scan_carry",
    body: include_str!("wgsl/selective_scan_carry.wgsl"),
    lanes: 64,
    buffers: 2,
    parameters: size_of::<ScanParams>(),
    variants: Variant::ONLY_F32,
    constants: &["PACKS", "ZOH"],
    shared: SHARED,
    weight: None,
};

/// The third pass: the result, of each chunk from the end of the chunk before.
pub const KERNEL: Kernel = Kernel {
    name: "selective_scan",
    body: include_str!("wgsl/selective_scan.wgsl"),
    lanes: 64,
    buffers: 8,
    parameters: size_of::<ScanParams>(),
    variants: Variant::ONLY_F32,
    constants: &["PACKS", "ZOH"],
    shared: SHARED,
    weight: None,
};

const SHARED: &[&str] = &[include_str!("wgsl/shared/selective_scan.wgsl")];

#[cfg(test)]
mod tests {
    use super::*;

    fn close(expected: &[f64], got: &[f64]) {
        assert_eq!(got.len(), expected.len(), "values (got, expected)");
        for (expected, got) in expected.iter().zip(got) {
            assert!((expected - got).abs() < 1e-6, "expected {expected}, got {got}");
        }
    }

    #[test]
    fn one_channel_and_one_state_by_hand() {
        let scan = |how| selective_scan(&[1.0; 3], &[2f64.ln(); 3], &[-1.0], &[1.0; 3], &[1.0; 3], &[0.0], how);
        close(&[2f64.ln(), 1.039721, 1.213008], &scan(Discretisation::Euler));
        close(&[0.5, 0.75, 0.875], &scan(Discretisation::Zoh));
    }

    #[test]
    fn channels_and_states_by_hand() {
        // Decays of the second step: 1/2 and 1/4; 1 and 1, where delta is 0.
        let log = 2f64.ln();
        let (u, delta) = ([1.0, 2.0, 3.0, 4.0], [1.0, 1.0, log, 0.0]);
        let (a, b, c, d) = ([-1.0, -2.0, -1.0, -2.0], [1.0, 10.0, 0.0, 0.0], [1.0, 0.0, 1.0, 1.0], [100.0, 0.0]);
        // States after the first step: (1, 10) and (2, 20). The second step has no drive.
        let expected = [101.0, 2.0, 0.5 + 2.5 + 300.0, 22.0];
        close(&expected, &selective_scan(&u, &delta, &a, &b, &c, &d, Discretisation::Euler));
        let [slow, fast] = [1.0, 2.0].map(|a: f64| (1.0 - (-a).exp()) / a);
        let expected = [slow + 100.0, 2.0 * slow, slow / 2.0 + 10.0 * fast / 4.0 + 300.0, 2.0 * slow + 20.0 * fast];
        close(&expected, &selective_scan(&u, &delta, &a, &b, &c, &d, Discretisation::Zoh));
    }

    #[test]
    fn small_steps_have_no_difference_between_the_discretisations() {
        let scan = |how| selective_scan(&[1.0], &[1e-9], &[-1.0], &[1e9], &[1.0], &[0.0], how);
        close(&scan(Discretisation::Euler), &scan(Discretisation::Zoh));
    }

    #[test]
    fn chunks_and_packs_cover_all_steps_and_states() {
        for length in [1, 31, 32, 63, 64, 65, 2940, 4096, 4097, 8192, 100_000] {
            assert!(scan_chunk(length, true) >= length, "{length}: one chunk");
            let chunk = scan_chunk(length, false);
            assert!(chunk.is_multiple_of(TILE) && length.div_ceil(chunk) <= CHUNKS, "{length}: {chunk} steps");
        }
        assert_eq!([4096, 4097].map(|length| scan_chunk(length, false)), [64, 128], "steps per chunk (got, expected)");
        let packs = [1, 4, 5, 12, 16, 17, 20, 33, 48, 64].map(scan_packs);
        assert_eq!(packs, [1, 1, 2, 3, 4, 3, 3, 3, 4, 4], "packs (got, expected)");
    }
}
