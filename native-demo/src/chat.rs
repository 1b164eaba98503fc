//! `fovea chat`: a conversation about pictures. Input: questions and commands, one per line. Output: the answers on stdout
//! token by token; numbers, notes and errors on stderr.
//!
//! Data flow: [`input`] (a line from the prompt or a pipe) → [`command`] (a question or a command) → [`talk`] (the
//! conversation) → [`record`] (the file that `/save` writes).

mod command;
mod input;
mod talk;
mod record;

use fovea_model::{Error, ErrorKind};
use fovea_terminal::{failure::Failure, load::Interrupts, program::report, text};

use self::{command::Line, input::Input, talk::Talk};
use crate::{NAME, args::ChatArgs};

pub use command::help;

/// Answers line after line. At a prompt, an error is printed and the conversation continues. Lines of a pipe continue too,
/// and the exit code is that of the first error.
pub async fn run(args: ChatArgs) -> Result<(), Failure> {
    args.check()?;
    let keeps_history = !args.no_history;
    let interrupts = Interrupts::watch();
    let mut talk = Talk::open(args, interrupts.clone()).await?;
    let mut input = Input::open(keeps_history)?;
    if input.is_prompt() {
        text::note("note: /help lists the commands; Ctrl-D leaves");
    }
    let mut first = None;
    while let Some(line) = input.next(&interrupts)? {
        let line = match line.and_then(|line| Line::read(&line)) {
            Ok(Line::Quit) => break,
            line => line,
        };
        let done = match line {
            Ok(line) => talk.run(line).await,
            Err(why) => Err(why),
        };
        match done {
            Ok(()) => {}
            Err(Failure::OutputClosed) => return Err(Failure::OutputClosed),
            Err(why) if kind(&why) == Some(ErrorKind::Stopped) && !input.is_prompt() => return Err(why),
            Err(why) => {
                report(NAME, &why);
                advise(&why, talk.has_system());
                first.get_or_insert(why.exit_code());
            }
        }
    }
    match first {
        Some(code) if !input.is_prompt() => Err(Failure::Reported(code)),
        _ => Ok(()),
    }
}

/// Prints what may help after an error.
fn advise(why: &Failure, has_system: bool) {
    match why {
        Failure::Model(Error::TooLong { .. }) => {
            text::note("note: the context is full: /undo takes back the last question, /new starts again");
        }
        Failure::Model(Error::Tokenizer { .. }) if has_system => {
            text::note("note: some templates take no system message: `/system \"\"` removes it");
        }
        _ => {}
    }
}

/// The kind of an error of the model.
fn kind(why: &Failure) -> Option<ErrorKind> {
    match why {
        Failure::Model(why) => Some(why.kind()),
        Failure::Runtime(why) => Some(ErrorKind::of_runtime(why)),
        _ => None,
    }
}
