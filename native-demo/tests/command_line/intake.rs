//! Names in arguments: standard input, checkpoints by their ids, questions that look like options or files, and output files
//! that must not replace inputs.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::Path,
    process::{Output, Stdio},
    thread,
};

use crate::program::{Broken, fixture, fovea, on_cpu, program};

const SHIRT: &str = "What number is on the shirt?";

fn picture() -> String {
    fixture("pictures/200x200-0.png")
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

#[test]
fn a_hyphen_is_standard_input() {
    let expected = on_cpu(&["ask", &picture(), SHIRT, "--max-new-tokens", "4"]);
    let mut command = program();
    command.args(["ask", "-", SHIRT, "--max-new-tokens", "4", "--device", "cpu"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program to start");
    let bytes = fs::read(picture()).expect("a picture");
    child.stdin.take().expect("a pipe").write_all(&bytes).expect("a write");
    let Output { status, stdout, stderr } = child.wait_with_output().expect("an end");
    assert!(status.success(), "expected success, got {status}: {}", String::from_utf8_lossy(&stderr));
    assert_eq!(String::from_utf8_lossy(&stdout), expected.stdout(), "answer (got, expected)");
    // An empty standard input.
    fovea(&["ask", "-", SHIRT, "--device", "cpu"]).expect_error(4, &["standard input", "empty file"]);
}

#[test]
fn the_error_of_a_path_that_is_no_picture_says_what_to_do() {
    let folder = fixture("pictures");
    for (name, words) in [(folder.as_str(), ["folder", "fovea eval"]), ("no-such.png", ["no-such.png", "No such file"])]
    {
        fovea(&["ask", name, SHIRT, "--device", "cpu"]).expect_error(4, &words);
    }
}

/// A server that answers each request with what `reply` has for its path: the first lines of the response, and its body.
fn server(reply: impl Fn(&str) -> (String, Vec<u8>) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
            let path = lines.next().unwrap_or_default().split(' ').nth(1).unwrap_or_default().to_owned();
            lines.for_each(drop);
            let (head, body) = reply(&path);
            // A client that closes early is no failure of the server.
            let _ = write!(stream, "HTTP/1.1 {head}\r\nConnection: close\r\n\r\n");
            let _ = stream.write_all(&body);
        }
    });
    address
}

/// Runs without the proxies of the environment, which could catch requests to this computer.
fn without_proxy(args: &[&str]) -> Output {
    let mut command = program();
    for name in ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    command.args(args).args(["--device", "cpu"]).output().expect("the program to start")
}

#[test]
fn a_picture_can_be_an_address() {
    let bytes = fs::read(picture()).expect("a picture");
    let here = server(move |path| match path {
        "/a.png?size=1" => (format!("200 OK\r\nContent-Length: {}", bytes.len()), bytes.clone()),
        "/moved" => ("302 Found\r\nLocation: /a.png?size=1\r\nContent-Length: 0".to_owned(), Vec::new()),
        "/round" => ("302 Found\r\nLocation: /round\r\nContent-Length: 0".to_owned(), Vec::new()),
        "/page" => ("200 OK\r\nContent-Length: 6".to_owned(), b"<html>".to_vec()),
        "/large" => ("200 OK\r\nContent-Length: 200000000".to_owned(), vec![0; 130_000_000]),
        _ => ("404 Not Found\r\nContent-Length: 0".to_owned(), Vec::new()),
    });
    let expected = on_cpu(&["ask", &picture(), SHIRT, "--max-new-tokens", "4"]);
    for name in ["/a.png?size=1", "/moved"] {
        let Output { status, stdout, stderr } =
            without_proxy(&["ask", &format!("{here}{name}"), SHIRT, "--max-new-tokens", "4"]);
        assert!(status.success(), "{name}: expected success, got {status}: {}", String::from_utf8_lossy(&stderr));
        assert_eq!(String::from_utf8_lossy(&stdout), expected.stdout(), "{name}: answer (got, expected)");
    }
    for (name, code, words) in [
        ("/none?key=secret", 8, ["/none: ", "answers 404"]),
        ("/round", 8, ["/round: ", "at most 5 redirects"]),
        ("/large", 8, ["/large: ", "at most 128 MB"]),
        ("/page", 4, ["/page: ", "got HTML"]),
    ] {
        let Output { status, stdout, stderr } = without_proxy(&["ask", &format!("{here}{name}"), SHIRT]);
        let stderr = String::from_utf8_lossy(&stderr);
        assert_eq!(
            (status.code(), stdout.len()),
            (Some(code), 0),
            "{name}: exit code, stdout (got, expected): {stderr}"
        );
        assert!(words.iter().all(|word| stderr.contains(word)), "{name}: expected {words:?}, got: {stderr}");
        assert!(!stderr.contains("secret"), "{name}: expected no query in the message, got: {stderr}");
    }
}

#[test]
fn a_question_that_begins_with_a_hyphen_goes_after_two() {
    for question in ["-What is it?", "-5", "--help me"] {
        fovea(&["ask", &picture(), question, "--device", "cpu"])
            .expect_error(2, &["goes after `--`", "fovea ask --help"]);
        let ran = fovea(&["ask", &picture(), "--device", "cpu", "--max-new-tokens", "2", "--", question]);
        ran.expect_code(0);
    }
}

#[test]
fn files_and_empty_texts_are_not_questions() {
    let other = fixture("pictures/48x48-0.png");
    fovea(&["ask", &picture(), &other, SHIRT, "--device", "cpu"])
        .expect_error(2, &["48x48-0.png", "one picture", "fovea eval"]);
    for empty in ["", "  \n"] {
        fovea(&["ask", &picture(), empty, "--device", "cpu"]).expect_error(2, &["expected a question", "number 1"]);
    }
    fovea(&["ask", &picture(), SHIRT, "--seed", "-1"]).expect_error(2, &["'-1'", "--seed", "fovea ask --help"]);
    fovea(&[&picture(), SHIRT]).expect_error(2, &["fovea ask PICTURE QUESTION"]);
    let words = on_cpu(&["ask", &picture(), "What", "number", "is", "it", "--max-new-tokens", "2"]);
    assert!(words.stderr().contains("put quotes around"), "expected a hint, got: {}", words.stderr());
    assert_eq!(words.stdout().lines().count(), 4, "answers (got, expected)");
}

#[cfg(unix)]
#[test]
fn an_output_never_replaces_an_input() {
    let folder = tempfile::tempdir().expect("a folder");
    let input = folder.path().join("mine.png");
    fs::copy(picture(), &input).expect("a copy");
    let before = fs::read(&input).expect("the picture");
    let ran = fovea(&["ask", path(&input), SHIRT, "--device", "cpu", "--overlay", path(&input)]);
    ran.expect_error(2, &["would overwrite", "mine.png"]);
    assert!(fs::read(&input).expect("the picture") == before, "expected the picture as it was");
    fovea(&["ask", path(&input), SHIRT, "--device", "cpu", "--overlay", "-"]).expect_error(2, &["got -"]);
    let text = folder.path().join("a.txt");
    fovea(&["ask", path(&input), SHIRT, "--device", "cpu", "--overlay", path(&text)])
        .expect_error(2, &[".png, .jpg", ".txt"]);
    // The format follows the name; no other file is left in the folder.
    for (name, start) in [
        ("a.jpg", &b"\xff\xd8\xff"[..]),
        ("a.webp", b"RIFF"),
        ("a.bmp", b"BM"),
        ("a.png", b"\x89PNG"),
        ("a", b"\x89PNG"),
    ] {
        let out = folder.path().join(name);
        on_cpu(&["ask", path(&input), SHIRT, "--max-new-tokens", "2", "--overlay", path(&out)]);
        assert!(
            fs::read(&out).expect("an overlay").starts_with(start),
            "{name}: expected the format that its name asks for"
        );
    }
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 6, "files (got, expected)");
    for name in ["/dev/stdout", "a.png/"] {
        let ran = fovea(&["ask", path(&input), SHIRT, "--device", "cpu", "--overlay", name]);
        ran.expect_error(if name.ends_with('/') { 1 } else { 2 }, &[name]);
    }
    // The same for a trace, and for the files of the checkpoint.
    let model = Broken::copy("tiny-0");
    let weights = format!("{}/model.safetensors", model.path());
    for out in [path(&input), &weights] {
        let args = ["trace", path(&input), "?", "--model", model.path(), "--out", out];
        fovea(&args).expect_error(2, &["would overwrite"]);
        let link = folder.path().join("link.png");
        std::os::unix::fs::symlink(out, &link).expect("a link");
        let args = ["ask", path(&input), SHIRT, "--model", model.path(), "--device", "cpu", "--overlay", path(&link)];
        fovea(&args).expect_error(2, &["would overwrite"]);
        fs::remove_file(&link).expect("a link");
    }
}

#[test]
fn checkpoints_are_found_in_the_hubs_cache_and_nothing_is_downloaded() {
    let home = tempfile::tempdir().expect("a folder");
    let snapshot = home.path().join("hub/models--org--tiny/snapshots/abc");
    fs::create_dir_all(&snapshot).expect("folders");
    for entry in fs::read_dir(fixture("tiny-0")).expect("a fixture") {
        let entry = entry.expect("a file");
        fs::copy(entry.path(), snapshot.join(entry.file_name())).expect("a copy");
    }
    let ask = |model: &str| {
        let mut command = program();
        command.env("HF_HOME", home.path()).env_remove("HF_HUB_CACHE").env_remove("HUGGINGFACE_HUB_CACHE");
        let args = ["ask", &picture(), SHIRT, "--model", model, "--device", "cpu", "--max-new-tokens", "2"];
        let Output { status, stderr, .. } = command.args(args).output().expect("the program to start");
        (status.code(), String::from_utf8_lossy(&stderr).into_owned())
    };
    for model in ["org/tiny", "https://huggingface.co/org/tiny", path(&home.path().join("hub/models--org--tiny"))] {
        let (code, stderr) = ask(model);
        assert_eq!(code, Some(0), "{model}: exit code (got, expected): {stderr}");
    }
    let gguf = home.path().join("model.gguf");
    fs::write(&gguf, "GGUF").expect("a file");
    let weights = snapshot.join("model.safetensors");
    let cache = home.path().join("hub");
    for (model, words) in [
        ("org/other", ["no repository `org/other`", "fovea pull org/other"]),
        ("org/tiny@def", ["revision `def`", "abc"]),
        (path(&cache), ["a cache of 1 repositories", "org/tiny"]),
        (path(&gguf), ["expected the folder", "got a file"]),
        (path(&weights), ["expected the folder", "snapshots/abc"]),
        ("./no/such", ["./no/such", "no such folder"]),
        ("nodir", ["nodir: there is no such folder", "ORG/NAME"]),
    ] {
        let (code, stderr) = ask(model);
        assert_eq!(code, Some(3), "{model}: exit code (got, expected): {stderr}");
        for word in words {
            assert!(stderr.contains(word), "{model}: expected {word:?}, got: {stderr}");
        }
    }
}

#[test]
fn answers_are_compared_as_vqas_metric_does_and_broken_pictures_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::copy(picture(), folder.path().join("a.png")).expect("a copy");
    let answer = on_cpu(&["ask", &picture(), SHIRT, "--max-new-tokens", "8"]).stdout().trim().to_owned();
    let line = |image: &str, answer: &str| {
        serde_json::json!({"image": image, "question": SHIRT, "answer": answer, "kind": "k"}).to_string() + "\n"
    };
    let list = folder.path().join("questions.jsonl");
    let shouted = format!("{}.", answer.to_uppercase());
    fs::write(&list, line("a.png", &answer) + &line("a.png", &shouted) + &line("a.png", "no such answer"))
        .expect("a list");
    let right = |more: &[&str]| {
        let ran = on_cpu(&[&["eval", path(folder.path()), "--json", "--timed", "1"], more].concat());
        let json = ran.json();
        let row = json["rows"].as_array().expect("rows").iter().find(|r| r["mode"] == "focus").expect("a row").clone();
        (row["right"].as_f64().expect("a share"), json["about"]["compared"].as_str().expect("words").to_owned())
    };
    let (share, words) = right(&[]);
    assert!((share - 2.0 / 3.0).abs() < 1e-9 && words.contains("VQA"), "got {share}, {words}");
    let (share, words) = right(&["--exact"]);
    assert!((share - 1.0 / 3.0).abs() < 1e-9 && words.contains("literally"), "got {share}, {words}");
    // The error names a broken picture and its line, before any question is answered.
    fs::write(folder.path().join("b.png"), "no picture").expect("a file");
    fs::write(&list, line("a.png", "x") + &line("b.png", "x")).expect("a list");
    fovea(&["eval", path(folder.path()), "--device", "cpu"]).expect_error(4, &["questions.jsonl", "line 2", "b.png"]);
    let table = folder.path().join("questions.jsonl");
    let args = ["eval", path(folder.path()), "--device", "cpu", "--wrong", path(&table)];
    fovea(&args).expect_error(2, &["would overwrite"]);
}
