//! Input: the data of an overlay and a pixel or an index. Output: one token of the map or one class token, and its
//! description in words.

use fovea_model::{Looked, TokenPart, VisualToken};
use fovea_overlay::rectangle;

/// One token of the map on a picture, or one class token.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// The facts about it.
    facts: VisualToken,
    /// Its index among all visual tokens.
    pub index: usize,
    /// The number of visual tokens.
    pub of: usize,
    /// Its rectangles on the picture, in pixels: left, top, right, bottom. Several for a merged token, none for a class
    /// token.
    pub pixels: Vec<[f32; 4]>,
}

impl Token {
    /// The tokens of the map and the class tokens, on a picture of `size` (width, height).
    fn all(looked: &Looked, size: (usize, usize)) -> impl DoubleEndedIterator<Item = Self> {
        let tokens = looked.tokens();
        let of = tokens.len();
        let shown = |token: &VisualToken| matches!(token.part, TokenPart::Map | TokenPart::Class);
        tokens.into_iter().filter(shown).filter_map(move |facts| {
            let rects = facts.patches.iter().filter_map(|&patches| rectangle(looked, size.0, size.1, patches));
            let pixels: Vec<_> = rects.map(|rect| [rect.left, rect.top, rect.right, rect.bottom]).collect();
            let is_there = facts.part == TokenPart::Class || !pixels.is_empty();
            is_there.then_some(Self { index: facts.index, of, pixels, facts })
        })
    }

    /// The token under a pixel of a picture of `size` (width, height); `None` on padding and where a region was dropped.
    pub fn under(looked: &Looked, size: (usize, usize), [x, y]: [f32; 2]) -> Option<Self> {
        let holds = |[left, top, right, bottom]: [f32; 4]| (left..right).contains(&x) && (top..bottom).contains(&y);
        Self::all(looked, size).find(|token| token.pixels.iter().copied().any(holds))
    }

    /// The token with this index; `None` for tokens of the thumbnail, for newlines, and beyond the last token.
    pub fn at(looked: &Looked, size: (usize, usize), index: usize) -> Option<Self> {
        Self::all(looked, size).find(|token| token.index == index)
    }

    /// The next of these tokens after `index`, or with `back` the one before it. After the last token comes the first.
    pub fn next(looked: &Looked, size: (usize, usize), index: Option<usize>, back: bool) -> Option<Self> {
        let mut tokens = Self::all(looked, size);
        if back {
            let before = |token: &Self| index.is_some_and(|index| token.index < index);
            tokens.rfind(before).or_else(|| Self::all(looked, size).next_back())
        } else {
            let after = |token: &Self| index.is_none_or(|index| token.index > index);
            tokens.find(after).or_else(|| Self::all(looked, size).next())
        }
    }

    /// A description for tooltips and screen readers.
    pub fn words(&self) -> String {
        let what = match (self.facts.part, &self.facts.patches[..], &self.pixels[..]) {
            (TokenPart::Class, ..) => "class token, which stands for a whole tile".to_owned(),
            (_, &[[y0, x0, y1, x1]], pixels) => {
                let [left, top, right, bottom] = pixels.first().copied().unwrap_or_default().map(f32::round);
                format!("{}x{} patches, pixels {left}-{right} x {top}-{bottom}", y1 - y0, x1 - x0)
            }
            (_, merged, _) => {
                let patches: usize = merged.iter().map(|[y0, x0, y1, x1]| (y1 - y0) * (x1 - x0)).sum();
                format!("{patches} patches, merged")
            }
        };
        let mut out = format!("Token {} of {}: {what}", self.index + 1, self.of);
        if let Some(scale) = self.facts.scale {
            out += &format!("\nRegion at scale {scale}");
        }
        if let (Some(share), Some(rank)) = (self.facts.share, self.facts.rank) {
            let fate = if self.facts.kept { "kept" } else { "dropped" };
            out += &format!("\nImportance {:.2} %, rank {rank} of {}: {fate}", 100.0 * share, self.of);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fovea_model::{Grid, Origin};
    use fovea_runtime::Scale;
    use fovea_shaders::{Cell, compact};

    use super::*;

    /// A map of 8 x 8 patches on 80 x 80 pixels: the first region at 2x2, the others at 4x4.
    fn looked() -> Looked {
        let scales = [Scale::new(4, 4), Scale::new(2, 2)];
        let choice = vec![1, 0, 0, 0];
        let map = compact(8, 8, 4, &scales, &choice).into_iter().map(|(patches, cell)| match cell {
            Cell::Newline => Origin::Newline(patches),
            _ => Origin::Map(vec![patches]),
        });
        let origins: Vec<_> = (0..16).map(|patch| Origin::Thumbnail(vec![patch])).chain(map).collect();
        let count = origins.len();
        Looked {
            grid: Grid { rows: 2, cols: 2, patches: 4, side: 4, cut: (8, 8), height: 8, width: 8, ..Grid::default() },
            compression: "focus".into(),
            window: 4,
            scales: Arc::new(scales.to_vec()),
            choice: Arc::new(choice),
            origins: Arc::new(origins),
            importance: (0..count).map(|i| i as f32).collect(),
            kept: vec![0, 16, 18],
        }
    }

    #[test]
    fn the_token_under_a_pixel_is_found_and_described() {
        let (looked, size) = (looked(), (80, 80));
        // Scanline order: 2x2, 2x2, the 4x4 beside them, newline; then the lower 2x2 pair.
        let first = Token::under(&looked, size, [5.0, 5.0]).expect("a token");
        assert_eq!((first.index, first.of, first.pixels.clone()), (16, 26, vec![[0.0, 0.0, 20.0, 20.0]]));
        // The importance here is the index: 16 of 0 + 1 + ... + 25.
        let expected = "Token 17 of 26: 2x2 patches, pixels 0-20 x 0-20\n\
                        Region at scale 2x2\n\
                        Importance 4.92 %, rank 10 of 26: kept";
        assert_eq!(first.words(), expected, "(got, expected)");
        let wide = Token::under(&looked, size, [70.0, 30.0]).expect("a token");
        assert_eq!(wide.index, 18);
        assert!(wide.words().contains("4x4 patches") && wide.words().contains("scale 4x4"), "{}", wide.words());
        let second = Token::under(&looked, size, [25.0, 5.0]).expect("a token");
        assert!(second.words().contains("dropped"), "{second:?}");
        assert_eq!(Token::under(&looked, size, [90.0, 5.0]), None);
        assert_eq!((Token::at(&looked, size, 16), Token::at(&looked, size, 15)), (Some(first), None));
    }

    #[test]
    fn merged_and_class_tokens_are_described() {
        let (mut looked, size) = (looked(), (80, 80));
        let merged = Origin::Map(vec![[0, 0, 1, 1], [7, 6, 8, 8]]);
        (looked.origins, looked.importance) = (Arc::new(vec![Origin::Class(0), merged]), Vec::new());
        for point in [[5.0, 5.0], [75.0, 75.0]] {
            let token = Token::under(&looked, size, point).expect("a token");
            assert_eq!(
                (token.words().as_str(), token.pixels.len()),
                ("Token 2 of 2: 3 patches, merged\nRegion at scale 2x2", 2)
            );
        }
        assert_eq!(Token::under(&looked, size, [35.0, 35.0]), None, "patches without a token");
        let class = Token::next(&looked, size, None, false).expect("a token");
        assert_eq!(
            (class.index, class.words().as_str()),
            (0, "Token 1 of 2: class token, which stands for a whole tile")
        );
    }

    #[test]
    fn steps_wrap_around_and_skip_newlines() {
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
