//! Ingesting: sorted entries go straight into tables, past log and memtable.
//!
//! First the tables are written, on the caller's thread and without any lock: nothing shows of them, and what goes
//! wrong leaves nothing behind. Then, in [`publish`], writers wait for the length of one change of the manifest while
//! all tables become visible under the next numbers. So an ingest is newer than everything that was committed before it
//! answers, and that is decided only then; the tables are written before, and state the least number it could be. The
//! manifest states the one it was (`table::properties::Origin`).

use std::sync::Arc;

use parking_lot::Mutex;

use crate::batch::check_lengths;
use crate::compaction::job::picker_options;
use crate::compaction::output::Outputs;
use crate::compaction::plan::Grandparent;
use crate::db::DbHandle;
use crate::error::{Error, Result};
use crate::key::{MAX_SEQNO, SeqNo, Trailer, ValueKind, prefix_u64};
use crate::name::KeyspaceName;
use crate::store::Store;
use crate::table::TableMeta;
use crate::table::handle::TableHandle;
use crate::tree::Tree;
use crate::version::LEVELS;
use crate::version::version::Version;
use crate::write::commit::Writer;
use crate::write::state::Numbers;

mod place;
mod publish;
#[cfg(test)]
mod sorted_tests;
#[cfg(test)]
mod tests;

use publish::Part;

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
    // The least number it could be; see the module.
    let seqno = (store.visible() + 1).min(MAX_SEQNO);
    let writing = Writing { store, writer, tree, seqno, numbered_later: true, for_empty: false };
    let tables = writing.write(entries.map(|(key, value)| (key, Some(value))))?;
    if tables.is_empty() {
        return Ok(store.visible());
    }
    let numbers = Numbers::Next(tables.iter().map(|meta| meta.entries).sum());
    publish::publish(handle, writer, &[Part { tree: tree.clone(), tables, for_empty: false }], numbers)
}

/// See [`Db::apply_sorted`](crate::Db::apply_sorted).
pub(crate) fn apply_sorted<E, K, V>(handle: &DbHandle, parts: Vec<(KeyspaceName, E)>, last_seqno: SeqNo) -> Result<()>
where
    E: Iterator<Item = (K, Option<V>)> + Send,
    K: AsRef<[u8]>,
    V: AsRef<[u8]>,
{
    let (writer, store) = (handle.writer()?, &*handle.store);
    store.health.check_write()?;
    publish::check_unfollowed(&store.cursors.lock())?;
    if !(store.visible() + 1..MAX_SEQNO).contains(&last_seqno) {
        let next = store.visible() + 1;
        return Err(Error::InvalidArgument(format!("numbers up to {last_seqno}, but {next} is the next number here")));
    }
    let mut work: Vec<(Arc<Tree>, E)> = Vec::with_capacity(parts.len());
    for (name, entries) in parts {
        KeyspaceName::check(&name)?;
        work.push((handle.tree_or_default(&name)?, entries));
    }
    // Those of one keyspace stay in their order.
    work.sort_by_key(|(tree, _)| tree.id);
    let (parts, written) = write_parts(store, writer, work, last_seqno);
    if let Err(error) = written.and_then(|()| parts.iter().try_for_each(check_disjoint)) {
        publish::remove(store, &parts);
        return Err(error);
    }
    publish::publish(handle, writer, &parts, Numbers::UpTo(last_seqno)).map(drop)
}

/// Writes what `work` has for each keyspace, side by side; the first error.
fn write_parts<E, K, V>(
    store: &Store,
    writer: &Writer,
    work: Vec<(Arc<Tree>, E)>,
    seqno: SeqNo,
) -> (Vec<Part>, Result<()>)
where
    E: Iterator<Item = (K, Option<V>)> + Send,
    K: AsRef<[u8]>,
    V: AsRef<[u8]>,
{
    let mut parts: Vec<Part> = Vec::new();
    for (tree, _) in &work {
        if parts.last().is_none_or(|part| part.tree.id != tree.id) {
            let for_empty = publish::is_empty(&tree.view());
            parts.push(Part { tree: tree.clone(), tables: Vec::new(), for_empty });
        }
    }
    let is_for_empty = |id| parts.iter().any(|part| part.tree.id == id && part.for_empty);
    let write = |(tree, entries): (Arc<Tree>, E)| {
        let for_empty = is_for_empty(tree.id);
        let writing = Writing { store, writer, tree: &tree, seqno, numbered_later: false, for_empty };
        (tree.id, writing.write(entries))
    };
    let written = side_by_side(work, write);
    let mut outcome = Ok(());
    for (id, tables) in written {
        match tables {
            Ok(tables) => {
                if let Some(part) = parts.iter_mut().find(|part| part.tree.id == id) {
                    part.tables.extend(tables);
                }
            }
            Err(error) => outcome = outcome.and(Err(error)),
        }
    }
    (parts, outcome)
}

/// What `run` makes of each of `work`, in its order, by one more thread than there are processors: each of them waits for
/// storage now and then.
fn side_by_side<W: Send, R: Send>(work: Vec<W>, run: impl Fn(W) -> R + Sync) -> Vec<R> {
    let threads = std::thread::available_parallelism().map_or(1, |processors| processors.get() + 1).min(work.len());
    if threads < 2 {
        return work.into_iter().map(run).collect();
    }
    let (queue, done) = (Mutex::new(work.into_iter().enumerate()), Mutex::new(Vec::new()));
    let run = || {
        loop {
            let Some((at, next)) = queue.lock().next() else { break };
            let answer = run(next);
            done.lock().push((at, answer));
        }
    };
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(run))));
    let mut done = done.into_inner();
    done.sort_unstable_by_key(|&(at, _)| at);
    done.into_iter().map(|(_, answer)| answer).collect()
}

/// # Errors
/// `InvalidArgument` for parts of one keyspace that do not follow one another.
fn check_disjoint(part: &Part) -> Result<()> {
    match part.tables.windows(2).find(|pair| pair[0].largest >= pair[1].smallest) {
        None => Ok(()),
        Some(pair) => Err(Error::InvalidArgument(format!(
            "a part of keyspace {:?} begins with {}, which does not come after {} at the end of the part before it: the \
             parts of one keyspace come in ascending order",
            part.tree.name,
            shown(&pair[1].smallest),
            shown(&pair[0].largest)
        ))),
    }
}

fn check_open(store: &Store, tree: &Tree) -> Result<()> {
    store.health.check_write()?;
    tree.check_live(MAX_SEQNO)
}

/// Writing entries into tables that nothing names yet.
struct Writing<'a> {
    store: &'a Store,
    writer: &'a Writer,
    tree: &'a Arc<Tree>,
    /// The number of all entries.
    seqno: SeqNo,
    /// Whether they get another one when they become visible; then there are only puts.
    numbered_later: bool,
    /// Whether deletes are left out, as there is nothing to delete.
    for_empty: bool,
}

impl Writing<'_> {
    /// Writes the entries, of which those without a value are deletes, and makes the tables durable.
    fn write<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        entries: impl Iterator<Item = (K, Option<V>)>,
    ) -> Result<Vec<TableMeta>> {
        let Writing { store, writer, tree, seqno, numbered_later, for_empty } = *self;
        let version = tree.view_arc().version.clone();
        let below = deepest_tables(&version);
        let mut outputs = Outputs::ingest(store, tree, &picker_options(store, tree), &below, numbered_later);
        let mut unchecked_bytes = 0;
        let mut write = |(position, (key, value)): (usize, (K, Option<V>))| {
            let (key, value) = (key.as_ref(), value.as_ref().map(AsRef::as_ref));
            let kind = if value.is_some() { ValueKind::Put } else { ValueKind::Delete };
            let value = value.unwrap_or_default();
            let prefix = prefix_u64(key);
            check_entry(&outputs, position, key, prefix, value.len())?;
            if for_empty && kind == ValueKind::Delete {
                return Ok(());
            }
            outputs.add(key, prefix, Trailer::new(seqno, kind), value, || !is_covered(&version, key))?;
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
    let (key, last) = (shown(key), shown(last));
    Error::InvalidArgument(format!(
        "the entry at position {position} has key {key}, which does not come after {last} before it: an ingest takes \
         strictly ascending keys"
    ))
}

/// A key as errors show it.
fn shown(key: &[u8]) -> String {
    let more = if key.len() > SHOWN_KEY_BYTES { "..." } else { "" };
    format!("\"{}\"{more}", key[..key.len().min(SHOWN_KEY_BYTES)].escape_ascii())
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
