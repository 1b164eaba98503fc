//! Input: `preprocessor_config.json`, or `image_processor` in `processor_config.json`. Output: how pictures are cut and
//! normalised. Source: `LlavaNextImageProcessor` in Hugging Face's transformers.

use serde_json::Value;

use super::keys::{Keys, LONGEST_SIDE};
use crate::{error::Error, picture::MAX_PIXELS};

/// Mean of CLIP's training pictures per channel, 0 to 1: the class default.
const CLIP_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
/// Standard deviation of CLIP's training pictures per channel, 0 to 1: the class default.
const CLIP_STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];
/// Pillow's number of the bicubic kernel, the class default of `resample`.
const BICUBIC: i64 = 3;
/// The class default of `size` and `crop_size`, in pixels.
const DEFAULT_SIDE: u64 = 224;

/// How a checkpoint's pictures are cut and normalised.
///
/// `do_center_crop`, `do_pad`, `do_resize` and `do_convert_rgb` are ignored, because they do not change the result: the
/// tiles already have the size for the crop and the second resize, padding is for batches of several pictures, and a
/// [`crate::Picture`] is always RGB.
#[derive(Debug, Clone, PartialEq)]
pub struct TileConfig {
    /// Side of a tile, S, in pixels.
    pub side: usize,
    /// Allowed canvases, (height, width) in pixels, multiples of `side`.
    pub pinpoints: Vec<(usize, usize)>,
    /// Mean per channel, subtracted after rescaling.
    pub mean: [f32; 3],
    /// Standard deviation per channel: the divisor after the mean is subtracted.
    pub std: [f32; 3],
    /// Factor for a byte before the mean is subtracted, usually 1/255.
    pub rescale: f64,
}

impl TileConfig {
    /// Reads the settings of an image processor. Missing keys have the defaults of its class.
    ///
    /// `file` is the name of the object in messages. `pinpoints` (height, width) and `side` come from the model's config;
    /// the settings must agree with them.
    ///
    /// # Errors
    /// [`Error::Config`] with file and key, if a value is not supported, is out of range, or contradicts the model's config.
    pub fn from_json(file: &str, settings: &Value, pinpoints: Vec<(usize, usize)>, side: usize) -> Result<Self, Error> {
        let keys = Keys::new(file, settings)?;
        for key in ["do_rescale", "do_normalize"] {
            // The vision tower was trained with both steps.
            if !keys.flag(key, true)? {
                return Err(keys.wrong(key, "true (only normalised pictures are supported)", &Value::Bool(false)));
            }
        }
        for key in ["size", "crop_size"] {
            same_side(&keys, key, side)?;
        }
        if let Some(kernel) = settings.get("resample").filter(|kernel| kernel.as_i64() != Some(BICUBIC)) {
            return Err(keys.wrong("resample", &format!("{BICUBIC} (bicubic)"), kernel));
        }
        if let Some(listed) = keys.get("image_grid_pinpoints") {
            let own: Vec<[usize; 2]> = pinpoints.iter().map(|&(height, width)| [height, width]).collect();
            if *listed != serde_json::json!(own) {
                return Err(keys.wrong("image_grid_pinpoints", &format!("config.json's {own:?}"), listed));
            }
        }
        let number = |value: f64| serde_json::json!(value);
        let rescale = keys.number("rescale_factor", 1.0 / 255.0, f64::MIN, f64::MAX)?;
        if !(rescale > 0.0 && ((1.0 / rescale) as f32).is_finite()) {
            return Err(keys.wrong("rescale_factor", "a number above 0, usually 1/255", &number(rescale)));
        }
        let mean = channels(&keys, "image_mean", CLIP_MEAN)?;
        let std = channels(&keys, "image_std", CLIP_STD)?;
        let config = Self { side, pinpoints, mean, std, rescale };
        let (mean, std) = config.in_bytes();
        if let Some(&got) = mean.iter().find(|mean| !mean.is_finite()) {
            return Err(keys.wrong("image_mean", "numbers that are finite in bytes", &number(got.into())));
        }
        if let Some(&got) = std.iter().find(|std| !(std.is_normal() && **std > 0.0)) {
            return Err(keys.wrong("image_std", "numbers above 0", &number(got.into())));
        }
        config.check()?;
        Ok(config)
    }

    /// Checks that canvases are whole tiles, and limits the memory for them.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let side = self.side;
        let wrong = |key: &str, why: String| Error::Config { key: format!("config.json: {key}"), why };
        if !(1..=LONGEST_SIDE).contains(&side) {
            return Err(wrong("image_size", format!("expected 1 to {LONGEST_SIDE} pixels per tile, got {side}")));
        }
        if self.pinpoints.is_empty() {
            return Err(wrong("image_grid_pinpoints", "expected at least one canvas, got an empty list".to_owned()));
        }
        let whole = |length: usize| (1..=LONGEST_SIDE).contains(&length) && length.is_multiple_of(side);
        let fits = |&(height, width): &(usize, usize)| {
            whole(height) && whole(width) && height as u64 * width as u64 <= MAX_PIXELS
        };
        match self.pinpoints.iter().find(|canvas| !fits(canvas)) {
            None => Ok(()),
            Some((height, width)) => {
                let expected = format!(
                    "expected canvases of whole tiles of {side} pixels, at most {LONGEST_SIDE} per side and {MAX_PIXELS} in all"
                );
                Err(wrong("image_grid_pinpoints", format!("{expected}, got {height}x{width}")))
            }
        }
    }

    /// Mean and standard deviation in units of a byte, `m * f32(1/rescale)`, in f32.
    pub(crate) fn in_bytes(&self) -> ([f32; 3], [f32; 3]) {
        let bytes = (1.0 / self.rescale) as f32;
        (self.mean.map(|mean| mean * bytes), self.std.map(|std| std * bytes))
    }
}

/// Three numbers, one per channel.
fn channels(keys: &Keys, key: &str, default: [f32; 3]) -> Result<[f32; 3], Error> {
    let Some(value) = keys.get(key) else { return Ok(default) };
    let numbers: Option<Vec<f64>> = value.as_array().and_then(|list| list.iter().map(Value::as_f64).collect());
    match numbers.as_deref() {
        Some(&[red, green, blue]) => Ok([red as f32, green as f32, blue as f32]),
        _ => Err(keys.wrong(key, "three numbers, one per channel", value)),
    }
}

/// Checks that `size` or `crop_size` (a number, a shortest edge, or a height and width) is the tile's side.
fn same_side(keys: &Keys, key: &str, side: usize) -> Result<(), Error> {
    let value = keys.get(key);
    let part = |size: &Value, name: &str| size.get(name).filter(|v| !v.is_null()).map(Value::as_u64);
    let sides = match value {
        None => vec![Some(DEFAULT_SIDE)],
        Some(size @ Value::Object(_)) => match part(size, "shortest_edge") {
            // With a longest edge as well, the thumbnail would not be square.
            Some(edge) if part(size, "longest_edge").is_none() => vec![edge],
            _ => ["height", "width"].map(|name| part(size, name).flatten()).to_vec(),
        },
        Some(number) => vec![number.as_u64()],
    };
    if sides.iter().all(|&got| got == Some(side as u64)) {
        return Ok(());
    }
    let default = Value::from(format!("nothing, which means {DEFAULT_SIDE}"));
    Err(keys.wrong(key, &format!("the vision tower's {side} pixels"), value.unwrap_or(&default)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PINPOINTS: [(usize, usize); 5] = [(336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)];

    /// The key that an error names, without the file.
    fn key(settings: &Value, pinpoints: &[(usize, usize)], side: usize) -> String {
        match TileConfig::from_json("p.json", settings, pinpoints.to_vec(), side) {
            Err(Error::Config { key, .. }) => key.rsplit(": ").next().unwrap_or_default().to_owned(),
            other => panic!("expected a config error, got {other:?}"),
        }
    }

    #[test]
    fn missing_keys_have_the_class_defaults() -> Result<(), Error> {
        let settings = json!({"size": {"shortest_edge": 336}, "crop_size": 336, "image_mean": null});
        let config = TileConfig::from_json("p.json", &settings, PINPOINTS.to_vec(), 336)?;
        assert_eq!((config.mean, config.std, config.rescale), (CLIP_MEAN, CLIP_STD, 1.0 / 255.0));
        assert!(TileConfig::from_json("p.json", &json!({}), vec![(224, 448)], 224).is_ok());
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
        assert_eq!(key(&json!([]), &PINPOINTS, 336), "p.json");
        assert_eq!(key(&json!({"size": 0, "crop_size": 0}), &PINPOINTS, 0), "image_size");
    }
}
