//! The selective scan of a state space model, on all threads.

use fovea_shaders::Discretisation;
use pulp::{Arch, Simd, WithSimd};

use super::{Line, for_each_chunk, lanes::exp2_parts, lines};

/// Channels per task: a line of each row.
const CHANNELS: usize = 16;
/// Values per task of the last copy: large enough that the overhead of a task does not matter.
const GRAIN: usize = 1 << 14;

/// The inputs, row-major: `u` and `delta` (L, E), `a` (E, S), `b` and `c` (L, S), `d` (E,).
#[derive(Clone, Copy)]
pub(crate) struct Scan<'a> {
    pub u: &'a [f32],
    pub delta: &'a [f32],
    pub a: &'a [f32],
    pub b: &'a [f32],
    pub c: &'a [f32],
    pub d: &'a [f32],
    pub discretisation: Discretisation,
}

/// See [`selective_scan`](crate::scan_ops::selective_scan). Each task has a few channels and all steps.
///
/// # Panics
/// Where the lengths do not agree.
pub(crate) fn selective_scan(scan: Scan, out: &mut [f32]) {
    let channels = scan.d.len();
    let (length, states) = (out.len() / channels, scan.a.len() / channels);
    let fits = [scan.u, scan.delta].iter().all(|x| x.len() == length * channels)
        && [scan.b, scan.c].iter().all(|x| x.len() == length * states);
    assert!(fits && scan.a.len() == channels * states && out.len() == length * channels, "selective_scan: lengths");
    let arch = Arch::new();
    // By task: (tasks, L, CHANNELS).
    let mut rows = lines(channels.div_ceil(CHANNELS) * length * CHANNELS);
    for_each_chunk(&mut rows, length, |i, rows| arch.dispatch(Task { scan, first: i * CHANNELS, rows }));
    let steps = (GRAIN / channels).max(1);
    for_each_chunk(out, steps * channels, |i, out| {
        for (t, row) in out.chunks_exact_mut(channels).enumerate() {
            for (task, to) in row.chunks_mut(CHANNELS).enumerate() {
                to.copy_from_slice(&rows[task * length + i * steps + t].0[..to.len()]);
            }
        }
    });
}

/// The channels from `first` on. `rows` (L,) is the result.
struct Task<'a> {
    scan: Scan<'a>,
    first: usize,
    rows: &'a mut [Line],
}

impl WithSimd for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { scan: Scan { u, delta, a, b, c, d, discretisation }, first, rows } = self;
        let (channels, states) = (d.len(), a.len() / d.len());
        let own = CHANNELS.min(channels - first);
        // (S, CHANNELS). Beyond the last channel: a rate that is no division by 0.
        let mut rates = vec![Line([-1.0; CHANNELS]); states];
        for (i, a) in a[first * states..][..own * states].iter().enumerate() {
            rates[i % states].0[i / states] = *a;
        }
        let mut hs = lines(states * CHANNELS);
        let mut inputs = [Line([0.0; CHANNELS]); 3];
        inputs[0].0[..own].copy_from_slice(&d[first..][..own]);
        let (one, log2_e) = (simd.splat_f32s(1.0), simd.splat_f32s(std::f32::consts::LOG2_E));
        for (t, row) in rows.iter_mut().enumerate() {
            let at = t * channels + first;
            inputs[1].0[..own].copy_from_slice(&u[at..][..own]);
            inputs[2].0[..own].copy_from_slice(&delta[at..][..own]);
            let (b, c) = (&b[t * states..][..states], &c[t * states..][..states]);
            for v in 0..CHANNELS / S::F32_LANES {
                let (skip, x, time) = (of::<S>(&inputs[0], v), of::<S>(&inputs[1], v), of::<S>(&inputs[2], v));
                let mut sum = simd.mul_f32s(skip, x);
                for s in 0..states {
                    let rate = of::<S>(&rates[s], v);
                    let [whole, rest] = exp2_parts(simd, simd.mul_f32s(simd.mul_f32s(time, rate), log2_e));
                    let hold = match discretisation {
                        Discretisation::Euler => time,
                        Discretisation::Zoh => simd.div_f32s(simd.add_f32s(simd.sub_f32s(whole, one), rest), rate),
                    };
                    let drive = simd.mul_f32s(simd.mul_f32s(hold, x), simd.splat_f32s(b[s]));
                    let h = &mut S::as_mut_simd_f32s(&mut hs[s].0).0[v];
                    *h = simd.mul_add_e_f32s(whole, *h, simd.mul_add_e_f32s(rest, *h, drive));
                    sum = simd.mul_add_e_f32s(simd.splat_f32s(c[s]), *h, sum);
                }
                S::as_mut_simd_f32s(&mut row.0).0[v] = sum;
            }
        }
    }
}

/// Vector `v` of a line.
#[inline(always)]
fn of<S: Simd>(line: &Line, v: usize) -> S::f32s {
    S::as_simd_f32s(&line.0).0[v]
}

#[cfg(test)]
mod tests {
    use super::super::test_values;
    use super::{Discretisation, Scan, selective_scan};

    #[test]
    fn scans_are_close_to_f64() {
        for discretisation in [Discretisation::Euler, Discretisation::Zoh] {
            for (length, channels, states) in [(1, 1, 1), (7, 3, 4), (65, 17, 5), (300, 40, 16), (1500, 16, 3)] {
                let [u, b, c] =
                    [(1, channels), (2, states), (3, states)].map(|(i, width)| test_values(length * width, i));
                let d = test_values(channels, 4);
                // From e^-8 to e^4.
                let delta: Vec<f32> = test_values(length * channels, 5).iter().map(|x| (6.0 * x - 2.0).exp()).collect();
                let a: Vec<f32> = test_values(channels * states, 6).iter().map(|x| -8.0 * (x + 1.0) - 0.01).collect();
                let mut out = vec![f32::NAN; length * channels];
                let scan = Scan { u: &u, delta: &delta, a: &a, b: &b, c: &c, d: &d, discretisation };
                selective_scan(scan, &mut out);
                let [u, delta, a, b, c, d] = [&u, &delta, &a, &b, &c, &d]
                    .map(|x: &Vec<f32>| x.iter().map(|x| f64::from(*x)).collect::<Vec<f64>>());
                let twin = fovea_shaders::selective_scan(&u, &delta, &a, &b, &c, &d, discretisation);
                let error: f64 = twin.iter().zip(&out).map(|(y, got)| (y - f64::from(*got)).powi(2)).sum();
                let power: f64 = twin.iter().map(|y| y * y).sum();
                let what = format!("{discretisation:?}, {length} steps, {channels} channels, {states} states");
                assert!(error <= 1e-12 * power, "{what}: expected an NMSE of at most 1e-12, got {}", error / power);
            }
        }
    }
}
