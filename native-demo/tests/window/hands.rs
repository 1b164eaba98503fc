//! Simulates a keyboard and a window manager.

use std::time::Duration;

use x11rb::{
    CURRENT_TIME,
    connection::Connection,
    protocol::{
        xproto::{
            Atom, AtomEnum, ClientMessageEvent, ConnectionExt as _, CreateWindowAux, EventMask, InputFocus,
            KEY_PRESS_EVENT, KEY_RELEASE_EVENT, MapState, Window, WindowClass,
        },
        xtest::ConnectionExt as _,
    },
    rust_connection::RustConnection,
};

use crate::{Outcome, screen::Screen};

/// Enter. Keysyms are defined in X11's keysymdef.h; the keysym of an ASCII character is its code.
pub const ENTER: u32 = 0xff0d;
/// Escape.
pub const ESCAPE: u32 = 0xff1b;
/// Left Control.
pub const CONTROL: u32 = 0xffe3;
/// Left Shift.
pub const SHIFT: u32 = 0xffe1;

/// A connection to the screen, with a small window that owns selections.
pub struct Hands {
    pub x: RustConnection,
    pub root: Window,
    pub own: Window,
    /// Keysym, its keycode, and whether it needs Shift.
    keys: Vec<(u32, u8, bool)>,
}

impl Hands {
    /// Connects.
    pub fn on(screen: &Screen) -> Outcome<Self> {
        let (x, number) = RustConnection::connect(Some(screen.name()))?;
        let setup = x.setup();
        let (root, visual) = (setup.roots[number].root, setup.roots[number].root_visual);
        let (first, last) = (setup.min_keycode, setup.max_keycode);
        let own = x.generate_id()?;
        let aux = CreateWindowAux::new().event_mask(EventMask::PROPERTY_CHANGE);
        x.create_window(0, own, root, 0, 0, 1, 1, 0, WindowClass::INPUT_OUTPUT, visual, &aux)?;
        let map = x.get_keyboard_mapping(first, last - first + 1)?.reply()?;
        let columns = usize::from(map.keysyms_per_keycode);
        let keys = (first..=last).zip(map.keysyms.chunks(columns)).flat_map(|(code, symbols)| {
            symbols.iter().take(2).enumerate().map(move |(column, symbol)| (*symbol, code, column == 1))
        });
        let keys = keys.collect();
        x.flush()?;
        Ok(Self { x, root, own, keys })
    }

    /// An atom by its name.
    pub fn atom(&self, name: &str) -> Outcome<Atom> {
        Ok(self.x.intern_atom(false, name.as_bytes())?.reply()?.atom)
    }

    /// The window with this title, if it is visible.
    pub fn window(&self, title: &str) -> Outcome<Option<Window>> {
        let name = self.atom("_NET_WM_NAME")?;
        for window in self.x.query_tree(self.root)?.reply()?.children {
            let property = self.x.get_property(false, window, name, AtomEnum::ANY, 0, 256)?.reply();
            // The window may have been closed since the query.
            let seen = self.x.get_window_attributes(window)?.reply().is_ok_and(|a| a.map_state == MapState::VIEWABLE);
            if seen && property.is_ok_and(|property| property.value == title.as_bytes()) {
                return Ok(Some(window));
            }
        }
        Ok(None)
    }

    /// Gives a window the keyboard focus.
    pub fn focus(&self, window: Window) -> Outcome<()> {
        self.x.set_input_focus(InputFocus::POINTER_ROOT, window, CURRENT_TIME)?.check()?;
        Ok(())
    }

    /// Types an ASCII text.
    pub fn type_text(&self, text: &str) -> Outcome<()> {
        text.chars().try_for_each(|c| self.press(&[u32::from(c)]))
    }

    /// Presses keys in this order, and releases them in reverse order.
    pub fn press(&self, symbols: &[u32]) -> Outcome<()> {
        let mut codes = Vec::new();
        for symbol in symbols {
            let found = self.keys.iter().find(|(known, ..)| known == symbol);
            let (_, code, shifted) = found.ok_or_else(|| format!("expected a key for keysym {symbol:#x}"))?;
            if *shifted {
                codes.extend(self.keys.iter().find(|(known, ..)| *known == SHIFT).map(|key| key.1));
            }
            codes.push(*code);
        }
        for &code in &codes {
            self.x.xtest_fake_input(KEY_PRESS_EVENT, code, CURRENT_TIME, self.root, 0, 0, 0)?;
        }
        for &code in codes.iter().rev() {
            self.x.xtest_fake_input(KEY_RELEASE_EVENT, code, CURRENT_TIME, self.root, 0, 0, 0)?;
        }
        self.x.flush()?;
        std::thread::sleep(Duration::from_millis(4));
        Ok(())
    }

    /// Sends a window a client message with five values.
    pub fn message(&self, window: Window, kind: &str, words: [u32; 5]) -> Outcome<()> {
        let event = ClientMessageEvent::new(32, window, self.atom(kind)?, words);
        self.x.send_event(false, window, EventMask::NO_EVENT, event)?;
        self.x.flush()?;
        Ok(())
    }

    /// Closes a window as the close button of its frame does.
    pub fn close(&self, window: Window) -> Outcome<()> {
        let delete = self.atom("WM_DELETE_WINDOW")?;
        self.message(window, "WM_PROTOCOLS", [delete, CURRENT_TIME, 0, 0, 0])
    }
}
