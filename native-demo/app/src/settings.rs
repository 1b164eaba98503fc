//! The settings file, in the platform's folder for settings.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use fovea_model::{AskOptions, Pick};
use serde::{Deserialize, Serialize};

use crate::engine::{ModelAt, Wanted};

/// Maximum length of the lists of recent pictures and models.
const RECENT: usize = 8;

/// Color theme.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Theme {
    /// The system's theme.
    #[default]
    System,
    /// Light.
    Light,
    /// Dark.
    Dark,
}

/// How questions are answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AnswerSettings {
    /// Whether a question is asked with the earlier questions and answers.
    pub remember: bool,
    /// The system message; empty: none.
    pub system: String,
    /// See [`Pick::temperature`].
    pub temperature: f64,
    /// See [`Pick::top_p`].
    pub top_p: f64,
    /// See [`Pick::seed`].
    pub seed: u64,
    /// See [`AskOptions::max_new_tokens`].
    pub max_new_tokens: usize,
}

impl Default for AnswerSettings {
    fn default() -> Self {
        let AskOptions { max_new_tokens, pick: Pick { temperature, top_p, seed, .. }, .. } = AskOptions::default();
        Self { remember: true, system: String::new(), temperature, top_p, seed, max_new_tokens }
    }
}

impl AnswerSettings {
    /// The options of a question. The caller adds the compression.
    pub fn options(&self) -> AskOptions {
        let Self { temperature, top_p, seed, max_new_tokens, .. } = *self;
        AskOptions {
            max_new_tokens,
            pick: Pick { temperature, top_p, seed, ..Pick::default() },
            ..AskOptions::default()
        }
    }
}

/// The settings. A key that the file lacks has its default value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// The settings file; None: the settings are not saved.
    #[serde(skip)]
    pub file: Option<PathBuf>,
    /// The device.
    pub device: Wanted,
    /// The model that was loaded last.
    pub model: ModelAt,
    /// Recent pictures, the latest first.
    pub pictures: Vec<PathBuf>,
    /// Recent model folders, the latest first.
    pub models: Vec<PathBuf>,
    /// The color theme.
    pub theme: Theme,
    /// How questions are answered.
    pub answer: AnswerSettings,
}

impl Settings {
    /// The platform's usual file, such as `~/.config/fovea/settings.json`.
    pub fn usual_file() -> Option<PathBuf> {
        directories::ProjectDirs::from("", "", "fovea").map(|dirs| dirs.config_dir().join("settings.json"))
    }

    /// Reads `file`. If it cannot be used, the result is the default settings and a message for the user.
    pub fn read(file: Option<PathBuf>) -> (Self, Option<String>) {
        let Some(path) = file else { return (Self::default(), None) };
        let (settings, why) = match fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice::<Self>(&bytes) {
                Ok(settings) => (settings, None),
                Err(why) => (
                    Self::default(),
                    Some(format!("Cannot use the settings in {}: {why}. Using the defaults.", path.display())),
                ),
            },
            Err(why) if why.kind() == io::ErrorKind::NotFound => (Self::default(), None),
            Err(why) => (
                Self::default(),
                Some(format!("Cannot read the settings in {}: {why}. Using the defaults.", path.display())),
            ),
        };
        (Self { file: Some(path), ..settings }, why)
    }

    /// Writes the settings file atomically.
    ///
    /// # Errors
    /// An error of the file system.
    pub fn write(&self) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        let fresh = file.with_extension("json.new");
        fs::write(&fresh, serde_json::to_vec_pretty(self)?)?;
        fs::rename(fresh, file)
    }

    /// Puts a picture first.
    pub fn add_picture(&mut self, path: &Path) {
        add(&mut self.pictures, path);
    }

    /// Sets the model, and puts its folder first.
    pub fn set_model(&mut self, model: &ModelAt) {
        self.model = model.clone();
        if let ModelAt::Folder(path) = model {
            add(&mut self.models, path);
        }
    }
}

fn add(recent: &mut Vec<PathBuf>, path: &Path) {
    recent.retain(|other| other != path);
    recent.insert(0, path.to_owned());
    recent.truncate(RECENT);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_back_and_a_broken_file_gives_the_defaults() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let file = Some(folder.path().join("deeper/settings.json"));
        let (mut settings, why) = Settings::read(file.clone());
        assert_eq!((settings.clone(), why), (Settings { file: file.clone(), ..Settings::default() }, None));
        for i in 0..12 {
            settings.add_picture(Path::new(&format!("{}.png", i % 10)));
        }
        assert_eq!(settings.pictures.len(), RECENT);
        assert_eq!(settings.pictures[..2], [PathBuf::from("1.png"), PathBuf::from("0.png")]);
        let answer = AnswerSettings { temperature: 0.7, system: "Be short.".into(), ..AnswerSettings::default() };
        settings.answer = AnswerSettings { remember: false, ..answer };
        settings.device = Wanted::Adapter { name: "GPU".into(), backend: "vulkan".into() };
        settings.write()?;
        assert_eq!(Settings::read(file.clone()), (settings.clone(), None));
        fs::write(settings.file.as_ref().expect("a file"), r#"{"answer": {"seed": 7}}"#)?;
        let (read, _) = Settings::read(file.clone());
        assert_eq!(read.answer, AnswerSettings { seed: 7, ..AnswerSettings::default() });
        for broken in ["", "{", r#"{"pictures": 7}"#] {
            fs::write(settings.file.as_ref().expect("a file"), broken)?;
            let (read, why) = Settings::read(file.clone());
            assert_eq!(read, Settings { file: file.clone(), ..Settings::default() });
            assert!(why.is_some_and(|why| why.contains("settings.json")), "{broken}");
        }
        Ok(())
    }
}
