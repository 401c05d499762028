//! Applying another database's log: replicas keep the sequence numbers of what they replicate, so that delivery may
//! repeat.

use std::sync::Arc;

use crate::batch::{WriteBatch, check_lengths};
use crate::changes::{Change, ChangeBatch};
use crate::db::DbHandle;
use crate::error::{Error, Result};
use crate::key::SeqNo;
use crate::name::KeyspaceName;
use crate::tree::Tree;

/// See [`Db::apply`](crate::Db::apply).
pub(crate) fn apply<V: AsRef<[u8]>>(handle: &DbHandle, changes: &ChangeBatch, metadata: &[(&str, V)]) -> Result<SeqNo> {
    handle.store.health.check_write()?;
    let last = handle.store.visible();
    let mut batch = WriteBatch::new();
    for (name, value) in metadata {
        batch.metadata(name, Some(value));
    }
    batch.check()?;
    if changes.last_seqno() <= last {
        return if batch.is_empty() { Ok(last) } else { handle.write(batch) };
    }
    if changes.first_seqno() <= last {
        let reason = format!(
            "the batch has numbers {} to {}, and {last} is the last one here",
            changes.first_seqno(),
            changes.last_seqno()
        );
        return Err(Error::InvalidArgument(reason));
    }
    if let [Change::DropKeyspace { keyspace }] = changes.changes() {
        // A drop is a batch of its own. Its metadata follows it: applying the drop again would change nothing. A
        // keyspace that was never written to may be missing here.
        handle.tree_or_default(keyspace)?;
        handle.drop_tree(keyspace, Some(changes.first_seqno()))?;
        return if batch.is_empty() { Ok(changes.last_seqno()) } else { handle.write(batch) };
    }
    // A keyspace that is missing is created for good, so nothing may be refused after that.
    changes.changes().iter().try_for_each(check)?;
    let instance = handle.store.instance;
    let mut current: Option<Arc<Tree>> = None;
    for change in changes.changes() {
        let name = change.keyspace();
        let tree = match current.take().filter(|tree| tree.name == *name) {
            Some(tree) => tree,
            None => handle.tree_or_default(name)?,
        };
        match change {
            Change::Put { key, value, .. } => batch.put_in(instance, tree.id, key, value),
            Change::Delete { key, .. } => batch.delete_in(instance, tree.id, key),
            // Refused above.
            Change::DropKeyspace { .. } => {}
        }
        current = Some(tree);
    }
    handle.writer()?.write_at(batch, changes.first_seqno())
}

/// Whether a change can be part of a batch of several.
fn check(change: &Change) -> Result<()> {
    match change {
        Change::Put { keyspace, key, value } => {
            KeyspaceName::check(keyspace).and_then(|()| check_lengths(key.len(), value.len()))
        }
        Change::Delete { keyspace, key } => KeyspaceName::check(keyspace).and_then(|()| check_lengths(key.len(), 0)),
        Change::DropKeyspace { .. } => {
            Err(Error::InvalidArgument("a keyspace drop comes in a batch of its own".to_owned()))
        }
    }
}
