//! A model on a device: what a page opens once.

use std::{cell::Cell, rc::Rc, sync::Arc};

use fovea_model::{Cancel, Checkpoint, Error, LoadProgress, Model, Picture, Precision};
use fovea_runtime::{DeviceChoice, Error as RuntimeError, OpenDevice, source::Source};
use js_sys::{Function, Map};
use serde_json::{Value, json};
use wasm_bindgen::prelude::*;

use crate::{failure::failure, files::ranged, sight::Sight};

/// A loaded model.
#[wasm_bindgen]
pub struct Engine {
    model: Arc<Model>,
    rehearsed: Rc<Cell<bool>>,
}

#[wasm_bindgen]
impl Engine {
    /// Opens the browser's GPU, or with `cpu` its CPU, and loads a checkpoint: a Map of its files' names to their sizes in
    /// bytes, and what reads them by range, `read(name, offset, length)`, which returns a promise of a Uint8Array of that
    /// length.
    ///
    /// Matrices are kept as `dtype` says: `auto`, `f32` or `f16`. `on_progress` is told, as JSON, `stage` (`checking`, then
    /// `loading`), and the bytes `done` of `total`.
    ///
    /// # Errors
    /// Rejects with an `Error` that has a `code`.
    pub async fn open(
        sizes: Map,
        read: Function,
        cpu: bool,
        dtype: String,
        on_progress: Function,
    ) -> Result<Engine, JsValue> {
        let source = Source::from_files("the checkpoint", ranged(&sizes, &read)?);
        load(source, cpu, &dtype, &on_progress).await.map_err(failure)
    }

    /// What it is, as JSON: `device`, `dtype`, `weight_bytes`, decoder `layers`, a `tile`'s side in pixels, whether there
    /// is a scale `selector`, the samplers' settings as `focus`, whether it was `trained` with them (else both are off unless a
    /// question says otherwise), and `notes`, sentences that a user should read.
    pub fn about(&self) -> String {
        let config = self.model.config();
        json!({
            "device": self.model.device().info.to_string(),
            "dtype": self.model.dtype_name(),
            "weight_bytes": self.model.weight_bytes(),
            "layers": config.text.n_layers,
            "tile": config.vision.side,
            "selector": self.model.has_selector(),
            "focus": config.focus,
            "trained": config.has_focus,
            "notes": self.model.notes(),
        })
        .to_string()
    }

    /// Opens a picture: the bytes of a png, jpeg, webp, gif or bmp file. Nothing is computed before the first question.
    ///
    /// # Errors
    /// Throws an `Error` with the code `picture`.
    #[wasm_bindgen(js_name = lookAt)]
    pub fn look_at(&self, picture: Vec<u8>) -> Result<Sight, JsValue> {
        Ok(Sight::new(&self.model, &self.rehearsed, Picture::decode(&picture).map_err(failure)?))
    }
}

/// Tells JavaScript of something. Where the listener throws, that is its own concern.
pub fn tell(listener: &Function, what: &Value) {
    let _ = listener.call1(&JsValue::NULL, &JsValue::from_str(&what.to_string()));
}

async fn load(source: Source, cpu: bool, dtype: &str, on_progress: &Function) -> Result<Engine, Error> {
    let precision = precision(dtype)?;
    let checkpoint = Checkpoint::open(source).await?;
    let choice = if cpu { DeviceChoice::Cpu } else { DeviceChoice::Wgpu };
    let device = OpenDevice::open(&choice).await?;
    if precision == Precision::F16 && !cpu && !device.has_f16() {
        let what = "f16, which was asked for: choose f32".to_owned();
        return Err(RuntimeError::MissingFeature { device: device.info.to_string(), what }.into());
    }
    let progress = |progress: LoadProgress| {
        let (stage, done, total) = match progress {
            LoadProgress::Checking { done, total } => ("checking", done, total),
            LoadProgress::Loading { done, total } => ("loading", done, total),
        };
        tell(on_progress, &json!({ "stage": stage, "done": done, "total": total }));
    };
    // Whoever does not want to wait ends the worker, so there is nothing to stop this by.
    let model = Model::load(checkpoint, device, precision, &Cancel::default(), progress).await?;
    Ok(Engine { model, rehearsed: Rc::default() })
}

fn precision(dtype: &str) -> Result<Precision, Error> {
    match dtype {
        "auto" => Ok(Precision::Auto),
        "f32" => Ok(Precision::F32),
        "f16" => Ok(Precision::F16),
        other => Err(Error::Option { option: "dtype", expected: "auto, f32 or f16".into(), got: other.into() }),
    }
}
