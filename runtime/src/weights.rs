//! Safetensors files in, tensors on a device out. A tensor is read in panels of rows and converted into its own buffer.
//!
//! A tensor consists of one or several parts: byte ranges of files. How they store its values is a `Kind`, one file in
//! `weights/`; another one is such a file, and a row of [`Stored`].
//!
//! | kind | parts | format of the codes |
//! |---|---|---|
//! | [`Float`] | values | none |
//! | [`Affine`] | codes, scales, biases | exact; scales and biases rounded to f16 |
//! | [`Packed`] | codes, scales, perhaps zero points | exact; scales and minima rounded to f16 |
//! | [`Blocks`] | blocks of codes and scales | exact; scales and minima of Q4_K, Q5_K and Q6_K rounded to f16 |
//!
//! The rounding to f16 is exact for scales in f16, and for those in bf16 from 2^-14 to 65504.
//!
//! Besides the tensors, the host needs memory for one panel of 2 Mi values (and on a GPU for the current tensor). All
//! values in a header are checked before memory is allocated for them. Sizes are u64 with checked arithmetic, because
//! `usize` has 32 bits in a browser.

mod affine;
mod float;
mod gguf;
mod packed;

use std::{collections::BTreeMap, io, ops::Range};

use burn::tensor::{DType, Device, Element, Int, Tensor, TensorData};
use fovea_shaders::Format;
use half::f16;
use safetensors::Dtype;
use serde::Deserialize;

pub use self::{
    affine::{Affine, Modules},
    float::{Float, StoredDtype},
    gguf::Blocks,
    packed::Packed,
};
use crate::{cpu::codes as cpu, error::Error, json, memory::large, quantise::quantise, source::Source};

/// Values per panel, at most; more only where a single row has more.
const PANEL: u64 = 2 << 20;
/// The limit of the format.
const MAX_HEADER: u64 = 100_000_000;
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// How the values of a tensor are stored.
#[derive(Clone, Copy, Debug)]
pub enum Stored {
    /// Floats.
    Float(Float),
    /// Codes of MLX.
    Affine(Affine),
    /// Codes of compressed-tensors.
    Packed(Packed),
    /// Blocks of GGUF.
    Blocks(Blocks),
}

impl Stored {
    fn kind(&self) -> &dyn Kind {
        match self {
            Self::Float(kind) => kind,
            Self::Affine(kind) => kind,
            Self::Packed(kind) => kind,
            Self::Blocks(kind) => kind,
        }
    }

    /// Its name for users: `f32`, `f16`, `bf16`, or that of the codes' format, such as `q4m g64`.
    pub fn name(&self) -> String {
        self.kind().name()
    }

    /// The format in which its codes are loaded without loss; None for floats.
    pub fn format(&self) -> Option<Format> {
        self.kind().format()
    }
}

/// A way to store a matrix. Rows are those of the values; parts have the bytes of [`Kind::spans`].
trait Kind {
    /// See [`Stored::name`].
    fn name(&self) -> String;

    /// The format in which the codes are repacked without loss.
    fn format(&self) -> Option<Format> {
        None
    }

    /// Which bytes of each part some rows need.
    fn spans(&self, rows: &Range<u64>) -> Vec<Range<u64>>;

    /// Empties the spans of parts without floats, which need no check for NaN.
    fn without_codes(&self, _spans: &mut [Range<u64>]) {}

    /// Appends the codes of some rows, where there is a format.
    fn repack(&self, _parts: &[Vec<u8>], _rows: &Range<u64>, _codes: &mut Codes) {}

    /// The values of some rows.
    fn values(&self, parts: &[Vec<u8>], rows: &Range<u64>) -> Vec<f32> {
        let Some(format) = self.format() else { return Vec::new() };
        let mut codes = Codes::default();
        self.repack(parts, rows, &mut codes);
        let count = (rows.end - rows.start).max(1) as usize;
        let width = codes.words.len() / count * 32 / format.bits as usize;
        let mut values = vec![0.0; count * width];
        cpu::values(cpu::Codes { words: &codes.words, scales: &codes.scales, width, format }, &mut values);
        values
    }

    /// The first stored float of some rows that is NaN or infinite.
    fn non_finite(&self, parts: &[Vec<u8>], rows: &Range<u64>) -> Option<Bad>;
}

/// A stored float of a part that is NaN or infinite.
struct Bad {
    /// The part.
    part: usize,
    /// The index of the float in this part; in a block of GGUF, that of the block's first value.
    index: u64,
    /// The index of its block, where the part has blocks.
    block: Option<u64>,
    value: f32,
}

/// A stored float that is NaN or infinite.
#[derive(Clone, Debug, PartialEq)]
pub struct NonFinite {
    /// Its file.
    pub file: String,
    /// The name of its tensor in the file; for a scale of codes, that of the scales.
    pub tensor: String,
    /// Its index in this tensor; for a scale in a block of GGUF, the index of the block's first value.
    pub index: u64,
    /// The index of its block, where it is a scale in a block of GGUF.
    pub block: Option<u64>,
    /// The float.
    pub value: f32,
}

impl From<NonFinite> for Error {
    fn from(bad: NonFinite) -> Self {
        let NonFinite { file, tensor, index, block, value } = bad;
        let (expected, place) = match block {
            None => ("finite values", format!("index {index}")),
            Some(block) => ("finite scales", format!("block {block}, whose first value has the index {index}")),
        };
        let todo = "download the file again, or convert the checkpoint again if the value stays";
        Self::Tensor { file, tensor, expected: expected.into(), got: format!("{value} at {place}; {todo}") }
    }
}

/// Rows of codes in our layout.
#[derive(Default)]
struct Codes {
    words: Vec<u32>,
    scales: Vec<u32>,
}

impl Codes {
    /// Appends codes whose first one is in the lowest bits of a little-endian word.
    fn push_words(&mut self, bytes: &[u8], bits: u32) {
        let words = bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        // 4 bits: codes 0 to 3 go to the low halves of the four bytes, codes 4 to 7 to the high halves.
        let spread = |codes: u32| {
            let pairs = (codes | codes << 8) & 0x00ff_00ff;
            (pairs | pairs << 4) & 0x0f0f_0f0f
        };
        match bits {
            8 => self.words.extend(words),
            _ => self.words.extend(words.map(|word| spread(word & 0xffff) | spread(word >> 16) << 4)),
        }
    }

    /// Appends the bits of f16 scales without minima, `groups` per row.
    fn push_scales(&mut self, scales: &[u32], groups: usize) {
        for row in scales.chunks_exact(groups) {
            self.scales.extend(row.chunks(2).map(|pair| pair[0] | pair.get(1).copied().unwrap_or(0) << 16));
        }
    }
}

/// The bits of a value rounded to f16.
fn half(value: f32) -> u32 {
    u32::from(f16::from_f32(value).to_bits())
}

/// A type of values on a device.
trait Value: Element {
    fn from_f32(value: f32) -> Self;
    fn finite(self) -> bool;
    /// Appends stored floats.
    fn read(bytes: &[u8], dtype: StoredDtype, into: &mut Vec<Self>);
}

impl Value for f32 {
    fn from_f32(value: f32) -> Self {
        value
    }

    fn finite(self) -> bool {
        self.is_finite()
    }

    fn read(bytes: &[u8], dtype: StoredDtype, into: &mut Vec<Self>) {
        into.extend(dtype.floats(bytes));
    }
}

impl Value for f16 {
    fn from_f32(value: f32) -> Self {
        Self::from_f32(value)
    }

    fn finite(self) -> bool {
        self.is_finite()
    }

    fn read(bytes: &[u8], dtype: StoredDtype, into: &mut Vec<Self>) {
        match dtype {
            StoredDtype::F16 => into.extend(bytes.chunks_exact(2).map(|b| Self::from_le_bytes([b[0], b[1]]))),
            _ => into.extend(dtype.floats(bytes).map(Self::from_f32)),
        }
    }
}

/// The settings of a checkpoint's quantised tensors.
#[derive(Clone, Debug)]
pub enum Quantisation {
    /// MLX's affine codes.
    Affine(Modules),
    /// compressed-tensors' format `pack-quantized`; the files have all settings.
    Packed,
}

/// One part of a tensor: bytes of a file.
#[derive(Clone, Copy, Debug)]
struct Part {
    /// Index into [`Weights::files`].
    file: usize,
    /// The position of its first byte in the file.
    offset: u64,
    /// The number of bytes.
    bytes: u64,
}

/// One tensor of a checkpoint.
#[derive(Clone, Debug)]
pub struct TensorEntry {
    /// How its values are stored; or the name of another type, which is an error only where the model needs the tensor.
    pub stored: Result<Stored, String>,
    /// The shape of its values.
    pub shape: Vec<u64>,
    /// At least one.
    parts: Vec<Part>,
    /// The name of each part in its file.
    names: Vec<String>,
}

impl TensorEntry {
    /// The number of bytes in all files.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }

    /// The number of values.
    pub fn values(&self) -> u64 {
        self.shape.iter().product()
    }

    /// Its name in the file; for codes, that of the tensor with the codes.
    pub fn own_name(&self) -> &str {
        self.names.first().map_or("", String::as_str)
    }

    /// The number of rows: the first dimension.
    fn rows(&self) -> u64 {
        self.shape.first().copied().unwrap_or(1)
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

    fn rows(&self) -> Range<u64> {
        self.rows.start as u64..self.rows.end as u64
    }
}

/// The tensors of a checkpoint: names, types, shapes and positions, but no values.
pub struct Weights {
    source: Source,
    files: Vec<String>,
    entries: BTreeMap<String, TensorEntry>,
    /// Whether the files are from MLX, which stores the channels of a convolution last.
    mlx: bool,
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
        let mut weights = Self { files: Vec::new(), entries: BTreeMap::new(), mlx: false, source };
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
                let found = weights.entries.get(tensor).map(|e| weights.file_of(e));
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
            return Err(broken(format!("expected at least 8 bytes, got {len}: download the file again")));
        }
        let mut size = [0; 8];
        found.read_at(0, &mut size).await.map_err(io)?;
        if let Some(other) = other_content(&size) {
            return Err(broken(format!("expected safetensors, got {other}")));
        }
        let size = u64::from_le_bytes(size);
        if size > MAX_HEADER || size > len - 8 {
            let most = MAX_HEADER.min(len - 8);
            return Err(broken(format!(
                "expected a header of at most {most} bytes, got {size}: the file is truncated, or not safetensors; \
                 download it again"
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
                self.mlx |= value.get("format").is_some_and(|format| format == "mlx");
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
                let todo = if start > end { "" } else { ": the file is truncated" };
                let got = format!("{start}..{end}{todo}; download it again");
                return Err(wrong(&format!("bytes within the {data} that the file holds"), got));
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
            let dtype = match header.dtype {
                Dtype::F32 => Ok(StoredDtype::F32),
                Dtype::F16 => Ok(StoredDtype::F16),
                Dtype::BF16 => Ok(StoredDtype::Bf16),
                other => Err(format!("{other:?}")),
            };
            let width = header.shape.iter().skip(1).fold(1, |n: u64, &d| n.saturating_mul(d));
            let entry = TensorEntry {
                stored: dtype.map(|dtype| Stored::Float(Float { dtype, width })),
                shape: header.shape,
                parts: vec![Part { file: self.files.len(), offset: 8 + size + start, bytes: end - start }],
                names: vec![tensor.clone()],
            };
            if let Some(other) = self.entries.insert(tensor.clone(), entry) {
                return Err(wrong("one tensor of this name", format!("another in {}", self.file_of(&other))));
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

    /// Makes one entry, `X.weight`, of the tensors of each quantised matrix.
    ///
    /// # Errors
    /// [`Error::Tensor`] where one of them is missing, or has another dtype or shape than the others and the settings
    /// require; [`Error::Io`].
    pub async fn with_quantisation(mut self, settings: &Quantisation) -> Result<Self, Error> {
        match settings {
            Quantisation::Affine(modules) => affine::join(&mut self, modules).await?,
            Quantisation::Packed => packed::join(&mut self).await?,
        }
        Ok(self)
    }

    /// Replaces entries with one that has their parts.
    fn replace(&mut self, name: String, old: &[String], stored: Stored, shape: Vec<u64>) {
        let entries = old.iter().filter_map(|name| self.entries.remove(name));
        let (parts, names) = entries.flat_map(|entry| entry.parts.into_iter().zip(entry.names)).unzip();
        self.entries.insert(name, TensorEntry { stored: Ok(stored), shape, parts, names });
    }

    /// The error for a tensor that is missing, or is not as expected.
    fn wrong(&self, tensor: &str, expected: impl Into<String>) -> Error {
        let entry = self.entries.get(tensor);
        let file = entry.map(|entry| self.file_of(entry)).or(self.files.first().map(String::as_str)).unwrap_or(SINGLE);
        let got = entry.map_or("none of this name".to_owned(), |entry| match &entry.stored {
            Ok(stored) => format!("{:?} of {}", entry.shape, stored.name()),
            Err(dtype) => format!("{:?} of dtype {dtype}", entry.shape),
        });
        Error::Tensor { file: file.to_owned(), tensor: tensor.to_owned(), expected: expected.into(), got }
    }

    /// The shape of a matrix of integers.
    fn matrix_of(&self, tensor: &str, dtype: &str) -> Result<[u64; 2], Error> {
        let entry = self.entries.get(tensor).filter(|entry| matches!(&entry.stored, Err(found) if found == dtype));
        match entry.map(|entry| entry.shape.as_slice()) {
            Some(&[rows, columns]) if rows > 0 && columns > 0 => Ok([rows, columns]),
            _ => Err(self.wrong(tensor, format!("a matrix of dtype {dtype}"))),
        }
    }

    /// The dtype of a matrix of floats, which must have this shape. `reason` is the reason of the shape, for a message.
    fn floats_of(&self, tensor: &str, shape: &[u64; 2], reason: &str) -> Result<StoredDtype, Error> {
        match self.entries.get(tensor).map(|entry| (&entry.stored, entry.shape.as_slice())) {
            Some((Ok(Stored::Float(float)), found)) if found == shape => Ok(float.dtype),
            _ => Err(self.wrong(tensor, format!("{shape:?} of f32, f16 or bf16{reason}"))),
        }
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

    /// The file of a tensor, or of its first part.
    ///
    /// # Panics
    /// Where `entry` is from other [`Weights`] with more files.
    pub fn file_of(&self, entry: &TensorEntry) -> &str {
        &self.files[entry.parts[0].file]
    }

    /// Checks that `tensor` exists, is stored in a known way, and has this shape.
    ///
    /// A convolution (out, channels, rows, columns) may also be stored with its channels last, as MLX does.
    ///
    /// # Errors
    /// [`Error::Tensor`] with expected and got.
    pub fn check(&self, tensor: &str, shape: &[usize]) -> Result<(&TensorEntry, Stored), Error> {
        let found = self.entries.get(tensor);
        let wrong = |file: &str, got: String| Error::Tensor {
            file: file.to_owned(),
            tensor: found.map_or(tensor, TensorEntry::own_name).to_owned(),
            expected: format!("a tensor of floats, or of codes, of shape {shape:?}"),
            got,
        };
        let Some(entry) = found else {
            return Err(wrong(self.files.first().map_or(SINGLE, String::as_str), "none of this name".into()));
        };
        let file = self.file_of(entry);
        if !entry.shape.iter().copied().eq(shape.iter().map(|&d| d as u64))
            && self.channels_last(entry, shape).is_none()
        {
            return Err(wrong(file, format!("{:?}", entry.shape)));
        }
        match &entry.stored {
            Ok(stored) => Ok((entry, *stored)),
            Err(dtype) => Err(wrong(file, format!("dtype {dtype}"))),
        }
    }

    /// The number of channels of a convolution that is stored as (out, rows, columns, channels); None for all other
    /// tensors. `shape` is (out, channels, rows, columns).
    fn channels_last(&self, entry: &TensorEntry, shape: &[usize]) -> Option<usize> {
        let &[out, channels, rows, columns] = shape else { return None };
        let is = |order: [usize; 4]| entry.shape.iter().copied().eq(order.map(|d| d as u64));
        let last = is([out, rows, columns, channels]);
        // The shapes of a convolution can be equal in both orders: then the origin of the file decides.
        (last && (self.mlx || !is([out, channels, rows, columns]))).then_some(channels)
    }

    /// The first stored float of `tensor` that is NaN or infinite. None where all are finite, and where the tensor is
    /// missing or stored in an unknown way.
    ///
    /// # Errors
    /// [`Error::Io`] where its file can't be read.
    pub async fn first_non_finite(&self, tensor: &str) -> Result<Option<NonFinite>, Error> {
        let Some(entry) = self.entries.get(tensor) else { return Ok(None) };
        let Ok(stored) = entry.stored else { return Ok(None) };
        let mut first = None;
        self.panels(entry, &stored, 0..entry.rows(), false, |rows, parts| {
            if first.is_none() {
                first = stored.kind().non_finite(parts, &rows);
            }
            Ok(())
        })
        .await?;
        Ok(first.map(|Bad { part, index, block, value }| NonFinite {
            file: self.files[entry.parts[part].file].clone(),
            tensor: entry.names[part].clone(),
            index,
            block,
            value,
        }))
    }

    /// The format in which a tensor's codes are loaded without loss; None where it is stored as floats, or missing.
    pub fn format(&self, tensor: &str) -> Option<Format> {
        self.entries.get(tensor)?.stored.as_ref().ok()?.format()
    }

    /// Whether a checkpoint has weights: one safetensors file, or an index of several.
    pub fn present(source: &Source) -> bool {
        source.contains(SINGLE) || source.contains(INDEX)
    }

    /// Loads `slices`, one after the other, as one tensor on `device` in `dtype` (f32 or f16). Codes are dequantised.
    ///
    /// On a GPU it gets a buffer of exactly its size: the pools for other tensors have pages of few sizes.
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
        let count = shape.iter().product();
        let data = if dtype == DType::F16 {
            TensorData::new(self.read_all::<f16>(slices, count).await?, [count])
        } else {
            TensorData::new(self.read_all::<f32>(slices, count).await?, [count])
        };
        // One dimension first: CUDA would align rows with gaps between them, and each launch would copy the weight.
        let load = |data| Tensor::<1>::from_data(data, (device, dtype)).reshape(shape);
        Ok(device.memory_persistent_allocations(data, load))
    }

    async fn read_all<T: Value>(&self, slices: &[Rows<'_>], values: usize) -> Result<Vec<T>, Error> {
        let mut buffer = large(values);
        for slice in slices {
            self.each_panel(slice, &mut buffer, |_| ()).await?;
        }
        Ok(buffer)
    }

    /// The values of some rows on the host, in f32.
    ///
    /// # Errors
    /// As in [`Weights::load`].
    ///
    /// # Panics
    /// Where the tensor does not have these rows.
    pub async fn values(&self, slice: &Rows<'_>) -> Result<Vec<f32>, Error> {
        self.read_all(std::slice::from_ref(slice), 0).await
    }

    /// Loads `slices`, one after the other, as codes on `device`.
    ///
    /// A tensor whose [`Weights::format`] is `format` is repacked without loss; any other is dequantised and quantised
    /// again.
    ///
    /// # Shapes
    /// Words (rows, `format.words(width)`) and scales (rows, `format.scale_words(width)`), the bits of u32 as I32.
    ///
    /// # Errors
    /// [`Error::Tensor`] as in [`Weights::check`], or where a value or a scale is not finite in f16; [`Error::Io`].
    ///
    /// # Panics
    /// Where `width` does not fit the format, a row has another number of values, or the tensor does not have these
    /// rows.
    pub async fn load_codes(
        &self,
        slices: &[Rows<'_>],
        width: usize,
        format: Format,
        device: &Device,
    ) -> Result<[Tensor<2, Int>; 2], Error> {
        assert!(format.fits(width), "expected rows of whole groups of {}, got a width of {width}", format.group);
        let rows: usize = slices.iter().map(|slice| slice.rows.len()).sum();
        let columns = [format.words(width), format.scale_words(width)];
        let mut codes = Codes { words: large(rows * columns[0]), scales: large(rows * columns[1]) };
        for slice in slices {
            let (entry, stored) = self.check(slice.tensor, slice.shape)?;
            let start = codes.scales.len();
            if stored.format() == Some(format) {
                let panel = |rows, parts: &[Vec<u8>]| {
                    stored.kind().repack(parts, &rows, &mut codes);
                    Ok(())
                };
                self.panels(entry, &stored, slice.rows(), true, panel).await?;
            } else {
                self.each_panel(slice, &mut Vec::new(), |values: &mut Vec<f32>| {
                    let rows = values.len() / width;
                    let [words, scales] = [codes.words.len(), codes.scales.len()];
                    codes.words.resize(words + rows * columns[0], 0);
                    codes.scales.resize(scales + rows * columns[1], 0);
                    quantise(values, width, format, &mut codes.words[words..], &mut codes.scales[scales..]);
                    values.clear();
                })
                .await?;
            }
            let finite = |word: u32| word & 0x7c00 != 0x7c00 && word & 0x7c00_0000 != 0x7c00_0000;
            let bad = codes.scales[start..].iter().position(|&word| !finite(word));
            self.finite(slice, bad.map(|at| (slice.rows.start + at / columns[1]) * width))?;
        }
        let tensor = |words: Vec<u32>, columns| {
            let words: Vec<i32> = words.into_iter().map(u32::cast_signed).collect();
            let data = TensorData::new(words, [rows * columns]);
            let load = |data| Tensor::<1, Int>::from_data(data, (device, DType::I32)).reshape([rows, columns]);
            device.memory_persistent_allocations(data, load)
        };
        Ok([tensor(codes.words, columns[0]), tensor(codes.scales, columns[1])])
    }

    /// The bytes of a tensor of floats, as they are in the file. An error of `each` ends the call.
    ///
    /// # Errors
    /// [`Error::Tensor`] where the tensor is missing or quantised; [`Error::Io`].
    pub async fn raw(&self, tensor: &str, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> Result<(), Error> {
        match self.entries.get(tensor) {
            Some(entry @ TensorEntry { stored: Ok(stored @ Stored::Float(_)), .. }) => {
                self.panels(entry, stored, 0..entry.rows(), true, |_, parts| {
                    each(&parts[0]).map_err(|e| io::Error::new(e.kind(), format!("its copy cannot be written: {e}")))
                })
                .await
            }
            _ => Err(self.wrong(tensor, "a tensor of f32, f16 or bf16")),
        }
    }

    /// Appends some rows to `values`, and calls `each` after every panel. All values are finite.
    async fn each_panel<T: Value>(
        &self,
        slice: &Rows<'_>,
        values: &mut Vec<T>,
        mut each: impl FnMut(&mut Vec<T>),
    ) -> Result<(), Error> {
        let (entry, stored) = self.check(slice.tensor, slice.shape)?;
        let channels = self.channels_last(entry, slice.shape);
        let width: usize = slice.shape.iter().skip(1).product();
        let mut bad = None;
        self.panels(entry, &stored, slice.rows(), true, |rows, parts| {
            if bad.is_some() {
                return Ok(());
            }
            let start = values.len();
            match &stored {
                Stored::Float(float) => T::read(&parts[0], float.dtype, values),
                other => values.extend(other.kind().values(parts, &rows).into_iter().map(T::from_f32)),
            }
            let panel = &mut values[start..];
            if let Some(channels) = channels {
                panel.chunks_exact_mut(width).for_each(|row| channels_first(row, channels));
            }
            let first = rows.start as usize * width;
            bad = panel.iter().position(|value| !value.finite()).map(|at| first + at);
            if bad.is_none() {
                each(values);
            }
            Ok(())
        })
        .await?;
        self.finite(slice, bad)
    }

    /// The error for a value that is not finite, by its index in the tensor.
    fn finite(&self, slice: &Rows<'_>, bad: Option<usize>) -> Result<(), Error> {
        let Some(index) = bad else { return Ok(()) };
        let entry = self.entries.get(slice.tensor);
        // Codes have scales in f16 on every device.
        let codes = entry.is_some_and(|entry| entry.stored.as_ref().is_ok_and(|stored| stored.format().is_some()));
        let todo = if codes { "convert the checkpoint again" } else { "choose --weights f32" };
        Err(Error::Tensor {
            file: entry.map_or(SINGLE, |entry| self.file_of(entry)).to_owned(),
            tensor: entry.map_or(slice.tensor, TensorEntry::own_name).to_owned(),
            expected: "values that are finite in the dtype on the device".into(),
            got: format!("NaN, infinity or a value out of range at index {index}; {todo}"),
        })
    }

    /// Reads some rows panel by panel. With `codes`, all parts; without, only those with floats.
    async fn panels(
        &self,
        entry: &TensorEntry,
        stored: &Stored,
        rows: Range<u64>,
        codes: bool,
        mut each: impl FnMut(Range<u64>, &[Vec<u8>]) -> io::Result<()>,
    ) -> Result<(), Error> {
        let width = entry.shape.iter().skip(1).fold(1, |n: u64, &d| n.saturating_mul(d));
        if width == 0 {
            return Ok(());
        }
        let most = (PANEL / width).max(1);
        let mut parts = vec![Vec::new(); entry.parts.len()];
        let mut first = rows.start;
        while first < rows.end {
            let panel = first..rows.end.min(first.saturating_add(most));
            first = panel.end;
            let mut spans = stored.kind().spans(&panel);
            if !codes {
                stored.kind().without_codes(&mut spans);
            }
            for (part, (span, bytes)) in spans.iter().zip(&mut parts).enumerate() {
                self.read(entry, part, span, bytes).await?;
            }
            each(panel, &parts).map_err(|source| Error::Io { file: self.file_of(entry).to_owned(), source })?;
        }
        Ok(())
    }

    /// Reads the bytes `span` of a part into `bytes`.
    async fn read(
        &self,
        entry: &TensorEntry,
        part: usize,
        span: &Range<u64>,
        bytes: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let part = entry.parts[part];
        assert!(span.end <= part.bytes, "expected bytes within the {} of a part, got {span:?}", part.bytes);
        bytes.resize((span.end - span.start) as usize, 0);
        let file = &self.files[part.file];
        let read = self.source.file(file)?.read_at(part.offset + span.start, bytes).await;
        read.map_err(|source| Error::Io { file: file.clone(), source })
    }
}

/// What a file contains that a failed download left, by its first 8 bytes; and what to do.
pub fn other_content(start: &[u8]) -> Option<&'static str> {
    const FOUND: [(&[u8], &str); 4] = [
        (b"version ", "a pointer of Git LFS: the file itself is not there; run `git lfs pull`, or `fovea pull`"),
        (b"<!DOCTYP", "a web page: download the file again"),
        (b"<!doctyp", "a web page: download the file again"),
        (b"<html", "a web page: download the file again"),
    ];
    FOUND.iter().find(|(first, _)| start.starts_with(first)).map(|(_, what)| *what)
}

/// Turns a row (pixels, channels) into (channels, pixels).
fn channels_first<T: Copy>(row: &mut [T], channels: usize) {
    let old = row.to_vec();
    for (at, value) in row.iter_mut().enumerate() {
        let pixels = old.len() / channels;
        *value = old[at % pixels * channels + at / pixels];
    }
}

/// The error where there are no weights, with the other files that were found.
fn no_weights(source: &Source) -> Error {
    const OTHERS: [(&str, &str); 6] = [
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
