//! Ingesting: sorted entries go straight into tables, past log and memtable.
//!
//! First the tables are written, on the caller's thread and without any lock: nothing shows of them, and what goes
//! wrong leaves nothing behind. Then, in [`publish`], writers wait for the length of one change of the manifest while
//! all tables become visible under the next numbers. So an ingest is newer than everything that was committed before it
//! answers, and that is decided only then; the tables are written before, and state the least number it could be. The
//! manifest states the one it was (`table::properties::Origin`).

use std::sync::Arc;

use crate::batch::check_lengths;
use crate::compaction::job::picker_options;
use crate::compaction::output::Outputs;
use crate::compaction::plan::Grandparent;
use crate::db::DbHandle;
use crate::error::{Error, Result};
use crate::key::{MAX_SEQNO, SeqNo, Trailer, ValueKind, prefix_u64};
use crate::store::Store;
use crate::table::TableMeta;
use crate::table::handle::TableHandle;
use crate::tree::Tree;
use crate::version::LEVELS;
use crate::version::version::Version;
use crate::write::commit::Writer;

mod place;
mod publish;
#[cfg(test)]
mod tests;

/// How often the writing looks whether it may go on, in bytes of keys and values.
const CHECK_BYTES: usize = 256 << 10;

/// How much of a key an error shows, in bytes.
const SHOWN_KEY_BYTES: usize = 32;

/// See [`Keyspace::ingest`](crate::Keyspace::ingest).
pub(crate) fn ingest<K: AsRef<[u8]>, V: AsRef<[u8]>>(
    handle: &DbHandle,
    tree: &Arc<Tree>,
    entries: impl Iterator<Item = (K, V)>,
) -> Result<SeqNo> {
    let (writer, store) = (handle.writer()?, &*handle.store);
    check_open(store, tree)?;
    // Asked again at the end: now, so that nobody writes for hours in vain.
    publish::check_unfollowed(&store.cursors.lock())?;
    let tables = write_tables(store, writer, tree, entries)?;
    if tables.is_empty() {
        return Ok(store.visible());
    }
    publish::publish(handle, writer, tree, tables)
}

fn check_open(store: &Store, tree: &Tree) -> Result<()> {
    store.health.check_write()?;
    tree.check_live(MAX_SEQNO)
}

/// Writes the entries into tables that nothing names yet, and makes them durable.
fn write_tables<K: AsRef<[u8]>, V: AsRef<[u8]>>(
    store: &Store,
    writer: &Writer,
    tree: &Tree,
    entries: impl Iterator<Item = (K, V)>,
) -> Result<Vec<TableMeta>> {
    let version = tree.view_arc().version.clone();
    let below = deepest_tables(&version);
    let mut outputs = Outputs::ingest(store, tree, &picker_options(store, tree), &below);
    let trailer = Trailer::new((store.visible() + 1).min(MAX_SEQNO), ValueKind::Put);
    let mut unchecked_bytes = 0;
    let mut write = |(position, (key, value)): (usize, (K, V))| {
        let (key, value) = (key.as_ref(), value.as_ref());
        let prefix = prefix_u64(key);
        check_entry(&outputs, position, key, prefix, value.len())?;
        outputs.add(key, prefix, trailer, value, || !is_covered(&version, key))?;
        unchecked_bytes += key.len() + value.len();
        if unchecked_bytes >= CHECK_BYTES {
            writer.hold_back(std::mem::take(&mut unchecked_bytes));
            check_open(store, tree)?;
        }
        Ok(())
    };
    let written = entries.enumerate().try_for_each(&mut write);
    outputs.finish_after(written).map(|(tables, _)| tables)
}

#[inline]
fn check_entry(outputs: &Outputs<'_>, position: usize, key: &[u8], prefix: u64, value_bytes: usize) -> Result<()> {
    if let Err(Error::InvalidArgument(reason)) = check_lengths(key.len(), value_bytes) {
        return Err(Error::InvalidArgument(format!("the entry at position {position}: {reason}")));
    }
    if outputs.is_after_last(key, prefix) {
        return Ok(());
    }
    Err(out_of_order(position, key, outputs.last_key()))
}

#[cold]
fn out_of_order(position: usize, key: &[u8], last: &[u8]) -> Error {
    let shown = |key: &[u8]| {
        let more = if key.len() > SHOWN_KEY_BYTES { "..." } else { "" };
        format!("\"{}\"{more}", key[..key.len().min(SHOWN_KEY_BYTES)].escape_ascii())
    };
    let (key, last) = (shown(key), shown(last));
    Error::InvalidArgument(format!(
        "the entry at position {position} has key {key}, which does not come after {last} before it: an ingest takes \
         strictly ascending keys"
    ))
}

/// The tables of the deepest level that has any: outputs that lie on them are cut where they end.
fn deepest_tables(version: &Version<TableHandle>) -> Vec<Grandparent> {
    let deepest = version.levels()[1..].iter().rfind(|level| !level.is_empty());
    let describe = |handle: &Arc<TableHandle>| Grandparent::of(&handle.meta);
    deepest.map(|level| level.tables().iter().map(describe).collect()).unwrap_or_default()
}

/// Whether some table covers `key`: then one that begins with it will not lie on the bottom.
fn is_covered(version: &Version<TableHandle>, key: &[u8]) -> bool {
    version.find_in_level0(key).next().is_some() || (1..LEVELS).any(|level| version.find(level, key).is_some())
}
