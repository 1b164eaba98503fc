//! Which visual tokens enter the text model, and which of them leave it at which layer: every method, as one value. Input: a
//! spelling such as `faster-vlm:keep=0.25+fastv`, or the types below. Output: a checked [`Compression`].

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    config::{Config, Layout},
    error::Error,
};

mod settings;
mod stock;
mod select;
mod groups;
mod faster_vlm;
mod vision_zip;
mod hired;
mod div_prune;
mod cd_pruner;
mod heuristic;
mod random;
mod stride;
mod meteor;
mod pruning;
mod text_guided;
mod fastv;
mod pyramid_drop;

pub use self::{
    cd_pruner::{CdPruner, Relevance},
    div_prune::DivPrune,
    faster_vlm::FasterVlm,
    fastv::FastV,
    heuristic::Heuristic,
    hired::{BudgetMap, Hired},
    meteor::{Aggregate, Meteor, Pool},
    pyramid_drop::{Positions, PyramidDrop},
    random::RandomPatches,
    select::{Budget, Scope},
    stock::{Slot, Stock},
    stride::Stride,
    text_guided::TextGuided,
    vision_zip::{Merge, VisionZip},
};
pub(crate) use self::{
    groups::Group,
    pruning::{Pruning, Quota, Score},
    settings::{Settings, listed, name_of, optional, refused},
};

/// Which visual tokens enter the text model, and which of them leave it at which layer.
///
/// # Spelling
/// `name`, or `name:key=value,key=value`; one method before the text model and one inside it are joined with `+`, such as
/// `faster-vlm:keep=0.25+fastv:layer=3`. [`METHODS`] has the names; the keys are the fields of the settings (`class-token` for
/// `class_token`). `none` is no compression; `focus` is `vision+text`, FocusLLaVA's two samplers, with the keys of both. Upper
/// and lower case are equal. A budget with a point is a ratio (`0.25`), without one a count (`64`). Lists have `/` between
/// their values (`layers=8/16/24`).
///
/// [`Display`](fmt::Display) and [`Serialize`] write only the settings that differ from the defaults, and [`FromStr`] and
/// [`Deserialize`] read every valid value that they write as an equal one.
///
/// # Errors
/// [`FromStr`] returns [`Error::Option`] with the option `compress`, the method, the key, and the allowed and the given value.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Compression {
    /// What makes the visual tokens that enter the text model.
    pub before: Before,
    /// What removes visual tokens between two layers of the text model.
    pub within: Within,
}

/// What makes the visual tokens that enter the text model. It runs once per picture, except [`Before::Meteor`], which reads the
/// question.
#[derive(Clone, Debug, PartialEq, Default)]
#[non_exhaustive]
pub enum Before {
    /// Every visual token, in the family's own sequence.
    #[default]
    Every,
    /// FocusLLaVA's vision-guided sampler (Sec. 3.2): one scale per region of the map.
    Vision {
        /// Seed of random scales, uniformly distributed: the paper's random sampling (Table 6). Equal for equal seed and size
        /// of the map. None: the selector chooses.
        random: Option<u64>,
    },
    /// A method that needs no training: it keeps or merges patches.
    Patches(Patches),
    /// LLaVA-Meteor, in our interpretation.
    Meteor(Meteor),
}

/// A method that keeps or merges patches, and what is the same for all such methods.
///
/// Padding is never a candidate and counts in no budget. The tokens are in scanline order, at positions 0, 1, 2, ... Both are our
/// choice.
#[derive(Clone, Debug, PartialEq)]
pub struct Patches {
    /// The method.
    pub method: Method,
    /// The newline embeddings between the kept tokens.
    pub newlines: Newlines,
    /// What becomes of the thumbnail.
    pub thumbnail: ThumbnailTokens,
}

/// A method that needs no training and runs before the text model.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Method {
    /// FasterVLM: class attention.
    FasterVlm(FasterVlm),
    /// VisionZip: class attention, and the other patches are merged.
    VisionZip(VisionZip),
    /// HiRED: class attention, and a budget that the tiles share.
    Hired(Hired),
    /// DivPrune: patches that differ most.
    DivPrune(DivPrune),
    /// CDPruner: a determinantal point process.
    CdPruner(CdPruner),
    /// FocusLLaVA's heuristic: likeness to the thumbnail.
    Heuristic(Heuristic),
    /// A random choice.
    Random(RandomPatches),
    /// A lattice.
    Stride(Stride),
}

/// The newline embeddings between the kept tokens, in families that have one after each row of the map. They are no candidates and
/// cost no budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Newlines {
    /// One after each row of the map that has a token. If all tokens of a map that is not empty are kept, this is the family's own
    /// sequence.
    #[default]
    Rows,
    /// One after each row of the map.
    All,
    /// None.
    None,
}

/// What becomes of the thumbnail. Without any other token the thumbnail is always kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ThumbnailTokens {
    /// It is a tile like the others.
    #[default]
    Compress,
    /// It is kept whole, and costs no budget.
    Keep,
    /// It is not sent.
    Drop,
}

/// What removes visual tokens between two layers of the text model. Tokens of the layers below stay in the caches of these layers.
/// Newlines and merged tokens are visual tokens like any other.
#[derive(Clone, Debug, PartialEq, Default)]
#[non_exhaustive]
pub enum Within {
    /// Nothing: every visual token passes all layers.
    #[default]
    Every,
    /// FocusLLaVA's text-guided sampler (Sec. 3.3).
    Text(TextGuided),
    /// FastV.
    FastV(FastV),
    /// PyramidDrop.
    PyramidDrop(PyramidDrop),
}

/// The names of [`Newlines`].
pub(crate) const NEWLINES: [(&str, Newlines); 3] =
    [("rows", Newlines::Rows), ("all", Newlines::All), ("none", Newlines::None)];
/// The names of [`ThumbnailTokens`].
pub(crate) const THUMBNAILS: [(&str, ThumbnailTokens); 3] =
    [("compress", ThumbnailTokens::Compress), ("keep", ThumbnailTokens::Keep), ("drop", ThumbnailTokens::Drop)];

/// Where a method runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Before the text model.
    Before,
    /// Between two layers of the text model.
    Within,
}

/// A method, for choosers and for the spelling: one row of [`METHODS`].
#[derive(Clone, Copy, Debug)]
pub struct MethodRow {
    /// Its name in a spelling.
    pub name: &'static str,
    /// Its name for users.
    pub title: &'static str,
    /// What it does, in one sentence.
    pub about: &'static str,
    /// The paper.
    pub source: &'static str,
    /// Where it runs.
    pub place: Place,
    /// Its spelling with its most important settings at their defaults: a text to edit.
    pub default: &'static str,
    /// Reads its settings.
    pub(crate) read: fn(&mut Settings<'_>) -> Result<Compression, Error>,
}

/// What the checks need to know of a checkpoint.
#[derive(Clone, Copy, Debug)]
pub struct Fits<'a> {
    /// Its configuration.
    pub config: &'a Config,
    /// Whether it has a scale selector.
    pub selector: bool,
    /// Whether it has the tensors of LLaVA-Meteor.
    pub meteor: bool,
}

const VISION: MethodRow = MethodRow {
    name: "vision",
    title: "Vision-guided sampler",
    about: "Chooses one scale per region of the picture: fine where there is detail, coarse elsewhere",
    source: "arXiv 2411.14228",
    place: Place::Before,
    default: "vision",
    read: |settings| Ok(Before::Vision { random: settings.seed("random")? }.into()),
};

/// All methods: first those before the text model, then those inside it.
pub const METHODS: &[MethodRow] = &[
    VISION,
    faster_vlm::ROW,
    vision_zip::ROW,
    hired::ROW,
    div_prune::ROW,
    cd_pruner::ROW,
    heuristic::ROW,
    random::ROW,
    stride::ROW,
    meteor::ROW,
    text_guided::ROW,
    fastv::ROW,
    pyramid_drop::ROW,
];

/// The name of no compression.
const NONE: &str = "none";
/// The name of both samplers of FocusLLaVA.
const FOCUS: &str = "focus";

/// The row of a name.
fn row(name: &str) -> Option<&'static MethodRow> {
    METHODS.iter().find(|row| row.name == name)
}

impl Compression {
    /// Every visual token, in every layer.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Both samplers of FocusLLaVA, with the settings of the checkpoint.
    #[must_use]
    pub fn focus() -> Self {
        Self { before: Before::Vision { random: None }, within: Within::Text(TextGuided::default()) }
    }

    /// The compression of a checkpoint where none is chosen: [`Compression::focus`] if it was trained with the samplers
    /// ([`Config::has_focus`]), without the vision-guided one if the scale selector is missing; LLaVA-Meteor with the settings of its
    /// config if it was trained with that; else none.
    #[must_use]
    pub fn default_of(model: Fits<'_>) -> Self {
        match (model.config.has_focus, model.selector, &model.config.meteor) {
            (true, true, _) => Self::focus(),
            (true, false, _) => Within::Text(TextGuided::default()).into(),
            (false, _, Some(meteor)) => {
                let own = Self::from(Before::Meteor(meteor.selection.clone()));
                if own.check(model).is_ok() { own } else { Self::none() }
            }
            (false, ..) => Self::none(),
        }
    }

    /// Whether every visual token passes every layer.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::none()
    }

    /// The settings of the text-guided sampler, if it runs.
    #[must_use]
    pub fn text(&self) -> Option<&TextGuided> {
        if let Within::Text(text) = &self.within { Some(text) } else { None }
    }

    /// The settings of the text-guided sampler, to change them.
    pub fn text_mut(&mut self) -> Option<&mut TextGuided> {
        if let Within::Text(text) = &mut self.within { Some(text) } else { None }
    }

    /// Whether the vision-guided sampler runs.
    #[must_use]
    pub fn samples_vision(&self) -> bool {
        matches!(self.before, Before::Vision { .. })
    }

    /// The methods that fit a checkpoint with their default settings, for choosers.
    #[must_use]
    pub fn fitting(model: Fits<'_>) -> Vec<&'static MethodRow> {
        let fits = |row: &&MethodRow| row.default.parse().is_ok_and(|it: Self| it.check(model).is_ok());
        METHODS.iter().filter(fits).collect()
    }

    /// Checks the settings, and whether a checkpoint has what the methods need.
    ///
    /// # Errors
    /// [`Error::Option`] with the option `compress`, what is allowed or what to do, and the method or its setting.
    pub fn check(&self, model: Fits<'_>) -> Result<(), Error> {
        // Reading refuses every value that is out of range.
        let spelling = self.to_string();
        if Self::from_str(&spelling)? != *self {
            return Err(refused("settings that have a spelling", &spelling));
        }
        self.before.check(model)?;
        self.within.check(model.config)
    }

    /// Both of `self` and `other`; None if they have two methods in the same place.
    fn joined(self, other: Self) -> Option<Self> {
        let before = match (self.before, other.before) {
            (one, Before::Every) | (Before::Every, one) => one,
            _ => return None,
        };
        let within = match (self.within, other.within) {
            (one, Within::Every) | (Within::Every, one) => one,
            _ => return None,
        };
        Some(Self { before, within })
    }
}

impl From<Before> for Compression {
    fn from(before: Before) -> Self {
        Self { before, within: Within::Every }
    }
}

impl From<Within> for Compression {
    fn from(within: Within) -> Self {
        Self { before: Before::Every, within }
    }
}

impl From<Method> for Compression {
    fn from(method: Method) -> Self {
        Before::Patches(Patches::new(method)).into()
    }
}

impl Patches {
    /// A method with its usual newlines and thumbnail: [`Newlines::Rows`], and [`ThumbnailTokens::Compress`]; for
    /// [`Heuristic`], [`ThumbnailTokens::Keep`].
    #[must_use]
    pub fn new(method: Method) -> Self {
        let compares = matches!(method, Method::Heuristic(_));
        let thumbnail = if compares { ThumbnailTokens::Keep } else { ThumbnailTokens::Compress };
        Self { method, newlines: Newlines::default(), thumbnail }
    }

    /// Reads the settings that are the same for all methods.
    pub(crate) fn read(method: Method, settings: &mut Settings<'_>) -> Result<Compression, Error> {
        let usual = Self::new(method);
        let newlines = settings.newlines()?;
        let thumbnail = settings.thumbnail(usual.thumbnail)?;
        let expected = match (&usual.method, thumbnail) {
            (Method::Hired(_), ThumbnailTokens::Keep | ThumbnailTokens::Drop) => {
                Some("compress, because the thumbnail shares the budget,")
            }
            (Method::Heuristic(_), ThumbnailTokens::Compress) => {
                Some("keep or drop, because patches are compared with the thumbnail,")
            }
            _ => None,
        };
        if let Some(expected) = expected {
            return Err(settings.wrong("thumbnail", expected, &name_of(&THUMBNAILS, thumbnail)));
        }
        Ok(Before::Patches(Self { newlines, thumbnail, ..usual }).into())
    }
}

impl Method {
    /// Its row, and all its settings, in order.
    fn spelled(&self) -> (&'static MethodRow, Vec<(&'static str, String)>) {
        match self {
            Self::FasterVlm(it) => (&faster_vlm::ROW, it.written()),
            Self::VisionZip(it) => (&vision_zip::ROW, it.written()),
            Self::Hired(it) => (&hired::ROW, it.written()),
            Self::DivPrune(it) => (&div_prune::ROW, it.written()),
            Self::CdPruner(it) => (&cd_pruner::ROW, it.written()),
            Self::Heuristic(it) => (&heuristic::ROW, it.written()),
            Self::Random(it) => (&random::ROW, it.written()),
            Self::Stride(it) => (&stride::ROW, it.written()),
        }
    }

    /// Whether it reads the attention of the class token.
    fn reads_class_attention(&self) -> bool {
        match self {
            Self::FasterVlm(_) | Self::VisionZip(_) | Self::Hired(_) => true,
            Self::CdPruner(CdPruner { relevance, .. }) => *relevance == Relevance::Class,
            Self::DivPrune(_) | Self::Heuristic(_) | Self::Random(_) | Self::Stride(_) => false,
        }
    }
}

impl Before {
    /// Its row, and all its settings, in order; None for every token.
    fn spelled(&self) -> Option<(&'static MethodRow, Vec<(&'static str, String)>)> {
        Some(match self {
            Self::Every => return None,
            Self::Vision { random } => (&VISION, vec![("random", optional(*random))]),
            Self::Patches(Patches { method, newlines, thumbnail }) => {
                let (row, mut written) = method.spelled();
                written.push(("newlines", name_of(&NEWLINES, *newlines)));
                written.push(("thumbnail", name_of(&THUMBNAILS, *thumbnail)));
                (row, written)
            }
            Self::Meteor(it) => (&meteor::ROW, it.written()),
        })
    }

    /// Refuses a method that needs what the checkpoint does not have.
    fn check(&self, model: Fits<'_>) -> Result<(), Error> {
        let Some((&MethodRow { name, .. }, _)) = self.spelled() else { return Ok(()) };
        let vision = &model.config.vision;
        let (class, one_layer) = match self {
            Self::Every => (false, false),
            Self::Vision { .. } if !model.selector => {
                let why = "this checkpoint has no scale selector: use text, fastv, or a method before the text model";
                return Err(refused(format!("another method, because {why}"), name));
            }
            Self::Vision { .. } => (false, false),
            Self::Patches(patches) => {
                (patches.method.reads_class_attention(), matches!(patches.method, Method::VisionZip(_)))
            }
            Self::Meteor(_) if !model.meteor => {
                let why = "this checkpoint has no tensors meteor.*: train them, or use a method that needs no training";
                return Err(refused(format!("another method, because {why}"), name));
            }
            Self::Meteor(_) => (true, true),
        };
        if class && (!vision.class_token || vision.n_used == 0) {
            let why = match vision.class_token {
                false => format!("the vision tower {} has no class token", vision.name),
                true => "no layer of the vision tower is used".into(),
            };
            let use_this = "use div-prune, cd-pruner (relevance=none), heuristic, random, stride, or a method inside the text model";
            return Err(refused(format!("a method without class attention, because {why}: {use_this}"), name));
        }
        if class && matches!(model.config.layout, Layout::Anyres { most_tiles: Some(_), .. }) {
            let why = format!("{} shrinks large maps, and {name} reads every patch of the tiles", model.config.family);
            return Err(refused(format!("another method, because {why}: use div-prune, random or fastv"), name));
        }
        let layers = vision.feature_layers.len();
        if one_layer && layers > 1 {
            let why = format!("the features are those of {layers} layers of the vision tower, and {name} needs one");
            return Err(refused(format!("another method, because {why}: use faster-vlm, hired or div-prune"), name));
        }
        if let Self::Patches(Patches { method: Method::Hired(Hired { budget_layer, .. }), .. }) = self
            && *budget_layer >= vision.n_used
        {
            let expected =
                format!("a layer from 0 to {} of the vision tower for budget-layer of {name}", vision.n_used - 1);
            return Err(refused(expected, &budget_layer.to_string()));
        }
        Ok(())
    }
}

impl Within {
    /// Its row, and all its settings, in order; None for every token.
    fn spelled(&self) -> Option<(&'static MethodRow, Vec<(&'static str, String)>)> {
        Some(match self {
            Self::Every => return None,
            Self::Text(it) => (&text_guided::ROW, it.written()),
            Self::FastV(it) => (&fastv::ROW, it.written()),
            Self::PyramidDrop(it) => (&pyramid_drop::ROW, it.written()),
        })
    }

    /// Refuses layers that the text model does not have.
    fn check(&self, config: &Config) -> Result<(), Error> {
        let Some((&MethodRow { name, .. }, _)) = self.spelled() else { return Ok(()) };
        let (n_layers, first) = (config.text.n_layers, usize::from(matches!(self, Self::FastV(_))));
        if let Self::PyramidDrop(PyramidDrop { layers: None, ratios, .. }) = self
            && ratios.len() > n_layers
        {
            let expected = format!("at most one ratio per layer of the text model ({n_layers}) for ratios of {name}");
            return Err(refused(expected, &ratios.len().to_string()));
        }
        let layers: Vec<usize> = self.prunings(config).iter().map(|pruning| pruning.layer).collect();
        if let Some(layer) = layers.iter().find(|&layer| !(first..n_layers).contains(layer)) {
            let expected = match n_layers.checked_sub(1).filter(|last| first <= *last) {
                Some(last) => format!("a layer from {first} to {last} of the text model for {name}"),
                None => format!("another method than {name} for a text model of {n_layers} layers"),
            };
            return Err(refused(expected, &format!("layer {layer}")));
        }
        if !layers.is_sorted_by(|one, next| one < next) {
            let layers = layers.iter().map(usize::to_string).collect::<Vec<_>>().join("/");
            let expected = format!("rising layers from 0 to {} for layers of {name}", n_layers.saturating_sub(1));
            return Err(refused(expected, &layers));
        }
        Ok(())
    }
}

/// `name:key=value,key=value` of the settings in `written` that differ from those in `usual`.
fn spelling(name: &str, written: Vec<(&'static str, String)>, usual: &[(&'static str, String)]) -> String {
    let own: Vec<String> =
        written.into_iter().filter(|pair| !usual.contains(pair)).map(|(key, value)| format!("{key}={value}")).collect();
    if own.is_empty() { name.into() } else { format!("{name}:{}", own.join(",")) }
}

/// [`spelling`] of a method: the settings that differ from its defaults.
fn spelling_of((row, written): (&'static MethodRow, Vec<(&'static str, String)>)) -> String {
    let usual = (row.read)(&mut Settings::plain(row.name)).unwrap_or_default();
    let (_, usual) = usual.before.spelled().or(usual.within.spelled()).unwrap_or((row, Vec::new()));
    spelling(row.name, written, &usual)
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match (self.before.spelled(), self.within.spelled()) {
            (None, None) => NONE.into(),
            (Some(one), None) | (None, Some(one)) => spelling_of(one),
            (Some((_, random)), Some((_, text))) if self.samples_vision() && self.text().is_some() => {
                let both = text.into_iter().chain(random).filter(|(_, value)| !value.is_empty()).collect();
                spelling(FOCUS, both, &[])
            }
            (Some(before), Some(within)) => format!("{}+{}", spelling_of(before), spelling_of(within)),
        };
        f.write_str(&text)
    }
}

impl FromStr for Compression {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let text = text.trim().to_ascii_lowercase();
        let mut all = Self::none();
        for part in text.split('+') {
            let mut settings = Settings::of(part)?;
            let one = match settings.method() {
                NONE if part.len() == text.len() => Self::none(),
                NONE => return Err(refused(format!("{NONE} alone"), &text)),
                FOCUS => Self {
                    within: Within::Text(TextGuided::read(&mut settings)?),
                    before: Before::Vision { random: settings.seed("random")? },
                },
                name => {
                    let Some(row) = row(name) else {
                        let names: Vec<&str> =
                            [NONE, FOCUS].into_iter().chain(METHODS.iter().map(|row| row.name)).collect();
                        return Err(refused(listed(&names), name));
                    };
                    (row.read)(&mut settings)?
                }
            };
            settings.finish()?;
            all = all.joined(one).ok_or_else(|| {
                let names = |place| {
                    listed(&METHODS.iter().filter(|row| row.place == place).map(|row| row.name).collect::<Vec<_>>())
                };
                let (before, within) = (names(Place::Before), names(Place::Within));
                refused(format!("at most one of {before}, and at most one of {within}"), &text)
            })?;
        }
        Ok(all)
    }
}

impl Serialize for Compression {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Compression {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use fovea_runtime::Keep;
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Compression {
        text.parse().unwrap_or_else(|error| panic!("{text}: expected a compression, got the error: {error}"))
    }

    /// The message of the error for `text`.
    fn refusal(text: &str) -> String {
        match text.parse::<Compression>() {
            Ok(read) => panic!("{text}: expected an error, got {read:?}"),
            Err(error) => error.to_string(),
        }
    }

    /// LLaVA-NeXT with a tower of `used` + 1 layers, and a text model of `layers` layers.
    fn config(used: usize, layers: usize) -> Config {
        let vision = json!({ "num_hidden_layers": used + 1, "image_size": 336, "patch_size": 14 });
        let json = json!({
            "model_type": "llava_next", "image_token_id": 5, "vision_config": vision,
            "text_config": { "num_hidden_layers": layers },
        });
        Config::from_json(&json).expect("a config")
    }

    fn fits(config: &Config) -> Fits<'_> {
        Fits { config, selector: false, meteor: false }
    }

    /// One spelling per method before and inside the text model, each with every setting away from its default.
    const BEFORE: [&str; 11] = [
        "vision:random=18446744073709551615",
        "faster-vlm:keep=64,newlines=none,thumbnail=drop",
        "vision-zip:dominant=0.2,contextual=0,class-token=false,merge=mean,newlines=all,thumbnail=keep",
        "hired:rate=0.45,alpha=0,budget-layer=3,map=strips,newlines=none",
        "div-prune:keep=9,scope=tile,newlines=all,thumbnail=keep",
        "cd-pruner:keep=0.15,scope=image,relevance=class,newlines=none,thumbnail=drop",
        "heuristic:keep=1.0,newlines=all,thumbnail=drop",
        "random:keep=1,seed=7,newlines=none,thumbnail=keep",
        "stride:rows=3,cols=1,newlines=all,thumbnail=drop",
        "meteor:keep=0.05,visual-weight=0,aggregate=rank-sum,native-pool=max,select=tile,newlines=all,thumbnail=keep",
        "div-prune",
    ];
    const WITHIN: [&str; 8] = [
        "text:gamma=0.9,layer=0",
        "text:keep=0.25",
        "text:keep=300,layer=31",
        "fastv:layer=3,keep=0.25",
        "fastv:keep=18446744073709551615",
        "pyramid-drop:layers=2/3/5,positions=renumber",
        "pyramid-drop:layers=7,ratios=1",
        "pyramid-drop:ratios=0.75/0.5",
    ];

    #[test]
    fn every_row_reads_its_default_spelling() {
        let mut names = Vec::new();
        for row in METHODS {
            let usual = read(row.name);
            assert_eq!(read(row.default), usual, "{}: {} (got, expected)", row.name, row.default);
            assert_eq!(usual.to_string(), row.name, "(got, expected)");
            let place = if usual.within == Within::Every { Place::Before } else { Place::Within };
            assert_eq!(row.place, place, "{} (got, expected)", row.name);
            assert!(!row.title.is_empty() && !row.about.is_empty() && !row.source.is_empty(), "{}", row.name);
            names.push(row.name);
        }
        let expected = "vision faster-vlm vision-zip hired div-prune cd-pruner heuristic random stride meteor text fastv \
                        pyramid-drop";
        assert_eq!(names.join(" "), expected, "(got, expected)");
    }

    #[test]
    fn a_spelling_is_read_and_written_back() {
        for one in BEFORE.into_iter().chain(WITHIN) {
            assert_eq!(read(one).to_string(), one, "(got, expected)");
        }
        for (before, within) in BEFORE.iter().flat_map(|before| WITHIN.iter().map(move |within| (before, within))) {
            let (both, reverse) = (read(&format!("{before}+{within}")), read(&format!("{within}+{before}")));
            assert_eq!(both, reverse, "{before}, {within}");
            assert_eq!(both, Compression { before: read(before).before, within: read(within).within });
            assert_eq!(read(&both.to_string()), both, "{before}, {within} (got, expected)");
        }
    }

    #[test]
    fn a_spelling_is_as_short_as_possible() {
        for (text, expected) in [
            ("none", "none"),
            ("vision+text", "focus"),
            ("Text:Layer=4,GAMMA=.9+VISION:random=3", "focus:gamma=0.9,layer=4,random=3"),
            ("focus:random=0,keep=12", "focus:keep=12,random=0"),
            ("vision+fastv", "vision+fastv"),
            (" fastv : keep = .5 , layer = 2 ", "fastv"),
            ("fastv+faster-vlm:keep=.250", "faster-vlm+fastv"),
            ("faster-vlm:keep=1.", "faster-vlm:keep=1.0"),
            ("faster-vlm:keep=0001", "faster-vlm:keep=1"),
            ("heuristic:thumbnail=keep,newlines=rows", "heuristic"),
            ("hired:thumbnail=compress,rate=1", "hired:rate=1"),
            ("pyramid-drop:ratios=.5/.25/.125", "pyramid-drop"),
            ("random:keep=.0000001", "random:keep=0.0000001"),
        ] {
            assert_eq!(read(text).to_string(), expected, "{text} (got, expected)");
            assert_eq!(read(expected), read(text), "{text} (got, expected)");
        }
    }

    #[test]
    fn settings_are_read_into_their_fields() {
        let patches = |method, newlines, thumbnail| Before::Patches(Patches { method, newlines, thumbnail }).into();
        let (rows, compress) = (Newlines::Rows, ThumbnailTokens::Compress);
        let zip = VisionZip {
            dominant: Budget::Ratio(0.2),
            contextual: Budget::Count(0),
            class_token: false,
            merge: Merge::Mean,
        };
        let hired = Hired { rate: 0.45, alpha: 0.3, budget_layer: 3, map: BudgetMap::Strips };
        let expected: [Compression; 9] = [
            Compression::none(),
            Compression::focus(),
            patches(Method::VisionZip(zip), Newlines::None, ThumbnailTokens::Keep),
            patches(Method::Hired(hired), rows, compress),
            patches(Method::Heuristic(Heuristic::default()), rows, ThumbnailTokens::Keep),
            Method::Stride(Stride { rows: 3, cols: 2 }).into(),
            Method::Random(RandomPatches { keep: Budget::Count(5), seed: u64::MAX }).into(),
            Within::Text(TextGuided { layer: Some(4), keep: Some(Keep::Ratio(0.25)) }).into(),
            Within::PyramidDrop(PyramidDrop {
                layers: Some(vec![2, 3]),
                ratios: vec![1.0, 0.5],
                positions: Positions::Renumber,
            })
            .into(),
        ];
        let texts = [
            "none",
            "focus",
            "vision-zip:dominant=.2,contextual=0,class-token=false,merge=mean,newlines=none,thumbnail=keep",
            "hired:rate=0.45,alpha=.3,budget-layer=3,map=strips",
            "heuristic",
            "stride:rows=3",
            "random:keep=5,seed=18446744073709551615",
            "text:keep=.25,layer=4",
            "pyramid-drop:layers=2/3,ratios=1/.5,positions=renumber",
        ];
        for (text, expected) in texts.into_iter().zip(expected) {
            assert_eq!(read(text), expected, "{text} (got, expected)");
        }
    }

    #[test]
    fn a_wrong_value_is_refused_with_method_key_and_allowed_values() {
        let ratio = "a ratio above 0 and at most 1 with a point such as 0.25, or a count of at least 1 such as 64";
        for (method, key, values, expected) in [
            (
                "faster-vlm",
                "keep",
                &["0", "0.0", ".", "1.01", "-1", "-.5", "nan", "inf", "1e3", "x", "", "0.5x"][..],
                ratio,
            ),
            ("div-prune", "keep", &["18446744073709551616", "0", "NaN.0", "2."], ratio),
            ("cd-pruner", "keep", &["0"], ratio),
            ("heuristic", "keep", &["0"], ratio),
            ("random", "keep", &["0"], ratio),
            ("meteor", "keep", &["0"], ratio),
            ("fastv", "keep", &["0", "1.5"], ratio),
            ("text", "keep", &["0", "1.5"], ratio),
            ("vision-zip", "dominant", &["0", "1.5"], ratio),
            ("vision-zip", "contextual", &["-1", "0.0", "1.5"], "or a count such as 10 or 0"),
            ("text", "gamma", &["0", "1.1", "nan", "inf", "-0.5", ""], "a number above 0 and at most 1"),
            ("focus", "gamma", &["0"], "a number above 0 and at most 1"),
            ("hired", "rate", &["0", "1.1", "nan", "-inf"], "a number above 0 and at most 1"),
            ("hired", "alpha", &["-0.1", "1.1", "nan", "inf"], "a number from 0 to 1"),
            ("meteor", "visual-weight", &["-0.1", "1.1", "nan"], "a number from 0 to 1"),
            ("hired", "budget-layer", &["-1", "1.0", "x"], "a whole number of at least 0"),
            ("hired", "map", &["strip", "x"], "spatial or strips"),
            ("stride", "rows", &["0", "-1", "2.0"], "a whole number of at least 1"),
            ("stride", "cols", &["0"], "a whole number of at least 1"),
            ("fastv", "layer", &["0", "-1", "x"], "a whole number of at least 1"),
            ("text", "layer", &["-1", "8.0", "first"], "a layer from 0 on"),
            ("vision", "random", &["-1", "18446744073709551616", "true"], "a seed, a whole number"),
            ("random", "seed", &["-1", "0.5"], "a seed, a whole number"),
            ("vision-zip", "class-token", &["1", "yes", ""], "true or false"),
            ("vision-zip", "merge", &["add_mean"], "add-mean or mean"),
            ("div-prune", "scope", &["all"], "image or tile"),
            ("cd-pruner", "relevance", &["cls"], "none or class"),
            ("pyramid-drop", "positions", &["old"], "original or renumber"),
            ("pyramid-drop", "layers", &["", "8/", "8/x", "-1/2/3", "/"], "layers from 0 such as 8/16/24"),
            ("pyramid-drop", "layers", &["8", "1/2/3/4"], "one layer per ratio of 0.5/0.25/0.125"),
            ("pyramid-drop", "ratios", &["", "0", "1.5", "0.5/", "nan", "0.5/inf"], "numbers above 0 and at most 1"),
            ("pyramid-drop", "ratios", &["0.25/0.5", "0.5/0.25/0.3"], "falling or equal shares"),
            ("stride", "newlines", &["some"], "rows, all or none"),
            ("stride", "thumbnail", &["whole"], "compress, keep or drop"),
            ("hired", "thumbnail", &["keep", "drop"], "compress, because the thumbnail shares the budget"),
            ("heuristic", "thumbnail", &["compress"], "keep or drop, because patches are compared with the thumbnail"),
        ] {
            for value in values {
                let message = refusal(&format!("{method}:{key}={value}"));
                let got = if value.is_empty() { "nothing".into() } else { value.to_lowercase() };
                let ends = message.ends_with(&format!(" for {key} of {method}, got {got}"));
                assert!(message.starts_with("compress: expected ") && ends, "{method}:{key}={value}: {message}");
                assert!(message.contains(expected), "{method}:{key}={value}: expected {expected}, got {message}");
            }
        }
        assert!(refusal("text:gamma=.9,keep=5").ends_with("no value next to gamma for keep of text, got both"));
    }

    #[test]
    fn a_text_that_is_no_compression_is_refused() {
        let names = "none, focus, vision, faster-vlm, vision-zip, hired, div-prune, cd-pruner, heuristic, random, stride, \
                     meteor, text, fastv or pyramid-drop";
        for (text, expected) in [
            ("", format!("expected {names}, got nothing")),
            ("  ", format!("expected {names}, got nothing")),
            ("fastervlm", format!("expected {names}, got fastervlm")),
            ("fastv+", format!("expected {names}, got nothing")),
            ("+fastv", format!("expected {names}, got nothing")),
            (":keep=3", format!("expected {names}, got nothing")),
            ("none+fastv", "expected none alone, got none+fastv".into()),
            ("none+none", "expected none alone, got none+none".into()),
            ("none:keep=3", "expected none without settings, got keep".into()),
            ("fastv:", "expected key=value after fastv:, got nothing".into()),
            ("fastv:keep", "expected key=value after fastv:, got keep".into()),
            ("fastv:keep=3,", "expected key=value after fastv:, got nothing".into()),
            ("fastv:keep=3,keep=3", "expected each key of fastv once, got keep twice".into()),
            ("fastv:Keep=3,keep=4", "expected each key of fastv once, got keep twice".into()),
            ("fastv:gamma=.5", "expected a key of fastv: layer or keep, got gamma".into()),
            ("vision:gamma=.5", "expected a key of vision: random, got gamma".into()),
            ("focus:rate=.5", "expected a key of focus: gamma, keep, layer or random, got rate".into()),
            ("stride:keep=3", "expected a key of stride: rows, cols, newlines or thumbnail, got keep".into()),
            ("fastv:=3", "expected a key of fastv: layer or keep, got nothing".into()),
        ] {
            let message = refusal(text);
            assert!(message.ends_with(&expected), "{text}: expected {expected}, got {message}");
        }
        for two in ["fastv+text", "focus+fastv", "focus+stride", "vision+random", "text+text", "stride+fastv+stride"] {
            let message = refusal(two);
            let expected = format!("stride or meteor, and at most one of text, fastv or pyramid-drop, got {two}");
            assert!(message.ends_with(&expected), "{two}: expected {expected}, got {message}");
        }
        let long = refusal(&"ä".repeat(100_000));
        assert!(long.ends_with(&format!("got {}...", "ä".repeat(80))), "expected the first 80 characters, got {long}");
    }

    #[test]
    fn as_json_it_is_its_spelling() {
        let value = read("faster-vlm:keep=64+fastv");
        assert_eq!(serde_json::to_value(&value).expect("JSON"), json!("faster-vlm:keep=64+fastv"), "(got, expected)");
        assert_eq!(serde_json::from_value::<Compression>(json!("FASTV+Faster-VLM:keep=64")).expect("read"), value);
        let error = serde_json::from_value::<Compression>(json!("fastv:layer=0")).expect_err("a refused layer");
        assert!(error.to_string().contains("compress: expected a whole number of at least 1"), "{error}");
        assert!(serde_json::from_value::<Compression>(json!({ "vision": true })).is_err());
    }

    #[test]
    fn values_that_no_spelling_has_are_refused() {
        let config = config(23, 32);
        let values: Vec<Compression> = vec![
            Method::FasterVlm(FasterVlm { keep: Budget::Count(0) }).into(),
            Method::FasterVlm(FasterVlm { keep: Budget::Ratio(f64::NAN) }).into(),
            Method::FasterVlm(FasterVlm { keep: Budget::Ratio(f64::INFINITY) }).into(),
            Method::FasterVlm(FasterVlm { keep: Budget::Ratio(-0.0) }).into(),
            Method::Hired(Hired { alpha: f64::NAN, ..Hired::default() }).into(),
            Method::Hired(Hired { rate: 2.0, ..Hired::default() }).into(),
            Method::Stride(Stride { rows: 0, cols: 1 }).into(),
            Within::Text(TextGuided { keep: Some(Keep::Gamma(f64::NAN)), ..TextGuided::default() }).into(),
            Within::Text(TextGuided { keep: Some(Keep::Gamma(0.0)), ..TextGuided::default() }).into(),
            Within::Text(TextGuided { keep: Some(Keep::Count(0)), ..TextGuided::default() }).into(),
            Within::FastV(FastV { layer: 0, ..FastV::default() }).into(),
            Within::PyramidDrop(PyramidDrop { ratios: Vec::new(), ..PyramidDrop::default() }).into(),
            Within::PyramidDrop(PyramidDrop { ratios: vec![f64::NAN], ..PyramidDrop::default() }).into(),
            Within::PyramidDrop(PyramidDrop { layers: Some(vec![1]), ..PyramidDrop::default() }).into(),
            Within::PyramidDrop(PyramidDrop { layers: Some(vec![]), ..PyramidDrop::default() }).into(),
        ];
        for value in values {
            assert!(value.check(fits(&config)).is_err(), "{value:?}: expected an error");
        }
    }

    #[test]
    fn the_checks_compare_with_the_checkpoint() {
        let clip = config(23, 32);
        let small = config(2, 3);
        let one_layer = config(2, 1);
        let siglip =
            Config::from_json(&json!({ "model_type": "llava_onevision", "image_token_id": 5 })).expect("a config");
        let wide = json!({ "model_type": "llava_next", "image_token_id": 5, "vision_feature_layer": [3, -2] });
        let wide = Config::from_json(&wide).expect("a config");
        let no_class = "has no class token: use div-prune, cd-pruner (relevance=none), heuristic, random";
        for (config, text, expected) in [
            (&clip, "none", None),
            (&clip, "faster-vlm+fastv", None),
            (&clip, "vision-zip+pyramid-drop", None),
            (&clip, "hired:budget-layer=22", None),
            (&clip, "hired:budget-layer=23", Some("a layer from 0 to 22 of the vision tower")),
            (&clip, "vision", Some("this checkpoint has no scale selector: use text, fastv")),
            (&clip, "focus", Some("this checkpoint has no scale selector: use text, fastv")),
            (&clip, "meteor", Some("this checkpoint has no tensors meteor.*")),
            (&clip, "text:layer=31", None),
            (&clip, "text:layer=32", Some("a layer from 0 to 31 of the text model for text, got layer 32")),
            (&clip, "fastv:layer=31", None),
            (&clip, "fastv:layer=32", Some("a layer from 1 to 31 of the text model for fastv, got layer 32")),
            (&clip, "pyramid-drop:layers=0/1/31", None),
            (&clip, "pyramid-drop:layers=0/1/32", Some("a layer from 0 to 31")),
            (
                &clip,
                "pyramid-drop:layers=2/2/3",
                Some("rising layers from 0 to 31 for layers of pyramid-drop, got 2/2/3"),
            ),
            (&clip, "pyramid-drop:layers=3/2/5", Some("rising layers")),
            (&small, "text", None),
            (&small, "pyramid-drop", None),
            (&one_layer, "pyramid-drop", Some("at most one ratio per layer of the text model (1) for ratios")),
            (&small, "pyramid-drop:ratios=.5/.4/.3/.2", Some("at most one ratio per layer of the text model (3)")),
            (&one_layer, "pyramid-drop:ratios=.5", None),
            (&one_layer, "fastv", Some("another method than fastv for a text model of 1 layers")),
            (&siglip, "faster-vlm", Some(no_class)),
            (&siglip, "vision-zip", Some(no_class)),
            (&siglip, "hired", Some(no_class)),
            (&siglip, "cd-pruner:relevance=class", Some(no_class)),
            (&siglip, "cd-pruner+text", None),
            (&siglip, "div-prune+fastv", None),
            (&wide, "vision-zip", Some("features are those of 2 layers")),
            (&wide, "faster-vlm", None),
        ] {
            match (read(text).check(fits(config)), expected) {
                (Ok(()), None) => {}
                (Err(error), Some(expected)) => {
                    let message = error.to_string();
                    assert!(message.starts_with("compress: expected "), "{text}: {message}");
                    assert!(message.contains(expected), "{text}: expected {expected}, got {message}");
                }
                (got, expected) => panic!("{text}: expected {expected:?}, got {got:?}"),
            }
        }
        let full = Fits { config: &clip, selector: true, meteor: true };
        assert!(read("focus").check(full).is_ok() && read("meteor+text").check(full).is_ok());
        let (siglip, wide) = (Fits { config: &siglip, ..full }, Fits { config: &wide, ..full });
        assert!(read("meteor").check(siglip).is_err() && read("meteor").check(wide).is_err());
    }

    #[test]
    fn choosers_offer_what_fits() {
        let names = |model| Compression::fitting(model).iter().map(|row| row.name).collect::<Vec<_>>().join(" ");
        let clip = config(23, 32);
        let all = METHODS.iter().map(|row| row.name).collect::<Vec<_>>().join(" ");
        assert_eq!(names(Fits { config: &clip, selector: true, meteor: true }), all, "(got, expected)");
        let siglip =
            Config::from_json(&json!({ "model_type": "llava_onevision", "image_token_id": 5 })).expect("a config");
        let expected = "div-prune cd-pruner heuristic random stride text fastv pyramid-drop";
        assert_eq!(names(fits(&siglip)), expected, "(got, expected)");
    }

    #[test]
    fn the_default_depends_on_the_checkpoint() {
        let stock = config(23, 32);
        assert!(Compression::default_of(fits(&stock)).is_none());
        let trained = Config { has_focus: true, ..stock };
        let without = Fits { selector: false, ..fits(&trained) };
        assert_eq!(Compression::default_of(without).to_string(), "text", "without a selector (got, expected)");
        let mut focus = Compression::default_of(Fits { selector: true, ..without });
        assert_eq!(focus, Compression::focus(), "(got, expected)");
        assert!(focus.samples_vision() && !focus.is_none());
        focus.text_mut().expect("the text-guided sampler").layer = Some(3);
        assert_eq!(focus.text().and_then(|text| text.layer), Some(3), "(got, expected)");
        assert_eq!(focus.to_string(), "focus:layer=3", "(got, expected)");
        assert_eq!((Compression::none().text(), read("fastv").samples_vision()), (None, false), "(got, expected)");
    }
}
