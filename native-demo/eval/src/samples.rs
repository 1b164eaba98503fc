//! Input: a folder with a `questions.jsonl`. Output: pictures, each with its questions and right answers.

use std::{
    collections::HashMap,
    fs,
    path::{Component, Path, PathBuf},
};

use fovea_model::Picture;
use fovea_terminal::{failure::Failure, load, text};
use serde::Serialize;
use serde_json::Value;

/// Longest `questions.jsonl` that is read, bytes.
const LONGEST: u64 = 64 << 20;
/// The keys of a line. `id` is one of `fovea batch`, whose files are questions too; it is not read.
const KEYS: [&str; 5] = ["image", "question", "answer", "kind", "id"];
/// Longest quotation of a key in an error, characters.
const LONGEST_QUOTE: usize = 80;

/// One line of `questions.jsonl`.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// The picture's file, within the folder.
    pub image: String,
    /// The question and its answer.
    #[serde(flatten)]
    pub asked: Asked,
}

/// A question about a picture.
#[derive(Clone, Debug, Serialize)]
pub struct Asked {
    /// The question.
    pub question: String,
    /// The one right answer.
    pub answer: String,
    /// Its kind, for a score by kind.
    pub kind: String,
}

impl Line {
    /// Reads a line. As in `fovea batch`, another key is refused unless it is null. An error says what was expected,
    /// without the number of the line.
    fn read(line: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(line).map_err(|why| {
            let words = why.to_string();
            // Its own line number is always 1.
            let words = words.split(" at line ").next().unwrap_or_default();
            format!("column {}: expected a JSON object, got: {words}", why.column())
        })?;
        let short = |value: &Value| match value {
            Value::Null => "nothing".to_owned(),
            Value::Array(_) => "a list".to_owned(),
            Value::Object(_) => "an object".to_owned(),
            Value::String(_) => "a text".to_owned(),
            Value::Number(number) => format!("the number {number}; put it in quotes"),
            Value::Bool(truth) => format!("{truth}; put it in quotes"),
        };
        let object = value.as_object().ok_or_else(|| {
            let expected = r#"expected an object {"image", "question", "answer", "kind"}"#;
            format!("{expected}, got {}", short(&value).replace("; put it in quotes", ""))
        })?;
        let refused = object.iter().find(|(key, value)| !KEYS.contains(&key.as_str()) && !value.is_null());
        if let Some((key, _)) = refused {
            let key: String = key.chars().take(LONGEST_QUOTE).collect();
            return Err(format!("expected no `{key}`, which is not supported; the keys are {}", KEYS.join(", ")));
        }
        let text = |key: &str| match object.get(key).unwrap_or(&Value::Null) {
            Value::String(text) => Ok(text.clone()),
            other => Err(format!("expected a text for `{key}`, got {}", short(other))),
        };
        let has_kind = object.get("kind").is_some_and(|kind| !kind.is_null());
        let kind = if has_kind { text("kind")? } else { String::new() };
        Ok(Self { image: text("image")?, asked: Asked { question: text("question")?, answer: text("answer")?, kind } })
    }
}

/// A picture and its questions. The picture is read or drawn each time it is needed, so that one is in memory at a time.
pub struct Sample {
    /// The picture's file, within the folder.
    pub name: String,
    /// Its questions.
    pub asked: Vec<Asked>,
    picture: Box<dyn Fn() -> Result<Picture, Failure>>,
}

impl Sample {
    /// A sample whose picture comes from `picture`.
    pub fn new(name: String, asked: Vec<Asked>, picture: impl Fn() -> Result<Picture, Failure> + 'static) -> Self {
        Self { name, asked, picture: Box::new(picture) }
    }

    /// The picture.
    ///
    /// # Errors
    /// Its file can't be read, or is no picture.
    pub fn picture(&self) -> Result<Picture, Failure> {
        (self.picture)()
    }
}

/// The file with a folder's questions.
pub fn list(dir: &Path) -> PathBuf {
    dir.join("questions.jsonl")
}

/// The pictures and questions of a folder. Lines about one picture need not be adjacent. Every picture is decoded once, so
/// that a broken one is found before hours of work.
///
/// # Errors
/// [`Failure::Questions`] with the line that is wrong.
pub fn folder(dir: &Path) -> Result<Vec<Sample>, Failure> {
    let file = list(dir);
    let broken = |why: String| Failure::Questions { file: file.display().to_string(), why };
    let found = fs::metadata(&file)
        .map_err(|e| broken(format!("{e}; expected a folder with pictures and a questions.jsonl")))?;
    if !found.is_file() || found.len() > LONGEST {
        return Err(broken(format!("expected a file of at most {LONGEST} bytes, got {}", found.len())));
    }
    let read = fs::read_to_string(&file).map_err(|e| broken(e.to_string()))?;
    let mut samples: Vec<Sample> = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    for (number, line) in
        read.trim_start_matches('\u{feff}').lines().enumerate().filter(|(_, line)| !line.trim().is_empty())
    {
        let line = Line::read(line).map_err(|why| broken(format!("line {}: {why}", number + 1)))?;
        if line.asked.question.trim().is_empty() {
            return Err(broken(format!("line {}: expected a question, got an empty one", number + 1)));
        }
        let plain = Path::new(&line.image).components().all(|c| matches!(c, Component::Normal(_)));
        if !plain {
            return Err(broken(format!(
                "line {}: expected a picture within the folder, got {:?}",
                number + 1,
                line.image
            )));
        }
        let asked = Asked { kind: text::line(&line.asked.kind), ..line.asked };
        match known.get(&line.image) {
            Some(&index) => samples[index].asked.push(asked),
            None => {
                let file = dir.join(&line.image);
                let sample = Sample::new(line.image.clone(), vec![asked], move || load::picture(&file));
                sample.picture().map_err(|why| broken(format!("line {}: {why}", number + 1)))?;
                known.insert(line.image, samples.len());
                samples.push(sample);
            }
        }
    }
    if samples.is_empty() {
        return Err(broken("expected at least one question, got none".into()));
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::Line;

    #[test]
    fn a_line_that_is_no_question_is_refused_in_plain_words() {
        for (line, expected) in [
            (r#"{"image": "a.png""#, "column 17: expected a JSON object, got: EOF while parsing an object"),
            ("[1]", r#"expected an object {"image", "question", "answer", "kind"}, got a list"#),
            ("3", r#"expected an object {"image", "question", "answer", "kind"}, got the number 3"#),
            (r#"{"image": 3}"#, "expected a text for `image`, got the number 3; put it in quotes"),
            (r#"{"image": "a.png"}"#, "expected a text for `question`, got nothing"),
            (
                r#"{"image": "a.png", "question": "?", "answer": 7}"#,
                "expected a text for `answer`, got the number 7; put it in quotes",
            ),
            (
                r#"{"image": "a.png", "question": "?", "answer": "7", "kind": []}"#,
                "expected a text for `kind`, got a list",
            ),
            (
                r#"{"image": "a.png", "question": "?", "answers": ["7"]}"#,
                "expected no `answers`, which is not supported; the keys are image, question, answer, kind, id",
            ),
        ] {
            let why = Line::read(line).err().unwrap_or_else(|| panic!("{line}: expected an error"));
            assert_eq!(why, expected, "{line} (got, expected)");
        }
        let line = r#"{"image": "a.png", "question": "?", "answer": "7", "id": 3, "seed": null}"#;
        let line = Line::read(line).expect("a line");
        assert_eq!((line.asked.answer.as_str(), line.asked.kind.as_str()), ("7", ""), "(got, expected)");
    }
}
