//! Zoom and pan: which part of a picture a rectangle of the window shows.

use eframe::egui::{Pos2, Rect, Vec2, pos2, vec2};

/// Maximum zoom; at 1 the whole picture fits.
const MOST: f32 = 24.0;

/// The visible part of the picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lens {
    /// 1: the whole picture fits.
    pub zoom: f32,
    /// The picture's point at the centre of the window, 0 to 1 along each side.
    pub centre: Vec2,
}

impl Default for Lens {
    fn default() -> Self {
        Self { zoom: 1.0, centre: Vec2::splat(0.5) }
    }
}

impl Lens {
    /// The rectangle of the whole picture of `size`, in window coordinates. `window` shows a part of it.
    pub fn rect(&self, window: Rect, size: Vec2) -> Rect {
        let fit = (window.width() / size.x).min(window.height() / size.y);
        let shown = size * fit * self.zoom;
        let corner = window.center() - self.centre * shown;
        Rect::from_min_size(corner, shown)
    }

    /// The picture's point, 0 to 1 along each side, under a point of the window.
    pub fn point(&self, window: Rect, size: Vec2, at: Pos2) -> Vec2 {
        let rect = self.rect(window, size);
        (at - rect.min) / rect.size()
    }

    /// Zooms by `factor`; the point under `at` stays in place.
    pub fn magnify(&mut self, window: Rect, size: Vec2, at: Pos2, factor: f32) {
        let before = self.point(window, size, at);
        self.zoom = (self.zoom * factor).clamp(1.0, MOST);
        let after = self.point(window, size, at);
        self.move_to(window, size, self.centre + before - after);
    }

    /// Moves the picture by `by` points.
    pub fn pan(&mut self, window: Rect, size: Vec2, by: Vec2) {
        let rect = self.rect(window, size);
        self.move_to(window, size, self.centre - by / rect.size());
    }

    /// Moves the centre, and keeps the window inside the picture.
    fn move_to(&mut self, window: Rect, size: Vec2, centre: Vec2) {
        let rect = self.rect(window, size);
        let side = |centre: f32, shown: f32, whole: f32| {
            let half = 0.5 * shown / whole;
            if half >= 0.5 { 0.5 } else { centre.clamp(half, 1.0 - half) }
        };
        self.centre =
            vec2(side(centre.x, window.width(), rect.width()), side(centre.y, window.height(), rect.height()));
    }

    /// A part of the picture (left, top, right, bottom, each 0 to 1) in window coordinates.
    pub fn part(&self, window: Rect, size: Vec2, part: [f32; 4]) -> Rect {
        let rect = self.rect(window, size);
        let [left, top, right, bottom] = part;
        let at = |x: f32, y: f32| pos2(rect.min.x + x * rect.width(), rect.min.y + y * rect.height());
        Rect::from_min_max(at(left, top), at(right, bottom))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zoom_keeps_the_point_under_the_pointer_and_the_window_stays_inside_the_picture() {
        let window = Rect::from_min_size(pos2(10.0, 20.0), vec2(400.0, 200.0));
        let size = vec2(800.0, 400.0);
        let mut lens = Lens::default();
        assert_eq!(lens.rect(window, size), window);
        let at = pos2(110.0, 70.0); // a quarter along each side
        lens.magnify(window, size, at, 4.0);
        assert!((lens.point(window, size, at) - Vec2::splat(0.25)).length() < 1e-5, "{lens:?}");
        lens.pan(window, size, vec2(1e6, -1e6));
        let shown = lens.rect(window, size);
        assert!((shown.min.x - window.min.x).abs() < 1e-2 && (shown.max.y - window.max.y).abs() < 1e-2, "{shown:?}");
        lens.magnify(window, size, at, 1e-6);
        assert_eq!(lens, Lens::default());
        assert_eq!(
            lens.part(window, size, [0.5, 0.0, 1.0, 0.5]),
            Rect::from_min_max(pos2(210.0, 20.0), pos2(410.0, 120.0))
        );
    }
}
