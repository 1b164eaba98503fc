//! `fovea trace`: every stage of one greedy run, in f32.

use fovea_model::{AskOptions, Precision, trace};

use crate::{
    args::{Sampler, TraceArgs},
    failure::Failure,
    load,
    output::Output,
};

/// Runs and writes the trace.
pub async fn run(args: TraceArgs) -> Result<(), Failure> {
    args.sampling.check()?;
    let output = Output::new(&args.out, &load::read_files(&args.image, Some(&args.model)))?;
    let cancel = load::interruptible();
    let picture = load::picture(&args.image)?;
    let options = AskOptions {
        // As the specification has it: both run unless switched off, whatever the checkpoint was trained with.
        vision: args.sampling.wanted(Sampler::Vision).or(Some(true)),
        text: args.sampling.wanted(Sampler::Text).or(Some(true)),
        max_new_tokens: args.max_new_tokens,
        cancel,
        ..AskOptions::default()
    };
    let model = load::model(Some(&args.model), &args.device, Precision::F32, &options).await?;
    let trace = trace::trace(&mut model.look_at(picture), &args.prompt, &options).await?;
    let bytes = trace::to_safetensors(&trace)?;
    output.write(&bytes)
}
