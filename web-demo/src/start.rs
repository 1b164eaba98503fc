//! Runs once when the module is loaded.

use wasm_bindgen::prelude::*;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = console, js_name = error)]
    fn console_error(text: &str);
}

// Runs the constructors of statics, in which the shader compiler registers its operations. If a module does not call this
// function itself, the linker calls it at the start of every exported function, and each call registers everything again: whole
// runs then took forty seconds in Chromium instead of six.
#[expect(unsafe_code, reason = "only the linker provides this function")]
mod constructors {
    unsafe extern "C" {
        fn __wasm_call_ctors();
    }

    /// Runs them. Must be called once, before anything else.
    pub fn run() {
        // SAFETY: the linker provides it, without arguments; it is called once, before anything uses the registrations.
        unsafe { __wasm_call_ctors() }
    }
}

#[wasm_bindgen(start)]
fn start() {
    constructors::run();
    // A panic traps the module without a message, so the message goes to the console.
    std::panic::set_hook(Box::new(|panic| console_error(&panic.to_string())));
}
