//! Input: the Exif block and the XMP packet of a file. Output: the rotation that makes the picture upright.
//! Source: Pillow's `ImageOps.exif_transpose`.
//!
//! The Exif tag decides, even with an invalid value. XMP is read only if Exif has no such tag.

use std::borrow::Cow;

use image::metadata::Orientation;

const ORIENTATION: u16 = 0x0112;
/// An optional prefix of an Exif block. It can occur twice.
pub(super) const EXIF_PREFIX: &[u8] = b"Exif\0\0";

/// The metadata about the orientation of the camera.
#[derive(Debug, Default)]
pub(super) struct Metadata<'a> {
    /// The Exif block: a TIFF file, with or without its prefix.
    pub exif: Option<Cow<'a, [u8]>>,
    /// The XMP packet.
    pub xmp: Option<Cow<'a, [u8]>>,
}

impl Metadata<'_> {
    /// The rotation or reflection that makes the picture upright.
    pub fn turn(&self) -> Orientation {
        let number = match self.exif.as_deref().map_or(Tag::Missing, exif_orientation) {
            Tag::Value(number) => number,
            Tag::Missing => self.xmp.as_deref().and_then(xmp_orientation),
        };
        number.and_then(Orientation::from_exif).unwrap_or(Orientation::NoTransforms)
    }
}

/// The orientation tag of an Exif block.
#[derive(Debug, PartialEq, Eq)]
enum Tag {
    /// There is no tag.
    Missing,
    /// Its number; `None` if the value is not a number, or if the block cannot be read at all.
    Value(Option<u8>),
}

/// Reads numbers in the byte order of a TIFF file.
struct Tiff<'a> {
    bytes: &'a [u8],
    big_endian: bool,
}

impl Tiff<'_> {
    /// The unsigned number at an offset.
    fn number<const N: usize>(&self, at: usize) -> Option<u64> {
        let bytes = self.bytes.get(at..)?.first_chunk::<N>()?;
        let digits = bytes.iter().map(|byte| u64::from(*byte));
        let join = |number, digit| number << 8 | digit;
        Some(if self.big_endian { digits.fold(0, join) } else { digits.rev().fold(0, join) })
    }

    /// The first value of a type at an offset, if it is a whole number from 0 to 255.
    fn value(&self, kind: u64, at: usize) -> Option<u8> {
        let whole = |number: f64| (number.fract() == 0.0 && (0.0..256.0).contains(&number)).then_some(number as u8);
        match kind {
            3 | 8 => self.number::<2>(at)?.try_into().ok(),
            4 | 9 | 13 => self.number::<4>(at)?.try_into().ok(),
            16 => self.number::<8>(at)?.try_into().ok(),
            6 => self.number::<1>(at)?.try_into().ok(),
            5 => whole(self.number::<4>(at)? as f64 / self.number::<4>(at + 4)? as f64),
            10 => {
                let signed = |at| Some(f64::from(self.number::<4>(at)? as u32 as i32));
                whole(signed(at)? / signed(at + 4)?)
            }
            11 => whole(f64::from(f32::from_bits(self.number::<4>(at)? as u32))),
            12 => whole(f64::from_bits(self.number::<8>(at)?)),
            _ => None, // bytes and text are not numbers
        }
    }
}

/// The size of a value of a TIFF type, in bytes; `None` for an unknown type.
fn unit(kind: u64) -> Option<u64> {
    Some(match kind {
        1 | 2 | 6 | 7 => 1,
        3 | 8 => 2,
        4 | 9 | 11 | 13 => 4,
        5 | 10 | 12 | 16 => 8,
        _ => return None,
    })
}

/// The orientation in the first directory of an Exif block.
fn exif_orientation(block: &[u8]) -> Tag {
    let mut bytes = block;
    for _ in 0..2 {
        bytes = bytes.strip_prefix(EXIF_PREFIX).unwrap_or(bytes);
    }
    if bytes.is_empty() {
        return Tag::Missing;
    }
    // the letters determine the byte order, even if the number after them has the other order
    let big_endian = match bytes.first_chunk::<4>() {
        Some(b"MM\0*" | b"MM*\0" | b"MM\0+") => true,
        Some(b"II*\0" | b"II\0*") => false,
        _ => return Tag::Value(None),
    };
    let tiff = Tiff { bytes, big_endian };
    let Some(offset) = tiff.number::<4>(4) else { return Tag::Value(None) };
    find_orientation(&tiff, offset as usize).unwrap_or(Tag::Missing)
}

/// Searches a directory; `None` if it ends without the tag or is truncated.
fn find_orientation(tiff: &Tiff, directory: usize) -> Option<Tag> {
    let length = tiff.bytes.len() as u64;
    let entries = tiff.number::<2>(directory)? as usize;
    let mut elsewhere = 0u64; // bytes of values outside their entries; at most the size of the block
    for index in 0..entries {
        let at = directory + 2 + 12 * index;
        let [tag, kind] = [tiff.number::<2>(at)?, tiff.number::<2>(at + 2)?];
        let [count, offset] = [tiff.number::<4>(at + 4)?, tiff.number::<4>(at + 8)?];
        let Some(unit) = unit(kind) else { continue };
        let size = count * unit;
        let mut place = at + 8;
        if size > 4 {
            elsewhere = elsewhere.saturating_add(size);
            if elsewhere > length {
                continue;
            }
            if offset + size > length {
                return None; // truncated: Pillow stops here, too
            }
            place = offset as usize;
        }
        if tag == u64::from(ORIENTATION) && size > 0 {
            return Some(Tag::Value(tiff.value(kind, place)));
        }
    }
    None
}

/// The digit after the first `tiff:Orientation="` or `tiff:Orientation>` of an XMP packet.
fn xmp_orientation(xmp: &[u8]) -> Option<u8> {
    const NAME: &[u8] = b"tiff:Orientation";
    xmp.windows(NAME.len()).enumerate().filter(|(_, window)| *window == NAME).find_map(|(at, _)| {
        let rest = &xmp[at + NAME.len()..];
        let digit = rest.strip_prefix(b"=\"").or_else(|| rest.strip_prefix(b">"))?.first()?;
        digit.is_ascii_digit().then(|| digit - b'0')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block with one entry per row: tag, type, count and the four bytes of the value.
    fn block(big_endian: bool, rows: &[(u16, u16, u32, [u8; 4])]) -> Vec<u8> {
        let short = |v: u16| if big_endian { v.to_be_bytes() } else { v.to_le_bytes() };
        let long = |v: u32| if big_endian { v.to_be_bytes() } else { v.to_le_bytes() };
        let mut out = if big_endian { b"MM".to_vec() } else { b"II".to_vec() };
        out.extend(short(42));
        out.extend(long(8));
        out.extend(short(rows.len() as u16));
        for (tag, kind, count, value) in rows {
            out.extend([short(*tag), short(*kind)].concat());
            out.extend(long(*count));
            out.extend(value);
        }
        out.extend([0; 4]);
        out
    }

    #[test]
    fn every_type_of_number_is_read_in_both_byte_orders() {
        for (kind, little, big) in [
            (3, [6, 0, 0, 0], [0, 6, 0, 0]),
            (4, [6, 0, 0, 0], [0, 0, 0, 6]),
            (6, [6, 0, 0, 0], [6, 0, 0, 0]),
            (8, [6, 0, 0, 0], [0, 6, 0, 0]),
            (9, [6, 0, 0, 0], [0, 0, 0, 6]),
            (11, 6f32.to_le_bytes(), 6f32.to_be_bytes()),
            (13, [6, 0, 0, 0], [0, 0, 0, 6]),
        ] {
            let count = 1;
            assert_eq!(exif_orientation(&block(false, &[(274, kind, count, little)])), Tag::Value(Some(6)), "{kind}");
            assert_eq!(exif_orientation(&block(true, &[(274, kind, count, big)])), Tag::Value(Some(6)), "{kind}");
        }
        for kind in [1, 2, 7] {
            assert_eq!(exif_orientation(&block(false, &[(274, kind, 1, [6, 0, 0, 0])])), Tag::Value(None), "{kind}");
        }
    }

    #[test]
    fn the_first_tag_that_has_a_value_counts() {
        let rows =
            [(274, 99, 1, [3, 0, 0, 0]), (274, 3, 0, [4, 0, 0, 0]), (256, 4, 1, [9; 4]), (274, 3, 1, [6, 0, 0, 0])];
        assert_eq!(exif_orientation(&block(false, &rows)), Tag::Value(Some(6)));
        let rows = [(274, 3, 2, [8, 0, 6, 0]), (274, 3, 1, [6, 0, 0, 0])];
        assert_eq!(exif_orientation(&block(false, &rows)), Tag::Value(Some(8)));
        let far = [(274, 4, 2, [0, 0, 0, 1]), (274, 3, 1, [6, 0, 0, 0])];
        assert_eq!(exif_orientation(&block(false, &far)), Tag::Missing);
    }

    #[test]
    fn prefixes_are_removed_and_other_bytes_give_no_number() {
        let held = block(true, &[(274, 3, 1, [0, 8, 0, 0])]);
        let once = [EXIF_PREFIX, &held].concat();
        let twice = [EXIF_PREFIX, &once].concat();
        let thrice = [EXIF_PREFIX, &twice].concat();
        assert_eq!([&once, &twice].map(|b| exif_orientation(b)), [Tag::Value(Some(8)), Tag::Value(Some(8))]);
        assert_eq!(exif_orientation(&thrice), Tag::Value(None));
        assert_eq!(exif_orientation(b"Exif\0\0"), Tag::Missing);
        assert_eq!(exif_orientation(b"II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0"), Tag::Value(None)); // BigTIFF
        for cut in 0..held.len() - 4 {
            let got = exif_orientation(&held[..cut]);
            assert!(!matches!(got, Tag::Value(Some(_))) || cut >= 22, "cut at {cut}: expected nothing, got {got:?}");
        }
    }

    #[test]
    fn xmp_counts_only_without_a_tag_in_exif() {
        let xmp = || Some(Cow::Borrowed(&b"<x tiff:Orientation=\"6\"/>"[..]));
        let exif = |value| Some(Cow::Owned(block(false, &[(274, 3, 1, [value, 0, 0, 0])])));
        assert_eq!(Metadata { exif: exif(0), xmp: xmp() }.turn(), Orientation::NoTransforms);
        assert_eq!(Metadata { exif: exif(9), xmp: xmp() }.turn(), Orientation::NoTransforms);
        assert_eq!(Metadata { exif: exif(3), xmp: xmp() }.turn(), Orientation::Rotate180);
        assert_eq!(Metadata { exif: Some(block(false, &[]).into()), xmp: xmp() }.turn(), Orientation::Rotate90);
        assert_eq!(Metadata { exif: None, xmp: xmp() }.turn(), Orientation::Rotate90);
        assert_eq!(Metadata::default().turn(), Orientation::NoTransforms);
    }

    #[test]
    fn xmp_orientation_is_found_in_both_spellings() {
        assert_eq!(xmp_orientation(b"<x tiff:Orientation=\"6\"/>"), Some(6));
        assert_eq!(xmp_orientation(b"tiff:Orientation <tiff:Orientation>8</tiff:Orientation>"), Some(8));
        assert_eq!(xmp_orientation(b"tiff:Orientation=\"x\""), None);
    }
}
