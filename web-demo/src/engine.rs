//! A loaded model on a device, which a page opens once.

use std::{str::FromStr, sync::Arc};

use fovea_model::{
    CacheType, Cancel, Checkpoint, Compression, Error, LoadOptions, LoadProgress, MethodRow, Model, Picture, Place,
    Precision,
};
use fovea_runtime::{DeviceChoice, OpenDevice, source::Source};
use js_sys::{Function, Map};
use serde_json::{Value, json};
use wasm_bindgen::prelude::*;

use crate::{failure::failure, files::ranged, report::report, sight::Sight};

/// A loaded model.
#[wasm_bindgen]
pub struct Engine {
    model: Arc<Model>,
    /// Bytes of memory that the page allows, if there is a limit.
    memory: Option<u64>,
}

#[wasm_bindgen]
impl Engine {
    /// Opens the browser's GPU, or with `cpu` its CPU, and loads a checkpoint. `sizes` maps the files' names to their sizes in
    /// bytes; `read(name, offset, length)` returns a promise of a Uint8Array of that length.
    ///
    /// `dtype` is how the matrices are stored on the device, a name in [`Precision::NAMES`]; `cache` is how the KV cache is
    /// stored, a name in [`CacheType::NAMES`]; `memory` is the number of bytes that the model may use. `on_progress` receives
    /// JSON: `{stage, done, total}`, with the stage `checking`, then `loading`, and the others in bytes.
    ///
    /// # Errors
    /// Rejects with an `Error` that has a `code`.
    pub async fn open(
        sizes: Map,
        read: Function,
        cpu: bool,
        dtype: String,
        cache: String,
        memory: Option<f64>,
        on_progress: Function,
    ) -> Result<Engine, JsValue> {
        let source = Source::from_files("the checkpoint", ranged(&sizes, &read)?);
        let options = options(&dtype, &cache, memory).map_err(failure)?;
        load(source, cpu, options, &on_progress).await.map_err(failure)
    }

    /// The description of the engine as JSON: see `About` in `page/fovea.d.ts`.
    pub fn about(&self) -> String {
        let config = self.model.config();
        json!({
            "device": self.model.device().info.to_string(),
            "dtype": self.model.dtype_name(),
            "weight_bytes": self.model.weight_bytes(),
            "cache": self.model.cache_name(),
            "memory": self.memory,
            "layers": config.text.n_layers,
            "tile": config.vision.side,
            "compression": Compression::default_of(self.model.fits()),
            "methods": Compression::fitting(self.model.fits()).into_iter().map(described).collect::<Vec<_>>(),
            "focus": config.focus,
            "trained": !Compression::default_of(self.model.fits()).is_none(),
            "notes": self.model.notes(),
        })
        .to_string()
    }

    /// Checks whether a compression fits the model. `spec` is spelled as on the command line. Returns its shortest spelling.
    ///
    /// # Errors
    /// Throws an `Error` with the code `option`.
    pub fn check(&self, spec: &str) -> Result<String, JsValue> {
        let compression: Compression = spec.parse().map_err(failure)?;
        compression.check(self.model.fits()).map_err(failure)?;
        Ok(compression.to_string())
    }

    /// Opens a picture from the bytes of a png, jpeg, webp, gif or bmp file. Nothing is computed before the first question.
    ///
    /// # Errors
    /// Throws an `Error` with the code `picture` if it can't be decoded.
    #[wasm_bindgen(js_name = lookAt)]
    pub fn look_at(&self, picture: Vec<u8>) -> Result<Sight, JsValue> {
        Ok(Sight::new(&self.model, Picture::decode(&picture).map_err(failure)?))
    }
}

/// A method of compression as JSON: see `Method` in `page/fovea.d.ts`.
fn described(row: &MethodRow) -> Value {
    let place = match row.place {
        Place::Before => "before",
        Place::Within => "within",
    };
    let MethodRow { name, title, about, source, default, .. } = row;
    json!({ "name": name, "title": title, "about": about, "source": source, "place": place, "default": default })
}

/// How a model is loaded, from names and a number of bytes.
fn options(dtype: &str, cache: &str, memory: Option<f64>) -> Result<LoadOptions, Error> {
    let memory = match memory {
        // NaN stands for a value that is not a number.
        Some(bytes) if bytes.is_nan() || bytes < 0.0 => {
            let expected = "a number of bytes, 0 or more".into();
            return Err(Error::Option { option: "memory", expected, got: bytes.to_string() });
        }
        limit => limit.map(|bytes| bytes as u64),
    };
    Ok(LoadOptions {
        precision: named("dtype", &Precision::NAMES, dtype)?,
        cache: named("cache", &CacheType::NAMES, cache)?,
        memory,
        ..LoadOptions::default()
    })
}

/// One of `names`.
fn named<T: FromStr>(option: &'static str, names: &[&str], got: &str) -> Result<T, Error> {
    got.parse().map_err(|_| Error::Option { option, expected: names.join(", "), got: got.into() })
}

async fn load(source: Source, cpu: bool, options: LoadOptions, on_progress: &Function) -> Result<Engine, Error> {
    let checkpoint = Checkpoint::open(source).await?;
    let choice = if cpu { DeviceChoice::Cpu } else { DeviceChoice::Wgpu };
    let device = OpenDevice::open(&choice).await?;
    let progress = |LoadProgress { stage, done, total }| {
        report(on_progress, &json!({ "stage": stage.name(), "done": done, "total": total }));
    };
    // A page ends the worker to stop loading, so no cancel handle is needed.
    let model = Model::load(checkpoint, device, options, &Cancel::default(), progress).await?;
    Ok(Engine { model, memory: options.memory })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_options_are_names_and_bytes() {
        let some = options("q8", "F16", Some(2e9)).expect("options");
        let expected = (Precision::Q8, CacheType::F16, Some(2_000_000_000));
        assert_eq!((some.precision, some.cache, some.memory), expected, "(got, expected)");
        assert_eq!(options("auto", "auto", None).expect("options"), LoadOptions::default(), "(got, expected)");
        for (dtype, cache, memory, expected) in [
            ("q5", "auto", None, "dtype: expected auto, f32, f16, q8, q4, got q5"),
            ("auto", "q8", None, "cache: expected auto, f32, f16, got q8"),
            ("auto", "auto", Some(-1.0), "memory: expected a number of bytes, 0 or more, got -1"),
            ("auto", "auto", Some(f64::NAN), "memory: expected a number of bytes, 0 or more, got NaN"),
        ] {
            let why = options(dtype, cache, memory).expect_err(expected);
            assert_eq!(why.to_string(), expected, "(got, expected)");
        }
    }
}
