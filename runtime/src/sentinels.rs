//! Buffers that notice when something is written beside them, for the conformance suite.
//!
//! Between [`begin`] and [`check`], every buffer that the kernels' launcher allocates on this thread lies between two
//! stretches of sentinels, and is filled with numbers that are none, so that an element which a kernel forgets is seen.

use std::cell::RefCell;

use burn_cubecl::cubecl::{client::Client, server::Handle};

use crate::{Error, device::lost};

/// Bytes of one stretch: a multiple of every offset's alignment that WebGPU allows.
const STRETCH: usize = 256;
/// What lies in it.
const SENTINEL: u8 = 0xa5;
/// What lies between them before a kernel writes: NaN in f32 and in f16.
const UNWRITTEN: u8 = 0xff;

struct Guarded {
    client: Client,
    whole: Handle,
    bytes: usize,
}

thread_local! {
    static GUARDED: RefCell<Option<Vec<Guarded>>> = const { RefCell::new(None) };
}

/// From now on buffers lie between sentinels, on this thread.
pub fn begin() {
    GUARDED.with_borrow_mut(|guarded| *guarded = Some(Vec::new()));
}

/// A buffer of `bytes` between sentinels; None where nobody asked for it.
pub(crate) fn allocate(client: &Client, bytes: usize) -> Option<Handle> {
    GUARDED.with_borrow_mut(|guarded| {
        let guarded = guarded.as_mut()?;
        // The second stretch begins where a copy may begin.
        let room = bytes.next_multiple_of(4);
        let mut content = vec![SENTINEL; STRETCH + room + STRETCH];
        content[STRETCH..STRETCH + bytes].fill(UNWRITTEN);
        let whole = client.create_from_slice(&content);
        guarded.push(Guarded { client: client.clone(), whole: whole.clone(), bytes });
        Some(whole.offset_start(STRETCH as u64).offset_end((room - bytes + STRETCH) as u64))
    })
}

/// Ends it: how many buffers lay between sentinels.
///
/// # Errors
/// [`Error::Sentinel`] where one was overwritten, [`Error::DeviceLost`].
pub async fn check() -> Result<usize, Error> {
    let guarded = GUARDED.with_borrow_mut(Option::take).unwrap_or_default();
    let count = guarded.len();
    let Some(client) = guarded.first().map(|first| first.client.clone()) else { return Ok(0) };
    // One round trip for all of them.
    let read = client.read_async(guarded.iter().map(|g| g.whole.clone()).collect()).await.map_err(lost)?;
    for (buffer, (content, Guarded { bytes, .. })) in read.iter().zip(guarded).enumerate() {
        let beside = |at: usize| !(STRETCH..STRETCH + bytes).contains(&at);
        if let Some(at) = (0..content.len()).find(|&at| beside(at) && content[at] != SENTINEL) {
            return Err(Error::Sentinel { buffer, bytes, at: at as i64 - STRETCH as i64 });
        }
    }
    Ok(count)
}
