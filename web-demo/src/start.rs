//! What happens once, when the module is loaded.

use wasm_bindgen::prelude::*;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = console, js_name = error)]
    fn console_error(text: &str);
}

// Constructors of statics: the shader compiler registers its operations in them. A module that does not name this function
// itself gets a call of it from the linker in every function that JavaScript can call, and each one adds all
// registrations again: whole runs that take six seconds in Chromium then took forty.
#[allow(unsafe_code)]
mod constructors {
    unsafe extern "C" {
        fn __wasm_call_ctors();
    }

    pub fn run() {
        // SAFETY: made by the linker, without arguments; called once, before anything uses what it registers.
        unsafe { __wasm_call_ctors() }
    }
}

#[wasm_bindgen(start)]
fn start() {
    constructors::run();
    // A panic ends the module; this is the only way to learn why.
    std::panic::set_hook(Box::new(|panic| console_error(&panic.to_string())));
}
