//! Threads of the page's engine on the CPU: workers that hold rows of weights in their own wasm memory (`page/helpers.js`). In the
//! engine's worker this passes on requests and replies; in a helper's worker it answers them.

use std::cell::RefCell;

use fovea_runtime::helpers::{self, Helpers, register};
use wasm_bindgen::prelude::*;

use crate::failure::{failure, thrown};

#[wasm_bindgen]
extern "C" {
    /// The helpers, as an object of the page.
    #[wasm_bindgen(typescript_type = "object")]
    pub type Workers;
    #[wasm_bindgen(method)]
    fn count(this: &Workers) -> u32;
    #[wasm_bindgen(method)]
    fn room(this: &Workers) -> u32;
    #[wasm_bindgen(method, catch)]
    fn send(this: &Workers, helper: u32, head: &[u8], body: &[u8]) -> Result<(), JsValue>;
    #[wasm_bindgen(method, catch)]
    fn receive(this: &Workers, helper: u32, reply: &mut [u8]) -> Result<(), JsValue>;
}

thread_local! {
    /// The page's object: a JavaScript value may not leave its thread. The engine has only one.
    static WORKERS: RefCell<Option<Workers>> = const { RefCell::new(None) };
}

/// Lets engines on the CPU that are opened afterwards use these helpers. Returns false if there were some already.
#[wasm_bindgen(js_name = useHelpers)]
pub fn use_helpers(workers: Workers) -> bool {
    if WORKERS.with_borrow(Option::is_some) {
        return false;
    }
    let page = OfPage { count: workers.count() as usize, room: workers.room() as usize };
    WORKERS.set(Some(workers));
    register(Box::new(page))
}

/// The helpers of [`WORKERS`]; their numbers do not change.
struct OfPage {
    count: usize,
    room: usize,
}

impl Helpers for OfPage {
    fn count(&self) -> usize {
        self.count
    }

    fn room(&self) -> usize {
        self.room
    }

    fn send(&self, helper: usize, head: &[u8], body: &[u8]) -> Result<(), String> {
        call(|workers| workers.send(helper as u32, head, body))
    }

    fn receive(&self, helper: usize, reply: &mut [u8]) -> Result<(), String> {
        call(|workers| workers.receive(helper as u32, reply))
    }
}

/// Calls a method of the page's object.
fn call(method: impl FnOnce(&Workers) -> Result<(), JsValue>) -> Result<(), String> {
    WORKERS.with_borrow(|workers| {
        let workers = workers.as_ref().ok_or("helpers: expected those of this thread, got none")?;
        method(workers).map_err(|why| thrown(&why))
    })
}

/// What a helper's worker holds.
#[wasm_bindgen]
#[derive(Default)]
pub struct Helper {
    helper: helpers::Helper,
}

#[wasm_bindgen]
impl Helper {
    /// A helper without weights.
    #[wasm_bindgen(constructor)]
    pub fn new() -> Helper {
        Helper::default()
    }

    /// Answers a request.
    ///
    /// # Errors
    /// Throws an `Error` that has a `code`.
    pub fn serve(&mut self, request: &[u8]) -> Result<Vec<u8>, JsValue> {
        self.helper.serve(request).map_err(failure)
    }
}
