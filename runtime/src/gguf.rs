//! GGUF files: metadata, and names, types, shapes and positions of tensors. Input: a file. Output: its header, checked.
//! Source: `docs/gguf.md` and `src/gguf.cpp` in ggml.
//!
//! A header is read in growing pieces, because its length is not in the file. All counts and lengths are checked before
//! memory is allocated for them.

mod blocks;
mod files;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use blocks::Block;
pub use files::{choose, is_gguf, is_mmproj, unreadable};

use crate::{error::Error, source::Source, weights::other_content};

/// Longest header, in bytes. Vocabularies of published files need up to 20 MiB.
const MAX_HEADER: usize = 256 << 20;
/// The first piece that is read. Each further read makes the piece four times as long.
const FIRST_PIECE: usize = 1 << 20;
/// Most values in the metadata, elements of arrays included.
const MAX_VALUES: u64 = 1 << 22;
/// Most tensors in a file.
const MAX_TENSORS: u64 = 1 << 17;
/// Most arrays in arrays.
const MAX_DEPTH: usize = 4;
/// Most dimensions of a tensor.
const MAX_DIMS: u32 = 4;
/// Most values that [`TensorInfo::values`] reads.
const MAX_READ: u64 = 1 << 26;

/// Most letters of a found value in a message.
const SHOWN: usize = 200;

/// A value of the metadata.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// An unsigned integer of any size.
    Unsigned(u64),
    /// A signed integer of any size.
    Signed(i64),
    /// A float of any size.
    Float(f64),
    /// True or false.
    Flag(bool),
    /// Text; it may not be UTF-8.
    Text(Vec<u8>),
    /// Values of one type.
    Array(Vec<Value>),
}

impl Value {
    /// A whole number from 0.
    pub fn count(&self) -> Option<u64> {
        match self {
            Self::Unsigned(n) => Some(*n),
            Self::Signed(n) => u64::try_from(*n).ok(),
            _ => None,
        }
    }

    /// A finite number.
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Unsigned(n) => Some(*n as f64),
            Self::Signed(n) => Some(*n as f64),
            Self::Float(x) => x.is_finite().then_some(*x),
            _ => None,
        }
    }

    /// True or false.
    pub fn flag(&self) -> Option<bool> {
        if let Self::Flag(flag) = self { Some(*flag) } else { None }
    }

    /// Text that is UTF-8.
    pub fn text(&self) -> Option<&str> {
        if let Self::Text(bytes) = self { std::str::from_utf8(bytes).ok() } else { None }
    }

    /// The elements of an array.
    pub fn array(&self) -> Option<&[Self]> {
        if let Self::Array(values) = self { Some(values) } else { None }
    }

    /// A short description for messages.
    fn shown(&self) -> String {
        match self {
            Self::Unsigned(n) => n.to_string(),
            Self::Signed(n) => n.to_string(),
            Self::Float(x) => x.to_string(),
            Self::Flag(flag) => flag.to_string(),
            Self::Text(bytes) => format!("{:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(80)])),
            Self::Array(values) => format!("a list of {}", values.len()),
        }
    }
}

/// One tensor of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorInfo {
    /// Its name in the file.
    pub name: String,
    /// Its shape, the longest stride first: the reverse of ggml's order.
    pub shape: Vec<u64>,
    /// Its block type; or the name of another type, which is an error only where the model needs the tensor.
    pub block: Result<Block, String>,
    /// The position of its first byte in the file.
    pub offset: u64,
    /// The number of bytes; 0 for a type that cannot be read.
    pub bytes: u64,
}

impl TensorInfo {
    /// All values of a small tensor of `file`, in the order of the file.
    ///
    /// # Errors
    /// [`Error::Tensor`] where its type cannot be read, or where it is too large; [`Error::Io`].
    pub async fn values(&self, source: &Source, file: &str) -> Result<Vec<f32>, Error> {
        let block = self.block.clone().map_err(|got| wrong_tensor(file, &self.name, Block::expected(), got))?;
        let count: u64 = self.shape.iter().product();
        if count > MAX_READ {
            return Err(wrong_tensor(file, &self.name, format!("at most {MAX_READ} values"), count.to_string()));
        }
        let (mut bytes, mut values) = (vec![0; self.bytes as usize], vec![0.0; count as usize]);
        read(source, file, self.offset, &mut bytes).await?;
        block.values(&bytes, &mut values);
        Ok(values)
    }
}

/// A tensor of a checkpoint of several files, in the shape and the order of rows that the model needs.
#[derive(Clone, Debug, PartialEq)]
pub struct GgufTensor {
    /// Index of its file.
    pub file: usize,
    /// Its entry in this file.
    pub info: TensorInfo,
    /// The shape that the model needs. It has as many values as the shape in the file.
    pub shape: Vec<u64>,
    /// The number of heads whose rows are permuted; None where the rows are in their own order.
    ///
    /// Rotary positions pair value i of a head of width d with value i + d/2 in Hugging Face's layout, and values 2 i
    /// and 2 i + 1 in that of the architecture `llama` of GGUF. Rows of one head stay within its d rows. Source:
    /// `permute` in llama.cpp's `convert_hf_to_gguf.py`.
    pub heads: Option<u64>,
}

async fn read(source: &Source, file: &str, offset: u64, into: &mut [u8]) -> Result<(), Error> {
    let done = source.file(file)?.read_at(offset, into).await;
    done.map_err(|source| Error::Io { file: file.to_owned(), source })
}

fn wrong_tensor(file: &str, tensor: &str, expected: String, got: String) -> Error {
    Error::Tensor { file: file.to_owned(), tensor: tensor.to_owned(), expected, got }
}

/// The header of a GGUF file.
#[derive(Clone, Debug, PartialEq)]
pub struct Gguf {
    /// The name of the file.
    pub file: String,
    /// The metadata.
    pub metadata: BTreeMap<String, Value>,
    /// The tensors, in the order of the file.
    pub tensors: Vec<TensorInfo>,
}

impl Gguf {
    /// Reads the header of `file`.
    ///
    /// # Errors
    /// [`Error::WeightFile`] where the file is not GGUF of version 2 or 3 in little endian, is truncated, or has a
    /// header that is too long; [`Error::Tensor`] where a tensor is outside the file, overlaps another one, or occurs
    /// twice; [`Error::Io`].
    pub async fn open(source: &Source, file: &str) -> Result<Self, Error> {
        let (len, mut bytes, mut piece) = (source.file(file)?.len(), Vec::new(), FIRST_PIECE);
        loop {
            let (had, next) = (bytes.len(), usize::try_from(len).unwrap_or(usize::MAX).min(piece));
            bytes.resize(next, 0);
            read(source, file, had as u64, &mut bytes[had..]).await?;
            let why = match parse(file, &bytes, len) {
                Ok(header) => return Ok(header),
                Err(Stop::Wrong(error)) => return Err(error),
                Err(Stop::Short) if next as u64 == len => {
                    format!("expected more than {len} bytes: the file is truncated; download it again")
                }
                Err(Stop::Short) if piece >= MAX_HEADER => format!("expected a header of at most {MAX_HEADER} bytes"),
                Err(Stop::Short) => {
                    piece *= 4;
                    continue;
                }
            };
            return Err(Error::WeightFile { file: file.to_owned(), why });
        }
    }

    /// The value of a key that `read` accepts; None where the key is missing.
    ///
    /// # Errors
    /// [`Error::WeightFile`] with the key, `expected` and the found value.
    pub fn get<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let Some(value) = self.metadata.get(key) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| self.wrong(key, expected, &value.shown()))
    }

    /// The value of a key that must be present.
    ///
    /// # Errors
    /// See [`Gguf::get`].
    pub fn need<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<T, Error> {
        self.get(key, expected, read)?.ok_or_else(|| self.wrong(key, expected, "none"))
    }

    /// The error for a key of the metadata.
    pub fn wrong(&self, key: &str, expected: &str, got: &str) -> Error {
        let mut got = got.to_owned();
        if got.chars().count() > SHOWN {
            got = got.chars().take(SHOWN).collect::<String>() + "...";
        }
        Error::WeightFile { file: self.file.clone(), why: format!("{key}: expected {expected}, got {got}") }
    }

    /// A tensor by its name in the file.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }

    /// The error for a tensor.
    pub fn wrong_tensor(&self, tensor: &str, expected: String, got: String) -> Error {
        wrong_tensor(&self.file, tensor, expected, got)
    }
}

/// Why a header was not read.
enum Stop {
    /// There are too few bytes: read more.
    Short,
    /// The file is wrong.
    Wrong(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Wrong(error)
    }
}

/// The bytes of a header, and how far they are read.
struct Bytes<'a> {
    file: &'a str,
    all: &'a [u8],
    at: usize,
    /// Values of the metadata that may still follow.
    values_left: u64,
}

impl<'a> Bytes<'a> {
    fn wrong(&self, why: String) -> Stop {
        Stop::Wrong(Error::WeightFile { file: self.file.to_owned(), why })
    }

    /// The error for a header that no program writes.
    fn damaged(&self, why: String) -> Stop {
        self.wrong(format!("{why}; the file is damaged: download it again"))
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8], Stop> {
        if count > MAX_HEADER as u64 {
            return Err(self.damaged(format!("expected a text of at most {MAX_HEADER} bytes, got {count}")));
        }
        let end = self.at.checked_add(count as usize).filter(|end| *end <= self.all.len()).ok_or(Stop::Short)?;
        let taken = &self.all[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        self.take(N as u64)?.try_into().map_err(|_| Stop::Short)
    }

    fn u32(&mut self) -> Result<u32, Stop> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Stop> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Result<&'a [u8], Stop> {
        let length = self.u64()?;
        self.take(length)
    }

    fn name(&mut self, what: &str) -> Result<String, Stop> {
        let bytes = self.text()?;
        let text = std::str::from_utf8(bytes).map(str::to_owned);
        text.map_err(|_| {
            let got = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]);
            self.damaged(format!("expected {what} in UTF-8, got {got:?}"))
        })
    }

    fn value(&mut self, kind: u32, depth: usize) -> Result<Value, Stop> {
        self.values_left = self
            .values_left
            .checked_sub(1)
            .ok_or_else(|| self.damaged(format!("expected metadata of at most {MAX_VALUES} values, got more")))?;
        Ok(match kind {
            0 => Value::Unsigned(u8::from_le_bytes(self.array()?).into()),
            1 => Value::Signed(i8::from_le_bytes(self.array()?).into()),
            2 => Value::Unsigned(u16::from_le_bytes(self.array()?).into()),
            3 => Value::Signed(i16::from_le_bytes(self.array()?).into()),
            4 => Value::Unsigned(self.u32()?.into()),
            5 => Value::Signed(i32::from_le_bytes(self.array()?).into()),
            6 => Value::Float(f32::from_le_bytes(self.array()?).into()),
            7 => Value::Flag(self.array::<1>()? != [0]),
            8 => Value::Text(self.text()?.to_vec()),
            9 if depth < MAX_DEPTH => {
                let (kind, count) = (self.u32()?, self.u64()?);
                if count > self.values_left {
                    return Err(self.damaged(format!("expected lists of at most {MAX_VALUES} values, got {count}")));
                }
                // Every element has at least one byte.
                let mut values = Vec::with_capacity((count as usize).min(self.all.len() - self.at));
                for _ in 0..count {
                    values.push(self.value(kind, depth + 1)?);
                }
                Value::Array(values)
            }
            10 => Value::Unsigned(self.u64()?),
            11 => Value::Signed(i64::from_le_bytes(self.array()?)),
            12 => Value::Float(f64::from_le_bytes(self.array()?)),
            other => return Err(self.damaged(format!("expected types of metadata from 0 to 12, got {other}"))),
        })
    }
}

/// Reads a header from the first bytes of a file of `len` bytes.
fn parse(file: &str, all: &[u8], len: u64) -> Result<Gguf, Stop> {
    let mut bytes = Bytes { file, all, at: 0, values_left: MAX_VALUES };
    let magic: [u8; 4] = bytes.array()?;
    if magic != *b"GGUF" {
        let start = &all[..all.len().min(8)];
        return Err(bytes.wrong(match other_content(start) {
            Some(other) => format!("expected a GGUF file, got {other}"),
            None => format!("expected a GGUF file, got one that starts with {magic:02x?}; download it again"),
        }));
    }
    let version = bytes.u32()?;
    if !(2..=3).contains(&version) {
        let got = if matches!(version.swap_bytes(), 2..=3) { "big endian".to_owned() } else { version.to_string() };
        return Err(
            bytes.wrong(format!("expected GGUF version 2 or 3 in little endian, got {got}; convert the model again"))
        );
    }
    let (tensor_count, key_count) = (bytes.u64()?, bytes.u64()?);
    if tensor_count > MAX_TENSORS || key_count > MAX_VALUES {
        let got = format!("{tensor_count} and {key_count}");
        return Err(bytes.damaged(format!("expected at most {MAX_TENSORS} tensors and {MAX_VALUES} keys, got {got}")));
    }
    let mut metadata = BTreeMap::new();
    for _ in 0..key_count {
        let key = bytes.name("keys")?;
        let kind = bytes.u32()?;
        let value = bytes.value(kind, 0)?;
        if metadata.insert(key.clone(), value).is_some() {
            return Err(bytes.damaged(format!("{key}: expected the key once, got it twice")));
        }
    }
    let mut gguf = Gguf { file: file.to_owned(), metadata, tensors: Vec::new() };
    let alignment = gguf.get("general.alignment", "a power of two up to 65536", |value| {
        value.count().filter(|n| n.is_power_of_two() && *n <= 1 << 16)
    })?;
    let alignment = alignment.unwrap_or(32);
    for _ in 0..tensor_count {
        let name = bytes.name("names of tensors")?;
        let dims = bytes.u32()?;
        if !(1..=MAX_DIMS).contains(&dims) {
            let expected = format!("1 to {MAX_DIMS} dimensions");
            return Err(gguf.wrong_tensor(&name, expected, dims.to_string()).into());
        }
        let mut shape = (0..dims).map(|_| bytes.u64()).collect::<Result<Vec<u64>, Stop>>()?;
        shape.reverse();
        let (block, offset) = (Block::of_number(bytes.u32()?), bytes.u64()?);
        gguf.tensors.push(TensorInfo { name, shape, block, offset, bytes: 0 });
    }
    let start = (bytes.at as u64).next_multiple_of(alignment);
    check(&mut gguf, start, alignment, len)?;
    Ok(gguf)
}

/// Checks positions and sizes of the tensors, and makes positions relative to the start of the file.
fn check(gguf: &mut Gguf, start: u64, alignment: u64, len: u64) -> Result<(), Error> {
    let (mut spans, mut names) = (Vec::new(), BTreeMap::new());
    let mut tensors = std::mem::take(&mut gguf.tensors);
    for (index, tensor) in tensors.iter_mut().enumerate() {
        let wrong = |expected: String, got: String| gguf.wrong_tensor(&tensor.name, expected, got);
        if names.insert(tensor.name.clone(), index).is_some() {
            return Err(wrong("one tensor of this name".into(), "two".into()));
        }
        let values = tensor.shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d)).filter(|n| *n > 0);
        let Some(values) = values else {
            return Err(wrong("dimensions from 1, with a product below 2^64".into(), format!("{:?}", tensor.shape)));
        };
        if !tensor.offset.is_multiple_of(alignment) {
            return Err(wrong(format!("a position that is a multiple of {alignment}"), tensor.offset.to_string()));
        }
        let position = start.checked_add(tensor.offset).filter(|position| *position <= len);
        let outside = || {
            let got = "bytes after them: the file is truncated; download it again";
            wrong(format!("bytes within the {len} of the file"), got.into())
        };
        let position = position.ok_or_else(outside)?;
        if let Ok(block) = tensor.block {
            let width = tensor.shape.last().copied().unwrap_or(1);
            let Some(row) = block.row_bytes(width) else {
                let expected =
                    format!("rows of whole blocks of {} values ({})", block.values_per_block(), block.name());
                return Err(wrong(expected, format!("{:?}", tensor.shape)));
            };
            let size = (values / width).checked_mul(row);
            let end = size.and_then(|size| position.checked_add(size)).filter(|end| *end <= len).ok_or_else(outside)?;
            tensor.bytes = end - position;
            spans.push((position, end, index));
        }
        tensor.offset = position;
    }
    spans.sort_unstable();
    if let Some(pair) = spans.windows(2).find(|pair| pair[1].0 < pair[0].1) {
        let (first, second) = (&tensors[pair[0].2].name, &tensors[pair[1].2].name);
        let expected = format!("a start after byte {}, where `{first}` ends", pair[0].1);
        return Err(gguf.wrong_tensor(second, expected, pair[1].0.to_string()));
    }
    gguf.tensors = tensors;
    Ok(())
}
