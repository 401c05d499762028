//! [`Dataset`]: keys and values by number, and the check of what comes back.

use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::{GOLDEN, Permutation, mix, mixgraph, scale};
use crate::error::{Error, Result};

/// The shortest key: its first eight bytes place it.
pub const MIN_KEY_BYTES: usize = 8;

/// How far version and size of a value are apart in the number that callers pass: versions below it have values of the
/// fixed size, versions from it on values of [mixed graph](super::mixgraph) sizes.
pub const VARIABLE: u64 = 1 << 32;

/// Keys and values by number, and the check of what comes back.
///
/// The 64-bit space of key prefixes is cut into `keys` equal strata, and each of those into two halves. Key `id`, of
/// `[0, 2 * keys)`, lies at a random place of half `id % 2` of stratum `id / 2`, and random bytes follow. So the keys
/// look random, their order is that of their ids, and the answer of any scan can be checked from its position. One key
/// of each stratum, in one of its halves at random, is [loaded](Self::loaded) by the fills; the [other](Self::extra) is
/// there for workloads that insert. The last bit of a key says whether it is one that is ever written.
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

impl Dataset {
    /// `keys` loaded keys of `key_bytes` bytes (8 to 65,535) with values of `value_bytes` bytes (at most 1 GiB), all
    /// from `seed`.
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
        // Its halves are even, so that the last bit of a prefix can be set without leaving one.
        let stratum = (u64::MAX / keys) & !3;
        Ok(Dataset { keys, key_bytes, value_bytes, seed, stratum })
    }

    /// How many keys the fills write: the number of strata.
    pub fn keys(&self) -> u64 {
        self.keys
    }

    /// The length of a key, in bytes.
    pub fn key_bytes(&self) -> u64 {
        self.key_bytes as u64
    }

    /// Key and value together, in bytes.
    #[inline]
    pub fn entry_bytes(&self, id: u64, version: u64) -> u64 {
        (self.key_bytes + self.value_len(id, version)) as u64
    }

    /// The key of stratum `stratum`, of `[0, keys)`, that the fills write.
    #[inline]
    pub fn loaded(&self, stratum: u64) -> u64 {
        stratum * 2 + self.loaded_half(stratum)
    }

    /// The key of stratum `stratum` that the fills leave to workloads that insert.
    #[inline]
    pub fn extra(&self, stratum: u64) -> u64 {
        self.loaded(stratum) ^ 1
    }

    /// Whether the fills write key `id`.
    #[inline]
    pub fn is_loaded(&self, id: u64) -> bool {
        self.loaded_half(id / 2) == id % 2
    }

    #[inline]
    fn loaded_half(&self, stratum: u64) -> u64 {
        mix(stratum ^ self.seed) >> 63
    }

    /// A random order of `[0, count)`, a different one for each `round`.
    pub fn order(&self, count: u64, round: u64) -> Permutation {
        Permutation::new(count, self.seed ^ mix(round))
    }

    /// Random numbers for step `step` of workload `stream`: the same for every engine, whichever thread does the step.
    #[inline]
    pub fn random(&self, stream: u64, step: u64) -> SmallRng {
        SmallRng::seed_from_u64(mix(step.wrapping_mul(GOLDEN) ^ mix(self.seed ^ stream)))
    }

    /// Whether `deleterandom` deletes the key: true for half of them.
    #[inline]
    pub fn is_doomed(&self, id: u64) -> bool {
        mix(id ^ self.seed.rotate_left(32)) & 1 == 1
    }

    /// Writes key `id` into `out`.
    #[inline]
    pub fn key(&self, id: u64, out: &mut Vec<u8>) {
        let stratum = id / 2;
        let random = mix(stratum ^ self.seed);
        // A place scaled from a number with the highest bit set is in the upper half.
        let random = if random >> 63 == id % 2 { random } else { mix(random) >> 1 | id << 63 };
        self.place(stratum, random, 1, out);
    }

    /// Writes a key that is never written and lies in stratum `stratum`, of `[0, keys)`, into `out`.
    #[inline]
    pub fn missing_key(&self, stratum: u64, out: &mut Vec<u8>) {
        self.place(stratum, mix(stratum ^ !self.seed), 0, out);
    }

    #[inline]
    fn place(&self, stratum: u64, random: u64, present: u8, out: &mut Vec<u8>) {
        out.clear();
        let prefix = stratum.wrapping_mul(self.stratum).wrapping_add(scale(random, self.stratum));
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

    /// The length of version `version` of the value of key `id`, in bytes.
    #[inline]
    pub fn value_len(&self, id: u64, version: u64) -> usize {
        if version < VARIABLE { self.value_bytes } else { mixgraph::value_len(self.first_word(id, version)) }
    }

    /// Writes version `version` of the value of key `id` into `out`.
    #[inline]
    pub fn value(&self, id: u64, version: u64, out: &mut Vec<u8>) {
        out.clear();
        let value_len = self.value_len(id, version);
        let half = half(value_len);
        for part in [half, value_len - half] {
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

    /// Whether every byte of `value` is that of version `version` of the value of key `id`.
    #[inline]
    pub fn is_version(&self, id: u64, version: u64, value: &[u8]) -> bool {
        if value.len() != self.value_len(id, version) {
            return false;
        }
        let first = self.first_word(id, version);
        let (front, back) = value.split_at(half(value.len()));
        // Not short-circuit: right answers are what has to be fast.
        counts_up(first, front) & counts_up(first, back)
    }

    /// What is wrong with a value of key `id` that is not `version`.
    #[cold]
    pub(super) fn wrong_value(&self, id: u64, version: u64, value: &[u8]) -> Error {
        let versions = (0..version % VARIABLE).rev().take(1000);
        let what = match versions.flat_map(|older| [older, older | VARIABLE]).find(|&v| self.is_version(id, v, value)) {
            Some(older) => format!("the value is that of version {}", older % VARIABLE),
            None if value.len() != self.value_len(id, version) => {
                format!("the value has {} bytes instead of {}", value.len(), self.value_len(id, version))
            }
            None => "the value is damaged, or another key's".to_owned(),
        };
        Error::WrongAnswer(format!("key {id}, version {}: {what}", version % VARIABLE))
    }

    #[inline]
    fn first_word(&self, id: u64, version: u64) -> u64 {
        mix(id.wrapping_add(version.wrapping_mul(GOLDEN)) ^ self.seed)
    }
}

/// Where a value begins to repeat: half of it, in whole words.
#[inline]
fn half(value_len: usize) -> usize {
    (value_len / 2).next_multiple_of(8).min(value_len)
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

#[cfg(test)]
mod tests {
    use super::*;
    use rand::RngExt;

    #[test]
    fn keys_ascend_and_none_is_missing_at_once() {
        for (keys, key_bytes) in [(1, 8), (1000, 8), (1000, 16), (777, 23), (1, 16)] {
            let data = Dataset::new(keys, key_bytes, 100, 42).unwrap();
            let (mut last, mut key, mut missing) = (Vec::new(), Vec::new(), Vec::new());
            for id in 0..2 * keys {
                data.key(id, &mut key);
                data.missing_key(id / 2, &mut missing);
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
    fn every_stratum_has_one_loaded_key_and_another_one() {
        let data = Dataset::new(1000, 16, 100, 42).unwrap();
        for stratum in 0..1000 {
            let (loaded, extra) = (data.loaded(stratum), data.extra(stratum));
            assert_eq!((loaded / 2, extra / 2, loaded ^ 1), (stratum, stratum, extra));
            assert!(data.is_loaded(loaded) && !data.is_loaded(extra));
        }
        let upper = (0..1000).filter(|&stratum| data.loaded(stratum) % 2 == 1).count();
        assert!((400..600).contains(&upper), "{upper}");
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
            data.value(3, 2 | VARIABLE, &mut value);
            assert!(data.check(3, 2 | VARIABLE, &value).is_ok() && data.check(3, 2, &value).is_err());
            assert_eq!(data.entry_bytes(3, 2 | VARIABLE), 16 + value.len() as u64);
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
        let error = data.check(3, 4 | VARIABLE, &value).unwrap_err().to_string();
        assert!(error.contains("version 4: the value is that of version 1"), "{error}");
    }

    #[test]
    fn about_half_of_the_keys_is_doomed() {
        let data = Dataset::new(10_000, 16, 100, 42).unwrap();
        let doomed = (0..10_000).filter(|&stratum| data.is_doomed(data.loaded(stratum))).count();
        assert!((4_800..5_200).contains(&doomed), "{doomed}");
    }

    #[test]
    fn draws_are_uniform_and_follow_from_workload_and_step() {
        let data = Dataset::new(100, 16, 100, 42).unwrap();
        let draw = |stream, step| data.random(stream, step).random_range(0..100u64);
        let draws = |stream| (0..100_000).map(|step| draw(stream, step)).collect::<Vec<_>>();
        let mut counts = [0; 100];
        draws(1).iter().for_each(|&draw| counts[draw as usize] += 1);
        // 1000 each, with a standard deviation of 31.
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
        assert_eq!(draws(1), draws(1));
        let same = draws(1).iter().zip(draws(2)).filter(|(one, other)| *one == other).count();
        assert!((800..1200).contains(&same), "{same} of 100,000 are the same in another workload");
    }

    #[test]
    fn sizes_out_of_bounds_are_refused() {
        assert!(Dataset::new(0, 16, 100, 0).is_err());
        assert!(Dataset::new(1, 7, 100, 0).is_err());
        assert!(Dataset::new(1, 65_536, 100, 0).is_err());
        assert!(Dataset::new(1, 16, (1 << 30) + 1, 0).is_err());
    }
}
