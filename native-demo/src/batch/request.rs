//! Reads a request. Input: a line in one of two forms. Output: pictures, question and options, or why there are none.

use std::path::{Component, Path, PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use fovea_model::{AskOptions, Picture};
use fovea_terminal::{failure::Failure, load, options, text};
use serde_json::{Map, Value};

use super::{
    lines::{LONGEST, Line},
    reply::{Form, LineError, Reply},
};

/// The address of the requests in OpenAI's batch form.
const URL: &str = "/v1/chat/completions";
/// Most pictures of a request, as in [`fovea_model::Conversation::about`].
const MOST_PICTURES: usize = 64;
/// Longest id and longest path, bytes.
const LONGEST_NAME: usize = 4096;
/// Longest quotation of a line in an error, characters.
const LONGEST_QUOTE: usize = 80;
/// Keys of `body` that are read, and keys that do not change an answer.
const BODY: [&str; 12] = [
    "messages",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "seed",
    "compress",
    "model",
    "user",
    "metadata",
    "store",
    "service_tier",
];

/// A picture of a request.
#[derive(Debug, PartialEq)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// The bytes of a data URL.
    Data(Vec<u8>),
}

impl Source {
    /// A path or a data URL. Relative paths are relative to `folder`, and stay in it.
    fn read(text: &str, folder: &Path) -> Result<Self, LineError> {
        let starts = |start: &str| text.get(..start.len()).is_some_and(|own| own.eq_ignore_ascii_case(start));
        if starts("data:") {
            let is_base64 = |(head, _): &(&str, &str)| head.to_ascii_lowercase().ends_with(";base64");
            let Some((_, data)) = text.split_once(',').filter(is_base64) else {
                let got = quoted(text);
                return Err(LineError::request(format!("expected a data URL `data:TYPE;base64,DATA`, got {got}")));
            };
            let bytes = STANDARD.decode(data);
            return bytes
                .map(Self::Data)
                .map_err(|why| LineError::request(format!("expected base64 in the data URL, got: {why}")));
        }
        if starts("http:") || starts("https:") {
            let got = quoted(text);
            return Err(LineError::request(format!(
                "expected a path or a data URL, got the address {got}: http is not supported; download the picture first"
            )));
        }
        if text.is_empty() || text.len() > LONGEST_NAME {
            let got = text.len();
            return Err(LineError::request(format!("expected a path of 1 to {LONGEST_NAME} bytes, got {got}")));
        }
        let path = Path::new(text);
        let inside = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if path.is_absolute() || inside {
            // An absolute path replaces the folder.
            return Ok(Self::File(folder.join(path)));
        }
        let got = quoted(text);
        Err(LineError::request(format!(
            "expected a path within the folder of the input, or an absolute one, got {got}"
        )))
    }

    /// # Errors
    /// Those of [`load::picture`].
    pub fn picture(&self) -> Result<Picture, Failure> {
        match self {
            // A pipe or a device could block the run forever.
            Self::File(path) if path.metadata().is_ok_and(|found| !found.is_file() && !found.is_dir()) => {
                let why = "expected a file, got a pipe or a device; save the picture first".to_owned();
                Err(Failure::PictureFile { file: path.display().to_string(), why })
            }
            Self::File(path) => load::picture(path),
            Self::Data(bytes) => {
                Picture::decode(bytes).map_err(|why| Failure::Picture { file: "the data URL".to_owned(), why })
            }
        }
    }
}

/// A question about pictures.
pub struct Request {
    /// The pictures, which come before the question.
    pub pictures: Vec<Source>,
    /// The question.
    pub question: String,
    /// Its options.
    pub options: AskOptions,
}

/// Reads a line. `folder` is that of the input; `usual` has the options that the line does not set.
pub fn read(line: &Line, folder: &Path, usual: &AskOptions) -> (Reply, Result<Request, LineError>) {
    let mut reply = Reply { form: Form::Simple, line: line.number, of: line.hash(), id: Value::Null };
    let request = object(line).and_then(|of| {
        if ["custom_id", "body"].iter().any(|key| of.get(*key).is_some_and(|value| !value.is_null())) {
            reply.form = Form::Chat;
            reply.id = id(&of, "custom_id")?;
            chat(&of, folder, usual)
        } else {
            reply.id = id(&of, "id")?;
            simple(&of, folder, usual)
        }
    });
    (reply, request)
}

/// The object of a line.
fn object(line: &Line) -> Result<Map<String, Value>, LineError> {
    let number = line.number;
    if line.too_long {
        let most = text::bytes(LONGEST as u64);
        return Err(LineError::request(format!("line {number}: expected at most {most}, got more")));
    }
    match serde_json::from_slice(&line.bytes) {
        Ok(Value::Object(of)) => Ok(of),
        Ok(other) => Err(LineError::request(format!("line {number}: expected an object, got {}", short(&other)))),
        Err(why) => {
            let words = why.to_string();
            // Its own line number is always 1.
            let words = words.split(" at line ").next().unwrap_or_default();
            let column = why.column();
            Err(LineError::new("json", format!("line {number}, column {column}: expected a JSON object, got: {words}")))
        }
    }
}

fn id(of: &Map<String, Value>, key: &str) -> Result<Value, LineError> {
    match of.get(key) {
        None | Some(Value::Null) => Ok(Value::Null),
        Some(Value::String(id)) if id.len() <= LONGEST_NAME => Ok(Value::from(id.as_str())),
        Some(Value::Number(id)) if !id.is_f64() => Ok(Value::Number(id.clone())),
        Some(other) => {
            let got = short(other);
            let expected = format!("a text of at most {LONGEST_NAME} bytes, or a whole number below 2^64, for `{key}`");
            Err(LineError::request(format!("expected {expected}, got {got}")))
        }
    }
}

/// `{"image", "question"}`. Other keys, such as those of `fovea eval`, are ignored.
fn simple(of: &Map<String, Value>, folder: &Path, usual: &AskOptions) -> Result<Request, LineError> {
    let pictures: Option<Vec<&str>> = match of.get("image") {
        Some(Value::Array(all)) => all.iter().map(Value::as_str).collect(),
        Some(Value::String(one)) => Some(vec![one.as_str()]),
        _ => None,
    };
    let question = text_of(of, "question")?.ok_or_else(|| wrong("a text", "question", None))?;
    let refused = || wrong("a path, a data URL or a list of them", "image", of.get("image"));
    request(&pictures.ok_or_else(refused)?, question, settings(of, &["max_new_tokens"], usual)?, folder)
}

/// OpenAI's batch form, with one user message.
fn chat(of: &Map<String, Value>, folder: &Path, usual: &AskOptions) -> Result<Request, LineError> {
    text_of(of, "custom_id")?.ok_or_else(|| wrong("a text", "custom_id", None))?;
    for (key, expected) in [("method", "POST"), ("url", URL)] {
        if let Some(got) = of.get(key).filter(|got| !got.is_null() && got.as_str() != Some(expected)) {
            return Err(wrong(expected, key, Some(got)));
        }
    }
    let body = of.get("body").and_then(Value::as_object).ok_or_else(|| wrong("an object", "body", of.get("body")))?;
    let one = |got: String| LineError::request(format!("expected one user message, got {got}"));
    for (key, value) in body {
        let neutral = match value {
            Value::Null | Value::Bool(false) => true,
            Value::Number(number) => number.as_f64() == Some(if key == "n" { 1.0 } else { 0.0 }),
            Value::String(text) => text.is_empty(),
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => false,
        };
        if neutral || BODY.contains(&key.as_str()) {
            continue;
        }
        return Err(match key.as_str() {
            "tools" | "functions" => one(key.clone()),
            _ => LineError::request(format!("expected no `{}` in `body`, which is not supported", quoted(key))),
        });
    }
    let messages = body.get("messages").and_then(Value::as_array).ok_or_else(|| one("no list".to_owned()))?;
    let message = match messages.as_slice() {
        [message] => message,
        all => return Err(one(text::counted(all.len(), "message"))),
    };
    if message["role"] != "user" {
        return Err(one(format!("the role {}", short(&message["role"]))));
    }
    let (mut pictures, mut texts) = (Vec::new(), Vec::new());
    match &message["content"] {
        Value::String(only) => texts.push(only.as_str()),
        Value::Array(parts) => {
            for part in parts {
                match (part["type"].as_str(), part["text"].as_str(), part["image_url"]["url"].as_str()) {
                    (Some("text"), Some(text), _) => texts.push(text),
                    (Some("image_url"), _, Some(url)) => pictures.push(url),
                    _ => {
                        let expected = "a `text` with its text or an `image_url` with its url";
                        return Err(wrong(expected, "content", Some(part)));
                    }
                }
            }
        }
        other => return Err(wrong("a text or a list of parts", "content", Some(other))),
    }
    let longest = ["max_completion_tokens", "max_tokens"];
    request(&pictures, &texts.join("\n"), settings(body, &longest, usual)?, folder)
}

fn request(pictures: &[&str], question: &str, options: AskOptions, folder: &Path) -> Result<Request, LineError> {
    if !(1..=MOST_PICTURES).contains(&pictures.len()) {
        let got = pictures.len();
        return Err(LineError::request(format!("expected 1 to {MOST_PICTURES} pictures, got {got}")));
    }
    if question.trim().is_empty() {
        return Err(LineError::request("expected a question, got an empty one"));
    }
    let pictures = pictures.iter().map(|picture| Source::read(picture, folder)).collect::<Result<_, _>>()?;
    Ok(Request { pictures, question: question.to_owned(), options })
}

/// The options of a line. `longest`: the names of the largest number of new tokens; the first one that is set counts.
fn settings(of: &Map<String, Value>, longest: &[&str], usual: &AskOptions) -> Result<AskOptions, LineError> {
    let mut options = usual.clone();
    if let Some(spec) = text_of(of, "compress")? {
        let compression = options::compression(spec);
        options.compression = Some(compression.map_err(|why| LineError::new("option", format!("compress: {why}")))?);
    }
    for key in longest.iter().rev() {
        if let Some(tokens) = whole(of, key)? {
            options.max_new_tokens = usize::try_from(tokens).unwrap_or(usize::MAX);
        }
    }
    let pick = &mut options.pick;
    pick.temperature = number(of, "temperature")?.unwrap_or(pick.temperature);
    pick.top_p = number(of, "top_p")?.unwrap_or(pick.top_p);
    pick.seed = whole(of, "seed")?.unwrap_or(pick.seed);
    Ok(options)
}

/// A key that is set; null is the same as missing.
fn get<'a>(of: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    of.get(key).filter(|value| !value.is_null())
}

fn text_of<'a>(of: &'a Map<String, Value>, key: &str) -> Result<Option<&'a str>, LineError> {
    get(of, key).map(|value| value.as_str().ok_or_else(|| wrong("a text", key, Some(value)))).transpose()
}

fn whole(of: &Map<String, Value>, key: &str) -> Result<Option<u64>, LineError> {
    let read = |value: &Value| value.as_u64().ok_or_else(|| wrong("a whole number, 0 or more", key, Some(value)));
    get(of, key).map(read).transpose()
}

fn number(of: &Map<String, Value>, key: &str) -> Result<Option<f64>, LineError> {
    get(of, key).map(|value| value.as_f64().ok_or_else(|| wrong("a number", key, Some(value)))).transpose()
}

fn wrong(expected: &str, key: &str, got: Option<&Value>) -> LineError {
    let got = got.map_or("nothing".to_owned(), short);
    LineError::request(format!("expected {expected} for `{key}`, got {got}"))
}

/// A value, for messages.
fn short(value: &Value) -> String {
    match value {
        // Printed, they could be as long as the line.
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        Value::String(text) => format!("{:?}", quoted(text)),
        other => other.to_string(),
    }
}

/// The beginning of a text, for messages.
fn quoted(text: &str) -> String {
    let mut short: String = text.chars().take(LONGEST_QUOTE).collect();
    if short.len() < text.len() {
        short.push_str("...");
    }
    short
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(text: &str) -> (Reply, Result<Request, LineError>) {
        let bytes = text.as_bytes().to_vec();
        let end = bytes.len() as u64;
        let line = Line { number: 7, bytes, too_long: false, complete: true, end };
        read(&line, Path::new("folder"), &AskOptions::default())
    }

    fn chat_line(body: Value) -> Value {
        json!({"custom_id": "a", "method": "POST", "url": URL, "body": body})
    }

    fn user(content: Value) -> Value {
        json!([{"role": "user", "content": content}])
    }

    #[test]
    fn both_forms_give_the_same_request() {
        let picture = json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD", "detail": "low"}});
        let body = json!({
            "model": "any", "n": 1, "stream": false, "max_tokens": 3, "max_completion_tokens": 5, "temperature": 0.5,
            "top_p": 0.9, "seed": 4, "compress": "random:keep=.5",
            "messages": user(json!([{"type": "text", "text": "What is this?"}, picture])),
        });
        let simple = json!({
            "id": 3, "image": ["DATA:;BASE64,QUJD"], "question": "What is this?", "max_new_tokens": 5,
            "temperature": 0.5, "top_p": 0.9, "seed": 4, "compress": "random:keep=0.5", "answer": "ignored",
        });
        for (line, form, id) in [(chat_line(body), Form::Chat, json!("a")), (simple, Form::Simple, json!(3))] {
            let (reply, request) = parse(&line.to_string());
            assert_eq!((reply.form, reply.line, reply.id), (form, 7, id), "{line} (got, expected)");
            let Request { pictures, question, options } = request.unwrap_or_else(|why| panic!("{line}: {why:?}"));
            assert_eq!((pictures, question.as_str()), (vec![Source::Data(b"ABC".to_vec())], "What is this?"), "{line}");
            let pick = options.pick;
            let got = (options.max_new_tokens, pick.temperature, pick.top_p, pick.seed, pick.top_k);
            assert_eq!(got, (5, 0.5, 0.9, 4, 0), "{line} (got, expected)");
            assert_eq!(options.compression, "random:keep=0.5".parse().ok(), "{line} (got, expected)");
        }
    }

    #[test]
    fn paths_stay_in_the_folder_unless_they_are_absolute() {
        let read = |text: &str| Source::read(text, Path::new("folder"));
        for path in ["a.png", "./a.png", "b/a.png", "-"] {
            assert_eq!(read(path), Ok(Source::File(Path::new("folder").join(path))), "{path} (got, expected)");
        }
        let absolute = std::env::current_dir().expect("a folder").join("a.png");
        let text = absolute.to_str().expect("a path in UTF-8");
        assert_eq!(read(text), Ok(Source::File(absolute.clone())), "{text} (got, expected)");
        for (path, word) in [
            ("../a.png", "within the folder"),
            ("b/../../a.png", "within the folder"),
            ("", "1 to 4096 bytes"),
            ("https://example.org/a.png", "http is not supported"),
            ("HTTP://example.org/a.png", "http is not supported"),
            ("data:image/png,abc", "data:TYPE;base64,DATA"),
            ("data:image/png;base64", "data:TYPE;base64,DATA"),
            ("data:image/png;base64,Q*JD", "expected base64"),
            ("data:image/png;base64,QUJ", "expected base64"),
        ] {
            let Err(why) = read(path) else { panic!("{path}: expected a refusal") };
            assert!(why.code == "request" && why.message.contains(word), "{path}: expected {word:?}, got {why:?}");
        }
        assert!(read(&"a".repeat(5000)).is_err());
    }

    #[test]
    fn a_line_that_is_no_request_says_why() {
        let part = json!({"type": "image_url", "image_url": {"url": "a.png"}});
        let chat = |body: Value| chat_line(body).to_string();
        let good = user(json!([part, {"type": "text", "text": "?"}]));
        let two = json!([good[0], {"role": "assistant", "content": "a"}, good[0]]);
        let one = "expected one user message";
        for (line, code, word) in [
            (String::new(), "json", "line 7, column 0: expected a JSON object"),
            ("{\"image\": ".to_owned(), "json", "line 7"),
            ("[1]".to_owned(), "request", "expected an object, got a list"),
            ("{}".to_owned(), "request", "`question`"),
            (r#"{"image": 1, "question": "?"}"#.to_owned(), "request", "for `image`, got 1"),
            (r#"{"image": ["a.png", 1], "question": "?"}"#.to_owned(), "request", "`image`, got a list"),
            (r#"{"image": [], "question": "?"}"#.to_owned(), "request", "1 to 64 pictures, got 0"),
            (r#"{"image": "a.png", "question": " "}"#.to_owned(), "request", "an empty one"),
            (r#"{"image": "a.png", "question": "?", "seed": -1}"#.to_owned(), "request", "`seed`, got -1"),
            (r#"{"image": "a.png", "question": "?", "compress": "audio"}"#.to_owned(), "option", "got audio"),
            (r#"{"image": "a.png", "question": "?", "id": []}"#.to_owned(), "request", "`id`, got a list"),
            (json!({"custom_id": "a"}).to_string(), "request", "for `body`, got nothing"),
            (json!({"body": {"messages": good}}).to_string(), "request", "`custom_id`"),
            (json!({"custom_id": "a", "url": "/v1/embeddings"}).to_string(), "request", URL),
            (chat(json!({"messages": two})), "request", one),
            (chat(json!({"messages": []})), "request", one),
            (chat(json!({"messages": [{"role": "system", "content": "a"}]})), "request", one),
            (chat(json!({"messages": good, "tools": [{}]})), "request", one),
            (chat(json!({"messages": good, "stop": ["a"]})), "request", "expected no `stop`"),
            (chat(json!({"messages": good, "n": 2})), "request", "expected no `n`"),
            (chat(json!({"messages": good, "temperature": "hot"})), "request", "`temperature`, got \"hot\""),
            (chat(json!({"messages": user(json!("?"))})), "request", "pictures, got 0"),
            (chat(json!({"messages": user(json!([{"type": "input_audio"}]))})), "request", "`content`"),
        ] {
            let Err(why) = parse(&line).1 else { panic!("{line}: expected a refusal") };
            assert!(why.code == code && why.message.contains(word), "{line}: expected {code}, {word:?}, got {why:?}");
        }
    }
}
