//! Inputs on a device, each in the middle of a larger tensor filled with sentinels.
//!
//! The sentinels are large numbers, and are checked after the run. This detects kernels that read or write outside an
//! input.

use burn::tensor::{DType, Device, Int, Tensor, TensorData, Transaction};
use fovea_runtime::{
    Error,
    network_ops::{Format, Weight},
    read::{into_f32, read_all},
};
use half::f16;

/// Bytes before and after an input: the largest alignment of a binding, so that the input can be bound in place.
const MARGIN: usize = 256;

/// The sentinel's value: larger than the values of all cases, exact in f16, and out of range as an index.
const SENTINEL: i16 = 1031;

/// The inputs of one run of a case.
pub(crate) struct Bed<'a> {
    device: &'a Device,
    half: bool,
    floats: Vec<(Tensor<1>, Vec<f32>)>,
    integers: Vec<(Tensor<1, Int>, Vec<i32>)>,
}

impl<'a> Bed<'a> {
    /// Without inputs. Numbers are stored in f16 if `half`, else in f32.
    pub fn new(device: &'a Device, half: bool) -> Self {
        Self { device, half, floats: Vec::new(), integers: Vec::new() }
    }

    /// The device.
    pub fn device(&self) -> &'a Device {
        self.device
    }

    /// Adds numbers, which must be rounded to the stored type already.
    pub fn floats<const D: usize>(&mut self, values: &[f32], shape: [usize; D]) -> Tensor<D> {
        let half = self.half;
        self.stored(values, shape, half)
    }

    /// Adds numbers that are always stored in f32.
    pub fn full<const D: usize>(&mut self, values: &[f32], shape: [usize; D]) -> Tensor<D> {
        self.stored(values, shape, false)
    }

    fn stored<const D: usize>(&mut self, values: &[f32], shape: [usize; D], half: bool) -> Tensor<D> {
        let beside = MARGIN / if half { 2 } else { 4 };
        let flat = framed(values, f32::from(SENTINEL), beside);
        let (count, device) = (flat.len(), self.device);
        let tensor = if half {
            let halves: Vec<f16> = flat.iter().map(|&v| f16::from_f32(v)).collect();
            Tensor::<1>::from_data(TensorData::new(halves, [count]), (device, DType::F16))
        } else {
            Tensor::<1>::from_data(TensorData::new(flat.clone(), [count]), (device, DType::F32))
        };
        self.floats.push((tensor.clone(), flat));
        tensor.narrow(0, beside, values.len()).reshape(shape)
    }

    /// Adds indices.
    pub fn indices(&mut self, values: &[usize]) -> Tensor<1, Int> {
        let values: Vec<i32> = values.iter().map(|&i| i32::try_from(i).unwrap_or(i32::MAX)).collect();
        self.integers(&values, |data, device| Tensor::from_data(data, device))
    }

    /// Adds the words and scales of a weight with rows of `width`. `rounded`: see [`Weight::Codes`].
    pub fn codes(&mut self, words: &[u32], scales: &[u32], width: usize, format: Format, rounded: bool) -> Weight {
        let rows = words.len() / format.words(width);
        let mut matrix = |values: &[u32], columns: usize| {
            let values: Vec<i32> = values.iter().map(|word| word.cast_signed()).collect();
            self.integers(&values, |data, device| Tensor::from_data(data, (device, DType::I32)))
                .reshape([rows, columns])
        };
        let (words, scales) = (matrix(words, format.words(width)), matrix(scales, format.scale_words(width)));
        Weight::Codes { words, scales, format, rounded }
    }

    fn integers(
        &mut self,
        values: &[i32],
        upload: impl FnOnce(TensorData, &Device) -> Tensor<1, Int>,
    ) -> Tensor<1, Int> {
        let beside = MARGIN / 4;
        let flat = framed(values, i32::from(SENTINEL), beside);
        let tensor = upload(TensorData::new(flat.clone(), [flat.len()]), self.device);
        self.integers.push((tensor.clone(), flat));
        tensor.narrow(0, beside, values.len())
    }

    /// A message about the first number that was overwritten, in an input or its sentinels; None if nothing changed.
    ///
    /// All tensors are read in one round trip, because round trips are slow in a browser.
    pub async fn overwritten(self) -> Result<Option<String>, Error> {
        let reads = self.floats.iter().fold(Transaction::default(), |reads, (t, _)| reads.register(t.clone()));
        let reads = self.integers.iter().fold(reads, |reads, (t, _)| reads.register(t.clone()));
        if self.floats.is_empty() && self.integers.is_empty() {
            return Ok(None);
        }
        let mut read = read_all(reads).await?.into_iter();
        for (input, (_, before)) in self.floats.iter().enumerate() {
            let after = read.next().map_or_else(Vec::new, into_f32);
            let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
            if let Some(at) = first_other(before, &after, same) {
                return Ok(Some(sentence(input, at, before, &after)));
            }
        }
        for (input, (_, before)) in self.integers.iter().enumerate() {
            let after: Vec<i64> = read.next().map_or_else(Vec::new, |data| data.iter().collect());
            let same = |(a, b): (&i32, &i64)| i64::from(*a) == *b;
            if let Some(at) = first_other(before, &after, same) {
                return Ok(Some(sentence(input, at, before, &after)));
            }
        }
        Ok(None)
    }
}

/// `values` with `beside` sentinels before and after them.
fn framed<T: Copy>(values: &[T], sentinel: T, beside: usize) -> Vec<T> {
    let frame = vec![sentinel; beside];
    [&frame, values, &frame].concat()
}

fn first_other<A, B>(before: &[A], after: &[B], same: impl Fn((&A, &B)) -> bool) -> Option<usize> {
    let other = before.iter().zip(after).position(|pair| !same(pair));
    other.or((before.len() != after.len()).then_some(before.len().min(after.len())))
}

fn sentence<A: ToString, B: ToString>(input: usize, at: usize, before: &[A], after: &[B]) -> String {
    let word = |value: Option<String>| value.unwrap_or_else(|| "nothing".into());
    let (expected, got) = (word(before.get(at).map(A::to_string)), word(after.get(at).map(B::to_string)));
    format!("input {input}: expected no change, got {got} instead of {expected} at {at} (sentinels included)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_changed_number_is_found() {
        let flat = framed(&[1, 2, 3], 9, 2);
        assert_eq!(flat, [9, 9, 1, 2, 3, 9, 9]);
        let same = |(a, b): (&i32, &i32)| a == b;
        assert_eq!(first_other(&flat, &flat, same), None);
        assert_eq!(first_other(&flat, &[9, 9, 1, 2, 3, 9, 8], same), Some(6));
        assert_eq!(first_other(&flat, &flat[..6], same), Some(6));
        assert!(sentence(0, 6, &flat, &flat[..6]).contains("got nothing instead of 9 at 6"));
    }
}
