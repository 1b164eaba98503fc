//! Input: a JPEG file. Output: its orientation metadata, and the same picture with an explicit colour space.
//! Source: `default_decompress_parms` in libjpeg's `jdapimin.c`; metadata as in Pillow's `JpegImagePlugin.py`.
//!
//! JFIF marker, Adobe marker and component names determine the colour space, in libjpeg's order of precedence. Not every
//! decoder uses this order, so the decoder gets a copy with one Adobe marker and no other metadata.

use std::borrow::Cow;

use super::orientation::{EXIF_PREFIX, Metadata};

const XMP_PREFIX: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";

const START_OF_SCAN: u8 = 0xDA;
const END: u8 = 0xD9;

/// A part of a JPEG file.
enum Part<'a> {
    /// A marker segment: all its bytes, and those after its length.
    Segment { marker: u8, all: &'a [u8], body: &'a [u8] },
    /// Bytes between segments: pixels after the start of a scan, elsewhere without meaning.
    Between(&'a [u8]),
}

/// The parts of a JPEG after its start marker, up to and including its end marker, or to where the file is truncated.
fn parts(bytes: &[u8]) -> impl Iterator<Item = Part<'_>> {
    let (mut rest, mut over) = (bytes.get(2..).unwrap_or_default(), false);
    std::iter::from_fn(move || {
        if over || rest.is_empty() {
            return None;
        }
        // stuffed pixels, fill bytes and markers without a length do not begin a segment
        let begins = |pair: &[u8]| pair[0] == 0xFF && !matches!(pair[1], 0x00 | 0x01 | 0xD0..=0xD8 | 0xFF);
        let at = rest.windows(2).position(begins).unwrap_or(rest.len());
        if at > 0 {
            let (between, tail) = rest.split_at(at);
            rest = tail;
            return Some(Part::Between(between));
        }
        let marker = rest[1];
        over = marker == END;
        let length = if over { 0 } else { usize::from(u16::from_be_bytes(*rest.get(2..)?.first_chunk()?)) };
        let (all, tail) = rest.split_at_checked(2 + length)?;
        rest = tail;
        Some(Part::Segment { marker, all, body: all.get(4..).unwrap_or_default() })
    })
}

/// Whether a JPEG has its end marker outside the segments.
///
/// Without it the decoder fills the missing pixels with grey and reports no error; Pillow reports a truncated file.
pub(super) fn is_whole(bytes: &[u8]) -> bool {
    parts(bytes).any(|part| matches!(part, Part::Segment { marker: END, .. }))
}

/// The header as (marker, body): all segments before the first scan.
fn header(bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    parts(bytes)
        .filter_map(|part| match part {
            Part::Segment { marker, body, .. } => Some((marker, body)),
            Part::Between(_) => None,
        })
        .take_while(|(marker, _)| *marker != START_OF_SCAN)
}

/// Reads the metadata of a JPEG: all Exif segments joined, and the last XMP segment.
pub(super) fn metadata(bytes: &[u8]) -> Metadata<'_> {
    let mut found = Metadata::default();
    for (_, body) in header(bytes).filter(|(marker, _)| *marker == 0xE1) {
        if let Some(more) = body.strip_prefix(EXIF_PREFIX) {
            match &mut found.exif {
                None => found.exif = Some(Cow::Borrowed(body)),
                Some(exif) => exif.to_mut().extend(more),
            }
        } else if let Some(packet) = body.strip_prefix(XMP_PREFIX) {
            found.xmp = Some(packet.into());
        }
    }
    found
}

/// The frame header.
pub(super) struct Frame {
    marker: u8,
    pub width: u16,
    pub height: u16,
    /// Per component: its name, its horizontal and its vertical sampling factor.
    pub components: Vec<[u8; 3]>,
}

impl Frame {
    pub fn is_progressive(&self) -> bool {
        self.marker == 0xC2
    }
}

/// Reads the frame header.
pub(super) fn frame(bytes: &[u8]) -> Option<Frame> {
    let is_frame = |marker: u8| matches!(marker, 0xC0..=0xCF) && !matches!(marker, 0xC4 | 0xC8 | 0xCC);
    let (marker, body) = header(bytes).find(|(marker, _)| is_frame(*marker))?;
    let components = body.get(6..)?.as_chunks::<3>().0;
    let components = components.iter().map(|[name, samples, _]| [*name, samples >> 4, samples & 15]).collect();
    let [height, width] = [1, 3].map(|at| u16::from_be_bytes([body[at], body[at + 1]]));
    Some(Frame { marker, width, height, components })
}

/// A property of the JPEG that the decoder handles incorrectly or not at all, in words.
pub(super) fn obstacle(bytes: &[u8]) -> Option<&'static str> {
    let frame = frame(bytes)?;
    let Frame { marker, components, .. } = &frame;
    if !matches!(marker, 0xC0..=0xC2) {
        return Some("lossless, hierarchical or arithmetic coding");
    }
    let &[_, across, down] = components.first()?;
    if components.iter().any(|component| component[1] > across || component[2] > down) {
        return Some("colours of a finer resolution than the brightness");
    }
    let partial = |part: Part| match part {
        Part::Segment { marker: START_OF_SCAN, body, .. } => {
            body.first().is_some_and(|n| usize::from(*n) < components.len())
        }
        _ => false,
    };
    (!frame.is_progressive() && parts(bytes).any(partial)).then_some("a separate scan per colour")
}

/// The colour space of the components.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Colors {
    Grey,
    Rgb,
    YCbCr,
    Cmyk,
    Ycck,
}

/// The colour space of components with these names, by libjpeg's rules. `None` unless there are 1, 3 or 4 components.
fn colors(bytes: &[u8], names: &[u8]) -> Option<Colors> {
    let (mut jfif, mut adobe) = (false, None);
    for (marker, body) in header(bytes) {
        match marker {
            0xE0 if body.len() >= 14 && body.starts_with(b"JFIF\0") => jfif = true,
            0xEE if body.len() >= 12 && body.starts_with(b"Adobe") => adobe = Some(body[11]),
            _ => {}
        }
    }
    Some(match (names, jfif, adobe) {
        ([_], ..) => Colors::Grey,
        ([_, _, _], true, _) => Colors::YCbCr,
        ([_, _, _], false, Some(0)) => Colors::Rgb,
        ([_, _, _], false, Some(_)) => Colors::YCbCr,
        (b"RGB", false, None) => Colors::Rgb,
        ([_, _, _], false, None) => Colors::YCbCr,
        ([_, _, _, _], _, None | Some(0)) => Colors::Cmyk,
        ([_, _, _, _], _, Some(_)) => Colors::Ycck,
        _ => return None,
    })
}

/// The same picture with one Adobe marker that states its colour space, and without other metadata.
///
/// `None` without a valid frame header; the decoder then reports the error.
pub(super) fn with_color_space(bytes: &[u8]) -> Option<Vec<u8>> {
    let names: Vec<u8> = frame(bytes)?.components.iter().map(|component| component[0]).collect();
    let colors = colors(bytes, &names)?;
    let misnamed = colors == Colors::YCbCr && names == b"RGB";
    let mut out = Vec::with_capacity(bytes.len() + 16);
    out.extend([0xFF, 0xD8]);
    let transform = match colors {
        Colors::Grey => None,
        Colors::Rgb | Colors::Cmyk => Some(0),
        Colors::YCbCr => Some(1),
        Colors::Ycck => Some(2),
    };
    if let Some(transform) = transform {
        out.extend(b"\xFF\xEE\0\x0EAdobe\0\x64\0\0\0\0");
        out.push(transform);
    }
    let mut scan = false;
    for part in parts(bytes) {
        match part {
            Part::Between(data) if scan => out.extend(data),
            Part::Between(_) => {}
            // application data, comments, and the number of lines, which the frame header has as well
            Part::Segment { marker: 0xE0..=0xEF | 0xFE | 0xDC, .. } => {}
            Part::Segment { marker, all, .. } => {
                scan |= marker == START_OF_SCAN;
                let at = out.len();
                out.extend(all);
                if misnamed {
                    rename(marker, &mut out[at + 2..]);
                }
            }
        }
    }
    Some(out)
}

/// Renames components that are named R, G and B although they are YCbCr: the decoder would read them as RGB.
fn rename(marker: u8, segment: &mut [u8]) {
    let (count, step) = match marker {
        0xC0..=0xC2 => (7, 3),
        START_OF_SCAN => (2, 2),
        _ => return,
    };
    let components = segment.get(count).copied().unwrap_or(0).into();
    for name in segment.iter_mut().skip(count + 1).step_by(step).take(components) {
        *name = match *name {
            b'R' => 1,
            b'G' => 2,
            b'B' => 3,
            other => other,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JFIF: &[u8] = b"\xFF\xE0\0\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0";

    fn adobe(transform: u8) -> Vec<u8> {
        [&b"\xFF\xEE\0\x0EAdobe\0\x64\0\0\0\0"[..], &[transform]].concat()
    }

    /// A JPEG without pixels: segments, a frame of components with these names and samples, a scan of all of them.
    fn file(segments: &[u8], marker: u8, components: &[(u8, u8)]) -> Vec<u8> {
        let count = components.len() as u8;
        let frame = components.iter().flat_map(|(name, samples)| [*name, *samples, 0]);
        let scan = components.iter().flat_map(|(name, _)| [*name, 0]);
        let mut out = [b"\xFF\xD8", segments, &[0xFF, marker, 0, 8 + 3 * count, 8, 0, 1, 0, 1, count]].concat();
        out.extend(frame);
        out.extend([0xFF, START_OF_SCAN, 0, 6 + 2 * count, count]);
        out.extend(scan.chain([0, 63, 0, 0x11, 0xFF, 0xD9]));
        out
    }

    #[test]
    fn a_jpeg_is_whole_with_its_end_marker_outside_segments() {
        assert!(is_whole(b"\xFF\xD8\xFF\xDA\x00\x02\x11\xFF\x00\xFF\xD0\x22\xFF\xD9"));
        assert!(!is_whole(b"\xFF\xD8\xFF\xE1\x00\x04\xFF\xD9\xFF\xDA\x00\x02\x11\x22")); // a thumbnail's marker
        assert!(!is_whole(b"\xFF\xD8\xFF\xDA\x00"));
    }

    #[test]
    fn the_color_space_follows_libjpeg() {
        use Colors::{Cmyk, Grey, Rgb, YCbCr, Ycck};
        let both = |first: &[u8], second: &[u8]| [first, second].concat();
        for (segments, names, meaning) in [
            (vec![], &b"\x01"[..], Some(Grey)),
            (vec![], b"\x01\x02\x03", Some(YCbCr)),
            (vec![], b"RGB", Some(Rgb)),
            (vec![], b"rgb", Some(YCbCr)),
            (JFIF.to_vec(), b"RGB", Some(YCbCr)),
            (both(JFIF, &adobe(0)), b"\x01\x02\x03", Some(YCbCr)),
            (both(&adobe(0), JFIF), b"\x01\x02\x03", Some(YCbCr)),
            (adobe(0), b"\x01\x02\x03", Some(Rgb)),
            (adobe(1), b"RGB", Some(YCbCr)),
            (adobe(9), b"\x01\x02\x03", Some(YCbCr)),
            (both(&adobe(1), &adobe(0)), b"\x01\x02\x03", Some(Rgb)),
            (vec![], b"\x01\x02\x03\x04", Some(Cmyk)),
            (adobe(0), b"CMYK", Some(Cmyk)),
            (adobe(1), b"CMYK", Some(Ycck)),
            (adobe(2), b"\x01\x02\x03\x04", Some(Ycck)),
            (vec![], b"\x01\x02", None),
        ] {
            let components: Vec<_> = names.iter().map(|name| (*name, 0x11)).collect();
            assert_eq!(colors(&file(&segments, 0xC0, &components), names), meaning, "{names:?} after {segments:?}");
        }
    }

    #[test]
    fn the_color_space_is_stated_first_and_once() {
        let names = [(b'R', 0x11), (b'G', 0x11), (b'B', 0x11)];
        let (before, after) = (file(&[JFIF, &adobe(0)].concat(), 0xC0, &names), [(1, 0x11), (2, 0x11), (3, 0x11)]);
        assert_eq!(with_color_space(&before), Some(file(&adobe(1), 0xC0, &after)));
        assert_eq!(with_color_space(&file(&[], 0xC0, &names)), Some(file(&adobe(0), 0xC0, &names)));
        assert_eq!(with_color_space(&file(JFIF, 0xC0, &names[..1])), Some(file(&[], 0xC0, &names[..1])));
        assert_eq!(with_color_space(b"\xFF\xD8\xFF\xD9"), None);
    }

    #[test]
    fn exif_segments_are_joined_and_the_last_xmp_counts() {
        let segment = |body: &[u8]| [&[0xFF, 0xE1, 0, 2 + body.len() as u8][..], body].concat();
        let xmp = |packet: &[u8]| segment(&[XMP_PREFIX, packet].concat());
        let all = [segment(b"Exif\0\0ab"), xmp(b"x"), segment(b"Exif\0\0cd"), segment(b"other"), xmp(b"y")].concat();
        let file = file(&all, 0xC0, &[(1, 0x11)]);
        let Metadata { exif, xmp } = metadata(&file);
        assert_eq!((exif.as_deref(), xmp.as_deref()), (Some(&b"Exif\0\0abcd"[..]), Some(&b"y"[..])));
    }

    #[test]
    fn a_property_that_the_decoder_cannot_read_is_named() {
        let words = |marker, components: &[_]| obstacle(&file(&[], marker, components)).unwrap_or_default();
        assert_eq!(words(0xC0, &[(1, 0x22), (2, 0x11), (3, 0x21)]), "");
        assert!(words(0xC0, &[(1, 0x11), (2, 0x21), (3, 0x11)]).contains("finer"));
        assert!(words(0xC2, &[(1, 0x21), (2, 0x12), (3, 0x11)]).contains("finer"));
        assert!(words(0xC9, &[(1, 0x11)]).contains("arithmetic"));
        let mut apart = file(&[], 0xC0, &[(1, 0x11), (2, 0x11), (3, 0x11)]);
        let scan = apart.windows(2).position(|pair| pair == [0xFF, START_OF_SCAN]).expect("a scan");
        apart[scan + 4] = 1;
        assert!(obstacle(&apart).unwrap_or_default().contains("separate scan"));
    }
}
