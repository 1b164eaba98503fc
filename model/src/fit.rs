//! How the matrices of a checkpoint are stored so that it fits into memory. Input: what a user asks for, and the bytes
//! that there are. Output: a storage with its plan, or an error with the options that would fit.

use burn::tensor::DType;
use fovea_runtime::{Error as RuntimeError, OpenDevice, device::DeviceClass, memory};

use crate::{
    checkpoint::Checkpoint,
    error::Error,
    plan::Plan,
    storage::{Activations, CacheType, LoadOptions, Precision, Storage, Stored, TowerType},
};

/// How a checkpoint is loaded.
pub(crate) struct Fit {
    pub(crate) storage: Storage,
    pub(crate) plan: Plan,
    /// Why the matrices are not stored as usual, if so.
    pub(crate) note: Option<String>,
}

/// How to store the matrices: as requested; with `Precision::Auto`, if the usual way does not fit into `have` bytes,
/// the most exact way that fits.
///
/// # Errors
/// [`RuntimeError::OutOfMemory`] if the model does not fit; [`RuntimeError::MissingFeature`] if f16 is requested of a
/// device without it.
pub(crate) fn fit(
    checkpoint: &Checkpoint,
    device: &OpenDevice,
    options: LoadOptions,
    have: Option<u64>,
) -> Result<Fit, Error> {
    let halves = device.info.class == DeviceClass::Cpu || device.has_f16();
    if (options.precision == Precision::F16 || options.cache == CacheType::F16) && !halves {
        let what =
            "f16, which was chosen for weights or cache: choose f32 (for weights also q8 or q4), or another device";
        return Err(RuntimeError::MissingFeature { device: device.info.to_string(), what: what.to_owned() }.into());
    }
    let asked = Asked { checkpoint, options, class: device.info.class, halves, bits: checkpoint.stored_bits() };
    let usual = asked.usual(device.has_f16());
    let (storage, plan, most) = asked.planned(asked.storage((usual, true), Extra::NONE));
    let Some(have) = have.filter(|have| most > *have) else {
        let kept = options.precision == Precision::Q8 && storage.loaded() == Stored::Q4;
        let note = "the weights are in q4, as in the file: --weights q8 does not change codes that a file has";
        return Ok(Fit { storage, plan, note: kept.then(|| note.to_owned()) });
    };
    if options.precision == Precision::Auto {
        let mut others =
            asked.ways(usual).into_iter().skip(1).map(|way| asked.planned(asked.storage(way, Extra::NONE)));
        if let Some((storage, plan, _)) = others.find(|(.., need)| *need <= have) {
            let note = Some(instead(usual, &storage, memory::apart(most, have)));
            return Ok(Fit { storage, plan, note });
        }
    }
    let what = format!("the weights in {} and one question", storage.loaded().name());
    Err(RuntimeError::OutOfMemory { what, need: most, have, hint: asked.hint(usual, most, have) }.into())
}

/// Why `--weights auto` does not store the matrices as usual.
fn instead(usual: Stored, storage: &Storage, [need, available]: [String; 2]) -> String {
    let cost = match (storage.native, storage.stored) {
        (false, _) => "; the file's codes are quantised again, and answers can differ",
        (_, Stored::Q4) => "; in q4 answers can differ",
        (_, Stored::Q8) => "; in q8 answers rarely differ",
        _ => "",
    };
    let (name, usual) = (storage.stored.name(), usual.name());
    format!("the weights are in {name}: in {usual} they and one question need {need}, {available} are available{cost}")
}

/// How weights are stored, and whether codes of the file are loaded as they are.
type Way = (Stored, bool);

/// What can be stored in fewer bytes besides the weights.
#[derive(Clone, Copy)]
struct Extra {
    /// The KV cache, in f16.
    cache: bool,
    /// The vision tower, in q8.
    tower: bool,
}

impl Extra {
    const NONE: Self = Self { cache: false, tower: false };
    /// The one that changes an answer least is first.
    const ALL: [Self; 4] = [
        Self::NONE,
        Self { cache: true, tower: false },
        Self { cache: false, tower: true },
        Self { cache: true, tower: true },
    ];

    /// Its options.
    fn flags(self) -> impl Iterator<Item = &'static str> {
        let flags = [(self.cache, "--cache f16"), (self.tower, "--tower q8")];
        flags.into_iter().filter(|(set, _)| *set).map(|(_, flag)| flag)
    }
}

/// A way to load the model, and the options that ask for it.
struct Choice {
    way: Way,
    /// The option for the weights, if it must change.
    weights: Option<String>,
    /// All other options that must change.
    extra: Vec<&'static str>,
    /// Bytes.
    need: u64,
}

impl Choice {
    /// Its options.
    fn flags(&self) -> String {
        let flags: Vec<&str> = self.weights.as_deref().into_iter().chain(self.extra.iter().copied()).collect();
        flags.join(" ")
    }
}

/// What a user asks for.
struct Asked<'a> {
    checkpoint: &'a Checkpoint,
    options: LoadOptions,
    class: DeviceClass,
    /// Whether the device computes in f16.
    halves: bool,
    /// The bits of the file's codes, if it has codes.
    bits: Option<u32>,
}

impl Asked<'_> {
    /// How the weights are stored where there is enough memory.
    fn usual(&self, is_fast_in_f16: bool) -> Stored {
        match (self.options.precision, self.bits) {
            (Precision::F32, _) => Stored::F32,
            (Precision::F16, _) => Stored::F16,
            (Precision::Q8, _) | (Precision::Auto, Some(8)) => Stored::Q8,
            (Precision::Q4, _) | (Precision::Auto, Some(_)) => Stored::Q4,
            (Precision::Auto, None) if is_fast_in_f16 && self.checkpoint.mostly_16_bit() => Stored::F16,
            (Precision::Auto, None) => Stored::F32,
        }
    }

    /// The usual way; then the others, the most exact first.
    fn ways(&self, usual: Stored) -> Vec<Way> {
        // A small model with one large matrix can need less in f32, where nothing is converted. Codes of 4 bits stay so
        // in q8.
        let differs = |stored: &Stored| match stored {
            Stored::F16 => self.halves,
            Stored::Q8 => self.bits != Some(4),
            _ => true,
        };
        let others = Stored::ALL.into_iter().filter(|stored| *stored != usual).filter(differs);
        // Our 4 bits need less memory than those of some files.
        let smallest = self.bits.map(|_| (Stored::Q4, false));
        [usual].into_iter().chain(others).map(|stored| (stored, true)).chain(smallest).collect()
    }

    fn storage(&self, (stored, native): Way, extra: Extra) -> Storage {
        let options = LoadOptions {
            cache: if extra.cache { CacheType::F16 } else { self.options.cache },
            tower: if extra.tower { TowerType::Q8 } else { self.options.tower },
            // On a GPU activations are rounded only if this is asked for: products of floats are fast there.
            activations: match self.options.activations {
                Activations::Auto if self.class != DeviceClass::Cpu => Activations::F32,
                chosen => chosen,
            },
            ..self.options
        };
        Storage { native, ..Storage::chosen(stored, self.bits == Some(4), &options, self.halves) }
    }

    fn planned(&self, storage: Storage) -> (Storage, Plan, u64) {
        let plan = Plan::with(self.checkpoint, None, &storage);
        let need = plan.peak_on(self.class);
        (storage, plan, need)
    }

    /// Every way to load the model with other options: those with the fewest options first, of these the ones that
    /// leave the weights as they are asked for, then the most exact.
    fn choices(&self, usual: Stored) -> Vec<Choice> {
        // The page has no option for the tower.
        let tower = self.options.tower == TowerType::Auto && cfg!(not(target_family = "wasm"));
        let extras = Extra::ALL.into_iter().filter(|extra| (tower || !extra.tower) && (self.halves || !extra.cache));
        let mut choices = Vec::new();
        for (extra, way) in extras.flat_map(|extra| self.ways(usual).into_iter().map(move |way| (extra, way))) {
            if extra.cache && self.storage(way, Extra::NONE).cache == DType::F16 {
                continue;
            }
            let weights = match way {
                // `auto` finds the way itself.
                _ if self.options.precision == Precision::Auto => None,
                (_, false) => Some("--weights auto".to_owned()),
                (stored, true) => (stored != usual).then(|| format!("--weights {}", stored.name())),
            };
            let (.., need) = self.planned(self.storage(way, extra));
            choices.push(Choice { way, weights, extra: extra.flags().collect(), need });
        }
        let changes = |choice: &Choice| choice.extra.len() + usize::from(choice.weights.is_some());
        choices.sort_by_key(|choice| (changes(choice), choice.weights.is_some()));
        choices
    }

    /// What to do where the model needs `most` bytes and there are `have`.
    fn hint(&self, usual: Stored, most: u64, have: u64) -> String {
        let choices = self.choices(usual);
        if let Some(choice) = choices.iter().find(|choice| choice.need <= have) {
            return format!("use {}: then it needs {}", choice.flags(), memory::at_least(choice.need));
        }
        let more = if self.options.memory.is_some() {
            "a larger --memory"
        } else {
            "a device with more memory (--memory SIZE if this one has more)"
        };
        let least = choices.iter().min_by_key(|choice| choice.need).filter(|choice| choice.need < most);
        let least = least.map_or(String::new(), |Choice { way, extra, need, .. }| {
            let way = match way {
                (_, false) => " quantised again".to_owned(),
                (stored, true) if *stored == usual => String::new(),
                (stored, true) => format!(" in {}", stored.name()),
            };
            let with = if extra.is_empty() { String::new() } else { format!(" with {}", extra.join(" ")) };
            format!("even{way}{with} it needs {}; ", memory::at_least(*need))
        });
        format!("{least}use a smaller checkpoint, or {more}")
    }
}

#[cfg(test)]
mod tests {
    use fovea_runtime::DeviceChoice;

    use super::*;
    use crate::demo;

    /// The error, or the note, of the demo checkpoint on the CPU with `have` bytes.
    fn said(options: LoadOptions, have: u64) -> String {
        let options = LoadOptions { memory: Some(have), ..options };
        pollster::block_on(async {
            let device = OpenDevice::open(&DeviceChoice::Cpu).await.expect("the CPU");
            let checkpoint = Checkpoint::open(demo::source()).await.expect("the demo checkpoint");
            match fit(&checkpoint, &device, options, Some(have)) {
                Ok(fit) => fit.note.unwrap_or_default(),
                Err(why) => why.to_string(),
            }
        })
    }

    /// What the demo checkpoint needs on the CPU.
    fn need(stored: Stored, cache: CacheType, tower: TowerType) -> u64 {
        let checkpoint = pollster::block_on(Checkpoint::open(demo::source())).expect("the demo checkpoint");
        let options = LoadOptions { cache, tower, ..LoadOptions::default() };
        Plan::chosen(&checkpoint, None, stored, &options).cpu_peak
    }

    #[test]
    fn a_refusal_offers_the_fewest_options_that_fit() {
        let small = need(Stored::Q4, CacheType::Auto, TowerType::Q8);
        for (options, fits, flags) in [
            (Precision::F32.into(), need(Stored::F32, CacheType::F16, TowerType::Auto), "--cache f16"),
            (Precision::F32.into(), need(Stored::F16, CacheType::Auto, TowerType::Auto), "--weights f16"),
            (Precision::F32.into(), need(Stored::Q4, CacheType::Auto, TowerType::Auto), "--weights q4"),
            (Precision::F32.into(), small, "--weights q4 --tower q8"),
            (Precision::Q4.into(), small, "--tower q8"),
            // `auto` takes q4 itself.
            (Precision::Auto.into(), small, "--tower q8"),
            (
                LoadOptions { cache: CacheType::F32, ..Precision::Q4.into() },
                need(Stored::Q4, CacheType::F16, TowerType::Auto),
                "--cache f16",
            ),
            (
                LoadOptions { cache: CacheType::F32, tower: TowerType::Q8, ..Precision::Q8.into() },
                small,
                "--weights q4 --cache f16",
            ),
        ] {
            let (said, end) = (said(options, fits), format!("use {flags}: then it needs {}", memory::at_least(fits)));
            assert!(said.starts_with("not enough memory for the weights in "), "got: {said}");
            assert!(said.ends_with(&format!("; {end}")), "expected {end:?}, got: {said}");
        }
    }

    #[test]
    fn where_nothing_fits_the_least_is_named() {
        let least = memory::at_least(need(Stored::Q4, CacheType::Auto, TowerType::Q8));
        let q8 = LoadOptions { tower: TowerType::Q8, ..LoadOptions::default() };
        for (options, expected) in [
            (Precision::F32.into(), format!("; even in q4 with --tower q8 it needs {least}; ")),
            (Precision::Auto.into(), format!("; even in q4 with --tower q8 it needs {least}; ")),
            (Precision::Q4.into(), format!("; even with --tower q8 it needs {least}; ")),
            (LoadOptions { precision: Precision::Q8, ..q8 }, format!("; even in q4 it needs {least}; ")),
        ] {
            let said = said(options, 1000);
            assert!(said.contains(&expected), "expected {expected:?}, got: {said}");
            assert!(said.ends_with("; use a smaller checkpoint, or a larger --memory"), "got: {said}");
        }
        // Nothing is smaller: the hint names no other size.
        let said = said(LoadOptions { precision: Precision::Q4, ..q8 }, 1000);
        assert!(said.ends_with("available 1000 B; use a smaller checkpoint, or a larger --memory"), "got: {said}");
    }

    #[test]
    fn auto_takes_the_most_exact_that_fits_and_says_so() {
        let have = need(Stored::Q8, CacheType::Auto, TowerType::Auto);
        let said = said(LoadOptions::default(), have);
        assert!(said.starts_with("the weights are in q8: in f32 they and one question need "), "got: {said}");
    }
}
