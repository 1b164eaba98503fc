//! The pictures of the benchmarks: waves and noise, so that no two regions are equal.

use fovea_model::{Error, Picture};

/// 672x672 pixels: four tiles and the thumbnail, LLaVA-NeXT's largest canvas.
pub fn picture() -> Result<Picture, Error> {
    waves(SIDE, SIDE)
}

/// A strip of 672x84 pixels: few visual tokens.
pub fn strip() -> Result<Picture, Error> {
    waves(SIDE, SIDE / 8)
}

const SIDE: usize = 672;

fn waves(width: usize, height: usize) -> Result<Picture, Error> {
    let mut noise = 1u32;
    let mut rgb = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            for channel in 0..3 {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let wave = ((x * (channel + 2)) as f32 / 40.0).sin() * (y as f32 / 55.0).cos();
                rgb.push((128.0 + 90.0 * wave + (noise >> 27) as f32) as u8);
            }
        }
    }
    Picture::from_rgb(width, height, rgb)
}
