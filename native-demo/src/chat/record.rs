//! A conversation as a file. Input: model, pictures, messages and the numbers of the answers. Output: JSON or Markdown.

use std::path::{Path, PathBuf};

use fovea_model::{Error, Messages, Role};
use serde_json::{Value, json};

/// What `/save` writes.
pub struct Record<'a> {
    /// The checkpoint, as it was named.
    pub model: &'a str,
    /// Device and dtype.
    pub device: &'a str,
    /// The compression of the next question.
    pub compression: &'a str,
    /// The files of the pictures.
    pub pictures: &'a [PathBuf],
    /// All messages.
    pub messages: &'a Messages,
    /// One object per answer, as `fovea ask --json` prints it.
    pub answers: Vec<&'a Value>,
}

impl Record<'_> {
    /// The content of `file`: Markdown if its name ends in `.md`, else JSON.
    ///
    /// # Errors
    /// [`Error::Internal`] where the messages can't be written as JSON.
    pub fn text(&self, file: &Path) -> Result<String, Error> {
        let is_markdown = file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("md"));
        if is_markdown { Ok(self.markdown()) } else { self.json() }
    }

    fn json(&self) -> Result<String, Error> {
        let messages = serde_json::to_value(self.messages).map_err(|_| Error::Internal("messages are not JSON"))?;
        let record = json!({
            "model": self.model,
            "device": self.device,
            "compression": self.compression,
            "pictures": self.pictures.iter().map(|file| file.to_string_lossy()).collect::<Vec<_>>(),
            "messages": messages,
            "answers": self.answers,
        });
        Ok(format!("{record:#}\n"))
    }

    fn markdown(&self) -> String {
        let mut text = format!(
            "# Conversation\n\n- Model: {}, {}\n- Visual tokens: {}\n",
            self.model, self.device, self.compression
        );
        for picture in self.pictures {
            // In angle brackets, an address may have spaces.
            text += &format!("\n![Picture](<{}>)\n", picture.display());
        }
        for message in &self.messages.0 {
            let who = match message.role {
                Role::System => "System",
                Role::User => "Question",
                Role::Assistant => "Answer",
            };
            text += &format!("\n## {who}\n\n{}\n", message.text().trim());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use fovea_model::Message;

    use super::*;

    #[test]
    fn a_conversation_is_written_as_json_or_markdown() {
        let messages =
            Messages(vec![Message::system("Be short."), Message::user("What?"), Message::assistant(" 95\n")]);
        let report = json!({"answer": " 95\n", "finish_reason": "stop"});
        let pictures = [PathBuf::from("a b.png")];
        let record = Record {
            model: "demo",
            device: "CPU f32",
            compression: "focus",
            pictures: &pictures,
            messages: &messages,
            answers: vec![&report],
        };
        let text = record.text(Path::new("a.json")).expect("JSON");
        let json: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(json["messages"][2], json!({"role": "assistant", "content": " 95\n"}), "(got, expected)");
        let rest = ["model", "device", "compression", "pictures", "answers"].map(|key| json[key].clone());
        let expected = [json!("demo"), json!("CPU f32"), json!("focus"), json!(["a b.png"]), json!([report])];
        assert_eq!(rest, expected, "(got, expected)");
        let expected = "# Conversation\n\n- Model: demo, CPU f32\n- Visual tokens: focus\n\n![Picture](<a b.png>)\n\n\
                        ## System\n\nBe short.\n\n## Question\n\nWhat?\n\n## Answer\n\n95\n";
        assert_eq!(record.text(Path::new("a.MD")).expect("Markdown"), expected, "(got, expected)");
    }
}
