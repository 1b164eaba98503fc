//! Input: a BMP file. Output: the same picture with the most common header, which every decoder reads alike.
//! Source: Pillow's `BmpImagePlugin.py`.
//!
//! BMP has many versions of its header, and programs often write inexact fields. This file reads them like Pillow.

/// The compression method with masks for red, green and blue.
const BITFIELDS: u32 = 3;

/// A BMP with a plain header.
pub(super) struct Plain {
    /// The file with the new header.
    pub file: Vec<u8>,
    /// The largest values of red, green and blue, for pixels of 16 bits.
    pub levels: Option<[u32; 3]>,
    /// Whether the rows are stored from top to bottom, although the new header cannot say so.
    pub upside_down: bool,
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

fn short(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes).into())
}

/// Rewrites a BMP; `None` if Pillow does not know the header, or if it is truncated or has impossible numbers.
pub(super) fn plain(bytes: &[u8]) -> Option<Plain> {
    let size = number(bytes, 14)? as usize;
    if !matches!(size, 12 | 40 | 52 | 56 | 64 | 108 | 124) {
        return None;
    }
    let old = size == 12;
    let (width, height, bits) = match old {
        true => (short(bytes, 18)?, short(bytes, 20)?, short(bytes, 24)?),
        false => (number(bytes, 18)?, number(bytes, 22)?, short(bytes, 28)?),
    };
    let (compression, colours) = if old { (0, 0) } else { (number(bytes, 30)?, number(bytes, 46)?) };
    if !matches!(bits, 1 | 4 | 8 | 16 | 24 | 32) {
        return None;
    }
    let mut at = 14 + size;
    let mut masks = None;
    if compression == BITFIELDS {
        masks = Some([number(bytes, 54)?, number(bytes, 58)?, number(bytes, 62)?]);
        at += if size == 40 { 12 } else { 0 };
    }
    // these masks are equal to the default order
    masks = masks.filter(|masks| !matches!((bits, masks), (24, [0xFF_0000, 0xFF00, 0xFF]) | (32, [0, 0, 0])));

    // the palette; the decoder accepts no more entries than the bits can index
    let (entry, most) = (if old { 3 } else { 4 }, 1usize.checked_shl(bits)?.min(256));
    let colours = if colours == 0 { 1 << bits.min(16) } else { colours as usize };
    let palette = if bits <= 8 { bytes.get(at..)? } else { &[] };
    let palette = &palette[..palette.len().min(entry * colours.min(most))];
    let table = if bits <= 8 { entry.saturating_mul(colours) } else { 0 };
    let offset = match number(bytes, 10)? as usize {
        0 => at.saturating_add(table),
        offset if offset == 14 + size => offset.saturating_add(table),
        offset => offset,
    };
    let data = bytes.get(offset..)?;

    let compression = if compression == BITFIELDS && masks.is_none() { 0 } else { compression };
    let upside_down = matches!(compression, 1 | 2) && (height as i32) < 0;
    let height = if upside_down { height.wrapping_neg() } else { height };
    let begin = 54 + masks.map_or(0, |_| 12) + palette.len() / entry * 4;
    let mut file = Vec::with_capacity(begin + data.len() + 4);
    file.extend(b"BM");
    for number in [(begin + data.len()) as u32, 0, begin as u32, 40, width, height, 1 | bits << 16, compression] {
        file.extend(number.to_le_bytes());
    }
    for number in [0, 0, 0, (palette.len() / entry) as u32, 0] {
        file.extend(number.to_le_bytes());
    }
    file.extend(masks.iter().flatten().flat_map(|mask| mask.to_le_bytes()));
    for colour in palette.chunks_exact(entry) {
        file.extend(&colour[..3]);
        file.push(0);
    }
    file.extend(data);
    fill_last_row(&mut file, begin, [width, (height as i32).unsigned_abs(), bits]);
    let levels = match masks {
        _ if bits != 16 => None,
        None | Some([0x7C00, 0x03E0, 0x1F]) => Some([31, 31, 31]),
        Some([0xF800, 0x07E0, 0x1F]) => Some([31, 63, 31]),
        Some(_) => None,
    };
    Some(Plain { file, levels, upside_down })
}

/// Adds the padding of the last row to a multiple of four bytes, which some programs do not write.
fn fill_last_row(file: &mut Vec<u8>, begin: usize, [width, height, bits]: [u32; 3]) {
    let row = (u64::from(width) * u64::from(bits)).div_ceil(8);
    let whole = row.next_multiple_of(4).saturating_mul(height.into());
    let has = (file.len() - begin) as u64;
    if has < whole && has + (row.next_multiple_of(4) - row) >= whole {
        file.resize(begin + whole as usize, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header of `size` bytes for 3x1 pixels, then `rest`: a table and the pixels.
    fn file(size: u32, bits: u32, compression: u32, offset: u32, rest: &[u8]) -> Vec<u8> {
        let mut out = b"BM".to_vec();
        let fields = [0, 0, offset, size, 3, 1, 1 | bits << 16, compression, 0, 0, 0, 0, 0];
        out.extend(fields.iter().flat_map(|field| field.to_le_bytes()));
        out.resize(14 + size as usize, 0);
        out.extend(rest);
        out
    }

    #[test]
    fn every_header_becomes_the_common_one() {
        let pixels = [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0, 0];
        let common = file(40, 24, 0, 54, &pixels);
        for size in [40, 52, 56, 64, 108, 124] {
            let got = plain(&file(size, 24, 0, 14 + size, &pixels)).expect("a header");
            assert_eq!(got.file[10..], common[10..], "{size}");
            let got = plain(&file(size, 24, 0, 0, &pixels[..9])).expect("a header"); // no offset, a short row
            assert_eq!(got.file[10..], common[10..], "{size}");
            assert!((0..54).all(|cut| plain(&file(size, 24, 0, 54, &pixels)[..cut]).is_none()), "{size}");
        }
        let mut huge = file(40, 32, 0, 54, &pixels);
        huge[18..26].fill(0xFF);
        huge[25] = 0x7F;
        assert!(plain(&huge).is_some_and(|plain| plain.file.len() == huge.len()));
        assert!(plain(&file(41, 24, 0, 55, &pixels)).is_none());
        assert!(plain(&file(40, 2, 0, 54, &pixels)).is_none());
        assert!(plain(&file(40, 24, 0, u32::MAX, &pixels)).is_none());
    }

    #[test]
    fn sixteen_bits_have_the_levels_of_their_masks() {
        let masks = |masks: [u32; 3]| masks.iter().flat_map(|mask| mask.to_le_bytes()).collect::<Vec<u8>>();
        let levels = |compression, rest: &[u8]| plain(&file(40, 16, compression, 54, rest)).expect("a header").levels;
        assert_eq!(levels(0, &[0; 8]), Some([31; 3]));
        assert_eq!(levels(3, &masks([0xF800, 0x07E0, 0x1F])), Some([31, 63, 31]));
        assert_eq!(levels(3, &masks([0x7C00, 0x03E0, 0x1F])), Some([31; 3]));
        assert_eq!(levels(3, &masks([0x0F00, 0x00F0, 0x0F])), None);
    }
}
