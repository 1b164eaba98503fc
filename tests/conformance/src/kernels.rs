//! The table of cases of the samplers' operations, and how one is run.
//!
//! Every case runs twice on the device and must give the same bits; its result is compared with the f64 twin, which starts
//! from the same rounded inputs; nothing beside inputs and outputs may be written. What a case prints is all there is to know
//! of it: numbers are drawn from its text.

pub(crate) mod compact;
pub(crate) mod region_pool;
pub(crate) mod row_gather;
pub(crate) mod scale_select;
pub(crate) mod text_score;
pub(crate) mod top_k;

use std::{collections::BTreeMap, fmt};

use fovea_runtime::{Error, OpenDevice, Scale, sampler_ops::runs_kernels, sentinels};
use web_time::Instant;

use crate::{
    Depth,
    bed::Bed,
    bound::{Bound, Held},
    row::{Outcome, Row},
};

/// What an operation gave, by name. Indices, boxes and counts are whole numbers far below 2^24, which f32 holds.
pub(crate) type Outputs = BTreeMap<&'static str, Vec<f32>>;

/// One case of one operation: what it needs of the suite.
pub(crate) trait Operation: fmt::Display {
    /// Its name in reports, and the first word of every case.
    const NAME: &'static str;

    /// What it is held to, and why that is enough.
    fn tolerance(&self, half: bool) -> String;

    /// Whether there is a kernel for this shape.
    fn has_kernel(&self) -> bool {
        true
    }

    /// Computes on the device.
    async fn run(&self, half: bool, bed: &mut Bed<'_>) -> Result<Outputs, Error>;

    /// Holds what came against the twin.
    fn hold(&self, half: bool, got: &Outputs) -> Vec<Held>;
}

/// The operation of a case, with its shapes.
#[derive(Clone, Debug)]
enum Shape {
    RegionPool(region_pool::RegionPool),
    ScaleSelect(scale_select::ScaleSelect),
    Compact(compact::Compact),
    TextScore(text_score::TextScore),
    TopK(top_k::TopK),
    RowGather(row_gather::RowGather),
}

/// A line of the table.
#[derive(Clone, Debug)]
pub struct KernelCase {
    shape: Shape,
    /// Whether numbers are stored in f16.
    half: bool,
    /// Whether it takes too long for a look in passing.
    large: bool,
    /// Why it is here.
    why: &'static str,
}

/// Calls a generic function with the operation of a case.
macro_rules! with_operation {
    ($case:expr, $op:ident => $call:expr) => {
        match &$case.shape {
            Shape::RegionPool($op) => $call,
            Shape::ScaleSelect($op) => $call,
            Shape::Compact($op) => $call,
            Shape::TextScore($op) => $call,
            Shape::TopK($op) => $call,
            Shape::RowGather($op) => $call,
        }
    };
}

/// The whole table: operation by operation, each shape in f32 and, where the operation stores f16, in f16.
pub fn table(depth: Depth) -> Vec<KernelCase> {
    let mut all = Vec::new();
    add(&mut all, region_pool::cases(), true, Shape::RegionPool);
    add(&mut all, scale_select::cases(), true, Shape::ScaleSelect);
    add(&mut all, compact::cases(), true, Shape::Compact);
    add(&mut all, text_score::cases(), true, Shape::TextScore);
    add(&mut all, top_k::cases(), false, Shape::TopK);
    add(&mut all, row_gather::cases(), true, Shape::RowGather);
    all.retain(|case| depth == Depth::Full || !case.large);
    all
}

/// A shape of an operation in the table.
pub(crate) struct Planned<O> {
    pub op: O,
    pub why: &'static str,
    pub large: bool,
}

impl<O> Planned<O> {
    /// Runs always.
    pub fn new(why: &'static str, op: O) -> Self {
        Self { op, why, large: false }
    }

    /// Runs only where time does not matter.
    pub fn large(why: &'static str, op: O) -> Self {
        Self { op, why, large: true }
    }
}

fn add<O: Clone>(to: &mut Vec<KernelCase>, planned: Vec<Planned<O>>, halves: bool, shape: impl Fn(O) -> Shape) {
    let dtypes: &[bool] = if halves { &[false, true] } else { &[false] };
    for Planned { op, why, large } in planned {
        to.extend(dtypes.iter().map(|&half| KernelCase { shape: shape(op.clone()), half, large, why }));
    }
}

impl fmt::Display for KernelCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        with_operation!(self, op => fmt::Display::fmt(op, f))?;
        write!(f, " {}", dtype(self.half))
    }
}

impl KernelCase {
    /// Runs on a device.
    ///
    /// # Errors
    /// [`Error::DeviceLost`]; anything else that goes wrong is the row's.
    pub async fn run(&self, open: &OpenDevice) -> Result<Row, Error> {
        with_operation!(self, op => self.row(op, open).await)
    }

    async fn row<O: Operation>(&self, op: &O, open: &OpenDevice) -> Result<Row, Error> {
        let path = if runs_kernels(&open.device) && op.has_kernel() { "wgsl" } else { "tensor ops" };
        let mut row = Row {
            op: O::NAME.into(),
            case: self.to_string(),
            why: self.why.into(),
            dtype: dtype(self.half).into(),
            path: path.into(),
            tolerance: op.tolerance(self.half),
            nmse: 0.0,
            max_abs: 0.0,
            first_bad: None,
            flips: 0,
            buffers_guarded: 0,
            bit_identical: true,
            milliseconds: 0.0,
            outcome: Outcome::Pass,
        };
        if self.half && !open.has_f16() && open.info.backend != "cpu" {
            row.bit_identical = false;
            row.outcome = Outcome::Skipped { why: "the adapter computes in f32 only".into() };
            return Ok(row);
        }
        let start = Instant::now();
        let first = self.once(op, open, &mut row).await?;
        let second = self.once(op, open, &mut row).await?;
        row.milliseconds = start.elapsed().as_secs_f64() * 1e3;
        let (Some(first), Some(second)) = (first, second) else {
            row.bit_identical = false;
            (row.nmse, row.max_abs) = (f64::INFINITY, f64::INFINITY);
            return Ok(row);
        };
        row.take(op.hold(self.half, &first));
        if let Some(why) = other_bits(&first, &second) {
            row.bit_identical = false;
            row.fail(why);
        }
        Ok(row)
    }

    /// One run; None where it failed, and the row says why.
    async fn once<O: Operation>(&self, op: &O, open: &OpenDevice, row: &mut Row) -> Result<Option<Outputs>, Error> {
        let mut bed = Bed::new(&open.device, self.half);
        sentinels::begin();
        let ran = open.guard(op.run(self.half, &mut bed)).await;
        // Ends the guard in any case.
        let guarded = open.guard(sentinels::check()).await;
        match guarded {
            Ok(buffers) => row.buffers_guarded = row.buffers_guarded.max(buffers),
            Err(lost @ Error::DeviceLost(_)) => return Err(lost),
            Err(why) => row.fail(why.to_string()),
        }
        if let Some(why) = open.guard(bed.overwritten()).await? {
            row.fail(why);
        }
        match ran {
            Ok(outputs) => Ok(Some(outputs)),
            Err(lost @ Error::DeviceLost(_)) => Err(lost),
            Err(why) => {
                row.fail(format!("expected a result, got: {why}"));
                Ok(None)
            }
        }
    }
}

/// What is stored.
const fn dtype(half: bool) -> &'static str {
    if half { "f16" } else { "f32" }
}

/// The sentence about the first number whose bits are not those of the first run.
fn other_bits(first: &Outputs, second: &Outputs) -> Option<String> {
    if first.keys().ne(second.keys()) {
        return Some(format!("expected two runs alike, got {:?} and then {:?}", first.keys(), second.keys()));
    }
    first.iter().zip(second.values()).find_map(|((name, a), b)| {
        if a.len() != b.len() {
            return Some(format!("{name}: expected two runs alike, got {} numbers and then {}", a.len(), b.len()));
        }
        let at = a.iter().zip(b).position(|(a, b)| a.to_bits() != b.to_bits())?;
        Some(format!("{name}: expected two runs alike, got {} and then {} at {at}", a[at], b[at]))
    })
}

/// The output of a name; none of its numbers where it is not there, which no comparison passes.
pub(crate) fn output<'a>(got: &'a Outputs, name: &str) -> &'a [f32] {
    got.get(name).map_or(&[], Vec::as_slice)
}

/// Whether a typed error came where one was expected, and none elsewhere.
pub(crate) fn refusal(got: &Outputs, expected: bool) -> Held {
    Bound::Exact.hold("refused", &[f32::from(u8::from(expected))], output(got, REFUSED))
}

/// The output that says whether a typed error came: 1, else 0.
pub(crate) const REFUSED: &str = "refused";

/// Indices as an output.
pub(crate) fn whole(values: impl IntoIterator<Item = usize>) -> Vec<f32> {
    values.into_iter().map(|i| i as f32).collect()
}

/// Scales as a case prints them: `4x4,2x2,drop`.
pub(crate) struct Scales<'a>(pub &'a [Scale]);

impl fmt::Display for Scales<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, scale) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{scale}")?;
        }
        Ok(())
    }
}

/// The paper's seven kernels.
pub(crate) const SEVEN: [Scale; 7] = [
    Scale::new(4, 4),
    Scale::new(2, 2),
    Scale::new(1, 1),
    Scale::new(4, 2),
    Scale::new(2, 4),
    Scale::new(2, 1),
    Scale::new(1, 2),
];

/// Twenty kernels: more than one launch takes.
pub(crate) fn twenty() -> Vec<Scale> {
    (1..=4).flat_map(|rows| (1..=5).map(move |cols| Scale::new(rows, cols))).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_case_prints_as_itself_and_has_a_reason() {
        let all = table(Depth::Full);
        let texts: BTreeSet<String> = all.iter().map(KernelCase::to_string).collect();
        assert_eq!(texts.len(), all.len(), "different texts (got, expected)");
        assert!(all.iter().all(|case| !case.why.is_empty()));
        assert!(table(Depth::Quick).len() < all.len());
    }

    #[test]
    fn other_bits_are_seen() {
        let one = |values: &[f32]| Outputs::from([("x", values.to_vec())]);
        assert_eq!(other_bits(&one(&[1.0, f32::NAN]), &one(&[1.0, f32::NAN])), None);
        assert!(other_bits(&one(&[0.0]), &one(&[-0.0])).is_some());
        assert!(other_bits(&one(&[0.0]), &one(&[])).is_some());
        assert!(other_bits(&one(&[0.0]), &Outputs::new()).is_some());
    }

    #[test]
    fn nothing_is_never_a_pass() {
        for case in table(Depth::Quick).into_iter().filter(|case| case.to_string().contains("hand")) {
            let held = with_operation!(case, op => op.hold(case.half, &Outputs::new()));
            assert!(held.iter().any(|held| held.fault.is_some()), "{case}: expected a fault, got none");
        }
    }
}
