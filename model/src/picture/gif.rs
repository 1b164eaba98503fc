//! Enters: a GIF file. Leaves: its first frame on its screen, as Pillow shows it.
//!
//! Blocks and screen are read here, as leniently as Pillow reads them; the decoder gets a GIF that holds the frame
//! alone, in grey, and so gives colour indices.

/// The first frame of a GIF.
pub(super) struct Frame {
    /// A GIF file that has nothing but the frame, with the colours' indices for their colours.
    pub file: Vec<u8>,
    /// Width and height of the screen, which is as large as the frame needs.
    pub screen: (u32, u32),
    /// The frame's upper left corner on the screen.
    pub corner: (u32, u32),
    /// What the indices mean.
    pub colours: [[u8; 3]; 256],
    /// The index of what the frame leaves free: the transparent one, without one the first.
    pub margin: u8,
}

/// A file read from its start to its end.
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

    /// The next of the blocks that make up an extension or a frame; `None` at their end, or at the file's.
    fn block(&mut self) -> Option<&'a [u8]> {
        let length = self.byte().filter(|length| *length > 0)?;
        Some(self.take(length.into()).unwrap_or_else(|| std::mem::take(&mut self.0)))
    }

    /// A colour table, where the flags announce one.
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

/// Whether a table says nothing, because each index is its own grey.
fn is_grey(table: &[u8]) -> bool {
    table.as_chunks::<3>().0.iter().enumerate().all(|(index, colour)| *colour == [index as u8; 3])
}

/// The colours of all 256 indices: black behind a table's end, greys without a table.
fn colours(table: Option<&[u8]>) -> [[u8; 3]; 256] {
    let Some(table) = table else { return std::array::from_fn(|index| [index as u8; 3]) };
    let entries = table.as_chunks::<3>().0;
    std::array::from_fn(|index| entries.get(index).copied().unwrap_or_default())
}

/// Reads an extension; the index of a transparent colour if it is one that names one.
///
/// Blocks of any length are taken, and one block at least is skipped behind an empty extension, as Pillow does.
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

/// Takes the first frame out of a GIF; `None` where the file has none, or breaks off.
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
            _ => {} // between blocks anything may lie
        }
    }
    let place = reader.take(9)?;
    let local = reader.table(place[8])?;
    // a table of greys counts as none in Pillow, so that a local one does not replace a global one, either
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
    Some(Frame { file, screen, corner, colours: colours(table), margin: transparent.unwrap_or(0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A GIF with a screen of 5x4 and a table of two colours; a frame of 3x2 at (4, 1) behind `blocks`.
    fn file(blocks: &[u8]) -> Vec<u8> {
        let head = b"GIF89a\x05\0\x04\0\x80\0\0\x0A\x0B\x0C\x14\x15\x16";
        let frame = b",\x04\0\x01\0\x03\0\x02\0\0\x02\x03abc\x01d\0;";
        [head, blocks, frame].concat()
    }

    #[test]
    fn the_screen_grows_to_the_frame() {
        let frame = first_frame(&file(b"")).expect("a frame");
        assert_eq!((frame.screen, frame.corner, frame.margin), ((7, 4), (4, 1), 0));
        assert_eq!(frame.colours[..3], [[10, 11, 12], [20, 21, 22], [0, 0, 0]]);
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
    fn a_table_of_greys_is_none() {
        assert!(is_grey(&[0, 0, 0, 1, 1, 1]) && !is_grey(&[0, 0, 0, 1, 1, 2]));
        assert_eq!((colours(None)[200], colours(Some(&[1, 2, 3]))[1]), ([200; 3], [0; 3]));
    }
}
