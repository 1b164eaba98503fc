//! `norm`: RMS norm and layer norm of rows.

use std::fmt;

use fovea_runtime::{Error, network_ops::norm, read::read_f32};

use super::{Operation, Outputs, Planned, output};
use crate::{
    bed::Bed,
    bound::{Bound, Comparison},
    numbers::{Numbers, wide},
};

/// The smallest epsilon of real models is 1e-6.
const EPSILON: f64 = 1e-6;

/// Which norm, and of which numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    /// RMS norm of numbers around zero.
    Rms,
    /// Layer norm of numbers around zero.
    Layer,
    /// Layer norm of numbers around 1000.
    Offset,
    /// Layer norm of numbers around zero, one of which per row is 1000: vision towers have such channels.
    Outlier,
    /// Layer norm of equal numbers: the result is beta.
    Equal,
}

/// `x` (rows, C).
#[derive(Clone, Debug)]
pub(crate) struct Norm {
    kind: Kind,
    rows: usize,
    width: usize,
}

impl fmt::Display for Norm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, rows, width } = self;
        write!(f, "norm kind={} rows={rows} c={width}", format!("{kind:?}").to_lowercase())
    }
}

/// Shapes (rows, C) and their purposes.
pub(crate) fn cases() -> Vec<Planned<Norm>> {
    let mut all = Vec::new();
    for kind in [Kind::Rms, Kind::Layer] {
        all.extend(
            [
                ("one number", [1, 1]),
                ("a prime width", [5, 3]),
                ("a width of five, one row", [1, 5]),
                ("one element less than a workgroup has lanes", [5, 63]),
                ("one element more than a workgroup has lanes", [5, 65]),
                ("one pack more than a workgroup has lanes", [5, 260]),
                ("Qwen2 0.5B, one token", [1, 896]),
                ("Qwen2 0.5B", [5, 896]),
                ("CLIP ViT-L, one tile", [577, 1024]),
                ("SigLIP So400m, one tile", [729, 1152]),
                ("a decoder of 7 billion", [5, 4096]),
            ]
            .map(|(why, [rows, width])| Planned::new(why, Norm { kind, rows, width })),
        );
    }
    all.extend(
        [
            ("a mean far above the deviations, read one by one", Kind::Offset, [5, 63]),
            ("a mean far above the deviations", Kind::Offset, [5, 1024]),
            ("a mean far above the deviations, many packs", Kind::Offset, [1, 4096]),
            ("a channel far above the others, read one by one", Kind::Outlier, [5, 63]),
            ("a channel far above the others", Kind::Outlier, [5, 1152]),
            ("no variance", Kind::Equal, [5, 896]),
        ]
        .map(|(why, kind, [rows, width])| Planned::new(why, Norm { kind, rows, width })),
    );
    all.push(Planned::large(
        "more rows than one dimension of workgroups",
        Norm { kind: Kind::Rms, rows: 65537, width: 4 },
    ));
    all
}

struct Inputs {
    x: Vec<f32>,
    gamma: Vec<f32>,
    /// None: RMS norm.
    beta: Option<Vec<f32>>,
}

impl Norm {
    fn inputs(&self) -> Inputs {
        let Self { kind, rows, width } = *self;
        let mut numbers = Numbers::of(&self.to_string());
        let mut x = numbers.floats(rows * width, 2.0);
        match kind {
            Kind::Rms | Kind::Layer => {}
            Kind::Offset => x.iter_mut().for_each(|x| *x += 1000.0),
            Kind::Outlier => (0..rows).for_each(|row| x[row * width + numbers.below(width)] = 1000.0),
            Kind::Equal => x.fill(0.75),
        }
        let gamma = numbers.floats(width, 2.0);
        let beta = (kind != Kind::Rms).then(|| numbers.floats(width, 2.0));
        Inputs { x, gamma, beta }
    }

    const fn bound(&self) -> Bound {
        Bound::Nmse(match self.kind {
            Kind::Offset => 1e-6,
            Kind::Equal => 1e-7,
            _ => 1e-10,
        })
    }
}

impl Operation for Norm {
    const NAME: &'static str = "norm";

    fn tolerance(&self, _half: bool) -> String {
        let bound = self.bound();
        match self.kind {
            Kind::Offset => {
                format!(
                    "{bound}: f32 has steps of 6e-5 at the mean, which gives tensor operations 1.3e-7 at 4096 columns; a variance \
                     from the mean of the squares gives 1e-4"
                )
            }
            Kind::Equal => format!("{bound}: one step of the mean in f32, divided by the root of epsilon, gives 1e-9"),
            _ => format!("{bound}: f32 sums of some thousand terms give 1e-13"),
        }
    }

    async fn run(&self, _half: bool, bed: &mut Bed<'_>) -> Result<Outputs, Error> {
        let Inputs { x, gamma, beta } = self.inputs();
        let x = bed.full(&x, [self.rows, self.width]);
        let gamma = bed.full(&gamma, [self.width]);
        let beta = beta.map(|beta| bed.full(&beta, [self.width]));
        let out = norm(x, gamma, beta, EPSILON)?;
        Ok(Outputs::from([("out", read_f32(out).await?)]))
    }

    fn check(&self, _half: bool, got: &Outputs) -> Vec<Comparison> {
        let Inputs { x, gamma, beta } = self.inputs();
        let beta = beta.map(|beta| wide(&beta));
        let twin = fovea_shaders::norm(&wide(&x), &wide(&gamma), beta.as_deref(), EPSILON);
        vec![self.bound().check("out", &twin, output(got, "out"))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_norm_without_its_mean_or_with_a_rounded_variance_is_a_fault() {
        let op = Norm { kind: Kind::Offset, rows: 5, width: 1024 };
        let Inputs { x, gamma, beta } = op.inputs();
        let beta = beta.expect("a layer norm");
        let scaled = |size: f64| -> Outputs {
            let twin = fovea_shaders::norm(&wide(&x), &wide(&gamma), Some(&wide(&beta)), EPSILON);
            let out = twin.iter().zip(beta.iter().cycle()).map(|(y, &b)| ((y - f64::from(b)) * size) as f32 + b);
            Outputs::from([("out", out.collect())])
        };
        let fault = |got: &Outputs| op.check(false, got).into_iter().find_map(|checked| checked.fault);
        assert_eq!(fault(&scaled(1.0)), None);
        assert!(fault(&scaled(1.01)).is_some());
        let rms = fovea_shaders::norm(&wide(&x), &wide(&gamma), None, EPSILON);
        assert!(fault(&Outputs::from([("out", rms.iter().map(|&y| y as f32).collect())])).is_some());
    }
}
