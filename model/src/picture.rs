//! Enters: the bytes of a PNG, JPEG, WebP, GIF or BMP file. Leaves: upright RGB pixels.
//!
//! The pixels are those that Pillow gives by `Image.open(f)`, `ImageOps.exif_transpose` and `.convert("RGB")`, because
//! that is how the reference reads its pictures: alpha is dropped and not blended, animations give their first frame,
//! nothing is colour-managed. PNG, GIF, WebP and BMP agree byte for byte, JPEG within 5 of 255, most where colour is
//! subsampled: two decoders' rounding. A damaged file is refused rather than guessed at, also in the few places where
//! Pillow shows what it has; only metadata that makes no sense is passed over.
//!
//! One decoder reads all formats. What it sees otherwise than Pillow is settled before: each format's module reads the
//! metadata, and hands on a plain file of the pixels alone where the original leaves room for opinions.

mod bmp;
mod gif;
mod jpeg;
mod kind;
mod orientation;
mod png;
mod webp;

use std::borrow::Cow;
use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage};

use fovea_runtime::memory;

use crate::error::Error;
use kind::kind;
use orientation::Metadata;

/// Longest side of a picture, in pixels.
pub const MAX_SIDE: usize = 16_384;
/// Most pixels of a picture: room for the 108 megapixels of a phone.
pub const MAX_PIXELS: u64 = 128_000_000;
/// Most memory that decoding may take for one buffer, in bytes.
const MAX_BYTES: u64 = 512 << 20;

/// An upright picture: RGB8, rows from top to bottom, never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    width: usize,
    height: usize,
    rgb: Vec<u8>,
}

/// An error about the picture: one sentence.
fn refuse<T>(why: impl Into<String>) -> Result<T, Error> {
    Err(Error::Picture(why.into()))
}

/// What the decoder said, as our error.
fn broken(format: ImageFormat, error: &ImageError) -> Error {
    Error::Picture(format!(
        "expected a whole {format:?} picture, got a broken or truncated one ({error}); save it again"
    ))
}

/// Checks a size against the limits that keep a small file from asking for all the memory.
fn check_size(width: u64, height: u64) -> Result<(), Error> {
    if width == 0 || height == 0 {
        return refuse(format!("expected at least 1x1 pixels, got {width}x{height}; choose another picture"));
    }
    if width > MAX_SIDE as u64 || height > MAX_SIDE as u64 {
        return refuse(format!("expected at most {MAX_SIDE} pixels a side, got {width}x{height}; shrink the picture"));
    }
    if width * height > MAX_PIXELS {
        let megapixels = |pixels: u64| pixels.div_ceil(1_000_000);
        return refuse(format!(
            "expected at most {} megapixels (MP), got {width}x{height}, which is {} MP; shrink the picture",
            megapixels(MAX_PIXELS),
            megapixels(width * height)
        ));
    }
    Ok(())
}

/// Decodes a file whose format is known, and checks its size before its pixels take memory.
fn pixels(format: ImageFormat, bytes: &[u8]) -> Result<DynamicImage, Error> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::no_limits(); // sides and pixels are checked below, with both numbers in the error
    limits.max_alloc = Some(MAX_BYTES);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(|error| broken(format, &error))?;
    let (width, height) = decoder.dimensions();
    check_size(width.into(), height.into())?;
    if decoder.total_bytes() > MAX_BYTES {
        return refuse(format!(
            "expected at most {} MiB when decoded, got {} MiB; shrink the picture or save it with 8 bits",
            MAX_BYTES >> 20,
            decoder.total_bytes().div_ceil(1 << 20)
        ));
    }
    // What the decoder gives, the same as RGB, and that once more where it is turned.
    let need = decoder.total_bytes() + 6 * u64::from(width) * u64::from(height);
    if let Some(have) = memory::host_available().filter(|have| need > *have) {
        let what = format!("a picture of {width}x{height}");
        let hint = "shrink the picture, or free memory".to_owned();
        return Err(fovea_runtime::Error::OutOfMemory { what, need, have, hint }.into());
    }
    DynamicImage::from_decoder(decoder).map_err(|error| broken(format, &error))
}

impl Picture {
    /// Decodes a file, whose format is told from its content.
    ///
    /// # Errors
    /// [`Error::Picture`] where the format is unknown, the file broken or truncated, or the picture empty, above
    /// [`MAX_SIDE`] a side, above [`MAX_PIXELS`], or above 512 MiB when decoded.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.is_empty() {
            return refuse("expected a picture, got an empty file; choose another file");
        }
        let format = match kind(bytes) {
            Ok(format) => format,
            Err(name) => {
                return refuse(format!(
                    "expected a PNG, JPEG, WebP, GIF or BMP picture, got {name}; convert it to one of these"
                ));
            }
        };
        let (metadata, rgb) = match format {
            ImageFormat::Png => (png::metadata(bytes), to_rgb(pixels(format, &png::plain(bytes))?)),
            ImageFormat::Jpeg => (jpeg::metadata(bytes), jpeg_pixels(bytes)?),
            ImageFormat::WebP => (webp::metadata(bytes), webp_pixels(bytes)?),
            ImageFormat::Gif => (Metadata::default(), gif_pixels(bytes)?),
            _ => (Metadata::default(), bmp_pixels(bytes)?),
        };
        let mut upright = DynamicImage::ImageRgb8(rgb);
        upright.apply_orientation(metadata.turn());
        let (width, height) = (upright.width() as usize, upright.height() as usize);
        Self::from_rgb(width, height, upright.into_rgb8().into_raw())
    }

    /// A picture from RGB8 rows, top to bottom.
    ///
    /// # Errors
    /// [`Error::Picture`] where the size is zero or above the limits, or `rgb` is not `width * height * 3` bytes.
    pub fn from_rgb(width: usize, height: usize, rgb: Vec<u8>) -> Result<Self, Error> {
        check_size(width as u64, height as u64)?;
        if rgb.len() as u64 != width as u64 * height as u64 * 3 {
            return refuse(format!(
                "expected {} bytes for {width}x{height} RGB pixels, got {}; pass three bytes a pixel",
                width as u64 * height as u64 * 3,
                rgb.len()
            ));
        }
        Ok(Self { width, height, rgb })
    }

    /// Columns of pixels.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows of pixels.
    #[must_use]
    pub fn height(&self) -> usize {
        self.height
    }

    /// The pixels, (height, width, 3).
    #[must_use]
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }
}

/// A JPEG's pixels, once it is settled what its colours mean.
fn jpeg_pixels(bytes: &[u8]) -> Result<RgbImage, Error> {
    if !jpeg::is_whole(bytes) {
        return refuse("expected a whole Jpeg picture, got a truncated one (no end marker); save it again");
    }
    if let Some(obstacle) = jpeg::obstacle(bytes) {
        return refuse(format!("expected a common Jpeg picture, got one with {obstacle}; save it again"));
    }
    let settled = jpeg::settled(bytes).map_or(Cow::Borrowed(bytes), Cow::Owned);
    Ok(to_rgb(pixels(ImageFormat::Jpeg, &settled)?))
}

/// The first frame of a WebP on its canvas, which is black where the frame leaves it free.
fn webp_pixels(bytes: &[u8]) -> Result<RgbImage, Error> {
    if !webp::is_whole(bytes) {
        return refuse("expected a whole WebP picture, got fewer bytes than its header announces; save it again");
    }
    let Some(frame) = webp::first_frame(bytes) else {
        return refuse("expected a whole WebP picture, got one without pixels; save it again");
    };
    if let Some((width, height)) = frame.canvas {
        check_size(width.into(), height.into())?;
    }
    let shown = to_rgb(pixels(ImageFormat::WebP, &frame.file)?);
    let Some((width, height)) = frame.canvas.filter(|canvas| *canvas != shown.dimensions()) else { return Ok(shown) };
    let (left, top) = frame.corner;
    if left + shown.width() > width || top + shown.height() > height {
        return refuse("expected a whole WebP picture, got one larger than its canvas; save it again");
    }
    let mut canvas = RgbImage::new(width, height);
    image::imageops::replace(&mut canvas, &shown, left.into(), top.into());
    Ok(canvas)
}

/// The first frame of a GIF on its screen.
fn gif_pixels(bytes: &[u8]) -> Result<RgbImage, Error> {
    let Some(frame) = gif::first_frame(bytes) else {
        return refuse("expected a whole Gif picture, got a broken or truncated one (no frame); save it again");
    };
    let (width, height) = frame.screen;
    check_size(width.into(), height.into())?;
    let indices = pixels(ImageFormat::Gif, &frame.file)?.into_rgba8();
    let colour = |index: u8| image::Rgb(frame.colours[usize::from(index)]);
    let mut screen = RgbImage::from_pixel(width, height, colour(frame.margin));
    for (x, y, index) in indices.enumerate_pixels() {
        screen.put_pixel(frame.corner.0 + x, frame.corner.1 + y, colour(index[0])); // the file's colours are indices
    }
    Ok(screen)
}

/// A BMP's pixels.
fn bmp_pixels(bytes: &[u8]) -> Result<RgbImage, Error> {
    let Some(plain) = bmp::plain(bytes) else { return Ok(to_rgb(pixels(ImageFormat::Bmp, bytes)?)) };
    let mut rgb = to_rgb(pixels(ImageFormat::Bmp, &plain.file)?);
    if plain.upside_down {
        image::imageops::flip_vertical_in_place(&mut rgb);
    }
    if let Some(levels) = plain.levels {
        // few bits a colour: the decoder rounds value * 255 / most, Pillow cuts it
        for pixel in rgb.pixels_mut() {
            for (value, most) in pixel.0.iter_mut().zip(levels) {
                *value = ((u32::from(*value) * most + 127) / 255 * 255 / most) as u8;
            }
        }
    }
    Ok(rgb)
}

/// Drops alpha and brings every layout to RGB8.
///
/// 16 bits: Pillow takes the high byte of colours, but clips grey at 255 (its `I;16` holds integers, of which `convert`
/// keeps what fits); so do we, for the numbers' sake.
fn to_rgb(decoded: DynamicImage) -> RgbImage {
    let (width, height) = (decoded.width(), decoded.height());
    let high = |value: u16| (value >> 8) as u8;
    let clip = |value: u16| value.min(255) as u8;
    let rgb: Vec<u8> = match decoded {
        DynamicImage::ImageRgba8(pixels) => pixels.pixels().flat_map(|p| [p[0], p[1], p[2]]).collect(),
        DynamicImage::ImageLuma8(pixels) => pixels.pixels().flat_map(|p| [p[0]; 3]).collect(),
        DynamicImage::ImageLumaA8(pixels) => pixels.pixels().flat_map(|p| [p[0]; 3]).collect(),
        DynamicImage::ImageLuma16(pixels) => pixels.pixels().flat_map(|p| [clip(p[0]); 3]).collect(),
        DynamicImage::ImageLumaA16(pixels) => pixels.pixels().flat_map(|p| [high(p[0]); 3]).collect(),
        DynamicImage::ImageRgb16(pixels) => {
            pixels.pixels().flat_map(|p| [high(p[0]), high(p[1]), high(p[2])]).collect()
        }
        DynamicImage::ImageRgba16(pixels) => {
            pixels.pixels().flat_map(|p| [high(p[0]), high(p[1]), high(p[2])]).collect()
        }
        // RGB8 as it is; floats, which none of the five formats has
        other => return other.into_rgb8(),
    };
    RgbImage::from_raw(width, height, rgb).expect("three bytes a pixel")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(result: Result<Picture, Error>) -> String {
        match result {
            Err(Error::Picture(why)) => why,
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn rgb_must_fit_its_size() {
        assert!(Picture::from_rgb(2, 1, vec![0; 6]).is_ok());
        assert!(why(Picture::from_rgb(2, 1, vec![0; 5])).contains("expected 6 bytes for 2x1 RGB pixels, got 5"));
        assert!(why(Picture::from_rgb(0, 1, vec![])).contains("got 0x1"));
        assert!(why(Picture::from_rgb(MAX_SIDE + 1, 1, vec![])).contains("at most 16384 pixels a side, got 16385x1"));
        assert!(
            why(Picture::from_rgb(12801, 10000, vec![]))
                .contains("at most 128 megapixels (MP), got 12801x10000, which is 129 MP")
        );
        assert!(why(Picture::from_rgb(12000, 9000, vec![])).contains("expected 324000000 bytes"));
        assert!(why(Picture::from_rgb(usize::MAX, usize::MAX, vec![])).contains("16384"));
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        assert!(why(Picture::decode(b"")).contains("empty file"));
        assert!(why(Picture::decode(b"hello, I am a picture")).contains("got something else"));
        assert!(why(Picture::decode(b"II*\0\x08\0\0\0\0\0\0\0\0\0\0\0")).contains("got TIFF"));
        assert!(why(Picture::decode(b"\x89PNG\r\n\x1a\n")).contains("broken or truncated"));
        assert!(why(Picture::decode(b"\xFF\xD8\xFF\xE0")).contains("truncated"));
        assert!(why(Picture::decode(b"RIFF\x04\0\0\0WEBP")).contains("without pixels"));
        assert!(why(Picture::decode(b"GIF89a\x01\0\x01\0\0\0\0;")).contains("no frame"));
        assert!(why(Picture::decode(b"BM")).contains("broken or truncated"));
    }

    #[test]
    fn a_frame_beyond_the_limits_is_refused_before_it_takes_memory() {
        let far = b"GIF89a\x01\0\x01\0\0\0\0,\xFF\xFF\0\0\x01\0\x01\0\0\x02\x02\x4C\x01\0;";
        assert!(why(Picture::decode(far)).contains("got 65536x1"));
        let mut canvas = b"RIFF\x2A\0\0\0WEBPVP8X\x0A\0\0\0\0\0\0\0\xFF\x3F\0\xFF\x3F\0".to_vec();
        canvas.extend(b"VP8L\x0B\0\0\0\x2F\0\0\0\0\0\x88\x88\x08\0\0\0");
        assert!(why(Picture::decode(&canvas)).contains("got 16384x16384, which is 269 MP"));
    }
}
