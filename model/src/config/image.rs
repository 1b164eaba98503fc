//! Input: `preprocessor_config.json`, or `image_processor` in `processor_config.json`. Output: how pictures are cut and
//! normalised. Source: the image processors of Hugging Face's transformers
//! (`models/{llava,llava_next,llava_onevision,clip,siglip,idefics3,smolvlm}/image_processing_*.py`), torchvision
//! backend.

use serde_json::Value;

use super::{
    Config,
    family::{Layout, MOST_TILES},
    keys::{Keys, LONGEST_SIDE},
};
use crate::{error::Error, grid::Newline, picture::MAX_PIXELS, resize::Kernel, tiles::SPLIT_LIMIT};

/// Mean of CLIP's training pictures per channel, 0 to 1: the class default.
const CLIP_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
/// Standard deviation of CLIP's training pictures per channel, 0 to 1: the class default.
const CLIP_STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];
/// SigLIP's mean and standard deviation per channel: the class default.
const HALF: [f32; 3] = [0.5; 3];
/// Pillow's numbers of the kernels, values of `resample`.
const KERNELS: [(i64, Kernel); 2] = [(3, Kernel::Bicubic), (1, Kernel::Lanczos)];

/// The defaults of an image processor's class.
#[derive(Clone, Copy)]
struct Class {
    /// `size` in pixels: the side, or with Idefics3 the longest edge.
    size: usize,
    /// `size` where it is the shortest edge only, so that the picture keeps its aspect ratio.
    keeps_aspect: bool,
    /// `crop_size` in pixels. None: the class does not crop.
    crop: Option<usize>,
    /// Whether `do_pad` pads the picture to a square.
    pads: bool,
    mean: [f32; 3],
    std: [f32; 3],
    kernel: Kernel,
}

const CLIP: Class = Class {
    size: 224,
    keeps_aspect: true,
    crop: Some(224),
    pads: false,
    mean: CLIP_MEAN,
    std: CLIP_STD,
    kernel: Kernel::Bicubic,
};
const LLAVA: Class = Class { pads: true, ..CLIP };
const ONEVISION: Class = Class { size: 384, keeps_aspect: false, crop: None, ..CLIP };
const SIGLIP: Class = Class { size: 224, mean: HALF, std: HALF, ..ONEVISION };
const IDEFICS3: Class = Class { size: 4 * 364, kernel: Kernel::Lanczos, ..SIGLIP };

/// The tile of Idefics3's class default, in pixels.
const IDEFICS3_TILE: usize = 364;

/// The classes for each layout. The original LLaVA names the vision tower's processor, whatever its layout.
const ANYRES: &[(&str, Class)] = &[
    ("LlavaNextImageProcessor", CLIP),
    ("LlavaOnevisionImageProcessor", ONEVISION),
    ("CLIPImageProcessor", CLIP),
    ("SiglipImageProcessor", SIGLIP),
];
const SINGLE: &[(&str, Class)] =
    &[("CLIPImageProcessor", CLIP), ("SiglipImageProcessor", SIGLIP), ("LlavaImageProcessor", LLAVA)];
const SPLIT: &[(&str, Class)] = &[("Idefics3ImageProcessor", IDEFICS3), ("SmolVLMImageProcessor", IDEFICS3)];

impl Class {
    /// The class that `image_processor_type` names. Without it, the one that fits the layout and the settings.
    fn of(keys: &Keys, layout: &Layout) -> Result<Self, Error> {
        let known = match layout {
            Layout::Anyres { .. } => ANYRES,
            Layout::Single => SINGLE,
            Layout::Split => SPLIT,
        };
        let name = keys.text("image_processor_type", "")?;
        if name.is_empty() {
            return Ok(match layout {
                Layout::Split => IDEFICS3,
                Layout::Single if keys.get("crop_size").is_none() && !keys.flag("do_center_crop", false)? => SIGLIP,
                _ => CLIP,
            });
        }
        // transformers 4 has a second class per processor, with the same settings and the torchvision backend
        let plain = name.strip_suffix("Fast").unwrap_or(name);
        let found = known.iter().find(|(known, _)| *known == plain).map(|&(_, class)| class);
        found.ok_or_else(|| {
            let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
            keys.wrong("image_processor_type", &names.join(" or "), &Value::from(name))
        })
    }
}

/// How a picture becomes tiles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cut {
    /// LLaVA-NeXT's "anyres": the picture is fitted into a canvas, the canvas is cut into tiles, and the whole picture,
    /// stretched to one tile, is the thumbnail.
    Anyres {
        /// Allowed canvases, (height, width) in pixels, multiples of the tile's side.
        pinpoints: Vec<(usize, usize)>,
        /// A map of more tiles than this is shrunk to their area; None: never.
        most_tiles: Option<usize>,
    },
    /// One tile: the picture, stretched.
    Squash,
    /// One tile: the picture, padded to a square with the mean color, then resized.
    Pad,
    /// One tile: the middle of the picture, after its shorter side is resized to `shortest` pixels.
    CenterCrop {
        /// The shorter side after the resize, in pixels; at least the tile's side.
        shortest: usize,
    },
    /// Idefics3's: the picture is resized to `longest` pixels, stretched to whole tiles, and cut into them. The thumbnail,
    /// stretched to one tile, is the last tile.
    Split {
        /// The longer side after the resize, in pixels.
        longest: usize,
        /// Whether a picture larger than a tile is cut (`do_image_splitting`). If not, it is stretched to one tile.
        into_tiles: bool,
    },
}

/// How a checkpoint's pictures are cut and normalised.
///
/// `do_convert_rgb` is ignored, because a [`crate::Picture`] is always RGB. With [`Cut::Anyres`], `do_center_crop`,
/// `do_pad` and `do_resize` are ignored, because they do not change the result: the tiles already have the size for the
/// crop and the second resize, and padding is for batches of several pictures.
#[derive(Debug, Clone, PartialEq)]
pub struct TileConfig {
    /// Side of a tile, S, in pixels.
    pub side: usize,
    /// How a picture becomes tiles.
    pub cut: Cut,
    /// The newline embeddings that the visual tokens need.
    pub newline: Newline,
    /// The kernel of every resize.
    pub kernel: Kernel,
    /// Mean per channel, subtracted after rescaling.
    pub mean: [f32; 3],
    /// Standard deviation per channel: the divisor after the mean is subtracted.
    pub std: [f32; 3],
    /// Factor for a byte before the mean is subtracted, usually 1/255.
    pub rescale: f64,
}

impl TileConfig {
    /// The class defaults of LLaVA-NeXT with tiles of `side` pixels and these canvases, (height, width) in pixels.
    #[must_use]
    pub fn anyres(side: usize, pinpoints: Vec<(usize, usize)>) -> Self {
        let (mean, std, rescale) = (CLIP_MEAN, CLIP_STD, 1.0 / 255.0);
        let cut = Cut::Anyres { pinpoints, most_tiles: None };
        Self { side, cut, newline: Newline::Rows, kernel: Kernel::Bicubic, mean, std, rescale }
    }

    /// Reads the settings of an image processor. Missing keys have the defaults of its class.
    ///
    /// `file` is the name of the object in messages. `layout` and `side` come from the model's config; the settings
    /// must agree with them. `image_aspect_ratio` is the original LLaVA's key: `pad` means [`Cut::Pad`].
    ///
    /// # Errors
    /// [`Error::Config`] with file and key, if a value is not supported, is out of range, or contradicts the model's
    /// config.
    pub fn from_json(file: &str, settings: &Value, layout: &Layout, side: usize) -> Result<Self, Error> {
        let keys = Keys::new(file, settings)?;
        let class = Class::of(&keys, layout)?;
        for key in ["do_rescale", "do_normalize"] {
            // The vision tower was trained with both steps.
            if !keys.flag(key, true)? {
                return Err(keys.wrong(key, "true (only normalised pictures are supported)", &Value::Bool(false)));
            }
        }
        let (cut, newline) = match layout {
            Layout::Anyres { pinpoints, most_tiles } => {
                same_side(&keys, "size", class.size, side)?;
                if let Some(default) = class.crop.or_else(|| keys.get("crop_size").map(|_| class.size)) {
                    same_side(&keys, "crop_size", default, side)?;
                }
                same_pinpoints(&keys, pinpoints)?;
                (Cut::Anyres { pinpoints: pinpoints.clone(), most_tiles: *most_tiles }, Newline::Rows)
            }
            Layout::Single => (single(&keys, class, side)?, Newline::None),
            Layout::Split => (split(&keys, class, side)?, Newline::None),
        };
        let kernel = match settings.get("resample") {
            None => class.kernel,
            Some(number) => {
                let found = KERNELS.iter().find(|(known, _)| number.as_i64() == Some(*known));
                found.ok_or_else(|| keys.wrong("resample", "3 (bicubic) or 1 (Lanczos)", number))?.1
            }
        };
        let number = |value: f64| serde_json::json!(value);
        let rescale = keys.number("rescale_factor", 1.0 / 255.0, 1e-9, 1e9)?;
        let mean = channels(&keys, "image_mean", class.mean)?;
        let std = channels(&keys, "image_std", class.std)?;
        let config = Self { side, cut, newline, kernel, mean, std, rescale };
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

    /// The settings of a family's image processor, for a checkpoint without them: those of the published checkpoints.
    pub(crate) fn usual(config: &Config) -> Value {
        let side = config.vision.side;
        let square = serde_json::json!({"height": side, "width": side});
        let mut settings = match config.layout {
            Layout::Split => serde_json::json!({
                "size": {"longest_edge": 4 * side}, "max_image_size": {"longest_edge": side}
            }),
            _ if config.vision.class_token => serde_json::json!({"size": square, "crop_size": square}),
            _ => serde_json::json!({"size": square}),
        };
        if let (Layout::Single, true) = (&config.layout, config.vision.class_token) {
            settings["size"] = serde_json::json!({"shortest_edge": side});
        }
        if let (Layout::Anyres { most_tiles, .. }, false) = (&config.layout, config.vision.class_token) {
            // SigLIP's numbers, which are the class default of LLaVA-OneVision only.
            (settings["image_mean"], settings["image_std"]) = (serde_json::json!(HALF), serde_json::json!(HALF));
            match most_tiles {
                Some(_) => settings["image_processor_type"] = "LlavaOnevisionImageProcessor".into(),
                None => settings["crop_size"] = square,
            }
        }
        settings
    }

    /// The size (width, height) in pixels of a picture that needs the most tiles.
    pub(crate) fn largest(&self) -> (usize, usize) {
        match &self.cut {
            Cut::Anyres { pinpoints, .. } => {
                pinpoints.iter().max_by_key(|(h, w)| h * w).map_or((self.side, self.side), |&(h, w)| (w, h))
            }
            Cut::Split { longest, .. } => (*longest, *longest),
            Cut::Squash | Cut::Pad | Cut::CenterCrop { .. } => (self.side, self.side),
        }
    }

    /// The settings for several pictures in one prompt: LLaVA-OneVision pads each picture to a square, makes one tile
    /// of it, and puts one newline after its tokens. All others cut each picture as if it were alone.
    #[must_use]
    pub fn with_several(&self) -> Self {
        match self.cut {
            Cut::Anyres { most_tiles: Some(_), .. } => Self { cut: Cut::Pad, newline: Newline::End, ..self.clone() },
            _ => self.clone(),
        }
    }

    /// Checks that a picture becomes whole tiles, and limits the memory for them.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let side = self.side;
        let wrong = |key: &str, why: String| Error::Config { key: key.to_owned(), why };
        if !(1..=LONGEST_SIDE).contains(&side) || side as u64 * side as u64 > MAX_PIXELS {
            let why = format!(
                "expected tiles of 1 to {LONGEST_SIDE} pixels per side and at most {MAX_PIXELS} in all, got a side of \
                 {side}"
            );
            return Err(wrong("config.json: image_size", why));
        }
        let whole = |length: usize| (1..=LONGEST_SIDE).contains(&length) && length.is_multiple_of(side);
        let fits = |&(height, width): &(usize, usize)| {
            whole(height) && whole(width) && height as u64 * width as u64 <= MAX_PIXELS
        };
        match &self.cut {
            Cut::Anyres { pinpoints, .. } => {
                let key = "config.json: image_grid_pinpoints";
                if pinpoints.is_empty() {
                    return Err(wrong(key, "expected at least one canvas, got an empty list".to_owned()));
                }
                if let Some((height, width)) = pinpoints.iter().find(|canvas| !fits(canvas)) {
                    let expected = format!(
                        "expected canvases of whole tiles of {side} pixels, at most {LONGEST_SIDE} per side and \
                         {MAX_PIXELS} in all"
                    );
                    return Err(wrong(key, format!("{expected}, got {height}x{width}")));
                }
            }
            &Cut::CenterCrop { shortest } if !(side..=LONGEST_SIDE).contains(&shortest) => {
                let why = format!("expected {side} (the tile) to {LONGEST_SIDE} pixels, got {shortest}");
                return Err(wrong("size.shortest_edge", why));
            }
            &Cut::Split { longest, .. } => {
                let most = longest.clamp(1, SPLIT_LIMIT).next_multiple_of(side);
                if longest == 0 || !fits(&(most, most)) || (most / side).pow(2) > MOST_TILES {
                    let why = format!(
                        "expected at least 1 pixel, and in tiles of {side} pixels at most {LONGEST_SIDE} per side, \
                         {MAX_PIXELS} in all and {MOST_TILES} tiles, got {longest}"
                    );
                    return Err(wrong("size.longest_edge", why));
                }
            }
            Cut::Squash | Cut::Pad | Cut::CenterCrop { .. } => (),
        }
        Ok(())
    }

    /// Mean and standard deviation in units of a byte, `m * f32(1/rescale)`, in f32.
    pub(crate) fn in_bytes(&self) -> ([f32; 3], [f32; 3]) {
        let bytes = (1.0 / self.rescale) as f32;
        (self.mean.map(|mean| mean * bytes), self.std.map(|std| std * bytes))
    }
}

/// The cut of a model with one tile per picture.
fn single(keys: &Keys, class: Class, side: usize) -> Result<Cut, Error> {
    must(keys, "do_resize")?;
    let pads = keys.one_of("image_aspect_ratio", false, &[("pad", true), ("square", false)])?
        || class.pads && keys.flag("do_pad", false)?;
    let crops = keys.flag("do_center_crop", class.crop.is_some())?;
    if crops {
        same_side(keys, "crop_size", class.crop.unwrap_or(class.size), side)?;
    }
    let size = keys.get("size").cloned().unwrap_or_else(|| {
        let side = class.size;
        if class.keeps_aspect { Value::from(side) } else { serde_json::json!({"height": side, "width": side}) }
    });
    match shortest_edge(&size) {
        Some(shortest) if crops && !pads => {
            let found = shortest.and_then(|n| usize::try_from(n).ok()).filter(|n| (side..=LONGEST_SIDE).contains(n));
            let shortest = found.ok_or_else(|| {
                keys.wrong("size", &format!("the tile's {side} to {LONGEST_SIDE} pixels for the shorter side"), &size)
            })?;
            Ok(Cut::CenterCrop { shortest })
        }
        // Hugging Face would make a tile that is not square.
        Some(_) if !pads && keys.get("image_processor_type").is_some() => {
            let square = format!("height and width of {side} pixels, or a centre crop (do_center_crop) of as many");
            Err(keys.wrong("size", &square, &size))
        }
        _ => {
            same_side(keys, "size", class.size, side)?;
            Ok(if pads { Cut::Pad } else { Cut::Squash })
        }
    }
}

/// The cut of Idefics3.
fn split(keys: &Keys, class: Class, side: usize) -> Result<Cut, Error> {
    must(keys, "do_resize")?;
    let tile = keys.object("max_image_size")?;
    let found = tile.count("longest_edge", IDEFICS3_TILE, LONGEST_SIDE)?;
    if found != side {
        return Err(tile.wrong("longest_edge", &format!("the vision tower's {side} pixels"), &Value::from(found)));
    }
    let size = keys.object("size")?;
    if keys.get("size").is_some_and(|size| size.get("longest_edge").is_none()) {
        return Err(size.wrong("longest_edge", "the longer side in pixels", &Value::from("nothing")));
    }
    let longest = size.count("longest_edge", class.size, LONGEST_SIDE)?;
    Ok(Cut::Split { longest, into_tiles: keys.flag("do_image_splitting", true)? })
}

/// Checks a step that makes the picture fit.
fn must(keys: &Keys, key: &str) -> Result<(), Error> {
    if keys.flag(key, true)? {
        return Ok(());
    }
    Err(keys.wrong(key, "true (the vision tower has one size)", &Value::Bool(false)))
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

/// Checks that the canvases, where the settings have them, are the model's.
fn same_pinpoints(keys: &Keys, pinpoints: &[(usize, usize)]) -> Result<(), Error> {
    let Some(listed) = keys.get("image_grid_pinpoints") else { return Ok(()) };
    let own: Vec<[usize; 2]> = pinpoints.iter().map(|&(height, width)| [height, width]).collect();
    if *listed == serde_json::json!(own) {
        return Ok(());
    }
    Err(keys.wrong("image_grid_pinpoints", &format!("config.json's {own:?}"), listed))
}

/// A part of a size, if it is present; Some(None) if it is no whole number.
fn part(size: &Value, name: &str) -> Option<Option<u64>> {
    size.get(name).filter(|v| !v.is_null()).map(Value::as_u64)
}

/// The shorter side that a size asks for: a number, or a shortest edge without a longest one. Some(None) if it is no
/// whole number; None for a height and width.
fn shortest_edge(size: &Value) -> Option<Option<u64>> {
    match size {
        // With a longest edge as well, one tile would not be square.
        Value::Object(_) => part(size, "shortest_edge").filter(|_| part(size, "longest_edge").is_none()),
        number => Some(number.as_u64()),
    }
}

/// Checks that `size` or `crop_size` (a number, a shortest edge, or a height and width) is the tile's side.
fn same_side(keys: &Keys, key: &str, default: usize, side: usize) -> Result<(), Error> {
    let default = Value::from(default);
    let value = keys.get(key);
    let size = value.unwrap_or(&default);
    let sides = match shortest_edge(size) {
        Some(edge) => vec![edge],
        None => ["height", "width"].map(|name| part(size, name).flatten()).to_vec(),
    };
    if sides.iter().all(|&got| got == Some(side as u64)) {
        return Ok(());
    }
    let missing = Value::from(format!("nothing, which means {default}"));
    Err(keys.wrong(key, &format!("the vision tower's {side} pixels"), value.unwrap_or(&missing)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PINPOINTS: [(usize, usize); 5] = [(336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)];

    fn anyres(pinpoints: &[(usize, usize)]) -> Layout {
        Layout::Anyres { pinpoints: pinpoints.to_vec(), most_tiles: None }
    }

    /// The key that an error names, without the file.
    fn key(settings: &Value, layout: &Layout, side: usize) -> String {
        match TileConfig::from_json("p.json", settings, layout, side) {
            Err(Error::Config { key, .. }) => key.rsplit(": ").next().unwrap_or_default().to_owned(),
            other => panic!("expected a config error, got {other:?}"),
        }
    }

    #[test]
    fn missing_keys_have_the_class_defaults() -> Result<(), Error> {
        let settings = json!({"size": {"shortest_edge": 336}, "crop_size": 336, "image_mean": null});
        let config = TileConfig::from_json("p.json", &settings, &anyres(&PINPOINTS), 336)?;
        assert_eq!((config.mean, config.std, config.rescale), (CLIP_MEAN, CLIP_STD, 1.0 / 255.0));
        assert!(TileConfig::from_json("p.json", &json!({}), &anyres(&[(224, 448)]), 224).is_ok());
        Ok(())
    }

    #[test]
    fn absurd_settings_name_their_key() {
        let with = |name: &str, value: Value| {
            let mut settings =
                json!({"size": {"height": 336, "width": 336}, "crop_size": {"height": 336, "width": 336}});
            settings[name] = value;
            key(&settings, &anyres(&PINPOINTS), 336)
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
            assert_eq!(key(&plain, &anyres(&pinpoints), 336), "image_grid_pinpoints");
        }
        assert_eq!(key(&json!([]), &anyres(&PINPOINTS), 336), "p.json");
        assert_eq!(key(&json!({"size": 0, "crop_size": 0}), &anyres(&PINPOINTS), 0), "image_size");
    }

    #[test]
    fn classes_decide_the_cut() -> Result<(), Error> {
        let square = json!({"height": 384, "width": 384});
        for (layout, side, settings, cut) in [
            (
                Layout::Single,
                336,
                json!({"image_processor_type": "CLIPImageProcessor", "do_center_crop": true,
                       "crop_size": {"height": 336, "width": 336}, "size": {"shortest_edge": 336}}),
                Cut::CenterCrop { shortest: 336 },
            ),
            (Layout::Single, 336, json!({"crop_size": 336, "size": 400}), Cut::CenterCrop { shortest: 400 }),
            (
                Layout::Single,
                224,
                json!({"image_processor_type": "CLIPImageProcessorFast"}),
                Cut::CenterCrop { shortest: 224 },
            ),
            (
                Layout::Single,
                224,
                json!({"image_processor_type": "LlavaImageProcessor"}),
                Cut::CenterCrop { shortest: 224 },
            ),
            (Layout::Single, 224, json!({"image_processor_type": "LlavaImageProcessor", "do_pad": true}), Cut::Pad),
            (Layout::Single, 384, json!({"image_processor_type": "SiglipImageProcessor", "size": square}), Cut::Squash),
            (Layout::Single, 384, json!({"size": square}), Cut::Squash),
            (Layout::Single, 224, json!({}), Cut::Squash),
            (
                Layout::Single,
                336,
                json!({"crop_size": 336, "size": 336, "do_center_crop": true, "image_aspect_ratio": "pad"}),
                Cut::Pad,
            ),
            (
                anyres(&[(384, 768)]),
                384,
                json!({"image_processor_type": "LlavaOnevisionImageProcessor", "crop_size": null}),
                Cut::Anyres { pinpoints: vec![(384, 768)], most_tiles: None },
            ),
            (Layout::Split, 364, json!({}), Cut::Split { longest: 1456, into_tiles: true }),
            (
                Layout::Split,
                512,
                json!({"image_processor_type": "SmolVLMImageProcessor", "size": {"longest_edge": 2048},
                       "max_image_size": {"longest_edge": 512}, "do_image_splitting": false}),
                Cut::Split { longest: 2048, into_tiles: false },
            ),
        ] {
            assert_eq!(TileConfig::from_json("p.json", &settings, &layout, side)?.cut, cut, "{settings}");
        }
        Ok(())
    }

    #[test]
    fn classes_have_their_own_numbers() -> Result<(), Error> {
        let read =
            |layout: &Layout, side: usize, settings: Value| TileConfig::from_json("p.json", &settings, layout, side);
        let split = read(&Layout::Split, 364, json!({"image_processor_type": "Idefics3ImageProcessor"}))?;
        assert_eq!((split.kernel, split.mean, split.newline), (Kernel::Lanczos, HALF, Newline::None));
        let siglip = read(&Layout::Single, 224, json!({"image_processor_type": "SiglipImageProcessor"}))?;
        assert_eq!((siglip.kernel, siglip.std, siglip.newline), (Kernel::Bicubic, HALF, Newline::None));
        let layout = Layout::Anyres { pinpoints: vec![(384, 768)], most_tiles: Some(9) };
        let one = read(&layout, 384, json!({"image_processor_type": "LlavaOnevisionImageProcessor", "resample": 1}))?;
        assert_eq!((one.kernel, one.mean, one.newline), (Kernel::Lanczos, CLIP_MEAN, Newline::Rows));
        let several = one.with_several();
        assert_eq!((&several.cut, several.newline), (&Cut::Pad, Newline::End));
        assert_eq!((several.with_several(), split.with_several()), (several, split.clone()));
        Ok(())
    }

    #[test]
    fn settings_that_contradict_the_layout_name_their_key() {
        let square = json!({"height": 384, "width": 384});
        for (layout, side, settings, expected) in [
            (Layout::Single, 336, json!({"image_processor_type": "LlavaNextImageProcessor"}), "image_processor_type"),
            (Layout::Split, 364, json!({"image_processor_type": "CLIPImageProcessor"}), "image_processor_type"),
            (
                anyres(&PINPOINTS),
                336,
                json!({"image_processor_type": "Idefics3ImageProcessor"}),
                "image_processor_type",
            ),
            (Layout::Single, 336, json!({"crop_size": 224, "size": 336}), "crop_size"),
            (Layout::Single, 336, json!({"crop_size": 336, "size": 335}), "size"),
            (Layout::Single, 336, json!({"crop_size": 336, "size": -336}), "size"),
            (
                Layout::Single,
                336,
                json!({"crop_size": 336, "size": {"shortest_edge": 336, "longest_edge": 700}}),
                "size",
            ),
            (Layout::Single, 336, json!({"size": square}), "size"),
            (Layout::Single, 384, json!({"size": square, "do_resize": false}), "do_resize"),
            (Layout::Single, 384, json!({"size": square, "image_aspect_ratio": "anyres"}), "image_aspect_ratio"),
            (
                Layout::Single,
                384,
                json!({"image_processor_type": "SiglipImageProcessor", "size": {"shortest_edge": 384}}),
                "size",
            ),
            (Layout::Split, 512, json!({}), "max_image_size.longest_edge"),
            (Layout::Split, 364, json!({"max_image_size": 364}), "max_image_size"),
            (Layout::Split, 364, json!({"size": {"height": 364, "width": 364}}), "size.longest_edge"),
            (Layout::Split, 364, json!({"size": {"longest_edge": 0}}), "size.longest_edge"),
            (Layout::Split, 364, json!({"do_resize": false}), "do_resize"),
            (Layout::Split, 364, json!({"do_image_splitting": 1}), "do_image_splitting"),
        ] {
            assert_eq!(key(&settings, &layout, side), expected, "{settings}");
        }
    }
}
