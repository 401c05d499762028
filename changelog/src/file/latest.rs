//! Which change of a key is its latest.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use siltstone::{KeyspaceName, SeqNo};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128_with_seed};

use crate::scan::LentChange;

/// What a key takes in memory at most, in bytes: 24 and the table's own byte, in a table that may be half empty and is
/// copied when it grows.
const KEY_BYTES: u64 = 56;

/// Of a hash, which needs no hashing: one half of it.
#[derive(Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn write(&mut self, hash: &[u8]) {
        // Called with the length of what follows before.
        if let Some(half) = hash.last_chunk() {
            self.0 = u64::from_le_bytes(*half);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The latest change of each key in a part of a log; keys by a hash of 128 bits, of which no two are alike (as Kafka's log
/// cleaner does it).
#[derive(Debug)]
pub(super) struct Latest {
    keys: HashMap<[u64; 2], SeqNo, BuildHasherDefault<Hashed>>,
    /// When a keyspace was dropped last.
    drops: HashMap<KeyspaceName, SeqNo>,
    max_keys: usize,
    /// Of all keys those with this remainder of their hash are looked at.
    share: u64,
    shares: u64,
    /// What was noted last: keyspaces come in runs.
    seed: Option<(KeyspaceName, u64)>,
}

impl Latest {
    /// Of one of `shares` shares of all keys, in so many bytes of memory.
    pub(super) fn new(memory_bytes: u64, share: u64, shares: u64) -> Self {
        let max_keys = usize::try_from(memory_bytes / KEY_BYTES).unwrap_or(usize::MAX);
        Latest { keys: HashMap::default(), drops: HashMap::new(), max_keys, share, shares, seed: None }
    }

    /// Takes note of a change, which is a later one than all before.
    pub(super) fn note(&mut self, seqno: SeqNo, change: LentChange<'_>) {
        let (keyspace, key) = keyspace_and_key(change);
        let Some(key) = key else {
            self.drops.insert(keyspace.clone(), seqno);
            return;
        };
        let hash = self.hash(keyspace, key);
        if self.is_mine(hash) {
            self.keys.insert(hash, seqno);
        }
    }

    /// Whether there are more keys than were to be. That a part of a batch was noted does no harm: later changes only
    /// replace more.
    pub(super) fn is_full(&self) -> bool {
        self.keys.len() > self.max_keys
    }

    /// Whether a change is not replaced by a later one. Of keys of other shares nothing is known, so theirs are kept.
    pub(super) fn is_latest(&mut self, seqno: SeqNo, change: LentChange<'_>) -> bool {
        let (keyspace, key) = keyspace_and_key(change);
        if !self.drops.is_empty() && self.drops.get(keyspace).is_some_and(|&drop| drop > seqno) {
            return false;
        }
        let Some(key) = key else { return true };
        let hash = self.hash(keyspace, key);
        self.keys.get(&hash).is_none_or(|&latest| latest <= seqno)
    }

    /// Whether a change's key is one of those that are looked at.
    pub(super) fn covers(&mut self, change: LentChange<'_>) -> bool {
        let (keyspace, key) = keyspace_and_key(change);
        match key {
            // With the last share all of what a drop dropped is gone.
            None => self.share + 1 == self.shares,
            Some(key) => {
                let hash = self.hash(keyspace, key);
                self.is_mine(hash)
            }
        }
    }

    fn is_mine(&self, hash: [u64; 2]) -> bool {
        hash[0] % self.shares == self.share
    }

    fn hash(&mut self, keyspace: &KeyspaceName, key: &[u8]) -> [u64; 2] {
        let seed = match &self.seed {
            Some((name, seed)) if name == keyspace => *seed,
            _ => self.seed.insert((keyspace.clone(), xxh3_64(keyspace.as_bytes()))).1,
        };
        let hash = xxh3_128_with_seed(key, seed);
        [hash as u64, (hash >> 64) as u64]
    }
}

/// The keyspace and the key that a change is of; a keyspace's drop is of none.
fn keyspace_and_key(change: LentChange<'_>) -> (&KeyspaceName, Option<&[u8]>) {
    match change {
        LentChange::Put { keyspace, key, .. } | LentChange::Delete { keyspace, key } => (keyspace, Some(key)),
        LentChange::DropKeyspace { keyspace } => (keyspace, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put<'a>(keyspace: &'a KeyspaceName, key: &'a str) -> LentChange<'a> {
        LentChange::Put { keyspace, key: key.as_bytes(), value: b"v" }
    }

    #[test]
    fn the_latest_change_of_each_key_counts_and_a_drop_ends_all_before_it() {
        let (a, b) = ("a".into(), "b".into());
        let drop = LentChange::DropKeyspace { keyspace: &a };
        let changes = [put(&a, "k"), put(&b, "k"), drop, put(&a, "k"), put(&a, "k"), put(&b, "l")];
        let mut latest = Latest::new(1 << 20, 0, 1);
        (10..).zip(changes).for_each(|(seqno, change)| latest.note(seqno, change));
        let kept: Vec<SeqNo> =
            (10..).zip(changes).filter(|&(seqno, change)| latest.is_latest(seqno, change)).map(|(n, _)| n).collect();
        assert_eq!(kept, [11, 12, 14, 15]);
        assert!(!latest.is_latest(5, put(&b, "k")) && latest.is_latest(5, put(&b, "other")));
        assert!(!latest.is_latest(5, put(&a, "other")), "it was dropped");
    }

    #[test]
    fn each_key_is_of_one_share() {
        let (a, keys) = ("a".into(), (0..100).map(|n| n.to_string()).collect::<Vec<String>>());
        let mut covered = vec![0; keys.len()];
        for share in 0..3 {
            let mut latest = Latest::new(1 << 20, share, 3);
            (1..).zip(&keys).for_each(|(seqno, key)| latest.note(seqno, put(&a, key)));
            for (at, key) in keys.iter().enumerate() {
                let covers = latest.covers(put(&a, key));
                covered[at] += u32::from(covers);
                assert_eq!(latest.is_latest(0, put(&a, key)), !covers, "only its own share's are replaced");
            }
        }
        assert_eq!(covered, vec![1; keys.len()]);
    }

    #[test]
    fn it_says_when_it_is_full() {
        let (a, mut latest) = ("a".into(), Latest::new(56 * 10, 0, 1));
        let mut note = |from: u64| {
            (from..from + 6).for_each(|n| latest.note(n, put(&a, &n.to_string())));
            latest.is_full()
        };
        assert!(!note(1));
        assert!(!note(1), "no new keys");
        assert!(note(7));
    }
}
