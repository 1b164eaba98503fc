//! One kernel: its WGSL text, and what a host must know to launch it.
//!
//! WGSL's module scope knows no order, so putting texts after one another is the import system: storage type, pack width,
//! constants, body. Every file stays readable to tools.

use std::fmt::Write;

/// A shader before its variant is chosen.
#[derive(Debug)]
pub struct Kernel {
    /// Its file's stem in `wgsl/`.
    pub name: &'static str,
    /// The entry point `main` and all that only it needs.
    pub body: &'static str,
    /// Invocations of one workgroup: `LANES` in the text.
    pub lanes: u32,
    /// Storage buffers; the uniform block of parameters is the binding after them.
    pub buffers: u32,
    /// Bytes of the parameters.
    pub parameters: usize,
    /// Storage types and pack widths that it exists in.
    pub variants: &'static [Variant],
    /// Names of the constants that the host writes before the body.
    pub constants: &'static [&'static str],
}

/// How elements are stored, and how many an invocation handles at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Variant {
    /// Storage in f16; sums are f32 in any case.
    pub half: bool,
    /// Elements in a pack: 4 where rows are a multiple of four long, else 1.
    pub pack: u32,
}

impl Variant {
    /// f32, one by one: also for kernels whose buffers have one type only.
    pub const F32: Self = Self { half: false, pack: 1 };
    /// f32 in fours.
    pub const F32X4: Self = Self { half: false, pack: 4 };
    /// f16, one by one.
    pub const F16: Self = Self { half: true, pack: 1 };
    /// f16 in fours.
    pub const F16X4: Self = Self { half: true, pack: 4 };
    /// All.
    pub const ALL: &'static [Self] = &[Self::F32, Self::F32X4, Self::F16, Self::F16X4];
    /// The variants that read fours.
    pub const FOURS: &'static [Self] = &[Self::F32X4, Self::F16X4];
    /// The one variant of kernels whose buffers have one type only.
    pub const ONLY_F32: &'static [Self] = &[Self::F32];

    /// Bytes of a pack.
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
    /// The whole text of a variant. `constants` are the values of [`Kernel::constants`], in their order.
    pub fn wgsl(&self, variant: Variant, constants: &[u32]) -> String {
        let storage =
            if variant.half { include_str!("wgsl/shared/f16.wgsl") } else { include_str!("wgsl/shared/f32.wgsl") };
        let pack = match variant.pack {
            4 => include_str!("wgsl/shared/pack4.wgsl"),
            _ => include_str!("wgsl/shared/pack1.wgsl"),
        };
        let mut text = format!("{storage}\n{pack}\n");
        for (name, value) in self.constants.iter().zip(constants) {
            writeln!(text, "const {name}: u32 = {value}u;").unwrap_or_default(); // a String takes any text
        }
        text + self.body
    }
}

/// Every kernel, in the order of the data.
pub const KERNELS: [&Kernel; 10] = [
    &crate::region_pool::KERNEL,
    &crate::scale_select::FOLD,
    &crate::scale_select::KERNEL,
    &crate::compact::ROWS,
    &crate::compact::KERNEL,
    &crate::text_score::PRODUCT,
    &crate::text_score::SOFTMAX,
    &crate::text_score::BEST,
    &crate::top_k::KERNEL,
    &crate::row_gather::KERNEL,
];
