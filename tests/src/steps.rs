//! Random operations, made from a seed: the one generator behind the model tests, the power cuts and the faults.

use std::ops::Bound;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use siltstone::Durability;

use crate::options::KEYSPACES;

/// Bounds of a range.
pub type Bounds = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// One write of a batch: the number of the keyspace, the key, and the value or `None` for a delete.
pub type NumberedWrite = (usize, Vec<u8>, Option<Vec<u8>>);

/// Which end each call on an iterator asks, bit after bit: 0 the front, 1 the back.
pub type Ends = u64;

/// One operation. Keyspaces are numbers below [`KEYSPACES`]; snapshots and iterators are chosen by a number modulo how
/// many are open.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the arguments of the call that the variant names")]
pub enum Step {
    Put {
        keyspace: usize,
        key: Vec<u8>,
        value: Vec<u8>,
    },
    Delete {
        keyspace: usize,
        key: Vec<u8>,
    },
    Write {
        batch: Vec<NumberedWrite>,
        durability: Durability,
    },
    PutAll {
        keyspace: usize,
        entries: Vec<(Vec<u8>, Vec<u8>)>,
    },
    DeleteAll {
        keyspace: usize,
        keys: Vec<Vec<u8>>,
    },
    Get {
        keyspace: usize,
        key: Vec<u8>,
    },
    GetMany {
        keyspace: usize,
        keys: Vec<Vec<u8>>,
    },
    Range {
        keyspace: usize,
        bounds: Bounds,
        ends: Ends,
    },
    Prefix {
        keyspace: usize,
        prefix: Vec<u8>,
        ends: Ends,
    },
    TakeSnapshot,
    ReadSnapshot {
        which: usize,
        keyspace: usize,
        bounds: Bounds,
        ends: Ends,
    },
    DropSnapshot {
        which: usize,
    },
    OpenIter {
        keyspace: usize,
        bounds: Bounds,
    },
    AdvanceIter {
        which: usize,
        count: usize,
        ends: Ends,
    },
    Sync,
    Flush {
        keyspace: usize,
    },
    FlushAll,
    Compact {
        keyspace: usize,
    },
    WaitForCompaction,
    /// `close`, which leaves handles behind, and open.
    CloseAndOpen,
    /// Drop every handle, and open.
    DropAndOpen,
    /// Drop the keyspace and create it again.
    DropKeyspace {
        keyspace: usize,
    },
}

/// The generator of a seed.
pub fn rng(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

/// A key out of few, so that operations meet: short ones with all byte values that order could get wrong, and longer
/// ones that share more than the eight bytes which blocks keep apart.
pub fn key(rng: &mut StdRng) -> Vec<u8> {
    const BYTES: [u8; 5] = [0, 1, b'a', 0x7f, 0xff];
    let letters = |rng: &mut StdRng, len: usize| (0..len).map(|_| BYTES[rng.random_range(0..5)]).collect::<Vec<_>>();
    match rng.random_range(0..10) {
        0..4 => {
            let len = rng.random_range(0..4);
            letters(rng, len)
        }
        4..9 => {
            let mut key = b"a common prefix".to_vec();
            let len = rng.random_range(0..4);
            key.extend(letters(rng, len));
            key
        }
        _ => {
            let len = rng.random_range(0..2000);
            vec![b'L'; len]
        }
    }
}

/// A value: mostly short, sometimes a good part of a tiny memtable; half of them compress.
pub fn value(rng: &mut StdRng) -> Vec<u8> {
    let len = match rng.random_range(0..20) {
        0 => 0,
        1..12 => rng.random_range(1..40),
        12..17 => rng.random_range(40..600),
        17..19 => rng.random_range(600..6000),
        _ => rng.random_range(6000..20_000),
    };
    if rng.random() { vec![rng.random(); len] } else { (0..len).map(|_| rng.random()).collect() }
}

/// Bounds of every kind, reversed ones included.
pub fn bounds(rng: &mut StdRng) -> Bounds {
    let mut bound = || match rng.random_range(0..3) {
        0 => Bound::Unbounded,
        1 => Bound::Included(key(rng)),
        _ => Bound::Excluded(key(rng)),
    };
    (bound(), bound())
}

fn keys(rng: &mut StdRng) -> Vec<Vec<u8>> {
    (0..rng.random_range(0..12)).map(|_| key(rng)).collect()
}

/// A batch over all keyspaces.
pub fn batch(rng: &mut StdRng) -> Vec<NumberedWrite> {
    let count = rng.random_range(0..12);
    let mut write = || {
        let value = if rng.random_bool(0.7) { Some(value(rng)) } else { None };
        (rng.random_range(0..KEYSPACES), key(rng), value)
    };
    (0..count).map(|_| write()).collect()
}

impl Step {
    /// The operation of a seed.
    pub fn random(seed: u64) -> Step {
        let rng = &mut rng(seed);
        let keyspace = rng.random_range(0..KEYSPACES);
        let which = rng.random_range(0..8);
        let ends = [0, u64::MAX, rng.random()][rng.random_range(0..3)];
        match rng.random_range(0..100) {
            0..16 => Step::Put { keyspace, key: key(rng), value: value(rng) },
            16..24 => Step::Delete { keyspace, key: key(rng) },
            24..38 => {
                let durability = [Durability::Buffered, Durability::Synced][rng.random_range(0..2)];
                Step::Write { batch: batch(rng), durability }
            }
            38..43 => Step::PutAll { keyspace, entries: keys(rng).into_iter().map(|key| (key, value(rng))).collect() },
            43..46 => Step::DeleteAll { keyspace, keys: keys(rng) },
            46..52 => Step::Get { keyspace, key: key(rng) },
            52..56 => Step::GetMany { keyspace, keys: keys(rng) },
            56..62 => Step::Range { keyspace, bounds: bounds(rng), ends },
            62..66 => {
                let mut prefix = key(rng);
                prefix.truncate(rng.random_range(0..18));
                Step::Prefix { keyspace, prefix, ends }
            }
            66..70 => Step::TakeSnapshot,
            70..75 => Step::ReadSnapshot { which, keyspace, bounds: bounds(rng), ends },
            75..77 => Step::DropSnapshot { which },
            77..80 => Step::OpenIter { keyspace, bounds: bounds(rng) },
            80..85 => Step::AdvanceIter { which, count: rng.random_range(1..20), ends },
            85..86 => Step::Sync,
            86..90 => Step::Flush { keyspace },
            90..92 => Step::FlushAll,
            92..94 => Step::Compact { keyspace },
            94..96 => Step::WaitForCompaction,
            96..97 => Step::CloseAndOpen,
            97..98 => Step::DropAndOpen,
            _ => Step::DropKeyspace { keyspace },
        }
    }
}
