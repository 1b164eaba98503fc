//! `linear`: a product with a weight in one or more parts, the norm before it, and what follows it.

use std::fmt;

use fovea_runtime::{
    Error,
    network_ops::{Activation, After, Format, Weight, linear},
    read::read_f32,
};
use fovea_shaders::{Epilogue, dequantise, round_rows};

use super::{Operation, Outputs, Planned, output};
use crate::{
    bed::Bed,
    bound::{Bound, Comparison},
    numbers::{Numbers, stored, wide},
};

/// Epsilon of the norm.
const EPSILON: f64 = 1e-6;

/// What follows the product.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Next {
    Nothing,
    /// A residual connection with this factor.
    Add(f64),
    Activate(Activation),
    Gate(Activation),
}

/// The values of the inputs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Values {
    /// Results around zero, of size one.
    Spread,
    /// Results up to some hundreds: exponentials overflow.
    Steep,
    /// Small inputs: epsilon is larger than their mean square.
    Small,
    /// Four columns and two rows of a weight, computed by hand.
    Hand,
    /// Inputs near the codes of 8 bits that they are rounded to, by group of a weight of codes.
    Steps,
}

/// `x` (T, K), a weight (N, K) or with a gate (2 N, K) in parts, and the optional steps.
#[derive(Clone, Debug)]
pub(crate) struct Linear {
    pub(super) tokens: usize,
    pub(super) width: usize,
    pub(super) outputs: usize,
    pub(super) parts: usize,
    pub(super) norm: bool,
    pub(super) bias: bool,
    pub(super) next: Next,
    pub(super) values: Values,
    /// The format of a weight of codes.
    pub(super) codes: Option<Format>,
    /// Whether this weight asks for rounded inputs.
    pub(super) rounded: bool,
}

impl fmt::Display for Linear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tokens, width, outputs, parts, norm, bias, next, values, codes, rounded: _ } = self;
        let next = match next {
            Next::Nothing => "nothing".into(),
            Next::Add(factor) => format!("add*{factor}"),
            Next::Activate(function) => format!("{function:?}"),
            Next::Gate(function) => format!("gate-{function:?}"),
        };
        let (next, values) = (next.to_lowercase(), format!("{values:?}").to_lowercase());
        write!(f, "linear t={tokens} k={width} n={outputs} parts={parts} norm={norm} bias={bias} next={next}")?;
        write!(f, " values={values}")?;
        codes.map_or(Ok(()), |format| write!(f, " weight={format}"))
    }
}

/// The product alone.
pub(super) fn plain([tokens, width, outputs]: [usize; 3]) -> Linear {
    let (next, values) = (Next::Nothing, Values::Spread);
    Linear { tokens, width, outputs, parts: 1, norm: false, bias: false, next, values, codes: None, rounded: false }
}

/// Shapes (T, K, N), steps, and their purposes.
pub(crate) fn cases() -> Vec<Planned<Linear>> {
    use Activation::{Gelu, GeluTanh, QuickGelu, Silu};
    let mut all: Vec<Planned<Linear>> = [
        ("one number", [1, 1, 1]),
        ("one row, one pack", [1, 4, 3]),
        ("one row, columns read one by one", [1, 7, 5]),
        ("one row, one column more than a workgroup has lanes", [1, 65, 9]),
        ("one row, one pack less than a workgroup has lanes", [1, 252, 10]),
        ("one row, one pack more than a workgroup has lanes", [1, 260, 11]),
        ("one row, an odd number of columns of many packs", [1, 4863, 33]),
        ("one row, the widths of Qwen2 0.5B", [1, 896, 1152]),
        ("one row, the widths of Llama", [1, 4096, 65]),
        ("two rows", [2, 64, 40]),
        ("two rows, one pack, one result", [2, 4, 1]),
        ("no kernel: several rows of a width that is no multiple of four", [7, 65, 33]),
        ("a prime number of rows, an odd number of results", [7, 896, 131]),
        ("one row more than half a tile", [33, 128, 65]),
        ("two rows more than two tiles", [130, 96, 129]),
        ("a long row", [33, 4864, 66]),
    ]
    .map(|(why, shape)| Planned::new(why, plain(shape)))
    .into();
    // One row and many rows, with each step and with several.
    for tokens in [1, 2, 34] {
        let plain = |width, outputs| plain([tokens, width, outputs]);
        let add = |factor| Linear { next: Next::Add(factor), ..plain(896, 129) };
        let gate = |function, outputs| Linear { next: Next::Gate(function), ..plain(224, outputs) };
        let steps = [
            ("a bias", Linear { bias: true, ..plain(132, 77) }),
            ("a residual connection", add(1.0)),
            ("a residual connection with a factor and a bias", Linear { bias: true, ..add(0.22) }),
            ("the norm", Linear { norm: true, ..plain(896, 97) }),
            ("the norm of small inputs", Linear { norm: true, values: Values::Small, ..plain(64, 97) }),
            ("the norm, columns read one by one", Linear { norm: true, bias: true, ..plain(67, 31) }),
            ("a gate after a norm", Linear { norm: true, ..gate(Silu, 131) }),
            ("a gate with a bias", Linear { bias: true, ..gate(GeluTanh, 66) }),
            ("a gate of one result", gate(Gelu, 1)),
            ("a gate with all steps, in two parts", Linear { parts: 2, norm: true, bias: true, ..gate(QuickGelu, 67) }),
            ("a gate whose exponentials overflow", Linear { values: Values::Steep, ..gate(Silu, 35) }),
            ("a weight in two parts", Linear { parts: 2, norm: true, ..plain(64, 35) }),
            ("a weight in three parts, with bias", Linear { parts: 3, bias: true, ..plain(132, 100) }),
            (
                "a weight in three parts, with residual connection",
                Linear { parts: 3, bias: true, next: Next::Add(0.5), ..plain(132, 101) },
            ),
        ];
        all.extend(steps.map(|(why, op)| Planned::new(why, op)));
        for function in Activation::ALL {
            let next = Next::Activate(function);
            all.push(Planned::new("an activation after a bias", Linear { bias: true, next, ..plain(128, 70) }));
            let steep = Linear { values: Values::Steep, next, ..plain(64, 70) };
            all.push(Planned::new("an activation whose exponentials overflow", steep));
        }
    }
    for tokens in [1, 2] {
        let hand = Linear { bias: true, next: Next::Add(2.0), values: Values::Hand, ..plain([tokens, 4, 2]) };
        all.push(Planned::new("computed by hand", hand));
    }
    let silu = Next::Gate(Silu);
    all.extend([
        Planned::large("one row, an attention of Llama 3 8B", plain([1, 4096, 4096])),
        Planned::large("one row, the gate of Qwen2 0.5B", Linear { norm: true, next: silu, ..plain([1, 896, 4864]) }),
        Planned::large(
            "one row, the last layer of Qwen2 0.5B",
            Linear { next: Next::Add(1.0), ..plain([1, 4864, 896]) },
        ),
        Planned::large(
            "one row, a vocabulary in three parts",
            Linear { parts: 3, norm: true, ..plain([1, 896, 32001]) },
        ),
        Planned::large("one row, more workgroups than one dimension has", plain([1, 4, 600_001])),
        Planned::large(
            "a tile of CLIP ViT-L",
            Linear { bias: true, next: Next::Activate(QuickGelu), ..plain([577, 1024, 257]) },
        ),
        Planned::large("a prompt with the gate of Qwen2 0.5B", Linear { next: silu, ..plain([130, 896, 1217]) }),
    ]);
    all
}

/// 4 bits with a minimum.
pub(super) const WITH_MINIMUM: Format = Format { minimum: true, ..Format::Q4 };

/// Formats of codes.
pub(super) const FORMATS: [(&str, Format); 8] = [
    ("8 bits", Format::Q8),
    ("4 bits", Format::Q4),
    ("4 bits with a minimum", WITH_MINIMUM),
    ("8 bits, groups of 16", Format { group: 16, ..Format::Q8 }),
    ("4 bits with a minimum, groups of 64", Format { group: 64, ..WITH_MINIMUM }),
    ("4 bits with a minimum, groups of 128", Format { group: 128, ..WITH_MINIMUM }),
    ("4 bits, groups of 128: an odd number", Format { group: 128, ..Format::Q4 }),
    ("8 bits with a minimum, groups of 128", Format { minimum: true, group: 128, ..Format::Q8 }),
];

/// The same for weights of codes, which have f32 as the only type of all other numbers.
pub(crate) fn codes() -> Vec<Planned<Linear>> {
    let mut all = Vec::new();
    for (why, format) in FORMATS {
        let of = |shape| Linear { codes: Some(format), ..plain(shape) };
        let shapes = [[1, 896, 67], [2, 896, 33], [33, 384, 65], [130, 128, 129]];
        all.extend(shapes.map(|shape| Planned::new(why, of(shape))));
    }
    for format in [Format::Q8, Format::Q4, WITH_MINIMUM] {
        for tokens in [1, 2, 34] {
            let of = |width, outputs| Linear { codes: Some(format), ..plain([tokens, width, outputs]) };
            let gate = Next::Gate(Activation::Silu);
            let steps = [
                ("codes: one row of one vector", of(32, 1)),
                ("codes: an odd number of groups and of rows", of(96, 35)),
                ("codes: one step more than a workgroup has lanes", of(2080, 9)),
                ("codes: a gate after a norm", Linear { norm: true, next: gate, ..of(224, 131) }),
                (
                    "codes: a gate with all steps, in two parts",
                    Linear { parts: 2, norm: true, bias: true, next: gate, ..of(224, 67) },
                ),
                (
                    "codes: three parts, with residual connection",
                    Linear { parts: 3, bias: true, next: Next::Add(0.5), ..of(160, 101) },
                ),
                ("codes: the norm of small inputs", Linear { norm: true, values: Values::Small, ..of(64, 97) }),
                ("codes: an activation", Linear { bias: true, next: Next::Activate(Activation::Gelu), ..of(128, 70) }),
            ];
            all.extend(steps.map(|(why, op)| Planned::new(why, op)));
        }
        let of = |shape| Linear { codes: Some(format), ..plain(shape) };
        all.extend([
            Planned::large("codes: one row, an attention of Llama 3 8B", of([1, 4096, 4096])),
            Planned::large("codes: one row, the last layer of Qwen2 0.5B", of([1, 4864, 896])),
            Planned::large("codes: a prompt", of([130, 896, 1217])),
        ]);
    }
    all
}

struct Inputs {
    x: Vec<f32>,
    gamma: Vec<f32>,
    /// Empty where there are codes.
    weight: Vec<f32>,
    /// Words and scales.
    codes: [Vec<u32>; 2],
    bias: Vec<f32>,
    residual: Vec<f32>,
}

impl Linear {
    /// Rows of the whole weight per result.
    const fn share(&self) -> usize {
        if matches!(self.next, Next::Gate(_)) { 2 } else { 1 }
    }

    fn inputs(&self, half: bool) -> Inputs {
        let Self { tokens, width, outputs, values, .. } = *self;
        let rows = outputs * self.share();
        if values == Values::Hand {
            let mut x = vec![1.0, 2.0, -1.0, 4.0];
            x.resize(tokens * width, 0.0);
            let weight = vec![1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0];
            let residual = [10.0, 20.0, 30.0, 40.0][..tokens * outputs].to_vec();
            let (gamma, codes) = (vec![1.0; width], [vec![], vec![]]);
            return Inputs { x, gamma, weight, codes, bias: vec![0.5, -1.0], residual };
        }
        let mut numbers = Numbers::of(&self.to_string());
        let (reach, spread) = match values {
            Values::Small => (1e-3, 1.0),
            Values::Steep => (2.0, 100.0),
            Values::Spread | Values::Hand | Values::Steps => (2.0, 1.0),
        };
        let x = match self.codes {
            Some(format) if values == Values::Steps => steps(&mut numbers, tokens * width, format.group as usize),
            _ => numbers.floats(tokens * width, reach),
        };
        let gamma = numbers.floats(width, 1.0).into_iter().map(|gamma| 1.0 + gamma).collect();
        let spread = spread * 1.5 / (width as f32).sqrt();
        let (weight, codes) = match self.codes {
            Some(format) => (vec![], numbers.codes(rows, width, spread, format)),
            None => (stored(numbers.floats(rows * width, spread), half), [vec![], vec![]]),
        };
        let (bias, residual) = (numbers.floats(rows, 1.0), numbers.floats(tokens * outputs, 2.0));
        Inputs { x, gamma, weight, codes, bias, residual }
    }

    /// The parts of a weight whose rows have `width` elements: for a gate each has rows of `gate`, and then the same rows
    /// of `up`.
    fn cut<T: Copy>(&self, weight: &[T], width: usize) -> Vec<Vec<T>> {
        let Self { outputs, parts, .. } = *self;
        let part = |first: usize| {
            let rows = first..(first + outputs.div_ceil(parts)).min(outputs);
            let of = |half: usize| &weight[(half * outputs + rows.start) * width..(half * outputs + rows.end) * width];
            (0..self.share()).flat_map(|half| of(half).to_vec()).collect()
        };
        (0..outputs).step_by(outputs.div_ceil(parts)).map(part).collect()
    }

    /// The bound from the twin.
    pub(super) const fn bound(half: bool) -> Bound {
        Bound::Nmse(if half { 1e-6 } else { 1e-10 })
    }

    /// The result of the twin; with `group`, inputs are rounded by group first.
    pub(super) fn twin(&self, half: bool, group: Option<usize>) -> Vec<f64> {
        let Inputs { x, gamma, weight, codes: [words, scales], bias, residual } = self.inputs(half);
        let weight = match self.codes {
            Some(format) => dequantise(&words, &scales, self.width, format),
            None => wide(&weight),
        };
        let [x, gamma, bias, residual] = [x, gamma, bias, residual].map(|values| wide(&values));
        let x = match group {
            Some(group) => round_rows(&x, group),
            None => x,
        };
        let after = match self.next {
            Next::Nothing => Epilogue::Nothing,
            Next::Add(factor) => Epilogue::Add { residual: &residual, factor },
            Next::Activate(function) => Epilogue::Activate(function),
            Next::Gate(function) => Epilogue::Gate(function),
        };
        let bias = self.bias.then_some(&bias[..]);
        let norm = self.norm.then_some((&gamma[..], EPSILON));
        fovea_shaders::linear(&x, &weight, [self.tokens, self.width], bias, norm, after)
    }
}

/// Groups of numbers that are at most 0.3 steps from an integer number of steps; the largest is 127 steps. Steps differ,
/// and about one group in eight is zero.
fn steps(numbers: &mut Numbers, count: usize, group: usize) -> Vec<f32> {
    let mut all = Vec::with_capacity(count);
    for _ in 0..count / group {
        let step = if numbers.below(8) == 0 { 0.0 } else { numbers.floats(1, 1.0 / 64.0)[0] };
        let mut values = numbers.floats(group, 126.0);
        values.iter_mut().for_each(|x| *x = x.round() + 0.6 * (*x - x.round()));
        values[numbers.below(group)] = 127.0;
        all.extend(values.into_iter().map(|x| x * step));
    }
    all
}

impl Operation for Linear {
    const NAME: &'static str = "linear";

    fn tolerance(&self, half: bool) -> String {
        let why = if half {
            "tensor operations round inputs and results of the product to f16, which gives some 1e-8"
        } else {
            "f32 sums of some thousand terms give 1e-13, one after the other 1e-11"
        };
        format!("{}: {why}", Self::bound(half))
    }

    fn has_kernel(&self) -> bool {
        self.tokens == 1 || self.width.is_multiple_of(4)
    }

    async fn run(&self, half: bool, bed: &mut Bed<'_>) -> Result<Outputs, Error> {
        let Self { tokens, width, outputs, norm, bias, next, rounded, .. } = *self;
        let inputs = self.inputs(half);
        let x = bed.full(&inputs.x, [tokens, width]);
        let weight: Vec<Weight> = match self.codes {
            Some(format) => {
                let [words, scales] = &inputs.codes;
                let scales = self.cut(scales, format.scale_words(width));
                let parts = self.cut(words, format.words(width)).into_iter().zip(scales);
                parts.map(|(words, scales)| bed.codes(&words, &scales, width, format, rounded)).collect()
            }
            None => {
                let parts = self.cut(&inputs.weight, width).into_iter();
                parts.map(|part| Weight::Float(bed.floats(&part, [part.len() / width, width]))).collect()
            }
        };
        let bias = bias.then(|| bed.full(&inputs.bias, [outputs * self.share()]));
        let norm = norm.then(|| (bed.full(&inputs.gamma, [width]), EPSILON));
        let after = match next {
            Next::Nothing => After::Nothing,
            Next::Add(factor) => After::Add { residual: bed.full(&inputs.residual, [tokens, outputs]), factor },
            Next::Activate(function) => After::Activate(function),
            Next::Gate(function) => After::Gate(function),
        };
        let out = linear(x, &weight, bias, norm, after)?;
        Ok(Outputs::from([("out", read_f32(out).await?)]))
    }

    fn check(&self, half: bool, got: &Outputs) -> Vec<Comparison> {
        let out = output(got, "out");
        let mut checked = vec![Self::bound(half).check("out", &self.twin(half, None), out)];
        if self.values == Values::Hand {
            // W x + bias is (1.5, 5), and (0.5, -1) for the row of zeros; twice this is added to the residual.
            let hand = [13.0, 30.0, 31.0, 38.0];
            checked.push(Bound::Exact.check("out, by hand", &hand[..self.tokens * self.outputs], out));
        }
        checked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_gate_have_both_halves() {
        let op = Linear { parts: 2, next: Next::Gate(Activation::Silu), ..plain([1, 1, 3]) };
        let parts = op.cut(&[0.0, 1.0, 2.0, 10.0, 11.0, 12.0], 1);
        assert_eq!(parts, [vec![0.0, 1.0, 10.0, 11.0], vec![2.0, 12.0]]);
        let parts = Linear { next: Next::Nothing, ..op }.cut(&[0.0, 1.0, 2.0], 1);
        assert_eq!(parts, [vec![0.0, 1.0], vec![2.0]]);
    }

    #[test]
    fn a_wrong_result_is_a_fault() {
        let hand = cases().into_iter().map(|case| case.op).find(|op| op.values == Values::Hand).unwrap();
        let fault = |values: &[f32]| {
            let got = Outputs::from([("out", values.to_vec())]);
            hand.check(false, &got).into_iter().find_map(|checked| checked.fault)
        };
        assert_eq!(fault(&[13.0, 30.0]), None);
        assert!(fault(&[13.0, 30.001]).is_some());
        assert!(fault(&[13.0]).is_some());
    }
}
