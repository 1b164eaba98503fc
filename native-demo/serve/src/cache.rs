//! Conversations of earlier requests, so that a picture passes the vision tower once. Input: the files of a request.
//! Output: its key, and the conversation with this key, if it is kept.
//!
//! The key is made of the decoded pixels, not of the files: the same pixels in another file give the same features. A small
//! table maps the hash of a file to the hash of its pixels, so that a known file is not decoded again.
//!
//! Callers do not share conversations: the time of an answer and its number of cached tokens would show what another caller
//! has sent. They share the table of files, which saves only the decoding of a picture.

use std::collections::{HashMap, VecDeque};

use fovea_model::Picture;
use sha2::{Digest, Sha256};

/// A SHA-256.
pub type Hash = [u8; 32];

/// Most conversations, whatever their bytes: those about no picture are small.
const MOST_ENTRIES: usize = 1024;
/// Most files whose pixels' hash is known.
const MOST_FILES: usize = 4096;

/// What two requests must have in common to share a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The caller: no one learns from times or counts what another one has sent.
    pub caller: String,
    /// One hash per picture, in order.
    pub pictures: Vec<Hash>,
    /// The spelling of the compression.
    pub compression: String,
}

/// The hash of a file.
pub fn hash_of_file(bytes: &[u8]) -> Hash {
    Sha256::digest(bytes).into()
}

/// The hash of a picture's size and pixels.
pub fn hash_of_pixels(picture: &Picture) -> Hash {
    let size = [picture.width() as u64, picture.height() as u64].map(u64::to_le_bytes);
    Sha256::new().chain_update(size.as_flattened()).chain_update(picture.rgb()).finalize().into()
}

/// The hashes of the pixels of known files.
#[derive(Default)]
pub struct Files {
    pixels: HashMap<Hash, Hash>,
    /// The oldest comes first.
    order: VecDeque<Hash>,
}

impl Files {
    /// The hash of the pixels of a file.
    pub fn pixels(&self, file: &Hash) -> Option<Hash> {
        self.pixels.get(file).copied()
    }

    /// Adds a file; the oldest one is removed where there are too many.
    pub fn add(&mut self, file: Hash, pixels: Hash) {
        if self.pixels.insert(file, pixels).is_none() {
            self.order.push_back(file);
        }
        if self.order.len() > MOST_FILES
            && let Some(oldest) = self.order.pop_front()
        {
            self.pixels.remove(&oldest);
        }
    }
}

/// An entry of the cache.
struct Entry<T> {
    key: Key,
    value: T,
    bytes: u64,
}

/// Values by key, at most `limit` bytes of them. The least recently used one is dropped first.
pub struct Cache<T> {
    limit: u64,
    bytes: u64,
    /// The least recently used comes first.
    entries: VecDeque<Entry<T>>,
}

impl<T> Cache<T> {
    /// An empty cache. A limit of 0 keeps nothing.
    pub fn new(limit: u64) -> Self {
        Self { limit, bytes: 0, entries: VecDeque::new() }
    }

    /// Removes the value of `key`, to use it. [`Cache::put`] brings it back.
    pub fn take(&mut self, key: &Key) -> Option<T> {
        let at = self.entries.iter().position(|entry| entry.key == *key)?;
        let Entry { value, bytes, .. } = self.entries.remove(at)?;
        self.bytes -= bytes;
        Some(value)
    }

    /// Keeps a value of `bytes` bytes as the most recently used one, and returns the values that are dropped for it: those
    /// that were not used for the longest time, or `value` itself if it is larger than the limit.
    pub fn put(&mut self, key: Key, value: T, bytes: u64) -> Vec<T> {
        if self.limit == 0 || bytes > self.limit {
            return vec![value];
        }
        let mut dropped: Vec<T> = self.take(&key).into_iter().collect();
        while self.bytes + bytes > self.limit || self.entries.len() >= MOST_ENTRIES {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.bytes -= oldest.bytes;
            dropped.push(oldest.value);
        }
        self.bytes += bytes;
        self.entries.push_back(Entry { key, value, bytes });
        dropped
    }

    /// Removes and returns all values.
    pub fn clear(&mut self) -> Vec<T> {
        self.bytes = 0;
        std::mem::take(&mut self.entries).into_iter().map(|entry| entry.value).collect()
    }

    /// The sum of the bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(picture: u8) -> Key {
        Key { caller: "a".into(), pictures: vec![[picture; 32]], compression: "focus".into() }
    }

    #[test]
    fn the_least_recently_used_value_is_dropped_first() {
        let mut cache = Cache::<u8>::new(30);
        for picture in [1, 2, 3] {
            assert!(cache.put(key(picture), picture, 10).is_empty());
        }
        assert_eq!(cache.take(&key(1)), Some(1), "(got, expected)");
        assert!(cache.put(key(1), 1, 10).is_empty());
        assert_eq!(cache.put(key(4), 4, 15), [2, 3], "dropped (got, expected)");
        assert_eq!((cache.len(), cache.bytes()), (2, 25), "(got, expected)");
        assert_eq!((cache.take(&key(2)), cache.take(&key(4))), (None, Some(4)), "(got, expected)");
    }

    #[test]
    fn a_value_that_grows_counts_with_its_new_size() {
        let mut cache = Cache::<u8>::new(30);
        cache.put(key(1), 1, 10);
        cache.put(key(2), 2, 10);
        let grown = cache.take(&key(2)).expect("kept");
        assert_eq!(cache.put(key(2), grown, 25), [1], "dropped (got, expected)");
        assert_eq!(cache.bytes(), 25, "bytes (got, expected)");
        // The same key twice is one value.
        assert_eq!(cache.put(key(2), 9, 5), [2], "dropped (got, expected)");
        assert_eq!((cache.len(), cache.bytes()), (1, 5), "(got, expected)");
    }

    #[test]
    fn a_value_that_is_too_large_is_not_kept_and_the_others_are() {
        let mut cache = Cache::<u8>::new(30);
        cache.put(key(1), 1, 30);
        assert_eq!(cache.put(key(2), 2, 31), [2], "dropped (got, expected)");
        assert_eq!(cache.len(), 1, "(got, expected)");
        let mut none = Cache::<u8>::new(0);
        assert_eq!(none.put(key(1), 1, 0), [1], "dropped (got, expected)");
    }

    #[test]
    fn the_number_of_values_is_limited() {
        let mut cache = Cache::<usize>::new(u64::MAX);
        for at in 0..MOST_ENTRIES + 5 {
            cache.put(Key { pictures: Vec::new(), compression: at.to_string(), ..key(0) }, at, 0);
        }
        assert_eq!(cache.len(), MOST_ENTRIES, "(got, expected)");
        assert_eq!(cache.clear().len(), MOST_ENTRIES, "(got, expected)");
        assert!(cache.is_empty() && cache.bytes() == 0);
    }

    #[test]
    fn keys_differ_by_caller_order_pixels_size_and_compression() {
        let picture = |width, height, value| {
            let rgb = vec![value; width * height * 3];
            hash_of_pixels(&Picture::from_rgb(width, height, rgb).expect("a picture"))
        };
        assert_eq!(picture(2, 3, 7), picture(2, 3, 7));
        assert_ne!(picture(2, 3, 7), picture(3, 2, 7), "the same bytes in another size");
        assert_ne!(picture(2, 3, 7), picture(2, 3, 8));
        let both = Key { pictures: vec![[1; 32], [2; 32]], ..key(1) };
        let mut turned = both.clone();
        turned.pictures.reverse();
        assert_ne!(both, turned);
        assert_ne!(key(1), Key { compression: "none".into(), ..key(1) });
        assert_ne!(key(1), Key { caller: "b".into(), ..key(1) });
        // By sha256sum.
        assert_eq!(hash_of_file(b"abc")[..4], [0xba, 0x78, 0x16, 0xbf], "(got, expected)");
    }

    #[test]
    fn the_number_of_known_files_is_limited() {
        let mut files = Files::default();
        let hash = |at: usize| hash_of_file(&at.to_le_bytes());
        for at in 0..MOST_FILES + 1 {
            files.add(hash(at), hash(at + 1));
        }
        files.add(hash(5), hash(6));
        assert_eq!((files.pixels(&hash(0)), files.pixels(&hash(5))), (None, Some(hash(6))), "(got, expected)");
        assert_eq!(files.pixels.len(), MOST_FILES, "(got, expected)");
    }
}
