//! Time to first token and tokens per second at a realistic size, samplers off, vision, text, both, in one run.
//!
//! `fovea-benches checkpoint DIR` writes a random checkpoint of real dimensions; `fovea-benches pipeline DIR` times it.

mod checkpoint;
mod elements;
mod kernels;
mod picture;
mod pipeline;
mod pytorch;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Times the pipeline.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write a random checkpoint: CLIP ViT-L/14-336 and a decoder of 0.5 B parameters, in bf16 (1.6 GB).
    Checkpoint {
        /// Where to.
        dir: PathBuf,
    },
    /// Time the two fused activations against burn's own tensor operations.
    Elements {
        /// cpu, wgpu, wgpu:N, cuda or auto.
        #[arg(long, default_value = "cpu")]
        device: String,
    },
    /// Time every kernel against burn's own tensor operations and a copy.
    Kernels {
        /// wgpu, wgpu:N or wgpu:NAME; with cuda or cpu the tensor operations stand alone.
        #[arg(long, default_value = "wgpu")]
        device: String,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Answer one question about a 672x672 picture with the samplers off, vision, text and both.
    Pipeline {
        /// The checkpoint.
        dir: PathBuf,
        /// cpu, wgpu, wgpu:N, cuda or auto.
        #[arg(long, default_value = "auto")]
        device: String,
        /// Tokens of each answer.
        #[arg(long, default_value_t = 16)]
        new_tokens: usize,
        /// Runs of each mode; the fastest counts.
        #[arg(long, default_value_t = 1)]
        repeat: usize,
        /// Modes to run.
        #[arg(long, value_delimiter = ',', default_value = "off,vision,text,both")]
        modes: Vec<String>,
        /// A Python with torch and transformers: also times the same model in PyTorch eager, side by side.
        #[arg(long)]
        pytorch: Option<PathBuf>,
        /// As JSON.
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
