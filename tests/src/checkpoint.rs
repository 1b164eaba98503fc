//! Edited copies of a valid checkpoint: other names, dtypes and shards, or broken on purpose.
//!
//! A checkpoint is stored as the bytes of its files. The safetensors crate parses the weights; this module serializes
//! them, so that it can also write invalid files.

use std::{borrow::Cow, collections::BTreeMap, fs, path::Path};

use fovea_runtime::source::Source;
use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value, json};

use crate::golden::fixtures;

/// The file of all weights in a checkpoint without shards.
pub const WEIGHTS: &str = "model.safetensors";
/// The file that maps tensors to shards.
pub const INDEX: &str = "model.safetensors.index.json";

/// One tensor, as stored.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its name.
    pub name: String,
    /// F32, F16, BF16, or another type set by a test.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its values, little-endian.
    pub bytes: Vec<u8>,
}

impl Stored {
    /// Its values.
    ///
    /// # Panics
    /// If `dtype` is not a float type.
    pub fn floats(&self) -> Vec<f32> {
        let halves = || self.bytes.as_chunks::<2>().0.iter();
        match self.dtype {
            Dtype::F32 => self.bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Dtype::F16 => halves().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
            Dtype::BF16 => halves().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
            other => panic!("{}: expected a float's dtype, got {other:?}", self.name),
        }
    }

    /// Stores other values, rounded to `dtype`.
    ///
    /// # Panics
    /// If `dtype` is not a float type.
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
    /// Reads a checkpoint of the fixtures.
    ///
    /// # Panics
    /// If it cannot be read.
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

    /// A source with these files in memory.
    pub fn source(&self) -> Source {
        let files = self.0.iter().map(|(name, bytes)| (name.clone(), Cow::Owned(bytes.clone())));
        Source::memory("a checkpoint in memory", files)
    }

    /// Writes these files into a directory.
    ///
    /// # Panics
    /// If that fails.
    pub fn write(&self, directory: &Path) {
        for (name, bytes) in &self.0 {
            fs::write(directory.join(name), bytes).expect("a file to be written");
        }
    }

    /// Removes a file.
    ///
    /// # Panics
    /// If there is no file of this name, because then the test would change nothing.
    pub fn remove(&mut self, file: &str) {
        assert!(self.0.remove(file).is_some(), "expected a file {file} to remove, got none");
    }

    /// Adds or replaces a file.
    pub fn put(&mut self, file: &str, bytes: impl Into<Vec<u8>>) {
        self.0.insert(file.to_owned(), bytes.into());
    }

    /// The bytes of a file, mutable.
    ///
    /// # Panics
    /// If there is no file of this name.
    pub fn bytes(&mut self, file: &str) -> &mut Vec<u8> {
        self.0.get_mut(file).unwrap_or_else(|| panic!("expected a file {file}, got none"))
    }

    /// Edits a JSON file.
    ///
    /// # Panics
    /// If there is no file of this name.
    pub fn json(&mut self, file: &str, edit: impl FnOnce(&mut Value)) {
        let mut value = serde_json::from_slice(self.bytes(file)).expect("a fixture's JSON");
        edit(&mut value);
        self.put(file, value.to_string());
    }

    /// Sets one key of config.json, by its JSON pointer; null removes it.
    ///
    /// # Panics
    /// If the key's parent does not exist.
    pub fn config(&mut self, pointer: &str, value: Value) {
        self.set("config.json", pointer, value);
    }

    /// Sets one key of a JSON file, by its JSON pointer; null removes it.
    ///
    /// # Panics
    /// If the key's parent does not exist.
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

    /// All tensors, sorted by name.
    ///
    /// # Panics
    /// If a weights file is broken.
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
    /// If there is no tensor of this name.
    pub fn tensor(&self, name: &str) -> Stored {
        let found = self.tensors().into_iter().find(|t| t.name == name);
        found.unwrap_or_else(|| panic!("expected a tensor {name}, got none"))
    }

    /// Replaces all weights with these tensors, in `shards` files with an index, or in one file without.
    pub fn set_tensors(&mut self, tensors: &[Stored], shards: usize) {
        self.0.retain(|name, _| !name.ends_with(".safetensors") && name != INDEX);
        if shards <= 1 {
            self.put(WEIGHTS, serialize(tensors));
            return;
        }
        let mut weight_map = Map::new();
        for (i, part) in tensors.chunks(tensors.len().div_ceil(shards)).enumerate() {
            let file = format!("model-{:05}-of-{shards:05}.safetensors", i + 1);
            weight_map.extend(part.iter().map(|t| (t.name.clone(), json!(file))));
            self.put(&file, serialize(part));
        }
        self.put(INDEX, json!({"metadata": {}, "weight_map": weight_map}).to_string());
    }

    /// Edits one tensor, and writes all weights into one file.
    ///
    /// # Panics
    /// If there is no tensor of this name.
    pub fn edit(&mut self, name: &str, edit: impl FnOnce(&mut Stored)) {
        let mut all = self.tensors();
        edit(all.iter_mut().find(|t| t.name == name).unwrap_or_else(|| panic!("expected a tensor {name}, got none")));
        self.set_tensors(&all, 1);
    }

    /// Edits the header of `model.safetensors`, and keeps its data.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn header(&mut self, edit: impl FnOnce(&mut Value)) {
        let bytes = self.bytes(WEIGHTS).clone();
        let (size, rest) = bytes.split_at(8);
        let size = u64::from_le_bytes(size.try_into().expect("eight bytes")) as usize;
        let mut header = serde_json::from_slice(&rest[..size]).expect("a fixture's header");
        edit(&mut header);
        self.put(WEIGHTS, weights_file(&header.to_string(), &rest[size..]));
    }
}

/// A weights file with any header and data, valid or not.
pub fn weights_file(header: &str, data: &[u8]) -> Vec<u8> {
    [(header.len() as u64).to_le_bytes().as_slice(), header.as_bytes(), data].concat()
}

fn serialize(tensors: &[Stored]) -> Vec<u8> {
    let (mut header, mut data) = (Map::new(), Vec::new());
    for t in tensors {
        let start = data.len();
        data.extend_from_slice(&t.bytes);
        let entry = json!({"dtype": format!("{:?}", t.dtype), "shape": t.shape, "data_offsets": [start, data.len()]});
        header.insert(t.name.clone(), entry);
    }
    weights_file(&Value::Object(header).to_string(), &data)
}
