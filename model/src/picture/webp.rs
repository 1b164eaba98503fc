//! Input: a WebP file. Output: its orientation metadata, and its first frame as a plain file.
//! Source: the WebP container specification; metadata as in Pillow's `WebPImagePlugin.py`.
//!
//! The plain file has no alpha (which is dropped anyway), no metadata and no other frames, so the decoder cannot interpret
//! their flags differently.

use super::orientation::Metadata;

/// The first frame of a WebP, and its position on the canvas.
pub(super) struct Frame {
    /// A WebP file that contains only the pixels of the frame.
    pub file: Vec<u8>,
    /// Width and height of the canvas. `None` if the file declares no canvas: the frame is the whole picture.
    pub canvas: Option<(u32, u32)>,
    /// The frame's upper left corner.
    pub corner: (u32, u32),
}

/// The RIFF chunks in some bytes, each as (kind, data), without a truncated one.
fn chunks(mut rest: &[u8]) -> impl Iterator<Item = (&[u8; 4], &[u8])> {
    std::iter::from_fn(move || {
        let (kind, tail) = rest.split_first_chunk::<4>()?;
        let (length, tail) = tail.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*length) as usize;
        let data = tail.get(..length)?;
        rest = tail.get(length + length % 2..).unwrap_or_default();
        Some((kind, data))
    })
}

/// The bytes after the RIFF header, as many as it declares; `None` if there are fewer: Pillow does not open such a file.
fn body(bytes: &[u8]) -> Option<&[u8]> {
    let size = bytes.get(4..)?.first_chunk::<4>()?;
    bytes.get(12..8usize.checked_add(u32::from_le_bytes(*size) as usize)?)
}

/// Whether a WebP has all the bytes that its RIFF header declares.
///
/// Only the first frame is decoded, which does not detect that later ones are missing.
pub(super) fn is_whole(bytes: &[u8]) -> bool {
    body(bytes).is_some()
}

fn three_bytes(data: &[u8], at: usize) -> Option<u32> {
    let &[low, middle, high] = data.get(at..)?.first_chunk::<3>()?;
    Some(u32::from_le_bytes([low, middle, high, 0]))
}

/// Reads the metadata of an extended WebP: the first chunk of each kind that the flags of the header declare.
pub(super) fn metadata(bytes: &[u8]) -> Metadata<'_> {
    let body = body(bytes).unwrap_or_default();
    let Some((b"VP8X", &[flags, ..])) = chunks(body).next() else { return Metadata::default() };
    let first = |wanted: &[u8; 4], flag: u8| {
        let found = chunks(body).find(|(kind, _)| *kind == wanted).filter(|(_, data)| !data.is_empty());
        found.filter(|_| flags & flag != 0).map(|(_, data)| data.into())
    };
    Metadata { exif: first(b"EXIF", 8), xmp: first(b"XMP ", 4) }
}

/// Extracts the first frame of a WebP; `None` if it has none.
pub(super) fn first_frame(bytes: &[u8]) -> Option<Frame> {
    let body = body(bytes)?;
    let Some((b"VP8X", header)) = chunks(body).next() else {
        return Some(Frame { file: plain(body)?, canvas: None, corner: (0, 0) });
    };
    let canvas = Some((three_bytes(header, 4)? + 1, three_bytes(header, 7)? + 1));
    if header[0] & 2 == 0 {
        return Some(Frame { file: plain(body)?, canvas, corner: (0, 0) });
    }
    // animated: a frame begins with sixteen bytes (position, size, duration), its own chunks follow
    chunks(body).filter(|(kind, _)| *kind == b"ANMF").find_map(|(_, frame)| {
        let corner = (three_bytes(frame, 0)? * 2, three_bytes(frame, 3)? * 2);
        Some(Frame { file: plain(frame.get(16..)?)?, canvas, corner })
    })
}

/// A WebP file of the first chunk of pixels in some bytes.
fn plain(bytes: &[u8]) -> Option<Vec<u8>> {
    let (kind, data) = chunks(bytes).find(|(kind, _)| matches!(*kind, b"VP8 " | b"VP8L"))?;
    let size = data.len() + data.len() % 2;
    let mut file = Vec::with_capacity(20 + size);
    file.extend(b"RIFF");
    file.extend((12 + size as u32).to_le_bytes());
    file.extend(b"WEBP");
    file.extend(kind);
    file.extend((data.len() as u32).to_le_bytes());
    file.extend(data);
    file.resize(20 + size, 0);
    Some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
        let mut out = [kind, &(data.len() as u32).to_le_bytes()[..], data].concat();
        out.resize(out.len().next_multiple_of(2), 0);
        out
    }

    fn file(chunks: &[Vec<u8>]) -> Vec<u8> {
        let body = chunks.concat();
        [&b"RIFF"[..], &(4 + body.len() as u32).to_le_bytes(), b"WEBP", &body].concat()
    }

    fn header(flags: u8) -> Vec<u8> {
        chunk(b"VP8X", &[flags, 0, 0, 0, 9, 0, 0, 6, 0, 0])
    }

    #[test]
    fn metadata_counts_only_if_the_header_declares_it() {
        let [exif, other, xmp] = [chunk(b"EXIF", b"a"), chunk(b"EXIF", b"b"), chunk(b"XMP ", b"x")];
        for (flags, has_exif, has_xmp) in [(0, false, false), (4, false, true), (8, true, false), (12, true, true)] {
            let file = file(&[header(flags), exif.clone(), xmp.clone(), other.clone()]);
            let found = metadata(&file);
            assert_eq!(found.exif.as_deref(), has_exif.then_some(&b"a"[..]), "{flags}");
            assert_eq!(found.xmp.as_deref(), has_xmp.then_some(&b"x"[..]), "{flags}");
        }
        assert!(metadata(&file(&[chunk(b"VP8L", b""), exif])).exif.is_none());
    }

    #[test]
    fn the_first_frame_with_pixels_is_extracted() {
        let pixels = chunk(b"VP8L", b"abc");
        let frame = |left: u8, pixels: &[u8]| chunk(b"ANMF", &[&[left][..], &[0; 15], pixels].concat());
        let alone = file(std::slice::from_ref(&pixels));
        let got = first_frame(&alone).expect("a frame");
        assert_eq!((got.file, got.canvas, got.corner), (alone.clone(), None, (0, 0)));
        let got = first_frame(&file(&[header(16), chunk(b"ALPH", b""), pixels.clone()])).expect("a frame");
        assert_eq!((got.file, got.canvas, got.corner), (alone.clone(), Some((10, 7)), (0, 0)));
        let animated = file(&[header(2), chunk(b"ANIM", b""), frame(1, b""), frame(2, &pixels), frame(3, &pixels)]);
        let got = first_frame(&animated).expect("a frame");
        assert_eq!((got.file, got.canvas, got.corner), (alone.clone(), Some((10, 7)), (4, 0)));
        assert!((0..alone.len()).all(|cut| first_frame(&alone[..cut]).is_none() && !is_whole(&alone[..cut])));
    }
}
