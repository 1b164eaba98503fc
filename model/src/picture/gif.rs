//! Input: a GIF file. Output: its first frame and logical screen, as in Pillow's `GifImagePlugin.py`.
//!
//! This file reads blocks and screen as leniently as Pillow. The decoder gets a GIF with this frame only and a grey
//! palette, so its output is the colour indices.

/// The first frame of a GIF.
pub(super) struct Frame {
    /// A GIF file with this frame only. Its colours are the indices, as grey levels.
    pub file: Vec<u8>,
    /// Width and height of the screen; at least as large as the frame needs.
    pub screen: (u32, u32),
    /// The frame's upper left corner on the screen.
    pub corner: (u32, u32),
    /// The colour of each index.
    pub colors: [[u8; 3]; 256],
    /// The index outside the frame: the transparent colour, or 0 if there is none.
    pub margin: u8,
}

/// Reads a file from start to end.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    /// The next data block of an extension or a frame; `None` at their end or at the end of the file.
    fn block(&mut self) -> Option<&'a [u8]> {
        let length = self.byte().filter(|length| *length > 0)?;
        Some(self.take(length.into()).unwrap_or_else(|| std::mem::take(&mut self.0)))
    }

    /// A colour table, if the flags declare one. The outer `None` means that the file is truncated.
    fn table(&mut self, flags: u8) -> Option<Option<&'a [u8]>> {
        if flags & 0x80 == 0 {
            return Some(None);
        }
        self.take(3 << ((flags & 7) + 1)).map(Some)
    }
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

/// Whether the table is the identity: each index is its own grey level.
fn is_grey(table: &[u8]) -> bool {
    table.as_chunks::<3>().0.iter().enumerate().all(|(index, colour)| *colour == [index as u8; 3])
}

/// The colours of all 256 indices: black after the end of the table, grey levels without a table.
fn colors(table: Option<&[u8]>) -> [[u8; 3]; 256] {
    let Some(table) = table else { return std::array::from_fn(|index| [index as u8; 3]) };
    let entries = table.as_chunks::<3>().0;
    std::array::from_fn(|index| entries.get(index).copied().unwrap_or_default())
}

/// Reads an extension. Returns the index of the transparent colour, if the extension has one.
///
/// Like Pillow, accepts blocks of any length, and skips at least one block after an empty extension.
fn extension(reader: &mut Reader) -> Option<Option<u8>> {
    const CONTROL: u8 = 0xF9;
    const COMMENT: u8 = 0xFE;
    const APPLICATION: u8 = 0xFF;
    let label = reader.byte()?;
    let block = reader.block();
    let mut transparent = None;
    match (label, block) {
        (CONTROL, Some(control)) => {
            control.get(2)?;
            if control[0] & 1 != 0 {
                transparent = Some(*control.get(3)?);
            }
        }
        (COMMENT, None) => return Some(None),
        (APPLICATION, Some(name)) if name.starts_with(b"NETSCAPE2.0") => _ = reader.block(),
        _ => {}
    }
    while reader.block().is_some() {}
    Some(transparent)
}

/// Extracts the first frame of a GIF; `None` if the file has none or is truncated.
pub(super) fn first_frame(bytes: &[u8]) -> Option<Frame> {
    let mut reader = Reader(bytes);
    let head = reader.take(13)?;
    let global = reader.table(head[10])?;
    let mut transparent = None;
    loop {
        match reader.byte()? {
            b'!' => transparent = extension(&mut reader)?.or(transparent),
            b',' => break,
            b';' => return None,
            _ => {} // any bytes may be between blocks
        }
    }
    let place = reader.take(9)?;
    let local = reader.table(place[8])?;
    // Pillow ignores a grey identity table, so a local one does not replace a global one
    let table = [local, global].into_iter().flatten().find(|table| !is_grey(table));
    let corner = (number(place, 0), number(place, 2));
    let size = (number(place, 4), number(place, 6));
    let screen = (number(head, 6).max(corner.0 + size.0), number(head, 8).max(corner.1 + size.1));

    let mut file = Vec::with_capacity(reader.0.len() + 800);
    file.extend(b"GIF89a");
    file.extend(&place[4..8]);
    file.extend([0xF7, 0, 0]);
    file.extend((0..=255).flat_map(|grey| [grey; 3]));
    file.extend(b",\0\0\0\0");
    file.extend(&place[4..8]);
    file.push(place[8] & 0x40); // interlaced or not
    file.push(reader.byte()?);
    while let Some(block) = reader.block() {
        file.push(block.len() as u8);
        file.extend(block);
    }
    file.extend(b"\0;");
    Some(Frame { file, screen, corner, colors: colors(table), margin: transparent.unwrap_or(0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A GIF with a screen of 5x4 and a table of two colours; a frame of 3x2 at (4, 1) after `blocks`.
    fn file(blocks: &[u8]) -> Vec<u8> {
        let head = b"GIF89a\x05\0\x04\0\x80\0\0\x0A\x0B\x0C\x14\x15\x16";
        let frame = b",\x04\0\x01\0\x03\0\x02\0\0\x02\x03abc\x01d\0;";
        [head, blocks, frame].concat()
    }

    #[test]
    fn the_screen_grows_to_the_frame() {
        let frame = first_frame(&file(b"")).expect("a frame");
        assert_eq!((frame.screen, frame.corner, frame.margin), ((7, 4), (4, 1), 0));
        assert_eq!(frame.colors[..3], [[10, 11, 12], [20, 21, 22], [0, 0, 0]]);
        assert!(frame.file.ends_with(b",\0\0\0\0\x03\0\x02\0\0\x02\x03abc\x01d\0;"));
    }

    #[test]
    fn blocks_are_read_leniently() {
        let control = b"!\xF9\x04\x01\0\0\x07\0";
        let margin = |blocks: &[u8]| first_frame(&file(blocks)).map(|frame| frame.margin);
        assert_eq!(margin(control), Some(7));
        assert_eq!(margin(&[b"\0junk", &control[..], b"\0\0\xFF"].concat()), Some(7));
        assert_eq!(margin(&[&control[..], b"!\xF9\x04\0\0\0\x09\0"].concat()), Some(7));
        assert_eq!(margin(&[b"!\xFE\0", &control[..]].concat()), Some(7));
        assert_eq!(margin(&[b"!\x01\0\x02ab\0", &control[..]].concat()), Some(7));
        assert_eq!(margin(b"!\xF9\x02\x01\0\0"), None);
        assert_eq!(margin(b";"), None);
        let whole = file(control);
        assert!((0..whole.len() - 11).all(|cut| first_frame(&whole[..cut]).is_none()));
    }

    #[test]
    fn a_grey_identity_table_is_ignored() {
        assert!(is_grey(&[0, 0, 0, 1, 1, 1]) && !is_grey(&[0, 0, 0, 1, 1, 2]));
        assert_eq!((colors(None)[200], colors(Some(&[1, 2, 3]))[1]), ([200; 3], [0; 3]));
    }
}
