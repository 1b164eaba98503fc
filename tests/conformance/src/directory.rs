//! Reads fixtures from a directory.

use std::{borrow::Cow, collections::BTreeSet, fs, path::Path};

use crate::golden::{CASES, FixtureError, Fixtures, cases};

impl Fixtures {
    /// Reads cases, pictures, traces and checkpoints from a directory, for example `tests/fixtures`.
    ///
    /// # Errors
    /// [`FixtureError`] if a file cannot be read.
    pub fn directory(path: &Path) -> Result<Self, FixtureError> {
        let failed = |name: &str, why: std::io::Error| {
            FixtureError::new(&path.join(name).display().to_string(), why.to_string())
        };
        let table = fs::read(path.join(CASES)).map_err(|e| failed(CASES, e))?;
        let models: BTreeSet<String> = cases(&table)?.into_iter().map(|case| case.model).collect();
        let mut files = vec![(CASES.to_owned(), Cow::Owned(table))];
        for folder in ["pictures", "traces"].into_iter().chain(models.iter().map(String::as_str)) {
            for entry in fs::read_dir(path.join(folder)).map_err(|e| failed(folder, e))? {
                let name = entry.map_err(|e| failed(folder, e))?.file_name();
                let name = format!("{folder}/{}", name.to_string_lossy());
                let bytes = fs::read(path.join(&name)).map_err(|e| failed(&name, e))?;
                files.push((name, Cow::Owned(bytes)));
            }
        }
        Ok(Self::new(files))
    }
}
