//! `linear` with inputs that are rounded to 8 bits, where a device does this ([`rounds_inputs`]); elsewhere the same
//! cases in f32.
//!
//! Each input is at most 0.3 of a step from its code, so that the rounding of a scale in f32 decides nothing. Then the
//! product has two bounds: a narrow one from the twin of the rounded inputs, and that of the rounding itself from the
//! exact product.

use std::fmt;

use fovea_runtime::{
    Error,
    network_ops::{Activation, FEW_ROWS, Format, rounds_inputs},
};

use super::{
    Operation, Outputs, Planned,
    linear::{FORMATS, Linear, Next, Values, WITH_MINIMUM, plain},
    output,
};
use crate::{
    bed::Bed,
    bound::{Bound, Comparison},
};

/// The error of the rounding. It is about 2e-5 for values of similar size; inputs near their codes have less.
const OWN: Bound = Bound::Nmse(1e-4);
/// The output that is 1 if inputs were rounded, else 0.
const ROUNDED: &str = "rounded";

/// A product with a weight of codes that asks for rounded inputs. It has no norm, which would move inputs away from their
/// codes.
#[derive(Clone, Debug)]
pub(crate) struct Rounded(Linear);

impl fmt::Display for Rounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "int8 {}", self.0)
    }
}

/// Formats, shapes (T, K, N) and steps, and their purposes.
pub(crate) fn cases() -> Vec<Planned<Rounded>> {
    let of =
        |format: Format, shape| Linear { codes: Some(format), rounded: true, values: Values::Steps, ..plain(shape) };
    let mut all = Vec::new();
    for (why, format) in FORMATS {
        all.extend([[9, 896, 67], [66, 384, 129]].map(|shape| Planned::new(why, Rounded(of(format, shape)))));
    }
    for format in [Format::Q8, Format::Q4, WITH_MINIMUM] {
        let gate = Next::Gate(Activation::Silu);
        let steps = [
            ("one row: not rounded", of(format, [1, 128, 33])),
            ("eight rows: not rounded", of(format, [FEW_ROWS, 128, 33])),
            ("an odd number of groups and of rows", of(format, [35, 96, 35])),
            ("one result", of(format, [34, 32, 1])),
            (
                "a gate with a bias, in two parts",
                Linear { parts: 2, bias: true, next: gate, ..of(format, [34, 224, 67]) },
            ),
            (
                "three parts, with residual connection",
                Linear { parts: 3, bias: true, next: Next::Add(0.5), ..of(format, [34, 160, 101]) },
            ),
            (
                "an activation",
                Linear { bias: true, next: Next::Activate(Activation::Gelu), ..of(format, [34, 128, 70]) },
            ),
            ("large tiles", of(format, [130, 32, 11_000])),
            ("large tiles with a gate", Linear { next: gate, ..of(format, [130, 32, 5500]) }),
        ];
        all.extend(steps.map(|(why, op)| Planned::new(why, Rounded(op))));
        all.push(Planned::large("a prompt", Rounded(of(format, [577, 896, 1217]))));
    }
    all
}

impl Operation for Rounded {
    const NAME: &'static str = "int8";

    fn tolerance(&self, half: bool) -> String {
        format!("{} from the twin with rounded inputs, {OWN} from the exact product", Linear::bound(half))
    }

    async fn run(&self, half: bool, bed: &mut Bed<'_>) -> Result<Outputs, Error> {
        let rounded = self.0.tokens > FEW_ROWS && rounds_inputs(bed.device());
        let mut outputs = self.0.run(half, bed).await?;
        outputs.insert(ROUNDED, vec![f32::from(u8::from(rounded))]);
        Ok(outputs)
    }

    fn check(&self, half: bool, got: &Outputs) -> Vec<Comparison> {
        let Self(op) = self;
        let out = output(got, "out");
        let mut checked = vec![OWN.check("out", &op.twin(half, None), out)];
        let rounded = output(got, ROUNDED).first() == Some(&1.0);
        let group = op.codes.filter(|_| rounded).map(|format| format.group as usize);
        checked.push(Linear::bound(half).check("out, as computed", &op.twin(half, group), out));
        checked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_twin_is_that_of_the_path_that_ran() {
        let case = cases().into_iter().map(|case| case.op).find(|case| case.0.tokens == 35).unwrap();
        let faults = |group: Option<usize>, flag: f32| {
            let out: Vec<f32> = case.0.twin(false, group).into_iter().map(|y| y as f32).collect();
            let got = Outputs::from([("out", out), (ROUNDED, vec![flag])]);
            case.check(false, &got).into_iter().filter(|checked| checked.fault.is_some()).count()
        };
        assert_eq!((faults(None, 0.0), faults(Some(32), 1.0)), (0, 0), "faults of right results");
        assert_eq!((faults(None, 1.0), faults(Some(32), 0.0)), (1, 1), "faults of results of the other path");
    }
}
