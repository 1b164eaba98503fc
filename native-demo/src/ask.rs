//! `fovea ask`: input a picture and questions; output the answers on stdout token by token, and numbers on stderr.

use std::path::Path;

use fovea_model::{AskOptions, Conversation, Fits, Messages};
use fovea_overlay::{draw, png};
use fovea_terminal::{
    failure::Failure,
    load,
    output::{self, Output},
    text,
};
use serde_json::json;

use crate::{answer, args::AskArgs};

/// Answers each question separately.
pub async fn run(args: AskArgs) -> Result<(), Failure> {
    check(&args)?;
    let AskArgs { image, more, questions, answer: of, json, overlay } = args;
    // Before the model is loaded: a file that can't be written is found now, not after minutes.
    let overlay = match overlay {
        Some(path) => {
            let read = load::read_files(&image, of.model.as_deref());
            Some((output::picture_format(&path)?, Output::new(&path, &read)?))
        }
        None => None,
    };
    let options = AskOptions { cancel: load::interruptible(), ..of.options() };
    let pictures = load::pictures(&image, &more)?;
    let names: Vec<String> = [&image].into_iter().chain(&more).map(|file| file.display().to_string()).collect();
    let check = |fits: Fits<'_>| options.check(fits);
    let model = load::model(of.model.as_deref(), &of.device, of.load, &options.cancel, check).await?;
    answer::notes(&of, &model, &pictures);
    let mut conversation = Conversation::about(&model, pictures)?;
    let mut last = None;
    for question in &questions {
        let mut said = String::new();
        let shown = (!json).then_some(&mut said);
        let turn = answer::answer(&mut conversation, Messages::from(question), &options, shown).await?;
        answer::note_empty(&turn);
        if json {
            let mut report = model.report(question, &turn);
            report["pictures"] = json!(names);
            text::out(|to| writeln!(to, "{report}"))?;
        } else {
            text::note(&answer::numbers(&model, &turn));
        }
        for line in answer::details(&turn) {
            tracing::info!("{line}");
        }
        last = Some(turn);
    }
    if let (Some((format, output)), Some(turn)) = (overlay, last)
        && let (Some(picture), Some(looked)) = (conversation.pictures().first(), turn.looked.first())
    {
        let png = png(&draw(picture, looked)?)?;
        output.write(&output::encoded(&png, format)?)?;
    }
    Ok(())
}

/// Refuses questions that can only be a mistake.
fn check(args: &AskArgs) -> Result<(), Failure> {
    args.check()?;
    let is_path = |question: &&String| {
        let path = Path::new(question);
        path.is_file() || (question.contains('/') && path.is_dir())
    };
    if let Some(file) = args.questions.iter().find(is_path) {
        return Err(Failure::Usage(format!(
            "expected one picture and then questions, got the file {file} as a question; for one more picture use `--and {file}`, for a folder `fovea eval`"
        )));
    }
    if let Some(at) = args.questions.iter().position(|question| question.trim().is_empty()) {
        return Err(Failure::Usage(format!("expected a question, got an empty one as number {}", at + 1)));
    }
    let is_word = |question: &String| !question.contains(char::is_whitespace) && !question.ends_with('?');
    if args.questions.len() > 2 && args.questions.iter().all(is_word) {
        text::note("note: each word is a separate question; put quotes around a question of several words");
    }
    Ok(())
}
