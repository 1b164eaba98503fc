//! `fovea trace`: every stage of one greedy run, in f32.

use std::fs;

use fovea_model::{AskOptions, Precision, trace};

use crate::{
    args::{Sampler, TraceArgs},
    failure::Failure,
    load,
};

/// Runs and writes the trace.
pub async fn run(args: TraceArgs) -> Result<(), Failure> {
    let cancel = load::interruptible();
    let picture = load::picture(&args.image)?;
    let options = AskOptions {
        vision: args.sampling.on(Sampler::Vision),
        text: args.sampling.on(Sampler::Text),
        max_new_tokens: args.max_new_tokens,
        cancel,
        ..AskOptions::default()
    };
    let model = load::model(Some(&args.model), &args.device, Precision::F32, &options).await?;
    let trace = trace::trace(&mut model.look_at(picture), &args.prompt, &options).await?;
    let bytes = trace::to_safetensors(&trace)?;
    fs::write(&args.out, bytes).map_err(|why| Failure::Write { file: args.out.display().to_string(), why })
}
