//! Enters: the values along an axis. Leaves: where it begins and ends, its round numbers, and how they are written.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

/// Steps between round numbers, as parts of a power of ten.
const STEPS: [f64; 5] = [1.0, 2.0, 2.5, 5.0, 10.0];
/// Values beyond this are left out, like those that are not finite.
const FARTHEST: f64 = 1e30;

/// An axis.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Axis {
    /// Where it begins.
    pub(super) from: f64,
    /// Where it ends; always beyond `from`.
    pub(super) to: f64,
    /// The round numbers on it.
    pub(super) ticks: Vec<f64>,
    step: f64,
}

/// Whether a value can be drawn.
pub(super) fn drawable(value: f64) -> bool {
    value.abs() <= FARTHEST
}

/// The least and the greatest value, never equal; 0 and 1 where there are none.
fn spread(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (least, most) = values
        .filter(|&value| drawable(value))
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), value| (least.min(value), most.max(value)));
    let size = least.abs().max(most.abs());
    if least > most || size < 1.0 / FARTHEST {
        (0.0, 1.0)
    } else if most - least <= size * 1e-6 {
        (least - size * 0.1, most + size * 0.1)
    } else {
        (least, most)
    }
}

/// Begins at 0 where the values are not far above it.
fn grounded((least, most): (f64, f64)) -> (f64, f64) {
    if least > 0.0 && least < most / 2.0 { (0.0, most) } else { (least, most) }
}

/// The least round step that is not less.
fn round_step(least: f64) -> f64 {
    let power = 10f64.powi(least.log10().floor() as i32);
    STEPS.iter().map(|step| step * power).find(|step| *step >= least * 0.999).unwrap_or(power * 10.0)
}

impl Axis {
    /// Begins and ends at the outermost values.
    pub(super) fn tight(values: impl Iterator<Item = f64>, about: f64) -> Self {
        let (from, to) = spread(values);
        let step = round_step((to - from) / about);
        let (first, last) = ((from / step - 1e-6).ceil(), (to / step + 1e-6).floor());
        Self { from, to, ticks: between(first, last, step), step }
    }

    /// Begins and ends at round numbers.
    pub(super) fn round(values: impl Iterator<Item = f64>, about: f64) -> Self {
        let (from, to) = grounded(spread(values));
        let step = round_step((to - from) / about);
        let (first, last) = ((from / step + 1e-6).floor(), (to / step - 1e-6).ceil());
        Self { from: first * step, to: last * step, ticks: between(first, last, step), step }
    }

    /// Has its round numbers where another axis has its own, so that one grid serves both.
    pub(super) fn beside(values: impl Iterator<Item = f64>, other: &Self) -> Self {
        let (from, to) = grounded(spread(values));
        let parts = other.ticks.len().saturating_sub(1).max(1) as f64;
        let mut step = round_step((to - from) / parts);
        let mut first = (from / step + 1e-6).floor();
        // a range that straddles a round number may need the next step, and that one always suffices after a few
        for _ in 0..STEPS.len() {
            if first + parts >= to / step - 1e-6 {
                break;
            }
            step = round_step(step * 1.01);
            first = (from / step + 1e-6).floor();
        }
        Self { from: first * step, to: (first + parts) * step, ticks: between(first, first + parts, step), step }
    }

    /// Without round numbers.
    pub(super) fn bare(self) -> Self {
        Self { ticks: Vec::new(), ..self }
    }

    /// A round number, written with as many decimals as the step needs, in thousands or millions where it is large.
    pub(super) fn label(&self, value: f64) -> String {
        let size = self.from.abs().max(self.to.abs());
        if value.abs() < self.step * 1e-3 {
            return "0".to_owned();
        }
        let (unit, sign) = match size {
            _ if !(1e-2..1e10).contains(&size) => return scientific(value),
            _ if size >= 1e6 => (1e6, "M"),
            _ if size >= 1e4 => (1e3, "k"),
            _ => (1.0, ""),
        };
        let step = self.step / unit;
        let whole = |decimals: &i32| {
            let scaled = step * 10f64.powi(*decimals);
            (scaled - scaled.round()).abs() < 1e-6 * scaled.max(1.0) && scaled.round() > 0.0
        };
        let decimals = (0..7).find(whole).unwrap_or(6) as usize;
        format!("{:.decimals$}{sign}", value / unit)
    }
}

/// A value of any size, such as 2.5e-4.
fn scientific(value: f64) -> String {
    let written = format!("{value:.6e}");
    match written.split_once('e') {
        Some((digits, power)) => format!("{}e{power}", digits.trim_end_matches('0').trim_end_matches('.')),
        None => written,
    }
}

/// The multiples of a step from one to another.
fn between(first: f64, last: f64, step: f64) -> Vec<f64> {
    let count = (last - first).clamp(0.0, 64.0).round() as usize;
    (0..=count).map(|index| (first + index as f64) * step).collect()
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (first, last): (i32, i32)) -> i32 {
        let part = (value - self.from) / (self.to - self.from);
        (f64::from(first) + part * f64::from(last - first)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        // no finer grid than that of the round numbers
        if hint.weight().allow_light_points() { Vec::new() } else { self.ticks.clone() }
    }

    fn range(&self) -> Range<f64> {
        self.from..self.to
    }
}

impl ValueFormatter<f64> for Axis {
    fn format(value: &f64) -> String {
        value.to_string()
    }

    fn format_ext(&self, value: &f64) -> String {
        self.label(*value)
    }
}
