//! Checkpoints made from a good one: other names, dtypes and shards, or broken on purpose.
//!
//! A checkpoint is held as its files' bytes. Weights are taken apart with the safetensors crate and put together by
//! hand, so that what no library would write can be written.

use std::{borrow::Cow, collections::BTreeMap, fs, path::Path};

use fovea_runtime::source::Source;
use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value, json};

use crate::golden::fixtures;

/// The file that holds all weights where there are no shards.
pub const WEIGHTS: &str = "model.safetensors";
/// The file that says which shard holds which tensor.
pub const INDEX: &str = "model.safetensors.index.json";

/// One tensor, as stored.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its name.
    pub name: String,
    /// F32, F16, BF16 or what a test makes of it.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Little-endian.
    pub bytes: Vec<u8>,
}

impl Stored {
    /// Its values.
    ///
    /// # Panics
    /// Where it is not stored as a float.
    pub fn floats(&self) -> Vec<f32> {
        let halves = || self.bytes.as_chunks::<2>().0.iter();
        match self.dtype {
            Dtype::F32 => self.bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Dtype::F16 => halves().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
            Dtype::BF16 => halves().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
            other => panic!("{}: expected a float's dtype, got {other:?}", self.name),
        }
    }

    /// Stores other values, as `dtype`, rounding to it.
    ///
    /// # Panics
    /// Where `dtype` is not a float's.
    pub fn store(&mut self, values: &[f32], dtype: Dtype) {
        self.bytes = match dtype {
            Dtype::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Dtype::F16 => values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect(),
            Dtype::BF16 => values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect(),
            other => panic!("{}: expected a float's dtype, got {other:?}", self.name),
        };
        self.dtype = dtype;
    }
}

/// The files of one checkpoint.
#[derive(Clone, Debug)]
pub struct Files(pub BTreeMap<String, Vec<u8>>);

impl Files {
    /// A checkpoint of the fixtures.
    ///
    /// # Panics
    /// Where it cannot be read.
    pub fn fixture(name: &str) -> Self {
        let directory = fixtures().join(name);
        let entries = fs::read_dir(&directory).unwrap_or_else(|e| panic!("expected {}: {e}", directory.display()));
        let files = entries.map(|entry| {
            let path = entry.expect("an entry of a directory").path();
            let name = path.file_name().and_then(|n| n.to_str()).expect("a name in UTF-8").to_owned();
            (name, fs::read(&path).expect("a fixture's file"))
        });
        Self(files.collect())
    }

    /// These files, in memory.
    pub fn source(&self) -> Source {
        let files = self.0.iter().map(|(name, bytes)| (name.clone(), Cow::Owned(bytes.clone())));
        Source::memory("a checkpoint in memory", files)
    }

    /// Writes these files into a directory.
    ///
    /// # Panics
    /// Where that fails.
    pub fn write(&self, directory: &Path) {
        for (name, bytes) in &self.0 {
            fs::write(directory.join(name), bytes).expect("a file to be written");
        }
    }

    /// Takes a file away.
    ///
    /// # Panics
    /// Where there is none of this name: then the test would break nothing.
    pub fn remove(&mut self, file: &str) {
        assert!(self.0.remove(file).is_some(), "expected a file {file} to take away, got none");
    }

    /// Puts a file there, or another in its place.
    pub fn put(&mut self, file: &str, bytes: impl Into<Vec<u8>>) {
        self.0.insert(file.to_owned(), bytes.into());
    }

    /// The bytes of a file, to break.
    ///
    /// # Panics
    /// Where there is none of this name.
    pub fn bytes(&mut self, file: &str) -> &mut Vec<u8> {
        self.0.get_mut(file).unwrap_or_else(|| panic!("expected a file {file}, got none"))
    }

    /// Edits a JSON file.
    ///
    /// # Panics
    /// Where there is none of this name.
    pub fn json(&mut self, file: &str, edit: impl FnOnce(&mut Value)) {
        let mut value = serde_json::from_slice(self.bytes(file)).expect("a fixture's JSON");
        edit(&mut value);
        self.put(file, value.to_string());
    }

    /// Sets one key of config.json, by its JSON pointer; null takes it away.
    ///
    /// # Panics
    /// Where what holds the key is not there.
    pub fn config(&mut self, pointer: &str, value: Value) {
        self.set("config.json", pointer, value);
    }

    /// Sets one key of a JSON file, by its JSON pointer; null takes it away.
    ///
    /// # Panics
    /// Where what holds the key is not there.
    pub fn set(&mut self, file: &str, pointer: &str, value: Value) {
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer with a slash");
        self.json(file, |json| {
            let object = json.pointer_mut(parent).and_then(Value::as_object_mut).expect("an object to set a key of");
            if value.is_null() {
                object.remove(key);
            } else {
                object.insert(key.to_owned(), value);
            }
        });
    }

    /// All tensors, by name.
    ///
    /// # Panics
    /// Where a weights file is broken.
    pub fn tensors(&self) -> Vec<Stored> {
        let mut all = Vec::new();
        for (_, bytes) in self.0.iter().filter(|(name, _)| name.ends_with(".safetensors")) {
            let file = SafeTensors::deserialize(bytes).expect("a fixture's weights");
            all.extend(file.iter().map(|(name, view)| Stored {
                name: name.to_owned(),
                dtype: view.dtype(),
                shape: view.shape().to_vec(),
                bytes: view.data().to_vec(),
            }));
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// One tensor.
    ///
    /// # Panics
    /// Where there is none of this name.
    pub fn tensor(&self, name: &str) -> Stored {
        let found = self.tensors().into_iter().find(|t| t.name == name);
        found.unwrap_or_else(|| panic!("expected a tensor {name}, got none"))
    }

    /// Puts these tensors in the place of all weights, in `shards` files with an index, or in one without.
    pub fn set_tensors(&mut self, tensors: &[Stored], shards: usize) {
        self.0.retain(|name, _| !name.ends_with(".safetensors") && name != INDEX);
        if shards <= 1 {
            self.put(WEIGHTS, serialise(tensors));
            return;
        }
        let mut weight_map = Map::new();
        for (i, part) in tensors.chunks(tensors.len().div_ceil(shards)).enumerate() {
            let file = format!("model-{:05}-of-{shards:05}.safetensors", i + 1);
            weight_map.extend(part.iter().map(|t| (t.name.clone(), json!(file))));
            self.put(&file, serialise(part));
        }
        self.put(INDEX, json!({"metadata": {}, "weight_map": weight_map}).to_string());
    }

    /// Edits one tensor; all weights go into one file.
    ///
    /// # Panics
    /// Where there is none of this name.
    pub fn edit(&mut self, name: &str, edit: impl FnOnce(&mut Stored)) {
        let mut all = self.tensors();
        edit(all.iter_mut().find(|t| t.name == name).unwrap_or_else(|| panic!("expected a tensor {name}, got none")));
        self.set_tensors(&all, 1);
    }

    /// Edits the header of `model.safetensors` and leaves its data as they are.
    ///
    /// # Panics
    /// Where the file is not there.
    pub fn header(&mut self, edit: impl FnOnce(&mut Value)) {
        let bytes = self.bytes(WEIGHTS).clone();
        let (size, rest) = bytes.split_at(8);
        let size = u64::from_le_bytes(size.try_into().expect("eight bytes")) as usize;
        let mut header = serde_json::from_slice(&rest[..size]).expect("a fixture's header");
        edit(&mut header);
        self.put(WEIGHTS, weights_file(&header.to_string(), &rest[size..]));
    }
}

/// A weights file of a header and data, whatever they say.
pub fn weights_file(header: &str, data: &[u8]) -> Vec<u8> {
    [(header.len() as u64).to_le_bytes().as_slice(), header.as_bytes(), data].concat()
}

fn serialise(tensors: &[Stored]) -> Vec<u8> {
    let (mut header, mut data) = (Map::new(), Vec::new());
    for t in tensors {
        let start = data.len();
        data.extend_from_slice(&t.bytes);
        let entry = json!({"dtype": format!("{:?}", t.dtype), "shape": t.shape, "data_offsets": [start, data.len()]});
        header.insert(t.name.clone(), entry);
    }
    weights_file(&Value::Object(header).to_string(), &data)
}
