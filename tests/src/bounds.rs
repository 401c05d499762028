//! What an answer of the engine must lie within where configurations may differ: metrics, approximate sizes, what can
//! be read back at once, and the whole log applied to another database.

use std::sync::Arc;

use siltstone::fs::SimFileSystem;
use siltstone::{Db, Error, Keyspace, KeyspaceMetrics, KeyspaceOptions};

use crate::answer::LoggedBatch;
use crate::model::{Life, Model};
use crate::options::{KEYSPACES, tiny};
use crate::runner::{Runner, name};
use crate::state::{self, State};
use crate::steps::Step;

/// Checks a database after `step`, which `model` has done too.
///
/// # Panics
/// If something is out of its bounds.
pub fn check(runner: &Runner, model: &Model, step: &Step) {
    let db = runner.db();
    let place = model.place();
    assert_eq!(db.last_seqno(), place.last_seqno, "the last sequence number");
    let live = |n: usize| runner.handle(n).filter(|_| place.live[n]).zip(model.life(n));
    match step {
        Step::Put { keyspace, key, .. } | Step::Delete { keyspace, key } => read_back(live(*keyspace), [key]),
        Step::PutAll { keyspace, entries } | Step::Ingest { keyspace, entries, .. } => {
            read_back(live(*keyspace), entries.iter().map(|(key, _)| key))
        }
        Step::DeleteAll { keyspace, keys } => read_back(live(*keyspace), keys),
        Step::Write { batch: writes, .. } | Step::Apply { writes, .. } => {
            writes.iter().for_each(|(keyspace, key, _)| read_back(live(*keyspace), [key]));
        }
        Step::ApproximateLen { keyspace } => approximate_len(runner.handle(*keyspace), live(*keyspace)),
        Step::Compact { keyspace } if model.live_snapshots() == 0 => compacted(live(*keyspace)),
        Step::Flush { keyspace } => flushed(live(*keyspace)),
        Step::FlushAll => (0..KEYSPACES).for_each(|n| flushed(live(n))),
        Step::Sync => {
            let logged = model.log(1).last().map_or(0, LoggedBatch::last_seqno);
            assert!(db.metrics().synced_seqno >= logged, "synced, up to {logged}");
        }
        Step::Metrics => metrics(db, model),
        Step::Replicate => replicate(db, model),
        _ => {}
    }
}

type Live<'l> = Option<(&'l Keyspace, &'l Life)>;

fn read_back<'k>(live: Live<'_>, keys: impl IntoIterator<Item = &'k Vec<u8>>) {
    let Some((handle, life)) = live else { return };
    for key in keys {
        let found = handle.get(key).unwrap();
        assert_eq!(found.as_deref(), life.map.get(key).map(Vec::as_slice), "read back {}", state::short(key));
    }
}

fn approximate_len(handle: Option<&Keyspace>, live: Live<'_>) {
    let Some(len) = handle.map(Keyspace::approximate_len) else { return };
    let Some((_, life)) = live else {
        assert_eq!(len, 0, "a dropped keyspace's length");
        return;
    };
    let exact = life.map.len() as u64;
    assert!(!life.pristine || len == exact, "{len} of {exact} entries, though nothing was overwritten or deleted");
    let least = exact.saturating_sub(2 * life.deletes);
    assert!((least..=life.puts).contains(&len), "{len} entries, not {least} to {}", life.puts);
}

fn compacted(live: Live<'_>) {
    let Some((handle, life)) = live else { return };
    let metrics = handle.metrics();
    assert_eq!(handle.approximate_len(), life.map.len() as u64, "exact once compacted without snapshots: {metrics}");
}

fn flushed(live: Live<'_>) {
    let Some((handle, _)) = live else { return };
    let metrics = handle.metrics();
    assert_eq!((metrics.memtable_entries, metrics.sealed_memtables), (0, 0), "flushed: {metrics}");
}

fn metrics(db: &Db, model: &Model) {
    let metrics = db.metrics();
    assert!(!metrics.to_string().is_empty());
    assert_eq!(metrics.read_only_reason, None);
    assert_eq!(metrics.last_seqno, model.place().last_seqno);
    assert!(metrics.synced_seqno <= metrics.last_seqno, "{metrics}");
    assert_eq!(metrics.snapshots, model.live_snapshots() as u64, "live snapshots");
    assert!(metrics.wal_bytes <= metrics.wal_file_bytes, "{metrics}");
    let memtable_bytes: u64 = metrics.keyspaces.iter().map(|keyspace| keyspace.memtable_bytes).sum();
    assert!(memtable_bytes <= metrics.memtable_bytes, "{memtable_bytes} in\n{metrics}");
    let names: Vec<&String> = metrics.keyspaces.iter().map(|keyspace| &keyspace.name).collect();
    let expected: Vec<String> = (0..KEYSPACES).filter(|&n| model.life(n).is_some()).map(name).collect();
    assert_eq!(names, expected.iter().collect::<Vec<_>>());
    let lives = (0..KEYSPACES).filter_map(|n| model.life(n));
    metrics.keyspaces.iter().zip(lives).for_each(|(metrics, life)| keyspace_metrics(metrics, life));
}

fn keyspace_metrics(metrics: &KeyspaceMetrics, life: &Life) {
    let levels = &metrics.amplification.levels;
    let entries = metrics.memtable_entries + levels.iter().map(|level| level.entries).sum::<u64>();
    let written = life.map.len() as u64..=life.puts + life.deletes;
    assert!(written.contains(&entries), "{entries} entries, not {written:?}: {metrics}");
    for level in levels {
        assert!(level.tombstones <= level.entries && level.entries >= level.tables, "{metrics}");
        assert_eq!((level.file_bytes == 0, level.entries == 0), (level.tables == 0, level.tables == 0), "{metrics}");
    }
}

/// What the log says of each keyspace.
fn fold(batches: &[LoggedBatch]) -> State {
    let mut state = State::new();
    for (keyspace, key, value) in batches.iter().flat_map(|batch| &batch.changes) {
        match key {
            Some(key) => {
                let value = value.as_ref().map(|value| value.0.clone());
                state::apply(&mut state, &(keyspace.clone(), key.0.clone(), value));
            }
            None => drop(state.remove(keyspace)),
        }
    }
    state
}

/// Applies the log, if all of it is retained, to a new database, every batch twice.
fn replicate(db: &Db, model: &Model) {
    let changes = match db.changes(1) {
        Err(Error::NotRetained { .. }) => return,
        changes => changes.unwrap(),
    };
    let replica = tiny().file_system(Arc::new(SimFileSystem::new())).open("/replica").unwrap();
    for batch in changes {
        let batch = batch.unwrap();
        for _ in 0..2 {
            let position = batch.last_seqno().to_string();
            assert_eq!(replica.apply(&batch, &[("position", &position)]).unwrap(), batch.last_seqno());
            assert_eq!(replica.metadata("position").unwrap(), position);
        }
    }
    let log = model.log(1);
    assert_eq!(replica.last_seqno(), log.last().map_or(0, LoggedBatch::last_seqno));
    let found = state::dump(&replica, &KeyspaceOptions::default()).unwrap();
    if let Some(difference) = state::difference(&found, &fold(&log)) {
        panic!("the log applied elsewhere: {difference}");
    }
}
