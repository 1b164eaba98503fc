//! `fovea ask`: input a picture and questions; output the answers on stdout token by token, and numbers on stderr.

use std::{
    io::{self, IsTerminal},
    path::Path,
    pin::pin,
};

use fovea_model::{AskOptions, Conversation, Event, FinishReason, Fits, Model, Picture, Stage, Turn};
use fovea_overlay::{draw, png};
use fovea_runtime::device::DeviceClass;
use fovea_terminal::{
    failure::Failure,
    load,
    output::{self, Output},
    text,
};
use futures_util::StreamExt;

use crate::args::AskArgs;

/// Answers each question separately.
pub async fn run(args: AskArgs) -> Result<(), Failure> {
    check(&args)?;
    // Before the model is loaded: a file that can't be written is found now, not after minutes.
    let overlay = match &args.overlay {
        Some(path) => {
            let read = load::read_files(&args.image, args.model.as_deref());
            Some((output::picture_format(path)?, Output::new(path, &read)?))
        }
        None => None,
    };
    let options = AskOptions { cancel: load::interruptible(), ..args.options() };
    let pictures = load::pictures(&args.image, &args.more)?;
    let check = |fits: Fits<'_>| options.check(fits);
    let model = load::model(args.model.as_deref(), &args.device, args.load, &options.cancel, check).await?;
    notes(&args, &model, &pictures);
    let mut conversation = Conversation::about(&model, pictures)?;
    let mut last = None;
    for question in &args.questions {
        let turn = answer(&mut conversation, question, &options, args.json).await?;
        if turn.text.trim().is_empty() && turn.finish_reason != FinishReason::Length {
            text::note("note: the answer is empty: the model ended it at once");
        }
        if args.json {
            text::out(|to| writeln!(to, "{}", model.report(question, &turn)))?;
        } else {
            text::note(&numbers(&model, &turn));
        }
        details(&turn);
        last = Some(turn);
    }
    if let (Some((format, output)), Some(turn)) = (overlay, last)
        && let Some(looked) = turn.looked.first()
    {
        let png = png(&draw(conversation.picture(), looked)?)?;
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

/// Prints what the user should know before reading the answer.
fn notes(args: &AskArgs, model: &Model, pictures: &[Picture]) {
    // The user's penalty replaces the one of the checkpoint.
    let applies = |note: &&String| args.repetition_penalty.is_none() || !note.contains("repetition_penalty");
    for note in model.notes().iter().filter(applies) {
        text::note(&format!("note: {}", text::line(note)));
    }
    if args.model.is_none() {
        text::note("note: the demo checkpoint knows only drawn scenes; choose another with --model");
    }
    let config = model.config();
    let one = if let [picture] = pictures { model.stock_note(picture) } else { None };
    if let Some(note) = one.filter(|_| args.compress.is_none()) {
        let layer = match config.focus.text_layer {
            Some(_) => String::new(),
            None => format!(":layer={}", config.text.n_layers / 4),
        };
        text::note(&format!("note: {note}; turn it on with --compress text{layer}"));
    }
    if args.compress.is_none() && config.has_focus && !model.fits().selector {
        text::note("note: this checkpoint has no scale selector: the vision-guided sampler stays off");
    }
    let compression = args.options().compression_for(model.fits());
    if compression.text().is_some_and(|text| text.layer.is_none()) && config.focus.text_layer.is_none() {
        text::note(
            "note: this model has fewer layers than the default of the text-guided sampler: nothing is pruned; choose a layer with --compress text:layer=L",
        );
    }
}

/// Answers one question; prints its text as it comes, unless the answer is printed as `json` later.
async fn answer(
    conversation: &mut Conversation,
    question: &str,
    options: &AskOptions,
    json: bool,
) -> Result<Box<Turn>, Failure> {
    let mut events = pin!(conversation.ask(question, options));
    let terminal = io::stdout().is_terminal();
    // For the stages before the first token.
    let bar = text::progress_bar("{msg:14} {bar:40} {percent:>3} % {elapsed}");
    let (mut turn, mut begun) = (None, false);
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Progress(progress)) => {
                bar.set_message(progress.stage.name().replace('_', " "));
                bar.set_length(progress.total);
                bar.set_position(progress.done);
            }
            Ok(Event::Token { text, .. }) if !json => {
                bar.finish_and_clear();
                begun = true;
                let text = if terminal { text::harmless(&text) } else { text };
                text::out(|to| to.write_all(text.as_bytes()))?;
            }
            Ok(Event::Done(done)) => turn = Some(done),
            Ok(_) => {}
            Err(error) => {
                bar.finish_and_clear();
                // A partial answer also ends with a line break.
                if begun {
                    text::out(|to| writeln!(to))?;
                }
                return Err(error.into());
            }
        }
    }
    bar.finish_and_clear();
    if !json {
        text::out(|to| writeln!(to))?;
    }
    // The stream ends with an error or with the whole turn.
    turn.ok_or_else(|| Failure::internal("the answer ended early"))
}

/// Tokens, share of the work, device and times, in lines of at most [`text::COLUMNS`].
fn numbers(model: &Model, turn: &Turn) -> String {
    let s = &turn.statistics;
    let info = &model.device().info;
    let device = match info.class {
        DeviceClass::Cpu => "CPU".to_owned(),
        _ => info.to_string(),
    };
    let rate = match s.tokens_per_second {
        Some(rate) if rate < 10.0 => format!(", {rate:.1} tokens/s"),
        Some(rate) => format!(", {rate:.0} tokens/s"),
        None => String::new(),
    };
    let mut parts = vec![
        format!(
            "visual tokens {} -> {} -> {}, {:.0} % of the work",
            s.tokens.all,
            s.tokens.compressed,
            s.tokens.kept,
            100.0 * s.equivalent_share
        ),
        format!("{} {}", device.chars().take(text::COLUMNS - 10).collect::<String>(), model.dtype_name()),
        format!("first token {}{rate}", text::duration(s.first_token_ms)),
    ];
    if turn.finish_reason == FinishReason::Length {
        parts.push(format!("cut at {}", text::counted(turn.answer_ids.len(), "token")));
    }
    text::wrapped(&parts)
}

/// Logs the time of each stage, and the memory.
fn details(turn: &Turn) {
    let s = &turn.statistics;
    let stages = s.stage_ms.iter().filter(|(stage, _)| **stage != Stage::Decode);
    let stages: Vec<String> = stages.map(|(stage, ms)| format!("{} {}", stage.name(), text::duration(*ms))).collect();
    tracing::info!("{}", stages.join(", "));
    let peak = s.memory.host_peak.map_or(String::new(), |peak| format!(", host peak {}", text::bytes(peak)));
    tracing::info!("weights {}, KV cache {}{peak}", text::bytes(s.memory.weights), text::bytes(s.memory.kv_cache));
}
