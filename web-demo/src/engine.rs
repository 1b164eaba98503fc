//! A loaded model on a device, which a page opens once.

use std::{cell::Cell, rc::Rc, sync::Arc};

use fovea_model::{Cancel, Checkpoint, Compression, Error, LoadProgress, MethodRow, Model, Picture, Place, Precision};
use fovea_runtime::{DeviceChoice, OpenDevice, source::Source};
use js_sys::{Function, Map};
use serde_json::{Value, json};
use wasm_bindgen::prelude::*;

use crate::{failure::failure, files::ranged, report::report, sight::Sight};

/// A loaded model.
#[wasm_bindgen]
pub struct Engine {
    model: Arc<Model>,
    rehearsed: Rc<Cell<bool>>,
}

#[wasm_bindgen]
impl Engine {
    /// Opens the browser's GPU, or with `cpu` its CPU, and loads a checkpoint. `sizes` maps the files' names to their sizes in
    /// bytes; `read(name, offset, length)` returns a promise of a Uint8Array of that length.
    ///
    /// `dtype` is how the matrices are stored on the device, a name in [`Precision::NAMES`]. `on_progress` receives JSON:
    /// `{stage, done, total}`, with the stage `checking`, then `loading`, and the others in bytes.
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

    /// The description of the engine as JSON: see `About` in `page/fovea.d.ts`.
    pub fn about(&self) -> String {
        let config = self.model.config();
        json!({
            "device": self.model.device().info.to_string(),
            "dtype": self.model.dtype_name(),
            "weight_bytes": self.model.weight_bytes(),
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
        Ok(Sight::new(&self.model, &self.rehearsed, Picture::decode(&picture).map_err(failure)?))
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

async fn load(source: Source, cpu: bool, dtype: &str, on_progress: &Function) -> Result<Engine, Error> {
    let unknown = |_| Error::Option { option: "dtype", expected: Precision::NAMES.join(", "), got: dtype.into() };
    let precision: Precision = dtype.parse().map_err(unknown)?;
    let checkpoint = Checkpoint::open(source).await?;
    let choice = if cpu { DeviceChoice::Cpu } else { DeviceChoice::Wgpu };
    let device = OpenDevice::open(&choice).await?;
    let progress = |LoadProgress { stage, done, total }| {
        report(on_progress, &json!({ "stage": stage.name(), "done": done, "total": total }));
    };
    // A page ends the worker to stop loading, so no cancel handle is needed.
    let model = Model::load(checkpoint, device, precision, &Cancel::default(), progress).await?;
    Ok(Engine { model, rehearsed: Rc::default() })
}
