//! Reads fixtures from a directory.

use std::{borrow::Cow, collections::BTreeSet, fs, path::Path};

use crate::{
    compressed::{COMPRESSED, CompressedCase},
    golden::{CASES, FixtureError, Fixtures},
};

impl Fixtures {
    /// Reads all cases, pictures, traces and checkpoints from a directory, for example `tests/fixtures`.
    ///
    /// # Errors
    /// [`FixtureError`] if a file cannot be read.
    pub fn directory(path: &Path) -> Result<Self, FixtureError> {
        let failed = |name: &str, why: std::io::Error| {
            FixtureError::new(&path.join(name).display().to_string(), why.to_string())
        };
        let file = |name: String| -> Result<(String, Cow<'static, [u8]>), FixtureError> {
            let bytes = fs::read(path.join(&name)).map_err(|e| failed(&name, e))?;
            Ok((name, Cow::Owned(bytes)))
        };
        let mut files = vec![file(CASES.to_owned())?, file(COMPRESSED.to_owned())?];
        let tables = Self::new(files.clone());
        let mut folders = BTreeSet::from(["pictures", "traces", "compressed/traces"].map(str::to_owned));
        folders.extend(tables.cases()?.into_iter().map(|case| case.model));
        folders.extend(tables.compressed()?.iter().flat_map(CompressedCase::folders));
        for folder in folders {
            for entry in fs::read_dir(path.join(&folder)).map_err(|e| failed(&folder, e))? {
                let name = entry.map_err(|e| failed(&folder, e))?.file_name();
                files.push(file(format!("{folder}/{}", name.to_string_lossy()))?);
            }
        }
        Ok(Self::new(files))
    }
}
