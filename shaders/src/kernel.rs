//! A kernel: its WGSL text, and what a host needs to launch it.
//!
//! In WGSL the order of declarations does not matter, so the text is a concatenation: storage type, pack width,
//! constants, the texts that read a weight, shared texts, body. Each file is valid for WGSL tools.

use std::fmt::Write;

use crate::codes::Format;

/// [`Kernel::weight`] of a kernel that reads a weight only by `weight_at`.
pub(crate) const WEIGHT: Option<[&[&str]; 2]> =
    Some([&[include_str!("wgsl/shared/weight_float.wgsl")], &[include_str!("wgsl/shared/weight_codes.wgsl")]]);

/// A kernel, in all its variants.
#[derive(Debug)]
pub struct Kernel {
    /// The name of its file in `wgsl/`, without the extension.
    pub name: &'static str,
    /// The text of this file: the entry point `main`, and its declarations.
    pub body: &'static str,
    /// Invocations per workgroup: `LANES` in the text. Where `LANES` is one of the constants, see [`Kernel::lanes`].
    pub lanes: u32,
    /// Storage buffers, where the weight is floats: see [`Kernel::storage_buffers`].
    pub buffers: u32,
    /// Size of the parameters, in bytes.
    pub parameters: usize,
    /// The storage types and pack widths of floats that it supports.
    pub variants: &'static [Variant],
    /// Names of the constants that the host adds before the body.
    pub constants: &'static [&'static str],
    /// Texts of `wgsl/shared/` that several kernels use. They come before the body.
    pub shared: &'static [&'static str],
    /// For a kernel that reads a weight: the texts of `wgsl/shared/` that read floats, and those that read codes.
    pub weight: Option<[&'static [&'static str]; 2]>,
}

/// The constant `LANES` of a kernel with one workgroup. On a CPU (`software`) more lanes are not faster, and SwiftShader
/// compiles a store for each word of workgroup memory.
pub const fn one_workgroup(software: bool) -> u32 {
    if software { 32 } else { 256 }
}

/// How elements are stored, and how many are processed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Variant {
    /// Storage in f16. Sums are always f32.
    pub half: bool,
    /// Elements per pack: 4 where the row length is a multiple of four, else 1.
    pub pack: u32,
    /// The format of a weight of codes; None for floats.
    pub codes: Option<Format>,
}

impl Variant {
    /// f32, packs of one. Also for kernels with one variant.
    pub const F32: Self = Self { half: false, pack: 1, codes: None };
    /// f32, packs of four.
    pub const F32X4: Self = Self { half: false, pack: 4, codes: None };
    /// f16, packs of one.
    pub const F16: Self = Self { half: true, pack: 1, codes: None };
    /// f16, packs of four.
    pub const F16X4: Self = Self { half: true, pack: 4, codes: None };
    /// All variants of floats.
    pub const ALL: &'static [Self] = &[Self::F32, Self::F32X4, Self::F16, Self::F16X4];
    /// The variants of floats with packs of four.
    pub const FOURS: &'static [Self] = &[Self::F32X4, Self::F16X4];
    /// The variant of kernels with f32 or integer buffers only.
    pub const ONLY_F32: &'static [Self] = &[Self::F32];

    /// The variant of a weight of codes. All other buffers are f32, in packs of four.
    pub const fn of_codes(format: Format) -> Self {
        Self { codes: Some(format), ..Self::F32X4 }
    }

    /// Bytes per pack of floats.
    pub const fn bytes(self) -> u32 {
        self.pack * if self.half { 2 } else { 4 }
    }
}

impl std::fmt::Display for Variant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.codes {
            Some(format) => write!(f, "{format}"),
            None => write!(f, "{}x{}", if self.half { "f16" } else { "f32" }, self.pack),
        }
    }
}

impl Kernel {
    /// Storage buffers of a variant: with codes, the scales are one more. The next binding is the uniform block of the
    /// parameters.
    pub fn storage_buffers(&self, variant: Variant) -> u32 {
        self.buffers + u32::from(variant.codes.is_some())
    }

    /// Invocations per workgroup with these values of [`Kernel::constants`].
    pub fn lanes(&self, constants: &[u32]) -> u32 {
        let place = self.constants.iter().position(|name| *name == "LANES");
        place.and_then(|i| constants.get(i)).copied().unwrap_or(self.lanes)
    }

    /// The complete text of a variant. `constants` are the values of [`Kernel::constants`], in the same order.
    pub fn wgsl(&self, variant: Variant, constants: &[u32]) -> String {
        let storage =
            if variant.half { include_str!("wgsl/shared/f16.wgsl") } else { include_str!("wgsl/shared/f32.wgsl") };
        let pack = match variant.pack {
            4 => include_str!("wgsl/shared/pack4.wgsl"),
            _ => include_str!("wgsl/shared/pack1.wgsl"),
        };
        let format = variant.codes.map(|Format { bits, minimum, group }| [bits, u32::from(minimum), group]);
        let of_format = ["BITS", "MINIMUM", "GROUP"].into_iter().zip(format.into_iter().flatten());
        let mut text = format!("{storage}\n{pack}\n");
        for (name, value) in self.constants.iter().copied().zip(constants.iter().copied()).chain(of_format) {
            writeln!(text, "const {name}: u32 = {value}u;").unwrap_or_default(); // writing to a String never fails
        }
        let weight = self.weight.map_or(&[][..], |texts| texts[usize::from(variant.codes.is_some())]);
        for shared in weight.iter().chain(self.shared) {
            text += shared;
        }
        text + self.body
    }
}
