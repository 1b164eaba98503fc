//! Damaged and malicious headers.

use super::*;

/// A header, part by part.
#[derive(Clone, Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn new(tensors: u64, keys: u64) -> Self {
        Self::default().bytes(b"GGUF").u32(3).u64(tensors).u64(keys)
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    fn u32(self, n: u32) -> Self {
        self.bytes(&n.to_le_bytes())
    }

    fn u64(self, n: u64) -> Self {
        self.bytes(&n.to_le_bytes())
    }

    fn text(self, text: &str) -> Self {
        self.u64(text.len() as u64).bytes(text.as_bytes())
    }

    fn tensor(self, name: &str, dims: &[u64], kind: u32, offset: u64) -> Self {
        let start = self.text(name).u32(dims.len() as u32);
        dims.iter().fold(start, |writer, d| writer.u64(*d)).u32(kind).u64(offset)
    }

    /// Pads to the data, and appends `count` bytes of it.
    fn data(mut self, count: usize) -> Self {
        self.0.resize(self.0.len().next_multiple_of(32) + count, 1);
        self
    }

    fn open(self) -> Result<Gguf, Error> {
        let source = Source::memory("test", [("a.gguf".to_owned(), self.0.into())]);
        // A read from memory is ready at once.
        let mut future = std::pin::pin!(Gguf::open(&source, "a.gguf"));
        match future.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
            std::task::Poll::Ready(result) => result,
            std::task::Poll::Pending => panic!("a read from memory waits"),
        }
    }

    fn refused(self) -> String {
        self.open().unwrap_err().to_string()
    }
}

#[test]
fn only_finite_numbers_are_numbers() {
    let values = [Value::Float(0.5), Value::Unsigned(3), Value::Signed(-1)].map(|value| value.number());
    assert_eq!(values, [Some(0.5), Some(3.0), Some(-1.0)]);
    assert_eq!([f64::NAN, f64::INFINITY, f64::NEG_INFINITY].map(|x| Value::Float(x).number()), [None; 3]);
}

#[test]
fn every_type_of_metadata_is_read() {
    let all = Writer::new(0, 14)
        .text("u8")
        .u32(0)
        .bytes(&[200])
        .text("i8")
        .u32(1)
        .bytes(&[200])
        .text("u16")
        .u32(2)
        .bytes(&[1, 2])
        .text("i16")
        .u32(3)
        .bytes(&[0xff, 0xff])
        .text("u32")
        .u32(4)
        .u32(7)
        .text("i32")
        .u32(5)
        .u32(u32::MAX)
        .text("f32")
        .u32(6)
        .bytes(&0.25f32.to_le_bytes())
        .text("flag")
        .u32(7)
        .bytes(&[1])
        .text("text")
        .u32(8)
        .text("é")
        .text("list")
        .u32(9)
        .u32(4)
        .u64(2)
        .u32(1)
        .u32(2)
        .text("lists")
        .u32(9)
        .u32(9)
        .u64(1)
        .u32(8)
        .u64(1)
        .text("a")
        .text("u64")
        .u32(10)
        .u64(u64::MAX)
        .text("i64")
        .u32(11)
        .u64(u64::MAX)
        .text("f64")
        .u32(12)
        .bytes(&0.1f64.to_le_bytes());
    let gguf = all.clone().open().unwrap();
    let list = |values: Vec<Value>| Value::Array(values);
    let expected = [
        ("u8", Value::Unsigned(200)),
        ("i8", Value::Signed(-56)),
        ("u16", Value::Unsigned(513)),
        ("i16", Value::Signed(-1)),
        ("u32", Value::Unsigned(7)),
        ("i32", Value::Signed(-1)),
        ("f32", Value::Float(0.25)),
        ("flag", Value::Flag(true)),
        ("text", Value::Text("é".into())),
        ("list", list(vec![Value::Unsigned(1), Value::Unsigned(2)])),
        ("lists", list(vec![list(vec![Value::Text("a".into())])])),
        ("u64", Value::Unsigned(u64::MAX)),
        ("i64", Value::Signed(-1)),
        ("f64", Value::Float(0.1)),
    ];
    assert_eq!(gguf.metadata, expected.map(|(key, value)| (key.to_owned(), value)).into());
    assert_eq!(
        (gguf.get("u32", "n", Value::count).unwrap(), gguf.get("no", "n", Value::count).unwrap()),
        (Some(7), None)
    );
    let said = gguf.get("text", "a number", Value::number).unwrap_err().to_string();
    assert_eq!(said, "a.gguf: text: expected a number, got \"é\"");
    assert_eq!(
        gguf.need("no", "a text", Value::text).unwrap_err().to_string(),
        "a.gguf: no: expected a text, got none"
    );
    // Every shorter file is an error, and none is a panic.
    for len in 0..all.0.len() {
        let said = Writer(all.0[..len].to_vec()).refused();
        assert!(said.contains("truncated"), "{len} bytes: {said}");
    }
}

#[test]
fn tensors_have_their_places() {
    let file = Writer::new(3, 0)
        .tensor("a", &[32, 2], 8, 0)
        .tensor("b", &[3], 0, 96)
        .tensor("c", &[256, 4], 10, 128)
        .data(128);
    let start = file.0.len() as u64 - 128;
    let gguf = file.open().unwrap();
    let found: Vec<_> = gguf.tensors.iter().map(|t| (t.name.as_str(), t.shape.clone(), t.offset, t.bytes)).collect();
    let expected = [("a", vec![2, 32], start, 68), ("b", vec![3], start + 96, 12), ("c", vec![4, 256], start + 128, 0)];
    assert_eq!(found, expected);
    assert_eq!(gguf.tensors[2].block, Err("Q2_K".to_owned()));
}

#[test]
fn a_long_header_is_read_in_pieces() {
    let mut file = Writer::new(0, 1).text("list").u32(9).u32(8).u64(40_000);
    for i in 0..40_000 {
        file = file.text(&format!("{i:0100}"));
    }
    assert!(file.0.len() > 4 * FIRST_PIECE);
    let gguf = file.open().unwrap();
    let list = gguf.need("list", "a list", Value::array).unwrap();
    assert_eq!((list.len(), list[39_999].text()), (40_000, Some(format!("{:0100}", 39_999).as_str())));
}

#[test]
fn wrong_headers_are_refused() {
    let long = "a list of u8 that the file does not have";
    for (file, expected) in [
        (Writer::default().bytes(b"PK\x03\x04").u32(3).u64(0).u64(0), "expected a GGUF file"),
        (Writer::default().bytes(b"version https://git-lfs"), "got a pointer of Git LFS: the file itself is not there"),
        (Writer::default().bytes(b"<!DOCTYPE html><html>"), "expected a GGUF file, got a web page: download"),
        (Writer::default().bytes(b"GGUF").u32(1).u64(0).u64(0), "expected GGUF version 2 or 3 in little endian, got 1"),
        (Writer::default().bytes(b"GGUF").bytes(&[0, 0, 0, 3]).u64(0).u64(0), "got big endian"),
        (Writer::new(u64::MAX, 0), "expected at most 131072 tensors"),
        (Writer::new(0, u64::MAX), "expected at most 131072 tensors"),
        (Writer::new(0, 1).text("a").u32(13), "expected types of metadata from 0 to 12, got 13"),
        (Writer::new(0, 1).text("a").u32(8).u64(u64::MAX), "expected a text of at most"),
        (Writer::new(0, 1).u64(2).bytes(&[0xff, 0xff]), "expected keys in UTF-8"),
        (Writer::new(0, 1).u64(2).bytes(&[0xff, 0xff]), "; the file is damaged: download it again"),
        (Writer::new(0, 1).text("a").u32(9).u32(0).u64(u64::MAX), "expected lists of at most"),
        (Writer::new(0, 1).text(long).u32(9).u32(0).u64(1 << 20), "the file is truncated"),
        (Writer::new(0, 2).text("a").u32(7).bytes(&[1]).text("a").u32(7).bytes(&[1]), "a: expected the key once"),
        (Writer::new(0, 1).text("general.alignment").u32(4).u32(48), "general.alignment: expected a power of two"),
        (Writer::new(1, 0).tensor("a", &[], 0, 0), "expected 1 to 4 dimensions, got 0"),
        (Writer::new(1, 0).tensor("a", &[1; 5], 0, 0), "expected 1 to 4 dimensions, got 5"),
        (Writer::new(1, 0).tensor("a", &[0, 2], 0, 0), "expected dimensions from 1"),
        (Writer::new(1, 0).tensor("a", &[1 << 63, 4], 0, 0), "expected dimensions from 1"),
        (Writer::new(1, 0).tensor("a", &[1 << 62], 0, 0), "the file is truncated"),
        (Writer::new(1, 0).tensor("a", &[4], 0, 8).data(64), "expected a position that is a multiple of 32, got 8"),
        (Writer::new(1, 0).tensor("a", &[4], 0, 1 << 62).data(64), "the file is truncated"),
        (Writer::new(1, 0).tensor("a", &[4], 0, u64::MAX - 31).data(64), "the file is truncated"),
        (Writer::new(1, 0).tensor("a", &[20], 0, 0).data(64), "the file is truncated"),
        (Writer::new(1, 0).tensor("a", &[33], 2, 0).data(64), "expected rows of whole blocks of 32 values (Q4_0)"),
        (
            Writer::new(2, 0).tensor("a", &[4], 0, 0).tensor("a", &[4], 0, 32).data(64),
            "expected one tensor of this name",
        ),
        (Writer::new(2, 0).tensor("a", &[16], 0, 0).tensor("b", &[4], 0, 32).data(64), "where `a` ends"),
    ] {
        let said = file.refused();
        assert!(said.contains(expected), "expected {expected:?}, got {said:?}");
    }
    let long = Writer::new(0, 1).u64(1 << 16).bytes(&[0xff; 1 << 16]).refused();
    assert!(long.len() < 1000, "expected a short message, got {} bytes", long.len());
    // Arrays in arrays.
    let deep = (0..9).fold(Writer::new(0, 1).text("a").u32(9), |file, _| file.u32(9).u64(1));
    assert!(deep.refused().contains("expected types of metadata from 0 to 12, got 9"));
}
