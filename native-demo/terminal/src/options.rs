//! Values of options that several commands have.

use std::{fmt::Display, str::FromStr};

use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};
use fovea_model::{Activations, CacheType, Compression, Error, LoadOptions, METHODS, Precision, TowerType};
use fovea_runtime::{DeviceChoice, memory};

/// How a model is loaded.
#[derive(Args, Clone, Copy, Debug)]
pub struct LoadArgs {
    /// How the weight matrices are stored on the device. f16 needs half of the memory of f32. q8 (codes of 8 bits) needs
    /// about half of the memory of f16, q4 (4 bits) about a third; with q4, answers can differ.
    ///
    /// auto: as in the file where it is quantised; f16 where most weights are stored in 16 bits and the GPU computes in
    /// f16; else f32. Where this does not fit into memory, the best of f16, q8 and q4 that fits.
    #[arg(long, default_value = "auto", ignore_case = true, value_parser = named::<Precision>(Precision::NAMES))]
    pub weights: Precision,
    /// How the rest is stored.
    #[command(flatten)]
    pub store: StoreArgs,
    /// The memory that the model may use, such as 6GB (or 6G), 6GiB, 500MB or 5e8; without it, what the system, or the
    /// driver of the GPU, reports as available.
    #[arg(long, value_name = "SIZE", value_parser = memory::size, allow_negative_numbers = true)]
    pub memory: Option<u64>,
}

/// How cache, vision tower and activations are stored, for any `--weights`.
#[derive(Args, Clone, Copy, Debug)]
pub struct StoreArgs {
    /// How the keys and values of the KV cache are stored on the device; auto: as the matrices that are not quantised.
    #[arg(long, default_value = "auto", ignore_case = true, value_parser = named::<CacheType>(CacheType::NAMES))]
    pub cache: CacheType,
    /// How the matrices of the vision tower are stored; auto: as floats. q8 needs half of the memory of f16, and with
    /// --activations int8 the tower of a CPU is faster; answers can differ.
    #[arg(long, default_value = "auto", ignore_case = true, value_parser = named::<TowerType>(TowerType::NAMES))]
    pub tower: TowerType,
    /// How the inputs of products with q8 and q4 matrices are stored. int8 has an error like that of q8 weights, and makes the
    /// prefill about twice as fast on CPUs with AVX2, AVX-512 VNNI or the dot products of NEON; on GPUs it is used
    /// only if it is asked for. auto: on the CPU int8 for q4, f32 for q8; on GPUs f32.
    #[arg(long, default_value = "auto", ignore_case = true, value_parser = named::<Activations>(Activations::NAMES))]
    pub activations: Activations,
}

impl From<LoadArgs> for LoadOptions {
    fn from(LoadArgs { weights, store, memory }: LoadArgs) -> Self {
        Self { precision: weights, memory, ..store.into() }
    }
}

impl From<StoreArgs> for LoadOptions {
    fn from(StoreArgs { cache, tower, activations }: StoreArgs) -> Self {
        Self { cache, tower, activations, ..Self::default() }
    }
}

/// One of `names`.
pub fn named<T>(names: impl IntoIterator<Item = &'static str>) -> impl TypedValueParser<Value = T>
where
    T: FromStr<Err: Display> + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(names).try_map(|name| name.parse::<T>().map_err(|why| why.to_string()))
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

/// A compression of the visual tokens, such as `focus:gamma=.7`.
///
/// # Errors
/// The method and the key that are wrong, with what is expected.
pub fn compression(text: &str) -> Result<Compression, String> {
    text.parse().map_err(reason)
}

/// An error without the name of its option, for places that show the name already.
pub fn reason(why: Error) -> String {
    match why {
        Error::Option { expected, got, .. } => format!("expected {expected}, got {got}"),
        other => other.to_string(),
    }
}

/// The long help of `--compress`: its spelling, every method, and examples.
pub fn compress_help() -> String {
    let rows = [
        ("none", "Every visual token"),
        ("focus", "The two samplers of FocusLLaVA, vision+text, with the keys of both"),
    ];
    let rows = rows.into_iter().chain(METHODS.iter().map(|row| (row.name, row.about)));
    // clap indents a wrapped line like its beginning: with the name in front, the rest would look like a method.
    let methods: String = rows.map(|(name, about)| format!("  {name}\n      {about}\n")).collect();
    format!(
        "Which visual tokens the model uses; without it as in the checkpoint.\n\nSPEC is METHOD or \
         METHOD:KEY=VALUE,KEY=VALUE. A method that runs before the text model and one that runs in it can be joined with \
         +. A budget is a ratio if it contains a point (.25), else a count (64).\n\n{methods}\nExamples:\n  --compress none\n  \
         --compress focus:gamma=.7\n  --compress div-prune:keep=.1+fastv:layer=3\n\nSettings and sources of all \
         methods: docs/cli.md"
    )
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

    #[test]
    fn names_are_read_in_any_case() {
        #[derive(clap::Parser)]
        struct Program {
            #[command(flatten)]
            load: LoadArgs,
        }
        let read = |args: &[&str]| <Program as clap::Parser>::try_parse_from([&["program"], args].concat());
        let load = |args: &[&str]| LoadOptions::from(read(args).unwrap_or_else(|why| panic!("{why}")).load);
        let default = load(&[]);
        assert_eq!((default.precision, default.cache, default.memory), (Precision::Auto, CacheType::Auto, None));
        let some = load(&["--weights", "Q8", "--cache", "F16", "--memory", "500MB"]);
        assert_eq!((some.precision, some.cache, some.memory), (Precision::Q8, CacheType::F16, Some(500_000_000)));
        assert!(read(&["--weights", "f64"]).is_err() && read(&["--cache", "q8"]).is_err());
    }
}
