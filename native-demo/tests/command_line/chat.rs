//! `fovea chat` with lines from a pipe: questions, commands, errors and exit codes.

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Child, Output, Stdio},
};

use serde_json::{Value, json};

use crate::program::{fixture, fovea, on_cpu, program, repository};

const PLATE: &str = "What number is on the blue plate?";

fn rack() -> String {
    repository().join("native-demo/pictures/rack.jpg").to_str().expect("a path in UTF-8").to_owned()
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// The result of a conversation.
struct Talk {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn start(args: &[&str]) -> Child {
    let mut command = program();
    command.args([&["chat"], args, &["--device", "cpu"]].concat());
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    pipes.spawn().expect("the program to start")
}

fn talk(args: &[&str], lines: &[u8]) -> Talk {
    let mut child = start(args);
    // A program that ends before it reads is no error here.
    let _ = child.stdin.take().expect("a pipe").write_all(lines);
    let Output { status, stdout, stderr } = child.wait_with_output().expect("an end");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("an output in UTF-8");
    Talk { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

impl Talk {
    #[track_caller]
    fn expect(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "exit code (got, expected); stderr: {}", self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "expected {word:?} on stderr, got: {}", self.stderr);
        }
    }
}

/// The answer of `fovea ask`, with its line break.
fn answer() -> String {
    on_cpu(&["ask", &rack(), PLATE]).stdout().to_owned()
}

fn saved(file: &Path) -> Value {
    serde_json::from_slice(&fs::read(file).expect("a saved conversation")).expect("JSON")
}

#[test]
fn each_line_is_a_question_about_what_was_said_before() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("saved.json");
    let lines = format!("{PLATE}\n\n  \nWhat word is on the blue sign?\r\n/save {}\n", path(&file));
    let ran = talk(&[&rack(), "--temperature", "9", "--top-k", "1"], lines.as_bytes());
    ran.expect(0, &["note: wrote ", "note: the demo checkpoint"]);
    let numbers = ran.stderr.lines().filter(|line| line.starts_with("visual tokens ")).count();
    assert_eq!(numbers, 2, "numbers (got, expected): {}", ran.stderr);
    assert!(!ran.stderr.contains('\x1b'), "expected no colors in a pipe, got: {}", ran.stderr);

    let record = saved(&file);
    let messages = record["messages"].as_array().expect("messages");
    let roles: Vec<_> = messages.iter().map(|message| message["role"].as_str().expect("a role")).collect();
    assert_eq!(roles, ["user", "assistant", "user", "assistant"], "roles (got, expected)");
    let text = |i: usize| messages[i]["content"].as_str().expect("a text");
    assert_eq!((text(0), text(2)), (PLATE, "What word is on the blue sign?"), "questions (got, expected)");
    assert_eq!(ran.stdout, format!("{}\n{}\n", text(1), text(3)), "stdout (got, expected)");
    assert_eq!(format!("{}\n", text(1)), answer(), "answer, and that of `fovea ask` (got, expected)");
    assert_eq!(record["pictures"], json!([rack()]), "pictures (got, expected)");
    for (i, answer) in record["answers"].as_array().expect("answers").iter().enumerate() {
        assert_eq!(answer["answer"], text(2 * i + 1), "answer {i} (got, expected)");
        assert_eq!(answer["tokens"]["all"], 304, "tokens of answer {i} (got, expected)");
    }
    for key in ["model", "device", "compression"] {
        assert!(record[key].is_string(), "{key}: expected a text, got {}", record[key]);
    }
    let quiet = talk(&["-q", &rack()], format!("{PLATE}\n").as_bytes());
    assert_eq!((quiet.stdout, quiet.stderr), (answer(), String::new()), "with --quiet (got, expected)");
}

#[test]
fn turns_are_taken_back_repeated_and_forgotten() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("my talk.md");
    let lines = [PLATE, "/undo", PLATE, "/retry", &format!("/save \"{}\"", path(&file)), "/new", PLATE, "/history"];
    let ran = talk(&[&rack()], lines.join("\n").as_bytes());
    ran.expect(0, &["note: taken back: What number", "note: the conversation starts again"]);
    let answer = answer();
    let expected = answer.repeat(4) + &format!("user: {PLATE}\nassistant: {}\n", answer.trim());
    assert_eq!(ran.stdout, expected, "stdout (got, expected)");
    let markdown = fs::read_to_string(&file).expect("Markdown");
    let end = format!("![Picture](<{}>)\n\n## Question\n\n{PLATE}\n\n## Answer\n\n{}\n", rack(), answer.trim());
    assert!(markdown.starts_with("# Conversation\n") && markdown.ends_with(&end), "expected {end}, got {markdown}");
    for command in ["/undo", "/retry", "/history", "/stats", "/overlay a.png"] {
        talk(&[&rack()], command.as_bytes()).expect(2, &["fovea: expected a ", "got none yet"]);
    }
}

#[test]
fn an_error_is_printed_and_the_next_line_is_read() {
    let lines = format!("/sing\n/image no-such.png\n{PLATE}\n/undo\n/undo\n");
    let ran = talk(&[&rack()], lines.as_bytes());
    ran.expect(2, &["expected one of /help, /image", "got /sing", "cannot read the picture no-such.png", "take back"]);
    assert_eq!(ran.stdout, answer(), "stdout (got, expected)");
    assert_eq!(ran.stderr.lines().filter(|line| line.starts_with("fovea: ")).count(), 3, "errors: {}", ran.stderr);
    // The exit code is that of the first error.
    talk(&[&rack()], b"/image no-such.png\n/sing\n").expect(4, &[]);

    let mut lines = b"\xff\n".to_vec();
    lines.extend(vec![b'a'; (1 << 20) + 9]);
    lines.extend(format!("\n{PLATE}").as_bytes());
    let ran = talk(&[&rack()], &lines);
    ran.expect(2, &["line 1: expected text in UTF-8", "line 2: expected at most 1048576 bytes"]);
    assert_eq!(ran.stdout, answer(), "stdout (got, expected)");

    let long = talk(&[&rack()], format!("{}\n{PLATE}\n", "word ".repeat(9000)).as_bytes());
    long.expect(2, &["the model takes 2048", "note: the context is full: /undo"]);
    assert_eq!(long.stdout, answer(), "stdout (got, expected)");
}

#[test]
fn arguments_are_checked_before_anything_is_read() {
    for (args, code, words) in [
        (vec!["-"], 2, vec!["expected files of pictures", "standard input"]),
        (vec!["no-such.png"], 4, vec!["no-such.png"]),
        (vec!["--seed", "3"], 2, vec!["--temperature above 0 for --seed"]),
        (vec!["--compress", "text:layer=99"], 2, vec!["got layer 99"]),
        (vec!["--model", "no/such"], 3, vec!["no/such"]),
    ] {
        let ran = talk(&args, b"What is this?\n");
        ran.expect(code, &words);
        assert_eq!(ran.stdout, "", "{args:?}: stdout (got, expected)");
    }
    let help = fovea(&["chat", "--help"]);
    help.expect_code(0);
    for part in ["/image FILE...", "/retry", "--system <TEXT>", "[default: 512]"] {
        assert!(help.stdout().contains(part), "expected {part:?}, got: {}", help.stdout());
    }
    assert!(fovea(&["ask", "--help"]).stdout().contains("[default: 128]"), "expected the default of `ask`");
}

#[test]
fn an_empty_input_and_quit_end_without_an_error() {
    for (args, lines) in [(vec![], ""), (vec![], "\n\n"), (vec![], "/quit\n/sing\n"), (vec!["--system", ""], "/bye")] {
        let ran = talk(&args, lines.as_bytes());
        ran.expect(0, &[]);
        assert_eq!(ran.stdout, "", "{lines:?}: stdout (got, expected)");
    }
    fovea(&["chat", "--device", "cpu"]).expect_code(0);
}

#[test]
fn text_alone_and_a_system_message_are_answered() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("a.json");
    let lines = format!("/system\nHello\n/save {}\n/system \"\"\n/system\n", path(&file));
    let args = ["--model", &fixture("tiny-0"), "--system", "Be short.", "--max-new-tokens", "4"];
    let ran = talk(&args, lines.as_bytes());
    ran.expect(0, &["CPU f32", "first token "]);
    assert!(!ran.stderr.contains("visual tokens"), "expected no visual tokens, got: {}", ran.stderr);
    assert!(ran.stdout.starts_with("Be short.\n") && ran.stdout.ends_with("\nno system message\n"), "{}", ran.stdout);
    let record = saved(&file);
    assert_eq!(record["messages"][0], json!({"role": "system", "content": "Be short."}), "(got, expected)");
    assert_eq!(record["messages"].as_array().map(Vec::len), Some(3), "messages (got, expected)");
    assert_eq!(record["pictures"], json!([]), "pictures (got, expected)");
}

#[test]
fn the_compression_is_shown_and_changed() {
    let lines = format!("/compress\n/compress audio\n/compress none\n{PLATE}\n/stats\n/compress\n");
    let ran = talk(&[&rack()], lines.as_bytes());
    ran.expect(2, &["/compress: expected", "got audio", "note: the next question uses none"]);
    for part in [
        "now: focus",
        "\n  fastv ",
        "visual tokens 304 -> 304 -> 304, 100 % of the work",
        "\ncontext ",
        " of 2048 tokens",
        "now: none\n",
    ] {
        assert!(ran.stdout.contains(part), "expected {part:?}, got: {}", ran.stdout);
    }
}

#[test]
fn pictures_are_changed_and_overlays_never_replace_an_input() {
    let folder = tempfile::tempdir().expect("a folder");
    let [input, two, out] = ["mine.jpg", "a b.jpg", "looked.png"].map(|name| folder.path().join(name));
    fs::copy(rack(), &input).expect("a copy");
    fs::copy(rack(), &two).expect("a copy");
    let before = fs::read(&input).expect("a picture");
    let [input, out] = [path(&input), path(&out)];
    let lines = format!("{PLATE}\n/overlay {input}\n/save {input}\n/overlay {out}\n");
    let ran = talk(&[input], lines.as_bytes());
    ran.expect(2, &["would overwrite", "note: wrote "]);
    assert_eq!(ran.stderr.matches("would overwrite").count(), 2, "refusals (got, expected): {}", ran.stderr);
    assert!(fs::read(input).expect("a picture") == before, "expected the picture as it was");
    assert!(fs::read(out).expect("an overlay").starts_with(b"\x89PNG"), "expected a PNG file");

    let lines = format!("{PLATE}\n/image {input} '{}'\n/history\n{PLATE}\n/overlay {out}\n", path(&two));
    let ran = talk(&[input], lines.as_bytes());
    ran.expect(2, &["note: 2 pictures; the conversation starts again", "expected a question, got none yet"]);
    for name in ["looked-1.png", "looked-2.png"] {
        let overlay = fs::read(folder.path().join(name)).expect("an overlay");
        assert!(overlay.starts_with(b"\x89PNG"), "{name}: expected a PNG file");
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_a_conversation_from_a_pipe_with_130() {
    use std::{io::Read, process::Command};
    let mut child =
        start(&[&fixture("pictures/200x200-0.png"), "--model", &fixture("mistral-0"), "--max-new-tokens", "6000"]);
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(b"What number?\nWhat number?\n").expect("a write");
    // The answer has begun.
    child.stdout.as_mut().expect("a pipe").read_exact(&mut [0]).expect("the first byte of an answer");
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill to run");
    assert!(kill.success(), "expected the signal to be sent, got {kill}");
    let Output { status, stderr, .. } = child.wait_with_output().expect("an end");
    drop(stdin);
    let stderr = String::from_utf8_lossy(&stderr);
    assert_eq!((status.code(), stderr.as_ref()), (Some(130), "fovea: stopped\n"), "exit code, stderr (got, expected)");
}
