//! The conversation of `fovea chat`: pictures, turns and options. Input: a question or a command. Output: what it prints.

use std::{
    io::{self, IsTerminal},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{RecvTimeoutError, channel},
    },
    thread,
    time::Duration,
};

use fovea_model::{
    AskOptions, Cancel, Compression, Conversation, Error, ErrorKind, Fits, METHODS, Message, Messages, Model, Picture,
    Turn,
};
use fovea_overlay::{draw, png};
use fovea_terminal::{
    failure::Failure,
    load::{self, Interrupts},
    output::{self, Output},
    text,
};
use serde_json::{Value, json};

use super::{
    command::{Line, help},
    kind,
    record::Record,
};
use crate::{
    answer,
    args::{AnswerArgs, ChatArgs},
};

/// Time between two looks at Ctrl-C while files are read.
const LOOK: Duration = Duration::from_millis(20);

/// A question with its answer.
struct Exchange {
    question: String,
    /// The answer; of one that was stopped, its beginning.
    answer: String,
    /// The answer as `fovea ask --json` prints it.
    report: Value,
}

/// What is on the device.
struct Open {
    model: Arc<Model>,
    conversation: Conversation,
}

/// A conversation, and what is needed to begin it again.
pub struct Talk {
    args: AnswerArgs,
    interrupts: Interrupts,
    /// None after the device was lost, until it is opened again.
    open: Option<Open>,
    /// The pictures while `open` is None.
    pictures: Vec<Picture>,
    /// The files of the pictures.
    files: Vec<PathBuf>,
    /// All files of pictures that were read so far.
    read: Vec<PathBuf>,
    options: AskOptions,
    /// The system message; empty: none.
    system: String,
    exchanges: Vec<Exchange>,
    /// The last complete answer of this conversation.
    last: Option<Box<Turn>>,
    /// The last question, if it has no answer.
    unanswered: Option<String>,
}

impl Talk {
    /// Reads the pictures and loads the model.
    ///
    /// # Errors
    /// What is wrong with a picture, the device or the checkpoint.
    pub async fn open(args: ChatArgs, interrupts: Interrupts) -> Result<Self, Failure> {
        let ChatArgs { images: files, answer: args, system, no_history: _ } = args;
        let pictures = files.iter().map(|file| load::picture(file)).collect::<Result<Vec<_>, _>>()?;
        let options = args.options();
        let model = model(&args, &options, &interrupts.begin()).await?;
        answer::notes(&args, &model, &pictures);
        let open = Some(Open { conversation: Conversation::about(&model, pictures)?, model });
        let system = system.unwrap_or_default();
        let (pictures, exchanges, last, unanswered) = (Vec::new(), Vec::new(), None, None);
        let read = files.clone();
        Ok(Self { args, interrupts, open, pictures, files, read, options, system, exchanges, last, unanswered })
    }

    /// Whether there is a system message.
    pub fn has_system(&self) -> bool {
        !self.system.is_empty()
    }

    /// Answers a question, or runs a command.
    ///
    /// # Errors
    /// Why it has no effect; the conversation is as before.
    pub async fn run(&mut self, line: Line) -> Result<(), Failure> {
        match line {
            Line::Nothing | Line::Quit => Ok(()),
            Line::Question(question) => self.ask(question).await,
            Line::Help => print(&help()),
            Line::Image(files) => self.show(files),
            Line::New => {
                self.begin();
                text::note("note: the conversation starts again, with the same pictures");
                Ok(())
            }
            Line::Compress(None) => print(&self.methods()?),
            Line::Compress(Some(compression)) => self.compress(compression),
            Line::System(None) => print(if self.has_system() { self.system.as_str() } else { "no system message" }),
            Line::System(Some(system)) => {
                self.system = system;
                text::note("note: the next question has this system message");
                Ok(())
            }
            Line::Retry => self.retry().await,
            Line::Undo => {
                // A question that has no answer stays, for /retry.
                let exchange = self.exchanges.pop().ok_or_else(|| nothing("a question to take back"))?;
                self.last = None;
                text::note(&format!("note: taken back: {}", text::line(&exchange.question)));
                Ok(())
            }
            Line::History => self.history(),
            Line::Save(file) => self.save(&file),
            Line::Overlay(file) => self.overlay(&file),
            Line::Stats => self.stats(),
        }
    }

    /// All messages, and `question` at the end.
    fn messages(&self, question: Option<&str>) -> Messages {
        let mut messages = Messages::default();
        if self.has_system() {
            messages.push(Message::system(&self.system));
        }
        for Exchange { question, answer, .. } in &self.exchanges {
            messages.push(Message::user(question));
            messages.push(Message::assistant(answer));
        }
        if let Some(question) = question {
            messages.push(Message::user(question));
        }
        messages
    }

    /// Answers `question`, and adds both to the conversation. A question without an answer is not added.
    async fn ask(&mut self, question: String) -> Result<(), Failure> {
        let options = AskOptions { cancel: self.interrupts.begin(), ..self.options.clone() };
        let messages = self.messages(Some(&question));
        let mut said = String::new();
        let mut answered = self.answer(&messages, &options, &mut said).await;
        if answered.as_ref().is_err_and(|why| kind(why) == Some(ErrorKind::DeviceLost)) {
            text::note("note: the device was lost; it is opened again");
            self.close();
            said.clear();
            answered = self.answer(&messages, &options, &mut said).await;
        }
        let (answer, report) = match answered {
            Ok(turn) => {
                answer::note_empty(&turn);
                let model = &self.loaded()?.model;
                text::note(&text::dim(&answer::numbers(model, &turn)));
                for line in answer::details(&turn) {
                    tracing::info!("{line}");
                }
                let report = model.report(&question, &turn);
                (self.last.insert(turn).text.clone(), report)
            }
            Err(why) if kind(&why) == Some(ErrorKind::Stopped) && io::stdin().is_terminal() => {
                text::note(&text::dim("(stopped)"));
                self.last = None;
                if said.trim().is_empty() {
                    self.unanswered = Some(question);
                    return Ok(());
                }
                let report = json!({ "question": question, "answer": said, "finish_reason": "stopped" });
                (said, report)
            }
            Err(why) => {
                self.unanswered = Some(question);
                return Err(why);
            }
        };
        self.unanswered = None;
        self.exchanges.push(Exchange { question, answer, report });
        Ok(())
    }

    /// Answers the last question again. With a temperature above 0, the random numbers are new ones.
    async fn retry(&mut self) -> Result<(), Failure> {
        if self.options.pick.temperature > 0.0 {
            self.options.pick.seed = self.options.pick.seed.wrapping_add(1);
        }
        if let Some(question) = self.unanswered.take() {
            return self.ask(question).await;
        }
        let exchange = self.exchanges.pop().ok_or_else(|| nothing("a question to answer again"))?;
        let before = self.exchanges.len();
        let done = self.ask(exchange.question.clone()).await;
        if self.exchanges.len() == before {
            // Without a new answer, the old one stays.
            self.exchanges.push(exchange);
            self.unanswered = None;
        }
        done
    }

    /// Answers the last message. After a lost device, the model is loaded first.
    async fn answer(
        &mut self,
        messages: &Messages,
        options: &AskOptions,
        said: &mut String,
    ) -> Result<Box<Turn>, Failure> {
        if self.open.is_none() {
            let model = model(&self.args, &self.options, &options.cancel).await?;
            let conversation = Conversation::about(&model, self.pictures.clone())?;
            self.open = Some(Open { model, conversation });
            self.pictures = Vec::new();
        }
        answer::answer(&mut self.loaded_mut()?.conversation, messages.clone(), options, Some(said)).await
    }

    /// Drops what is on a lost device, so that two models are never in memory. Messages and pictures stay. Dropping may
    /// panic there.
    fn close(&mut self) {
        let Some(Open { model, conversation }) = self.open.take() else { return };
        self.pictures = conversation.pictures().to_vec();
        let device = model.device().clone();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(conversation)));
        let _ = catch_unwind(AssertUnwindSafe(|| drop(model)));
        let _ = catch_unwind(AssertUnwindSafe(|| device.close()));
    }

    fn loaded(&self) -> Result<&Open, Failure> {
        self.open.as_ref().ok_or_else(not_open)
    }

    fn loaded_mut(&mut self) -> Result<&mut Open, Failure> {
        self.open.as_mut().ok_or_else(not_open)
    }

    /// Forgets all turns.
    fn begin(&mut self) {
        self.exchanges.clear();
        (self.last, self.unanswered) = (None, None);
    }

    fn show(&mut self, files: Vec<PathBuf>) -> Result<(), Failure> {
        let read = files.clone();
        let pictures = stoppable(&self.interrupts.begin(), move || {
            read.iter().map(|file| load::picture(file)).collect::<Result<Vec<_>, _>>()
        })?;
        match &mut self.open {
            Some(open) => open.conversation = Conversation::about(&open.model, pictures)?,
            None => self.pictures = pictures,
        }
        self.read.extend(files.iter().cloned());
        self.files = files;
        self.begin();
        let count = text::counted(self.files.len(), "picture");
        text::note(&format!("note: {count}; the conversation starts again"));
        Ok(())
    }

    fn compress(&mut self, compression: Compression) -> Result<(), Failure> {
        let options = AskOptions { compression: Some(compression), ..self.options.clone() };
        options.check(self.loaded()?.model.fits())?;
        self.options = options;
        text::note(&format!("note: the next question uses {}", self.compression()?));
        Ok(())
    }

    /// The compression of the next question.
    fn compression(&self) -> Result<String, Failure> {
        Ok(self.options.compression_for(self.loaded()?.model.fits()).to_string())
    }

    /// The compression of the next question, and all methods.
    fn methods(&self) -> Result<String, Failure> {
        let rows = METHODS.iter().map(|row| format!("\n  {:16}  {}", row.name, row.title));
        Ok(format!("now: {}\nmethods, with none and focus:{}", self.compression()?, rows.collect::<String>()))
    }

    fn history(&self) -> Result<(), Failure> {
        let messages = self.messages(None);
        if messages.0.is_empty() {
            return Err(nothing("a question"));
        }
        let shown = messages.0.iter().map(|message| format!("{}: {}", message.role.name(), message.text().trim()));
        print(&shown.collect::<Vec<_>>().join("\n"))
    }

    /// The files that no command may overwrite.
    fn inputs(&self) -> Vec<PathBuf> {
        let mut read = load::checkpoint_files(self.args.model.as_deref());
        read.extend(self.read.iter().cloned());
        read
    }

    fn save(&self, file: &Path) -> Result<(), Failure> {
        refuse_pipe(file)?;
        let output = Output::new(file, &self.inputs())?;
        let model = &self.loaded()?.model;
        let name = self.args.model.as_deref().map_or("demo".into(), Path::to_string_lossy);
        let record = Record {
            model: &name,
            device: &format!("{} {}", model.device().info, model.dtype_name()),
            compression: &self.compression()?,
            pictures: &self.files,
            messages: &self.messages(None),
            answers: self.exchanges.iter().map(|exchange| &exchange.report).collect(),
        };
        output.write(record.text(file)?.as_bytes())?;
        note_written(file);
        Ok(())
    }

    /// Writes one overlay per picture; of several, with a number at the end of the name.
    fn overlay(&self, file: &Path) -> Result<(), Failure> {
        let turn = self.last.as_ref().ok_or_else(|| nothing("a complete answer"))?;
        let format = output::picture_format(file)?;
        refuse_pipe(file)?;
        let pictures = self.loaded()?.conversation.pictures();
        if pictures.is_empty() {
            return Err(nothing("a picture"));
        }
        let read = self.inputs();
        let cancel = self.interrupts.begin();
        for (i, (picture, looked)) in pictures.iter().zip(&turn.looked).enumerate() {
            if cancel.is_cancelled() {
                return Err(Error::Cancelled.into());
            }
            let file = if pictures.len() > 1 { numbered(file, i + 1) } else { file.to_owned() };
            let output = Output::new(&file, &read)?;
            output.write(&output::encoded(&png(&draw(picture, looked)?)?, format)?)?;
            note_written(&file);
        }
        Ok(())
    }

    fn stats(&self) -> Result<(), Failure> {
        let turn = self.last.as_ref().ok_or_else(|| nothing("a complete answer"))?;
        let [stages, memory] = answer::details(turn);
        let s = &turn.statistics;
        let prompt = turn.prompt.text_tokens() + s.tokens.compressed;
        let model = &self.loaded()?.model;
        let (used, all) = (prompt + turn.answer_ids.len(), model.config().text.context);
        print(&format!(
            "{}\n{stages}\n{memory}\ncontext {used} of {all} tokens, {} computed for an earlier question",
            answer::numbers(model, turn),
            s.cached_tokens
        ))
    }
}

async fn model(args: &AnswerArgs, options: &AskOptions, cancel: &Cancel) -> Result<Arc<Model>, Failure> {
    let check = |fits: Fits<'_>| options.check(fits);
    load::model(args.model.as_deref(), &args.device, args.load, cancel, check).await
}

/// Runs `work`, which reads files, until `cancel`: then it continues, and its result is ignored.
fn stoppable<T: Send + 'static>(
    cancel: &Cancel,
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let (sender, result) = channel();
    let thread = thread::spawn(move || {
        // Fails if no one waits any more.
        let _ = sender.send(work());
    });
    loop {
        match result.recv_timeout(LOOK) {
            Ok(result) => return result,
            Err(RecvTimeoutError::Timeout) if cancel.is_cancelled() => return Err(Error::Cancelled.into()),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => match thread.join() {
                Err(panicked) => resume_unwind(panicked),
                Ok(_) => return Err(Failure::internal("a thread ended without a result")),
            },
        }
    }
}

/// What needs a model after the device was lost, and could not be opened again.
fn not_open() -> Failure {
    Failure::Usage("expected a loaded model, got a lost device; ask a question to load the model again".to_owned())
}

/// A command that has nothing to work on.
fn nothing(expected: &str) -> Failure {
    Failure::Usage(format!("expected {expected}, got none yet"))
}

/// Prints a result.
fn print(shown: &str) -> Result<(), Failure> {
    let shown = if io::stdout().is_terminal() { text::harmless(shown) } else { shown.to_owned() };
    text::out(|to| writeln!(to, "{shown}"))
}

/// A pipe would block the conversation until someone reads it.
fn refuse_pipe(file: &Path) -> Result<(), Failure> {
    if file.metadata().is_ok_and(|found| !found.is_file()) {
        let file = file.display();
        return Err(Failure::Usage(format!(
            "{file}: expected a file, or a name that does not exist, got something else"
        )));
    }
    Ok(())
}

fn note_written(file: &Path) {
    text::note(&format!("note: wrote {}", text::line(&file.display().to_string())));
}

/// `a.png` as `a-1.png`.
fn numbered(file: &Path, number: usize) -> PathBuf {
    let mut name = file.file_stem().unwrap_or_default().to_owned();
    name.push(format!("-{number}"));
    if let Some(extension) = file.extension() {
        name.push(".");
        name.push(extension);
    }
    file.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_on_files_can_be_stopped() {
        let cancel = Cancel::default();
        assert_eq!(stoppable(&cancel, || Ok(7)).ok(), Some(7), "(got, expected)");
        cancel.cancel();
        let (_open, gate) = channel::<()>();
        let stopped = stoppable(&cancel, move || {
            let _ = gate.recv();
            Ok(())
        });
        assert_eq!(stopped.err().as_ref().and_then(kind), Some(ErrorKind::Stopped), "(got, expected)");
    }
}
