//! How weights and keys and values are stored on a device: what a user asks for, and what a tensor gets.

use std::str::FromStr;

use burn::tensor::DType;
use fovea_runtime::network_ops::Format;

use crate::load::{Parameter, ParameterRole};

/// How the matrices are stored on the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Precision {
    /// As the file has them, if it is quantised; f16 if most weights are stored in 16 bits and the device computes in f16; else
    /// f32. If this does not fit into memory, the best of f16, q8 and q4 that fits.
    #[default]
    Auto,
    /// f32, for any stored dtype.
    F32,
    /// f16, for any stored dtype: half of the memory of f32.
    F16,
    /// 8 bits per value in the text model: about half of the memory of f16.
    Q8,
    /// 4 bits per value in the layers of the text model, 8 in embedding and head: about a third of the memory of f16.
    Q4,
}

/// How the KV cache is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CacheType {
    /// The dtype of the matrices that are stored as floats.
    #[default]
    Auto,
    /// f32.
    F32,
    /// f16.
    F16,
}

/// How the matrices in the layers of the vision tower are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TowerType {
    /// As other matrices that are stored as floats. Every visual token depends on the tower, so its error counts most.
    #[default]
    Auto,
    /// 8 bits per value, or as in the file where that has codes: half of the memory of f16. Faster on a CPU only with
    /// [`Activations::Int8`].
    Q8,
}

/// How the inputs of products with codes are stored, where there are many rows of them.
///
/// Int8 rounds each row to 8 bits, with one scale per group of the codes: the normalised mean square error of a product is
/// about 2e-5, as that of weights in q8. It needs a CPU with products of integers (x86-64: AVX2 or AVX-512 VNNI; aarch64:
/// the dot products of NEON; WebAssembly), or a GPU that runs our own kernels; everything else uses f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Activations {
    /// On a CPU int8 for codes of 4 bits, whose own error is 300 times as large; else f32. On a GPU f32.
    #[default]
    Auto,
    /// f32: a product is exact on the dequantised weights, except for the rounding of sums.
    F32,
    /// 8 bits.
    Int8,
}

/// A choice that has names.
macro_rules! named {
    ($type:ident, $count:literal, $what:literal, $($variant:ident $name:literal),*) => {
        impl $type {
            /// All names, for users.
            pub const NAMES: [&str; $count] = [$($name),*];

            /// Its name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }
        }

        impl FromStr for $type {
            type Err = String;

            /// From a name in any case.
            fn from_str(text: &str) -> Result<Self, String> {
                match text.to_ascii_lowercase().as_str() {
                    $($name => Ok(Self::$variant),)*
                    _ => Err(format!("{}: expected {}, got {text:?}", $what, Self::NAMES.join(", "))),
                }
            }
        }
    };
}

named!(Precision, 5, "weights", Auto "auto", F32 "f32", F16 "f16", Q8 "q8", Q4 "q4");
named!(CacheType, 3, "cache", Auto "auto", F32 "f32", F16 "f16");
named!(TowerType, 2, "tower", Auto "auto", Q8 "q8");
named!(Activations, 3, "activations", Auto "auto", F32 "f32", Int8 "int8");

/// Whether the pipelines of an answer are compiled while the weights are checked, by a short model of zeros.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rehearsal {
    /// On a GPU that is not a software GPU, for weights of 64 MiB or more. It ends when the weights are checked.
    #[default]
    Auto,
    /// Never.
    Never,
    /// On every GPU, and to its end.
    Always,
}

/// How a model is loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// How the matrices are stored.
    pub precision: Precision,
    /// How the KV cache is stored.
    pub cache: CacheType,
    /// How the matrices of the vision tower are stored.
    pub tower: TowerType,
    /// How the inputs of products with codes are stored.
    pub activations: Activations,
    /// Whether pipelines are compiled while the weights are checked.
    pub rehearsal: Rehearsal,
    /// Bytes of memory that may be used. None: what the system, or the driver of the GPU, reports as available; no limit
    /// where it is not known.
    pub memory: Option<u64>,
}

impl From<Precision> for LoadOptions {
    fn from(precision: Precision) -> Self {
        Self { precision, ..Self::default() }
    }
}

/// How matrices are stored on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// Codes of 8 bits in the text model, 16-bit floats elsewhere, except in a tower with [`TowerType::Q8`].
    Q8,
    /// Codes of 4 bits in the layers of the text model, of 8 bits in its tables or as in the file, 16-bit floats elsewhere, except
    /// in a tower with [`TowerType::Q8`].
    Q4,
}

impl Stored {
    /// All, the most exact first.
    pub const ALL: [Self; 4] = [Self::F32, Self::F16, Self::Q8, Self::Q4];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Q8 => "q8",
            Self::Q4 => "q4",
        }
    }
}

/// What tensors get on a device.
#[derive(Clone, Copy, Debug)]
pub struct Storage {
    /// How the matrices are stored.
    pub stored: Stored,
    /// Whether codes of a file are loaded as they are where they are not larger.
    pub native: bool,
    /// Whether the file has most layers in 4 bits, and some in 8 bits on purpose.
    pub mixed: bool,
    /// dtype of matrices that are stored as floats.
    pub floats: DType,
    /// dtype of the KV cache.
    pub cache: DType,
    /// How the matrices of the vision tower are stored.
    pub tower: TowerType,
    /// How the inputs of products with codes are stored.
    pub activations: Activations,
}

impl Storage {
    /// All matrices in f32.
    pub const F32: Self = Self::usual(Stored::F32, false);

    /// Floats and cache in f16, except with f32.
    pub(crate) const fn usual(stored: Stored, mixed: bool) -> Self {
        let floats = if matches!(stored, Stored::F32) { DType::F32 } else { DType::F16 };
        Self {
            stored,
            native: true,
            mixed,
            floats,
            cache: floats,
            tower: TowerType::Auto,
            activations: Activations::Auto,
        }
    }

    /// As a user asks for. `halves`: whether the device computes in f16.
    pub(crate) const fn chosen(stored: Stored, mixed: bool, options: &LoadOptions, halves: bool) -> Self {
        let usual = Self::usual(stored, mixed);
        let floats = if halves { usual.floats } else { DType::F32 };
        let cache = match options.cache {
            CacheType::Auto => floats,
            CacheType::F32 => DType::F32,
            CacheType::F16 => DType::F16,
        };
        Self { floats, cache, tower: options.tower, activations: options.activations, ..usual }
    }

    /// How most matrices in the layers of the text model are stored: codes of 4 bits in the file stay so in q8.
    pub(crate) const fn loaded(&self) -> Stored {
        match self.stored {
            Stored::Q8 if self.native && self.mixed => Stored::Q4,
            stored => stored,
        }
    }

    /// The format of codes for a matrix of `role` with rows of `width` values; None: floats. `file` is the format in the file.
    pub(crate) fn format(&self, role: ParameterRole, file: Option<Format>, width: usize) -> Option<Format> {
        let file = file.filter(|_| self.native);
        let format = match (self.stored, role) {
            (_, ParameterRole::Tower) if self.tower == TowerType::Q8 => file.unwrap_or(Format::Q8),
            (_, ParameterRole::Tower) => return None,
            (Stored::F32 | Stored::F16, _) | (_, ParameterRole::Exact | ParameterRole::Float) => return None,
            (_, ParameterRole::Table) | (Stored::Q8, ParameterRole::Layer) => file.unwrap_or(Format::Q8),
            (Stored::Q4, ParameterRole::Layer) => {
                file.filter(|file| file.bits == 4 || self.mixed).unwrap_or(Format::Q4)
            }
        };
        format.fits(width).then_some(format)
    }

    /// Whether the inputs of a matrix of codes are rounded to 8 bits. On a GPU, Auto has become F32 before.
    pub(crate) const fn rounds(&self, format: Format) -> bool {
        match self.activations {
            Activations::Auto => format.bits == 4,
            Activations::F32 => false,
            Activations::Int8 => true,
        }
    }

    /// The format of a matrix and of the one with which it is joined row by row: they have one format.
    pub(crate) fn format_of(&self, parameter: &Parameter, file: &dyn Fn(&str) -> Option<Format>) -> Option<Format> {
        let of = |name: &str| self.format(parameter.role, file(name), parameter.width());
        let own = of(&parameter.name);
        match &parameter.with {
            Some(other) if of(other) != own => Some(Format::Q8),
            _ => own,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_in_any_case() {
        assert_eq!(
            (Precision::Auto.name(), "Q8".parse(), "f16".parse()),
            ("auto", Ok(Precision::Q8), Ok(CacheType::F16))
        );
        let why = "q5".parse::<Precision>().expect_err("not a name");
        assert_eq!(why, "weights: expected auto, f32, f16, q8, q4, got \"q5\"");
    }

    #[test]
    fn a_file_decides_where_it_loses_nothing() {
        let [m4, g16] = [Format { minimum: true, ..Format::Q4 }, Format { group: 16, ..Format::Q8 }];
        let of = |stored, role, file, mixed| Storage::usual(stored, mixed).format(role, file, 4096);
        assert_eq!(of(Stored::F16, ParameterRole::Layer, Some(m4), false), None);
        assert_eq!(of(Stored::Q8, ParameterRole::Layer, None, false), Some(Format::Q8));
        assert_eq!(of(Stored::Q8, ParameterRole::Layer, Some(m4), false), Some(m4)); // 8 bits would add nothing
        assert_eq!(of(Stored::Q4, ParameterRole::Layer, Some(g16), false), Some(Format::Q4));
        assert_eq!(of(Stored::Q4, ParameterRole::Layer, Some(g16), true), Some(g16));
        assert_eq!(of(Stored::Q4, ParameterRole::Table, None, false), Some(Format::Q8));
        assert_eq!(of(Stored::Q4, ParameterRole::Float, Some(m4), true), None);
        assert_eq!(of(Stored::Q4, ParameterRole::Tower, Some(m4), true), None);
        let q4 = Storage::usual(Stored::Q4, true);
        assert_eq!(q4.format(ParameterRole::Layer, None, 48), None); // no whole groups
        assert_eq!(Storage { native: false, ..q4 }.format(ParameterRole::Layer, Some(g16), 4096), Some(Format::Q4));
    }

    #[test]
    fn codes_of_four_bits_are_named_q4_in_q8_too() {
        let of = |stored, mixed| Storage::usual(stored, mixed).loaded();
        assert_eq!(Stored::ALL.map(|stored| of(stored, false)), Stored::ALL);
        assert_eq!(Stored::ALL.map(|stored| of(stored, true)), [Stored::F32, Stored::F16, Stored::Q4, Stored::Q4]);
    }

    #[test]
    fn the_tower_has_codes_only_if_asked() {
        let f16 = Storage::usual(Stored::F16, false);
        let q8 = Storage { tower: TowerType::Q8, ..f16 };
        let of = |storage: Storage, role| storage.format(role, None, 1024);
        assert_eq!(of(f16, ParameterRole::Tower), None);
        assert_eq!(of(q8, ParameterRole::Tower), Some(Format::Q8));
        assert_eq!([ParameterRole::Layer, ParameterRole::Float].map(|role| of(q8, role)), [None, None]);
        // Codes of the file stay; rows that are not whole groups are floats (SigLIP so400m: 4304).
        assert_eq!(q8.format(ParameterRole::Tower, Some(Format::Q4), 1024), Some(Format::Q4));
        assert_eq!(q8.format(ParameterRole::Tower, None, 4304), None);
    }

    #[test]
    fn inputs_are_rounded_for_codes_of_four_bits_or_as_asked() {
        let q4 = Storage::usual(Stored::Q4, true);
        let of = |activations| [Format::Q4, Format::Q8].map(|format| Storage { activations, ..q4 }.rounds(format));
        assert_eq!(of(Activations::Auto), [true, false]);
        assert_eq!(of(Activations::F32), [false, false]);
        assert_eq!(of(Activations::Int8), [true, true]);
    }

    #[test]
    fn a_pair_that_is_joined_row_by_row_has_one_format() {
        let gate = Parameter {
            name: "gate".into(),
            shape: vec![64, 4096],
            role: ParameterRole::Layer,
            with: Some("up".into()),
        };
        let storage = Storage::usual(Stored::Q4, true);
        let g16 = Format { group: 16, ..Format::Q8 };
        assert_eq!(storage.format_of(&gate, &|_| Some(g16)), Some(g16));
        assert_eq!(storage.format_of(&gate, &|name| (name == "up").then_some(g16)), Some(Format::Q8));
    }
}
