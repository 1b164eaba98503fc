//! A real window under Xvfb, used like a user does: drop a file, type, use the clipboard. The engine runs on the first
//! adapter, which is a software GPU on machines without a GPU.
#![cfg(target_os = "linux")]

mod clipboard;
mod drop;
mod hands;
mod screen;

use std::{
    io::Write,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use hands::Hands;
use screen::Screen;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Waits until `there` returns a value, at most `seconds`.
fn until<T>(what: &str, seconds: u64, mut there: impl FnMut() -> Outcome<Option<T>>) -> Outcome<T> {
    let begin = Instant::now();
    loop {
        if let Some(found) = there()? {
            return Ok(found);
        }
        if begin.elapsed() > Duration::from_secs(seconds) {
            return Err(format!("expected {what} within {seconds} s").into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The numbers of complete and of stopped answers in a report.
fn answers(report: &str) -> Option<[usize; 2]> {
    let counts = report.lines().find_map(|line| line.strip_prefix("answers: "))?;
    let mut counts = counts.split(", ").map(|count| count.split(' ').next().and_then(|n| n.parse().ok()));
    Some([counts.next()??, counts.next()??])
}

/// The program; it is stopped at the end of the test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const QUESTION: &str = "What word is on the blue sign?";

#[test]
fn open_drop_ask_stop_ask_again_close() -> Outcome<()> {
    let Some(screen) = Screen::open()? else {
        assert!(std::env::var_os("FOVEA_REQUIRE_DISPLAY").is_none(), "expected Xvfb, found none");
        // Not `println!`: the test harness hides its output if the test passes.
        writeln!(std::io::stderr(), "SKIP window: no Xvfb").ok();
        return Ok(());
    };
    let settings = tempfile::tempdir()?;
    // The same question several times: each one alone, so that the last answer does not depend on the stopped ones.
    std::fs::create_dir(settings.path().join("fovea"))?;
    std::fs::write(settings.path().join("fovea/settings.json"), r#"{"answer": {"remember": false}}"#)?;
    let begin = Instant::now();
    let mut program = Program(
        Command::new(env!("CARGO_BIN_EXE_fovea"))
            .args(["app", "--device", "wgpu"])
            .env("DISPLAY", screen.name())
            .env_remove("WAYLAND_DISPLAY")
            .env("XDG_CONFIG_HOME", settings.path())
            .env("XDG_RUNTIME_DIR", std::env::temp_dir())
            .stdin(Stdio::null())
            .spawn()?,
    );
    let hands = Hands::on(&screen)?;
    let window = until("a window", 60, || hands.window("Fovea"))?;
    println!("window after {:.2} s", begin.elapsed().as_secs_f64());
    hands.focus(window)?;

    let picture = Path::new(env!("CARGO_MANIFEST_DIR")).join("pictures/rack.jpg");
    drop::file(&hands, window, &picture.canonicalize()?)?;
    until("the picture's name in the title", 60, || hands.window("rack.jpg - Fovea"))?;

    let report_with = |part: &'static str| {
        let hands = &hands;
        let mut last = None;
        let found = until(part, 60, || {
            hands.press(&[hands::CONTROL, hands::SHIFT, u32::from(b'r')])?;
            last = clipboard::text(hands, 500)?;
            Ok(last.clone().filter(|report| report.contains(part)))
        });
        found.map_err(|why| format!("{why}; the last report: {last:?}"))
    };
    let report = report_with("demo checkpoint, 8 layers")?;
    assert!(!report.contains("rack.jpg"), "expected a report without the picture's name, got {report}");

    // Asks, and stops after some time. An answer may be faster than that, so a stop is tried at several times.
    let ask = |stop_after: Option<u64>, asked: usize| -> Outcome<[usize; 2]> {
        hands.type_text(QUESTION)?;
        hands.press(&[hands::ENTER])?;
        if let Some(milliseconds) = stop_after {
            std::thread::sleep(Duration::from_millis(milliseconds));
            hands.press(&[hands::ESCAPE])?;
        }
        let mut last = None;
        let ended = until("the end of an answer", 60, || {
            hands.press(&[hands::CONTROL, hands::SHIFT, u32::from(b'r')])?;
            last = clipboard::text(&hands, 500)?;
            Ok(last.as_deref().and_then(answers).filter(|[complete, stopped]| complete + stopped == asked))
        });
        ended.map_err(|why| format!("{why}, after {asked} questions; the last report: {last:?}").into())
    };
    let mut asked = 0;
    let mut stopped = 0;
    for milliseconds in [50, 20, 100, 10, 30, 70, 5] {
        asked += 1;
        [_, stopped] = ask(Some(milliseconds), asked)?;
        if stopped > 0 {
            break;
        }
    }
    assert_eq!(stopped, 1, "answers that were stopped, of {asked} (got, expected)");
    assert_eq!(ask(None, asked + 1)?, [asked, 1], "answers that are complete and stopped (got, expected)");
    let mut copied = None;
    let answer = until("the answer in the clipboard", 20, || {
        hands.press(&[hands::CONTROL, hands::SHIFT, u32::from(b'a')])?;
        copied = clipboard::text(&hands, 500)?;
        Ok(copied.clone().filter(|text| text == "exit"))
    });
    answer.map_err(|why| format!("{why}, got {copied:?}"))?;

    hands.close(window)?;
    let status = until("the program's end", 60, || Ok(program.0.try_wait()?))?;
    assert!(status.success(), "expected success after the window was closed, got {status}");
    Ok(())
}
