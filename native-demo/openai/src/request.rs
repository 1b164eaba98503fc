//! Reads the body of a chat completion. Input: its JSON object. Output: messages, the urls of their pictures, and options.

use fovea_model::{AskOptions, Message, Messages, Part, Role};
use serde_json::{Map, Value, json};

use crate::{
    error::RequestError,
    keys::{flag, get, only, text},
    settings::settings,
};

/// Most pictures of a request, as in [`fovea_model::Conversation::about`].
pub const MOST_PICTURES: usize = 64;
/// Most messages of a request.
const MOST_MESSAGES: usize = 1024;
/// Most parts of a message: as many texts as pictures.
const MOST_PARTS: usize = 2 * MOST_PICTURES;
/// Most parts of all messages together.
const MOST_PARTS_OF_ALL: usize = 4096;
/// Keys that are read, and keys that do not change an answer.
const KEYS: &[&str] = &[
    "messages",
    "model",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "top_k",
    "repetition_penalty",
    "seed",
    "stop",
    "stream",
    "stream_options",
    "response_format",
    "compression",
    "n",
    "user",
    "metadata",
    "store",
    "service_tier",
    "prompt_cache_key",
    "safety_identifier",
    "modalities",
];

/// A request for an answer.
#[derive(Clone, Debug)]
pub struct ChatRequest {
    /// `model`.
    pub model: Option<String>,
    /// The messages; the last one is the question. Each picture is a [`Part::Picture`].
    pub messages: Messages,
    /// The urls of the pictures, in the order of their places.
    pub pictures: Vec<String>,
    /// The options, by [`settings`](crate::settings()).
    pub options: AskOptions,
    /// Whether the answer is sent in chunks.
    pub stream: bool,
    /// Whether a stream ends with a chunk that has [`usage`](crate::usage()).
    pub include_usage: bool,
}

impl ChatRequest {
    /// Reads `body`. Options that it does not have are those of `usual`. Ranges of options and the length of the prompt are
    /// not checked here.
    ///
    /// Limits: 1 to 1024 messages, 1 to 128 parts of a message and 4096 of all, 0 to 64 pictures.
    ///
    /// # Errors
    /// `request` for a key that is wrong or not supported, `option` for an unknown compression.
    pub fn read(body: &Map<String, Value>, usual: &AskOptions) -> Result<Self, RequestError> {
        only(body, KEYS, "")?;
        if let Some(format) = get(body, "response_format").filter(|format| format["type"] != "text") {
            return Err(RequestError::wrong("`text`", "response_format.type", format.get("type")));
        }
        if let Some(other) = get(body, "n").filter(|n| n.as_u64() != Some(1)) {
            return Err(RequestError::wrong("1", "n", Some(other)));
        }
        if let Some(other) = get(body, "modalities").filter(|all| **all != json!(["text"])) {
            return Err(RequestError::wrong("`[\"text\"]`", "modalities", Some(other)));
        }
        // Who it is does not change the answer.
        text(body, "user")?;
        let include_usage = match get(body, "stream_options") {
            None => false,
            Some(Value::Object(options)) => {
                only(options, &["include_usage"], "stream_options.")?;
                flag(options, "include_usage")?
            }
            Some(other) => return Err(RequestError::wrong("an object", "stream_options", Some(other))),
        };
        let (messages, pictures) = messages(body)?;
        Ok(Self {
            model: text(body, "model")?.map(str::to_owned),
            messages,
            pictures,
            options: settings(body, &["max_completion_tokens", "max_tokens"], usual)?,
            stream: flag(body, "stream")?,
            include_usage,
        })
    }
}

/// The messages, and the urls of their pictures.
fn messages(body: &Map<String, Value>) -> Result<(Messages, Vec<String>), RequestError> {
    let list = body.get("messages").and_then(Value::as_array);
    let Some(list) = list.filter(|list| (1..=MOST_MESSAGES).contains(&list.len())) else {
        let expected = format!("a list of 1 to {MOST_MESSAGES} messages");
        return Err(RequestError::wrong(&expected, "messages", body.get("messages")));
    };
    let mut pictures = Vec::new();
    let read = list.iter().enumerate().map(|(at, value)| message(value, at, &mut pictures));
    let all = read.collect::<Result<Vec<_>, _>>()?;
    let refused = |message: String| Err(RequestError::new("request", Some("messages"), message));
    if pictures.len() > MOST_PICTURES {
        return refused(format!("expected at most {MOST_PICTURES} pictures, got {}", pictures.len()));
    }
    let parts: usize = all.iter().map(|message| message.content.len()).sum();
    if parts > MOST_PARTS_OF_ALL {
        return refused(format!("expected at most {MOST_PARTS_OF_ALL} parts in all messages, got {parts}"));
    }
    match all.last() {
        Some(last) if last.role != Role::User => {
            refused(format!("expected a question of the user as the last message, got one of the {}", last.role.name()))
        }
        Some(last) if last.text().trim().is_empty() => {
            refused("expected a question in the last message, got an empty one".to_owned())
        }
        _ => Ok((Messages(all), pictures)),
    }
}

/// The message with the index `at`.
fn message(value: &Value, at: usize, pictures: &mut Vec<String>) -> Result<Message, RequestError> {
    let path = format!("messages[{at}]");
    let Some(of) = value.as_object() else { return Err(RequestError::wrong("an object", &path, Some(value))) };
    only(of, &["role", "content", "name"], &format!("{path}."))?;
    let role = match of.get("role").and_then(Value::as_str) {
        Some("system" | "developer") => Role::System,
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        _ => {
            let expected = "`system`, `developer`, `user` or `assistant`";
            return Err(RequestError::wrong(expected, &format!("{path}.role"), of.get("role")));
        }
    };
    let path = format!("{path}.content");
    let content = match get(of, "content") {
        None if role == Role::Assistant => vec![Part::Text(String::new())],
        Some(Value::String(text)) => vec![Part::Text(text.clone())],
        Some(Value::Array(parts)) if (1..=MOST_PARTS).contains(&parts.len()) => {
            let read = parts.iter().enumerate().map(|(i, value)| part(value, role, &format!("{path}[{i}]"), pictures));
            read.collect::<Result<_, _>>()?
        }
        other => {
            let expected = format!("a text or a list of 1 to {MOST_PARTS} parts");
            return Err(RequestError::wrong(&expected, &path, other));
        }
    };
    Ok(Message { role, content })
}

fn part(value: &Value, role: Role, path: &str, pictures: &mut Vec<String>) -> Result<Part, RequestError> {
    let known = |of: &Value, known: &[&str], path: &str| match of.as_object() {
        Some(of) => only(of, known, path),
        None => Ok(()),
    };
    match value["type"].as_str() {
        Some("text") => {
            known(value, &["type", "text"], &format!("{path}."))?;
            let text = value["text"].as_str().map(|text| Part::Text(text.to_owned()));
            text.ok_or_else(|| RequestError::wrong("a text", &format!("{path}.text"), value.get("text")))
        }
        Some("image_url") if role == Role::User => {
            known(value, &["type", "image_url"], &format!("{path}."))?;
            known(&value["image_url"], &["url", "detail"], &format!("{path}.image_url."))?;
            let url = value["image_url"].get("url");
            let wrong = || RequestError::wrong("a text", &format!("{path}.image_url.url"), url);
            pictures.push(url.and_then(Value::as_str).ok_or_else(wrong)?.to_owned());
            Ok(Part::Picture)
        }
        Some("image_url") => {
            let message = format!("expected pictures in messages of the user only, got one of the {}", role.name());
            Err(RequestError::new("request", Some(path), message))
        }
        _ => Err(RequestError::wrong("`text` or `image_url`", &format!("{path}.type"), value.get("type"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &Value) -> Result<ChatRequest, RequestError> {
        ChatRequest::read(body.as_object().expect("an object"), &AskOptions::default())
    }

    fn picture(url: &str) -> Value {
        json!({"type": "image_url", "image_url": {"url": url, "detail": "low"}})
    }

    #[test]
    fn a_conversation_keeps_its_parts_in_order() {
        let text = |text: &str| json!({"type": "text", "text": text});
        let request = read(&json!({"messages": [
            {"role": "developer", "content": [text("Be short.")]},
            {"role": "user", "name": "a", "content": [text("First"), picture("1.png"), text("and"), picture("2.png")]},
            {"role": "assistant", "content": null, "refusal": null, "tool_calls": []},
            {"role": "user", "content": "Hello?"},
            {"role": "assistant"},
            {"role": "user", "content": [picture("3.png"), text("What is this?")]},
        ]}));
        let ChatRequest { model, messages, pictures, options, stream, include_usage } = request.expect("a request");
        let text = |text: &str| Part::Text(text.to_owned());
        let expected = [
            Message::system("Be short."),
            Message { role: Role::User, content: vec![text("First"), Part::Picture, text("and"), Part::Picture] },
            Message::assistant(""),
            Message::user("Hello?"),
            Message::assistant(""),
            Message { role: Role::User, content: vec![Part::Picture, text("What is this?")] },
        ];
        assert_eq!(messages.0, expected, "(got, expected)");
        assert_eq!(pictures, ["1.png", "2.png", "3.png"], "(got, expected)");
        assert_eq!((model, stream, include_usage), (None, false, false), "(got, expected)");
        assert_eq!(options.max_new_tokens, AskOptions::default().max_new_tokens, "(got, expected)");
    }

    #[test]
    fn every_option_is_read() {
        let request = read(&json!({
            "model": "any", "messages": [{"role": "user", "content": "?"}], "n": 1, "max_tokens": 3,
            "max_completion_tokens": 5, "temperature": 0.5, "top_p": 0.9, "top_k": 7, "repetition_penalty": 1.1, "seed": 4,
            "stop": ["a", "b"], "compression": "random:keep=.5", "stream": true,
            "stream_options": {"include_usage": true, "include_obfuscation": false}, "response_format": {"type": "text"},
            "modalities": ["text"], "prompt_cache_key": "p", "safety_identifier": "s",
            "user": "u", "metadata": {"a": "b"}, "store": true, "service_tier": "auto", "tools": [], "logprobs": false,
            "presence_penalty": 0, "frequency_penalty": 0.0, "logit_bias": {}, "audio": null, "suffix": "",
        }));
        let ChatRequest { model, messages, pictures, options, stream, include_usage } = request.expect("a request");
        assert_eq!(messages, Messages::from("?"), "(got, expected)");
        let pick = options.pick;
        let got =
            (options.max_new_tokens, pick.temperature, pick.top_p, pick.top_k, pick.repetition_penalty, pick.seed);
        assert_eq!(got, (5, 0.5, 0.9, 7, Some(1.1), 4), "(got, expected)");
        assert_eq!(options.stop, ["a", "b"], "(got, expected)");
        assert_eq!(options.compression, "random:keep=0.5".parse().ok(), "(got, expected)");
        assert_eq!((model.as_deref(), stream, include_usage), (Some("any"), true, true), "(got, expected)");
        assert!(pictures.is_empty(), "expected no pictures, got {pictures:?}");
        for (stop, expected) in
            [(json!("a"), vec!["a"]), (json!(""), vec![]), (json!([]), vec![]), (json!(null), vec![])]
        {
            let request = read(&json!({"messages": [{"role": "user", "content": "?"}], "stop": stop}));
            assert_eq!(request.expect("a request").options.stop, expected, "{stop} (got, expected)");
        }
    }

    #[test]
    fn limits_are_inclusive() {
        let user = |content: Value| json!({"role": "user", "content": content});
        let mut parts = vec![picture("a.png"); 64];
        parts.resize(128, json!({"type": "text", "text": "?"}));
        for (messages, good) in [
            (vec![user(json!("?")); 1024], true),
            (vec![user(json!("?")); 1025], false),
            (vec![user(json!(parts))], true),
            (vec![user(json!([&parts[..], &parts[64..65]].concat()))], false),
            (vec![user(json!(parts)), user(json!([picture("a.png"), parts[64]]))], false),
            (vec![user(json!(vec![parts[64].clone(); 128])); 32], true),
            (vec![user(json!(vec![parts[64].clone(); 128])); 33], false),
        ] {
            let got = read(&json!({"messages": messages}));
            assert_eq!(got.is_ok(), good, "{} messages: got {:?}", messages.len(), got.err());
        }
    }

    #[test]
    fn a_wrong_body_names_the_key() {
        let user = |content: Value| json!({"messages": [{"role": "user", "content": content}]});
        let with = |key: &str, value: Value| {
            let mut body = user(json!("?"));
            body[key] = value;
            body
        };
        let before = |message: Value| json!({"messages": [message, {"role": "user", "content": "?"}]});
        let part = json!({"type": "image_url", "image_url": {"url": "a.png"}});
        let long = "a".repeat(80) + "...";
        for (body, param, word) in [
            (json!({}), "messages", "got nothing"),
            (json!({"messages": "?"}), "messages", "1 to 1024 messages"),
            (json!({"messages": []}), "messages", "got a list of 0"),
            (json!({"messages": [7]}), "messages[0]", "expected an object"),
            (json!({"messages": [{}]}), "messages[0].role", "got nothing"),
            (json!({"messages": [{"role": "system", "content": "?"}]}), "messages", "got one of the system"),
            (json!({"messages": [{"role": "assistant", "content": "?"}]}), "messages", "got one of the assistant"),
            (before(json!({"role": "tool", "content": "a"})), "messages[0].role", "got \"tool\""),
            (before(json!({"role": "user"})), "messages[0].content", "got nothing"),
            (before(json!({"role": "system", "content": null})), "messages[0].content", "got nothing"),
            (before(json!({"role": "assistant", "tool_calls": [{}]})), "messages[0].tool_calls", "not supported"),
            (before(json!({"role": "assistant", "content": [part]})), "messages[0].content[0]", "of the user only"),
            (before(json!({"role": "system", "content": [part]})), "messages[0].content[0]", "got one of the system"),
            (user(json!(" \n")), "messages", "an empty one"),
            (user(json!([part])), "messages", "an empty one"),
            (user(json!(7)), "messages[0].content", "a text or a list"),
            (user(json!([])), "messages[0].content", "got a list of 0"),
            (user(json!(["?"])), "messages[0].content[0].type", "`text` or `image_url`"),
            (user(json!([{"type": "input_audio"}])), "messages[0].content[0].type", "got \"input_audio\""),
            (user(json!([{"type": "text"}])), "messages[0].content[0].text", "got nothing"),
            (
                user(json!([{"type": "image_url", "image_url": "a"}])),
                "messages[0].content[0].image_url.url",
                "got nothing",
            ),
            (
                user(json!([{"type": "image_url", "image_url": {"url": 1}}])),
                "messages[0].content[0].image_url.url",
                "got 1",
            ),
            (with("tools", json!([{}])), "tools", "expected no `tools`"),
            (with("functions", json!([{}])), "functions", "expected no `functions`"),
            (with("modalities", json!(["text", "audio"])), "modalities", "got a list of 2"),
            (with("n", json!(2)), "n", "expected 1 for `n`, got 2"),
            (with("logprobs", json!(true)), "logprobs", "expected no `logprobs`"),
            (with("model", json!(1)), "model", "a text"),
            (with("temperature", json!("hot")), "temperature", "got \"hot\""),
            (with("top_p", json!([])), "top_p", "a number"),
            (with("top_k", json!(-1)), "top_k", "got -1"),
            (with("repetition_penalty", json!("a")), "repetition_penalty", "a number"),
            (with("seed", json!(0.5)), "seed", "got 0.5"),
            (with("max_tokens", json!(-1)), "max_tokens", "got -1"),
            (with("stop", json!(7)), "stop", "a text or a list of texts"),
            (with("stop", json!(["a", 7])), "stop", "got a list of 2"),
            (with("stream", json!("yes")), "stream", "true or false"),
            (with("stream_options", json!(true)), "stream_options", "an object"),
            (with("stream_options", json!({"a": 1})), "stream_options.a", "not supported"),
            (with("response_format", json!({"type": "json_object"})), "response_format.type", "got \"json_object\""),
            (with("response_format", json!("text")), "response_format.type", "got nothing"),
            (with(&"a".repeat(2000), json!(1)), long.as_str(), "not supported"),
        ] {
            let Err(why) = read(&body) else { panic!("{body}: expected an error") };
            assert!(why.code == "request" && why.message.contains(word), "{body}: expected {word:?}, got {why:?}");
            assert_eq!(why.param.as_deref(), Some(param), "{body}: param (got, expected)");
        }
        let why = read(&with("compression", json!("audio"))).expect_err("an unknown compression");
        assert!(why.code == "option" && why.message.contains("got audio"), "got {why:?}");
        assert_eq!(why.param.as_deref(), Some("compression"), "param (got, expected)");
    }
}
