//! Prints an answer token by token, and its numbers. Input: a conversation, messages and options. Output: the answer on
//! stdout, notes and numbers for stderr.

use std::{
    io::{self, IsTerminal},
    pin::pin,
};

use fovea_model::{AskOptions, Conversation, Event, FinishReason, Messages, Model, Picture, Stage, Turn};
use fovea_runtime::device::DeviceClass;
use fovea_terminal::{failure::Failure, text};
use futures_util::StreamExt;

use crate::args::AnswerArgs;

/// Answers the last message. With `said`, the text is printed as it comes, and a line break after it. `said` gets the text,
/// also of an answer that ends with an error.
///
/// # Errors
/// The error of the model or of stdout.
pub async fn answer(
    conversation: &mut Conversation,
    messages: Messages,
    options: &AskOptions,
    mut said: Option<&mut String>,
) -> Result<Box<Turn>, Failure> {
    let mut events = pin!(conversation.ask(messages, options));
    let terminal = io::stdout().is_terminal();
    // For the stages before the first token.
    let bar = text::progress_bar("{msg:14} {bar:40} {percent:>3} % {elapsed}");
    let mut turn = None;
    let mut ended = loop {
        match events.next().await {
            None => break Ok(()),
            Some(Err(why)) => break Err(Failure::from(why)),
            Some(Ok(Event::Progress(progress))) => {
                bar.set_message(progress.stage.name().replace('_', " "));
                bar.set_length(progress.total);
                bar.set_position(progress.done);
            }
            Some(Ok(Event::Token { text: more, .. })) => {
                let Some(said) = &mut said else { continue };
                bar.finish_and_clear();
                said.push_str(&more);
                let shown = if terminal { text::harmless(&more) } else { more };
                if let Err(why) = text::out(|to| to.write_all(shown.as_bytes())) {
                    break Err(why);
                }
            }
            Some(Ok(Event::Done(complete))) => turn = Some(complete),
            Some(Ok(_)) => {}
        }
    };
    bar.finish_and_clear();
    // A partial answer also ends with a line break.
    if said.is_some_and(|said| turn.is_some() || !said.is_empty()) {
        ended = ended.and(text::out(|to| writeln!(to)));
    }
    // The stream ends with an error or with the whole turn.
    ended.and_then(|()| turn.ok_or_else(|| Failure::internal("the answer ended early")))
}

/// Prints what the user should know before reading the answer.
pub fn notes(args: &AnswerArgs, model: &Model, pictures: &[Picture]) {
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

/// Prints that an answer has no text, where the user could think that it is missing.
pub fn note_empty(turn: &Turn) {
    if turn.text.trim().is_empty() && turn.finish_reason != FinishReason::Length {
        text::note("note: the answer is empty: the model ended it at once");
    }
}

/// Tokens, share of the work, device and times, in lines of at most [`text::COLUMNS`].
pub fn numbers(model: &Model, turn: &Turn) -> String {
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
        format!("{} {}", device.chars().take(text::COLUMNS - 10).collect::<String>(), model.dtype_name()),
        format!("first token {}{rate}", text::duration(s.first_token_ms)),
    ];
    // Text alone has no visual tokens.
    if s.tokens.all > 0 {
        let share = text::percent(s.equivalent_share);
        let (all, compressed, kept) = (s.tokens.all, s.tokens.compressed, s.tokens.kept);
        parts.insert(0, format!("visual tokens {all} -> {compressed} -> {kept}, {share} of the work"));
    }
    if turn.finish_reason == FinishReason::Length {
        parts.push(format!("cut at {}", text::counted(turn.answer_ids.len(), "token")));
    }
    text::wrapped(&parts)
}

/// The time of each stage, and the memory: one line each.
pub fn details(turn: &Turn) -> [String; 2] {
    let s = &turn.statistics;
    let stages = s.stage_ms.iter().filter(|(stage, _)| **stage != Stage::Decode);
    let stages: Vec<String> = stages.map(|(stage, ms)| format!("{} {}", stage.name(), text::duration(*ms))).collect();
    let peak = s.memory.host_peak.map_or(String::new(), |peak| format!(", host peak {}", text::bytes(peak)));
    let memory =
        format!("weights {}, KV cache {}{peak}", text::bytes(s.memory.weights), text::bytes(s.memory.kv_cache));
    [stages.join(", "), memory]
}
