//! The picture of the benchmarks: 672x672, waves and noise, so that no two regions are equal.

use fovea_model::{Error, Picture};

/// Side in pixels: four tiles and the thumbnail, LLaVA-NeXT's largest canvas.
pub const SIDE: usize = 672;

/// The picture.
pub fn picture() -> Result<Picture, Error> {
    let mut noise = 1u32;
    let mut rgb = Vec::with_capacity(SIDE * SIDE * 3);
    for y in 0..SIDE {
        for x in 0..SIDE {
            for channel in 0..3 {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let wave = ((x * (channel + 2)) as f32 / 40.0).sin() * (y as f32 / 55.0).cos();
                rgb.push((128.0 + 90.0 * wave + (noise >> 27) as f32) as u8);
            }
        }
    }
    Picture::from_rgb(SIDE, SIDE, rgb)
}
