//! Rows of floats in, codes and scales out, in the layout of [`fovea_shaders::dequantise`].
//!
//! Each group gets the scale (and minimum) with the smallest sum of squared errors of some candidates. Candidates are
//! rounded to f16 before codes are chosen for them.

use std::{array::from_fn, iter::once};

use fovea_shaders::Format;
use half::f16;

/// Values per step of a loop. Each has its own partial sum, so sums do not depend on the processor's vectors.
const LANES: usize = 16;
/// Adding and subtracting it rounds an |x| < 2^22 to the nearest integer. Unlike `round`, this has vectors everywhere.
const ROUND: f32 = 12_582_912.0;
/// Candidates per group, besides those for which all levels are in range.
const CANDIDATES: i32 = 10;
/// Least-squares fits of the best candidate to its codes.
const FITS: usize = 2;

/// Quantises rows of `width` values. Near each value is `scale (code - zero)`, or with a minimum `scale code + minimum`.
///
/// Without a minimum, codes are 1 to 255 or 0 to 15. A group of zeros has scale 0. Every scale is finite: values that are
/// too large for the largest f16 scale are clamped. Values come back exactly if they are `scale (code - zero)`, and the
/// largest magnitude of each group has the code 1 or 255 (8 bits), or 0, 1 or 15 (4 bits). With a minimum, a group needs
/// the smallest and the largest code, and values that are exact in f32. The result is the same for every number of
/// threads.
///
/// Returns the sum of squared errors.
///
/// # Shapes
/// `values` (rows, `width`), finite -> `words` (rows, [`Format::words`]), `scales` (rows, [`Format::scale_words`]).
///
/// # Panics
/// Where `width` does not fit the format, or a slice has another size.
pub fn quantise(values: &[f32], width: usize, format: Format, words: &mut [u32], scales: &mut [u32]) -> f64 {
    assert!(format.fits(width), "expected rows of whole groups of {}, got a width of {width}", format.group);
    let rows = values.len() / width;
    let sizes = (rows * width, rows * format.words(width), rows * format.scale_words(width));
    assert_eq!((values.len(), words.len(), scales.len()), sizes, "values, words, scales: expected whole rows");
    let row = |((values, words), scales): ((&[f32], &mut [u32]), &mut [u32])| row(values, format, words, scales);
    // One sum per row: their total does not depend on the threads.
    #[cfg(not(target_family = "wasm"))]
    let errors: Vec<f64> = {
        use rayon::prelude::*;
        let words = words.par_chunks_mut(format.words(width));
        values.par_chunks(width).zip(words).zip(scales.par_chunks_mut(format.scale_words(width))).map(row).collect()
    };
    #[cfg(target_family = "wasm")]
    let errors: Vec<f64> = {
        let words = words.chunks_mut(format.words(width));
        values.chunks(width).zip(words).zip(scales.chunks_mut(format.scale_words(width))).map(row).collect()
    };
    errors.iter().sum()
}

/// Returns the sum of squared errors.
fn row(values: &[f32], format: Format, words: &mut [u32], scales: &mut [u32]) -> f64 {
    let (group, levels) = (format.group as usize, Levels::of(format));
    // Of 4-bit codes, the low halves of the bytes come first.
    let place = |i: usize| if format.bits == 8 { 8 * i } else { i % 4 * 8 + i / 4 * 4 };
    scales.fill(0);
    let mut total = 0.0;
    let groups = values.chunks_exact(group).zip(words.chunks_exact_mut(format.words(group)));
    for (index, (values, words)) in groups.enumerate() {
        let (line, error) = levels.search(values.as_chunks().0, format.minimum);
        total += f64::from(error);
        let [scale, minimum] = [line.scale, line.minimum].map(|value| u32::from(f16::from_f32(value).to_bits()));
        match format.minimum {
            true => scales[index] = scale | minimum << 16,
            false => scales[index / 2] |= scale << (16 * (index % 2)),
        }
        let code = |value: f32| (levels.nearest(line, value) + format.zero() as f32) as u32;
        for (word, values) in words.iter_mut().zip(values.chunks_exact(32 / format.bits as usize)) {
            *word = values.iter().enumerate().fold(0, |word, (i, value)| word | code(*value) << place(i));
        }
    }
    total
}

/// The values of a group's levels: `scale level + minimum`, where a level is a code minus its zero.
#[derive(Clone, Copy)]
struct Line {
    /// Exact in f16.
    scale: f32,
    /// Exact in f16; 0 in a format without a minimum.
    minimum: f32,
    /// 1 / scale; 0 for scale 0, so that every level is 0.
    inverse: f32,
}

impl Line {
    const ZERO: Self = Self { scale: 0.0, minimum: 0.0, inverse: 0.0 };

    /// Rounds to f16: to a scale that is neither infinite nor zero.
    fn new(scale: f32, minimum: f32) -> Self {
        let [tiny, most] = [f16::MIN_POSITIVE_SUBNORMAL, f16::MAX].map(f16::to_f32);
        let [scale, minimum] = [scale.abs().clamp(tiny, most).copysign(scale), minimum.clamp(-most, most)]
            .map(|value| f16::from_f32(value).to_f32());
        Self { scale, minimum, inverse: 1.0 / scale }
    }
}

/// The smallest and the largest level of a format.
#[derive(Clone, Copy)]
struct Levels {
    low: f32,
    high: f32,
}

impl Levels {
    fn of(format: Format) -> Self {
        let lowest = if format.bits == 8 && !format.minimum { 1.0 } else { 0.0 };
        let zero = format.zero() as f32;
        Self { low: lowest - zero, high: ((1 << format.bits) - 1) as f32 - zero }
    }

    /// The level with the nearest value.
    #[inline(always)]
    fn nearest(self, line: Line, value: f32) -> f32 {
        (((value - line.minimum) * line.inverse).clamp(self.low, self.high) + ROUND) - ROUND
    }

    /// The sum of squared errors.
    fn error(self, group: &[[f32; LANES]], line: Line) -> f32 {
        let mut sums = [0.0; LANES];
        for values in group {
            for (sum, &value) in sums.iter_mut().zip(values) {
                let error = value - (line.scale * self.nearest(line, value) + line.minimum);
                *sum += error * error;
            }
        }
        sums.iter().sum()
    }

    /// The scale and the minimum with the least squared error for the levels that `line` gives; not finite if all levels
    /// are equal.
    fn fit(self, group: &[[f32; LANES]], line: Line, minimum: bool) -> Line {
        // Sums of levels x, of x^2, and of value times 1 and x.
        let mut sums = [[0.0; LANES]; 4];
        for values in group {
            for (i, &value) in values.iter().enumerate() {
                let x = self.nearest(line, value);
                sums[0][i] += x;
                sums[1][i] += x * x;
                sums[2][i] += value;
                sums[3][i] += value * x;
            }
        }
        let [x, xx, v, vx] = sums.map(|lanes| lanes.iter().sum::<f32>());
        if !minimum {
            return Line::new(vx / xx, 0.0);
        }
        let n = group.len() as f32 * LANES as f32;
        let scale = (n * vx - x * v) / (n * xx - x * x);
        Line::new(scale, (v - scale * x) / n)
    }

    /// The best of some candidates: first those in which no value is clamped, then others. Then it is fitted. Returns it
    /// and its squared error.
    fn search(self, group: &[[f32; LANES]], minimum: bool) -> (Line, f32) {
        let [min, max] = range(group);
        let largest = max.max(-min);
        if largest == 0.0 {
            return (Line::ZERO, 0.0);
        }
        // 4 bits have one more level below zero than above: it is for the value with the largest magnitude.
        let signed = if -min < largest && self.high < -self.low { -largest } else { largest };
        let exact = match minimum {
            true => [Line::new((max - min) / self.high, min); 2],
            false => [Line::new(largest / self.high, 0.0), Line::new(signed / -self.low, 0.0)],
        };
        // With 4 bits, clamping the largest values pays. With 8 bits, a larger scale sometimes suits more values.
        let (first, step) = if self.high > 100.0 { (-7, 1.0) } else { (-3, 0.3) };
        let others = (first..first + CANDIDATES).map(|i| match minimum {
            true => {
                let scale = (max - min) / (self.high + step * i as f32);
                // The middle of the levels is the middle of the values.
                Line::new(scale, (min + max - self.high * scale) / 2.0)
            }
            false => Line::new(signed / (step * i as f32 - self.low), 0.0),
        });
        let better = |best: (Line, f32), line| {
            let error = self.error(group, line);
            if error < best.1 { (line, error) } else { best }
        };
        let [first, second] = exact;
        let best = once(second).chain(others).fold((first, self.error(group, first)), better);
        (0..FITS).fold(best, |best, _| better(best, self.fit(group, best.0, minimum)))
    }
}

/// The smallest and the largest value.
fn range(group: &[[f32; LANES]]) -> [f32; 2] {
    let [mut low, mut high] = [group[0]; 2];
    for values in group {
        low = from_fn(|i| low[i].min(values[i]));
        high = from_fn(|i| high[i].max(values[i]));
    }
    [low.into_iter().fold(low[0], f32::min), high.into_iter().fold(high[0], f32::max)]
}

#[cfg(test)]
mod tests {
    use fovea_shaders::dequantise;

    use super::*;

    const FORMATS: [Format; 7] = [
        Format::Q8,
        Format::Q4,
        Format { minimum: true, ..Format::Q8 },
        Format { minimum: true, ..Format::Q4 },
        Format { group: 16, ..Format::Q8 },
        Format { group: 64, ..Format::Q4 },
        Format { group: 128, minimum: true, ..Format::Q4 },
    ];

    fn bits(value: f32) -> u32 {
        u32::from(f16::from_f32(value).to_bits())
    }

    fn quantised(values: &[f32], width: usize, format: Format) -> (Vec<u32>, Vec<u32>) {
        let rows = values.len() / width;
        let [mut words, mut scales] =
            [format.words(width), format.scale_words(width)].map(|n| vec![u32::MAX; rows * n]);
        quantise(values, width, format, &mut words, &mut scales);
        (words, scales)
    }

    /// Numbers from 0 to 1, a fixed sequence for each seed.
    fn uniform(seed: u64) -> impl FnMut() -> f64 {
        let mut state = seed;
        move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 11) as f64 + 0.5) / (1u64 << 53) as f64
        }
    }

    /// Normal values with the size of weights (Box and Muller's method).
    fn gaussian(len: usize, seed: u64) -> Vec<f32> {
        let mut next = uniform(seed);
        (0..len).map(|_| (0.02 * (-2.0 * next().ln()).sqrt() * (std::f64::consts::TAU * next()).cos()) as f32).collect()
    }

    fn squared_error(values: &[f32], of: &[f64]) -> f64 {
        values.iter().zip(of).map(|(value, of)| (f64::from(*value) - of).powi(2)).sum()
    }

    #[test]
    fn groups_equal_a_calculation_by_hand() {
        let group = |first: &[f32], rest: f32| {
            let mut values = vec![rest; 32];
            values[..first.len()].copy_from_slice(first);
            values
        };
        // Scale 63.5 / 127; codes 255, 127 and 128.
        let (words, scales) = quantised(&group(&[63.5, -0.5], 0.0), 32, Format::Q8);
        assert_eq!((words[0], words[1], scales.as_slice()), (0x8080_7fff, 0x8080_8080, [bits(0.5)].as_slice()));
        // The largest magnitude has code 0. Elements 0, 1 and 4 have codes 0, 15 and 9.
        for sign in [1.0, -1.0] {
            let values = group(&[-4.0 * sign, 3.5 * sign, 0.0, 0.0, 0.5 * sign], 0.0);
            let (words, scales) = quantised(&values, 32, Format::Q4);
            assert_eq!((words[0], words[1], scales[0]), (0x8888_8f90, 0x8888_8888, bits(0.5 * sign)), "sign {sign}");
        }
        // Scale (2.75 + 1) / 15; codes 0, 15 and 4.
        let format = Format { minimum: true, ..Format::Q4 };
        let (words, scales) = quantised(&group(&[-1.0, 2.75], 0.0), 32, format);
        assert_eq!((words[0], words[1], scales[0]), (0x4444_4f40, 0x4444_4444, bits(0.25) | bits(-1.0) << 16));
        // The unused last half is zero.
        let (_, scales) = quantised(&[vec![127.0; 64], vec![-127.0; 32]].concat(), 96, Format::Q8);
        assert_eq!(scales, [bits(1.0) | bits(1.0) << 16, bits(1.0)]);
    }

    #[test]
    fn quantised_values_come_back_exactly() {
        for format in FORMATS {
            let (mut next, width) = (uniform(11), 256);
            let (words, scales) = quantised(&gaussian(16 * width, 5), width, format);
            // Random codes; those of each group begin with the smallest and the largest code.
            let lowest = u32::from(format.bits == 8 && !format.minimum);
            let per_word = 32 / format.bits as usize;
            let words: Vec<u32> = (0..words.len())
                .map(|word| {
                    let codes = 1u32 << format.bits;
                    let starts = (word * per_word).is_multiple_of(format.group as usize);
                    let mut code = |i| match i {
                        0 if starts => lowest,
                        1 if starts => codes - 1,
                        _ => lowest + (next() * f64::from(codes - lowest)) as u32,
                    };
                    (0..per_word as u32).fold(0, |word, i| word | code(i) << (format.bits * i))
                })
                .collect();
            let values: Vec<f32> = dequantise(&words, &scales, width, format).iter().map(|v| *v as f32).collect();
            let again = quantised(&values, width, format);
            assert!(again == (words, scales), "{format}: expected the same codes and scales");
        }
    }

    #[test]
    fn extreme_values_have_finite_scales() {
        let tiny = f16::MIN_POSITIVE_SUBNORMAL.to_f32();
        for format in FORMATS {
            let levels = Levels::of(format);
            let most = f16::MAX.to_f32() * if format.minimum { 1.0 } else { levels.high };
            // Values that repeat, and the largest allowed error of each.
            for (pattern, bound) in [
                ([0.0, 0.0], 0.0),
                ([-0.0, 0.0], 0.0),
                ([most, -most], most / levels.high),
                ([f32::MAX, f32::MIN], f32::MAX),
                ([f32::MAX, f32::MAX], f32::MAX),
                ([1e30, 0.0], 1e30),
                ([3.0 * tiny, 0.0], 0.5 * tiny),
                ([-100.3 * tiny, 1.7 * tiny], 100.3 * tiny / levels.high),
                ([f32::MIN_POSITIVE, -1e-40], f32::MIN_POSITIVE),
                ([0.1, 0.1], 0.1 / 1024.0),
            ] {
                let values = pattern.repeat(64);
                let (words, scales) = quantised(&values, 128, format);
                let got = dequantise(&words, &scales, 128, format);
                for (got, expected) in got.iter().zip(&values) {
                    let error = (got - f64::from(*expected)).abs();
                    assert!(error <= f64::from(bound), "{format}: {pattern:?}: expected {expected}, got {got}");
                }
                if bound == 0.0 {
                    assert!(scales.iter().all(|scale| *scale == 0), "{format}: expected scale 0, got {scales:?}");
                }
            }
        }
    }

    #[test]
    fn gaussian_errors_are_small() {
        let (values, width) = (gaussian(1 << 18, 7), 1024);
        let power: f64 = values.iter().map(|value| f64::from(*value).powi(2)).sum();
        for (format, bound) in [
            (Format::Q8, 2.5e-5),
            (Format::Q4, 6.8e-3),
            (Format { minimum: true, ..Format::Q8 }, 1.9e-5),
            (Format { minimum: true, ..Format::Q4 }, 5.5e-3),
            (Format { group: 64, ..Format::Q4 }, 8.3e-3),
            (Format { group: 128, minimum: true, ..Format::Q4 }, 9.0e-3),
        ] {
            let (words, scales) = quantised(&values, width, format);
            let got = squared_error(&values, &dequantise(&words, &scales, width, format)) / power;
            assert!(got <= bound, "{format}: expected an NMSE of at most {bound:e}, got {got:e}");
            // Rows are independent.
            let (words_of_row, scales_of_row) = quantised(&values[width..2 * width], width, format);
            assert_eq!(words_of_row, words[format.words(width)..2 * format.words(width)], "{format}");
            assert_eq!(scales_of_row, scales[format.scale_words(width)..2 * format.scale_words(width)], "{format}");
        }
    }

    #[test]
    fn errors_are_near_those_of_every_scale() {
        let values = gaussian(200 * 32, 3);
        for (format, each, all) in [(Format::Q8, 2.2, 1.25), (Format::Q4, 1.15, 1.02)] {
            let levels = Levels::of(format);
            let (words, scales) = quantised(&values, 32, format);
            let quantised = dequantise(&words, &scales, 32, format);
            let mut sums = [0.0; 2];
            for (values, quantised) in values.chunks(32).zip(quantised.chunks(32)) {
                let largest = values.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
                let error = |scale: f64| {
                    let level = |value: f64| (value / scale).round().clamp(levels.low.into(), levels.high.into());
                    values.iter().map(|value| f64::from(*value)).map(|v| (v - scale * level(v)).powi(2)).sum::<f64>()
                };
                // Every f16 scale from half of the one for which no value is clamped, to twice as much.
                let [from, to] = [0.5, 2.0].map(|factor| f16::from_f32(factor * largest / levels.high).to_bits());
                let scales = (from..=to).map(|bits| f64::from(f16::from_bits(bits)));
                let best = scales.map(|scale| error(scale).min(error(-scale))).fold(f64::INFINITY, f64::min);
                let got = squared_error(values, quantised);
                assert!(got <= each * best, "{format}: expected {each} times {best:e} at most, got {got:e}");
                sums = [sums[0] + got, sums[1] + best];
            }
            assert!(
                sums[0] <= all * sums[1],
                "{format}: expected {all} times {:e} at most, got {:e}",
                sums[1],
                sums[0]
            );
        }
    }
}
