//! `fovea batch`: input a file of requests, one per line; output one line per request, with its answer or its error.
//!
//! Data flow: [`lines`] (one line at a time) → [`request`] (its two forms) → a conversation, which neighbouring lines
//! about the same pictures share → [`reply`] (the answer in the form of the request) → [`answers`] (the file, which a
//! later run resumes).

mod lines;
mod request;
mod reply;
mod answers;

use std::{path::Path, sync::Arc, time::Instant};

use fovea_model::{Compression, Conversation, Error, ErrorKind, Fits, Model, Turn};
use fovea_terminal::{failure::Failure, load, output::Output, text};

use self::{
    answers::Answers,
    lines::Input,
    reply::{kind, refused},
    request::{Request, Source},
};
use crate::args::BatchArgs;

pub use lines::Shard;

/// Answers every line that has no answer yet.
pub async fn run(args: BatchArgs) -> Result<(), Failure> {
    let begin = Instant::now();
    // Its checks only: the file grows line by line.
    drop(Output::new(&args.out, &load::read_files(&args.input, args.answer.model.as_deref()))?);
    let mut input = Input::open(&args.input, args.shard.unwrap_or(Shard::WHOLE))?;
    let all = input.count()?;
    let mut answers = Answers::open(&args.out, args.restart, &mut input)?;
    let kept = answers.lines;
    let mut options = args.answer.options();
    options.cancel = load::interruptible();
    if (kept as u64) < all {
        let check = |fits: Fits<'_>| options.check(fits);
        let model =
            load::model(args.answer.model.as_deref(), &args.answer.device, args.answer.load, &options.cancel, check)
                .await?;
        notes(&args, &model);
        let mut desk = Desk { model, about: None };
        let folder = args.input.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let bar = text::progress_bar("{bar:30} {pos}/{len} lines {per_sec} {eta}");
        bar.set_length(all);
        bar.set_position(kept as u64);
        // What an earlier run has answered does not count for the speed.
        bar.reset_eta();
        while let Some(line) = input.next_line()? {
            let (reply, request) = request::read(&line, folder, &options);
            let answer = match request {
                Ok(request) => desk.answer(request).await,
                Err(_) if options.cancel.is_cancelled() => Err(Error::Cancelled.into()),
                Err(why) => {
                    answers.write(&reply, &reply.error(&why))?;
                    bar.inc(1);
                    continue;
                }
            };
            let rest = match answer {
                Ok(turn) => reply.answer(&desk.model, &turn),
                Err(failure) if ends_the_run(&failure) => {
                    bar.finish_and_clear();
                    let lines = text::counted(answers.lines, "line");
                    text::note(&format!("note: {lines} of {all} complete; the same command resumes"));
                    return Err(failure);
                }
                Err(failure) => reply.error(&refused(&failure)),
            };
            answers.write(&reply, &rest)?;
            bar.inc(1);
        }
        bar.finish_and_clear();
    }
    let (lines, errors) = (text::counted(answers.lines, "line"), text::counted(answers.errors, "error"));
    let time = text::duration(begin.elapsed().as_secs_f64() * 1e3);
    text::note(&format!("{lines}, {errors}, {kept} from an earlier run, {time}"));
    if args.fail_on_error && answers.errors > 0 {
        let file = args.out.display();
        return Err(Failure::Lines(format!("expected an answer to every line, got {errors}; see `error` in {file}")));
    }
    Ok(())
}

/// Prints what the user should know of the model.
fn notes(args: &BatchArgs, model: &Model) {
    for note in model.notes() {
        text::note(&format!("note: {}", text::line(note)));
    }
    if args.answer.model.is_none() {
        text::note("note: the demo checkpoint knows only drawn scenes; choose another with --model");
    }
}

/// Whether the next lines would fail as well, or must not begin.
fn ends_the_run(failure: &Failure) -> bool {
    matches!(kind(failure), ErrorKind::DeviceLost | ErrorKind::Device | ErrorKind::Stopped)
}

/// The model, and the conversation of the last line.
struct Desk {
    model: Arc<Model>,
    about: Option<About>,
}

/// A conversation, and what a line must have to use it too.
struct About {
    pictures: Vec<Source>,
    compression: Compression,
    conversation: Conversation,
}

impl Desk {
    /// Answers a request. Earlier lines only save time: they do not change the answer.
    async fn answer(&mut self, request: Request) -> Result<Box<Turn>, Failure> {
        let Request { pictures, messages, options } = request;
        let compression = options.compression_for(self.model.fits());
        // Another conversation is dropped before the next one needs its memory.
        let same = self.about.take().filter(|about| about.pictures == pictures && about.compression == compression);
        let about = match same {
            Some(about) => about,
            None => {
                options.check(self.model.fits())?;
                let decoded = pictures.iter().map(Source::picture).collect::<Result<_, _>>()?;
                let conversation = Conversation::about(&self.model, decoded)?;
                About { pictures, compression, conversation }
            }
        };
        let about = self.about.insert(about);
        Ok(about.conversation.answer(messages, &options).await?)
    }
}
