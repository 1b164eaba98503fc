//! Values of options that several commands have.

use std::str::FromStr;

use clap::ValueEnum;
use fovea_model::Precision;
use fovea_runtime::DeviceChoice;

/// The data type of weight matrices.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Dtype {
    /// f16 where the weights are stored in 16 bits and the device computes in f16, or where f32 does not fit into memory; else f32.
    Auto,
    /// f32.
    F32,
    /// f16.
    F16,
}

impl From<Dtype> for Precision {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::Auto => Self::Auto,
            Dtype::F32 => Self::F32,
            Dtype::F16 => Self::F16,
        }
    }
}

/// A device. `CPU` and `cpu` are the same.
///
/// # Errors
/// The names that are accepted.
pub fn device(text: &str) -> Result<DeviceChoice, String> {
    let kind = text.find(':').unwrap_or(text.len());
    let text = text[..kind].to_ascii_lowercase() + &text[kind..];
    text.parse().map_err(|e: fovea_runtime::Error| e.to_string())
}

/// A whole number from 1 to 1,000,000.
///
/// # Errors
/// What is expected.
pub fn count(text: &str) -> Result<usize, String> {
    let within = text.parse().ok().filter(|n| (1..=1_000_000).contains(n));
    within.ok_or_else(|| "expected a whole number from 1 to 1000000".to_owned())
}

/// A whole number from 0 on.
///
/// # Errors
/// What is expected.
pub fn whole<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| "expected a whole number, 0 or more".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_in_any_case() {
        assert_eq!(device("CPU"), Ok(DeviceChoice::Cpu));
        assert_eq!(device("Cuda:1"), Ok(DeviceChoice::Cuda(1)));
        assert_eq!(device("WGPU:Apple M1"), Ok(DeviceChoice::WgpuName("Apple M1".into())));
        assert!(device("mps").is_err_and(|why| why.contains("expected auto, cpu, wgpu")));
    }

    #[test]
    fn numbers_are_whole() {
        assert_eq!((whole::<usize>("0"), count("7")), (Ok(0), Ok(7)));
        assert!(whole::<u64>("-1").is_err() && whole::<usize>("1.5").is_err() && count("0").is_err());
    }
}
