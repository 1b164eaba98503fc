//! Input: the bytes of a file. Output: its picture format, or the name of its real format for the error message.

use std::borrow::Cow;

use image::ImageFormat;

/// The first bytes of files of other formats.
const MAGIC: [(&[u8], &str); 13] = [
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"\0\0\x01\0", "ICO"),
    (b"%PDF-", "PDF"),
    (b"\0\0\0\x0CjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xFF\x4F\xFF\x51", "JPEG 2000"),
    (b"\0\0\0\x0CJXL \r\n\x87\n", "JPEG XL"),
    (b"\xFF\x0A", "JPEG XL"),
    (b"8BPS", "PSD"),
    (b"<!DOCTYPE html", "HTML"),
    (b"<html", "HTML"),
];

/// The format of a picture that can be read.
///
/// # Errors
/// The name of the file's real format, or "something else".
pub(super) fn kind(bytes: &[u8]) -> Result<ImageFormat, Cow<'static, str>> {
    use ImageFormat::{Bmp, Gif, Jpeg, Png, WebP};
    match image::guess_format(bytes) {
        Ok(format @ (Png | Jpeg | WebP | Gif | Bmp)) => Ok(format),
        guess => Err(match (name(bytes), guess) {
            (Some(name), _) => name.into(),
            (None, Ok(other)) => format!("{other:?}").into(),
            (None, Err(_)) => "something else".into(),
        }),
    }
}

/// The name of another format.
fn name(bytes: &[u8]) -> Option<&'static str> {
    if let Some(&(_, name)) = MAGIC.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return Some(name);
    }
    if bytes.get(4..8) == Some(b"ftyp") {
        // a box: length, kind, main brand, version, other brands
        let length = u32::from_be_bytes(*bytes.first_chunk()?).clamp(16, 256) as usize;
        let brands = bytes.get(8..length.min(bytes.len()))?.as_chunks::<4>().0;
        let has = |names: &[&[u8; 4]]| brands.iter().any(|brand| names.contains(&brand));
        return Some(match () {
            () if has(&[b"avif", b"avis"]) => "AVIF",
            () if has(&[b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"]) => "HEIC",
            () => "MP4 or another video",
        });
    }
    let head = &bytes[..bytes.len().min(1024)];
    let is_text = std::str::from_utf8(head).is_ok() || head.len() == 1024;
    (is_text && head.windows(4).any(|word| word == b"<svg")).then_some("SVG")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_formats_are_named() {
        let ftyp = |brands: &[u8]| [&(8 + brands.len() as u32).to_be_bytes()[..], b"ftyp", brands, b"mdat"].concat();
        for (bytes, name) in [
            (ftyp(b"heic\0\0\0\0mif1heic"), "HEIC"),
            (ftyp(b"mif1\0\0\0\0mif1heic"), "HEIC"),
            (ftyp(b"mif1\0\0\0\0mif1avif"), "AVIF"),
            (ftyp(b"avif\0\0\0\0"), "AVIF"),
            (ftyp(b"isom\0\0\x02\0"), "MP4 or another video"),
            (b"\xEF\xBB\xBF<?xml version=\"1.0\"?>\n<svg xmlns=\"\">".to_vec(), "SVG"),
            (b"%PDF-1.7".to_vec(), "PDF"),
            (b"\0\0\0\x0CjP  \r\n\x87\n".to_vec(), "JPEG 2000"),
            (b"\xFF\x4F\xFF\x51\0".to_vec(), "JPEG 2000"),
            (b"\0\0\0\x0CJXL \r\n\x87\n".to_vec(), "JPEG XL"),
            (b"\xFF\x0A\xFA".to_vec(), "JPEG XL"),
            (b"II*\0\x08\0\0\0".to_vec(), "TIFF"),
            (b"\0\0\x01\0\x01\0".to_vec(), "ICO"),
            (b"qoif\0\0\0\x01".to_vec(), "Qoi"),
            (b"hello, I am a picture".to_vec(), "something else"),
            (b"\0\0\0\x08ftyp".to_vec(), "MP4 or another video"),
        ] {
            assert_eq!(kind(&bytes).map_err(|name| name.into_owned()), Err(name.to_owned()));
        }
        assert_eq!(kind(b"BM"), Ok(ImageFormat::Bmp));
    }
}
