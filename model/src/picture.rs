//! Enters: the bytes of a PNG, JPEG, WebP, GIF or BMP file. Leaves: upright RGB pixels.
//!
//! The pixels are those that Pillow gives by `Image.open(f)`, `ImageOps.exif_transpose` and `.convert("RGB")`, because
//! that is how the reference reads its pictures: alpha is dropped and not blended, animations give their first frame,
//! nothing is colour-managed. PNG, GIF, WebP and BMP agree byte for byte (BMP with 16 bits a pixel within 1 of 255), JPEG
//! within 5 of 255, most where colour is subsampled: two decoders' rounding. A damaged file is refused rather than
//! guessed at, also in the few places where Pillow shows what it has.

use std::io::Cursor;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

use crate::error::Error;

/// Longest side of a picture, in pixels.
pub const MAX_SIDE: usize = 16_384;
/// Most pixels of a picture.
pub const MAX_PIXELS: u64 = 100_000_000;
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
        "expected a whole {format:?} picture, got a broken or truncated one ({error}); save it anew"
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
        return refuse(format!(
            "expected at most {MAX_PIXELS} pixels, got {width}x{height}, which is {}; shrink the picture",
            width * height
        ));
    }
    Ok(())
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
        let Ok(format) = image::guess_format(bytes) else {
            return refuse(
                "expected a PNG, JPEG, WebP, GIF or BMP picture, got something else; convert it to one of these",
            );
        };
        if !format.reading_enabled() {
            return refuse(format!(
                "expected a PNG, JPEG, WebP, GIF or BMP picture, got {format:?}; convert it to one of these"
            ));
        }
        let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
        let mut limits = Limits::no_limits(); // sides and pixels are checked below, with both numbers in the error
        limits.max_alloc = Some(MAX_BYTES);
        reader.limits(limits);
        let mut decoder = reader.into_decoder().map_err(|error| broken(format, &error))?;
        let (width, height) = decoder.dimensions();
        check_size(u64::from(width), u64::from(height))?;
        if decoder.total_bytes() > MAX_BYTES {
            return refuse(format!(
                "expected at most {MAX_BYTES} bytes when decoded, got {}; shrink the picture or save it with 8 bits",
                decoder.total_bytes()
            ));
        }
        if format == ImageFormat::Jpeg && !jpeg_is_whole(bytes) {
            return refuse("expected a whole Jpeg picture, got a truncated one (no end marker); save it anew");
        }
        if format == ImageFormat::WebP && !webp_is_whole(bytes) {
            return refuse("expected a whole WebP picture, got fewer bytes than its header announces; save it anew");
        }
        let turn = orientation(&mut decoder);
        let mut decoded = DynamicImage::from_decoder(decoder).map_err(|error| broken(format, &error))?;
        if format == ImageFormat::Gif {
            fill_gif_margin(&mut decoded, bytes);
        }
        decoded.apply_orientation(turn);
        // Pillow keeps 16-bit grey as integers even where a transparent value would make other readers add an alpha
        let grey16 = format == ImageFormat::Png && bytes.get(24..26) == Some(&[16, 0]);
        let (width, height) = (decoded.width() as usize, decoded.height() as usize);
        Self::from_rgb(width, height, to_rgb(decoded, grey16))
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

/// How the picture must be turned to stand upright: from Exif, else from XMP; upright where either makes no sense.
fn orientation(decoder: &mut impl ImageDecoder) -> Orientation {
    let exif = decoder.exif_metadata().ok().flatten();
    if let Some(turn) = exif.as_deref().and_then(Orientation::from_exif_chunk) {
        return turn;
    }
    let xmp = decoder.xmp_metadata().ok().flatten();
    xmp.as_deref().and_then(xmp_orientation).and_then(Orientation::from_exif).unwrap_or(Orientation::NoTransforms)
}

/// The digit behind the first `tiff:Orientation="` or `tiff:Orientation>` of an XMP packet.
fn xmp_orientation(xmp: &[u8]) -> Option<u8> {
    const NAME: &[u8] = b"tiff:Orientation";
    xmp.windows(NAME.len()).enumerate().filter(|(_, window)| *window == NAME).find_map(|(at, _)| {
        let rest = &xmp[at + NAME.len()..];
        let digit = rest.strip_prefix(b"=\"").or_else(|| rest.strip_prefix(b">"))?.first()?;
        digit.is_ascii_digit().then(|| digit - b'0')
    })
}

/// Drops alpha and brings every layout to RGB8.
///
/// 16 bits: Pillow takes the high byte of colours, but clips grey at 255 (its `I;16` holds integers, of which `convert`
/// keeps what fits); so do we, for the numbers' sake.
fn to_rgb(decoded: DynamicImage, grey16: bool) -> Vec<u8> {
    let high = |value: u16| (value >> 8) as u8;
    let clip = |value: u16| value.min(255) as u8;
    match decoded {
        DynamicImage::ImageRgb8(pixels) => pixels.into_raw(),
        DynamicImage::ImageRgba8(pixels) => pixels.pixels().flat_map(|p| [p[0], p[1], p[2]]).collect(),
        DynamicImage::ImageLuma8(pixels) => pixels.pixels().flat_map(|p| [p[0]; 3]).collect(),
        DynamicImage::ImageLumaA8(pixels) => pixels.pixels().flat_map(|p| [p[0]; 3]).collect(),
        DynamicImage::ImageLuma16(pixels) => pixels.pixels().flat_map(|p| [clip(p[0]); 3]).collect(),
        DynamicImage::ImageLumaA16(pixels) if grey16 => pixels.pixels().flat_map(|p| [clip(p[0]); 3]).collect(),
        DynamicImage::ImageLumaA16(pixels) => pixels.pixels().flat_map(|p| [high(p[0]); 3]).collect(),
        DynamicImage::ImageRgb16(pixels) => {
            pixels.pixels().flat_map(|p| [high(p[0]), high(p[1]), high(p[2])]).collect()
        }
        DynamicImage::ImageRgba16(pixels) => {
            pixels.pixels().flat_map(|p| [high(p[0]), high(p[1]), high(p[2])]).collect()
        }
        other => other.to_rgb8().into_raw(), // floats, which none of the five formats has
    }
}

/// Whether a JPEG has its end marker behind the first scan.
///
/// The decoder fills what is missing with grey and calls it a success; Pillow calls such a file truncated.
fn jpeg_is_whole(bytes: &[u8]) -> bool {
    let mut at = 2; // behind the start marker
    loop {
        let Some(&[0xFF, marker]) = bytes.get(at..).and_then(<[u8]>::first_chunk::<2>) else {
            match bytes.get(at) {
                Some(_) => at += 1, // scan data, or padding between segments
                None => return false,
            }
            continue;
        };
        at += match marker {
            0xD9 => return true,
            0xFF => 1,
            // stuffed scan data and the markers that stand alone
            0x00 | 0x01 | 0xD0..=0xD8 => 2,
            _ => match bytes.get(at + 2..at + 4) {
                Some(&[high, low]) => 2 + usize::from(u16::from_be_bytes([high, low])),
                _ => return false,
            },
        };
    }
}

/// Whether a WebP has all the bytes that its RIFF header announces.
///
/// Decoding only the first frame would not notice that later ones are missing; Pillow opens no such file.
fn webp_is_whole(bytes: &[u8]) -> bool {
    let announced = bytes.get(4..).and_then(<[u8]>::first_chunk::<4>).map(|size| u32::from_le_bytes(*size));
    announced.is_some_and(|size| bytes.len() as u64 >= 8 + u64::from(size))
}

/// Where the first frame of a GIF lies on its screen, and the colour that Pillow puts around it.
struct GifFrame {
    left: u32,
    top: u32,
    width: u32,
    height: u32,
    margin: [u8; 3],
}

/// Reads the blocks of a GIF up to its first frame; `None` where they end early, which the decoder has then reported.
fn gif_frame(bytes: &[u8]) -> Option<GifFrame> {
    // a table of 2^(n+1) colours follows where the top bit is set
    let table = |flags: u8| if flags & 0x80 != 0 { 3 << ((flags & 7) + 1) } else { 0usize };
    let global = bytes.get(13..13 + table(*bytes.get(10)?))?;
    let mut at = 13 + global.len();
    let mut transparent = 0;
    loop {
        match *bytes.get(at)? {
            0x21 => {
                // graphic control: flags, delay, transparent index
                if let Some(&[0xF9, 4, flags, _, _, index]) = bytes.get(at + 1..at + 7)
                    && flags & 1 != 0
                {
                    transparent = index;
                }
                at += 2;
                while *bytes.get(at)? != 0 {
                    at += 1 + usize::from(bytes[at]);
                }
                at += 1;
            }
            0x2C => {
                let head = bytes.get(at + 1..at + 10)?;
                let local = bytes.get(at + 10..at + 10 + table(head[8]))?;
                let colours = if local.is_empty() { global } else { local };
                let margin = colours.as_chunks::<3>().0.get(usize::from(transparent)).copied().unwrap_or_default();
                let number = |i: usize| u32::from(u16::from_le_bytes([head[i], head[i + 1]]));
                return Some(GifFrame { left: number(0), top: number(2), width: number(4), height: number(6), margin });
            }
            _ => at += 1,
        }
    }
}

/// Paints what the first frame of a GIF leaves free in the transparent colour (without one, the first), as Pillow does.
fn fill_gif_margin(decoded: &mut DynamicImage, bytes: &[u8]) {
    let (Some(frame), DynamicImage::ImageRgba8(pixels)) = (gif_frame(bytes), decoded) else { return };
    let (columns, rows) = (frame.left..frame.left + frame.width, frame.top..frame.top + frame.height);
    let [red, green, blue] = frame.margin;
    for (x, y, pixel) in pixels.enumerate_pixels_mut() {
        if !columns.contains(&x) || !rows.contains(&y) {
            pixel.0 = [red, green, blue, 0];
        }
    }
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
        assert!(why(Picture::from_rgb(10001, 10000, vec![])).contains("which is 100010000"));
        assert!(why(Picture::from_rgb(usize::MAX, usize::MAX, vec![])).contains("16384"));
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        assert!(why(Picture::decode(b"")).contains("empty file"));
        assert!(why(Picture::decode(b"hello, I am a picture")).contains("got something else"));
        assert!(why(Picture::decode(b"II*\0\x08\0\0\0\0\0\0\0\0\0\0\0")).contains("got Tiff"));
        assert!(why(Picture::decode(b"\x89PNG\r\n\x1a\n")).contains("broken or truncated"));
        assert!(why(Picture::decode(b"\xFF\xD8\xFF\xE0")).contains("broken or truncated"));
    }

    #[test]
    fn a_jpeg_is_whole_with_its_end_marker_outside_segments() {
        assert!(jpeg_is_whole(b"\xFF\xD8\xFF\xDA\x00\x02\x11\xFF\x00\xFF\xD0\x22\xFF\xD9"));
        assert!(!jpeg_is_whole(b"\xFF\xD8\xFF\xE1\x00\x04\xFF\xD9\xFF\xDA\x00\x02\x11\x22")); // a thumbnail's marker
        assert!(!jpeg_is_whole(b"\xFF\xD8\xFF\xDA\x00"));
    }

    #[test]
    fn xmp_orientation_is_found_in_both_spellings() {
        assert_eq!(xmp_orientation(b"<x tiff:Orientation=\"6\"/>"), Some(6));
        assert_eq!(xmp_orientation(b"tiff:Orientation <tiff:Orientation>8</tiff:Orientation>"), Some(8));
        assert_eq!(xmp_orientation(b"tiff:Orientation=\"x\""), None);
    }
}
