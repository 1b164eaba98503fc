//! `fovea trace`: input a picture and a question; output a safetensors file with the result of every stage, in f32.

use fovea_model::{AskOptions, Conversation, Fits, Precision, trace};
use fovea_terminal::{failure::Failure, load, output::Output, text};

use crate::args::TraceArgs;

/// Runs, and writes the trace.
pub async fn run(args: TraceArgs) -> Result<(), Failure> {
    let mut read = load::read_files(&args.image, Some(&args.model));
    read.extend(args.more.iter().cloned());
    let output = Output::new(&args.out, &read)?;
    let cancel = load::interruptible();
    let pictures = load::pictures(&args.image, &args.more)?;
    let options =
        AskOptions { compression: args.compress, max_new_tokens: args.max_new_tokens, cancel, ..AskOptions::default() };
    let check = |fits: Fits<'_>| options.check(fits);
    let model = load::model(Some(&args.model), &args.device, Precision::F32, &options.cancel, check).await?;
    let trace = trace::trace(&mut Conversation::about(&model, pictures)?, &args.question, &options).await?;
    let bytes = trace::to_safetensors(&trace)?;
    output.write(&bytes)?;
    text::note(&format!(
        "wrote {}: {} tensors, {}",
        text::line(&args.out.display().to_string()),
        trace.len(),
        text::bytes(bytes.len() as u64)
    ));
    Ok(())
}
