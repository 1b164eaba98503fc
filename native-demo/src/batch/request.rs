//! Reads a request. Input: a line in one of two forms. Output: pictures, messages and options, or why there are none.

use std::path::{Component, Path, PathBuf};

use fovea_model::{AskOptions, Messages, Picture};
use fovea_openai::{ChatRequest, MOST_PICTURES, RequestError, data_url, keys, settings};
use fovea_terminal::{failure::Failure, load, text};
use serde_json::{Map, Value};

use super::{
    lines::{LONGEST, Line},
    reply::{Form, Reply},
};

/// The address of the requests in OpenAI's batch form.
const URL: &str = "/v1/chat/completions";
/// Keys of the other form. `answer` and `kind` are those of `fovea eval`, whose files are requests too; they are not
/// read. The keys of OpenAI's form are null here.
const KEYS: &[&str] = &[
    "image",
    "question",
    "id",
    "max_new_tokens",
    "compression",
    "temperature",
    "top_p",
    "top_k",
    "seed",
    "repetition_penalty",
    "stop",
    "answer",
    "kind",
];
/// Longest id and longest path, bytes.
const LONGEST_NAME: usize = 4096;

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
    fn read(text: &str, folder: &Path) -> Result<Self, RequestError> {
        if let Some(bytes) = data_url(text) {
            return bytes.map(Self::Data);
        }
        let starts = |start: &str| text.get(..start.len()).is_some_and(|own| own.eq_ignore_ascii_case(start));
        if starts("http:") || starts("https:") {
            let got = keys::quoted(text);
            return Err(refused(format!(
                "expected a path or a data URL, got the address {got}: http is not supported; download the picture first"
            )));
        }
        if text.is_empty() || text.len() > LONGEST_NAME {
            let got = text.len();
            return Err(refused(format!("expected a path of 1 to {LONGEST_NAME} bytes, got {got}")));
        }
        let path = Path::new(text);
        let inside = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if path.is_absolute() || inside {
            // An absolute path replaces the folder.
            return Ok(Self::File(folder.join(path)));
        }
        let got = keys::quoted(text);
        Err(refused(format!("expected a path within the folder of the input, or an absolute one, got {got}")))
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

/// Messages about pictures.
pub struct Request {
    /// The pictures, in the order of their places in the messages.
    pub pictures: Vec<Source>,
    /// The messages; the last one is the question. Without a place for a picture, all pictures come before the first question.
    pub messages: Messages,
    /// The options of the question.
    pub options: AskOptions,
}

/// Reads a line. `folder` is that of the input; `usual` has the options that the line does not set.
pub fn read(line: &Line, folder: &Path, usual: &AskOptions) -> (Reply, Result<Request, RequestError>) {
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
fn object(line: &Line) -> Result<Map<String, Value>, RequestError> {
    let number = line.number;
    if line.too_long {
        let most = text::bytes(LONGEST as u64);
        return Err(refused(format!("line {number}: expected at most {most}, got more")));
    }
    match serde_json::from_slice(&line.bytes) {
        Ok(Value::Object(of)) => Ok(of),
        Ok(other) => Err(refused(format!("line {number}: expected an object, got {}", keys::short(&other)))),
        Err(why) => {
            let words = why.to_string();
            // Its own line number is always 1.
            let words = words.split(" at line ").next().unwrap_or_default();
            let column = why.column();
            let message = format!("line {number}, column {column}: expected a JSON object, got: {words}");
            Err(RequestError::new("json", None, message))
        }
    }
}

fn id(of: &Map<String, Value>, key: &str) -> Result<Value, RequestError> {
    match of.get(key) {
        None | Some(Value::Null) => Ok(Value::Null),
        Some(Value::String(id)) if id.len() <= LONGEST_NAME => Ok(Value::from(id.as_str())),
        Some(Value::Number(id)) if !id.is_f64() => Ok(Value::Number(id.clone())),
        Some(other) => {
            let got = keys::short(other);
            let expected = format!("a text of at most {LONGEST_NAME} bytes, or a whole number below 2^64, for `{key}`");
            Err(refused(format!("expected {expected}, got {got}")))
        }
    }
}

/// `{"image", "question"}`. As in OpenAI's form, another key is refused unless its value has no effect.
fn simple(of: &Map<String, Value>, folder: &Path, usual: &AskOptions) -> Result<Request, RequestError> {
    keys::only(of, KEYS, "").map_err(|why| {
        let message = format!("{}; the keys are {}", why.message, KEYS.join(", "));
        RequestError::new(why.code, why.param.as_deref(), message)
    })?;
    let pictures: Option<Vec<&str>> = match of.get("image") {
        Some(Value::Array(all)) => all.iter().map(Value::as_str).collect(),
        Some(Value::String(one)) => Some(vec![one.as_str()]),
        _ => None,
    };
    let question = keys::text(of, "question")?.ok_or_else(|| RequestError::wrong("a text", "question", None))?;
    let wrong = || RequestError::wrong("a path, a data URL or a list of them", "image", of.get("image"));
    let pictures = pictures.ok_or_else(wrong)?;
    if !(1..=MOST_PICTURES).contains(&pictures.len()) {
        return Err(refused(format!("expected 1 to {MOST_PICTURES} pictures, got {}", pictures.len())));
    }
    if question.trim().is_empty() {
        return Err(refused("expected a question, got an empty one"));
    }
    let options = settings(of, &["max_new_tokens"], usual)?;
    let pictures = pictures.iter().map(|picture| Source::read(picture, folder)).collect::<Result<_, _>>()?;
    Ok(Request { pictures, messages: question.into(), options })
}

/// OpenAI's batch form.
fn chat(of: &Map<String, Value>, folder: &Path, usual: &AskOptions) -> Result<Request, RequestError> {
    keys::text(of, "custom_id")?.ok_or_else(|| RequestError::wrong("a text", "custom_id", None))?;
    for (key, expected) in [("method", "POST"), ("url", URL)] {
        if let Some(got) = keys::get(of, key).filter(|got| got.as_str() != Some(expected)) {
            return Err(RequestError::wrong(expected, key, Some(got)));
        }
    }
    let body = of.get("body").and_then(Value::as_object);
    let body = body.ok_or_else(|| RequestError::wrong("an object", "body", of.get("body")))?;
    let ChatRequest { messages, pictures, options, stream, .. } = ChatRequest::read(body, usual)?;
    if stream {
        return Err(refused("expected no `stream`, which a file cannot have"));
    }
    let pictures = pictures.iter().map(|picture| Source::read(picture, folder)).collect::<Result<_, _>>()?;
    Ok(Request { pictures, messages, options })
}

/// A request that is not as documented.
fn refused(message: impl Into<String>) -> RequestError {
    RequestError::new("request", None, message)
}

#[cfg(test)]
mod tests {
    use fovea_model::{Message, Part, Role};
    use serde_json::json;

    use super::*;

    fn parse(text: &str) -> (Reply, Result<Request, RequestError>) {
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
            "top_p": 0.9, "top_k": 7, "seed": 4, "stop": "a", "compression": "random:keep=.5",
            "messages": user(json!([picture, {"type": "text", "text": "What is this?"}])),
        });
        let simple = json!({
            "id": 3, "image": ["DATA:;BASE64,QUJD"], "question": "What is this?", "max_new_tokens": 5,
            "temperature": 0.5, "top_p": 0.9, "top_k": 7, "seed": 4, "stop": ["a"], "compression": "random:keep=0.5",
            "answer": "ignored",
        });
        let placed = Message { role: Role::User, content: vec![Part::Picture, Part::Text("What is this?".to_owned())] };
        for (line, form, id, messages) in [
            (chat_line(body), Form::Chat, json!("a"), Messages::from(placed)),
            (simple, Form::Simple, json!(3), Messages::from("What is this?")),
        ] {
            let (reply, request) = parse(&line.to_string());
            assert_eq!((reply.form, reply.line, reply.id), (form, 7, id), "{line} (got, expected)");
            let request = request.unwrap_or_else(|why| panic!("{line}: {why:?}"));
            let Request { options, .. } = request;
            assert_eq!(request.pictures, [Source::Data(b"ABC".to_vec())], "{line} (got, expected)");
            assert_eq!(request.messages, messages, "{line} (got, expected)");
            let pick = options.pick;
            let got = (options.max_new_tokens, pick.temperature, pick.top_p, pick.seed, pick.top_k);
            assert_eq!(got, (5, 0.5, 0.9, 4, 7), "{line} (got, expected)");
            assert_eq!(options.stop, ["a"], "{line} (got, expected)");
            assert_eq!(options.compression, "random:keep=0.5".parse().ok(), "{line} (got, expected)");
        }
    }

    #[test]
    fn a_conversation_has_its_pictures_in_order() {
        let picture = |url: &str| json!({"type": "image_url", "image_url": {"url": url}});
        let body = json!({"messages": [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": [picture("b.png"), picture("data:;base64,QUJD")]},
            {"role": "assistant", "content": "Two pictures."},
            {"role": "user", "content": [{"type": "text", "text": "And this?"}, picture("a.png")]},
        ]});
        let request = parse(&chat_line(body).to_string()).1.expect("a request");
        let file = |name: &str| Source::File(Path::new("folder").join(name));
        let expected = [file("b.png"), Source::Data(b"ABC".to_vec()), file("a.png")];
        assert_eq!(request.pictures, expected, "(got, expected)");
        assert_eq!((request.messages.0.len(), request.messages.pictures()), (4, 3), "(got, expected)");
        // Text alone.
        let text = parse(&chat_line(json!({"messages": user(json!("?"))})).to_string()).1.expect("a request");
        assert_eq!((text.pictures.as_slice(), text.messages), (&[][..], Messages::from("?")), "(got, expected)");
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
            ("data:image/png;base64,Q*JD", "expected base64"),
        ] {
            let Err(why) = read(path) else { panic!("{path}: expected a refusal") };
            assert!(why.code == "request" && why.message.contains(word), "{path}: expected {word:?}, got {why:?}");
        }
        assert!(read(&"a".repeat(5000)).is_err());
    }

    #[test]
    fn a_line_that_is_no_request_says_why() {
        let part = json!({"type": "image_url", "image_url": {"url": "a.png"}});
        let outside = json!({"type": "image_url", "image_url": {"url": "../a.png"}});
        let chat = |body: Value| chat_line(body).to_string();
        let good = user(json!([part, {"type": "text", "text": "?"}]));
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
            (r#"{"image": "a.png", "question": "?", "compression": "audio"}"#.to_owned(), "option", "got audio"),
            (
                r#"{"image": "a.png", "question": "?", "max_tokens": 5}"#.to_owned(),
                "request",
                "expected no `max_tokens`, which is not supported; the keys are image, question, id, max_new_tokens, ",
            ),
            (r#"{"image": "a.png", "question": "?", "id": []}"#.to_owned(), "request", "`id`, got a list"),
            (json!({"custom_id": "a"}).to_string(), "request", "for `body`, got nothing"),
            (json!({"body": {"messages": good}}).to_string(), "request", "`custom_id`"),
            (json!({"custom_id": "a", "url": "/v1/embeddings"}).to_string(), "request", URL),
            (chat(json!({"messages": []})), "request", "1 to 1024 messages"),
            (chat(json!({"messages": [{"role": "assistant", "content": "a"}]})), "request", "got one of the assistant"),
            (chat(json!({"messages": good, "tools": [{}]})), "request", "expected no `tools`"),
            (chat(json!({"messages": good, "stream": true})), "request", "expected no `stream`"),
            (chat(json!({"messages": good, "temperature": "hot"})), "request", "`temperature`, got \"hot\""),
            (chat(json!({"messages": good, "compression": "audio"})), "option", "got audio"),
            (
                chat(json!({"messages": user(json!([{"type": "input_audio"}]))})),
                "request",
                "`messages[0].content[0].type`",
            ),
            (
                chat(json!({"messages": user(json!([outside, {"type": "text", "text": "?"}]))})),
                "request",
                "within the folder",
            ),
        ] {
            let Err(why) = parse(&line).1 else { panic!("{line}: expected a refusal") };
            assert!(why.code == code && why.message.contains(word), "{line}: expected {code}, {word:?}, got {why:?}");
        }
    }
}
