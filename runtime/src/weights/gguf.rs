//! Blocks of GGUF, each with its own scales; and the rows that llama.cpp permuted for rotary positions. See
//! [`crate::gguf`].

use std::{collections::BTreeMap, ops::Range};

use super::{Bad, Codes, Float, Format, Kind, Part, Stored, TensorEntry, Weights};
use crate::{
    error::Error,
    gguf::{Block, GgufTensor},
    source::Source,
};

/// A matrix of GGUF's blocks. It has one part.
#[derive(Clone, Copy, Debug)]
pub struct Blocks {
    block: Block,
    /// Values of a row.
    width: u64,
    /// Bytes of a row.
    row: u64,
    /// Rows of a head, where they are permuted within it: the first half of them is at the even places. Else 0.
    head: u64,
}

impl Blocks {
    /// The rows to read for some rows: whole heads, where rows are permuted.
    fn read(&self, rows: &Range<u64>) -> Range<u64> {
        match self.head {
            0 => rows.clone(),
            head => rows.start / head * head..rows.end.div_ceil(head) * head,
        }
    }

    /// The place in the file and the bytes of each of some rows, of those that were read for them.
    fn rows<'a>(&self, part: &'a [u8], rows: &Range<u64>) -> impl Iterator<Item = (u64, &'a [u8])> {
        let Self { row, head, .. } = *self;
        let first = self.read(rows).start;
        rows.clone().map(move |index| {
            let stored = match head {
                0 => index,
                _ => index / head * head + index % head % (head / 2) * 2 + index % head / (head / 2),
            };
            (stored, &part[((stored - first) * row) as usize..][..row as usize])
        })
    }
}

impl Kind for Blocks {
    fn name(&self) -> String {
        self.block.name().to_lowercase()
    }

    fn format(&self) -> Option<Format> {
        self.block.format()
    }

    fn spans(&self, rows: &Range<u64>) -> Vec<Range<u64>> {
        let read = self.read(rows);
        let span = read.start * self.row..read.end * self.row;
        vec![span]
    }

    fn repack(&self, parts: &[Vec<u8>], rows: &Range<u64>, codes: &mut Codes) {
        let Some(format) = self.format() else { return };
        let width = self.width as usize;
        for (_, row) in self.rows(&parts[0], rows) {
            let (words, scales) = (codes.words.len(), codes.scales.len());
            codes.words.resize(words + format.words(width), 0);
            codes.scales.resize(scales + format.scale_words(width), 0);
            self.block.repack(row, width, &mut codes.words[words..], &mut codes.scales[scales..]);
        }
    }

    /// Without the rounding of the scales to f16.
    fn values(&self, parts: &[Vec<u8>], rows: &Range<u64>) -> Vec<f32> {
        let mut values = vec![0.0; ((rows.end - rows.start) * self.width) as usize];
        for ((_, row), values) in self.rows(&parts[0], rows).zip(values.chunks_exact_mut(self.width as usize)) {
            self.block.values(row, values);
        }
        values
    }

    fn non_finite(&self, parts: &[Vec<u8>], rows: &Range<u64>) -> Option<Bad> {
        self.rows(&parts[0], rows).find_map(|(stored, row)| {
            let (at, value) = self.block.non_finite(row)?;
            let index = stored * self.width + at as u64;
            let block = self.block.format().map(|_| index / self.block.values_per_block() as u64);
            Some(Bad { part: 0, index, block, value })
        })
    }
}

impl Weights {
    /// The tensors of GGUF files, whose headers were read before. [`GgufTensor::file`] is an index into `files`.
    ///
    /// # Errors
    /// [`Error::Tensor`] where rows share blocks, or are not whole heads of even width.
    ///
    /// # Panics
    /// Where a tensor is in a file that is not in the list.
    pub fn gguf(source: Source, files: Vec<String>, tensors: BTreeMap<String, GgufTensor>) -> Result<Self, Error> {
        let mut entries = BTreeMap::new();
        for (name, tensor) in tensors {
            let GgufTensor { file, info, shape, heads } = tensor;
            let wrong = |expected: String| Error::Tensor {
                file: files[file].clone(),
                tensor: info.name.clone(),
                expected,
                got: format!("{:?}", info.shape),
            };
            let (rows, width) = (shape.first().copied().unwrap_or(1), shape.iter().skip(1).product());
            let stored = match &info.block {
                Err(other) => Err(format!("{other}; expected {}", Block::expected())),
                Ok(block) => {
                    let row = block.row_bytes(width).filter(|row| row.checked_mul(rows) == Some(info.bytes));
                    let expected = || format!("rows of whole blocks of {} values", block.values_per_block());
                    let row = row.ok_or_else(|| wrong(expected()))?;
                    let head =
                        heads.map_or(Some(0), |heads| rows.checked_div(heads).filter(|n| *n > 0 && n * heads == rows));
                    let head = head.filter(|head| head.is_multiple_of(2));
                    let head = head.ok_or_else(|| wrong(format!("rows of {heads:?} heads of even width")))?;
                    Ok(match block.dtype().filter(|_| head == 0) {
                        Some(dtype) => Stored::Float(Float { dtype, width }),
                        None => Stored::Blocks(Blocks { block: *block, width, row, head }),
                    })
                }
            };
            let parts = vec![Part { file, offset: info.offset, bytes: info.bytes }];
            entries.insert(name, TensorEntry { stored, shape, parts, names: vec![info.name] });
        }
        Ok(Self { source, files, entries, mlx: false })
    }
}
