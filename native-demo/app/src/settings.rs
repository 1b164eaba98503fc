//! What is remembered from one start to the next, in the platform's folder for settings.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::engine::{ModelAt, Wanted};

/// Pictures and models that are remembered.
const RECENT: usize = 8;

/// Light, dark, or as the system has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Theme {
    /// As the system.
    #[default]
    System,
    /// Light.
    Light,
    /// Dark.
    Dark,
}

/// The settings. What a file lacks, or has of another kind, is as at the first start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Where they are kept; None: nowhere.
    #[serde(skip)]
    pub file: Option<PathBuf>,
    /// The device.
    pub device: Wanted,
    /// The model.
    pub model: ModelAt,
    /// Pictures, the latest first.
    pub pictures: Vec<PathBuf>,
    /// Model folders, the latest first.
    pub models: Vec<PathBuf>,
    /// Light or dark.
    pub theme: Theme,
}

impl Settings {
    /// The platform's usual file, such as `~/.config/fovea/settings.json`.
    pub fn usual_file() -> Option<PathBuf> {
        directories::ProjectDirs::from("", "", "fovea").map(|dirs| dirs.config_dir().join("settings.json"))
    }

    /// Reads `file`. A second value tells why it was left aside.
    pub fn read(file: Option<PathBuf>) -> (Self, Option<String>) {
        let Some(path) = file else { return (Self::default(), None) };
        let (settings, why) = match fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice::<Self>(&bytes) {
                Ok(settings) => (settings, None),
                Err(why) => (Self::default(), Some(format!("The settings in {} are not used: {why}.", path.display()))),
            },
            Err(why) if why.kind() == io::ErrorKind::NotFound => (Self::default(), None),
            Err(why) => (Self::default(), Some(format!("The settings in {} can't be read: {why}.", path.display()))),
        };
        (Self { file: Some(path), ..settings }, why)
    }

    /// Writes them, whole or not at all.
    ///
    /// # Errors
    /// What the system says.
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

    /// Puts a model folder first.
    pub fn add_model(&mut self, path: &Path) {
        add(&mut self.models, path);
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
    fn what_is_written_is_read_again_and_what_is_broken_is_left_aside() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let file = Some(folder.path().join("deeper/settings.json"));
        let (mut settings, why) = Settings::read(file.clone());
        assert_eq!((settings.clone(), why), (Settings { file: file.clone(), ..Settings::default() }, None));
        for i in 0..12 {
            settings.add_picture(Path::new(&format!("{}.png", i % 10)));
        }
        assert_eq!(settings.pictures.len(), RECENT);
        assert_eq!(settings.pictures[..2], [PathBuf::from("1.png"), PathBuf::from("0.png")]);
        settings.device = Wanted::Adapter { name: "GPU".into(), backend: "vulkan".into() };
        settings.write()?;
        assert_eq!(Settings::read(file.clone()), (settings.clone(), None));
        for broken in ["", "{", r#"{"pictures": 7}"#] {
            fs::write(settings.file.as_ref().expect("a file"), broken)?;
            let (read, why) = Settings::read(file.clone());
            assert_eq!(read, Settings { file: file.clone(), ..Settings::default() });
            assert!(why.is_some_and(|why| why.contains("settings.json")), "{broken}");
        }
        Ok(())
    }
}
