//! A kernel: its WGSL text, and what a host needs to launch it.
//!
//! In WGSL the order of declarations does not matter, so the text is a concatenation: storage type, pack width,
//! constants, shared texts, body. Each file is valid for WGSL tools.

use std::fmt::Write;

/// A kernel, in all its variants.
#[derive(Debug)]
pub struct Kernel {
    /// The name of its file in `wgsl/`, without the extension.
    pub name: &'static str,
    /// The text of this file: the entry point `main`, and its declarations.
    pub body: &'static str,
    /// Invocations per workgroup: `LANES` in the text.
    pub lanes: u32,
    /// Storage buffers. The next binding is the uniform block of the parameters.
    pub buffers: u32,
    /// Size of the parameters, in bytes.
    pub parameters: usize,
    /// The storage types and pack widths that it supports.
    pub variants: &'static [Variant],
    /// Names of the constants that the host adds before the body.
    pub constants: &'static [&'static str],
    /// Texts of `wgsl/shared/` that several kernels use. They come before the body.
    pub shared: &'static [&'static str],
}

/// How elements are stored, and how many are processed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Variant {
    /// Storage in f16. Sums are always f32.
    pub half: bool,
    /// Elements per pack: 4 where the row length is a multiple of four, else 1.
    pub pack: u32,
}

impl Variant {
    /// f32, packs of one. Also for kernels with one variant.
    pub const F32: Self = Self { half: false, pack: 1 };
    /// f32, packs of four.
    pub const F32X4: Self = Self { half: false, pack: 4 };
    /// f16, packs of one.
    pub const F16: Self = Self { half: true, pack: 1 };
    /// f16, packs of four.
    pub const F16X4: Self = Self { half: true, pack: 4 };
    /// All variants.
    pub const ALL: &'static [Self] = &[Self::F32, Self::F32X4, Self::F16, Self::F16X4];
    /// The variants with packs of four.
    pub const FOURS: &'static [Self] = &[Self::F32X4, Self::F16X4];
    /// The variant of kernels with f32 or integer buffers only.
    pub const ONLY_F32: &'static [Self] = &[Self::F32];

    /// Bytes per pack.
    pub const fn bytes(self) -> u32 {
        self.pack * if self.half { 2 } else { 4 }
    }
}

impl std::fmt::Display for Variant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", if self.half { "f16" } else { "f32" }, self.pack)
    }
}

impl Kernel {
    /// The complete text of a variant. `constants` are the values of [`Kernel::constants`], in the same order.
    pub fn wgsl(&self, variant: Variant, constants: &[u32]) -> String {
        let storage =
            if variant.half { include_str!("wgsl/shared/f16.wgsl") } else { include_str!("wgsl/shared/f32.wgsl") };
        let pack = match variant.pack {
            4 => include_str!("wgsl/shared/pack4.wgsl"),
            _ => include_str!("wgsl/shared/pack1.wgsl"),
        };
        let mut text = format!("{storage}\n{pack}\n");
        for (name, value) in self.constants.iter().zip(constants) {
            writeln!(text, "const {name}: u32 = {value}u;").unwrap_or_default(); // writing to a String never fails
        }
        for shared in self.shared {
            text += shared;
        }
        text + self.body
    }
}
