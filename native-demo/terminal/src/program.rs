//! A program from its arguments to its exit code.

use std::{
    env,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::ExitCode,
    thread,
};

use clap::{
    CommandFactory, Parser,
    error::{ContextKind, ContextValue, ErrorKind},
};

use fovea_runtime::memory;

use crate::{failure::Failure, panics, text};

/// Bytes of stack: eight times what the longest accepted chat template needs.
const STACK: usize = 64 << 20;

/// Keeps Mesa's Vulkan layer `device_select` silent: it searches for a Wayland display, and where XDG_RUNTIME_DIR is
/// missing, empty or relative (containers, ssh) libwayland prints an error for each search. To be called first in `main`.
fn silence_mesa() {
    if env::var_os("XDG_RUNTIME_DIR").is_none_or(|dir| !Path::new(&dir).is_absolute()) {
        #[expect(unsafe_code, reason = "the environment may change while no other thread runs")]
        // SAFETY: `main` calls this before any thread is started.
        unsafe {
            env::set_var("NODEVICE_SELECT", "1");
        }
    }
}

/// Reads the arguments, first in `main`. `hint` may add to the message of a usage error: it gets the kind of the error,
/// the command (or else the first argument), and the argument that is wrong (or else "").
///
/// # Errors
/// The exit code, after help, version or a message of one line was printed.
pub fn parse<C: Parser>(hint: fn(ErrorKind, &str, &str) -> &'static str) -> Result<C, ExitCode> {
    silence_mesa();
    C::try_parse().map_err(|error| {
        match error.kind() {
            ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                // A closed stdout is no error.
                let _ = error.print();
            }
            kind => {
                let wrong = match error.get(ContextKind::InvalidArg) {
                    Some(ContextValue::String(wrong)) => wrong.as_str(),
                    _ => "",
                };
                let message = usage_error::<C>(&error.render().to_string(), |first| hint(kind, first, wrong));
                text::error(&text::line(&message));
            }
        }
        ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
    })
}

/// clap's error in one line: what is wrong, a hint, and the help of the command that was typed.
fn usage_error<C: CommandFactory>(rendered: &str, hint: impl Fn(&str) -> &'static str) -> String {
    // clap's first paragraph is the error; tips and the usage follow.
    let what = rendered.split("\n\n").next().unwrap_or_default().trim_start_matches("error:");
    let what = what.split_whitespace().collect::<Vec<_>>().join(" ");
    let command = C::command();
    let name = command.get_name();
    let args: Vec<String> = env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    let typed = args.iter().find(|arg| command.find_subcommand(arg.as_str()).is_some());
    let hint = hint(typed.or(args.first()).map_or("", String::as_str));
    let of = typed.map_or(String::new(), |command| format!(" {command}"));
    format!("{name}: {what}{hint}; see `{name}{of} --help`")
}

/// Runs `work` on a thread with a large stack, prints its error on stderr as `NAME: ERROR`, and returns the exit code. A panic
/// is an error like any other.
///
/// Some systems give the first thread a stack that the chat template of a checkpoint could exhaust.
pub fn run_program<F>(name: &str, work: impl FnOnce() -> F + Send + 'static) -> ExitCode
where
    F: Future<Output = Result<(), Failure>>,
{
    memory::keep_freed();
    let spawned = thread::Builder::new().stack_size(STACK).spawn(move || caught(|| pollster::block_on(work())));
    let result = match spawned {
        Ok(worker) => worker.join().unwrap_or_else(|_| Err(Failure::Panic(panics::last_panic()))),
        Err(why) => Err(Failure::internal(&format!("no thread: {why}"))),
    };
    ended(name, result)
}

/// Runs `work` on this thread, as a window needs it; the rest is as in [`run_program`].
pub fn run_here(name: &str, work: impl FnOnce() -> Result<(), Failure>) -> ExitCode {
    memory::keep_freed();
    ended(name, caught(work))
}

fn caught(work: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(Failure::Panic(panics::last_panic())))
}

fn ended(name: &str, result: Result<(), Failure>) -> ExitCode {
    let Err(failure) = result else { return ExitCode::SUCCESS };
    if !matches!(failure, Failure::OutputClosed | Failure::Reported(_)) {
        report(name, &failure);
    }
    ExitCode::from(failure.exit_code())
}

/// Prints an error on stderr, in one line.
pub fn report(name: &str, failure: &Failure) {
    text::error(&format!("{name}: {}", text::line(&failure.to_string())));
}

#[cfg(test)]
mod tests {
    use std::panic;

    use super::*;
    use crate::logging::Verbosity;

    #[test]
    fn a_panic_is_reported_with_its_file_and_line() {
        Verbosity::default().start();
        let failure = caught(|| panic!("the first line\nthe second"));
        let _ = panic::take_hook();
        let said = failure.err().map(|failure| (failure.to_string(), failure.exit_code()));
        let (said, code) = said.expect("an error");
        assert!(said.starts_with("internal error at native-demo/terminal/src/program.rs:"), "got: {said}");
        assert!(said.ends_with(": the first line; please report it"), "got: {said}");
        assert_eq!(code, 7, "exit code (got, expected)");
    }
}
