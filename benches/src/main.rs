//! Benchmarks: time to first token and tokens per second at a realistic size, kernels, and activations.
//!
//! `fovea-benches checkpoint DIR` writes a random checkpoint of real dimensions; `fovea-benches pipeline DIR` measures
//! it.

mod elements;
mod kernels;
mod checkpoint;
mod picture;
mod pytorch;
mod pipeline;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Measures the speed of Fovea.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write a random checkpoint: CLIP ViT-L/14-336 and a decoder with 0.5 B parameters, in bf16 (1.6 GB).
    Checkpoint {
        /// The folder to write.
        dir: PathBuf,
    },
    /// Compare the two fused activations with tensor operations of burn.
    Elements {
        /// cpu, wgpu, wgpu:N, cuda or auto.
        #[arg(long, default_value = "cpu")]
        device: String,
    },
    /// Compare each kernel with tensor operations of burn and with a copy.
    Kernels {
        /// wgpu, wgpu:N or wgpu:NAME; with cuda or cpu only the tensor operations are measured.
        #[arg(long, default_value = "wgpu")]
        device: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Answer one question about a 672x672 picture with the samplers off, vision, text and both.
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
        /// Modes to run.
        #[arg(long, value_delimiter = ',', default_value = "off,vision,text,both")]
        modes: Vec<String>,
        /// A Python with torch and transformers: also measures the same model in PyTorch eager, after each mode.
        #[arg(long)]
        pytorch: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    match Cli::parse().command {
        Command::Checkpoint { dir } => checkpoint::write(&dir),
        Command::Elements { device } => pollster::block_on(elements::run(&device)),
        Command::Kernels { device, json } => pollster::block_on(kernels::run(&device, json)),
        Command::Pipeline { dir, device, new_tokens, repeat, modes, pytorch, json } => {
            let settings = pipeline::Settings { dir, device, new_tokens, repeat, modes, pytorch, json };
            pollster::block_on(pipeline::run(&settings))
        }
    }
}
