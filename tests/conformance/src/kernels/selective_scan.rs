//! `selective_scan`: a state space model over a sequence.

use std::fmt;

use fovea_runtime::{
    Error,
    read::read_f32,
    scan_ops::{Discretisation, selective_scan},
};

use super::{Operation, Outputs, Planned, output};
use crate::{
    bed::Bed,
    bound::{Bound, Comparison},
    numbers::{Numbers, wide},
};

/// The steps `delta` and the rates `a`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Steps {
    /// `delta` from 0.001 to 0.1 and `a` about -1 to -S, as in a new Mamba block.
    Usual,
    /// `delta` from e^-8 to e^4: states that stay for the whole sequence, and states that vanish in one step.
    Mixed,
    /// All decays are exp(-0.001): the error of an exponential near 1 adds up.
    Equal,
    /// Decays whose exponentials underflow: a division by their product overflows.
    Steep,
    /// Half of all `delta` are 0: these steps change nothing.
    Pauses,
    /// Equal steps of ln 2 and inputs of 1: 2 ln 2 or 1, halved from step to step, is missing.
    Hand,
}

/// `u` (L, E) and S states.
#[derive(Clone, Debug)]
pub(crate) struct SelectiveScan {
    discretisation: Discretisation,
    length: usize,
    channels: usize,
    states: usize,
    steps: Steps,
}

impl fmt::Display for SelectiveScan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { discretisation, length, channels, states, steps } = self;
        let [discretisation, steps] = [format!("{discretisation:?}"), format!("{steps:?}")].map(|s| s.to_lowercase());
        write!(f, "selective_scan by={discretisation} l={length} e={channels} s={states} steps={steps}")
    }
}

/// Shapes (L, E, S) and their purposes.
pub(crate) fn cases() -> Vec<Planned<SelectiveScan>> {
    let mut all = Vec::new();
    for discretisation in [Discretisation::Euler, Discretisation::Zoh] {
        let op = |[length, channels, states]: [usize; 3], steps| SelectiveScan {
            discretisation,
            length,
            channels,
            states,
            steps,
        };
        all.extend(
            [
                ("one of each", [1, 1, 1]),
                ("one step, one pack of states", [1, 128, 4]),
                ("one step, four packs of states", [1, 3, 16]),
                ("two steps", [2, 3, 16]),
                ("a step less than a chunk", [63, 3, 16]),
                ("a chunk", [64, 3, 16]),
                ("a step more", [65, 3, 16]),
                ("a channel less than a workgroup", [65, 63, 4]),
                ("a channel more than a workgroup", [65, 65, 4]),
                ("states that fill no pack", [129, 5, 3]),
                ("two packs, the last of one state", [129, 5, 5]),
                ("three packs", [129, 5, 12]),
                ("two blocks of states, the last not full", [129, 5, 17]),
                ("four blocks of states", [129, 5, 64]),
                ("16 chunks, the last not full", [1000, 1, 4]),
                ("16 chunks, two workgroups each", [1000, 128, 16]),
                ("a tile of CLIP ViT-L, a channel more than four workgroups, 16 states", [577, 257, 16]),
                ("as many channels as a decoder of 7 billion has", [65, 4096, 4]),
                ("chunks of two tiles", [4097, 3, 4]),
                ("the longest sequence", [8192, 3, 16]),
            ]
            .map(|(why, shape)| Planned::new(why, op(shape, Steps::Usual))),
        );
        all.extend(
            [
                ("computed by hand", [3, 1, 1], Steps::Hand),
                ("computed by hand, two chunks", [66, 1, 1], Steps::Hand),
                ("states that stay, and states that vanish", [1000, 33, 16], Steps::Mixed),
                ("states that stay, and states that vanish, many steps", [8192, 1, 4], Steps::Mixed),
                ("decays just below 1", [8192, 3, 4], Steps::Equal),
                ("decays that underflow", [300, 33, 16], Steps::Steep),
                ("steps that change nothing", [300, 33, 16], Steps::Pauses),
            ]
            .map(|(why, shape, steps)| Planned::new(why, op(shape, steps))),
        );
        all.extend(
            [
                ("CLIP ViT-L's width, expanded, on LLaVA-NeXT's largest canvas", [2940, 2048, 16]),
                ("the longest sequence, two workgroups of channels", [8192, 128, 16]),
                ("as many channels as a decoder of 7 billion has, 16 states", [65, 4096, 16]),
            ]
            .map(|(why, shape)| Planned::large(why, op(shape, Steps::Usual))),
        );
    }
    all
}

/// `u`, `delta`, `a`, `b`, `c`, `d`.
type Inputs = [Vec<f32>; 6];

impl SelectiveScan {
    fn inputs(&self) -> Inputs {
        let Self { length, channels, states, steps, .. } = *self;
        let mut numbers = Numbers::of(&self.to_string());
        if steps == Steps::Hand {
            let ones = |count| vec![1.0; count];
            let delta = vec![2f32.ln(); length * channels];
            let [b, c] = [ones(length * states), ones(length * states)];
            return [ones(length * channels), delta, vec![-1.0; channels * states], b, c, vec![0.0; channels]];
        }
        let u = numbers.floats(length * channels, 2.0);
        let [b, c] = [(); 2].map(|()| numbers.floats(length * states, 2.0));
        let d = numbers.floats(channels, 2.0);
        // From -1.5 (s + 1) to -0.5 (s + 1).
        let mut a = numbers.floats(channels * states, 0.5);
        a.iter_mut().enumerate().for_each(|(i, a)| *a = (*a - 1.0) * (i % states + 1) as f32);
        let mut delta = numbers.floats(length * channels, 1.0);
        for x in &mut delta {
            *x = match steps {
                Steps::Usual => 10f32.powf(*x - 2.0),
                Steps::Mixed => (6.0 * *x - 2.0).exp(),
                Steps::Equal | Steps::Hand => 1e-3,
                Steps::Steep => (2.0 * *x + 6.0).exp(),
                Steps::Pauses => x.max(0.0),
            };
        }
        if steps == Steps::Equal {
            a.fill(-1.0);
        }
        [u, delta, a, b, c, d]
    }
}

const BOUND: Bound = Bound::Nmse(1e-9);

impl Operation for SelectiveScan {
    const NAME: &'static str = "selective_scan";

    fn tolerance(&self, _half: bool) -> String {
        format!(
            "{BOUND}: sums of decaying states in f32 give 1e-14; 8192 decays just below 1 give 1e-13, or up to 1e-10 with \
             an exponential that is wrong by 1e-7"
        )
    }

    async fn run(&self, _half: bool, bed: &mut Bed<'_>) -> Result<Outputs, Error> {
        let Self { discretisation, length, channels, states, .. } = *self;
        let [u, delta, a, b, c, d] = self.inputs();
        let of_channels = [length, channels];
        let (u, delta, a) =
            (bed.full(&u, of_channels), bed.full(&delta, of_channels), bed.full(&a, [channels, states]));
        let (b, c, d) = (bed.full(&b, [length, states]), bed.full(&c, [length, states]), bed.full(&d, [channels]));
        let y = selective_scan(u, delta, a, b, c, d, discretisation)?;
        Ok(Outputs::from([("y", read_f32(y).await?)]))
    }

    fn check(&self, _half: bool, got: &Outputs) -> Vec<Comparison> {
        let [u, delta, a, b, c, d] = self.inputs().map(|values| wide(&values));
        let twin = fovea_shaders::selective_scan(&u, &delta, &a, &b, &c, &d, self.discretisation);
        let y = output(got, "y");
        let mut checked = vec![BOUND.check("y", &twin, y)];
        if self.steps == Steps::Hand {
            let limit = match self.discretisation {
                Discretisation::Euler => 2.0 * 2f64.ln(),
                Discretisation::Zoh => 1.0,
            };
            let expected: Vec<f64> = (1..=self.length as i32).map(|t| limit * (1.0 - 0.5f64.powi(t))).collect();
            checked.push(Bound::Abs(1e-6).check("y, by hand", &expected, y));
        }
        checked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quick_cases_cover_chunks_tiles_and_blocks() {
        let quick: Vec<SelectiveScan> = cases().into_iter().filter(|case| !case.large).map(|case| case.op).collect();
        let chunks = |op: &SelectiveScan| op.length.div_ceil(fovea_shaders::scan_chunk(op.length, false));
        for count in [1, 2, 16] {
            assert!(quick.iter().any(|op| chunks(op) == count), "{count} chunks: expected a case, got none");
        }
        assert!(quick.iter().any(|op| fovea_shaders::scan_chunk(op.length, false) > 64), "expected a longer chunk");
        for packs in 1..=4 {
            let has = quick.iter().any(|op| fovea_shaders::scan_packs(op.states) == packs);
            assert!(has, "{packs} packs: expected a case, got none");
        }
    }

    #[test]
    fn a_state_that_decays_wrongly_is_a_fault() {
        let op = SelectiveScan {
            discretisation: Discretisation::Zoh,
            length: 3,
            channels: 1,
            states: 1,
            steps: Steps::Hand,
        };
        let fault = |values: &[f32]| {
            let got = Outputs::from([("y", values.to_vec())]);
            op.check(false, &got).into_iter().find_map(|checked| checked.fault)
        };
        assert_eq!(fault(&[0.5, 0.75, 0.875]), None);
        assert!(fault(&[0.5, 0.75, 0.8751]).is_some());
        assert!(fault(&[0.5, f32::NAN, 0.875]).is_some());
    }
}
