//! The engine for a browser: a question about a picture, answered by the demo checkpoint, and the conformance suite.

mod conformance;
#[cfg(target_family = "wasm")]
mod start;

use fovea_model::{AskOptions, Cancel, Checkpoint, Event, Model, Picture, Precision, demo};
use fovea_runtime::{DeviceChoice, OpenDevice};
use futures_util::{StreamExt, pin_mut};
use wasm_bindgen::prelude::*;

fn error(error: impl std::fmt::Display) -> JsValue {
    JsValue::from_str(&error.to_string())
}

/// Answers `question` about `picture` (the bytes of a png, jpeg, webp, gif or bmp file) on the browser's GPU, or with
/// `cpu` on its CPU.
///
/// # Errors
/// Rejects with a sentence.
#[wasm_bindgen]
pub async fn ask(picture: Vec<u8>, question: String, cpu: bool) -> Result<String, JsValue> {
    let choice = if cpu { DeviceChoice::Cpu } else { DeviceChoice::Wgpu };
    let device = OpenDevice::open(&choice).await.map_err(error)?;
    let checkpoint = Checkpoint::open(demo::source()).await.map_err(error)?;
    let model = Model::load(checkpoint, device, Precision::Auto, &Cancel::default(), |_| {}).await.map_err(error)?;
    let mut conversation = model.look_at(Picture::decode(&picture).map_err(error)?);
    let options = AskOptions::default();
    let events = conversation.ask(&question, &options);
    pin_mut!(events);
    let mut answer = String::new();
    while let Some(event) = events.next().await {
        if let Event::Token { text, .. } = event.map_err(error)? {
            answer += &text;
        }
    }
    Ok(answer)
}
