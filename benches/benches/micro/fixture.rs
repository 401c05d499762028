//! Keys and values, made before anything is measured.

use std::cell::LazyCell;

use siltstone_benches::data::Dataset;
use tempfile::TempDir;

/// Bytes of a key.
pub const KEY_BYTES: usize = 16;

/// Bytes of a value, if not said otherwise.
pub const VALUE_BYTES: usize = 100;

/// A key, in place: an array of them is read without a cache miss a key.
pub type Key = [u8; KEY_BYTES];

/// Random keys in key order, and values that compress to about a half.
pub struct Entries {
    data: Dataset,
    pub keys: Vec<Key>,
    values: Vec<u8>,
}

impl Entries {
    /// `count` entries, always the same.
    pub fn new(count: u64) -> Self {
        let data = Dataset::new(count, KEY_BYTES, VALUE_BYTES, 42).expect("the sizes are within their bounds");
        let mut scratch = Vec::new();
        let mut values = Vec::with_capacity(count as usize * VALUE_BYTES);
        for id in 0..count {
            data.value(id, 1, &mut scratch);
            values.extend_from_slice(&scratch);
        }
        let keys = (0..count).map(|id| key(&mut scratch, |out| data.key(id, out))).collect();
        Entries { data, keys, values }
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        self.keys.len() as u64
    }

    /// The value of the entry at `at` in key order.
    #[inline]
    pub fn value(&self, at: usize) -> &[u8] {
        &self.values[at * VALUE_BYTES..(at + 1) * VALUE_BYTES]
    }

    /// All entries in key order.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &[u8])> {
        self.keys.iter().zip(self.values.chunks_exact(VALUE_BYTES))
    }

    /// All positions, in random order.
    pub fn shuffled(&self) -> Vec<usize> {
        let order = self.data.order(1);
        (0..self.len()).map(|position| order.at(position) as usize).collect()
    }

    /// All keys, in random order.
    pub fn present(&self) -> Vec<Key> {
        self.shuffled().into_iter().map(|at| self.keys[at]).collect()
    }

    /// As many keys that are none of them and lie between them, in random order.
    pub fn absent(&self) -> Vec<Key> {
        let mut scratch = Vec::new();
        let ids = self.shuffled().into_iter();
        ids.map(|id| key(&mut scratch, |out| self.data.missing_key(id as u64, out))).collect()
    }
}

fn key(scratch: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> Key {
    write(scratch);
    scratch.as_slice().try_into().expect("the data set's keys have this length")
}

/// Goes round and round through a list.
pub struct Cycle<'a, T> {
    all: &'a [T],
    at: usize,
}

impl<'a, T> Cycle<'a, T> {
    /// Begins with the first of `all`, which is not empty.
    pub fn new(all: &'a [T]) -> Self {
        assert!(!all.is_empty());
        Cycle { all, at: 0 }
    }

    /// The next one.
    #[inline]
    pub fn next(&mut self) -> &'a T {
        let item = &self.all[self.at];
        self.at = if self.at + 1 == self.all.len() { 0 } else { self.at + 1 };
        item
    }
}

/// What is made when it is first needed, so that a filter on the command line also saves the making.
pub type Lazy<'m, T> = LazyCell<T, Box<dyn FnOnce() -> T + 'm>>;

/// Makes a value when it is first needed.
pub fn lazy<'m, T>(make: impl FnOnce() -> T + 'm) -> Lazy<'m, T> {
    LazyCell::new(Box::new(make))
}

/// A directory for one benchmark, removed with what is dropped.
pub fn directory() -> TempDir {
    tempfile::Builder::new().prefix("siltstone-micro").tempdir().expect("a temporary directory")
}
