//! Cuts a picture into tiles. Input: a picture and the image settings of a checkpoint. Output: the vision tower's
//! input, normalised, in the order of Hugging Face's image processors. Source: `image_processing_*.py` in transformers'
//! `models/` `llava_next`, `llava_onevision`, `clip`, `siglip` and `idefics3`, torchvision backend.
//!
//! Every cut resizes the picture and keeps or cuts it:
//! - "anyres" (LLaVA-NeXT): choose a canvas, resize the picture into it keeping the aspect ratio, centre it on black,
//!   cut the canvas into tiles. The thumbnail is the whole picture resized to one tile, without keeping the aspect
//!   ratio.
//! - one tile (LLaVA-1.5, LLaVA-Interleave): the picture is centre-cropped, stretched, or padded to a square.
//! - split (Idefics3): the picture is stretched to whole tiles. The thumbnail is resized to one tile once more, and is
//!   last.

use crate::{
    config::{Cut, TileConfig},
    error::Error,
    picture::{MAX_SIDE, Picture},
    resize::{Kernel, resize, resize_part, resize_square},
};

/// Largest side after Idefics3's first resize, in pixels.
pub(crate) const SPLIT_LIMIT: usize = 4096;

/// The vision tower's input for one picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Tiles {
    /// Normalised pixels (count, 3, side, side). With [`Cut::Anyres`] first the thumbnail, then the tiles in raster
    /// order; with [`Cut::Split`] first the tiles in raster order, then the thumbnail, if there are several; else one tile.
    pub pixel_values: Vec<f32>,
    /// Number of tiles, with the thumbnail.
    pub count: usize,
    /// Number of rows of tiles, without the thumbnail.
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
    /// the reference uses, not `(x * rescale - m) / s`, which differs in the last bit. A byte has 256 values, so a
    /// table is exact.
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

    /// The size (height, width) of what is cut into tiles, in pixels: whole tiles.
    pub(crate) fn canvas(&self, height: usize, width: usize) -> (usize, usize) {
        match self.cut {
            Cut::Anyres { ref pinpoints, .. } => best_resolution(height, width, pinpoints),
            Cut::Split { longest, into_tiles: true } => stretched(resized_to(height, width, longest), self.side),
            Cut::Squash | Cut::Pad | Cut::CenterCrop { .. } | Cut::Split { .. } => (self.side, self.side),
        }
    }

    /// The mean color, `int(255 mean)`.
    fn background(&self) -> [u8; 3] {
        self.mean.map(|mean| (f64::from(mean) * 255.0) as u8)
    }
}

/// The canvas (height, width) for a picture: the one that keeps most of its pixels; of equal ones the one with the
/// least waste, then the first.
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

/// The picture in the centre of a black canvas (height, width). An odd pixel of padding is right or below.
fn letterboxed(picture: &Picture, canvas: (usize, usize), kernel: Kernel) -> Result<Picture, Error> {
    let (height, width) = fitted(picture.height(), picture.width(), canvas);
    let inner = resize(picture, width, height, kernel)?;
    let (top, left) = ((canvas.0 - height) / 2, (canvas.1 - width) / 2);
    let mut rgb = vec![0; canvas.0 * canvas.1 * 3];
    for (row, source) in rgb.chunks_exact_mut(canvas.1 * 3).skip(top).zip(inner.rgb().chunks_exact(width * 3)) {
        row[left * 3..][..width * 3].copy_from_slice(source);
    }
    Picture::from_rgb(canvas.1, canvas.0, rgb)
}

/// The size (height, width) of Idefics3's first resize: the longer side is `longest` pixels, the other `int` of its
/// share, plus 1 if that is odd; then both are reduced to at most 4096 pixels.
fn resized_to(height: usize, width: usize, longest: usize) -> (usize, usize) {
    let even = |length: f64| (length as usize).next_multiple_of(2);
    let longest = longest.clamp(1, MAX_SIDE);
    let aspect = width as f64 / height as f64;
    let (height, width) = if width >= height {
        (even(longest as f64 / aspect).max(1), longest)
    } else {
        (longest, even(longest as f64 * aspect).max(1))
    };
    let (limit, aspect) = (SPLIT_LIMIT, width as f64 / height as f64);
    if width >= height && width > limit {
        (((limit as f64 / aspect) as usize).max(1), limit)
    } else if height > width && height > limit {
        (limit, ((limit as f64 * aspect) as usize).max(1))
    } else {
        (height, width)
    }
}

/// The size (height, width) of Idefics3's second resize: the longer side is the next multiple of `side`, the other the
/// next multiple of `int` of its share.
fn stretched((height, width): (usize, usize), side: usize) -> (usize, usize) {
    let aspect = width as f64 / height as f64;
    let whole = |length: usize| length.max(1).next_multiple_of(side.max(1));
    if width >= height {
        let width = whole(width);
        (whole((width as f64 / aspect) as usize), width)
    } else {
        let height = whole(height);
        (height, whole((height as f64 * aspect) as usize))
    }
}

/// The middle of a picture whose shorter side is resized to `shortest` pixels, the longer one to `int` of its share. An
/// odd pixel is cut off right or below.
fn center_crop(picture: &Picture, shortest: usize, config: &TileConfig) -> Result<Picture, Error> {
    let (width, height, side) = (picture.width(), picture.height(), config.side);
    let short = width.min(height);
    let target = (shortest * width / short, shortest * height / short);
    resize_part(picture, target, [(target.0 - side) / 2, (target.1 - side) / 2, side, side], config.kernel)
}

/// Cuts a picture into the vision tower's input.
///
/// # Errors
/// [`Error::Config`] if the settings are invalid; [`Error::Picture`] if the picture cannot be resized.
pub fn tiles(picture: &Picture, config: &TileConfig) -> Result<Tiles, Error> {
    config.check()?;
    let (side, kernel) = (config.side, config.kernel);
    let canvas = config.canvas(picture.height(), picture.width());
    let (rows, cols) = (canvas.0 / side, canvas.1 / side);
    // what is cut, and the thumbnail as one more tile: before the others, or after them
    let (picture, first, last) = match config.cut {
        Cut::Anyres { .. } => {
            let thumbnail = resize(picture, side, side, kernel)?;
            (letterboxed(picture, canvas, kernel)?, Some(thumbnail), None)
        }
        Cut::Squash => (resize(picture, side, side, kernel)?, None, None),
        Cut::Pad => (resize_square(picture, side, config.background(), kernel)?, None, None),
        Cut::CenterCrop { shortest } => (center_crop(picture, shortest, config)?, None, None),
        Cut::Split { longest, .. } => {
            let (height, width) = resized_to(picture.height(), picture.width(), longest);
            let inner = resize(picture, width, height, kernel)?;
            let stretched = resize(&inner, canvas.1, canvas.0, kernel)?;
            let whole = (rows * cols > 1).then(|| resize(&stretched, side, side, kernel)).transpose()?;
            (stretched, None, whole)
        }
    };
    let count = rows * cols + usize::from(first.is_some() || last.is_some());
    let tables = config.tables();
    let mut pixel_values = Vec::with_capacity(count * 3 * side * side);
    // appends a square as three normalised planes; its first byte is at `from`
    let mut push = |picture: &Picture, from: usize| {
        for (channel, table) in tables.iter().enumerate() {
            for row in picture.rgb()[from..].chunks(picture.width() * 3).take(side) {
                pixel_values
                    .extend(row[..side * 3].as_chunks::<3>().0.iter().map(|pixel| table[pixel[channel] as usize]));
            }
        }
    };
    if let Some(thumbnail) = &first {
        push(thumbnail, 0);
    }
    for row in 0..rows {
        for col in 0..cols {
            push(&picture, (row * canvas.1 + col) * side * 3);
        }
    }
    if let Some(whole) = &last {
        push(whole, 0);
    }
    Ok(Tiles { pixel_values, count, rows, cols, side })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grid::Newline;

    /// The canvases of the published checkpoint, (height, width).
    const PINPOINTS: [(usize, usize); 5] = [(336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)];

    /// Settings that leave the bytes as they are.
    fn bytes(side: usize, cut: Cut) -> TileConfig {
        let kernel = if matches!(cut, Cut::Split { .. }) { Kernel::Lanczos } else { Kernel::Bicubic };
        TileConfig { side, cut, newline: Newline::None, kernel, mean: [0.0; 3], std: [1.0; 3], rescale: 1.0 }
    }

    /// A picture of noise.
    fn noise(width: usize, height: usize) -> Result<Picture, Error> {
        let byte = |i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8;
        Picture::from_rgb(width, height, (0..width as u32 * height as u32 * 3).map(byte).collect())
    }

    /// The number of tiles, and the FNV-1a hash of their pixels as bytes.
    fn hash(width: usize, height: usize, config: &TileConfig) -> Result<(usize, u64), Error> {
        let out = tiles(&noise(width, height)?, config)?;
        let step = |hash: u64, &pixel: &f32| (hash ^ pixel as u64).wrapping_mul(0x0100_0000_01b3);
        Ok((out.count, out.pixel_values.iter().fold(0xcbf2_9ce4_8422_2325, step)))
    }

    /// Compares with Hugging Face's image processors in transformers 5.24 with torchvision 0.29.
    #[test]
    fn tiles_have_hugging_face_s_bytes() -> Result<(), Error> {
        let crop = |shortest| bytes(48, Cut::CenterCrop { shortest });
        let padded = TileConfig { mean: [0.481_454_66, 0.457_827_5, 0.408_210_73], ..bytes(46, Cut::Pad) };
        assert_eq!(padded.background(), [122, 116, 104]);
        let split = |side, longest, into_tiles| bytes(side, Cut::Split { longest, into_tiles });
        let onevision = (1..=6).flat_map(|h| (1..=6).map(move |w| (46 * h, 46 * w))).collect();
        let onevision = bytes(46, Cut::Anyres { pinpoints: onevision, most_tiles: Some(9) });
        let next = vec![(48, 96), (96, 48), (96, 96), (144, 48), (48, 144)];
        let next = bytes(48, Cut::Anyres { pinpoints: next, most_tiles: None });
        let next = TileConfig { kernel: Kernel::Lanczos, ..next };
        for (config, width, height, count, expected) in [
            (crop(48), 100, 37, 1, 0x912c_e157_c7e0_45e1),
            (crop(48), 37, 100, 1, 0x0019_ad15_9b6d_e34b),
            (crop(48), 1, 300, 1, 0x4670_3e21_c27b_44f5),
            (crop(48), 300, 1, 1, 0xba3b_e99d_9b1a_0265),
            (crop(48), 48, 48, 1, 0xd122_94bd_0df9_6090),
            (crop(48), 5, 5, 1, 0x3002_192b_e182_2327),
            (crop(48), 1, 1, 1, 0xb9bf_5453_0483_3b25),
            (crop(60), 100, 37, 1, 0xcc22_1089_5b23_9e36),
            (crop(60), 37, 101, 1, 0x5f99_5fa6_8cc5_de6e),
            (bytes(46, Cut::Squash), 61, 92, 1, 0x7867_bef0_7b45_3e72),
            (bytes(46, Cut::Squash), 1, 300, 1, 0x7a63_7fa9_f93a_5505),
            (bytes(46, Cut::Squash), 46, 46, 1, 0x2c8c_7de0_07fe_ec83),
            (onevision.clone(), 61, 92, 5, 0x694f_d5ef_74b0_0e31),
            (onevision.clone(), 300, 1, 2, 0xe5ac_5b91_c3a2_fcab),
            (onevision, 184, 138, 13, 0x2ee1_1b21_b2cd_f6c7),
            (next.clone(), 100, 37, 4, 0x5037_5b71_f1e1_4571),
            (next, 30, 61, 3, 0x635f_b1ba_763d_694c),
            (split(55, 220, true), 100, 37, 9, 0xf611_a62a_7d0a_9688),
            (split(55, 220, true), 37, 100, 9, 0xf353_e10c_53c8_7665),
            (split(55, 220, true), 20, 20, 17, 0xf8d9_7bda_5991_ad0e),
            (split(48, 40, true), 30, 20, 1, 0x9044_cfdc_9d71_0b8c),
            (split(48, 192, true), 1, 300, 5, 0xf900_394a_0517_2925),
            (split(48, 192, true), 300, 1, 5, 0x012c_65ec_c731_6b05),
            (split(48, 192, false), 50, 90, 1, 0x91d2_15d9_98fa_6d2f),
        ] {
            assert_eq!(hash(width, height, &config)?, (count, expected), "{width}x{height}, {:?}", config.cut);
        }
        Ok(())
    }

    #[test]
    fn padded_squares_have_hugging_face_s_bytes() -> Result<(), Error> {
        for (width, height, expected) in [
            (61, 92, 0xa491_8ab4_acdf_2e6c),
            (92, 61, 0xcdd8_2c98_b432_65ef),
            (46, 20, 0x56c7_92ca_ee75_1c7f),
            (7, 46, 0x320c_34b9_cd16_80c8),
            (1, 300, 0x9e40_b38c_220c_6e1d),
            (300, 1, 0x1e65_f1aa_5a58_6620),
        ] {
            let square = resize_square(&noise(width, height)?, 46, [122, 116, 104], Kernel::Bicubic)?;
            let planes = bytes(46, Cut::Squash).normalised(&square);
            let step = |hash: u64, &pixel: &f32| (hash ^ pixel as u64).wrapping_mul(0x0100_0000_01b3);
            assert_eq!(planes.iter().fold(0xcbf2_9ce4_8422_2325, step), expected, "{width}x{height}");
        }
        Ok(())
    }

    #[test]
    fn pictures_of_any_shape_are_cut() -> Result<(), Error> {
        for cut in [
            Cut::Anyres { pinpoints: vec![(48, 96), (96, 48)], most_tiles: None },
            Cut::Squash,
            Cut::Pad,
            Cut::CenterCrop { shortest: 48 },
            Cut::Split { longest: 192, into_tiles: true },
        ] {
            for (width, height) in [(1, 1), (1, MAX_SIDE), (MAX_SIDE, 1), (2, 3)] {
                let out = tiles(&noise(width, height)?, &bytes(48, cut.clone()))?;
                assert_eq!(out.pixel_values.len(), out.count * 3 * 48 * 48, "{width}x{height}, {cut:?}");
            }
        }
        assert!(matches!(hash(5, 5, &bytes(0, Cut::Squash)), Err(Error::Config { .. })));
        assert!(matches!(hash(5, 5, &bytes(48, Cut::CenterCrop { shortest: 47 })), Err(Error::Config { .. })));
        Ok(())
    }

    #[test]
    fn split_pictures_are_resized_as_idefics3_does() {
        assert_eq!(
            [(480, 640), (1080, 1920), (1001, 333)].map(|(h, w)| resized_to(h, w, 2048)),
            [(1536, 2048), (1152, 2048), (2048, 682)]
        );
        assert_eq!([(333, 1000), (1000, 333)].map(|(h, w)| resized_to(h, w, 16384)), [(1364, 4096), (4096, 1364)]);
        assert_eq!(
            [(1536, 2048), (1152, 2048), (2048, 682), (2048, 1)].map(|size| stretched(size, 512)),
            [(1536, 2048), (1536, 2048), (2048, 1024), (2048, 512)]
        );
    }

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
            mean: [0.0, 0.5, 0.0],
            std: [1.0, 1.0, 0.5],
            rescale: 1.0 / 255.0,
            ..bytes(2, Cut::Anyres { pinpoints: vec![(2, 4)], most_tiles: None })
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
