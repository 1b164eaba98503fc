//! The table of cases of the operations of samplers, network and selective scan, and how a case runs.
//!
//! Every case runs twice on the device and must give equal bits. The result is compared with the f64 twin, which gets
//! the same rounded inputs. Writes outside inputs and outputs are failures. The text of a case defines it completely:
//! the text is the seed of its random numbers.

pub(crate) mod compact;
pub(crate) mod region_pool;
pub(crate) mod attend;
pub(crate) mod attend_full;
pub(crate) mod embed;
pub(crate) mod linear;
pub(crate) mod norm;
pub(crate) mod pick;
pub(crate) mod rotate;
pub(crate) mod rounded;
pub(crate) mod row_gather;
pub(crate) mod scale_select;
pub(crate) mod selective_scan;
pub(crate) mod text_score;
pub(crate) mod top_k;

use std::{collections::BTreeMap, fmt};

use fovea_runtime::{
    Error, OpenDevice, Scale,
    sampler_ops::runs_kernels,
    testing::{begin_sentinels, check_sentinels},
};
use futures_util::future::join;
use web_time::Instant;

use crate::{
    Depth,
    bed::Bed,
    bound::{Bound, Comparison},
    row::{Outcome, Row},
};

/// Outputs of an operation, by name. Indices, boxes and counts are integers far below 2^24, exact in f32.
pub(crate) type Outputs = BTreeMap<&'static str, Vec<f32>>;

/// One case of one operation.
pub(crate) trait Operation: fmt::Display {
    /// Its name in reports, and the first word of every case.
    const NAME: &'static str;

    /// The bound, and why it is strict enough.
    fn tolerance(&self, half: bool) -> String;

    /// Whether there is a kernel for this shape.
    fn has_kernel(&self) -> bool {
        true
    }

    /// Runs on the device.
    async fn run(&self, half: bool, bed: &mut Bed<'_>) -> Result<Outputs, Error>;

    /// Compares the outputs with the twin's.
    fn check(&self, half: bool, got: &Outputs) -> Vec<Comparison>;
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
    Embed(embed::Embed),
    Norm(norm::Norm),
    Linear(linear::Linear),
    Rounded(rounded::Rounded),
    AttendFull(attend_full::AttendFull),
    Rotate(rotate::Rotate),
    Attend(attend::Attend),
    Pick(pick::Pick),
    SelectiveScan(selective_scan::SelectiveScan),
}

/// A row of the table.
#[derive(Clone, Debug)]
pub struct KernelCase {
    shape: Shape,
    /// Whether numbers are stored in f16.
    half: bool,
    /// Whether it is too slow for [`Depth::Quick`].
    large: bool,
    /// Its purpose.
    why: &'static str,
}

/// Evaluates an expression with the operation of a case.
macro_rules! with_operation {
    ($case:expr, $op:ident => $call:expr) => {
        match &$case.shape {
            Shape::RegionPool($op) => $call,
            Shape::ScaleSelect($op) => $call,
            Shape::Compact($op) => $call,
            Shape::TextScore($op) => $call,
            Shape::TopK($op) => $call,
            Shape::RowGather($op) => $call,
            Shape::Embed($op) => $call,
            Shape::Norm($op) => $call,
            Shape::Linear($op) => $call,
            Shape::Rounded($op) => $call,
            Shape::AttendFull($op) => $call,
            Shape::Rotate($op) => $call,
            Shape::Attend($op) => $call,
            Shape::Pick($op) => $call,
            Shape::SelectiveScan($op) => $call,
        }
    };
}

/// The table: all operations with all shapes, in f32 and, if the operation supports it, in f16.
pub fn table(depth: Depth) -> Vec<KernelCase> {
    let mut all = Vec::new();
    add(&mut all, region_pool::cases(), true, Shape::RegionPool);
    add(&mut all, scale_select::cases(), true, Shape::ScaleSelect);
    add(&mut all, compact::cases(), true, Shape::Compact);
    add(&mut all, text_score::cases(), true, Shape::TextScore);
    add(&mut all, top_k::cases(), false, Shape::TopK);
    add(&mut all, row_gather::cases(), true, Shape::RowGather);
    add(&mut all, embed::cases(), true, Shape::Embed);
    add(&mut all, embed::codes(), false, Shape::Embed);
    add(&mut all, norm::cases(), false, Shape::Norm);
    add(&mut all, linear::cases(), true, Shape::Linear);
    add(&mut all, linear::codes(), false, Shape::Linear);
    add(&mut all, rounded::cases(), false, Shape::Rounded);
    add(&mut all, attend_full::cases(), false, Shape::AttendFull);
    add(&mut all, rotate::cases(), true, Shape::Rotate);
    add(&mut all, attend::cases(), true, Shape::Attend);
    add(&mut all, pick::cases(), false, Shape::Pick);
    add(&mut all, selective_scan::cases(), false, Shape::SelectiveScan);
    all.retain(|case| depth == Depth::Full || !case.large);
    all
}

/// A shape of an operation in the table.
pub(crate) struct Planned<O> {
    /// The shape.
    pub op: O,
    /// What the case tests.
    pub why: &'static str,
    /// Whether it runs only at [`Depth::Full`].
    pub large: bool,
}

impl<O> Planned<O> {
    /// Runs at every depth.
    pub fn new(why: &'static str, op: O) -> Self {
        Self { op, why, large: false }
    }

    /// Runs only at [`Depth::Full`].
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
    /// [`Error::DeviceLost`]. The row contains all other errors.
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
        let (first, second) = self.twice(op, open, &mut row).await?;
        row.milliseconds = start.elapsed().as_secs_f64() * 1e3;
        let (Some(first), Some(second)) = (first, second) else {
            row.bit_identical = false;
            (row.nmse, row.max_abs) = (f64::INFINITY, f64::INFINITY);
            return Ok(row);
        };
        row.add(op.check(self.half, &first));
        if let Some(why) = other_bits(&first, &second) {
            row.bit_identical = false;
            row.fail(why);
        }
        Ok(row)
    }

    /// Two runs; None for one that failed. The row then contains the reason.
    ///
    async fn twice<O: Operation>(
        &self,
        op: &O,
        open: &OpenDevice,
        row: &mut Row,
    ) -> Result<(Option<Outputs>, Option<Outputs>), Error> {
        let (mut bed, mut other) = (Bed::new(&open.device, self.half), Bed::new(&open.device, self.half));
        begin_sentinels();
        let first = open.guard(op.run(self.half, &mut bed));
        let (first, second) = both(first, open.guard(op.run(self.half, &mut other))).await;
        // Called in any case: it also ends the sentinels.
        let inputs = both(open.guard(bed.overwritten()), open.guard(other.overwritten()));
        let (guarded, (changed, changed_too)) = both(open.guard(check_sentinels()), inputs).await;
        match guarded {
            Ok(buffers) => row.buffers_guarded = buffers,
            Err(lost @ Error::DeviceLost(_)) => return Err(lost),
            Err(why) => row.fail(why.to_string()),
        }
        if let Some(why) = changed?.or(changed_too?) {
            row.fail(why);
        }
        let mut outputs = |ran| match ran {
            Ok(outputs) => Ok(Some(outputs)),
            Err(lost @ Error::DeviceLost(_)) => Err(lost),
            Err(why) => {
                row.fail(format!("expected a result, got: {why}"));
                Ok(None)
            }
        };
        Ok((outputs(first)?, outputs(second)?))
    }
}

/// Both results. In a browser the two wait for the device together, because each wait takes 100 ms in Firefox; elsewhere one
/// after the other, because CubeCL's native read-backs do not end side by side.
async fn both<A, B>(first: impl Future<Output = A>, second: impl Future<Output = B>) -> (A, B) {
    if cfg!(target_family = "wasm") { join(first, second).await } else { (first.await, second.await) }
}

/// The stored type.
const fn dtype(half: bool) -> &'static str {
    if half { "f16" } else { "f32" }
}

/// A message about the first number whose bits differ between the runs.
fn other_bits(first: &Outputs, second: &Outputs) -> Option<String> {
    if first.keys().ne(second.keys()) {
        return Some(format!("expected two equal runs, got {:?} and then {:?}", first.keys(), second.keys()));
    }
    first.iter().zip(second.values()).find_map(|((name, a), b)| {
        if a.len() != b.len() {
            return Some(format!("{name}: expected two equal runs, got {} numbers and then {}", a.len(), b.len()));
        }
        let at = a.iter().zip(b).position(|(a, b)| a.to_bits() != b.to_bits())?;
        Some(format!("{name}: expected two equal runs, got {} and then {} at {at}", a[at], b[at]))
    })
}

/// An output by name. A missing output is empty, so that every comparison fails.
pub(crate) fn output<'a>(got: &'a Outputs, name: &str) -> &'a [f32] {
    got.get(name).map_or(&[], Vec::as_slice)
}

/// Checks that a typed error was returned if, and only if, one was expected.
pub(crate) fn refusal(got: &Outputs, expected: bool) -> Comparison {
    Bound::Exact.check("refused", &[f32::from(u8::from(expected))], output(got, REFUSED))
}

/// The output that is 1 if a typed error was returned, else 0.
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

/// The paper's seven scales.
pub(crate) const SEVEN: [Scale; 7] = [
    Scale::new(4, 4),
    Scale::new(2, 2),
    Scale::new(1, 1),
    Scale::new(4, 2),
    Scale::new(2, 4),
    Scale::new(2, 1),
    Scale::new(1, 2),
];

/// Twenty scales: more than fit into one launch.
pub(crate) fn twenty() -> Vec<Scale> {
    (1..=4).flat_map(|rows| (1..=5).map(move |cols| Scale::new(rows, cols))).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_case_has_a_unique_text_and_a_purpose() {
        let all = table(Depth::Full);
        let texts: BTreeSet<String> = all.iter().map(KernelCase::to_string).collect();
        assert_eq!(texts.len(), all.len(), "different texts (got, expected)");
        assert!(all.iter().all(|case| !case.why.is_empty()));
        assert!(table(Depth::Quick).len() < all.len());
    }

    #[test]
    fn different_bits_are_detected() {
        let one = |values: &[f32]| Outputs::from([("x", values.to_vec())]);
        assert_eq!(other_bits(&one(&[1.0, f32::NAN]), &one(&[1.0, f32::NAN])), None);
        assert!(other_bits(&one(&[0.0]), &one(&[-0.0])).is_some());
        assert!(other_bits(&one(&[0.0]), &one(&[])).is_some());
        assert!(other_bits(&one(&[0.0]), &Outputs::new()).is_some());
    }

    #[test]
    fn missing_outputs_never_pass() {
        for case in table(Depth::Quick).into_iter().filter(|case| case.to_string().contains("hand")) {
            let checked = with_operation!(case, op => op.check(case.half, &Outputs::new()));
            assert!(checked.iter().any(|checked| checked.fault.is_some()), "{case}: expected a fault, got none");
        }
    }
}
