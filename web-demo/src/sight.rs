//! Questions about one picture, and what was looked at for the last of them.
//!
//! A method that is under way holds its sight, and another one on it throws: whoever calls them lets one end before the
//! next begins. [`Stop`] is apart, so that it can be told meanwhile.

use std::{cell::Cell, pin::pin, rc::Rc, sync::Arc};

use fovea_model::{AskOptions, Conversation, Error, Event, Looked, Model, Picture, Progress, TokenCounts, overlay};
use fovea_runtime::{Keep, Scale, device::DeviceClass, top_k};
use futures_util::StreamExt;
use js_sys::Function;
use serde_json::{Value, json};
use wasm_bindgen::prelude::*;

use crate::{
    asked::{self, Stop},
    engine::tell,
    failure::failure,
    hearing::hearing,
};

/// What is asked where nobody listens.
const REHEARSAL: &str = "What is in the picture?";

/// How it is answered: with a piece of text in every vocabulary of Llama's kind. Kernels are made for lengths that four divides,
/// or two, or only one, and while the answer grows by four tokens the cache has all of them.
const REHEARSED: [u32; 4] = [3; 4];

/// A picture that can be asked about.
#[wasm_bindgen]
pub struct Sight {
    model: Arc<Model>,
    /// Whether this model's GPU has been through a whole answer.
    rehearsed: Rc<Cell<bool>>,
    conversation: Conversation,
    looked: Option<Arc<Looked>>,
}

#[wasm_bindgen]
impl Sight {
    /// Computes what the first question would have to wait for: what no question changes, and on a GPU, once for a model, an
    /// answer that nobody hears, so that all pipelines are there. `options` are those of [`Sight::ask`]; a question with
    /// others may have to wait again.
    ///
    /// # Errors
    /// As [`Sight::ask`].
    pub async fn prepare(&mut self, options: String, stop: &Stop) -> Result<(), JsValue> {
        let options = asked::options(&options, stop).map_err(failure)?;
        hearing(self.get_ready(&options)).await.map_err(failure)
    }

    /// Answers a question.
    ///
    /// `options` is a JSON object; each key may be left out: `vision` and `text` (whether these samplers are on), `gamma`,
    /// `layer`, `max_new_tokens`. `on_event` receives, as JSON, `{stage, milliseconds}` as stages end, `{progress: {stage,
    /// done, total}}` a few times a second while a long one is under way, `{looked}` once,
    /// `{token: {id, text}}`, and `{done}` last, with the keys of `fovea ask --json`.
    ///
    /// # Errors
    /// Rejects with an `Error` that has a `code`; `stopped` where `stop` says so. Then the picture can be asked again.
    pub async fn ask(
        &mut self,
        question: String,
        options: String,
        stop: &Stop,
        on_event: Function,
    ) -> Result<(), JsValue> {
        let options = asked::options(&options, stop).map_err(failure)?;
        hearing(self.answer(&question, &options, &on_event)).await.map_err(failure)
    }

    /// The same up to what is looked at, which it returns as JSON; the answer is left out.
    ///
    /// # Errors
    /// As [`Sight::ask`].
    pub async fn look(&mut self, question: String, options: String, stop: &Stop) -> Result<String, JsValue> {
        let options = asked::options(&options, stop).map_err(failure)?;
        hearing(self.see(&question, &options)).await.map_err(failure)?;
        self.shown().map_err(failure)
    }

    /// What would have been kept at another gamma, by the importance that the last question gave: what is looked at then,
    /// as JSON. Nothing runs on the device.
    ///
    /// # Errors
    /// Throws an `Error` where gamma is out of range, or the last question had no text-guided sampler.
    pub fn keep(&mut self, gamma: f64) -> Result<String, JsValue> {
        self.kept(gamma).map_err(failure)?;
        self.shown().map_err(failure)
    }

    /// What was looked at last, drawn over the picture: the bytes of a PNG file, as `fovea ask --overlay` writes it.
    ///
    /// # Errors
    /// Throws an `Error` where nothing was asked yet.
    pub fn overlay(&self) -> Result<Vec<u8>, JsValue> {
        self.drawn().map_err(failure)
    }
}

impl Sight {
    /// `picture`, before the first question. `rehearsed` is shared by all pictures of a model.
    pub fn new(model: &Arc<Model>, rehearsed: &Rc<Cell<bool>>, picture: Picture) -> Self {
        let conversation = model.look_at(picture);
        Self { model: model.clone(), rehearsed: rehearsed.clone(), conversation, looked: None }
    }

    async fn get_ready(&mut self, options: &AskOptions) -> Result<(), Error> {
        self.conversation.prepare(options).await?;
        if self.model.device().info.class != DeviceClass::Cpu && !self.rehearsed.get() {
            let vocab = self.model.config().text.vocab as u32;
            let forced = REHEARSED.map(|id| id.min(vocab.saturating_sub(1))).to_vec();
            let options = AskOptions { max_new_tokens: forced.len() + 1, forced, ..options.clone() };
            let mut events = pin!(self.conversation.ask(REHEARSAL, &options));
            while let Some(event) = events.next().await {
                event?;
            }
            self.rehearsed.set(true);
        }
        Ok(())
    }

    async fn answer(&mut self, question: &str, options: &AskOptions, on_event: &Function) -> Result<(), Error> {
        let sides = sides(self.conversation.picture());
        let mut events = pin!(self.conversation.ask(question, options));
        while let Some(event) = events.next().await {
            let told = match event? {
                Event::Stage { stage, milliseconds } => json!({ "stage": stage, "milliseconds": milliseconds }),
                Event::Progress(Progress { stage, done, total }) => {
                    json!({ "progress": { "stage": stage, "done": done, "total": total } })
                }
                Event::Looked(looked) => json!({ "looked": described(self.looked.insert(looked), sides) }),
                Event::Token { id, text } => json!({ "token": { "id": id, "text": text } }),
                Event::Done(turn) => json!({ "done": self.model.report(question, &turn)? }),
            };
            tell(on_event, &told);
        }
        Ok(())
    }

    async fn see(&mut self, question: &str, options: &AskOptions) -> Result<(), Error> {
        let mut events = pin!(self.conversation.ask(question, options));
        while let Some(event) = events.next().await {
            if let Event::Looked(looked) = event? {
                self.looked = Some(looked);
                break;
            }
        }
        Ok(())
    }

    fn kept(&mut self, gamma: f64) -> Result<(), Error> {
        let keep = Keep::Gamma(gamma);
        AskOptions { keep: Some(keep), ..AskOptions::default() }.check(self.model.config().text.n_layers)?;
        let mut looked = self.looked()?.clone();
        if looked.importance.is_empty() {
            let expected = "a question with the text-guided sampler on before it".to_owned();
            return Err(Error::Option { option: "gamma", expected, got: "one with it off".into() });
        }
        looked.kept = top_k(&looked.importance, keep);
        self.looked = Some(Arc::new(looked));
        Ok(())
    }

    fn looked(&self) -> Result<&Looked, Error> {
        self.looked.as_deref().ok_or_else(|| Error::Option {
            option: "overlay",
            expected: "a question about this picture before it".into(),
            got: "none".into(),
        })
    }

    fn drawn(&self) -> Result<Vec<u8>, Error> {
        overlay::png(&overlay::draw(self.conversation.picture(), self.looked()?)?)
    }

    fn shown(&self) -> Result<String, Error> {
        Ok(described(self.looked()?, sides(self.conversation.picture())).to_string())
    }
}

/// Width and height of a picture.
fn sides(picture: &Picture) -> [usize; 2] {
    [picture.width(), picture.height()]
}

/// What was looked at on a picture of these sides: counts of tokens, the scale of every region, patches, pixels and
/// importance of every token, and which stay.
fn described(looked: &Looked, sides: [usize; 2]) -> Value {
    // Finer than a screen shows; more digits would only be carried around.
    let rounded = |edge: f32| (f64::from(edge) * 100.0).round() / 100.0;
    let rect = |patches| {
        let rect = overlay::rectangle(looked, sides[0], sides[1], patches)?;
        Some([rect.left, rect.top, rect.right, rect.bottom].map(rounded))
    };
    let tokens = TokenCounts {
        stock: looked.grid.stock_tokens(),
        vision: looked.thumbnail + looked.boxes.len(),
        text: looked.kept.len(),
    };
    json!({
        "tokens": tokens,
        "map": [looked.grid.height, looked.grid.width],
        "window": looked.window,
        "scales": looked.scales.iter().map(Scale::to_string).collect::<Vec<_>>(),
        "choice": *looked.choice,
        "thumbnail": looked.thumbnail,
        "boxes": *looked.boxes,
        "rects": looked.boxes.iter().map(|&patches| rect(patches)).collect::<Vec<_>>(),
        "picture": sides,
        "drawn": overlay::drawn_size(sides),
        "importance": looked.importance,
        "kept": looked.kept,
    })
}

#[cfg(test)]
mod tests {
    use fovea_model::Grid;

    use super::*;

    /// A map of 4 x 6 patches and no sampler: everything is drawn as it is.
    fn all() -> Looked {
        Looked {
            grid: Grid { rows: 1, cols: 1, patches: 6, top: 1, left: 0, height: 4, width: 6 },
            window: 4,
            scales: Arc::new(Vec::new()),
            choice: Arc::new(Vec::new()),
            thumbnail: 36,
            boxes: Arc::new(vec![[0, 0, 1, 1], [0, 6, 1, 6]]),
            importance: Vec::new(),
            kept: vec![36, 37],
        }
    }

    #[test]
    fn a_token_is_told_in_patches_and_pixels_and_a_newline_has_none() {
        let told = described(&all(), [600, 400]);
        assert_eq!(told["boxes"], json!([[0, 0, 1, 1], [0, 6, 1, 6]]));
        assert_eq!(told["rects"], json!([[0.0, 0.0, 100.0, 100.0], null]));
        assert_eq!((&told["picture"], &told["drawn"]), (&json!([600, 400]), &json!([960, 640])));
    }

    #[test]
    fn the_drawing_has_the_picture_where_it_is_said_to_be() {
        // The legend is wider than the slim ones.
        for sides in [[600, 400], [400, 600], [40, 1000], [3000, 40], [1, 1]] {
            let white = Picture::from_rgb(sides[0], sides[1], vec![255; sides[0] * sides[1] * 3]).expect("a picture");
            let mut looked = all();
            // Nothing is kept and nothing has a box: the picture is dark, and not as dark as what is around it.
            (looked.boxes, looked.kept) = (Arc::new(Vec::new()), Vec::new());
            let picture = overlay::draw(&white, &looked).expect("a drawing");
            let lit = |x: usize, y: usize| picture.rgb()[(y * picture.width() + x) * 3] > 60;
            let [width, height] = overlay::drawn_size(sides);
            let left = (picture.width() - width) / 2;
            let row: Vec<usize> = (0..picture.width()).filter(|&x| lit(x, 0)).collect();
            assert_eq!((row.first(), row.len()), (Some(&left), width), "{sides:?}");
            let middle = left + width / 2;
            assert_eq!((0..picture.height()).take_while(|&y| lit(middle, y)).count(), height, "{sides:?}");
        }
    }
}
