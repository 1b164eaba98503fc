//! Input: files that JavaScript holds. Output: their names and contents. Small files are copied; a checkpoint's files are read by
//! range, so that no whole file is in wasm memory, which is limited to 4 GiB.

use std::{borrow::Cow, io};

use fovea_runtime::source::{ReadAt, Reading};
use js_sys::{Array, Function, Map, Promise, Uint8Array};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

use crate::failure::{sentence, thrown};

/// The largest integer that JavaScript represents exactly (`Number.MAX_SAFE_INTEGER`).
const MAX_SAFE: f64 = 9_007_199_254_740_991.0;

/// Values by file name.
type Named<T> = Vec<(String, T)>;

/// Copies the files of a Map of names to Uint8Arrays.
///
/// # Errors
/// A sentence if the map has other entries.
pub fn copied(files: &Map) -> Result<Named<Cow<'static, [u8]>>, JsValue> {
    entries(files, "Uint8Arrays", |_, bytes| Some(Cow::Owned(bytes.dyn_into::<Uint8Array>().ok()?.to_vec())))
}

/// Files from a Map of names to sizes in bytes. `read(name, offset, length)` returns a promise of a Uint8Array of that length.
///
/// # Errors
/// A sentence if the map has other entries.
pub fn ranged(sizes: &Map, read: &Function) -> Result<Named<Box<dyn ReadAt>>, JsValue> {
    entries(sizes, "sizes in bytes", |name, size| {
        let file = RangedFile { name: name.to_owned(), len: whole(size.as_f64()?)?, read: read.clone() };
        Some(Box::new(file) as Box<dyn ReadAt>)
    })
}

/// Converts each entry of a map with `value`.
fn entries<T>(map: &Map, of: &str, value: impl Fn(&str, JsValue) -> Option<T>) -> Result<Named<T>, JsValue> {
    let unlike = || sentence(format!("expected a Map of names to {of}, got other entries"));
    let mut found = Vec::new();
    for entry in map.entries() {
        let entry = Array::from(&entry?);
        let name = entry.get(0).as_string().ok_or_else(unlike)?;
        let value = value(&name, entry.get(1)).ok_or_else(unlike)?;
        found.push((name, value));
    }
    Ok(found)
}

/// A JavaScript number as a count of bytes; None if it is not one.
fn whole(number: f64) -> Option<u64> {
    (number.fract() == 0.0 && (0.0..=MAX_SAFE).contains(&number)).then_some(number as u64)
}

struct RangedFile {
    name: String,
    len: u64,
    read: Function,
}

impl ReadAt for RangedFile {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at<'a>(&'a self, offset: u64, into: &'a mut [u8]) -> Reading<'a> {
        Box::pin(async move {
            let expected = into.len();
            let failed =
                |why: String| io::Error::other(format!("expected {expected} bytes from byte {offset}, got {why}"));
            let thrown = |why: JsValue| failed(thrown(&why));
            // Both are at most the file's size, which came from a JavaScript number.
            let (from, length) = (JsValue::from(offset as f64), JsValue::from(expected as f64));
            let reading = self.read.call3(&JsValue::NULL, &JsValue::from_str(&self.name), &from, &length);
            let read = JsFuture::from(Promise::resolve(&reading.map_err(thrown)?)).await.map_err(thrown)?;
            let bytes = read.dyn_into::<Uint8Array>().map_err(|_| failed("no Uint8Array".to_owned()))?;
            if bytes.length() as usize != expected {
                return Err(failed(format!("{}", bytes.length())));
            }
            bytes.copy_to(into);
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_an_exact_integer() {
        assert_eq!((whole(0.0), whole(7e9)), (Some(0), Some(7_000_000_000)));
        assert_eq!(whole(MAX_SAFE), Some((1 << 53) - 1));
        for none in [-1.0, 0.5, MAX_SAFE + 1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(whole(none), None, "{none}");
        }
    }
}
