//! Input: a PNG file. Output: its orientation metadata, and a plain file that contains only its pixels.
//! Source: Pillow's `PngImagePlugin.py`.
//!
//! Exif is an `eXIf` chunk before or after the pixels, or hexadecimal text as ImageMagick writes it; XMP is text.

use std::borrow::Cow;
use std::io::Read;

use flate2::read::ZlibDecoder;

use super::orientation::Metadata;

const RAW_PROFILE: &[u8] = b"Raw profile type exif";
const XMP: &[u8] = b"XML:com.adobe.xmp";
/// Largest size of one decompressed text, and of all texts together, in bytes. Pillow has the same limits.
const MAX_TEXT: u64 = 1 << 20;
const MAX_TEXTS: u64 = 64 << 20;

/// A chunk of a PNG.
struct Chunk<'a> {
    kind: &'a [u8; 4],
    data: &'a [u8],
    /// The whole chunk: length, kind, data, checksum.
    all: &'a [u8],
}

/// The chunks of a PNG up to its end, without those of later frames and without a truncated one.
fn chunks(bytes: &[u8]) -> impl Iterator<Item = Chunk<'_>> {
    let (mut rest, mut frames, mut pixels, mut first_controlled) =
        (bytes.get(8..).unwrap_or_default(), 0, false, false);
    std::iter::from_fn(move || {
        let length = u32::from_be_bytes(*rest.first_chunk::<4>()?) as usize;
        let kind = rest.get(4..)?.first_chunk::<4>()?;
        let data = rest.get(8..)?.get(..length)?;
        let all = &rest[..(12 + length).min(rest.len())];
        rest = &rest[all.len()..];
        match kind {
            b"IEND" => return None,
            // a second count, or one that is out of range, cancels the first
            b"acTL" if !pixels => {
                let count = data.first_chunk::<4>().map_or(0, |n| u32::from_be_bytes(*n));
                frames = if frames == 0 && count <= 1 << 31 { count } else { 0 };
            }
            // the next frame: the picture ends here
            b"fcTL" if pixels && (frames > 1 || (frames == 1 && !first_controlled)) => return None,
            b"fcTL" => first_controlled |= !pixels,
            b"IDAT" => pixels = true,
            _ => {}
        }
        Some(Chunk { kind, data, all })
    })
}

/// The same picture with header, palette and one run of pixels only.
///
/// The result has an end chunk, and no chunk that the decoder does not know or does not accept twice. It has no
/// transparency: alpha is dropped anyway, and with it the decoder would give another layout for 16-bit grey.
pub(super) fn plain(bytes: &[u8]) -> Vec<u8> {
    const END: &[u8] = b"\0\0\0\0IEND\xAE\x42\x60\x82";
    let mut out = Vec::with_capacity(bytes.len() + END.len());
    out.extend(&bytes[..8.min(bytes.len())]);
    let mut head = chunks(bytes).take_while(|chunk| chunk.kind != b"IDAT");
    let header = head.next().filter(|chunk| chunk.kind == b"IHDR");
    let palette = head.filter(|chunk| chunk.kind == b"PLTE").last();
    let run = chunks(bytes).skip_while(|chunk| chunk.kind != b"IDAT").take_while(|chunk| chunk.kind == b"IDAT");
    for chunk in header.into_iter().chain(palette).chain(run) {
        out.extend(chunk.all);
    }
    out.extend(END);
    out
}

/// Decompresses a text. A truncated one gives the part that it has, a broken or too long one gives `None`.
fn inflate(data: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    match ZlibDecoder::new(data).take(MAX_TEXT + 1).read_to_end(&mut text) {
        Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => None,
        _ => (text.len() as u64 <= MAX_TEXT).then_some(text),
    }
}

/// A text that may hold metadata.
struct Text<'a> {
    key: &'a [u8],
    text: Cow<'a, [u8]>,
    /// Whether it has the encoding of its chunk. Only an `iTXt` chunk can have invalid UTF-8.
    readable: bool,
}

/// The text of a `tEXt`, `zTXt` or `iTXt` chunk, if its keyword is that of metadata.
fn text<'a>(kind: &[u8; 4], data: &'a [u8]) -> Option<Text<'a>> {
    let split = |data: &'a [u8]| {
        let end = data.iter().position(|byte| *byte == 0)?;
        Some((&data[..end], &data[end + 1..]))
    };
    let (key, rest) = split(data).unwrap_or((data, &[]));
    let (text, readable): (Cow<[u8]>, bool) = match kind {
        _ if key != RAW_PROFILE && key != XMP && (key, kind) != (b"exif", b"tEXt") => return None,
        b"tEXt" => (rest.into(), true),
        b"zTXt" => match rest.split_first() {
            Some((0, deflated)) => (inflate(deflated).unwrap_or_default().into(), true),
            Some(_) => return None,
            None => (Cow::default(), true),
        },
        b"iTXt" => {
            // flags, then the language and the translated keyword
            let (&[compressed, method], rest) = rest.split_first_chunk::<2>()?;
            let (language, rest) = split(rest)?;
            let (translated, rest) = split(rest)?;
            let text: Cow<[u8]> = match (compressed, method) {
                (0, _) => rest.into(),
                (_, 0) => inflate(rest)?.into(),
                _ => return None,
            };
            let readable = [language, translated, &text].iter().all(|part| std::str::from_utf8(part).is_ok());
            (text, readable)
        }
        _ => return None,
    };
    Some(Text { key, text, readable })
}

/// The bytes of a raw profile: a line with its name, a line with its length, then hexadecimal digits.
fn raw_profile(text: &[u8]) -> Vec<u8> {
    let digits = text.splitn(4, |byte| *byte == b'\n').nth(3).unwrap_or_default();
    let digits = digits.iter().filter(|byte| !byte.is_ascii_whitespace() && **byte != 0x0B);
    let digits: Option<Vec<u8>> = digits.map(|byte| char::from(*byte).to_digit(16).map(|d| d as u8)).collect();
    let bytes = digits.as_deref().unwrap_or_default().as_chunks::<2>().0;
    bytes.iter().map(|[high, low]| high << 4 | low).collect()
}

/// Reads the metadata of a PNG. Of two blocks of one kind the last one counts, as in Pillow.
pub(super) fn metadata(bytes: &[u8]) -> Metadata<'_> {
    let (mut exif, mut profile, mut xmp, mut xmp_bytes) = (None, None, None, None);
    let mut room = MAX_TEXTS;
    for Chunk { kind, data, .. } in chunks(bytes) {
        if kind == b"eXIf" {
            exif = Some(Cow::Borrowed(data));
        } else if let Some(Text { key, text, readable }) = text(kind, data) {
            let Some(left) = room.checked_sub(text.len() as u64) else { break };
            room = left;
            match key {
                XMP => {
                    if kind == b"iTXt" {
                        xmp_bytes = Some(text.clone());
                    }
                    xmp = if readable { Some(text) } else { xmp };
                }
                RAW_PROFILE => profile = if readable { Some(text) } else { profile },
                _ => exif = Some(text),
            }
        }
    }
    let exif = exif.or_else(|| profile.map(|text| raw_profile(&text).into()));
    Metadata { exif, xmp: xmp.filter(|text| !text.is_empty()).or(xmp_bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
        [&(data.len() as u32).to_be_bytes()[..], kind, data, &[0; 4]].concat()
    }

    fn file(chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
        let chunks: Vec<u8> = chunks.iter().flat_map(|(kind, data)| chunk(kind, data)).collect();
        [b"\x89PNG\r\n\x1A\n", &chunks[..]].concat()
    }

    fn found(chunks: &[(&[u8; 4], &[u8])]) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
        let file = file(chunks);
        let Metadata { exif, xmp } = metadata(&file);
        (exif.map(Cow::into_owned), xmp.map(Cow::into_owned))
    }

    #[test]
    fn the_last_block_counts_up_to_the_end_of_the_first_frame() {
        let block = |block: &[u8]| (Some(block.to_vec()), None);
        assert_eq!(
            found(&[(b"eXIf", b"a"), (b"IDAT", b""), (b"eXIf", b"b"), (b"IEND", b""), (b"eXIf", b"c")]),
            block(b"b")
        );
        let two = [0, 0, 0, 2, 0, 0, 0, 0];
        let one = [0, 0, 0, 1, 0, 0, 0, 0];
        let rest: [(&[u8; 4], &[u8]); 4] = [(b"fcTL", b""), (b"IDAT", b""), (b"eXIf", b"a"), (b"fcTL", b"")];
        assert_eq!(found(&[&[(b"acTL", &two[..])], &rest[..], &[(b"eXIf", b"b")]].concat()), block(b"a"));
        assert_eq!(found(&[&[(b"acTL", &one[..])], &rest[..], &[(b"eXIf", b"b")]].concat()), block(b"b"));
        assert_eq!(found(&[&[(b"acTL", &one[..])], &rest[1..], &[(b"eXIf", b"b")]].concat()), block(b"a"));
    }

    #[test]
    fn a_raw_profile_counts_without_exif() {
        let text = b"Raw profile type exif\0\nexif\n       2\n4 9\n4A\n";
        assert_eq!(found(&[(b"tEXt", text)]), (Some(b"IJ".to_vec()), None));
        assert_eq!(found(&[(b"eXIf", b"a"), (b"tEXt", text)]), (Some(b"a".to_vec()), None));
        assert_eq!(raw_profile(b"\nexif\n2\nxx"), b"");
        assert_eq!(raw_profile(b"exif"), b"");
    }

    #[test]
    fn texts_are_read_from_all_three_chunks_unless_they_are_too_long() {
        let deflated = |length: usize| {
            let mut writer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
            std::io::Write::write_all(&mut writer, &vec![b'x'; length]).expect("a vector accepts bytes");
            writer.finish().expect("a vector accepts bytes")
        };
        let xmp = |text: &[u8]| (None, Some(text.to_vec()));
        let packed = [b"XML:com.adobe.xmp\0\0", &deflated(3)[..]].concat();
        let international = [b"XML:com.adobe.xmp\0\x01\0en\0\0", &deflated(2)[..]].concat();
        assert_eq!(found(&[(b"tEXt", b"XML:com.adobe.xmp\0plain")]), xmp(b"plain"));
        assert_eq!(found(&[(b"zTXt", &packed)]), xmp(b"xxx"));
        assert_eq!(found(&[(b"iTXt", &international)]), xmp(b"xx"));
        assert_eq!(inflate(&deflated(1 << 20)).map(|text| text.len()), Some(1 << 20));
        assert_eq!(inflate(&deflated((1 << 20) + 1)), None);
        let cut = deflated(3);
        assert_eq!(inflate(&cut[..cut.len() - 4]).as_deref(), Some(&b"xxx"[..]));
        assert_eq!(inflate(b"no zlib"), None);
    }

    #[test]
    fn a_plain_file_has_header_palette_and_one_run_of_pixels() {
        let kinds = |file: &[u8]| chunks(file).map(|chunk| *chunk.kind).collect::<Vec<_>>();
        let busy: [(&[u8; 4], &[u8]); 9] = [
            (b"IHDR", b"h"),
            (b"PLTE", b"old"),
            (b"tRNS", b""),
            (b"PLTE", b"new"),
            (b"ABCD", b""),
            (b"IDAT", b"1"),
            (b"IDAT", b"2"),
            (b"tEXt", b""),
            (b"IDAT", b"3"),
        ];
        let plain = plain(&file(&busy));
        assert_eq!(kinds(&plain), [*b"IHDR", *b"PLTE", *b"IDAT", *b"IDAT"]);
        assert!(plain.ends_with(b"IEND\xAE\x42\x60\x82") && plain.windows(3).any(|word| word == b"new"));
        assert_eq!(kinds(&super::plain(b"\x89PNG")), [] as [[u8; 4]; 0]);
    }
}
