//! `fovea ask`: the answer on stdout as it comes, one line of numbers on stderr.

use std::{
    fs,
    io::{self, IsTerminal},
};

use fovea_model::{AskOptions, Conversation, Event, Model, Stage, Statistics, Turn, overlay};
use futures_util::{StreamExt, pin_mut};

use crate::{args::AskArgs, failure::Failure, load, text};

/// Answers every question, each on its own.
pub async fn run(args: AskArgs) -> Result<(), Failure> {
    let options = AskOptions { cancel: load::interruptible(), ..args.options() };
    let picture = load::picture(&args.image)?;
    let model = load::model(args.model.as_deref(), &args.device, args.dtype.into(), &options).await?;
    notes(&args, &model);
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
    if let (Some(path), Some(turn)) = (&args.overlay, last) {
        let png = overlay::png(&overlay::draw(conversation.picture(), &turn.looked)?)?;
        fs::write(path, png).map_err(|why| Failure::Write { file: path.display().to_string(), why })?;
    }
    Ok(())
}

/// What the user should know before reading the answer.
fn notes(args: &AskArgs, model: &Model) {
    if args.model.is_none() {
        text::note(
            "note: the demo checkpoint knows drawn scenes of plates, shirts, signs and shapes, and nothing else; choose another with --model",
        );
    }
    if !model.has_selector() && args.options().vision {
        text::note(
            "note: this checkpoint has no scale selector (a stock LLaVA-NeXT): only the text-guided sampler runs",
        );
    }
    if args.options().text && args.layer.is_none() && model.config().focus.text_layer.is_none() {
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
    let (mut turn, mut begun) = (None, false);
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Token { text, .. }) if !quiet => {
                begun = true;
                let text = if terminal { text::harmless(&text) } else { text };
                text::out(|to| to.write_all(text.as_bytes()))?;
            }
            Ok(Event::Done(done)) => turn = Some(done),
            Ok(_) => {}
            Err(error) => {
                // What there is of an answer still ends with its line.
                if begun {
                    text::out(|to| writeln!(to))?;
                }
                return Err(error.into());
            }
        }
    }
    if !quiet {
        text::out(|to| writeln!(to))?;
    }
    // The stream ends with an error or with the whole turn.
    turn.ok_or_else(|| Failure::Panic("the answer ended early".into()))
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
