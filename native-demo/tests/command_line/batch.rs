//! `fovea batch`: both forms of requests, conversations, an error per line, runs that are stopped and resumed, shards, and
//! answers that equal those of `fovea ask`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::program::{Ran, fixture, fovea, on_cpu, repository};

const SHIRT: &str = "What number is on the shirt?";

/// A folder with a picture, a file of requests, and a file of answers.
struct Folder(TempDir);

impl Folder {
    fn new(lines: &[Value]) -> Self {
        let folder = Self(tempfile::tempdir().expect("a temporary folder"));
        fs::copy(picture(), folder.path("picture.png")).expect("a copy");
        folder.write(&lines.iter().map(|line| format!("{line}\n")).collect::<String>());
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes the requests.
    fn write(&self, text: &str) {
        fs::write(self.path("in.jsonl"), text).expect("a file");
    }

    /// Runs with `tiny-0` on the CPU.
    fn run(&self, more: &[&str]) -> Ran {
        self.run_to("out.jsonl", more)
    }

    fn run_to(&self, out: &str, more: &[&str]) -> Ran {
        let (input, out) = (self.path("in.jsonl"), self.path(out));
        let model = fixture("tiny-0");
        let args = ["batch", path(&input), path(&out), "--model", &model, "--device", "cpu", "--max-new-tokens", "8"];
        fovea(&[&args, more].concat())
    }

    /// The lines of a file, without times.
    fn answers(&self, name: &str) -> Vec<Value> {
        let mut lines = self.lines(name);
        for line in &mut lines {
            line.as_object_mut().expect("an object").remove("timing_ms");
        }
        lines
    }

    fn lines(&self, name: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.path(name)).expect("answers");
        assert!(text.is_empty() || text.ends_with('\n'), "expected complete lines, got {text}");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON in a line")).collect()
    }
}

fn picture() -> String {
    fixture("pictures/200x200-0.png")
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

fn simple(question: &str) -> Value {
    json!({"image": "picture.png", "question": question})
}

/// OpenAI's form of one question about a picture.
fn chat(url: &str, question: &str) -> Value {
    talk(json!([shown(url, question)]))
}

/// A message with a picture.
fn shown(url: &str, question: &str) -> Value {
    let content = json!([{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": question}]);
    json!({"role": "user", "content": content})
}

/// OpenAI's form.
fn talk(messages: Value) -> Value {
    let body = json!({"model": "any", "messages": messages});
    json!({"custom_id": "b", "method": "POST", "url": "/v1/chat/completions", "body": body})
}

fn data_url() -> String {
    format!("data:image/png;base64,{}", STANDARD.encode(fs::read(picture()).expect("a picture")))
}

/// What `fovea ask` answers.
fn asked(question: &str, more: &[&str]) -> Value {
    let (picture, model) = (picture(), fixture("tiny-0"));
    let args = ["ask", &picture, question, "--model", &model, "--max-new-tokens", "8", "--json"];
    on_cpu(&[&args, more].concat()).json()
}

#[test]
fn both_forms_are_answered_as_by_ask() {
    let mut first = simple(SHIRT);
    first["id"] = json!("a");
    let lines = [first, chat(&data_url(), SHIRT), chat("picture.png", SHIRT), simple("Is it a shirt?")];
    let folder = Folder::new(&lines);
    let ran = folder.run(&[]);
    ran.expect_code(0);
    assert_eq!(ran.stdout(), "", "stdout (got, expected)");
    assert!(ran.stderr().contains("4 lines, 0 errors, 0 from an earlier run"), "summary, got: {}", ran.stderr());
    let (got, expected) = (folder.lines("out.jsonl"), asked(SHIRT, &[]));
    assert_eq!(got.len(), 4, "lines (got, expected)");
    for (index, line) in got.iter().enumerate() {
        assert_eq!(line["line"], index + 1, "line (got, expected)");
        assert!(line["of"].as_str().is_some_and(|of| of.len() == 16), "expected a hash, got {line}");
    }
    assert_eq!((&got[0]["id"], &got[3]["id"]), (&json!("a"), &Value::Null), "ids (got, expected)");
    for key in ["answer", "finish_reason", "tokens", "equivalent_share", "compression"] {
        assert_eq!(got[0][key], expected[key], "{key} (got, expected)");
    }
    assert!(got[0]["timing_ms"]["first_token"].is_f64(), "expected a time, got {}", got[0]);
    for (line, number) in [(&got[1], 2), (&got[2], 3)] {
        assert_eq!(line["id"], format!("batch_req_{number}"), "id (got, expected)");
        assert_eq!((&line["custom_id"], &line["error"]), (&json!("b"), &Value::Null), "{line}");
        assert_eq!(line["response"]["status_code"], 200, "status (got, expected)");
        let body = &line["response"]["body"];
        assert_eq!(body["object"], "chat.completion", "object (got, expected)");
        let choice = &body["choices"][0];
        assert_eq!(choice["message"], json!({"role": "assistant", "content": expected["answer"]}), "(got, expected)");
        assert_eq!(choice["finish_reason"], expected["finish_reason"], "finish reason (got, expected)");
        let usage = &body["usage"];
        assert_eq!(usage["visual_tokens"], expected["tokens"], "tokens (got, expected)");
        assert_eq!(usage["picture_cached"], false, "another source of the picture (got, expected)");
        let count = |key: &str| usage[key].as_u64().unwrap_or_else(|| panic!("{key}: got {usage}"));
        let answer = expected["answer_ids"].as_array().expect("ids").len() as u64;
        assert_eq!(count("completion_tokens"), answer, "tokens of the answer (got, expected)");
        assert_eq!(count("total_tokens"), count("prompt_tokens") + answer, "sum (got, expected)");
        assert!(count("prompt_tokens") > expected["tokens"]["compressed"].as_u64().expect("a count"), "got {usage}");
    }
}

#[test]
fn conversations_and_text_alone_are_answered() {
    let say = |role: &str, text: &str| json!({"role": role, "content": text});
    let follow_up = json!([shown("picture.png", SHIRT), say("assistant", "7"), say("user", "Is it a shirt?")]);
    let lines = [
        talk(json!([say("system", "Be short."), shown("picture.png", SHIRT)])),
        talk(follow_up.clone()),
        talk(follow_up.clone()),
        talk(json!([say("user", "Hello."), say("assistant", "Hello."), shown("picture.png", SHIRT)])),
        talk(json!([say("system", "Be short."), say("user", "Hello.")])),
    ];
    let folder = Folder::new(&lines);
    folder.run(&[]).expect_code(0);
    let bodies: Vec<Value> = folder.lines("out.jsonl").iter().map(|line| line["response"]["body"].clone()).collect();
    let shirt = asked(SHIRT, &[]);
    for (body, cached) in bodies[..4].iter().zip([false, true, true, true]) {
        let usage = &body["usage"];
        assert!(body["choices"][0]["message"]["content"].is_string(), "expected an answer, got {body}");
        assert_eq!(usage["visual_tokens"]["all"], shirt["tokens"]["all"], "visual tokens (got, expected)");
        assert_eq!(usage["picture_cached"], cached, "{body}: picture_cached (got, expected)");
    }
    let cached = |body: &Value| body["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().expect("a count");
    assert_eq!(cached(&bodies[0]), 0, "cached tokens of the first question (got, expected)");
    assert!(cached(&bodies[2]) > 0, "expected cached tokens of a repeated question, got {}", bodies[2]);
    // Earlier lines only save time.
    let alone = Folder::new(&[talk(follow_up)]);
    alone.run(&[]).expect_code(0);
    let alone = alone.lines("out.jsonl")[0]["response"]["body"]["choices"].clone();
    assert_eq!((&bodies[1]["choices"], &bodies[2]["choices"]), (&alone, &alone), "(got, expected)");
    let text = &bodies[4]["usage"];
    assert_eq!(text["visual_tokens"], json!({"all": 0, "compressed": 0, "kept": 0}), "text alone (got, expected)");
    assert_eq!((&text["equivalent_share"], &text["picture_cached"]), (&json!(1.0), &json!(false)), "(got, expected)");
    assert!(text["prompt_tokens"].as_u64() > Some(0), "expected tokens of text, got {text}");
}

#[test]
fn a_text_that_ends_the_answer_is_not_part_of_it() {
    let whole = asked(SHIRT, &[])["answer"].as_str().expect("an answer").to_owned();
    let stop = whole.chars().skip(1).find(char::is_ascii_alphanumeric).expect("a letter or a digit");
    let (mut first, mut second) = (simple(SHIRT), chat("picture.png", SHIRT));
    first["stop"] = json!([stop]);
    second["body"]["stop"] = json!(stop);
    let folder = Folder::new(&[first, second]);
    folder.run(&[]).expect_code(0);
    let expected = whole.split(stop).next().unwrap_or_default();
    let lines = folder.lines("out.jsonl");
    let choice = &lines[1]["response"]["body"]["choices"][0];
    for (answer, reason) in
        [(&lines[0]["answer"], &lines[0]["finish_reason"]), (&choice["message"]["content"], &choice["finish_reason"])]
    {
        assert_eq!((answer, reason), (&json!(expected), &json!("stop")), "{whole:?} (got, expected)");
    }
}

#[test]
fn an_error_of_a_line_does_not_end_the_run() {
    let folder = Folder::new(&[]);
    fs::write(folder.path("text.png"), "no picture").expect("a file");
    let with = |key: &str, value: Value| {
        let mut line = simple(SHIRT);
        line[key] = value;
        line.to_string()
    };
    let mut tool = chat("picture.png", SHIRT);
    tool["body"]["messages"][0]["role"] = json!("tool");
    let answer = json!({"role": "assistant", "content": "7"});
    let rows = [
        ("{\"image\": ".to_owned(), "json", "line 1, column"),
        (String::new(), "json", "line 2, column 0"),
        (with("image", json!("https://example.org/a.png")), "request", "http is not supported"),
        (with("image", json!("../in.jsonl")), "request", "within the folder"),
        (with("image", json!("data:image/png;base64,*")), "request", "expected base64"),
        (with("image", json!("data:image/png;base64,QUJD")), "picture", "expected a PNG"),
        (with("image", json!("text.png")), "picture", "expected a PNG"),
        (with("image", json!("no-such.png")), "picture", "no-such.png"),
        (with("compression", json!("meteor")), "option", "no tensors meteor"),
        (with("max_tokens", json!(5)), "request", "expected no `max_tokens`"),
        (with("max_new_tokens", json!(0)), "option", "at least 1"),
        (with("max_new_tokens", json!(1_000_000)), "too-long", "too long"),
        (with("temperature", json!(-1)), "option", "temperature"),
        (chat("https://example.org/a.png", SHIRT).to_string(), "request", "http is not supported"),
        (tool.to_string(), "request", "`messages[0].role`, got \"tool\""),
        (
            talk(json!([shown("no-such.png", SHIRT), answer, shown("picture.png", "?")])).to_string(),
            "picture",
            "no-such",
        ),
        (talk(json!([shown("picture.png", SHIRT), answer])).to_string(), "request", "the last message"),
    ];
    let errors = rows.len();
    let mut text: String = rows.iter().map(|(line, ..)| format!("{line}\n")).collect();
    // The last line has no line break.
    text += &simple(SHIRT).to_string();
    folder.write(&text);
    let ran = folder.run(&[]);
    ran.expect_code(0);
    let summary = format!("{} lines, {errors} errors", errors + 1);
    assert!(ran.stderr().contains(&summary), "summary, got: {}", ran.stderr());
    let lines = folder.lines("out.jsonl");
    assert_eq!(lines.len(), rows.len() + 1, "lines (got, expected)");
    for (line, (request, code, word)) in lines.iter().zip(&rows) {
        assert_eq!(line["error"]["code"], *code, "{request}: got {line}");
        let message = line["error"]["message"].as_str().expect("a message");
        assert!(message.contains(word), "{request}: expected {word:?}, got {message}");
        assert!(line.get("answer").is_none() && line["response"].is_null(), "{request}: got {line}");
    }
    assert_eq!(lines[errors - 1]["custom_id"], "b", "id of an error (got, expected)");
    assert!(lines[errors]["answer"].is_string(), "expected an answer after errors, got {}", lines[errors]);
    // A complete file needs no model, and keeps its errors.
    let before = fs::read(folder.path("out.jsonl")).expect("answers");
    let (input, out) = (folder.path("in.jsonl"), folder.path("out.jsonl"));
    let again = fovea(&["batch", path(&input), path(&out), "--fail-on-error", "--model", "/no/such/model"]);
    assert!(again.stderr().contains(&format!("{} from an earlier run", errors + 1)), "got: {}", again.stderr());
    again.expect_code(1);
    assert!(again.line("fovea: ").contains(&format!("got {errors} errors")), "got: {}", again.stderr());
    assert_eq!(fs::read(folder.path("out.jsonl")).expect("answers"), before, "answers (got, expected)");
}

#[test]
fn a_run_is_resumed_after_its_last_complete_line() {
    let folder = Folder::new(&[simple(SHIRT), json!({"image": 1}), chat("picture.png", SHIRT)]);
    folder.run(&[]).expect_code(0);
    let whole = fs::read(folder.path("out.jsonl")).expect("answers");
    let ends: Vec<usize> = whole.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(at, _)| at + 1).collect();
    let [first, second, third] = ends[..] else { panic!("expected three lines, got ends {ends:?}") };
    // Within the head of a line, within its rest, and without its line break only.
    for (length, kept) in [(0, 0), (5, 0), (first - 1, 0), (first, 1), (first + 60, 1), (second, 2), (third - 1, 2)] {
        fs::write(folder.path("cut.jsonl"), &whole[..length]).expect("a file");
        let ran = folder.run_to("cut.jsonl", &[]);
        ran.expect_code(0);
        assert!(ran.stderr().contains(&format!("{kept} from an earlier run")), "{length}: got {}", ran.stderr());
        let resumed = fs::read(folder.path("cut.jsonl")).expect("answers");
        let end = if kept == 0 { 0 } else { ends[kept - 1] };
        assert!(resumed.starts_with(&whole[..end]), "{length} bytes: expected {kept} lines as they were");
        let [mut got, mut expected] = [folder.answers("cut.jsonl"), folder.answers("out.jsonl")];
        for line in got.iter_mut().chain(&mut expected).filter(|line| line["response"].is_object()) {
            line["response"]["body"]["created"] = Value::Null;
            // An earlier line of the same run has computed the features.
            for key in ["picture_cached", "prompt_tokens_details"] {
                line["response"]["body"]["usage"][key] = Value::Null;
            }
        }
        assert_eq!(got, expected, "{length} bytes (got, expected)");
    }
}

#[cfg(unix)]
#[test]
fn a_killed_run_and_a_stopped_run_are_resumed() {
    use std::{
        process::{Command, Stdio},
        thread,
        time::{Duration, Instant},
    };

    use crate::program::program;

    // `mistral-0` answers this question without a stop token.
    let long = |tokens: usize| json!({"image": "picture.png", "question": "What number?", "max_new_tokens": tokens});
    let folder = Folder::new(&[long(4), long(3000), long(4)]);
    let (input, out, model) = (folder.path("in.jsonl"), folder.path("out.jsonl"), fixture("mistral-0"));
    let args = ["batch", path(&input), path(&out), "--model", &model, "--device", "cpu"];
    for (signal, code) in [("-KILL", None), ("-INT", Some(130))] {
        // Missing at first.
        let _ = fs::remove_file(&out);
        let mut child = program().args(args).stderr(Stdio::null()).spawn().expect("the program to start");
        let start = Instant::now();
        while fs::read(&out).map_or(0, |bytes| bytes.len()) == 0 {
            assert!(start.elapsed() < Duration::from_secs(60), "expected one line within a minute");
            thread::sleep(Duration::from_millis(2));
        }
        let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().expect("kill to run");
        assert!(sent.success(), "{signal}: expected it to be sent, got {sent}");
        assert_eq!(child.wait().expect("an end").code(), code, "{signal}: exit code (got, expected)");
        assert_eq!(folder.lines("out.jsonl").len(), 1, "{signal}: complete lines (got, expected)");
    }
    let ran = fovea(&args);
    ran.expect_code(0);
    assert!(ran.stderr().contains("3 lines, 0 errors, 1 from an earlier run"), "summary, got: {}", ran.stderr());
    let lines = folder.lines("out.jsonl");
    assert_eq!(lines.iter().map(|line| &line["line"]).collect::<Vec<_>>(), [1, 2, 3], "lines (got, expected)");
    assert_eq!(lines[0]["answer"], lines[2]["answer"], "equal questions (got, expected)");
}

#[test]
fn shards_have_together_every_line_once() {
    let questions = [SHIRT, "Is it a shirt?", "What color is it?", SHIRT, "How many?"];
    let folder = Folder::new(&questions.map(simple));
    folder.run(&[]).expect_code(0);
    let mut shards = Vec::new();
    for (index, lines) in [(1, vec![1, 3, 5]), (2, vec![2, 4])] {
        let (out, shard) = (format!("{index}.jsonl"), format!("{index}/2"));
        folder.run_to(&out, &["--shard", &shard]).expect_code(0);
        let answers = folder.answers(&out);
        assert_eq!(answers.iter().map(|a| &a["line"]).collect::<Vec<_>>(), lines, "{shard} (got, expected)");
        shards.extend(answers);
    }
    shards.sort_by_key(|answer| answer["line"].as_u64());
    assert_eq!(shards, folder.answers("out.jsonl"), "(got, expected)");
    // The answers of another shard are those of other lines.
    folder.run_to("1.jsonl", &["--shard", "2/2"]).expect_error(2, &["line 1", "line 2 of the input", "--restart"]);
    folder.run(&["--shard", "3/2"]).expect_error(2, &["I/N", "such as 1/4"]);
}

#[test]
fn answers_to_another_input_are_refused_and_other_files_are_left_alone() {
    let folder = Folder::new(&[simple(SHIRT), simple("Is it a shirt?")]);
    folder.run(&[]).expect_code(0);
    let first = folder.answers("out.jsonl");
    folder.write(&format!("{}\n{}\n", simple(SHIRT), simple("Is it another?")));
    folder.run(&[]).expect_error(2, &["out.jsonl", "line 2", "--restart"]);
    folder.write(&format!("{}\n", simple(SHIRT)));
    folder.run(&[]).expect_error(2, &["expected at most 1 line, got more", "--restart"]);
    assert_eq!(folder.answers("out.jsonl"), first, "refused: the answers (got, expected)");
    folder.run(&["--restart"]).expect_code(0);
    assert_eq!(folder.answers("out.jsonl"), first[..1], "(got, expected)");
    // Files that this command has not written.
    for (name, text) in
        [("notes.txt", "no answers\n"), ("config.json", "{\"a\": 1}"), ("list.jsonl", "{\"line\": 1}\n")]
    {
        fs::write(folder.path(name), text).expect("a file");
        for more in [&[][..], &["--restart"]] {
            folder.run_to(name, more).expect_error(2, &[name, "`fovea batch`"]);
            assert_eq!(fs::read_to_string(folder.path(name)).expect("a file"), text, "{name} (got, expected)");
        }
    }
    folder.run_to("in.jsonl", &["--restart"]).expect_error(2, &["would overwrite"]);
    fs::remove_file(folder.path("in.jsonl")).expect("a file");
    folder.run(&[]).expect_error(4, &["in.jsonl"]);
}

#[test]
fn neighbouring_lines_about_a_picture_share_its_features_and_keep_their_answers() {
    let other = json!({"image": "picture.png", "question": SHIRT, "compression": "none"});
    let folder = Folder::new(&[simple("Is it a shirt?"), simple(SHIRT), other, simple(SHIRT), simple(SHIRT)]);
    folder.run(&[]).expect_code(0);
    let lines = folder.lines("out.jsonl");
    let computed: Vec<bool> = lines.iter().map(|line| line["timing_ms"].get("vision_tower").is_some()).collect();
    assert_eq!(computed, [true, false, true, true, false], "the vision tower ran (got, expected)");
    let [shirt, none] = [asked(SHIRT, &[]), asked(SHIRT, &["--compress", "none"])];
    let expected = [&asked("Is it a shirt?", &[]), &shirt, &none, &shirt, &shirt];
    for (line, expected) in lines.iter().zip(expected) {
        for key in ["answer", "finish_reason", "tokens", "equivalent_share", "compression"] {
            assert_eq!(line[key], expected[key], "line {}: {key} (got, expected)", line["line"]);
        }
    }
}

/// The answers in `native-demo/pictures/questions.jsonl` were read off the pictures by eye.
#[test]
fn the_demo_answers_lines_of_an_evaluation() {
    let pictures = repository().join("native-demo/pictures").canonicalize().expect("a folder");
    let questions = fs::read_to_string(pictures.join("questions.jsonl")).expect("questions");
    let mut lines: Vec<Value> =
        questions.lines().take(3).map(|line| serde_json::from_str(line).expect("a question")).collect();
    let right: Vec<Value> = lines.iter().map(|line| line["answer"].clone()).collect();
    for line in &mut lines {
        line["image"] = json!(pictures.join(line["image"].as_str().expect("a name")));
    }
    let folder = Folder::new(&lines);
    let (input, out) = (folder.path("in.jsonl"), folder.path("out.jsonl"));
    on_cpu(&["batch", path(&input), path(&out)]);
    let got: Vec<Value> = folder.lines("out.jsonl").iter().map(|line| line["answer"].clone()).collect();
    let got: Vec<&str> = got.iter().map(|answer| answer.as_str().expect("an answer").trim()).collect();
    assert_eq!(got, right, "answers (got, expected)");
}
