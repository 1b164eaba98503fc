//! Cuts a picture into tiles. Input: a picture and the image settings of a checkpoint. Output: the vision tower's input,
//! normalised: first the thumbnail, then the tiles in raster order. Source: `LlavaNextImageProcessor` in Hugging Face's
//! `models/llava_next/image_processing_llava_next.py`, torchvision backend.
//!
//! LLaVA-NeXT's "anyres": choose a canvas, resize the picture into it
//! keeping the aspect ratio, centre it on black, cut the canvas into tiles. The thumbnail is the whole picture resized to
//! one tile, without keeping the aspect ratio.

use crate::{config::TileConfig, error::Error, picture::Picture, resize::bicubic};

/// The vision tower's input for one picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Tiles {
    /// Normalised pixels (count, 3, side, side): first the thumbnail, then the tiles in raster order.
    pub pixel_values: Vec<f32>,
    /// Number of tiles, with the thumbnail: `rows * cols + 1`.
    pub count: usize,
    /// Number of rows of tiles.
    pub rows: usize,
    /// Number of columns of tiles.
    pub cols: usize,
    /// Side of a tile, in pixels.
    pub side: usize,
}

impl TileConfig {
    /// The normalised value of each byte in each channel, (3, 256).
    ///
    /// `y = (f32(x) - m * f32(1/rescale)) / (s * f32(1/rescale))`, every operation rounded to f32: the fused form that
    /// the reference uses, not `(x * rescale - m) / s`, which differs in the last bit. A byte has 256 values, so a table
    /// is exact.
    fn tables(&self) -> [[f32; 256]; 3] {
        let (mean, std) = self.in_bytes();
        std::array::from_fn(|c| std::array::from_fn(|byte| (byte as f32 - mean[c]) / std[c]))
    }

    /// The normalised pixels of a picture, (3, height, width).
    pub fn normalised(&self, picture: &Picture) -> Vec<f32> {
        let plane = |(channel, table): (usize, &[f32; 256])| -> Vec<f32> {
            picture.rgb().iter().skip(channel).step_by(3).map(|&byte| table[usize::from(byte)]).collect()
        };
        self.tables().iter().enumerate().flat_map(plane).collect()
    }
}

/// The canvas (height, width) for a picture: the one that keeps most of its pixels; of equal ones the one with the least
/// waste, then the first.
///
/// `kept = min(int(w*s) * int(h*s), h*w)` with `s = min(W/w, H/h)` in f64; `waste = H*W - kept`. (0, 0) if the list
/// is empty.
#[must_use]
pub fn best_resolution(height: usize, width: usize, pinpoints: &[(usize, usize)]) -> (usize, usize) {
    let area = (height as u64).saturating_mul(width as u64);
    let mut best: Option<(u64, u64, (usize, usize))> = None;
    for &(canvas_height, canvas_width) in pinpoints {
        let scale = (canvas_width as f64 / width as f64).min(canvas_height as f64 / height as f64);
        let (w, h) = ((width as f64 * scale) as u64, (height as f64 * scale) as u64);
        let kept = w.saturating_mul(h).min(area);
        let waste = (canvas_height as u64).saturating_mul(canvas_width as u64).saturating_sub(kept);
        if best.is_none_or(|(most, least, _)| kept > most || (kept == most && waste < least)) {
            best = Some((kept, waste, (canvas_height, canvas_width)));
        }
    }
    best.map_or((0, 0), |(_, _, canvas)| canvas)
}

/// The size (height, width) of a picture fitted into a canvas: one side fills it, the other is `ceil(length * s)`, at
/// most that of the canvas.
fn fitted(height: usize, width: usize, canvas: (usize, usize)) -> (usize, usize) {
    let (scale_w, scale_h) = (canvas.1 as f64 / width as f64, canvas.0 as f64 / height as f64);
    if scale_w < scale_h {
        (((height as f64 * scale_w).ceil() as usize).min(canvas.0), canvas.1)
    } else {
        (canvas.0, ((width as f64 * scale_h).ceil() as usize).min(canvas.1))
    }
}

/// The picture in the centre of a black canvas (height, width), RGB8. An odd pixel of padding is right or below.
fn letterboxed(picture: &Picture, canvas: (usize, usize)) -> Result<Vec<u8>, Error> {
    let (height, width) = fitted(picture.height(), picture.width(), canvas);
    let inner = bicubic(picture, width, height)?;
    let (top, left) = ((canvas.0 - height) / 2, (canvas.1 - width) / 2);
    let mut rgb = vec![0; canvas.0 * canvas.1 * 3];
    for (row, source) in rgb.chunks_exact_mut(canvas.1 * 3).skip(top).zip(inner.rgb().chunks_exact(width * 3)) {
        row[left * 3..][..width * 3].copy_from_slice(source);
    }
    Ok(rgb)
}

/// Cuts a picture into the vision tower's input.
///
/// # Errors
/// [`Error::Config`] if the settings are invalid; [`Error::Picture`] if the picture cannot be resized.
pub fn tiles(picture: &Picture, config: &TileConfig) -> Result<Tiles, Error> {
    config.check()?;
    let side = config.side;
    let canvas = best_resolution(picture.height(), picture.width(), &config.pinpoints);
    let (rows, cols) = (canvas.0 / side, canvas.1 / side);
    let count = rows * cols + 1;
    let tables = config.tables();
    let mut pixel_values = Vec::with_capacity(count * 3 * side * side);
    // appends a square as three normalised planes; its first byte is at `from`, in rows of `width` RGB8 pixels
    let mut push = |rgb: &[u8], from: usize, width: usize| {
        for (channel, table) in tables.iter().enumerate() {
            for row in rgb[from..].chunks(width * 3).take(side) {
                pixel_values
                    .extend(row[..side * 3].as_chunks::<3>().0.iter().map(|pixel| table[pixel[channel] as usize]));
            }
        }
    };
    push(bicubic(picture, side, side)?.rgb(), 0, side);
    let rgb = letterboxed(picture, canvas)?;
    for row in 0..rows {
        for col in 0..cols {
            push(&rgb, (row * canvas.1 + col) * side * 3, canvas.1);
        }
    }
    Ok(Tiles { pixel_values, count, rows, cols, side })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The canvases of the published checkpoint, (height, width).
    const PINPOINTS: [(usize, usize); 5] = [(336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)];

    #[test]
    fn the_canvas_keeps_most_then_wastes_least_then_comes_first() {
        assert_eq!(best_resolution(672, 672, &PINPOINTS), (672, 672));
        assert_eq!(best_resolution(336, 336, &PINPOINTS), (336, 672)); // all keep everything: least waste, then first
        assert_eq!(best_resolution(1080, 1920, &PINPOINTS), (672, 672)); // 672x378 kept, more than 597x336
        assert_eq!(best_resolution(10000, 1, &PINPOINTS), (336, 672));
        assert_eq!(best_resolution(5, 5, &[]), (0, 0));
    }

    #[test]
    fn fitting_fills_one_side() {
        assert_eq!(fitted(205, 328, (336, 672)), (336, 538));
        assert_eq!(fitted(1, 10000, (336, 672)), (1, 672));
        assert_eq!(fitted(672, 672, (672, 672)), (672, 672));
    }

    #[test]
    fn a_small_picture_is_centred_on_black() -> Result<(), Error> {
        let config = TileConfig {
            side: 2,
            pinpoints: vec![(2, 4)],
            mean: [0.0, 0.5, 0.0],
            std: [1.0, 1.0, 0.5],
            rescale: 1.0 / 255.0,
        };
        let out = tiles(&Picture::from_rgb(2, 2, [255, 51, 102].repeat(4))?, &config)?;
        assert_eq!((out.count, out.rows, out.cols, out.side), (3, 1, 2, 2));
        let plane = |i: usize| &out.pixel_values[i * 4..][..4];
        let (green, dark) = ((51.0 - 127.5) / 255.0, -0.5);
        assert_eq!(out.pixel_values.len(), 3 * 3 * 4);
        assert_eq!(plane(0), [1.0; 4]); // thumbnail, red
        assert_eq!(plane(1), [green; 4]);
        assert_eq!(plane(2), [0.8; 4]);
        assert_eq!(plane(3), [0.0, 1.0, 0.0, 1.0]); // left tile: black, then the picture's left column
        assert_eq!(plane(4), [dark, green, dark, green]);
        assert_eq!(plane(6), [1.0, 0.0, 1.0, 0.0]); // right tile
        Ok(())
    }
}
