//! Reads the clipboard.

use std::time::{Duration, Instant};

use x11rb::{
    CURRENT_TIME, NONE,
    connection::Connection,
    protocol::{
        Event,
        xproto::{AtomEnum, ConnectionExt as _},
    },
};

use crate::{Outcome, hands::Hands};

/// The clipboard's text; None if no window provides it within `milliseconds`.
pub fn text(hands: &Hands, milliseconds: u64) -> Outcome<Option<String>> {
    let (clipboard, kind, place) = (hands.atom("CLIPBOARD")?, hands.atom("UTF8_STRING")?, hands.atom("FOVEA_TEST")?);
    hands.x.convert_selection(hands.own, clipboard, kind, place, CURRENT_TIME)?;
    hands.x.flush()?;
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(milliseconds) {
        match hands.x.poll_for_event()? {
            Some(Event::SelectionNotify(answer)) if answer.property == NONE => return Ok(None),
            Some(Event::SelectionNotify(_)) => {
                let property = hands.x.get_property(true, hands.own, place, AtomEnum::ANY, 0, 1 << 20)?.reply()?;
                return Ok(Some(String::from_utf8(property.value)?));
            }
            Some(_) => {}
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    }
    Ok(None)
}
