//! Enters: a picture and the image settings of a checkpoint. Leaves: the vision tower's input, thumbnail first, then the
//! tiles in raster order, normalised.
//!
//! LLaVA-NeXT's "anyres", as Hugging Face's `LlavaNextImageProcessor` computes it
//! (`models/llava_next/image_processing_llava_next.py`, torchvision backend): choose a canvas, resize the picture into it
//! keeping the aspect, centre it on black, cut the canvas into tiles; the thumbnail is the whole picture squashed to one
//! tile.

use serde_json::{Map, Value};

use crate::error::Error;
use crate::picture::{MAX_PIXELS, MAX_SIDE, Picture};
use crate::resize::bicubic;

/// Mean of CLIP's training pictures, per channel, of 1: the class default.
const CLIP_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
/// Standard deviation of CLIP's training pictures, per channel, of 1: the class default.
const CLIP_STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];
/// Pillow's number of the bicubic kernel, the class default of `resample`.
const BICUBIC: i64 = 3;
/// The class default of `size` and `crop_size`, in pixels.
const DEFAULT_SIDE: u64 = 224;

/// How a checkpoint wants its pictures cut and normalised.
///
/// Only what changes the numbers is kept. `do_center_crop`, `do_pad`, `do_resize` and `do_convert_rgb` do not: the crop
/// and the second resize find tiles that already have their size, the padding fills up batches of several pictures, and
/// a [`Picture`] always is RGB.
#[derive(Debug, Clone, PartialEq)]
pub struct TileConfig {
    /// Side of a tile, S, in pixels.
    pub side: usize,
    /// The canvases to choose from, (height, width) in pixels, multiples of `side`.
    pub pinpoints: Vec<(usize, usize)>,
    /// Mean per channel, subtracted after rescaling.
    pub mean: [f32; 3],
    /// Standard deviation per channel, divided by.
    pub std: [f32; 3],
    /// What a byte is multiplied with before the mean is subtracted, usually 1/255.
    pub rescale: f64,
}

/// The vision tower's input for one picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Tiles {
    /// Normalised pixels (count, 3, side, side), the thumbnail first, then the tiles in raster order.
    pub pixel_values: Vec<f32>,
    /// Number of tiles with the thumbnail, `rows * cols + 1`.
    pub count: usize,
    /// Rows of tiles.
    pub rows: usize,
    /// Columns of tiles.
    pub cols: usize,
    /// Side of a tile, in pixels.
    pub side: usize,
}

/// A config error: the key, and one sentence on what is wrong with it.
fn wrong(key: &str, why: String) -> Error {
    Error::Config { key: key.to_owned(), why }
}

/// The setting `key`, `None` where it is missing or null.
fn setting<'a>(settings: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    settings.get(key).filter(|value| !value.is_null())
}

/// Three numbers, one per channel, or the default where the settings are silent.
fn channels(settings: &Map<String, Value>, key: &str, default: [f32; 3]) -> Result<[f32; 3], Error> {
    let Some(value) = setting(settings, key) else { return Ok(default) };
    let numbers: Option<Vec<f64>> = value.as_array().and_then(|list| list.iter().map(Value::as_f64).collect());
    match numbers.as_deref() {
        Some(&[red, green, blue]) => Ok([red as f32, green as f32, blue as f32]),
        _ => Err(wrong(key, format!("expected three numbers, one per channel, got {value}; mend the settings"))),
    }
}

/// Refuses a step that is switched off, because the vision tower was trained with it.
fn required(settings: &Map<String, Value>, key: &str) -> Result<(), Error> {
    match setting(settings, key) {
        None | Some(Value::Bool(true)) => Ok(()),
        Some(other) => Err(wrong(key, format!("expected true, got {other}; only normalised pictures are supported"))),
    }
}

/// Checks that `size` or `crop_size` (a number, a shortest edge, or a height and width) is the tile's side.
fn same_side(settings: &Map<String, Value>, key: &str, side: usize) -> Result<(), Error> {
    let value = setting(settings, key);
    let sides = match value {
        None => vec![Some(DEFAULT_SIDE)],
        Some(Value::Object(size)) => match setting(size, "shortest_edge") {
            // a longest edge beside it would let the thumbnail leave the square
            Some(edge) if setting(size, "longest_edge").is_none() => vec![edge.as_u64()],
            _ => ["height", "width"].map(|name| setting(size, name).and_then(Value::as_u64)).to_vec(),
        },
        Some(number) => vec![number.as_u64()],
    };
    if sides.iter().all(|&got| got == Some(side as u64)) {
        return Ok(());
    }
    let got = value.map_or_else(|| format!("nothing, which stands for {DEFAULT_SIDE}"), Value::to_string);
    Err(wrong(key, format!("expected the vision tower's {side} pixels, got {got}; mend the settings")))
}

impl TileConfig {
    /// Reads the settings of an image processor (the object in `preprocessor_config.json`, or `image_processor` in
    /// `processor_config.json`), with the class's defaults where it is silent.
    ///
    /// `pinpoints` (height, width) and `side` are those of the model's config; the settings must agree with them.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key whose value is unsupported, absurd, or at odds with the model's config.
    pub fn from_json(preprocessor: &Value, pinpoints: Vec<(usize, usize)>, side: usize) -> Result<Self, Error> {
        let settings = preprocessor.as_object().ok_or_else(|| {
            wrong("image_processor", "expected an object of settings, got something else; mend the settings".to_owned())
        })?;
        for key in ["do_rescale", "do_normalize"] {
            required(settings, key)?;
        }
        for key in ["size", "crop_size"] {
            same_side(settings, key, side)?;
        }
        if let Some(kernel) = settings.get("resample").filter(|kernel| kernel.as_i64() != Some(BICUBIC)) {
            let why = format!("expected {BICUBIC} (bicubic), got {kernel}; no other kernel is supported");
            return Err(wrong("resample", why));
        }
        if let Some(listed) = setting(settings, "image_grid_pinpoints") {
            let own: Vec<[usize; 2]> = pinpoints.iter().map(|&(height, width)| [height, width]).collect();
            if *listed != serde_json::json!(own) {
                let why = format!("expected the model's {own:?}, got {listed}; mend whichever is wrong");
                return Err(wrong("image_grid_pinpoints", why));
            }
        }
        let rescale = match setting(settings, "rescale_factor") {
            None => 1.0 / 255.0,
            Some(value) => value.as_f64().ok_or_else(|| {
                wrong("rescale_factor", format!("expected a number, got {value}; the usual value is 1/255"))
            })?,
        };
        let config = Self {
            side,
            pinpoints,
            mean: channels(settings, "image_mean", CLIP_MEAN)?,
            std: channels(settings, "image_std", CLIP_STD)?,
            rescale,
        };
        config.check()?;
        Ok(config)
    }

    /// Checks what arithmetic needs: finite numbers, no division by zero, canvases that are whole tiles.
    fn check(&self) -> Result<(), Error> {
        let side = self.side;
        if !(1..=MAX_SIDE).contains(&side) {
            return Err(wrong(
                "image_size",
                format!("expected 1 to {MAX_SIDE} pixels a tile, got {side}; mend the config"),
            ));
        }
        if self.pinpoints.is_empty() {
            let why = "expected at least one canvas, got an empty list; mend the config".to_owned();
            return Err(wrong("image_grid_pinpoints", why));
        }
        for &(height, width) in &self.pinpoints {
            let whole = |length: usize| (1..=MAX_SIDE).contains(&length) && length.is_multiple_of(side);
            if !whole(height) || !whole(width) || height as u64 * width as u64 > MAX_PIXELS {
                let why = format!(
                    "expected canvases of whole tiles of {side} pixels, at most {MAX_SIDE} a side and {MAX_PIXELS} pixels, \
                     got {height}x{width}; mend the config"
                );
                return Err(wrong("image_grid_pinpoints", why));
            }
        }
        if !(self.rescale.is_finite() && self.rescale > 0.0 && ((1.0 / self.rescale) as f32).is_finite()) {
            let why = format!("expected a number above 0, got {}; the usual value is 1/255", self.rescale);
            return Err(wrong("rescale_factor", why));
        }
        let (mean, std) = self.in_bytes();
        if let Some(got) = mean.iter().find(|mean| !mean.is_finite()) {
            return Err(wrong("image_mean", format!("expected finite numbers, got {got} in bytes; mend the settings")));
        }
        if let Some(got) = std.iter().find(|std| !(std.is_normal() && **std > 0.0)) {
            return Err(wrong("image_std", format!("expected numbers above 0, got {got} in bytes; mend the settings")));
        }
        Ok(())
    }

    /// Mean and standard deviation in units of a byte, `m * f32(1/rescale)`, in f32.
    fn in_bytes(&self) -> ([f32; 3], [f32; 3]) {
        let bytes = (1.0 / self.rescale) as f32;
        (self.mean.map(|mean| mean * bytes), self.std.map(|std| std * bytes))
    }

    /// What each byte becomes in each channel, (3, 256).
    ///
    /// `y = (f32(x) - m * f32(1/rescale)) / (s * f32(1/rescale))`, every operation rounded to f32: the fused form that
    /// the reference uses, not `(x * rescale - m) / s`, which differs in the last bit. A byte has 256 values, so a table
    /// is exact.
    fn tables(&self) -> [[f32; 256]; 3] {
        let (mean, std) = self.in_bytes();
        std::array::from_fn(|c| std::array::from_fn(|byte| (byte as f32 - mean[c]) / std[c]))
    }
}

impl TileConfig {
    /// A picture's pixels as the vision tower takes them, (3, height, width).
    #[cfg(feature = "train")]
    pub(crate) fn normalised(&self, picture: &Picture) -> Vec<f32> {
        let plane = |(channel, table): (usize, &[f32; 256])| -> Vec<f32> {
            picture.rgb().iter().skip(channel).step_by(3).map(|&byte| table[usize::from(byte)]).collect()
        };
        self.tables().iter().enumerate().flat_map(plane).collect()
    }
}

/// The canvas (height, width) for a picture: the one that keeps most of its pixels, then the one that wastes least, then
/// the first.
///
/// `kept = min(int(w*s) * int(h*s), h*w)` with `s = min(W/w, H/h)` in f64; `waste = H*W - kept`. (0, 0) where the list
/// is empty.
#[must_use]
pub fn best_resolution(height: usize, width: usize, pinpoints: &[(usize, usize)]) -> (usize, usize) {
    let area = (height as u64).saturating_mul(width as u64);
    let mut best: Option<(u64, u64, (usize, usize))> = None;
    for &(canvas_height, canvas_width) in pinpoints {
        let scale = (canvas_width as f64 / width as f64).min(canvas_height as f64 / height as f64);
        let (w, h) = ((width as f64 * scale) as u64, (height as f64 * scale) as u64);
        let kept = w.saturating_mul(h).min(area);
        let waste = (canvas_height as u64).saturating_mul(canvas_width as u64).saturating_sub(kept);
        if best.is_none_or(|(most, least, _)| kept > most || (kept == most && waste < least)) {
            best = Some((kept, waste, (canvas_height, canvas_width)));
        }
    }
    best.map_or((0, 0), |(_, _, canvas)| canvas)
}

/// The size (height, width) of a picture fitted into a canvas: the tight side fills it, the other is `ceil(length * s)`,
/// at most the canvas.
fn fitted(height: usize, width: usize, canvas: (usize, usize)) -> (usize, usize) {
    let (scale_w, scale_h) = (canvas.1 as f64 / width as f64, canvas.0 as f64 / height as f64);
    if scale_w < scale_h {
        (((height as f64 * scale_w).ceil() as usize).min(canvas.0), canvas.1)
    } else {
        (canvas.0, ((width as f64 * scale_h).ceil() as usize).min(canvas.1))
    }
}

/// The picture on a black canvas (height, width), centred; an odd pixel of padding goes right or below. RGB8 rows.
fn letterboxed(picture: &Picture, canvas: (usize, usize)) -> Result<Vec<u8>, Error> {
    let (height, width) = fitted(picture.height(), picture.width(), canvas);
    let inner = bicubic(picture, width, height)?;
    let (top, left) = ((canvas.0 - height) / 2, (canvas.1 - width) / 2);
    let mut rgb = vec![0; canvas.0 * canvas.1 * 3];
    for (row, source) in rgb.chunks_exact_mut(canvas.1 * 3).skip(top).zip(inner.rgb().chunks_exact(width * 3)) {
        row[left * 3..][..width * 3].copy_from_slice(source);
    }
    Ok(rgb)
}

/// Cuts a picture into the vision tower's input.
///
/// # Errors
/// [`Error::Config`] where the settings make no sense; [`Error::Picture`] where the picture cannot be resized.
pub fn tiles(picture: &Picture, config: &TileConfig) -> Result<Tiles, Error> {
    config.check()?;
    let side = config.side;
    let canvas = best_resolution(picture.height(), picture.width(), &config.pinpoints);
    let (rows, cols) = (canvas.0 / side, canvas.1 / side);
    let count = rows * cols + 1;
    let tables = config.tables();
    let mut pixel_values = Vec::with_capacity(count * 3 * side * side);
    // a square of RGB8 pixels, whose first byte is at `from`, in rows of `width` pixels -> three normalised planes
    let mut push = |rgb: &[u8], from: usize, width: usize| {
        for (channel, table) in tables.iter().enumerate() {
            for row in rgb[from..].chunks(width * 3).take(side) {
                pixel_values
                    .extend(row[..side * 3].as_chunks::<3>().0.iter().map(|pixel| table[pixel[channel] as usize]));
            }
        }
    };
    push(bicubic(picture, side, side)?.rgb(), 0, side);
    let rgb = letterboxed(picture, canvas)?;
    for row in 0..rows {
        for col in 0..cols {
            push(&rgb, (row * canvas.1 + col) * side * 3, canvas.1);
        }
    }
    Ok(Tiles { pixel_values, count, rows, cols, side })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The canvases of the published checkpoint, (height, width).
    const PINPOINTS: [(usize, usize); 5] = [(336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)];

    fn key(settings: &Value, pinpoints: &[(usize, usize)], side: usize) -> String {
        match TileConfig::from_json(settings, pinpoints.to_vec(), side) {
            Err(Error::Config { key, .. }) => key,
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn the_canvas_keeps_most_then_wastes_least_then_comes_first() {
        assert_eq!(best_resolution(672, 672, &PINPOINTS), (672, 672));
        assert_eq!(best_resolution(336, 336, &PINPOINTS), (336, 672)); // all keep everything: least waste, then first
        assert_eq!(best_resolution(1080, 1920, &PINPOINTS), (672, 672)); // 672x378 kept, more than 597x336
        assert_eq!(best_resolution(10000, 1, &PINPOINTS), (336, 672));
        assert_eq!(best_resolution(5, 5, &[]), (0, 0));
    }

    #[test]
    fn fitting_fills_the_tight_side() {
        assert_eq!(fitted(205, 328, (336, 672)), (336, 538));
        assert_eq!(fitted(1, 10000, (336, 672)), (1, 672));
        assert_eq!(fitted(672, 672, (672, 672)), (672, 672));
    }

    #[test]
    fn a_small_picture_is_centred_on_black() -> Result<(), Error> {
        let config = TileConfig {
            side: 2,
            pinpoints: vec![(2, 4)],
            mean: [0.0, 0.5, 0.0],
            std: [1.0, 1.0, 0.5],
            rescale: 1.0 / 255.0,
        };
        let out = tiles(&Picture::from_rgb(2, 2, [255, 51, 102].repeat(4))?, &config)?;
        assert_eq!((out.count, out.rows, out.cols, out.side), (3, 1, 2, 2));
        let plane = |i: usize| &out.pixel_values[i * 4..][..4];
        let (green, dark) = ((51.0 - 127.5) / 255.0, -0.5);
        assert_eq!(out.pixel_values.len(), 3 * 3 * 4);
        assert_eq!(plane(0), [1.0; 4]); // thumbnail, red
        assert_eq!(plane(1), [green; 4]);
        assert_eq!(plane(2), [0.8; 4]);
        assert_eq!(plane(3), [0.0, 1.0, 0.0, 1.0]); // left tile: black, then the picture's left column
        assert_eq!(plane(4), [dark, green, dark, green]);
        assert_eq!(plane(6), [1.0, 0.0, 1.0, 0.0]); // right tile
        Ok(())
    }

    #[test]
    fn silence_means_the_class_defaults() -> Result<(), Error> {
        let settings = json!({"size": {"shortest_edge": 336}, "crop_size": 336, "image_mean": null});
        let config = TileConfig::from_json(&settings, PINPOINTS.to_vec(), 336)?;
        assert_eq!((config.mean, config.std, config.rescale), (CLIP_MEAN, CLIP_STD, 1.0 / 255.0));
        assert!(TileConfig::from_json(&json!({}), vec![(224, 448)], 224).is_ok());
        Ok(())
    }

    #[test]
    fn absurd_settings_name_their_key() {
        let with = |name: &str, value: Value| {
            let mut settings =
                json!({"size": {"height": 336, "width": 336}, "crop_size": {"height": 336, "width": 336}});
            settings[name] = value;
            key(&settings, &PINPOINTS, 336)
        };
        for (name, value) in [
            ("do_rescale", json!(false)),
            ("do_normalize", json!("yes")),
            ("resample", json!(2)),
            ("resample", json!(null)),
            ("size", json!({"shortest_edge": 224})),
            ("size", json!({"shortest_edge": 336, "longest_edge": 700})),
            ("crop_size", json!({"height": 336})),
            ("crop_size", json!(null)),
            ("rescale_factor", json!(0)),
            ("rescale_factor", json!(-1.0)),
            ("rescale_factor", json!("1/255")),
            ("image_mean", json!([0.5, 0.5])),
            ("image_mean", json!([1e300, 0.5, 0.5])),
            ("image_std", json!([0.0, 1.0, 1.0])),
            ("image_std", json!([1.0, -1.0, 1.0])),
            ("image_grid_pinpoints", json!([[336, 672]])),
        ] {
            assert_eq!(with(name, value.clone()), name, "{value}");
        }
        let plain = json!({"size": 336, "crop_size": 336});
        for pinpoints in [vec![], vec![(0, 336)], vec![(336, 335)], vec![(336, 336 * 49)], vec![(usize::MAX, 336)]] {
            assert_eq!(key(&plain, &pinpoints, 336), "image_grid_pinpoints");
        }
        assert_eq!(key(&json!([]), &PINPOINTS, 336), "image_processor");
        assert_eq!(key(&json!({"size": 0, "crop_size": 0}), &PINPOINTS, 0), "image_size");
    }
}
