//! Safetensors files in, tensors on a device out. Each tensor is read in pieces and converted into its own buffer.
//!
//! Besides the tensors, the host needs memory for one piece of 4 MiB (and on a GPU for the current tensor). All
//! values in a header are checked before memory is allocated for them. Sizes are u64 with checked arithmetic, because
//! `usize` has 32 bits in a browser.

use std::{collections::BTreeMap, ops::Range};

use burn::tensor::{DType, Device, Tensor, TensorData};
use half::{bf16, f16};
use safetensors::Dtype;
use serde::Deserialize;

use crate::{error::Error, json, source::Source};

/// Bytes per read.
const PIECE: usize = 4 << 20;
/// The limit of the format.
const MAX_HEADER: u64 = 100_000_000;
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// A float type of stored weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StoredDtype {
    /// 32 bits.
    F32,
    /// 16 bits, IEEE half precision.
    F16,
    /// 16 bits: the upper half of an f32.
    Bf16,
}

impl StoredDtype {
    /// Bytes of one value.
    pub const fn size(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

/// One tensor of a file's header.
#[derive(Clone, Debug)]
pub struct TensorEntry {
    /// The type of its values; or the name of another type, which is an error only where the model needs the tensor.
    pub dtype: Result<StoredDtype, String>,
    /// Its shape.
    pub shape: Vec<u64>,
    /// Index into [`Weights::files`].
    file: usize,
    /// The position of its first byte in the file.
    offset: u64,
    /// The number of bytes.
    bytes: u64,
}

impl TensorEntry {
    /// The number of bytes in the file.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The number of values.
    pub fn values(&self) -> u64 {
        self.shape.iter().product()
    }
}

/// Some rows of a stored tensor.
#[derive(Clone, Debug)]
pub struct Rows<'a> {
    /// Its name.
    pub tensor: &'a str,
    /// Its shape in the file.
    pub shape: &'a [usize],
    /// The rows.
    pub rows: Range<usize>,
}

impl<'a> Rows<'a> {
    /// All rows of a tensor.
    pub fn all(tensor: &'a str, shape: &'a [usize]) -> Self {
        Self { tensor, shape, rows: 0..shape.first().copied().unwrap_or(1) }
    }

    /// Index of the first value in the tensor.
    fn first_value(&self) -> usize {
        self.rows.start * self.shape.iter().skip(1).product::<usize>()
    }

    fn bytes(&self, entry: &TensorEntry, stored: StoredDtype) -> Range<u64> {
        let row = self.shape.iter().skip(1).map(|&d| d as u64).product::<u64>() * stored.size();
        (self.rows.start as u64 * row)..(self.rows.end as u64 * row).min(entry.bytes)
    }
}

/// The tensors of a checkpoint: names, types, shapes and positions, but no values.
pub struct Weights {
    source: Source,
    files: Vec<String>,
    entries: BTreeMap<String, TensorEntry>,
}

#[derive(Deserialize)]
struct Header {
    dtype: Dtype,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

#[derive(Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

impl Weights {
    /// Reads the header of `model.safetensors`; where this file is missing, the headers of the shards in the index.
    /// Hugging Face uses the same order.
    ///
    /// # Errors
    /// [`Error::WeightFile`] where a header is too long or not JSON, where the file is not completely covered by
    /// tensors, or where the index names a shard by a path. [`Error::Tensor`] where tensors overlap, are outside the
    /// file, occur twice, or are not in the shard that the index names. [`Error::Io`] where a file is missing,
    /// unreadable or a link out of the directory.
    pub async fn open(source: Source) -> Result<Self, Error> {
        let mut weights = Self { files: Vec::new(), entries: BTreeMap::new(), source };
        if weights.source.contains(SINGLE) {
            weights.read_header(SINGLE).await?;
        } else if weights.source.contains(INDEX) {
            let bytes = weights.source.read(INDEX, MAX_HEADER).await?;
            let broken = |why: String| Error::WeightFile { file: INDEX.into(), why };
            let index: ShardIndex = json::from_slice(&bytes)
                .map_err(|e| broken(format!("expected an object with a `weight_map`, got {e}")))?;
            let mut shards: Vec<&String> = index.weight_map.values().collect();
            shards.sort();
            shards.dedup();
            for shard in shards {
                let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
                if !shard.ends_with(".safetensors") || shard.starts_with('.') || !shard.chars().all(plain) {
                    return Err(broken(format!("expected shards named [A-Za-z0-9._-]+.safetensors, got `{shard}`")));
                }
                weights.read_header(shard).await?;
            }
            for (tensor, shard) in &index.weight_map {
                let found = weights.entries.get(tensor).map(|e| weights.files[e.file].as_str());
                if found != Some(shard) {
                    return Err(Error::Tensor {
                        file: INDEX.into(),
                        tensor: tensor.clone(),
                        expected: format!("in {shard}"),
                        got: found.map_or("none of this name".into(), |f| format!("in {f}")),
                    });
                }
            }
        } else {
            return Err(no_weights(&weights.source));
        }
        tracing::info!(
            checkpoint = weights.source.name(),
            files = ?weights.files,
            tensors = weights.entries.len(),
            "checkpoint opened"
        );
        Ok(weights)
    }

    async fn read_header(&mut self, file: &str) -> Result<(), Error> {
        let broken = |why: String| Error::WeightFile { file: file.into(), why };
        let io = |source| Error::Io { file: file.into(), source };
        let found = self.source.file(file)?;
        let len = found.len();
        if len < 8 {
            return Err(broken(format!("expected at least 8 bytes, got {len}")));
        }
        let mut size = [0; 8];
        found.read_at(0, &mut size).await.map_err(io)?;
        let size = u64::from_le_bytes(size);
        if size > MAX_HEADER || size > len - 8 {
            let most = MAX_HEADER.min(len - 8);
            return Err(broken(format!(
                "expected a header of at most {most} bytes, got {size}: the file is truncated, or not safetensors"
            )));
        }
        let mut bytes = vec![0; size as usize];
        found.read_at(8, &mut bytes).await.map_err(io)?;
        let raw: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(&bytes).map_err(|e| broken(format!("expected a header in JSON, got {e}")))?;
        let data = len - 8 - size;
        let mut spans = Vec::new();
        for (tensor, value) in raw {
            if tensor == "__metadata__" {
                continue;
            }
            let wrong = |expected: &str, got: String| Error::Tensor {
                file: file.into(),
                tensor: tensor.clone(),
                expected: expected.into(),
                got,
            };
            let header: Header = serde_json::from_value(value)
                .map_err(|e| wrong("an entry with dtype, shape and data_offsets", e.to_string()))?;
            let [start, end] = header.data_offsets;
            if start > end || end > data {
                return Err(wrong(&format!("bytes within the {data} that the file holds"), format!("{start}..{end}")));
            }
            let need = header
                .shape
                .iter()
                .try_fold(1u64, |n, &d| n.checked_mul(d))
                .and_then(|n| n.checked_mul(header.dtype.bitsize() as u64))
                .map(|bits| bits / 8);
            if need != Some(end - start) {
                let shape = format!("{:?} of {:?}", header.shape, header.dtype);
                return Err(wrong(&format!("the bytes of {shape}"), format!("{} bytes", end - start)));
            }
            spans.push((start, end, tensor.clone()));
            let entry = TensorEntry {
                dtype: match header.dtype {
                    Dtype::F32 => Ok(StoredDtype::F32),
                    Dtype::F16 => Ok(StoredDtype::F16),
                    Dtype::BF16 => Ok(StoredDtype::Bf16),
                    other => Err(format!("{other:?}")),
                },
                shape: header.shape,
                file: self.files.len(),
                offset: 8 + size + start,
                bytes: end - start,
            };
            if let Some(other) = self.entries.insert(tensor.clone(), entry) {
                return Err(wrong("one tensor of this name", format!("another in {}", self.files[other.file])));
            }
        }
        spans.sort();
        let mut covered = 0;
        for (start, end, tensor) in spans {
            if start != covered {
                return Err(Error::Tensor {
                    file: file.into(),
                    tensor,
                    expected: format!("a start at byte {covered}, where the one before ends"),
                    got: start.to_string(),
                });
            }
            covered = end;
        }
        if covered != data {
            return Err(broken(format!("expected tensors over all {data} bytes of data, got {covered}")));
        }
        self.files.push(file.to_owned());
        Ok(())
    }

    /// The files with the weights.
    pub fn files(&self) -> &[String] {
        &self.files
    }

    /// All files of the checkpoint.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// All tensors by name.
    pub fn entries(&self) -> &BTreeMap<String, TensorEntry> {
        &self.entries
    }

    /// The file of a tensor.
    ///
    /// # Panics
    /// Where `entry` is from other [`Weights`] with more files.
    pub fn file_of(&self, entry: &TensorEntry) -> &str {
        &self.files[entry.file]
    }

    /// Checks that `tensor` exists, is a float tensor, and has this shape.
    ///
    /// # Errors
    /// [`Error::Tensor`] with expected and got.
    pub fn check(&self, tensor: &str, shape: &[usize]) -> Result<(&TensorEntry, StoredDtype), Error> {
        let wrong = |file: &str, got: String| Error::Tensor {
            file: file.to_owned(),
            tensor: tensor.to_owned(),
            expected: format!("a float tensor of shape {shape:?}"),
            got,
        };
        let Some(entry) = self.entries.get(tensor) else {
            return Err(wrong(self.files.first().map_or(SINGLE, String::as_str), "none of this name".into()));
        };
        let file = self.file_of(entry);
        if !entry.shape.iter().copied().eq(shape.iter().map(|&d| d as u64)) {
            return Err(wrong(file, format!("{:?}", entry.shape)));
        }
        match &entry.dtype {
            Ok(dtype) => Ok((entry, *dtype)),
            Err(dtype) => Err(wrong(file, format!("dtype {dtype}"))),
        }
    }

    /// The first value of `tensor` that is NaN or infinite, as (index, value). None where the tensor is missing or not
    /// float.
    ///
    /// # Errors
    /// [`Error::Io`] where its file can't be read.
    pub async fn first_non_finite(&self, tensor: &str) -> Result<Option<(u64, f32)>, Error> {
        let Some(entry) = self.entries.get(tensor) else { return Ok(None) };
        let Ok(dtype) = entry.dtype else { return Ok(None) };
        let mut first = None;
        let mut seen = 0;
        self.pieces(entry, 0..entry.bytes, |piece| {
            if first.is_none() {
                first = find_non_finite(piece, dtype).map(|(i, v)| (seen + i as u64, v));
            }
            seen += piece.len() as u64 / dtype.size();
        })
        .await?;
        Ok(first)
    }

    /// Whether a checkpoint has weights: one safetensors file, or an index of several.
    pub fn present(source: &Source) -> bool {
        source.contains(SINGLE) || source.contains(INDEX)
    }

    /// Loads `slices`, one after the other, as one tensor on `device` in `dtype` (f32 or f16).
    ///
    /// bf16 has a wider range than f16. A value that is too large for f16 is an error; it does not become infinity.
    ///
    /// # Errors
    /// [`Error::Tensor`] as in [`Weights::check`], or where a value is not finite as `dtype`; [`Error::Io`].
    ///
    /// # Panics
    /// Where the slices have another number of values than `shape`, or rows that their tensor does not have.
    pub async fn load<const D: usize>(
        &self,
        slices: &[Rows<'_>],
        shape: [usize; D],
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor<D>, Error> {
        let values: usize = shape.iter().product();
        let data = if dtype == DType::F16 {
            let mut buffer: Vec<f16> = Vec::with_capacity(values);
            for slice in slices {
                let (entry, stored) = self.check(slice.tensor, slice.shape)?;
                let start = buffer.len();
                let bytes = slice.bytes(entry, stored);
                self.pieces(entry, bytes, |piece| match stored {
                    StoredDtype::F16 => buffer.extend(piece.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]))),
                    _ => buffer.extend(floats(piece, stored).map(f16::from_f32)),
                })
                .await?;
                self.finite(entry, slice, buffer[start..].iter().position(|v| !v.is_finite()))?;
            }
            TensorData::new(buffer, shape)
        } else {
            let mut buffer: Vec<f32> = Vec::with_capacity(values);
            for slice in slices {
                let (entry, stored) = self.check(slice.tensor, slice.shape)?;
                let start = buffer.len();
                let bytes = slice.bytes(entry, stored);
                self.pieces(entry, bytes, |piece| buffer.extend(floats(piece, stored))).await?;
                self.finite(entry, slice, buffer[start..].iter().position(|v| !v.is_finite()))?;
            }
            TensorData::new(buffer, shape)
        };
        Ok(Tensor::from_data(data, (device, dtype)))
    }

    fn finite(&self, entry: &TensorEntry, slice: &Rows<'_>, bad: Option<usize>) -> Result<(), Error> {
        match bad {
            None => Ok(()),
            Some(index) => Err(Error::Tensor {
                file: self.file_of(entry).to_owned(),
                tensor: slice.tensor.to_owned(),
                expected: "values that are finite in the dtype on the device".into(),
                got: format!("NaN, infinity or a value out of range at index {}", slice.first_value() + index),
            }),
        }
    }

    /// Reads the bytes `range` of a tensor in pieces of whole values.
    async fn pieces(&self, entry: &TensorEntry, range: Range<u64>, mut each: impl FnMut(&[u8])) -> Result<(), Error> {
        let file = self.file_of(entry);
        let found = self.source.file(file)?;
        let mut piece = vec![0; (range.end - range.start).min(PIECE as u64) as usize];
        let mut done = range.start;
        while done < range.end {
            let next = (range.end - done).min(PIECE as u64) as usize;
            let read = found.read_at(entry.offset + done, &mut piece[..next]).await;
            read.map_err(|source| Error::Io { file: file.to_owned(), source })?;
            each(&piece[..next]);
            done += next as u64;
        }
        Ok(())
    }
}

/// The error where there are no weights, with the other files that were found.
fn no_weights(source: &Source) -> Error {
    const OTHERS: [(&str, &str); 7] = [
        (".gguf", "GGUF"),
        (".bin", "PyTorch's pickle format"),
        (".pt", "PyTorch's pickle format"),
        (".pth", "PyTorch's pickle format"),
        (".onnx", "ONNX"),
        (".msgpack", "Flax"),
        (".h5", "TensorFlow"),
    ];
    let other = OTHERS.iter().find_map(|(ending, format)| {
        let file = source.files().find(|file| file.to_ascii_lowercase().ends_with(ending))?;
        Some(format!("{file} ({format}), which is not supported; convert it to safetensors"))
    });
    let alone = source.files().find(|file| file.ends_with(".safetensors"));
    let got = other.or_else(|| Some(format!("{} without an index", alone?))).unwrap_or_else(|| "neither".to_owned());
    Error::WeightFile { file: source.name().to_owned(), why: format!("expected {SINGLE} or {INDEX}, got {got}") }
}

/// The f32 values of little-endian bytes.
fn floats(bytes: &[u8], dtype: StoredDtype) -> impl Iterator<Item = f32> + '_ {
    let size = dtype.size() as usize;
    bytes.chunks_exact(size).map(move |b| match dtype {
        StoredDtype::F32 => f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
        StoredDtype::F16 => f16::from_le_bytes([b[0], b[1]]).to_f32(),
        StoredDtype::Bf16 => bf16::from_le_bytes([b[0], b[1]]).to_f32(),
    })
}

/// The first value that is NaN or infinite: all bits of its exponent are set.
fn find_non_finite(bytes: &[u8], dtype: StoredDtype) -> Option<(usize, f32)> {
    let at = match dtype {
        StoredDtype::F32 => bytes
            .chunks_exact(4)
            .position(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) & 0x7f80_0000 == 0x7f80_0000),
        StoredDtype::F16 => bytes.chunks_exact(2).position(|b| u16::from_le_bytes([b[0], b[1]]) & 0x7c00 == 0x7c00),
        StoredDtype::Bf16 => bytes.chunks_exact(2).position(|b| u16::from_le_bytes([b[0], b[1]]) & 0x7f80 == 0x7f80),
    }?;
    floats(bytes, dtype).nth(at).map(|v| (at, v))
}
