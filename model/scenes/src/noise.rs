//! Input: the drawn picture. Output: the picture with noise like a camera's, as RGB.

use std::sync::LazyLock;

use image::RgbImage;
use tiny_skia::Pixmap;

use crate::random::{Purpose, Random};

/// Number of start positions in the noise table.
const STARTS: usize = 1 << 15;
/// Greatest number of values that take their noise from one start position.
const ROW: usize = 3 * 576;
/// Standard deviation of the values in the table.
const SIGMA: f32 = 32.0;

/// Nearly Gaussian noise with standard deviation [`SIGMA`]. Each row of a picture uses a part of the table from a random start,
/// which is much cheaper than new noise and looks the same.
static TABLE: LazyLock<Vec<i16>> = LazyLock::new(|| {
    let mut random = Random::new(0, Purpose::Noise);
    (0..STARTS + ROW)
        .map(|_| {
            // the sum of eight bytes: mean 1020, standard deviation 209
            let sum: i32 = random.bits().to_le_bytes().iter().map(|&byte| i32::from(byte)).sum();
            ((sum - 1020) as f32 * (SIGMA / 209.0)) as i16
        })
        .collect()
});

/// Adds noise, and drops the alpha channel, which is opaque everywhere.
pub(crate) fn finish(pixmap: &Pixmap, random: &mut Random) -> RgbImage {
    let sigma = random.within(1.5, 8.0);
    let strength = (sigma * 256.0 / SIGMA) as i32;
    let (width, height) = (pixmap.width(), pixmap.height());
    let mut picture = RgbImage::new(width, height);
    let row = width as usize;
    for (to, from) in picture.chunks_exact_mut(row * 3).zip(pixmap.data().chunks_exact(row * 4)) {
        for (to, from) in to.chunks_mut(ROW).zip(from.chunks(ROW / 3 * 4)) {
            let start = random.below(STARTS);
            let noise = &TABLE[start..start + ROW];
            for ((to, from), noise) in to.chunks_exact_mut(3).zip(from.chunks_exact(4)).zip(noise.chunks_exact(3)) {
                for channel in 0..3 {
                    let value = i32::from(from[channel]) + ((i32::from(noise[channel]) * strength) >> 8);
                    to[channel] = value.clamp(0, 255) as u8;
                }
            }
        }
    }
    picture
}
