//! [`Dataset`]: keys and values by number, and the check of what comes back.

use super::{GOLDEN, Permutation, mix, scale};
use crate::error::{Error, Result};

/// The shortest key: its first eight bytes place it.
pub const MIN_KEY_BYTES: usize = 8;

/// Keys and values, numbered `[0, keys)` in key order.
///
/// The 64-bit space of key prefixes is cut into `keys` equal strata; key `id` lies at a random place of stratum `id`,
/// and random bytes follow. So the keys look random, their order is known, and the answer of any scan can be checked
/// from its position alone. The last bit of a key says whether it is one that is written.
///
/// A value is eight-byte words that count up from a number mixed from key and version; its second half repeats the
/// first, so that compressors reach about one half.
///
/// ```
/// use siltstone_benches::data::Dataset;
/// let data = Dataset::new(1000, 16, 100, 42).unwrap();
/// let (mut first, mut second, mut value) = (Vec::new(), Vec::new(), Vec::new());
/// data.key(7, &mut first);
/// data.key(8, &mut second);
/// assert!(first < second);
/// data.value(7, 3, &mut value);
/// assert!(data.check(7, 3, &value).is_ok());
/// assert!(data.check(7, 4, &value).is_err());
/// ```
#[derive(Clone, Debug)]
pub struct Dataset {
    keys: u64,
    key_bytes: usize,
    value_bytes: usize,
    seed: u64,
    stratum: u64,
}

/// What an engine should hold at a time between two workloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The version of every value: 1 after the fill, one more after each overwrite.
    pub version: u64,
    /// Whether the [doomed](Dataset::is_doomed) half of the keys has been deleted.
    pub halved: bool,
}

impl Dataset {
    /// `keys` keys of `key_bytes` bytes (8 to 65,535) with values of `value_bytes` bytes (at most 1 GiB), all from
    /// `seed`.
    ///
    /// # Errors
    /// [`Error::Settings`] for a size out of bounds, or no key at all.
    pub fn new(keys: u64, key_bytes: usize, value_bytes: usize, seed: u64) -> Result<Self> {
        if !(MIN_KEY_BYTES..=siltstone::MAX_KEY_BYTES).contains(&key_bytes) {
            return Err(Error::Settings(format!("key bytes must be {MIN_KEY_BYTES} to {}", siltstone::MAX_KEY_BYTES)));
        }
        if value_bytes > siltstone::MAX_VALUE_BYTES {
            return Err(Error::Settings(format!("value bytes must be at most {}", siltstone::MAX_VALUE_BYTES)));
        }
        if !(1..=1 << 48).contains(&keys) {
            return Err(Error::Settings("there must be 1 to 2^48 keys".to_owned()));
        }
        // Even, so that the last bit of a prefix can be set without leaving the stratum.
        let stratum = (u64::MAX / keys) & !1;
        Ok(Dataset { keys, key_bytes, value_bytes, seed, stratum })
    }

    /// How many keys there are.
    pub fn keys(&self) -> u64 {
        self.keys
    }

    /// Key and value together, in bytes.
    pub fn entry_bytes(&self) -> u64 {
        (self.key_bytes + self.value_bytes) as u64
    }

    /// A random order of all keys, a different one for each `round`.
    pub fn order(&self, round: u64) -> Permutation {
        Permutation::new(self.keys, self.seed ^ mix(round))
    }

    /// The number of the `draw`-th random read, drawn with replacement; `stream` tells workloads apart.
    #[inline]
    pub fn random(&self, stream: u64, draw: u64) -> u64 {
        scale(mix(draw.wrapping_mul(GOLDEN) ^ mix(self.seed ^ stream)), self.keys)
    }

    /// Whether `deleterandom` deletes the key: true for half of them.
    #[inline]
    pub fn is_doomed(&self, id: u64) -> bool {
        mix(id ^ self.seed.rotate_left(32)) & 1 == 1
    }

    /// Writes key `id` into `out`.
    #[inline]
    pub fn key(&self, id: u64, out: &mut Vec<u8>) {
        self.place(id, mix(id ^ self.seed), 1, out);
    }

    /// Writes a key that is never written and lies beside key `id` into `out`.
    #[inline]
    pub fn missing_key(&self, id: u64, out: &mut Vec<u8>) {
        self.place(id, mix(id ^ !self.seed), 0, out);
    }

    #[inline]
    fn place(&self, id: u64, random: u64, present: u8, out: &mut Vec<u8>) {
        out.clear();
        let prefix = id.wrapping_mul(self.stratum).wrapping_add(scale(random, self.stratum));
        out.extend_from_slice(&prefix.to_be_bytes());
        let mut word = random;
        while out.len() < self.key_bytes {
            word = word.wrapping_mul(GOLDEN);
            let rest = (self.key_bytes - out.len()).min(8);
            out.extend_from_slice(&word.to_be_bytes()[..rest]);
        }
        if let Some(last) = out.last_mut() {
            *last = *last & !1 | present;
        }
    }

    /// Writes version `version` of the value of key `id` into `out`.
    #[inline]
    pub fn value(&self, id: u64, version: u64, out: &mut Vec<u8>) {
        out.clear();
        let half = self.half();
        for part in [half, self.value_bytes - half] {
            let mut word = self.first_word(id, version);
            for _ in 0..part / 8 {
                out.extend_from_slice(&word.to_le_bytes());
                word = word.wrapping_add(GOLDEN);
            }
            out.extend_from_slice(&word.to_le_bytes()[..part % 8]);
        }
    }

    /// Checks every byte of a value that was answered for key `id`.
    ///
    /// # Errors
    /// [`Error::WrongAnswer`] that says what is wrong, and which older version it is if it is one.
    #[inline]
    pub fn check(&self, id: u64, version: u64, value: &[u8]) -> Result<()> {
        if self.is_version(id, version, value) { Ok(()) } else { Err(self.wrong_value(id, version, value)) }
    }

    /// Checks that `key` is key `id`, in every byte; `scratch` is overwritten.
    ///
    /// # Errors
    /// [`Error::WrongAnswer`].
    #[inline]
    pub fn check_key(&self, id: u64, key: &[u8], scratch: &mut Vec<u8>) -> Result<()> {
        self.key(id, scratch);
        if key == scratch.as_slice() {
            return Ok(());
        }
        Err(Error::WrongAnswer(format!("key {id} is expected, {scratch:02x?}, and {key:02x?} came")))
    }

    #[inline]
    fn is_version(&self, id: u64, version: u64, value: &[u8]) -> bool {
        if value.len() != self.value_bytes {
            return false;
        }
        let first = self.first_word(id, version);
        let (front, back) = value.split_at(self.half());
        // Not short-circuit: right answers are what has to be fast.
        counts_up(first, front) & counts_up(first, back)
    }

    #[cold]
    fn wrong_value(&self, id: u64, version: u64, value: &[u8]) -> Error {
        let what = match (0..version).rev().take(1000).find(|&older| self.is_version(id, older, value)) {
            Some(older) => format!("the value is that of version {older}"),
            None if value.len() != self.value_bytes => {
                format!("the value has {} bytes instead of {}", value.len(), self.value_bytes)
            }
            None => "the value is damaged, or another key's".to_owned(),
        };
        Error::WrongAnswer(format!("key {id}, version {version}: {what}"))
    }

    #[inline]
    fn first_word(&self, id: u64, version: u64) -> u64 {
        mix(id.wrapping_add(version.wrapping_mul(GOLDEN)) ^ self.seed)
    }

    /// Where the value begins to repeat: half of it, in whole words.
    #[inline]
    fn half(&self) -> usize {
        (self.value_bytes / 2).next_multiple_of(8).min(self.value_bytes)
    }
}

/// Whether `bytes` are words that count up from `first` in steps of [`GOLDEN`].
#[inline]
fn counts_up(first: u64, bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut expected = first;
    let mut difference = 0;
    for word in words {
        difference |= u64::from_le_bytes(*word) ^ expected;
        expected = expected.wrapping_add(GOLDEN);
    }
    difference == 0 && rest == &expected.to_le_bytes()[..rest.len()]
}

impl Expected {
    /// What the fills leave behind.
    pub const FILLED: Expected = Expected { version: 1, halved: false };

    /// Whether key `id` has a value.
    #[inline]
    pub fn is_live(&self, data: &Dataset, id: u64) -> bool {
        !self.halved || !data.is_doomed(id)
    }

    /// How many keys have a value.
    pub fn live_keys(&self, data: &Dataset) -> u64 {
        if self.halved { (0..data.keys()).filter(|&id| !data.is_doomed(id)).count() as u64 } else { data.keys() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_ascend_and_none_is_missing_at_once() {
        for (keys, key_bytes) in [(1, 8), (1000, 8), (1000, 16), (777, 23), (1, 16)] {
            let data = Dataset::new(keys, key_bytes, 100, 42).unwrap();
            let (mut last, mut key, mut missing) = (Vec::new(), Vec::new(), Vec::new());
            for id in 0..keys {
                data.key(id, &mut key);
                data.missing_key(id, &mut missing);
                assert!(last < key, "{id} of {keys}");
                assert_eq!((key.len(), missing.len()), (key_bytes, key_bytes));
                assert_eq!((key[key_bytes - 1] & 1, missing[key_bytes - 1] & 1), (1, 0));
                assert!(data.check_key(id, &key, &mut missing).is_ok());
                assert!(data.check_key(id + 1, &key, &mut missing).is_err());
                std::mem::swap(&mut last, &mut key);
            }
        }
    }

    #[test]
    fn every_wrong_byte_of_a_value_is_found() {
        for value_bytes in [0, 1, 7, 8, 9, 15, 16, 17, 100, 1024] {
            let data = Dataset::new(10, 16, value_bytes, 7).unwrap();
            let mut value = Vec::new();
            data.value(3, 2, &mut value);
            assert_eq!(value.len(), value_bytes);
            assert!(data.check(3, 2, &value).is_ok(), "{value_bytes}");
            for at in 0..value_bytes {
                value[at] ^= 0x10;
                assert!(data.check(3, 2, &value).is_err(), "byte {at} of {value_bytes}");
                value[at] ^= 0x10;
            }
            value.push(0);
            assert!(data.check(3, 2, &value).is_err());
        }
    }

    #[test]
    fn a_stale_value_is_named() {
        let data = Dataset::new(10, 16, 100, 7).unwrap();
        let mut value = Vec::new();
        data.value(3, 1, &mut value);
        let error = data.check(3, 4, &value).unwrap_err().to_string();
        assert!(error.contains("version 4: the value is that of version 1"), "{error}");
        assert!(data.check(2, 1, &value).is_err(), "another key's value");
    }

    #[test]
    fn about_half_of_the_keys_is_doomed_and_draws_stay_in_bounds() {
        let data = Dataset::new(10_000, 16, 100, 42).unwrap();
        let live = Expected { version: 1, halved: true }.live_keys(&data);
        assert!((4_800..5_200).contains(&live), "{live}");
        let mut drawn = vec![0; 100];
        for draw in 0..10_000 {
            drawn[(data.random(1, draw) / 100) as usize] += 1;
        }
        assert!(drawn.iter().all(|&count| (50..150).contains(&count)), "{drawn:?}");
    }

    #[test]
    fn sizes_out_of_bounds_are_refused() {
        assert!(Dataset::new(0, 16, 100, 0).is_err());
        assert!(Dataset::new(1, 7, 100, 0).is_err());
        assert!(Dataset::new(1, 65_536, 100, 0).is_err());
        assert!(Dataset::new(1, 16, (1 << 30) + 1, 0).is_err());
    }
}
