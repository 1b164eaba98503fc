//! Decodes pictures. Input: the bytes of a PNG, JPEG, WebP, GIF or BMP file. Output: upright RGB pixels.
//! Source: Pillow's `Image.open(f)`, `ImageOps.exif_transpose` and `.convert("RGB")`, which the reference uses.
//!
//! So alpha is dropped and not blended, an animation gives its first frame, and there is no colour management. PNG, GIF,
//! BMP and lossless WebP equal Pillow byte for byte; JPEG and lossy WebP within 4 of 255 (16-bit BMP within 1), because
//! the decoders round differently. A damaged file is an error, also in the few cases where Pillow shows a part of it. Only
//! invalid metadata is ignored.
//!
//! A PNG or JPEG above 100 megapixels, or above 16384 pixels per side, is scaled down while it is decoded (`large`).
//!
//! The `image` crate decodes all formats. Where it differs from Pillow, the module of the format rewrites the file first:
//! it reads the metadata, and passes on a plain file that contains only the pixels.

mod bmp;
mod gif;
mod jpeg;
mod kind;
mod large;
mod orientation;
mod png;
mod webp;

use std::borrow::Cow;
use std::fmt::Display;
use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};

use fovea_runtime::memory;

use crate::error::Error;
use kind::kind;
use large::Bounds;
use orientation::Metadata;

/// Largest side of a picture, in pixels.
pub const MAX_SIDE: usize = 16_384;
/// Largest number of pixels of a picture: enough for the 108 megapixels of a phone. A larger PNG or JPEG is scaled down.
pub const MAX_PIXELS: u64 = 128_000_000;
/// Largest buffer that decoding may allocate, in bytes.
const MAX_BYTES: u64 = 512 << 20;

/// An upright picture in RGB8: rows from top to bottom, at least one pixel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    width: usize,
    height: usize,
    rgb: Vec<u8>,
}

/// [`Error::Picture`] with one sentence.
fn refuse<T>(why: impl Into<String>) -> Result<T, Error> {
    Err(Error::Picture(why.into()))
}

/// The decoder's error as [`Error::Picture`].
fn broken(format: ImageFormat, error: &dyn Display) -> Error {
    Error::Picture(format!(
        "expected a whole {format:?} picture, got a broken or truncated one ({error}); save it again"
    ))
}

/// Checks a size against the limits: a small file must not be able to allocate all the memory.
fn check_size(width: u64, height: u64) -> Result<(), Error> {
    if width == 0 || height == 0 {
        return refuse(format!("expected at least 1x1 pixels, got {width}x{height}; choose another picture"));
    }
    if width > MAX_SIDE as u64 || height > MAX_SIDE as u64 {
        return refuse(format!(
            "expected at most {MAX_SIDE} pixels per side, got {width}x{height}; shrink the picture"
        ));
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

/// Decodes a file of a known format, and checks its size before memory is allocated for its pixels.
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
    // Three buffers can exist at once: the decoder's output, the same as RGB, and the rotated RGB.
    check_memory(width, height, decoder.total_bytes() + 6 * u64::from(width) * u64::from(height))?;
    DynamicImage::from_decoder(decoder).map_err(|error| broken(format, &error))
}

/// Checks that the host has the memory to decode a picture, in bytes.
fn check_memory(width: u32, height: u32, need: u64) -> Result<(), Error> {
    let Some(have) = memory::host_available().filter(|have| need > *have) else { return Ok(()) };
    let what = format!("a picture of {width}x{height}");
    let hint = "shrink the picture, or free memory".to_owned();
    Err(fovea_runtime::Error::OutOfMemory { what, need, have, hint }.into())
}

impl Picture {
    /// Decodes a file. Its content determines the format, not its name.
    ///
    /// A PNG or JPEG above 100 megapixels or 16384 pixels per side, up to 1 gigapixel and 65535 pixels per side, is scaled
    /// down by an integer `n`, to at most 64 megapixels and 16384 pixels per side. This needs at most 400 MB besides the file
    /// and one copy of it. PNG: `n` is the smallest possible number; each pixel is the mean of `n` x `n` pixels (fewer at the
    /// right and bottom edge), rounded to the nearest integer, halves up. JPEG: `n` is 2, 4 or 8; the pixels come from an
    /// inverse DCT of `8 / n` x `8 / n` coefficients, which is close to that mean but not equal.
    ///
    /// # Errors
    /// [`Error::Picture`] if the format is unknown, if the file is broken or truncated, or if the picture is empty, exceeds
    /// these limits (interlaced PNG, progressive or CMYK JPEG and other formats: 16384 pixels per side or 128 megapixels), or
    /// needs more than 512 MiB when decoded (a PNG that is scaled down: more than 4 GiB of pixels in the file);
    /// [`fovea_runtime::Error::OutOfMemory`] if the host has less free memory than it needs.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        Self::decode_within(bytes, Bounds::USUAL)
    }

    fn decode_within(bytes: &[u8], bounds: Bounds) -> Result<Self, Error> {
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
            ImageFormat::Png => (png::metadata(bytes), png_pixels(bytes, bounds)?),
            ImageFormat::Jpeg => (jpeg::metadata(bytes), jpeg_pixels(bytes, bounds)?),
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
    /// [`Error::Picture`] if the size is zero or exceeds the limits, or if `rgb` is not `width * height * 3` bytes.
    pub fn from_rgb(width: usize, height: usize, rgb: Vec<u8>) -> Result<Self, Error> {
        check_size(width as u64, height as u64)?;
        if rgb.len() as u64 != width as u64 * height as u64 * 3 {
            return refuse(format!(
                "expected {} bytes for {width}x{height} RGB pixels, got {}; pass three bytes per pixel",
                width as u64 * height as u64 * 3,
                rgb.len()
            ));
        }
        Ok(Self { width, height, rgb })
    }

    /// Number of columns of pixels.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of rows of pixels.
    #[must_use]
    pub fn height(&self) -> usize {
        self.height
    }

    /// The pixels, RGB8, (height, width, 3).
    #[must_use]
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }
}

/// The pixels of a PNG, without its metadata.
fn png_pixels(bytes: &[u8], bounds: Bounds) -> Result<RgbImage, Error> {
    let plain = png::plain(bytes);
    match large::scaled_png(&plain, bounds)? {
        Some(scaled) => Ok(scaled),
        None => Ok(to_rgb(pixels(ImageFormat::Png, &plain)?)),
    }
}

/// The pixels of a JPEG, after its colour space has been made explicit.
fn jpeg_pixels(bytes: &[u8], bounds: Bounds) -> Result<RgbImage, Error> {
    if !jpeg::is_whole(bytes) {
        return refuse("expected a whole Jpeg picture, got a truncated one (no end marker); save it again");
    }
    if let Some(obstacle) = jpeg::obstacle(bytes) {
        return refuse(format!("expected a common Jpeg picture, got one with {obstacle}; save it again"));
    }
    let explicit = jpeg::with_color_space(bytes).map_or(Cow::Borrowed(bytes), Cow::Owned);
    match large::scaled_jpeg(&explicit, bounds)? {
        Some(scaled) => Ok(scaled),
        None => Ok(to_rgb(pixels(ImageFormat::Jpeg, &explicit)?)),
    }
}

/// The first frame of a WebP on its canvas, which is black outside the frame.
fn webp_pixels(bytes: &[u8]) -> Result<RgbImage, Error> {
    if !webp::is_whole(bytes) {
        return refuse("expected a whole WebP picture, got fewer bytes than its header declares; save it again");
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

/// The first frame of a GIF on its logical screen.
fn gif_pixels(bytes: &[u8]) -> Result<RgbImage, Error> {
    let Some(frame) = gif::first_frame(bytes) else {
        return refuse("expected a whole Gif picture, got a broken or truncated one (no frame); save it again");
    };
    let (width, height) = frame.screen;
    check_size(width.into(), height.into())?;
    let indices = pixels(ImageFormat::Gif, &frame.file)?.into_rgba8();
    let color = |index: u8| image::Rgb(frame.colors[usize::from(index)]);
    let mut screen = RgbImage::from_pixel(width, height, color(frame.margin));
    for (x, y, index) in indices.enumerate_pixels() {
        screen.put_pixel(frame.corner.0 + x, frame.corner.1 + y, color(index[0])); // the grey level is the index
    }
    Ok(screen)
}

/// The pixels of a BMP.
fn bmp_pixels(bytes: &[u8]) -> Result<RgbImage, Error> {
    let Some(plain) = bmp::plain(bytes) else { return Ok(to_rgb(pixels(ImageFormat::Bmp, bytes)?)) };
    let mut rgb = to_rgb(pixels(ImageFormat::Bmp, &plain.file)?);
    if plain.upside_down {
        image::imageops::flip_vertical_in_place(&mut rgb);
    }
    if let Some(levels) = plain.levels {
        // 5 or 6 bits per channel: the decoder rounds value * 255 / most, Pillow truncates it
        for pixel in rgb.pixels_mut() {
            for (value, most) in pixel.0.iter_mut().zip(levels) {
                *value = ((u32::from(*value) * most + 127) / 255 * 255 / most) as u8;
            }
        }
    }
    Ok(rgb)
}

/// Drops alpha and converts every layout to RGB8.
///
/// 16 bits: like Pillow, takes the high byte of a colour but clips grey at 255 (`convert` clips Pillow's mode `I;16`).
fn to_rgb(decoded: DynamicImage) -> RgbImage {
    let (width, height) = (decoded.width(), decoded.height());
    let high = |value: u16| (value >> 8) as u8;
    let clip = |value: u16| value.min(255) as u8;
    let rgb: Vec<[u8; 3]> = match decoded {
        DynamicImage::ImageRgba8(pixels) => pixels.pixels().map(|p| [p[0], p[1], p[2]]).collect(),
        DynamicImage::ImageLuma8(pixels) => pixels.pixels().map(|p| [p[0]; 3]).collect(),
        DynamicImage::ImageLumaA8(pixels) => pixels.pixels().map(|p| [p[0]; 3]).collect(),
        DynamicImage::ImageLuma16(pixels) => pixels.pixels().map(|p| [clip(p[0]); 3]).collect(),
        DynamicImage::ImageLumaA16(pixels) => pixels.pixels().map(|p| [high(p[0]); 3]).collect(),
        DynamicImage::ImageRgb16(pixels) => pixels.pixels().map(|p| [high(p[0]), high(p[1]), high(p[2])]).collect(),
        DynamicImage::ImageRgba16(pixels) => pixels.pixels().map(|p| [high(p[0]), high(p[1]), high(p[2])]).collect(),
        // RGB8 is unchanged. None of the five formats has floats.
        other => return other.into_rgb8(),
    };
    RgbImage::from_raw(width, height, rgb.into_flattened()).expect("three bytes per pixel")
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
    fn rgb_must_match_its_size() {
        assert!(Picture::from_rgb(2, 1, vec![0; 6]).is_ok());
        assert!(why(Picture::from_rgb(2, 1, vec![0; 5])).contains("expected 6 bytes for 2x1 RGB pixels, got 5"));
        assert!(why(Picture::from_rgb(0, 1, vec![])).contains("got 0x1"));
        assert!(why(Picture::from_rgb(MAX_SIDE + 1, 1, vec![])).contains("at most 16384 pixels per side, got 16385x1"));
        assert!(
            why(Picture::from_rgb(12801, 10000, vec![]))
                .contains("at most 128 megapixels (MP), got 12801x10000, which is 129 MP")
        );
        assert!(why(Picture::from_rgb(12000, 9000, vec![])).contains("expected 324000000 bytes"));
        assert!(why(Picture::from_rgb(usize::MAX, usize::MAX, vec![])).contains("16384"));
    }

    #[test]
    fn a_file_that_is_not_a_picture_is_refused() {
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
    fn a_frame_beyond_the_limits_is_refused_before_memory_is_allocated() {
        let far = b"GIF89a\x01\0\x01\0\0\0\0,\xFF\xFF\0\0\x01\0\x01\0\0\x02\x02\x4C\x01\0;";
        assert!(why(Picture::decode(far)).contains("got 65536x1"));
        let mut canvas = b"RIFF\x2A\0\0\0WEBPVP8X\x0A\0\0\0\0\0\0\0\xFF\x3F\0\xFF\x3F\0".to_vec();
        canvas.extend(b"VP8L\x0B\0\0\0\x2F\0\0\0\0\0\x88\x88\x08\0\0\0");
        assert!(why(Picture::decode(&canvas)).contains("got 16384x16384, which is 269 MP"));
    }
}
