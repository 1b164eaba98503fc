//! Ctrl-C, and outputs that are closed or full.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::program::{fixture, program};

/// `mistral-0` answers this question without a stop token: 6000 tokens take seconds, and its context is 8192.
fn long_answer() -> Command {
    let mut command = program();
    command.args(["ask", &fixture("pictures/200x200-0.png"), "What number?", "--model", &fixture("mistral-0")]);
    command.args(["--device", "cpu", "--max-new-tokens", "6000"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Waits for the end of the program, at most a minute.
fn end(child: &mut Child) -> Option<i32> {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(60) {
        if let Some(status) = child.try_wait().expect("a child's status") {
            return status.code();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().expect("a child to end");
    panic!("expected the program to end within a minute, but it still runs");
}

fn text(from: impl Read) -> String {
    let mut text = Vec::new();
    BufReader::new(from).read_to_end(&mut text).expect("an output to be read");
    String::from_utf8(text).expect("an output in UTF-8")
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_an_answer_with_130_and_keeps_its_beginning() {
    let mut child = long_answer().spawn().expect("the program to start");
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    // The answer has begun.
    let mut first = [0];
    stdout.read_exact(&mut first).expect("the first byte of an answer");
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill to run");
    assert!(kill.success(), "expected the signal to be sent, got {kill}");
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).expect("the rest of the answer");
    let code = end(&mut child);
    let stderr = text(child.stderr.take().expect("a pipe"));
    assert_eq!(code, Some(130), "exit code (got, expected); stderr: {stderr}");
    let answer = String::from_utf8([&first[..], &rest].concat()).expect("an answer in UTF-8");
    assert!(
        answer.ends_with('\n') && answer.len() > 1,
        "expected a partial answer with its line's end, got {answer:?}"
    );
    assert!(answer.len() < 6000, "expected a partial answer, got {} bytes", answer.len());
    assert_eq!(stderr, "fovea: stopped\n", "stderr (got, expected)");
}

#[cfg(unix)]
#[test]
fn an_output_that_is_closed_early_ends_the_program_silently() {
    // As `| head -1` does: the reader reads one byte of the answer and closes the pipe.
    let mut child = long_answer().spawn().expect("the program to start");
    let mut stdout = child.stdout.take().expect("a pipe");
    stdout.read_exact(&mut [0]).expect("the first byte of an answer");
    drop(stdout);
    let code = end(&mut child);
    let stderr = text(child.stderr.take().expect("a pipe"));
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "exit code, stderr (got, expected)");

    // Both outputs are closed before anything is written.
    let tiny = fixture("tiny-0");
    for args in [vec!["inspect", &tiny], vec!["plan", &tiny], vec!["doctor"], vec!["completions", "bash"], vec![]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let both = writer.try_clone().expect("the same pipe");
        let mut child = program().args(&args).stdout(writer).stderr(both).spawn().expect("a start");
        let expected = if args.is_empty() { 5 } else { 0 };
        assert_eq!(end(&mut child), Some(expected), "{args:?}: exit code (got, expected)");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error_with_a_message() {
    let (tiny, picture) = (fixture("tiny-0"), fixture("pictures/48x48-0.png"));
    for args in [
        vec!["ask", &picture, "?", "--model", &tiny, "--device", "cpu"],
        vec!["inspect", &tiny, "--json"],
        vec!["plan", &tiny],
        vec!["doctor", "--json"],
        vec!["completions", "zsh"],
    ] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
        let mut child = program().args(&args).stdout(full).stderr(Stdio::piped()).spawn().expect("a start");
        let code = end(&mut child);
        let lines: Vec<String> =
            BufReader::new(child.stderr.take().expect("a pipe")).lines().map(|l| l.expect("a line")).collect();
        assert_eq!(code, Some(1), "{args:?}: exit code (got, expected): {lines:?}");
        let said = lines.len() == 1 && lines[0].starts_with("fovea: cannot write stdout: ");
        assert!(said, "{args:?}: expected one sentence, got {lines:?}");
    }
}
