//! Enters: the scales that regions chose from. Leaves: their order from coarse to fine, and a colour for each.

use fovea_runtime::Scale;

use super::canvas::Colour;
use super::colours::{FAINT, scale};

/// A list of scales, each by its place from coarse to fine.
pub struct Fineness {
    /// Indices of the scales, the coarsest first; one that drops its region last.
    order: Vec<usize>,
    /// How many of them emit tokens.
    emitting: usize,
}

impl Fineness {
    /// Orders scales by the patches of their kernels: a scale is known by its kernel, never by its index.
    pub fn of(scales: &[Scale]) -> Self {
        let mut order: Vec<usize> = (0..scales.len()).collect();
        order.sort_by_key(|&i| {
            (scales[i].drops(), std::cmp::Reverse((scales[i].rows.saturating_mul(scales[i].cols), scales[i].rows)))
        });
        Self { order, emitting: scales.iter().filter(|scale| !scale.drops()).count() }
    }

    /// The indices, the coarsest first.
    pub fn order(&self) -> impl Iterator<Item = usize> {
        self.order.iter().copied()
    }

    /// The colour of the scale at `index`.
    pub fn colour(&self, index: usize) -> Colour {
        match self.order.iter().position(|&other| other == index) {
            Some(place) if place < self.emitting => scale(place as f32 / (self.emitting - 1).max(1) as f32),
            _ => FAINT,
        }
    }
}
