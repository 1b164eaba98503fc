//! Drags a file onto a window: the source's side of XDND, version 5 (freedesktop.org's "Drag-and-Drop Protocol for the
//! X Window System").

use std::path::Path;

use x11rb::{
    CURRENT_TIME,
    connection::Connection,
    protocol::{
        Event,
        xproto::{ConnectionExt as _, EventMask, PropMode, SELECTION_NOTIFY_EVENT, SelectionNotifyEvent, Window},
    },
    wrapper::ConnectionExt as _,
};

use crate::{Outcome, hands::Hands, until};

/// Drags `path` from the test's own window to the middle of `target`, and drops it.
pub fn file(hands: &Hands, target: Window, path: &Path) -> Outcome<()> {
    let uri = format!("file://{}\r\n", path.to_str().ok_or("expected a path in UTF-8")?);
    let (selection, list) = (hands.atom("XdndSelection")?, hands.atom("text/uri-list")?);
    let (copy, status, finished) =
        (hands.atom("XdndActionCopy")?, hands.atom("XdndStatus")?, hands.atom("XdndFinished")?);
    hands.x.set_selection_owner(hands.own, selection, CURRENT_TIME)?.check()?;
    let size = hands.x.get_geometry(target)?.reply()?;
    let at =
        hands.x.translate_coordinates(target, hands.root, size.width as i16 / 2, size.height as i16 / 2)?.reply()?;
    let place = (at.dst_x as u32) << 16 | at.dst_y as u32;
    hands.message(target, "XdndEnter", [hands.own, 5 << 24, list, 0, 0])?;
    hands.message(target, "XdndPosition", [hands.own, 0, place, CURRENT_TIME, copy])?;
    let mut dropped = false;
    until("the file to be accepted", 60, || {
        match hands.x.poll_for_event()? {
            // The target reads the dragged data.
            Some(Event::SelectionRequest(ask)) => {
                hands.x.change_property8(PropMode::REPLACE, ask.requestor, ask.property, list, uri.as_bytes())?;
                let answer = SelectionNotifyEvent {
                    response_type: SELECTION_NOTIFY_EVENT,
                    sequence: 0,
                    time: ask.time,
                    requestor: ask.requestor,
                    selection: ask.selection,
                    target: ask.target,
                    property: ask.property,
                };
                hands.x.send_event(false, ask.requestor, EventMask::NO_EVENT, answer)?;
                hands.x.flush()?;
            }
            Some(Event::ClientMessage(message)) if message.type_ == status && !dropped => {
                if message.data.as_data32()[1] & 1 == 0 {
                    return Err("expected the window to accept a dropped file, it refused".into());
                }
                dropped = true;
                hands.message(target, "XdndDrop", [hands.own, 0, CURRENT_TIME, 0, 0])?;
            }
            Some(Event::ClientMessage(message)) if message.type_ == finished => return Ok(Some(())),
            _ => {}
        }
        Ok(None)
    })
}
