//! The mutation log against the store: what `changes` says must be what can be read.

use std::collections::BTreeMap;

use siltstone::{Change, Changes, Db, Error, Keyspace, SeqNo};

/// The log from its oldest retained number on, and that number.
pub fn oldest_changes(db: &Db) -> (SeqNo, Changes) {
    match db.changes(1) {
        Ok(changes) => (1, changes),
        Err(Error::NotRetained { requested: 1, oldest }) => {
            // The background may let go of more log between the two calls.
            match db.changes(oldest) {
                Err(Error::NotRetained { .. }) => oldest_changes(db),
                changes => (oldest, changes.unwrap()),
            }
        }
        Err(error) => panic!("changes(1): {error}"),
    }
}

/// Follows the whole retained log, whose batches have to come without gaps up to the last sequence number, and compares
/// the last change of every key with what `keyspaces` (all there are, every write to them logged) hold; if nothing was
/// let go yet, it must also be all they hold. Answers how many changes there were.
pub fn check_log(db: &Db, keyspaces: &[Keyspace]) -> u64 {
    let (oldest, changes) = oldest_changes(db);
    let mut last: BTreeMap<(String, Vec<u8>), Option<Vec<u8>>> = BTreeMap::new();
    let mut next: Option<SeqNo> = None;
    let mut count = 0;
    for batch in changes {
        let batch = batch.unwrap();
        assert!(batch.first_seqno() <= next.unwrap_or(oldest) && batch.last_seqno() >= oldest);
        assert!(next.is_none_or(|next| batch.first_seqno() == next), "a gap in the log before {batch:?}");
        next = Some(batch.last_seqno() + 1);
        count += batch.changes().len() as u64;
        for change in batch.changes() {
            let name = change.keyspace().to_string();
            match change {
                Change::Put { key, value, .. } => drop(last.insert((name, key.to_vec()), Some(value.to_vec()))),
                Change::Delete { key, .. } => drop(last.insert((name, key.to_vec()), None)),
                Change::DropKeyspace { .. } => last.retain(|(keyspace, _), _| *keyspace != name),
                other => panic!("an unknown change: {other:?}"),
            }
        }
    }
    assert_eq!(
        next.unwrap_or(oldest),
        db.last_seqno() + 1,
        "the log, {count} changes from {oldest} on, ends before the store"
    );
    for ((name, key), value) in &last {
        let keyspace = keyspaces.iter().find(|keyspace| keyspace.name() == name);
        let found = keyspace.and_then(|keyspace| keyspace.get(key).unwrap());
        assert_eq!(found.as_deref(), value.as_deref(), "log and store disagree on {name}/{}", key.escape_ascii());
    }
    if oldest == 1 {
        let entries: usize = keyspaces.iter().map(|keyspace| keyspace.iter().count()).sum();
        assert_eq!(entries, last.values().flatten().count(), "the store holds more than the whole log");
    }
    count
}
