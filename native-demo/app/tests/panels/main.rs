//! Every panel and state of the window, without a window: what can be clicked does what it says, and looks as it did when
//! it was looked at (`native-demo/app/tests/snapshots`; `UPDATE_SNAPSHOTS=1` draws them anew).

mod played;
mod states;
mod talk;
