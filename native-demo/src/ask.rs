//! `fovea ask`: the answer on stdout as it comes, one line of numbers on stderr.

use std::{
    io::{self, IsTerminal},
    path::Path,
};

use fovea_model::{AskOptions, Conversation, Event, Model, Picture, Progress, Stage, Statistics, Turn, overlay};
use futures_util::{StreamExt, pin_mut};
use indicatif::{ProgressBar, ProgressStyle};

use crate::{args::AskArgs, failure::Failure, load, output, output::Output, text};

/// Answers every question, each on its own.
pub async fn run(args: AskArgs) -> Result<(), Failure> {
    check(&args)?;
    // Before the model is loaded: a name that can't be written is found now and not after minutes.
    let overlay_at = match &args.overlay {
        Some(path) => {
            let read = load::read_files(&args.image, args.model.as_deref());
            Some((output::picture_format(path)?, Output::new(path, &read)?))
        }
        None => None,
    };
    let options = AskOptions { cancel: load::interruptible(), ..args.options() };
    let picture = load::picture(&args.image)?;
    let model = load::model(args.model.as_deref(), &args.device, args.dtype.into(), &options).await?;
    notes(&args, &model, &picture);
    let mut conversation = model.look_at(picture);
    let mut last = None;
    for question in &args.questions {
        let turn = answer(&mut conversation, question, &options, args.json).await?;
        if args.json {
            let report = model.report(question, &turn)?;
            text::out(|to| writeln!(to, "{report}"))?;
        } else {
            text::note(&numbers(&turn.statistics));
        }
        last = Some(turn);
    }
    if let (Some((format, output)), Some(turn)) = (overlay_at, last) {
        let png = overlay::png(&overlay::draw(conversation.picture(), &turn.looked)?)?;
        output.write(&output::encoded(&png, format)?)?;
    }
    Ok(())
}

/// Refuses what can only be a mistake.
fn check(args: &AskArgs) -> Result<(), Failure> {
    args.sampling.check()?;
    let is_path = |question: &&String| {
        let path = Path::new(question);
        path.is_file() || (question.contains('/') && path.is_dir())
    };
    if let Some(file) = args.questions.iter().find(is_path) {
        return Err(Failure::Usage(format!(
            "expected one picture and then questions, got the file {file} as a question; ask about each picture on its own, or about a folder's with `fovea eval`"
        )));
    }
    if let Some(at) = args.questions.iter().position(|question| question.trim().is_empty()) {
        return Err(Failure::Usage(format!("expected a question, got an empty one as number {}", at + 1)));
    }
    let word = |question: &String| !question.contains(char::is_whitespace) && !question.ends_with('?');
    if args.questions.len() > 2 && args.questions.iter().all(word) {
        text::note("note: every word counts as a separate question; put quotes around a question of several words");
    }
    Ok(())
}

/// What the user should know before reading the answer.
fn notes(args: &AskArgs, model: &Model, picture: &Picture) {
    // A penalty of the user's takes the place of the checkpoint's.
    let own = |note: &&String| args.repetition_penalty.is_none() || !note.contains("repetition_penalty");
    for note in model.notes().iter().filter(own) {
        text::note(&format!("note: {}", text::line(note)));
    }
    if args.model.is_none() {
        text::note(
            "note: the demo checkpoint knows drawn scenes of plates, shirts, signs and shapes, and nothing else; choose another with --model",
        );
    }
    let options = args.options();
    let text_on = options.text_is_on(model.config());
    let vision_wanted = options.vision_is_on(model.config());
    if let Some(note) = model.stock_note(picture).filter(|_| !(text_on || vision_wanted && model.has_selector())) {
        let config = model.config();
        let on = match config.focus.text_layer {
            Some(_) => "--on text".to_owned(),
            None => format!("--layer {}", config.text.n_layers / 4),
        };
        text::note(&format!("note: {note}; switch it on with {on}"));
    }
    if vision_wanted && !model.has_selector() {
        text::note("note: this checkpoint has no scale selector: the vision-guided sampler stays off");
    }
    if text_on && args.layer.is_none() && model.config().focus.text_layer.is_none() {
        text::note(
            "note: the default text layer lies beyond this model's last: nothing is pruned; choose one with --layer",
        );
    }
}

async fn answer(
    conversation: &mut Conversation,
    question: &str,
    options: &AskOptions,
    quiet: bool,
) -> Result<Box<Turn>, Failure> {
    let events = conversation.ask(question, options);
    pin_mut!(events);
    let terminal = io::stdout().is_terminal();
    let bar = progress_bar();
    let (mut turn, mut begun) = (None, false);
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Progress(progress)) => show(&bar, progress),
            Ok(Event::Token { text, .. }) if !quiet => {
                bar.finish_and_clear();
                begun = true;
                let text = if terminal { text::harmless(&text) } else { text };
                text::out(|to| to.write_all(text.as_bytes()))?;
            }
            Ok(Event::Done(done)) => turn = Some(done),
            Ok(_) => {}
            Err(error) => {
                bar.finish_and_clear();
                // What there is of an answer still ends with its line.
                if begun {
                    text::out(|to| writeln!(to))?;
                }
                return Err(error.into());
            }
        }
    }
    bar.finish_and_clear();
    if !quiet {
        text::out(|to| writeln!(to))?;
    }
    // The stream ends with an error or with the whole turn.
    turn.ok_or_else(|| Failure::Panic("the answer ended early".into()))
}

/// A bar for the stages before the first token; hidden where stderr is no terminal.
fn progress_bar() -> ProgressBar {
    let bar = if io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
    // The template is a constant; should indicatif ever refuse it, its default does.
    if let Ok(style) = ProgressStyle::with_template("{msg:14} {bar:40} {percent:>3} % {elapsed}") {
        bar.set_style(style);
    }
    bar
}

fn show(bar: &ProgressBar, progress: Progress) {
    bar.set_message(progress.stage.name().replace('_', " "));
    bar.set_length(progress.total);
    bar.set_position(progress.done);
}

/// Tokens, share, time to first token by stage, tokens/s, memory.
fn numbers(s: &Statistics) -> String {
    let stages = s.stage_ms.iter().filter(|(stage, _)| **stage != Stage::Decode);
    let stages: Vec<String> = stages.map(|(stage, ms)| format!("{} {}", stage.name(), text::duration(*ms))).collect();
    let rate = s.tokens_per_second.map_or("-".to_owned(), |r| format!("{r:.1}"));
    let peak = s.memory.host_peak.map_or(String::new(), |peak| format!(", host peak {}", text::bytes(peak)));
    format!(
        "visual tokens {} -> {} -> {} ({:.1} % equivalent) | first token {} ({}) | {rate} tokens/s | weights {}, KV {}{peak}",
        s.tokens.stock,
        s.tokens.vision,
        s.tokens.text,
        100.0 * s.equivalent_share,
        text::duration(s.first_token_ms),
        stages.join(", "),
        text::bytes(s.memory.weights),
        text::bytes(s.memory.kv_cache),
    )
}
