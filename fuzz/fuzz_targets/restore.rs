//! Restoring from any log at all: what cannot be applied is refused, what came before it stays, and a restore that a
//! power cut interrupts goes on to the same end.
#![no_main]

use std::collections::BTreeMap;
use std::sync::Arc;

use arbitrary::{Result, Unstructured};
use siltstone::fs::{Keep, SimFileSystem};
use siltstone::{Change, ChangeBatch, Db, KeyspaceOptions, MAX_KEY_BYTES, Options};
use siltstone_changelog::{Batches, Error, Position, Restore, SOURCE_POSITION, Source};

type State = BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>>;

const NAMES: [&str; 6] = ["left", "right", "größe", "", "a/b", "nul\0"];

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut input = Unstructured::new(data);
    let (Ok(partial), Ok(calls), Ok(seed)) = (input.arbitrary(), input.arbitrary::<u8>(), input.arbitrary()) else {
        return;
    };
    let mut log = Log(Vec::new());
    while !input.is_empty() && log.0.len() < 30 {
        let Ok(batch) = batch(&mut input, log.0.last().map_or(0, ChangeBatch::last_seqno)) else { break };
        // One that cannot be made is none.
        log.0.extend(batch);
    }
    let expected = Expected::of(&log, partial);
    let fs = SimFileSystem::new();
    expected.check(&fs, restore(&fs, &log, partial));
    let cut = SimFileSystem::new();
    cut.stop_after(calls.into());
    if let Ok((db, _)) = restore(&cut, &log, partial) {
        drop(db);
    }
    let left = cut.crash_clone(if calls % 2 == 0 { Keep::Nothing } else { Keep::Some }, seed);
    let answer = match restore(&left, &log, partial) {
        // The power went when all was written but the answer.
        Err(Error::NotEmpty { .. }) => finished(&left),
        answer => answer,
    };
    expected.check(&left, answer);
});

/// A log in memory; positions are numbers of batches.
#[derive(Clone)]
struct Log(Vec<ChangeBatch>);

fn position(number: usize) -> siltstone_changelog::Result<Position> {
    Position::from_bytes(number.to_string())
}

impl Source for Log {
    fn bounds(&self) -> siltstone_changelog::Result<(Position, Position)> {
        Ok((position(0)?, position(self.0.len())?))
    }

    fn read(&self, from: &Position) -> siltstone_changelog::Result<Batches> {
        let from: usize = from.to_string().parse().expect("a position of this log");
        let batches = self.0.clone().into_iter().enumerate().skip(from);
        Ok(Box::new(batches.map(|(number, batch)| Ok((position(number + 1)?, batch)))))
    }
}

fn options(fs: &SimFileSystem) -> Options {
    let options = Options::new().memory_bytes(siltstone::MIN_MEMORY_BYTES).background_threads(1);
    options.memtable_bytes(64 << 10).wal_segment_bytes(64 << 10).file_system(Arc::new(fs.clone()))
}

fn restore(fs: &SimFileSystem, log: &Log, partial: bool) -> siltstone_changelog::Result<(Db, Position)> {
    let restore = Restore::new(log.clone()).into_with("/db", options(fs)).file_system(Arc::new(fs.clone()));
    restore.keyspace_options("right", KeyspaceOptions::new().block_bytes(64)).allow_partial(partial).run()
}

/// A database whose restore is over.
fn finished(fs: &SimFileSystem) -> siltstone_changelog::Result<(Db, Position)> {
    let db = options(fs).open("/db")?;
    let end = db.metadata(SOURCE_POSITION).expect("a restored database knows its position");
    let end = Position::from_bytes(&end)?;
    Ok((db, end))
}

/// What a restore comes to.
struct Expected {
    state: State,
    last_seqno: u64,
    /// How many batches were read before it ended.
    read: usize,
    /// Whether that is the end of the log.
    whole: bool,
}

impl Expected {
    /// The rules of `Db::apply` and of `Restore`, in few words.
    fn of(log: &Log, partial: bool) -> Self {
        let mut expected = Expected { state: State::new(), last_seqno: 0, read: 0, whole: true };
        for batch in &log.0 {
            let old = batch.last_seqno() <= expected.last_seqno;
            let begins_late = expected.last_seqno == 0 && batch.first_seqno() > 1 && !partial;
            if begins_late || !old && (batch.first_seqno() <= expected.last_seqno || !is_allowed(batch)) {
                expected.whole = false;
                break;
            }
            if !old {
                expected.last_seqno = batch.last_seqno();
                batch.changes().iter().for_each(|change| apply(&mut expected.state, change));
            }
            expected.read += 1;
        }
        expected
    }

    fn check(&self, fs: &SimFileSystem, answer: siltstone_changelog::Result<(Db, Position)>) {
        let db = match answer {
            Ok((db, end)) => {
                assert!(self.whole, "a log that cannot be applied was restored");
                assert_eq!(end.to_string(), self.read.to_string());
                db
            }
            Err(Error::Partial { .. } | Error::Engine(siltstone::Error::InvalidArgument(_))) if !self.whole => {
                options(fs).open("/db").expect("what was restored until then")
            }
            Err(error) => panic!("{error:?}"),
        };
        let mut found = State::new();
        for name in db.keyspaces() {
            let keyspace = db.keyspace(&name, KeyspaceOptions::new()).expect("keyspace");
            let entries = keyspace.iter().map(|entry| entry.expect("entry"));
            found.insert(name, entries.map(|(key, value)| (key.into(), value.into())).collect());
        }
        // A batch that was refused may have created its keyspaces.
        found.retain(|_, entries: &mut BTreeMap<Vec<u8>, Vec<u8>>| !entries.is_empty());
        assert!(found == self.state, "the state that the log stands for");
        assert_eq!(db.last_seqno(), self.last_seqno);
        let position = db.metadata(SOURCE_POSITION).map_or(0, |position| {
            std::str::from_utf8(&position).ok().and_then(|number| number.parse().ok()).expect("a number")
        });
        assert_eq!(position, self.read, "data and position agree");
    }
}

fn is_allowed(batch: &ChangeBatch) -> bool {
    let changes = batch.changes();
    changes.iter().all(|change| {
        let name = change.keyspace().as_str();
        let named = !name.is_empty() && !name.contains(|letter: char| letter.is_control() || "/\\".contains(letter));
        named
            && match change {
                Change::Put { key, .. } | Change::Delete { key, .. } => key.len() <= MAX_KEY_BYTES,
                _ => changes.len() == 1,
            }
    })
}

fn apply(state: &mut State, change: &Change) {
    let name = change.keyspace().to_string();
    let keyspace = state.entry(name.clone()).or_default();
    match change {
        Change::Put { key, value, .. } => drop(keyspace.insert(key.to_vec(), value.to_vec())),
        Change::Delete { key, .. } => drop(keyspace.remove(&key[..])),
        _ => keyspace.clear(),
    }
    if keyspace.is_empty() {
        state.remove(&name);
    }
}

/// Mostly the batch that comes next, sometimes an earlier or a later one; `None` if it cannot be.
fn batch(input: &mut Unstructured<'_>, last_seqno: u64) -> Result<Option<ChangeBatch>> {
    let first = match input.int_in_range(0..=15u8)? {
        0 => input.arbitrary()?,
        1 => last_seqno.wrapping_add(input.int_in_range(0..=9)?),
        2 => last_seqno,
        _ => last_seqno.wrapping_add(1),
    };
    let count = input.int_in_range(1..=4)?;
    let changes = (0..count).map(|_| change(input)).collect::<Result<Vec<_>>>()?;
    Ok(ChangeBatch::new(first, changes).ok())
}

fn change(input: &mut Unstructured<'_>) -> Result<Change> {
    let known = !input.ratio(1, 32)?;
    let keyspace = NAMES[input.int_in_range(if known { 0..=2 } else { 3..=5 })?].into();
    let kind = input.int_in_range(0..=15u8)?;
    let key_bytes = if input.ratio(1, 64)? { MAX_KEY_BYTES + usize::from(input.arbitrary::<bool>()?) } else { 1 };
    let key = vec![input.int_in_range(b'a'..=b'f')?; key_bytes].into();
    Ok(match kind {
        0 => Change::DropKeyspace { keyspace },
        1..=4 => Change::Delete { keyspace, key },
        _ => Change::Put { keyspace, key, value: vec![b'v'; input.arbitrary::<u8>()?.into()].into() },
    })
}
