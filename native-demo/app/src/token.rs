//! What is known of one visual token: where it lies, at which scale, how important it is, and whether it stayed.

use fovea_model::{Looked, overlay::rectangle};

/// One token of the map.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// Its index among all visual tokens.
    pub index: usize,
    /// How many there are.
    pub of: usize,
    /// Its rectangle on the picture, in pixels: left, top, right, bottom.
    pub pixels: [f32; 4],
    /// The patches it stands for: rows and columns.
    pub patches: (usize, usize),
    /// The scale of its region; None without the vision-guided sampler.
    pub scale: Option<String>,
    /// Its share of the importance; None without the text-guided sampler.
    pub importance: Option<f32>,
    /// Its place by falling importance, from 1.
    pub rank: Option<usize>,
    /// Whether the upper layers saw it.
    pub kept: bool,
}

impl Token {
    /// The token under a pixel of a picture of `size` (width, height); None on padding, or where a region was dropped.
    pub fn under(looked: &Looked, size: (usize, usize), [x, y]: [f32; 2]) -> Option<Self> {
        let holds = |&at: &[usize; 4]| {
            rectangle(looked, size.0, size.1, at)
                .is_some_and(|r| (r.left..r.right).contains(&x) && (r.top..r.bottom).contains(&y))
        };
        let place = looked.boxes.iter().position(holds)?;
        Self::at(looked, size, looked.thumbnail + place)
    }

    /// The token of this index; None for the thumbnail's, for newlines, and beyond the last.
    pub fn at(looked: &Looked, size: (usize, usize), index: usize) -> Option<Self> {
        let patches = *looked.boxes.get(index.checked_sub(looked.thumbnail)?)?;
        let rect = rectangle(looked, size.0, size.1, patches)?;
        let importance = looked.importance.get(index).copied();
        let rank = importance.map(|own| {
            let before = |(i, other): (usize, &f32)| *other > own || *other == own && i < index;
            let above = looked.importance.iter().enumerate().filter(|&(i, o)| before((i, o))).count();
            above + 1
        });
        let sum: f32 = looked.importance.iter().sum();
        let [y0, x0, y1, x1] = patches;
        Some(Self {
            index,
            of: looked.thumbnail + looked.boxes.len(),
            pixels: [rect.left, rect.top, rect.right, rect.bottom],
            patches: (y1 - y0, x1 - x0),
            scale: scale(looked, y0, x0),
            importance: importance.map(|own| own / sum),
            rank,
            kept: looked.kept.binary_search(&index).is_ok(),
        })
    }

    /// The next token of the map after `index`, or the one before it where `back`; round at the ends.
    pub fn next(looked: &Looked, size: (usize, usize), index: Option<usize>, back: bool) -> Option<Self> {
        let (first, count) = (looked.thumbnail, looked.boxes.len());
        let begin = index.map_or(if back { 0 } else { count.wrapping_sub(1) }, |i| i.saturating_sub(first));
        (1..=count).find_map(|step| {
            let place = if back { begin + count - step % count } else { begin + step } % count;
            Self::at(looked, size, first + place)
        })
    }

    /// In words, as a tooltip and a screen reader have it.
    pub fn words(&self) -> String {
        let [left, top, right, bottom] = self.pixels.map(f32::round);
        let (rows, cols) = self.patches;
        let mut out = format!(
            "Token {} of {}: {rows}x{cols} patches, pixels {left}-{right} x {top}-{bottom}",
            self.index + 1,
            self.of
        );
        if let Some(scale) = &self.scale {
            out += &format!("\nRegion at scale {scale}");
        }
        if let (Some(importance), Some(rank)) = (self.importance, self.rank) {
            let fate = if self.kept { "kept" } else { "dropped" };
            out += &format!("\nImportance {:.2} %, rank {rank} of {}: {fate}", 100.0 * importance, self.of);
        }
        out
    }
}

/// The scale of the region that a patch lies in.
fn scale(looked: &Looked, y: usize, x: usize) -> Option<String> {
    let window = looked.window.max(1);
    let across = looked.grid.width.div_ceil(window);
    let choice = *looked.choice.get(y / window * across + x / window)?;
    looked.scales.get(choice).map(ToString::to_string)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fovea_model::Grid;
    use fovea_runtime::{Scale, compact};

    use super::*;

    /// A map of 8 x 8 patches on 80 x 80 pixels: the first region at 2x2, the others at 4x4.
    fn looked() -> Looked {
        let scales = [Scale::new(4, 4), Scale::new(2, 2)];
        let choice = vec![1, 0, 0, 0];
        let boxes: Vec<_> = compact(8, 8, 4, &scales, &choice).into_iter().map(|(b, _)| b).collect();
        let count = 16 + boxes.len();
        Looked {
            grid: Grid { rows: 2, cols: 2, patches: 4, top: 0, left: 0, height: 8, width: 8 },
            window: 4,
            scales: Arc::new(scales.to_vec()),
            choice: Arc::new(choice),
            thumbnail: 16,
            boxes: Arc::new(boxes),
            importance: (0..count).map(|i| i as f32).collect(),
            kept: vec![0, 16, 18],
        }
    }

    #[test]
    fn a_token_tells_its_place_scale_rank_and_fate() {
        let (looked, size) = (looked(), (80, 80));
        // Scanline order: 2x2, 2x2, the 4x4 beside them, newline; then the lower 2x2 pair.
        let first = Token::under(&looked, size, [5.0, 5.0]).expect("a token");
        assert_eq!((first.index, first.pixels, first.patches), (16, [0.0, 0.0, 20.0, 20.0], (2, 2)));
        assert_eq!((first.scale.as_deref(), first.kept), (Some("2x2"), true));
        let all = looked.importance.len();
        assert_eq!((first.of, first.rank), (all, Some(all - 16)));
        // Importance here is the index, and its share that of 0 + 1 + ... + (all - 1).
        let share = 16.0 / (all * (all - 1) / 2) as f32;
        assert!(first.importance.is_some_and(|own| (own - share).abs() < 1e-6), "{first:?}, expected {share}");
        let told = first.words();
        assert!(told.starts_with(&format!("Token 17 of {all}: 2x2 patches")), "{told}");
        let wide = Token::under(&looked, size, [70.0, 30.0]).expect("a token");
        assert_eq!((wide.index, wide.patches, wide.scale.as_deref(), wide.kept), (18, (4, 4), Some("4x4"), true));
        let second = Token::under(&looked, size, [25.0, 5.0]).expect("a token");
        assert!(!second.kept && second.words().contains("dropped"), "{second:?}");
        assert_eq!(Token::under(&looked, size, [90.0, 5.0]), None);
    }

    #[test]
    fn steps_go_round_and_leave_newlines_out() {
        let (looked, size) = (looked(), (80, 80));
        let mut seen = Vec::new();
        let mut at = None;
        loop {
            let token = Token::next(&looked, size, at, false).expect("a token");
            if seen.contains(&token.index) {
                break;
            }
            seen.push(token.index);
            at = Some(token.index);
        }
        assert_eq!(seen.len(), 4 + 3); // four of the fine region, three others
        assert_eq!(seen[0], 16);
        let last = Token::next(&looked, size, Some(16), true).expect("a token");
        assert_eq!(Some(&last.index), seen.last());
    }
}
