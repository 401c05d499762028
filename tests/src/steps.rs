//! Random operations, made from a seed: the one generator behind the metamorphic runs, the model tests, the power cuts
//! and the faults.

use std::ops::Bound;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use siltstone::Durability;

use crate::options::KEYSPACES;

/// Bounds of a range.
pub type Bounds = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// One write of a batch: the number of the keyspace, the key, and the value or `None` for a delete.
pub type NumberedWrite = (usize, Vec<u8>, Option<Vec<u8>>);

/// A change of metadata: the number of the entry, and the value or `None` to remove it.
pub type NumberedEntry = (usize, Option<Vec<u8>>);

/// Which end each call on an iterator asks, bit after bit: 0 the front, 1 the back.
pub type Ends = u64;

/// How many metadata entries, and how many change cursors, there are to choose from.
pub const ENTRIES: usize = 3;

/// One operation on a database. Every list of them can be run: keyspaces are numbers below [`KEYSPACES`], metadata
/// entries and cursors below [`ENTRIES`]; snapshots, iterators and followers are chosen by a number modulo how many are
/// open, and places in the log (`at`) count from the next sequence number on.
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
    /// `write` with the database's durability, or `write_with`.
    Write {
        batch: Vec<NumberedWrite>,
        metadata: Vec<NumberedEntry>,
        durability: Option<Durability>,
    },
    PutAll {
        keyspace: usize,
        entries: Vec<(Vec<u8>, Vec<u8>)>,
    },
    DeleteAll {
        keyspace: usize,
        keys: Vec<Vec<u8>>,
    },
    /// `ingest`, which is refused while there are change cursors, so mostly after removing them (`unfollowed`).
    Ingest {
        keyspace: usize,
        entries: Vec<(Vec<u8>, Vec<u8>)>,
        unfollowed: bool,
    },
    /// A batch of another database's log, by the names of the keyspaces.
    Apply {
        at: i64,
        writes: Vec<NumberedWrite>,
        metadata: Vec<(usize, Vec<u8>)>,
    },
    /// A keyspace's drop out of another database's log; it has to come alone.
    ApplyDrop {
        at: i64,
        keyspace: usize,
        writes: Vec<NumberedWrite>,
        metadata: Vec<(usize, Vec<u8>)>,
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
    Iterate {
        keyspace: usize,
        ends: Ends,
    },
    ApproximateLen {
        keyspace: usize,
    },
    TakeSnapshot,
    /// Through the handle of the snapshot's time (`then`) or through today's.
    ReadSnapshot {
        which: usize,
        keyspace: usize,
        then: bool,
        bounds: Bounds,
        ends: Ends,
    },
    ReadSnapshotPrefix {
        which: usize,
        keyspace: usize,
        then: bool,
        prefix: Vec<u8>,
        ends: Ends,
    },
    GetSnapshot {
        which: usize,
        keyspace: usize,
        then: bool,
        keys: Vec<Vec<u8>>,
    },
    DropSnapshot {
        which: usize,
    },
    OpenIter {
        keyspace: usize,
        bounds: Bounds,
    },
    OpenSnapshotIter {
        which: usize,
        keyspace: usize,
        then: bool,
    },
    AdvanceIter {
        which: usize,
        count: usize,
        ends: Ends,
    },
    DropIter {
        which: usize,
    },
    Metadata {
        name: usize,
    },
    /// `changes`, read until it has caught up.
    Changes {
        at: i64,
    },
    /// Changes that are kept open.
    OpenChanges {
        at: i64,
    },
    FollowChanges {
        which: usize,
    },
    DropChanges {
        which: usize,
    },
    SetCursor {
        name: usize,
        at: i64,
        metadata: Vec<(usize, Vec<u8>)>,
    },
    Cursor {
        name: usize,
    },
    RemoveCursor {
        name: usize,
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
    Verify,
    Metrics,
    /// Applies the whole log to a new database, which has to become the same.
    Replicate,
    ListKeyspaces,
    /// Opens the keyspace, or creates it; with default options instead of the configuration's.
    OpenKeyspace {
        keyspace: usize,
        default_options: bool,
    },
    DropKeyspace {
        keyspace: usize,
        recreate: bool,
    },
    /// `close`, which leaves handles behind, and open.
    CloseAndOpen,
    /// Drop every handle, and open.
    DropAndOpen,
    /// Close, open read-only, and open.
    OpenReadOnly,
    /// Open what is open.
    OpenTwice,
    /// Arguments of every kind that are refused.
    BadArguments {
        keyspace: usize,
    },
    /// Handles of another database.
    ForeignHandles {
        keyspace: usize,
    },
}

/// The generator of a seed.
pub fn rng(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

/// The operations of a seed.
pub fn list(seed: u64, len: usize) -> Vec<Step> {
    let rng = &mut rng(seed);
    (0..len).map(|_| Step::random(rng)).collect()
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

/// Entries to ingest: mostly as they have to be, strictly ascending.
pub fn sorted_entries(rng: &mut StdRng) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut keys: Vec<Vec<u8>> = (0..rng.random_range(0..40)).map(|_| key(rng)).collect();
    if rng.random_bool(0.9) {
        keys.sort_unstable();
        keys.dedup();
    }
    keys.into_iter().map(|key| (key, value(rng))).collect()
}

fn prefix(rng: &mut StdRng) -> Vec<u8> {
    let mut prefix = key(rng);
    prefix.truncate(rng.random_range(0..18));
    prefix
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

/// Metadata to go with a batch: mostly none.
fn metadata(rng: &mut StdRng) -> Vec<NumberedEntry> {
    let count = rng.random_range(0i32..6).saturating_sub(3).max(0);
    let mut entry = || {
        let value = rng.random_bool(0.7).then(|| vec![rng.random(); rng.random_range(0..60)]);
        (rng.random_range(0..ENTRIES), value)
    };
    (0..count).map(|_| entry()).collect()
}

fn values_of(metadata: Vec<NumberedEntry>) -> Vec<(usize, Vec<u8>)> {
    metadata.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// A place in the log, seen from the next number: mostly a little before it, sometimes long ago or beyond.
fn at(rng: &mut StdRng) -> i64 {
    match rng.random_range(0..10) {
        0 => rng.random_range(0..3),
        1..3 => -rng.random_range(100..5000),
        _ => -rng.random_range(0..60),
    }
}

/// What a step that writes nothing by itself is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The entries of a keyspace as they are.
    Keyspace,
    /// Snapshots.
    Snapshot,
    /// Iterators that stay open.
    Iter,
    /// The mutation log, the places in it, and metadata.
    Log,
    /// Everything else: upkeep, opening and closing, keyspaces as such.
    Database,
}

impl Step {
    /// What the step is about.
    pub fn subject(&self) -> Subject {
        match self {
            Step::Get { .. }
            | Step::GetMany { .. }
            | Step::Range { .. }
            | Step::Prefix { .. }
            | Step::Iterate { .. }
            | Step::ApproximateLen { .. } => Subject::Keyspace,
            Step::TakeSnapshot
            | Step::ReadSnapshot { .. }
            | Step::ReadSnapshotPrefix { .. }
            | Step::GetSnapshot { .. }
            | Step::DropSnapshot { .. } => Subject::Snapshot,
            Step::OpenIter { .. }
            | Step::OpenSnapshotIter { .. }
            | Step::AdvanceIter { .. }
            | Step::DropIter { .. } => Subject::Iter,
            Step::Changes { .. }
            | Step::OpenChanges { .. }
            | Step::FollowChanges { .. }
            | Step::DropChanges { .. }
            | Step::SetCursor { .. }
            | Step::Cursor { .. }
            | Step::RemoveCursor { .. }
            | Step::Metadata { .. } => Subject::Log,
            _ => Subject::Database,
        }
    }

    /// A random operation.
    pub fn random(rng: &mut StdRng) -> Step {
        match rng.random_range(0..100) {
            0..44 => Step::random_write(rng),
            44..62 => Step::random_read(rng),
            62..78 => Step::random_view(rng),
            78..86 => Step::random_log(rng),
            _ => Step::random_upkeep(rng),
        }
    }

    fn random_write(rng: &mut StdRng) -> Step {
        let keyspace = rng.random_range(0..KEYSPACES);
        match rng.random_range(0..44) {
            0..14 => Step::Put { keyspace, key: key(rng), value: value(rng) },
            14..21 => Step::Delete { keyspace, key: key(rng) },
            21..35 => {
                use Durability::{Buffered, NoLog, Synced};
                let durability = [None, None, Some(Buffered), Some(Synced), Some(NoLog)][rng.random_range(0..5)];
                Step::Write { batch: batch(rng), metadata: metadata(rng), durability }
            }
            35..37 => Step::PutAll { keyspace, entries: keys(rng).into_iter().map(|key| (key, value(rng))).collect() },
            37..40 => Step::Ingest { keyspace, entries: sorted_entries(rng), unfollowed: rng.random_bool(0.8) },
            40..41 => Step::DeleteAll { keyspace, keys: keys(rng) },
            41..43 => {
                let at = [0, 0, 0, 1, 5, -1, -3, -20, -5000][rng.random_range(0..9)];
                Step::Apply { at, writes: batch(rng), metadata: values_of(metadata(rng)) }
            }
            _ => {
                let at = [0, 0, 2, -1][rng.random_range(0..4)];
                let writes = if rng.random_bool(0.3) { batch(rng) } else { Vec::new() };
                Step::ApplyDrop { at, keyspace, writes, metadata: values_of(metadata(rng)) }
            }
        }
    }

    fn random_ends(rng: &mut StdRng) -> Ends {
        [0, u64::MAX, rng.random()][rng.random_range(0..3)]
    }

    fn random_read(rng: &mut StdRng) -> Step {
        let (keyspace, ends) = (rng.random_range(0..KEYSPACES), Step::random_ends(rng));
        match rng.random_range(0..18) {
            0..6 => Step::Get { keyspace, key: key(rng) },
            6..9 => Step::GetMany { keyspace, keys: keys(rng) },
            9..13 => Step::Range { keyspace, bounds: bounds(rng), ends },
            13..15 => Step::Prefix { keyspace, prefix: prefix(rng), ends },
            15..16 => Step::Iterate { keyspace, ends },
            16..17 => Step::ApproximateLen { keyspace },
            _ => Step::Metadata { name: rng.random_range(0..ENTRIES) },
        }
    }

    fn random_view(rng: &mut StdRng) -> Step {
        let (keyspace, which) = (rng.random_range(0..KEYSPACES), rng.random_range(0..8));
        let (ends, then) = (Step::random_ends(rng), rng.random_bool(0.7));
        match rng.random_range(0..18) {
            0..4 => Step::TakeSnapshot,
            4..6 => Step::ReadSnapshot { which, keyspace, then, bounds: bounds(rng), ends },
            6..7 => Step::ReadSnapshotPrefix { which, keyspace, then, prefix: prefix(rng), ends },
            7..9 => Step::GetSnapshot { which, keyspace, then, keys: keys(rng) },
            9..11 => Step::DropSnapshot { which },
            11..13 => Step::OpenIter { keyspace, bounds: bounds(rng) },
            13..14 => Step::OpenSnapshotIter { which, keyspace, then },
            14..17 => Step::AdvanceIter { which, count: rng.random_range(1..20), ends },
            _ => Step::DropIter { which },
        }
    }

    fn random_log(rng: &mut StdRng) -> Step {
        let (name, which, at) = (rng.random_range(0..ENTRIES), rng.random_range(0..8), at(rng));
        match rng.random_range(0..16) {
            0..3 => Step::Changes { at },
            3..6 => Step::OpenChanges { at },
            6..9 => Step::FollowChanges { which },
            9..10 => Step::DropChanges { which },
            10..13 => Step::SetCursor { name, at, metadata: values_of(metadata(rng)) },
            13..15 => Step::Cursor { name },
            _ => Step::RemoveCursor { name },
        }
    }

    fn random_upkeep(rng: &mut StdRng) -> Step {
        let keyspace = rng.random_range(0..KEYSPACES);
        match rng.random_range(0..56) {
            0..3 => Step::Sync,
            3..13 => Step::Flush { keyspace },
            13..17 => Step::FlushAll,
            17..23 => Step::Compact { keyspace },
            23..28 => Step::WaitForCompaction,
            28..30 => Step::Verify,
            30..33 => Step::Metrics,
            33..34 => Step::Replicate,
            34..36 => Step::ListKeyspaces,
            36..41 => Step::OpenKeyspace { keyspace, default_options: rng.random_bool(0.2) },
            41..46 => Step::DropKeyspace { keyspace, recreate: rng.random_bool(0.7) },
            46..48 => Step::CloseAndOpen,
            48..50 => Step::DropAndOpen,
            50..51 => Step::OpenReadOnly,
            51..52 => Step::OpenTwice,
            52..54 => Step::BadArguments { keyspace },
            _ => Step::ForeignHandles { keyspace },
        }
    }
}
