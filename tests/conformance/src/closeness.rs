//! Measures the difference between expected and computed numbers.
//!
//! NMSE = sum (expected - got)^2 / sum expected^2, in f64. A number that is not finite fails every bound, and so does
//! a different count of numbers.

/// The difference of one stage.
#[derive(Clone, Debug)]
pub struct Report {
    /// The stage.
    pub stage: String,
    /// Normalized mean square error; infinite if a value is not finite or the counts differ.
    pub nmse: f64,
    /// Largest absolute error; infinite if a value is not finite or the counts differ.
    pub worst: f64,
    /// The first index with this error, or the first value that is not finite.
    pub at: usize,
    /// The expected value at this index.
    pub expected: f64,
    /// The computed value at this index.
    pub got: f64,
    /// Counts of expected and computed numbers.
    pub counts: (usize, usize),
}

/// Compares `got` with `expected`.
pub fn compare<A, B>(stage: &str, expected: &[A], got: &[B]) -> Report
where
    A: Copy + Into<f64>,
    B: Copy + Into<f64>,
{
    let counts = (expected.len(), got.len());
    let mut report =
        Report { stage: stage.to_owned(), nmse: 0.0, worst: 0.0, at: 0, expected: f64::NAN, got: f64::NAN, counts };
    if counts.0 != counts.1 {
        (report.nmse, report.worst) = (f64::INFINITY, f64::INFINITY);
        return report;
    }
    let (mut error, mut power) = (0.0, 0.0);
    for (at, (&a, &b)) in expected.iter().zip(got).enumerate() {
        let (a, b): (f64, f64) = (a.into(), b.into());
        let distance = (a - b).abs();
        if !distance.is_finite() {
            let (nmse, worst) = (f64::INFINITY, f64::INFINITY);
            return Report { nmse, worst, at, expected: a, got: b, ..report };
        }
        if at == 0 || distance > report.worst {
            (report.worst, report.at, report.expected, report.got) = (distance, at, a, b);
        }
        error += distance * distance;
        power += a * a;
    }
    report.nmse = match (error == 0.0, power == 0.0) {
        (true, _) => 0.0,
        (false, true) => f64::INFINITY,
        (false, false) => error / power,
    };
    report
}

impl Report {
    /// # Errors
    /// A message, if the NMSE is not at most `bound`.
    pub fn nmse_within(&self, bound: f64) -> Result<(), String> {
        if self.nmse <= bound { Ok(()) } else { Err(format!("expected an NMSE of at most {bound:e}; {self}")) }
    }

    /// # Errors
    /// A message, if the largest absolute error is not at most `bound`.
    pub fn abs_within(&self, bound: f64) -> Result<(), String> {
        if self.worst <= bound { Ok(()) } else { Err(format!("expected errors of at most {bound:e}; {self}")) }
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { stage, nmse, worst, at, expected, got, counts } = self;
        if counts.0 != counts.1 {
            return write!(f, "{stage}: expected {} numbers, got {}", counts.0, counts.1);
        }
        write!(f, "{stage}: NMSE {nmse:.2e}, worst {worst:.2e} at {at}: expected {expected}, got {got}")
    }
}

/// Compares the bits of two lists.
///
/// # Errors
/// A message with the first index at which the bits differ, and both numbers.
pub fn same_bits(stage: &str, expected: &[f32], got: &[f32]) -> Result<(), String> {
    if expected.len() != got.len() {
        return Err(format!("{stage}: expected {} numbers, got {}", expected.len(), got.len()));
    }
    match expected.iter().zip(got).position(|(a, b)| a.to_bits() != b.to_bits()) {
        None => Ok(()),
        Some(at) => Err(format!(
            "{stage}: expected equal bits, got a difference at {at}: expected {}, got {}",
            expected[at], got[at]
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nmse_is_squared_error_divided_by_power() {
        // (0.5^2) / (3^2 + 4^2) = 0.01.
        let report = compare("x", &[3.0f32, 4.0], &[3.0f32, 4.5]);
        assert_eq!((report.nmse, report.worst, report.at), (0.01, 0.5, 1));
        assert!(report.nmse_within(0.01).is_ok() && report.nmse_within(0.009).is_err());
        assert!(report.abs_within(0.5).is_ok() && report.abs_within(0.4).is_err());
    }

    #[test]
    fn nan_and_missing_numbers_fail_every_bound() {
        let bad = [
            compare("x", &[1.0f32], &[f32::NAN]),
            compare("x", &[f32::INFINITY], &[f32::INFINITY]),
            compare("x", &[1.0f32], &[1.0f32, 1.0]),
            compare("x", &[0.0f32], &[1e-20f32]),
        ];
        for report in bad {
            assert!(report.nmse_within(1e300).is_err(), "{report}");
        }
        assert!(same_bits("x", &[0.0], &[-0.0]).is_err());
        assert!(same_bits("x", &[1.0], &[1.0, 2.0]).is_err());
    }
}
