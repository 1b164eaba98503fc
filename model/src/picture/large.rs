//! Input: a PNG or JPEG file above a limit of pixels. Output: RGB pixels, scaled down by an integer while they are decoded.
//!
//! PNG: rows as they come, and the mean of `n` x `n` pixels. JPEG: the inverse DCT of 8x8 coefficients gives 4x4, 2x2 or 1x1
//! pixels, which is close to that mean but not equal. Interlaced PNG, and progressive or CMYK JPEG, need all rows in memory:
//! they keep the limits of other formats.

use std::io::Cursor;

use image::{DynamicImage, ImageBuffer, ImageFormat, RgbImage};
use jpeg_decoder::PixelFormat;
use png::{BitDepth, ColorType, Transformations};

use super::{MAX_BYTES, MAX_PIXELS, MAX_SIDE, broken, check_memory, check_size, jpeg, refuse, to_rgb};
use crate::error::Error;

/// Largest side and number of pixels of a file.
const LARGEST_SIDE: u64 = 65_535;
const LARGEST: u64 = 1_000_000_000;
/// Largest number of bytes that a PNG may decompress to: limits the time for a small file that expands.
const MAX_RAW: u64 = 4 << 30;

/// When a picture is scaled down, and to what.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    /// Largest side of a picture of full size, and of a scaled one.
    pub side: u64,
    /// Largest number of pixels of a picture of full size.
    pub full: u64,
    /// Largest number of pixels of a scaled picture.
    pub scaled: u64,
}

impl Bounds {
    /// Scaled pictures have at most 64 megapixels: a second buffer, for the rotation, then fits into 400 MB too.
    pub const USUAL: Self = Self { side: MAX_SIDE as u64, full: 100_000_000, scaled: 64_000_000 };

    fn fits(self, width: u64, height: u64, pixels: u64) -> bool {
        width <= self.side && height <= self.side && width * height <= pixels
    }

    /// The first of `factors` that makes a picture small enough; `None` for a picture that stays as it is. `variant` is what
    /// prevents scaling, if anything does, and how to save the picture instead.
    ///
    /// # Errors
    /// [`Error::Picture`] if the picture is too large, also for its variant; [`fovea_runtime::Error::OutOfMemory`].
    fn factor(
        self,
        (width, height): (u32, u32),
        mut factors: impl Iterator<Item = u32>,
        variant: Option<(&str, &str)>,
    ) -> Result<Option<u32>, Error> {
        let (across, down) = (u64::from(width), u64::from(height));
        if across == 0 || down == 0 || self.fits(across, down, self.full) {
            return Ok(None);
        }
        if let Some((variant, instead)) = variant {
            let why = format!(
                "expected at most {MAX_SIDE} pixels per side and {} megapixels for {variant}, got {width}x{height}; \
                 shrink the picture, or save it {instead}",
                MAX_PIXELS / 1_000_000
            );
            return check_size(across, down).map_or_else(|_| refuse(why), |()| Ok(None));
        }
        let fits = |factor: &u32| {
            let factor = u64::from(*factor);
            self.fits(across.div_ceil(factor), down.div_ceil(factor), self.scaled)
        };
        let within = across <= LARGEST_SIDE && down <= LARGEST_SIDE && across * down <= LARGEST;
        let Some(factor) = factors.find(fits).filter(|_| within) else {
            return refuse(format!(
                "expected at most {LARGEST_SIDE} pixels per side and 1 gigapixel, got {width}x{height}; shrink the picture"
            ));
        };
        let pixels = u64::from(width.div_ceil(factor)) * u64::from(height.div_ceil(factor));
        check_memory(width, height, 6 * pixels)?;
        Ok(Some(factor))
    }
}

/// The mean of `factor` x `factor` pixels, from rows. The last column and row have the mean of the pixels that exist.
///
/// Channels are integers: `(sum + count / 2) / count`, so a half is rounded up.
struct Shrink {
    factor: usize,
    width: usize,
    /// One per pixel of the row that is computed.
    sums: Vec<[u32; 3]>,
    /// Rows in `sums`.
    rows: usize,
    rgb: Vec<u8>,
}

impl Shrink {
    fn new(width: u32, height: u32, factor: u32) -> Self {
        let sums = vec![[0; 3]; width.div_ceil(factor) as usize];
        let rgb = Vec::with_capacity(3 * sums.len() * height.div_ceil(factor) as usize);
        Self { factor: factor as usize, width: width as usize, sums, rows: 0, rgb }
    }

    /// Adds one row, RGB8.
    fn add(&mut self, row: &[u8]) {
        for (sum, block) in self.sums.iter_mut().zip(row.chunks(3 * self.factor)) {
            let add = |[r, g, b]: [u32; 3], pixel: &[u8; 3]| {
                let [more_r, more_g, more_b] = pixel.map(u32::from);
                [r + more_r, g + more_g, b + more_b]
            };
            *sum = block.as_chunks::<3>().0.iter().fold(*sum, add);
        }
        self.rows += 1;
        if self.rows == self.factor {
            self.end_row();
        }
    }

    fn end_row(&mut self) {
        for (x, sum) in self.sums.iter_mut().enumerate() {
            let count = (self.factor.min(self.width - x * self.factor) * self.rows) as u32;
            self.rgb.extend(sum.map(|sum| ((sum + count / 2) / count) as u8));
            *sum = [0; 3];
        }
        self.rows = 0;
    }

    fn finish(mut self) -> RgbImage {
        if self.rows > 0 {
            self.end_row();
        }
        let width = self.sums.len();
        let height = self.rgb.len() / (3 * width);
        RgbImage::from_raw(width as u32, height as u32, self.rgb).expect("three bytes per pixel")
    }
}

/// A plain PNG above the bounds, scaled down; `None` for one within them.
///
/// # Errors
/// [`Error::Picture`] if the file is broken or too large.
pub(super) fn scaled_png(bytes: &[u8], bounds: Bounds) -> Result<Option<RgbImage>, Error> {
    let failed = |error: png::DecodingError| broken(ImageFormat::Png, &error);
    let limits = png::Limits { bytes: MAX_BYTES as usize };
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), limits);
    decoder.set_transformations(Transformations::EXPAND);
    let header = decoder.read_header_info().map_err(failed)?;
    let (width, height) = header.size();
    let variant = header.interlaced.then_some(("an interlaced PNG", "without interlacing"));
    let raw = (header.bits_per_pixel() as u64 * u64::from(width)).div_ceil(8) * u64::from(height);
    let Some(factor) = bounds.factor((width, height), 2.., variant)? else { return Ok(None) };
    if raw > MAX_RAW {
        return refuse(format!(
            "expected at most {} GiB of pixels, got {} GiB; shrink the picture or save it with 8 bits",
            MAX_RAW >> 30,
            raw.div_ceil(1 << 30)
        ));
    }
    let mut reader = decoder.read_info().map_err(failed)?;
    let layout = reader.output_color_type();
    let mut shrink = Shrink::new(width, height, factor);
    while let Some(row) = reader.next_row().map_err(failed)? {
        let row = row_of(layout, width, row.data()).expect("a layout of a PNG and its bytes");
        shrink.add(&to_rgb(row));
    }
    Ok(Some(shrink.finish()))
}

/// One row of a PNG as a picture; `None` for a layout that does not exist after `EXPAND`.
fn row_of(layout: (ColorType, BitDepth), width: u32, row: &[u8]) -> Option<DynamicImage> {
    let bytes = || row.to_vec();
    let words = || row.as_chunks::<2>().0.iter().map(|pair| u16::from_be_bytes(*pair)).collect::<Vec<u16>>();
    match layout {
        (ColorType::Grayscale, BitDepth::Eight) => {
            ImageBuffer::from_raw(width, 1, bytes()).map(DynamicImage::ImageLuma8)
        }
        (ColorType::GrayscaleAlpha, BitDepth::Eight) => {
            ImageBuffer::from_raw(width, 1, bytes()).map(DynamicImage::ImageLumaA8)
        }
        (ColorType::Rgb, BitDepth::Eight) => ImageBuffer::from_raw(width, 1, bytes()).map(DynamicImage::ImageRgb8),
        (ColorType::Rgba, BitDepth::Eight) => ImageBuffer::from_raw(width, 1, bytes()).map(DynamicImage::ImageRgba8),
        (ColorType::Grayscale, BitDepth::Sixteen) => {
            ImageBuffer::from_raw(width, 1, words()).map(DynamicImage::ImageLuma16)
        }
        (ColorType::GrayscaleAlpha, BitDepth::Sixteen) => {
            ImageBuffer::from_raw(width, 1, words()).map(DynamicImage::ImageLumaA16)
        }
        (ColorType::Rgb, BitDepth::Sixteen) => ImageBuffer::from_raw(width, 1, words()).map(DynamicImage::ImageRgb16),
        (ColorType::Rgba, BitDepth::Sixteen) => ImageBuffer::from_raw(width, 1, words()).map(DynamicImage::ImageRgba16),
        _ => None,
    }
}

/// A JPEG with an explicit colour space above the bounds, scaled down; `None` for one within them.
///
/// # Errors
/// [`Error::Picture`] if the file is broken or too large.
pub(super) fn scaled_jpeg(bytes: &[u8], bounds: Bounds) -> Result<Option<RgbImage>, Error> {
    let Some(frame) = jpeg::frame(bytes) else { return Ok(None) };
    let variant = match frame.components.len() {
        _ if frame.is_progressive() => Some(("a progressive JPEG", "as a baseline JPEG")),
        4 => Some(("a CMYK JPEG", "in RGB")),
        _ => None,
    };
    let size = (u32::from(frame.width), u32::from(frame.height));
    let Some(factor) = bounds.factor(size, [2, 4, 8].into_iter(), variant)? else { return Ok(None) };
    let failed = |error: jpeg_decoder::Error| broken(ImageFormat::Jpeg, &error);
    // With its feature `rayon` the decoder computes each row at once. Without it, rows wait in a queue without a limit.
    let mut decoder = jpeg_decoder::Decoder::new(bytes);
    // The decoder stops at the first scale that makes one of the sides large enough. Only the longer side decides here.
    let wanted = |side: u16, other: u16| if side >= other { side.div_ceil(factor as u16) } else { u16::MAX };
    let wanted = [wanted(frame.width, frame.height), wanted(frame.height, frame.width)];
    let (width, height) = decoder.scale(wanted[0], wanted[1]).map_err(failed)?;
    let grey = decoder.info().is_some_and(|info| info.pixel_format == PixelFormat::L8);
    let mut pixels = decoder.decode().map_err(failed)?;
    if grey {
        pixels = pixels.into_iter().map(|grey| [grey; 3]).collect::<Vec<_>>().into_flattened();
    }
    let rgb = RgbImage::from_raw(width.into(), height.into(), pixels);
    rgb.map_or_else(
        || refuse("expected a whole Jpeg picture, got one without all pixels; save it again"),
        |rgb| Ok(Some(rgb)),
    )
}

#[cfg(test)]
mod tests {
    use image::{GrayImage, ImageEncoder, codecs::jpeg::JpegEncoder};

    use super::*;
    use crate::picture::Picture;

    fn encoded(picture: &DynamicImage) -> Vec<u8> {
        let mut file = Cursor::new(Vec::new());
        picture.write_to(&mut file, ImageFormat::Png).expect("a PNG");
        file.into_inner()
    }

    /// Bounds that a picture of `full + 1` pixels exceeds.
    fn bounds(full: u64, scaled: u64) -> Bounds {
        Bounds { full, scaled, ..Bounds::USUAL }
    }

    fn why<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
        match result {
            Err(Error::Picture(why)) => why,
            other => format!("{other:?}"),
        }
    }

    /// A PNG with this size, 8-bit RGB, and no pixels.
    fn header(width: u32, height: u32, interlaced: bool) -> Vec<u8> {
        let chunk = |kind: &[u8], data: &[u8]| {
            let mut sum = flate2::Crc::new();
            sum.update(kind);
            sum.update(data);
            [&(data.len() as u32).to_be_bytes(), kind, data, &sum.sum().to_be_bytes()].concat()
        };
        let size = [width.to_be_bytes(), height.to_be_bytes()].concat();
        let head = [&size[..], &[8, 2, 0, 0, interlaced.into()]].concat();
        [b"\x89PNG\r\n\x1A\n".to_vec(), chunk(b"IHDR", &head), chunk(b"IDAT", &[])].concat()
    }

    #[test]
    fn a_large_png_is_the_mean_of_squares_of_pixels() {
        // 5x3 pixels to 3x2: the last column has one pixel per row, the last row one row.
        let grey = GrayImage::from_raw(5, 3, vec![0, 1, 10, 20, 7, 2, 4, 30, 40, 8, 1, 2, 3, 4, 9]).expect("a picture");
        // (0 + 1 + 2 + 4) / 4 = 1.75, (10 + 20 + 30 + 40) / 4 = 25, (7 + 8) / 2 = 7.5; 1.5, 3.5, 9: halves are rounded up.
        let expected: Vec<u8> = [2, 25, 8, 2, 4, 9].into_iter().flat_map(|grey| [grey; 3]).collect();
        let file = encoded(&DynamicImage::ImageLuma8(grey));
        let picture = Picture::decode_within(&file, bounds(14, 6)).expect("a picture");
        assert_eq!((picture.width(), picture.height(), picture.rgb()), (3, 2, &expected[..]));
        let whole = Picture::decode_within(&file, bounds(15, 6)).expect("a picture");
        assert_eq!((whole.width(), whole.height()), (5, 3));
        // 3x3 pixels to one: alpha is dropped, and each channel has its own mean. A side above the limit scales too.
        let rgba = image::RgbaImage::from_fn(3, 3, |x, y| image::Rgba([(3 * y + x) as u8, 100, 255, (x * 100) as u8]));
        let file = encoded(&DynamicImage::ImageRgba8(rgba));
        for bounds in [bounds(8, 1), Bounds { side: 1, ..Bounds::USUAL }] {
            let picture = Picture::decode_within(&file, bounds).expect("a picture");
            assert_eq!((picture.width(), picture.height(), picture.rgb()), (1, 1, &[4, 100, 255][..]));
        }
        // 16 bits: the high byte of a colour, as in full size.
        let rgb = ImageBuffer::from_raw(2, 1, vec![0x10FF_u16, 0x2000, 0, 0x2000, 0x40FF, 0]).expect("a picture");
        let picture =
            Picture::decode_within(&encoded(&DynamicImage::ImageRgb16(rgb)), bounds(1, 1)).expect("a picture");
        assert_eq!(picture.rgb(), [0x18, 0x30, 0]);
    }

    #[test]
    fn a_large_jpeg_is_scaled_and_turned() {
        // Two blocks of 8x8 equal pixels. At quality 100 their means are exact.
        let grey = GrayImage::from_fn(16, 8, |x, _| image::Luma([if x < 8 { 10 } else { 200 }]));
        let mut file = Vec::new();
        let encoder = JpegEncoder::new_with_quality(&mut file, 100);
        encoder.write_image(grey.as_raw(), 16, 8, image::ExtendedColorType::L8).expect("a JPEG");
        let decode = |file: &[u8], scaled| {
            let picture = Picture::decode_within(file, bounds(127, scaled)).expect("a picture");
            (picture.width(), picture.height(), picture.rgb().to_vec())
        };
        assert_eq!(decode(&file, 2), (2, 1, vec![10, 10, 10, 200, 200, 200]));
        let half = [[10; 12], [200; 12]].concat();
        assert_eq!(decode(&file, 32), (8, 4, [&half[..]; 4].concat()));
        // Exif: turned by 90 degrees, so that the left side is at the top.
        let exif = b"\xFF\xE1\0\x22Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
        let turned = [&file[..2], exif, &file[2..]].concat();
        assert_eq!(decode(&turned, 2), (1, 2, vec![10, 10, 10, 200, 200, 200]));
    }

    #[test]
    fn sizes_are_checked_before_memory_is_allocated() {
        for (width, height, words) in [
            (65_536, 1, "at most 65535 pixels per side and 1 gigapixel, got 65536x1"),
            (40_000, 30_000, "got 40000x30000"),
            (u32::MAX >> 1, u32::MAX >> 1, "1 gigapixel"),
            (20_000, 20_000, "whole Png"),
        ] {
            let got = why(Picture::decode(&header(width, height, false)));
            assert!(got.contains(words), "{width}x{height}: expected {words:?}, got: {got}");
        }
        let got = why(Picture::decode(&header(20_000, 20_000, true)));
        assert!(got.contains("for an interlaced PNG") && got.contains("without interlacing"), "got: {got}");
    }

    #[test]
    fn the_factor_is_the_smallest_that_fits() {
        let png = |width, height| Bounds::USUAL.factor((width, height), 2.., None).expect("a size");
        let jpeg = |width, height| Bounds::USUAL.factor((width, height), [2, 4, 8].into_iter(), None).expect("a size");
        assert_eq!([png(10_000, 10_000), jpeg(10_000, 10_000)], [None; 2]);
        assert_eq!([png(10_001, 10_000), jpeg(10_001, 10_000)], [Some(2); 2]);
        assert_eq!([png(16_000, 16_000), jpeg(16_000, 16_000)], [Some(2); 2]);
        assert_eq!([png(16_001, 16_000), jpeg(16_001, 16_000)], [Some(3), Some(4)]);
        assert_eq!([png(65_535, 15_258), jpeg(65_535, 15_258)], [Some(4); 2]);
    }
}
