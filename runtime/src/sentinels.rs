//! Sentinels around the buffers of kernels: they detect writes outside a buffer. Only the conformance suite uses them.
//!
//! Between [`begin_sentinels`] and [`check_sentinels`], each buffer that `launch` allocates on this
//! thread has sentinel bytes before and after it. It is filled with NaN, so that an element that a kernel forgets is
//! detected.

use std::cell::RefCell;

use burn_cubecl::cubecl::{client::Client, server::Handle};

use crate::{
    error::Error,
    read::{lost, to_the_end},
};

/// Bytes of sentinels on each side: a multiple of each offset alignment that WebGPU allows.
const MARGIN: usize = 256;
/// The value of a sentinel.
const SENTINEL: u8 = 0xa5;
/// The value of a byte that no kernel has written: NaN in f32 and in f16.
const UNWRITTEN: u8 = 0xff;

struct Guarded {
    client: Client,
    whole: Handle,
    bytes: usize,
}

thread_local! {
    static GUARDED: RefCell<Option<Vec<Guarded>>> = const { RefCell::new(None) };
}

/// From now on each new buffer on this thread has sentinels.
pub fn begin_sentinels() {
    GUARDED.with_borrow_mut(|guarded| *guarded = Some(Vec::new()));
}

/// A buffer of `bytes` between sentinels; None where sentinels are off.
pub(crate) fn allocate(client: &Client, bytes: usize) -> Option<Handle> {
    GUARDED.with_borrow_mut(|guarded| {
        let guarded = guarded.as_mut()?;
        // The second margin starts at an offset at which a copy may start.
        let room = bytes.next_multiple_of(4);
        let mut content = vec![SENTINEL; MARGIN + room + MARGIN];
        content[MARGIN..MARGIN + bytes].fill(UNWRITTEN);
        let whole = client.create_from_slice(&content);
        guarded.push(Guarded { client: client.clone(), whole: whole.clone(), bytes });
        Some(whole.offset_start(MARGIN as u64).offset_end((room - bytes + MARGIN) as u64))
    })
}

/// Turns sentinels off, and checks those of all buffers since [`begin_sentinels`]. Returns the number of buffers.
///
/// # Errors
/// [`Error::Sentinel`] where a sentinel was overwritten; [`Error::DeviceLost`].
pub async fn check_sentinels() -> Result<usize, Error> {
    let guarded = GUARDED.with_borrow_mut(Option::take).unwrap_or_default();
    let count = guarded.len();
    let Some(client) = guarded.first().map(|first| first.client.clone()) else { return Ok(0) };
    // One round trip for all buffers.
    let handles = guarded.iter().map(|g| g.whole.clone()).collect();
    let read = to_the_end(async move { client.read_async(handles).await }).await.map_err(lost)?;
    for (buffer, (content, Guarded { bytes, .. })) in read.iter().zip(guarded).enumerate() {
        let outside = |at: usize| !(MARGIN..MARGIN + bytes).contains(&at);
        if let Some(at) = (0..content.len()).find(|&at| outside(at) && content[at] != SENTINEL) {
            return Err(Error::Sentinel { buffer, bytes, at: at as i64 - MARGIN as i64 });
        }
    }
    Ok(count)
}
