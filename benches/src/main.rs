//! Benchmarks: time to first token, decoding token by token at a realistic size, and kernels.
//!
//! `fovea-benches checkpoint DIR` writes a random checkpoint of real dimensions; `fovea-benches pipeline DIR` and
//! `fovea-benches decode DIR` measure it.

mod bandwidth;
mod counters;
mod kernels;
mod network;
mod products;
mod checkpoint;
mod picture;
mod pytorch;
mod pipeline;
mod decode;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use fovea_model::{Activations, LoadOptions, Precision, TowerType};

/// Measures the speed of Fovea.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write a random checkpoint in bf16: CLIP ViT-L/14-336 and a decoder.
    Checkpoint {
        /// The folder to write.
        dir: PathBuf,
        /// Its size.
        #[arg(long, value_enum, default_value = "medium")]
        size: checkpoint::Scale,
        /// Rows of the embedding [default: 32000, 151936 or 128320].
        #[arg(long)]
        vocab: Option<usize>,
        /// Also write LLaVA-Meteor's fusion, with its default settings.
        #[arg(long)]
        meteor: bool,
    },
    /// Measure decoding token by token: calls, time on host and device, and the share of the memory bandwidth.
    Decode {
        /// The folder of the checkpoint.
        dir: PathBuf,
        /// cpu, wgpu, wgpu:N, cuda or auto.
        #[arg(long, default_value = "auto")]
        device: String,
        /// A compression; `off` is none, `both` is focus.
        #[arg(long, default_value = "off")]
        mode: String,
        /// Largest number of tokens of the answer.
        #[arg(long, default_value_t = 16)]
        new_tokens: usize,
        /// Least number of tokens before the answer without samplers: a small picture and a long question [default: the
        /// picture and the question of `pipeline`].
        #[arg(long)]
        context: Option<usize>,
        /// How the matrices are stored: auto, f32, f16, q8 or q4.
        #[arg(long, default_value = "auto")]
        weights: Precision,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Compare each kernel of the samplers with tensor operations of burn and with a read of the same bytes.
    Kernels {
        /// wgpu, wgpu:N, wgpu:NAME or cuda; with cpu only the tensor operations are measured.
        #[arg(long, default_value = "wgpu")]
        device: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Compare each operation of the network with tensor operations of burn and with a read of the same bytes.
    Network {
        /// wgpu, wgpu:N, wgpu:NAME or cuda; with cpu there is one time: of the loops for the CPU.
        #[arg(long, default_value = "wgpu")]
        device: String,
        /// How weights and KV cache are stored: f32 or f16.
        #[arg(long, default_value = "f32", value_parser = ["f32", "f16"])]
        weights: String,
        /// Measure only the operations whose kernels have this in their names, such as `gemv`.
        #[arg(long, default_value = "")]
        only: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Time the products of linear layers by wall time, beside ggml's.
    Products {
        /// wgpu, wgpu:N, wgpu:NAME, cuda or cpu.
        #[arg(long, default_value = "wgpu")]
        device: String,
        /// The program of peers/ggml_products.cpp.
        #[arg(long)]
        ggml: Option<PathBuf>,
    },
    /// Answer one question about a 672x672 picture with several compressions.
    Pipeline {
        /// The folder of the checkpoint.
        dir: PathBuf,
        /// cpu, wgpu, wgpu:N, cuda or auto.
        #[arg(long, default_value = "auto")]
        device: String,
        /// Largest number of tokens per answer.
        #[arg(long, default_value_t = 16)]
        new_tokens: usize,
        /// Runs of each mode; the fastest one is reported.
        #[arg(long, default_value_t = 1)]
        repeat: usize,
        /// Modes to run: compressions with at most one key each; `off` is none, `both` is focus.
        #[arg(long, value_delimiter = ',', default_value = "off,vision,text,both")]
        modes: Vec<String>,
        /// How the matrices are stored: auto, f32, f16, q8 or q4.
        #[arg(long, default_value = "auto")]
        weights: Precision,
        /// How the matrices of the vision tower are stored: auto or q8.
        #[arg(long, default_value = "auto")]
        tower: TowerType,
        /// How the inputs of products with q8 and q4 matrices are stored: auto, f32 or int8.
        #[arg(long, default_value = "auto")]
        activations: Activations,
        /// A Python with torch and transformers: also measures the same model in PyTorch eager, after each mode.
        #[arg(long)]
        pytorch: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    fovea_runtime::memory::keep_freed();
    match Cli::parse().command {
        Command::Checkpoint { dir, size, vocab, meteor } => checkpoint::write(&dir, size, vocab, meteor),
        Command::Decode { dir, device, mode, new_tokens, context, weights, json } => {
            let settings = decode::Settings { dir, device, mode, new_tokens, context, weights, json };
            pollster::block_on(decode::run(&settings))
        }
        Command::Kernels { device, json } => pollster::block_on(kernels::run(&device, json)),
        Command::Network { device, weights, only, json } => {
            pollster::block_on(network::run(&device, &weights, &only, json))
        }
        Command::Products { device, ggml } => pollster::block_on(products::run(&device, ggml.as_deref())),
        Command::Pipeline { dir, device, new_tokens, repeat, modes, weights, tower, activations, pytorch, json } => {
            let load = LoadOptions { tower, activations, ..weights.into() };
            let settings = pipeline::Settings { dir, device, new_tokens, repeat, modes, load, pytorch, json };
            pollster::block_on(pipeline::run(&settings))
        }
    }
}
