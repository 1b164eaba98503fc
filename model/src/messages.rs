//! What is said: the messages from the first one to the question. Input of every question.
//!
//! The caller keeps them: after an answer it adds the answer and the next question, and asks again. They have the form of
//! `messages` in Hugging Face's transformers, also as JSON.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, SeqAccess, Visitor, value::SeqAccessDeserializer},
};

use crate::error::Error;

/// Most messages of a conversation.
const MOST: usize = 4096;

/// Who says a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// General instructions, before everything else. Not every template has a place for them.
    System,
    /// The person who asks.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// `system`, `user` or `assistant`.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// A part of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "text")]
pub enum Part {
    /// The place of a picture.
    #[serde(rename = "image")]
    Picture,
    /// Text.
    #[serde(rename = "text")]
    Text(String),
}

/// A message.
///
/// As JSON, `content` is a text or a list of parts: `{"type": "image"}`, `{"type": "text", "text": "What is this?"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// Its parts.
    pub content: Vec<Part>,
}

/// A message as JSON.
#[derive(Serialize, Deserialize)]
struct Written {
    role: Role,
    content: Content,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

/// By hand: serde's error for an untagged enum does not say what is wrong.
impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Read;

        impl<'de> Visitor<'de> for Read {
            type Value = Content;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of parts")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Content, E> {
                Ok(Content::Text(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, parts: A) -> Result<Content, A::Error> {
                Deserialize::deserialize(SeqAccessDeserializer::new(parts)).map(Content::Parts)
            }
        }

        from.deserialize_any(Read)
    }
}

impl From<Written> for Message {
    fn from(Written { role, content }: Written) -> Self {
        match content {
            Content::Text(text) => Self { role, content: vec![Part::Text(text)] },
            Content::Parts(content) => Self { role, content },
        }
    }
}

impl From<Message> for Written {
    fn from(Message { role, mut content }: Message) -> Self {
        let content = match content.as_mut_slice() {
            [Part::Text(text)] => Content::Text(std::mem::take(text)),
            _ => Content::Parts(content),
        };
        Self { role, content }
    }
}

impl Message {
    /// A message of one text.
    pub fn new(role: Role, text: impl Into<String>) -> Self {
        Self { role, content: vec![Part::Text(text.into())] }
    }

    /// A system message.
    pub fn system(text: impl Into<String>) -> Self {
        Self::new(Role::System, text)
    }

    /// A question.
    pub fn user(text: impl Into<String>) -> Self {
        Self::new(Role::User, text)
    }

    /// An answer.
    pub fn assistant(text: impl Into<String>) -> Self {
        Self::new(Role::Assistant, text)
    }

    /// Its texts, one per line.
    pub fn text(&self) -> String {
        self.texts().collect::<Vec<_>>().join("\n")
    }

    /// Number of places of pictures.
    pub fn pictures(&self) -> usize {
        self.content.iter().filter(|part| **part == Part::Picture).count()
    }

    /// Whether text comes before a picture.
    pub(crate) fn begins_with_text(&self) -> bool {
        let text = self.content.iter().position(|part| matches!(part, Part::Text(text) if !text.trim().is_empty()));
        let picture = self.content.iter().rposition(|part| *part == Part::Picture);
        text.zip(picture).is_some_and(|(text, picture)| text < picture)
    }

    /// Its texts.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &str> {
        self.content.iter().filter_map(|part| match part {
            Part::Text(text) => Some(text.as_str()),
            Part::Picture => None,
        })
    }
}

/// The messages of a conversation, from the first one to the question.
///
/// If no message has a place for a picture, the pictures come before the first question. A text is one question.
///
/// ```
/// use fovea_model::{Message, Messages};
///
/// let mut messages = Messages::from("What is on the sign?");
/// messages.push(Message::assistant("exit"));
/// messages.push(Message::user("And what color is it?"));
/// assert_eq!(messages.question(), "And what color is it?");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Messages(pub Vec<Message>);

impl Messages {
    /// Adds a message.
    pub fn push(&mut self, message: Message) {
        self.0.push(message);
    }

    /// Number of places of pictures.
    pub fn pictures(&self) -> usize {
        self.0.iter().map(Message::pictures).sum()
    }

    /// The text of the last message of a user; empty if there is none.
    pub fn question(&self) -> String {
        let last = self.0.iter().rev().find(|message| message.role == Role::User);
        last.map(Message::text).unwrap_or_default()
    }

    /// The messages with a place for each of `pictures` pictures.
    ///
    /// # Errors
    /// [`Error::Option`] if there are too many messages, if the last one is not a user's, if a picture has another role's
    /// message as its place, or if the number of places is not that of the pictures.
    pub(crate) fn placed(mut self, pictures: usize) -> Result<Self, Error> {
        let wrong = |expected: String, got: String| Err(Error::Option { option: "messages", expected, got });
        if self.0.len() > MOST {
            return wrong(format!("at most {MOST} messages"), self.0.len().to_string());
        }
        match self.0.last().map(|message| message.role) {
            Some(Role::User) => {}
            last => {
                let got = last.map_or_else(|| "no message".to_owned(), |role| format!("one of {}", role.name()));
                return wrong("a message of user at the end".to_owned(), got);
            }
        }
        if let Some(other) = self.0.iter().find(|message| message.role != Role::User && message.pictures() > 0) {
            return wrong(
                "pictures in messages of user".to_owned(),
                format!("one in a message of {}", other.role.name()),
            );
        }
        let places = self.pictures();
        if places == 0 {
            let first = self.0.iter_mut().find(|message| message.role == Role::User);
            if let Some(first) = first {
                first.content.splice(0..0, std::iter::repeat_n(Part::Picture, pictures));
            }
        } else if places != pictures {
            let expected = format!("a place for each of the {pictures} pictures");
            return wrong(expected, places.to_string());
        }
        Ok(self)
    }
}

impl From<Message> for Messages {
    fn from(message: Message) -> Self {
        Self(vec![message])
    }
}

impl From<&str> for Messages {
    fn from(question: &str) -> Self {
        Message::user(question).into()
    }
}

impl From<String> for Messages {
    fn from(question: String) -> Self {
        Message::user(question).into()
    }
}

impl From<&String> for Messages {
    fn from(question: &String) -> Self {
        Message::user(question).into()
    }
}

impl From<&Messages> for Messages {
    fn from(messages: &Messages) -> Self {
        messages.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_the_form_of_hugging_face() {
        let text = r#"[{"role":"system","content":"Be short."},{"role":"user","content":[{"type":"image"},{"type":"text","text":"?"}]}]"#;
        let messages: Messages = serde_json::from_str(text).expect("messages");
        let user = Message { role: Role::User, content: vec![Part::Picture, Part::Text("?".into())] };
        assert_eq!(messages, Messages(vec![Message::system("Be short."), user]));
        assert_eq!(serde_json::to_string(&messages).expect("JSON"), text);
        for wrong in
            ["7", r#"[{"role":"tool","content":"a"}]"#, r#"[{"role":"user"}]"#, r#"[{"role":"user","content":[{}]}]"#]
        {
            assert!(serde_json::from_str::<Messages>(wrong).is_err(), "{wrong}: expected an error");
        }
        let video = serde_json::from_str::<Messages>(r#"[{"role":"user","content":[{"type":"video"}]}]"#);
        let why = video.expect_err("an error").to_string();
        assert!(why.contains("video") && why.contains("`image`"), "{why}");
    }

    #[test]
    fn pictures_without_a_place_come_before_the_first_question() {
        let mut messages = Messages(vec![Message::system("a"), Message::user("b"), Message::assistant("c")]);
        messages.push(Message::user("d"));
        let placed = messages.clone().placed(2).expect("messages");
        assert_eq!(placed.0[1].content[..2], [Part::Picture, Part::Picture]);
        assert_eq!((placed.pictures(), placed.question()), (2, "d".to_owned()), "(got, expected)");
        assert_eq!(placed.clone().placed(2).as_ref().ok(), Some(&placed));
        let none = Messages::from("?").placed(0).expect("messages");
        assert_eq!(none, Messages::from("?"));
    }

    #[test]
    fn messages_that_cannot_be_asked_are_refused() {
        let picture = Message { role: Role::Assistant, content: vec![Part::Picture] };
        let two = Message { role: Role::User, content: vec![Part::Picture, Part::Picture] };
        for (messages, pictures, word) in [
            (Messages::default(), 0, "no message"),
            (Messages::from(Message::assistant("a")), 0, "one of assistant"),
            (Messages(vec![picture, Message::user("a")]), 1, "in a message of assistant"),
            (Messages::from(two), 1, "got 2"),
            (Messages(vec![Message::user("a"); MOST + 1]), 0, "at most 4096"),
        ] {
            let why = messages.placed(pictures).expect_err(word).to_string();
            assert!(why.contains(word), "expected {word:?}, got {why:?}");
        }
    }
}
