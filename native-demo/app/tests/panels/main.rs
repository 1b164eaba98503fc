//! All panels and states of the window, without a display: buttons do what their labels say, and the pictures equal the
//! snapshots in `native-demo/app/tests/snapshots` (`UPDATE_SNAPSHOTS=1` regenerates them).

mod played;
mod states;
mod talk;
