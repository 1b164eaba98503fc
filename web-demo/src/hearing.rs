//! Lets a worker hear what it is told while the engine computes.
//!
//! Between its steps the engine lets others run, but by promises alone, and while promise follows promise a worker hears
//! no message: not even the one to stop. So now and then a run waits for a message of its own, and what was sent before
//! it is heard first.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    task::ready,
    time::Duration,
};

use js_sys::{Function, Promise};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_time::Instant;

/// How long a worker hears nothing, where the engine has that many steps.
const DEAF: Duration = Duration::from_millis(12);

#[wasm_bindgen]
extern "C" {
    type MessageChannel;
    #[wasm_bindgen(constructor)]
    fn new() -> MessageChannel;
    #[wasm_bindgen(method, getter)]
    fn port1(this: &MessageChannel) -> MessagePort;
    #[wasm_bindgen(method, getter)]
    fn port2(this: &MessageChannel) -> MessagePort;

    type MessagePort;
    #[wasm_bindgen(method, setter)]
    fn set_onmessage(this: &MessagePort, listener: &Function);
    #[wasm_bindgen(method, js_name = postMessage)]
    fn post_message(this: &MessagePort, message: &JsValue);
    #[wasm_bindgen(method)]
    fn close(this: &MessagePort);
}

/// Runs `work` to its end, and hears messages meanwhile. A timer would do as well, but browsers let it wait for four
/// milliseconds.
pub async fn hearing<T>(work: impl Future<Output = T>) -> T {
    let channel = MessageChannel::new();
    let (from, to) = (channel.port1(), channel.port2());
    let mut work = pin!(work);
    let mut message: Option<JsFuture> = None;
    let mut heard = Instant::now();
    let done = poll_fn(|context| {
        if let Some(coming) = &mut message {
            // It comes: nothing rejects it.
            let _ = ready!(Pin::new(coming).poll(context));
            message = None;
            heard = Instant::now();
        }
        let polled = work.as_mut().poll(context);
        if polled.is_pending() && heard.elapsed() > DEAF {
            // Whatever wakes this task next finds that it has to wait for the message.
            message = Some(sent(&from, &to));
        }
        polled
    })
    .await;
    from.close();
    done
}

/// A message from one port to the other.
fn sent(from: &MessagePort, to: &MessagePort) -> JsFuture {
    let arrived = Promise::new(&mut |resolve, _| to.set_onmessage(&resolve));
    from.post_message(&JsValue::NULL);
    JsFuture::from(arrived)
}
