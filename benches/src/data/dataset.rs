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
/// The 64-bit space of key prefixes is cut into `keys` equal strata, and each of those into two halves. Key `id` of
/// `[0, keys)`, which the fills write, lies at a random place of stratum `id`; key `keys + id`, which is there for
/// workloads that insert, at a random place of the other half of that stratum. So the keys look random, their order is
/// known, and the answer of any scan can be checked from its position. The last bit of a key says whether it is one
/// that is ever written.
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
        stratum
    }

    /// The key of stratum `stratum` that the fills leave to workloads that insert.
    #[inline]
    pub fn extra(&self, stratum: u64) -> u64 {
        self.keys + stratum
    }

    /// The key that is the `place`-th, of `[0, 2 * keys)`, in key order.
    #[inline]
    pub fn at_place(&self, place: u64) -> u64 {
        let stratum = place / 2;
        if self.loaded_half(stratum) == place % 2 { self.loaded(stratum) } else { self.extra(stratum) }
    }

    /// Where key `id` is in key order; the inverse of [`at_place`](Self::at_place).
    #[inline]
    pub fn place_of(&self, id: u64) -> u64 {
        let stratum = self.stratum_of(id);
        stratum * 2 + (self.loaded_half(stratum) ^ u64::from(id >= self.keys))
    }

    /// The stratum of key `id`.
    #[inline]
    pub fn stratum_of(&self, id: u64) -> u64 {
        if id < self.keys { id } else { id - self.keys }
    }

    /// The half of a stratum that its loaded key lies in: places scale from a number, and are in the upper half if its
    /// highest bit is set.
    #[inline]
    fn loaded_half(&self, stratum: u64) -> u64 {
        mix(stratum ^ self.seed) >> 63
    }

    /// A random order of the keys that the fills write, a different one for each `round`.
    pub fn order(&self, round: u64) -> Permutation {
        self.order_of(self.keys, round)
    }

    /// A random order of `[0, count)`, a different one for each `round`.
    pub fn order_of(&self, count: u64, round: u64) -> Permutation {
        Permutation::new(count, self.seed ^ mix(round))
    }

    /// The number of the `draw`-th random key of the fills, drawn with replacement; `stream` tells draws apart.
    #[inline]
    pub fn random(&self, stream: u64, draw: u64) -> u64 {
        scale(self.draw(stream, draw), self.keys)
    }

    #[inline]
    fn draw(&self, stream: u64, draw: u64) -> u64 {
        mix(draw.wrapping_mul(GOLDEN) ^ mix(self.seed ^ stream))
    }

    /// Random numbers for step `step` of workload `stream`: the same for every engine, whichever thread does the step.
    #[inline]
    pub fn rng(&self, stream: u64, step: u64) -> SmallRng {
        SmallRng::seed_from_u64(self.draw(stream, step))
    }

    /// Whether `deleterandom` deletes the key: true for half of them.
    #[inline]
    pub fn is_doomed(&self, id: u64) -> bool {
        mix(id ^ self.seed.rotate_left(32)) & 1 == 1
    }

    /// Writes key `id` into `out`.
    #[inline]
    pub fn key(&self, id: u64, out: &mut Vec<u8>) {
        self.write_key(self.stratum_of(id), self.random_of(id), 1, out);
    }

    /// Writes a key that is never written and lies in stratum `stratum`, of `[0, keys)`, into `out`.
    #[inline]
    pub fn missing_key(&self, stratum: u64, out: &mut Vec<u8>) {
        self.write_key(stratum, mix(stratum ^ !self.seed), 0, out);
    }

    /// What key `id`'s bytes follow from, beside its stratum.
    #[inline]
    fn random_of(&self, id: u64) -> u64 {
        let random = mix(self.stratum_of(id) ^ self.seed);
        if id < self.keys { random } else { mix(random) >> 1 | (!random >> 63) << 63 }
    }

    #[inline]
    fn prefix(&self, stratum: u64, random: u64) -> u64 {
        stratum.wrapping_mul(self.stratum).wrapping_add(scale(random, self.stratum))
    }

    #[inline]
    fn write_key(&self, stratum: u64, random: u64, present: u8, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&self.prefix(stratum, random).to_be_bytes());
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

    /// Checks that `key` is key `id`, in every byte.
    ///
    /// # Errors
    /// [`Error::WrongAnswer`].
    #[inline]
    pub fn check_key(&self, id: u64, key: &[u8]) -> Result<()> {
        if self.is_key(id, key) { Ok(()) } else { Err(self.wrong_key(id, key)) }
    }

    /// Word by word: to write the key out and compare would cost several times as much, and is part of each figure.
    #[inline]
    fn is_key(&self, id: u64, key: &[u8]) -> bool {
        let mut random = self.random_of(id);
        let mut expected = self.prefix(self.stratum_of(id), random);
        let mut difference = u64::from(key.len() != self.key_bytes || key.last().is_none_or(|last| last & 1 == 0));
        let (words, rest) = key.as_chunks::<8>();
        let mut left = key.len();
        for word in words {
            left -= 8;
            // The key's last bit was looked at.
            let compared = if left == 0 { !1 } else { !0 };
            difference |= (u64::from_be_bytes(*word) ^ expected) & compared;
            random = random.wrapping_mul(GOLDEN);
            expected = random;
        }
        for (at, (byte, expected)) in rest.iter().zip(expected.to_be_bytes()).enumerate() {
            let compared = if at + 1 == rest.len() { !1 } else { !0 };
            difference |= u64::from((byte ^ expected) & compared);
        }
        difference == 0
    }

    #[cold]
    fn wrong_key(&self, id: u64, key: &[u8]) -> Error {
        let mut expected = Vec::new();
        self.key(id, &mut expected);
        Error::WrongAnswer(format!("key {id} is expected, {expected:02x?}, and {key:02x?} came"))
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
    // Byte by byte: to compare with a word that was just stored takes longer than all the words before it.
    for (byte, expected) in rest.iter().zip(expected.to_le_bytes()) {
        difference |= u64::from(byte ^ expected);
    }
    difference == 0
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
            for place in 0..2 * keys {
                let id = data.at_place(place);
                assert_eq!(data.place_of(id), place);
                data.key(id, &mut key);
                data.missing_key(place / 2, &mut missing);
                assert!(last < key, "{place} of {keys}");
                assert_eq!((key.len(), missing.len()), (key_bytes, key_bytes));
                assert_eq!((key[key_bytes - 1] & 1, missing[key_bytes - 1] & 1), (1, 0));
                assert!(data.check_key(id, &key).is_ok());
                assert!(data.check_key(id ^ 1, &key).is_err());
                assert!(data.check_key(id, &missing).is_err());
                assert!(data.check_key(id, &key[1..]).is_err());
                for at in 0..key.len() {
                    key[at] ^= 1 << (place % 8);
                    assert!(data.check_key(id, &key).is_err(), "{place} of {keys}, byte {at} of {key_bytes}");
                    key[at] ^= 1 << (place % 8);
                }
                std::mem::swap(&mut last, &mut key);
            }
        }
    }

    #[test]
    fn every_stratum_has_one_loaded_key_and_another_one() {
        let data = Dataset::new(1000, 16, 100, 42).unwrap();
        let mut upper = 0;
        for stratum in 0..1000 {
            let places = [data.loaded(stratum), data.extra(stratum)].map(|id| data.place_of(id));
            assert_eq!((places[0] / 2, places[1]), (stratum, places[0] ^ 1));
            upper += places[0] % 2;
        }
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
        let draw = |stream, step| data.rng(stream, step).random_range(0..100u64);
        let draws = |stream| (0..100_000).map(|step| draw(stream, step)).collect::<Vec<_>>();
        let mut counts = [0; 100];
        draws(1).iter().for_each(|&draw| counts[draw as usize] += 1);
        // 1000 each, with a standard deviation of 31.
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
        assert_eq!(draws(1), draws(1));
        let same = draws(1).iter().zip(draws(2)).filter(|(one, other)| *one == other).count();
        assert!((800..1200).contains(&same), "{same} of 100,000 are the same in another workload");
        assert!((0..1000).all(|draw| data.random(1, draw) < 100));
    }

    #[test]
    fn sizes_out_of_bounds_are_refused() {
        assert!(Dataset::new(0, 16, 100, 0).is_err());
        assert!(Dataset::new(1, 7, 100, 0).is_err());
        assert!(Dataset::new(1, 65_536, 100, 0).is_err());
        assert!(Dataset::new(1, 16, (1 << 30) + 1, 0).is_err());
    }
}
