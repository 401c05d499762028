//! Restoring to an earlier moment: what lies after it is undone, in the database and, once that is shipped, in the log.
//!
//! A log only grows. So the state of that moment is restored, and each key that was changed afterwards is written again
//! with the value it had, or as a delete, under numbers behind the end of the log: one batch, which seals it. Who reads the
//! log from the beginning comes to the same.

use std::collections::BTreeSet;

use siltstone::{Change, ChangeBatch, Db, KeyspaceName, KeyspaceOptions, SeqNo, Slice};

use super::SOURCE_POSITION;
use crate::applier::Applier;
use crate::error::Result;
use crate::position::Position;
use crate::sink::Batches;

/// What is changed after a moment.
#[derive(Debug, Default)]
struct Later {
    keys: BTreeSet<(KeyspaceName, Slice)>,
    dropped: BTreeSet<KeyspaceName>,
    last_seqno: SeqNo,
    end: Option<Position>,
}

/// Undoes `later`, which is the log behind the moment that `db` is of; how many keys, and the position behind all of it.
///
/// # Errors
/// What the source and the database say. Nothing is undone then, and the database is of that moment still.
pub(super) fn undo(db: &Db, applier: &mut Applier, later: Batches) -> Result<(u64, Option<Position>)> {
    let later = read(later, db.last_seqno())?;
    let Some(end) = later.end.clone() else { return Ok((0, None)) };
    let changes = values_now(db, later.keys, &later.dropped)?;
    let count = changes.len() as u64;
    if count == 0 {
        return Ok((0, Some(end)));
    }
    let batch = ChangeBatch::new(later.last_seqno + 1, changes)?;
    applier.open_keyspaces(db, &batch)?;
    db.apply(&batch, &[(SOURCE_POSITION, end.as_bytes())])?;
    Ok((count, Some(end)))
}

/// What lies behind `after_seqno`.
fn read(batches: Batches, after_seqno: SeqNo) -> Result<Later> {
    let mut later = Later::default();
    for next in batches {
        let (position, batch) = next?;
        if batch.last_seqno() <= after_seqno {
            later.end = Some(position);
            continue;
        }
        for change in batch.changes() {
            match change {
                Change::Put { keyspace, key, .. } | Change::Delete { keyspace, key } => {
                    // A copy, as there may be many: the key shares the memory of all that was read with it.
                    later.keys.insert((keyspace.clone(), Slice::copy_from_slice(key)));
                }
                other => drop(later.dropped.insert(other.keyspace().clone())),
            }
        }
        later.last_seqno = batch.last_seqno();
        later.end = Some(position);
    }
    Ok(later)
}

/// Writes that give each key the value it has: those that were changed, and all of the keyspaces that were dropped.
fn values_now(
    db: &Db,
    mut keys: BTreeSet<(KeyspaceName, Slice)>,
    dropped: &BTreeSet<KeyspaceName>,
) -> Result<Vec<Change>> {
    let there: BTreeSet<String> = db.keyspaces().into_iter().collect();
    let open = |name: &KeyspaceName| match there.contains(&**name) {
        true => db.keyspace(name, KeyspaceOptions::default()).map(Some),
        false => Ok(None),
    };
    for name in dropped {
        let Some(keyspace) = open(name)? else { continue };
        for entry in keyspace.iter() {
            keys.insert((name.clone(), entry?.0));
        }
    }
    let mut changes = Vec::with_capacity(keys.len());
    let mut current = None;
    for (name, key) in keys {
        let keyspace = match current.take() {
            Some((last, keyspace)) if last == name => keyspace,
            _ => open(&name)?,
        };
        let value = match &keyspace {
            Some(keyspace) => keyspace.get(&key)?,
            None => None,
        };
        changes.push(match value {
            Some(value) => Change::Put { keyspace: name.clone(), key, value },
            None => Change::Delete { keyspace: name.clone(), key },
        });
        current = Some((name, keyspace));
    }
    Ok(changes)
}
