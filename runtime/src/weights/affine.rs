//! MLX's affine quantisation: `X.weight` (rows, K bits / 32) in U32 with the first code in the lowest bits, `X.scales`
//! and `X.biases` (rows, K / group) in floats; value = scale code + bias.
//!
//! Source: `quantize` and `dequantize` of MLX, its `nn.QuantizedLinear`, and `quantize_model` of mlx-vlm.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use super::{Bad, Codes, Format, Kind, Stored, StoredDtype, TensorEntry, Weights, half};
use crate::error::Error;

/// Numbers per read when scales and biases are compared.
const NUMBERS: u64 = 1 << 20;

/// The settings of MLX's quantised modules, from `quantization` in config.json.
#[derive(Clone, Debug)]
pub struct Modules {
    /// The format of all modules without their own.
    pub all: Format,
    /// By module path: its own format, or None where it is not quantised.
    pub own: BTreeMap<String, Option<Format>>,
}

impl Modules {
    /// The format of a module. Like mlx-vlm, it also accepts paths within the language model.
    fn of(&self, module: &str) -> Option<Format> {
        let within = || self.own.get(module.strip_prefix("language_model.")?);
        self.own.get(module).or_else(within).copied().unwrap_or(Some(self.all))
    }
}

/// A matrix in MLX's layout. Its parts are codes, scales and biases.
#[derive(Clone, Copy, Debug)]
pub struct Affine {
    format: Format,
    width: u64,
    scales: StoredDtype,
    biases: StoredDtype,
}

impl Affine {
    fn groups(&self) -> u64 {
        self.width / u64::from(self.format.group)
    }
}

impl Kind for Affine {
    fn name(&self) -> String {
        self.format.to_string()
    }

    fn format(&self) -> Option<Format> {
        Some(self.format)
    }

    fn spans(&self, rows: &Range<u64>) -> Vec<Range<u64>> {
        let codes = self.width * u64::from(self.format.bits) / 8;
        let bytes = [codes, self.groups() * self.scales.size(), self.groups() * self.biases.size()];
        bytes.into_iter().map(|row| rows.start * row..rows.end * row).collect()
    }

    fn without_codes(&self, spans: &mut [Range<u64>]) {
        spans[0] = 0..0;
    }

    fn repack(&self, parts: &[Vec<u8>], _: &Range<u64>, codes: &mut Codes) {
        codes.push_words(&parts[0], self.format.bits);
        let scales = self.scales.floats(&parts[1]).map(half);
        if self.format.minimum {
            codes
                .scales
                .extend(scales.zip(self.biases.floats(&parts[2])).map(|(scale, bias)| scale | half(bias) << 16));
        } else {
            codes.push_scales(&scales.collect::<Vec<u32>>(), self.groups() as usize);
        }
    }

    fn non_finite(&self, parts: &[Vec<u8>], rows: &Range<u64>) -> Option<Bad> {
        [(1, self.scales), (2, self.biases)].into_iter().find_map(|(part, dtype)| {
            let (at, value) = dtype.non_finite(&parts[part])?;
            Some(Bad { part, index: rows.start * self.groups() + at, block: None, value })
        })
    }
}

/// Makes one entry of codes, scales and biases.
pub(super) async fn join(weights: &mut Weights, settings: &Modules) -> Result<(), Error> {
    let module = |(name, entry): (&String, &TensorEntry)| {
        let codes = || name.strip_suffix(".weight").filter(|_| matches!(&entry.stored, Err(dtype) if dtype == "U32"));
        name.strip_suffix(".scales").or_else(|| name.strip_suffix(".biases")).or_else(codes).map(str::to_owned)
    };
    let modules: BTreeSet<String> = weights.entries.iter().filter_map(module).collect();
    for module in modules {
        let Some(mut format) = settings.of(&module) else { continue };
        let [name, scales, biases] = ["weight", "scales", "biases"].map(|part| format!("{module}.{part}"));
        let [rows, words] = weights.matrix_of(&name, "U32")?;
        let width = Some(format.bits)
            .filter(|bits| [4, 8].contains(bits))
            .and_then(|bits| words.checked_mul(32 / u64::from(bits)));
        let Some(width) = width.filter(|&width| usize::try_from(width).is_ok_and(|width| format.fits(width))) else {
            let expected = format!("rows of codes of {} bits in whole groups of {}", format.bits, format.group);
            return Err(weights.wrong(&name, expected));
        };
        let shape = [rows, width / u64::from(format.group)];
        let reason = format!(", for {} bits in groups of {} as in config.json", format.bits, format.group);
        let floats = |name: &str| weights.floats_of(name, &shape, &reason);
        let (scale, bias) = (floats(&scales)?, floats(&biases)?);
        let zero = (1u32 << (format.bits - 1)) as f32;
        format.minimum = !symmetric(weights, (&scales, scale), (&biases, bias), zero).await?;
        let kind = Affine { format, width, scales: scale, biases: bias };
        weights.replace(name.clone(), &[name, scales, biases], Stored::Affine(kind), vec![rows, width]);
    }
    Ok(())
}

/// Whether every bias is `-zero scale`. In most tensors the first groups already show it, so this reads little.
async fn symmetric(
    weights: &Weights,
    (scales, scale): (&str, StoredDtype),
    (biases, bias): (&str, StoredDtype),
    zero: f32,
) -> Result<bool, Error> {
    let [scales, biases] = [scales, biases].map(|name| &weights.entries[name]);
    let all = scales.values();
    let (mut first, mut count) = (0, 64);
    let mut bytes = [Vec::new(), Vec::new()];
    while first < all {
        let last = all.min(first + count);
        weights.read(scales, 0, &(first * scale.size()..last * scale.size()), &mut bytes[0]).await?;
        weights.read(biases, 0, &(first * bias.size()..last * bias.size()), &mut bytes[1]).await?;
        if scale.floats(&bytes[0]).zip(bias.floats(&bytes[1])).any(|(scale, bias)| bias != -zero * scale) {
            return Ok(false);
        }
        (first, count) = (last, NUMBERS);
    }
    Ok(true)
}
