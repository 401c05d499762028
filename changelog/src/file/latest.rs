//! Which change of a key is its latest.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use siltstone::{Change, ChangeBatch, KeyspaceName, SeqNo};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128_with_seed};

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

    /// Takes note of a batch; false if it does not fit, and then only a part of it was noted, which does no harm: later
    /// changes only replace more.
    pub(super) fn note(&mut self, batch: &ChangeBatch) -> bool {
        for (seqno, change) in (batch.first_seqno()..).zip(batch.changes()) {
            let Some(key) = key_of(change) else {
                self.drops.insert(change.keyspace().clone(), seqno);
                continue;
            };
            let hash = self.hash(change.keyspace(), key);
            if self.is_mine(hash) {
                self.keys.insert(hash, seqno);
            }
        }
        self.keys.len() <= self.max_keys
    }

    /// Whether a change is not replaced by a later one. Of keys of other shares nothing is known, so theirs are kept.
    pub(super) fn is_latest(&mut self, seqno: SeqNo, change: &Change) -> bool {
        if self.drops.get(change.keyspace()).is_some_and(|&drop| drop > seqno) {
            return false;
        }
        let Some(key) = key_of(change) else { return true };
        let hash = self.hash(change.keyspace(), key);
        self.keys.get(&hash).is_none_or(|&latest| latest <= seqno)
    }

    /// Whether a change's key is one of those that are looked at.
    pub(super) fn covers(&mut self, change: &Change) -> bool {
        match key_of(change) {
            // With the last share all of what a drop dropped is gone.
            None => self.share + 1 == self.shares,
            Some(key) => {
                let hash = self.hash(change.keyspace(), key);
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

/// The key that a change is of; a keyspace's drop is of none.
fn key_of(change: &Change) -> Option<&[u8]> {
    match change {
        Change::Put { key, .. } | Change::Delete { key, .. } => Some(key),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(keyspace: &str, key: &str) -> Change {
        Change::Put { keyspace: keyspace.into(), key: key.into(), value: "v".into() }
    }

    #[test]
    fn the_latest_change_of_each_key_counts_and_a_drop_ends_all_before_it() {
        let drop = Change::DropKeyspace { keyspace: "a".into() };
        let changes = vec![put("a", "k"), put("b", "k"), drop.clone(), put("a", "k"), put("a", "k"), put("b", "l")];
        let batch = ChangeBatch::new(10, changes.clone()).unwrap();
        let mut latest = Latest::new(1 << 20, 0, 1);
        assert!(latest.note(&batch));
        let kept: Vec<SeqNo> =
            (10..).zip(&changes).filter(|&(seqno, change)| latest.is_latest(seqno, change)).map(|(n, _)| n).collect();
        assert_eq!(kept, [11, 12, 14, 15]);
        assert!(!latest.is_latest(5, &put("b", "k")) && latest.is_latest(5, &put("b", "other")));
        assert!(!latest.is_latest(5, &put("a", "other")), "it was dropped");
    }

    #[test]
    fn each_key_is_of_one_share() {
        let changes: Vec<Change> = (0..100).map(|n| put("a", &n.to_string())).collect();
        let batch = ChangeBatch::new(1, changes.clone()).unwrap();
        let mut covered = vec![0; changes.len()];
        for share in 0..3 {
            let mut latest = Latest::new(1 << 20, share, 3);
            latest.note(&batch);
            for (at, change) in changes.iter().enumerate() {
                covered[at] += u32::from(latest.covers(change));
                assert_eq!(latest.is_latest(0, change), !latest.covers(change), "only its own share's are replaced");
            }
        }
        assert_eq!(covered, vec![1; changes.len()]);
    }

    #[test]
    fn it_says_when_it_is_full() {
        let mut latest = Latest::new(56 * 10, 0, 1);
        let batch =
            |from: u64| ChangeBatch::new(from, (from..from + 6).map(|n| put("a", &n.to_string())).collect()).unwrap();
        assert!(latest.note(&batch(1)));
        assert!(latest.note(&batch(1)), "no new keys");
        assert!(!latest.note(&batch(7)));
    }
}
