//! Input: the scales that regions can have. Output: their order from coarse to fine, and one color per scale.

use fovea_runtime::Scale;

use crate::canvas::Color;
use crate::colors::{FAINT, scale};

/// The order of scales from coarse to fine.
pub struct Fineness {
    /// Indices of the scales, the coarsest first; scales that drop their region are last.
    order: Vec<usize>,
    /// Number of scales that emit tokens.
    emitting: usize,
}

impl Fineness {
    /// Orders scales by the number of patches in their kernel. The order in the config has no meaning.
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

    /// The color of the scale at `index`.
    pub fn color(&self, index: usize) -> Color {
        match self.order.iter().position(|&other| other == index) {
            Some(place) if place < self.emitting => scale(place as f32 / (self.emitting - 1).max(1) as f32),
            _ => FAINT,
        }
    }
}
