//! Lets a worker receive messages while the engine computes.
//!
//! The engine yields between its steps, but only to promises, and a worker receives no message (such as "stop") while promises
//! follow each other. So the run regularly sends itself a message and waits for it: earlier messages are then received first.

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

/// Longest time between two waits for messages, if the engine has enough steps.
const LONGEST: Duration = Duration::from_millis(12);

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

/// Runs `work` to its end, and lets the worker receive messages meanwhile. Not with a timer: browsers delay it by at least four
/// milliseconds.
pub async fn receiving<T>(work: impl Future<Output = T>) -> T {
    let channel = MessageChannel::new();
    let (from, to) = (channel.port1(), channel.port2());
    let mut work = pin!(work);
    let mut message: Option<JsFuture> = None;
    let mut last = Instant::now();
    let done = poll_fn(|context| {
        if let Some(coming) = &mut message {
            // Never rejected.
            let _ = ready!(Pin::new(coming).poll(context));
            message = None;
            last = Instant::now();
        }
        let polled = work.as_mut().poll(context);
        if polled.is_pending() && last.elapsed() > LONGEST {
            // The next poll waits for this message.
            message = Some(sent(&from, &to));
        }
        polled
    })
    .await;
    from.close();
    done
}

/// Sends a message from one port to the other; the future ends when it arrives.
fn sent(from: &MessagePort, to: &MessagePort) -> JsFuture {
    let arrived = Promise::new(&mut |resolve, _| to.set_onmessage(&resolve));
    from.post_message(&JsValue::NULL);
    JsFuture::from(arrived)
}
