//! What the background does, most urgent first: flush, help a compaction, shorten the log, remove files, compact. And, on
//! a thread of its own, preparing log and memory.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::background::Work;
use crate::compaction::job::{self, Job, Started, Step};
use crate::compaction::manual::ManualRequest;
use crate::error::{Error, Result};
use crate::flush;
use crate::store::Store;
use crate::sync::atomic::Ordering;
use crate::tree::Tree;
use crate::write::commit::Writer;
use crate::write::pressure::{Debt, delay_ns_per_kib};

/// The work of one open database.
#[derive(Debug)]
pub(crate) struct Maintenance {
    store: Arc<Store>,
    writer: Arc<Writer>,
}

impl Maintenance {
    pub(crate) fn new(store: Arc<Store>, writer: Arc<Writer>) -> Self {
        Maintenance { store, writer }
    }

    fn run(&self) -> Result<bool> {
        let store = &*self.store;
        if store.health.is_stopped() {
            return Ok(false);
        }
        Ok(flush::flush_next(store)?
            || help(store)
            || self.shorten_log()
            // Before compactions, which would pile up more.
            || purge(store)
            || self.compact_next()?)
    }

    /// When the log is over its limit, flushes the memtable that pins its oldest segment: a keyspace that is rarely
    /// written must not keep the log of all others.
    fn shorten_log(&self) -> bool {
        let store = &*self.store;
        let Some(wal) = &store.wal else { return false };
        if wal.needed_bytes() <= store.limits.max_wal_bytes || !store.flushes.is_idle() {
            return false;
        }
        let first = |tree: &Arc<Tree>| tree.view().active.first_seqno();
        let oldest = store.live_trees().into_iter().filter_map(|tree| first(&tree).map(|seqno| (seqno, tree.id))).min();
        let Some((_, id)) = oldest else { return false };
        self.writer.with_state(|state| state.seal(id));
        !store.flushes.is_empty()
    }
}

impl Maintenance {
    /// Runs the most urgent compaction of the next tree that wants one; whether there was such a tree.
    fn compact_next(&self) -> Result<bool> {
        let store = &self.store;
        if is_held(store) {
            return Ok(false);
        }
        let Some(next) = store.compactions.pop() else { return Ok(false) };
        let tree = &next.tree;
        if let Some(job) = Job::pick(store, tree, flush_first) {
            // Another thread may find a second job in the same tree meanwhile.
            store.compaction_wanted(tree);
            ran(job)?;
            store.compaction_wanted(tree);
        }
        self.update_pressure(tree);
        Ok(true)
    }

    /// Sets the delay of writers by what the trees owe after a flush or a compaction of `tree`.
    fn update_pressure(&self, tree: &Tree) {
        use Ordering::Relaxed; // independent numbers, see `Pressure`
        let (scores, options) = job::scores(&self.store, tree);
        let debt = Debt {
            level0_runs: tree.view().version.level0_runs().count(),
            level0_trigger: options.level0_trigger,
            compaction_bytes: scores.debt_bytes,
            base_level_bytes: options.base_bytes,
        };
        tree.pressure.store(delay_ns_per_kib(&debt), Relaxed);
        let most = self.store.live_trees().iter().map(|tree| tree.pressure.load(Relaxed)).max();
        self.writer.pressure.set(most.unwrap_or(0));
    }
}

impl Work for Maintenance {
    fn run_one(&self) -> bool {
        guarded(&self.store, || self.run())
    }
}

/// Makes ready what writers will need next.
///
/// It has a thread of its own because flushes and compactions wait for storage: while all others did, a fast writer used
/// up what was ready, and then made the log's next file, page by page, inside a put.
#[derive(Debug)]
pub(crate) struct Preparation {
    store: Arc<Store>,
}

impl Preparation {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Preparation { store }
    }
}

impl Work for Preparation {
    fn run_one(&self) -> bool {
        guarded(&self.store, || Ok(!self.store.health.is_stopped() && self.store.prepare_ahead()))
    }
}

/// Runs a piece of work; what goes wrong sticks.
fn guarded(store: &Store, work: impl FnOnce() -> Result<bool>) -> bool {
    let failed = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(did_something)) => return did_something,
        Ok(Err(error)) => error,
        // Reads go on; nothing half-done was installed, because installing is the last step of every job.
        Err(_panic) => Error::InvalidArgument("a background thread panicked".to_owned()),
    };
    store.health.fail("background work", &failed);
    store.signal.notify();
    false
}

/// Takes a part of a compaction that another thread runs.
fn help(store: &Store) -> bool {
    let Some(job) = store.parts.lock().front().cloned() else { return false };
    if job.run_part() {
        return true;
    }
    let mut parts = store.parts.lock();
    if parts.front().is_some_and(|front| Arc::ptr_eq(front, &job)) {
        parts.pop_front();
    }
    false
}

/// Runs a job; that the database closes meanwhile, or the keyspace goes, is no failure.
fn ran(job: Started) -> Result<()> {
    match job.run() {
        Err(Error::Closed) => Ok(()),
        result => result,
    }
}

/// Between pieces of a compaction: a flush does not wait for its end.
fn flush_first(store: &Store) -> Result<()> {
    if store.flushes.is_empty() { Ok(()) } else { flush::flush_next(store).map(|_| ()) }
}

/// Removes files that nothing refers to any more; whether there were any.
pub(crate) fn purge(store: &Store) -> bool {
    store.purger.purge(|path| {
        if let Err(error) = store.options.file_system.remove_file(path) {
            // An orphan; the next open tries again.
            tracing::warn!(%error, path = %path.display(), "removing a table");
        }
    })
}

/// Whether somebody keeps compactions from beginning.
fn is_held(store: &Store) -> bool {
    // Acquire: whoever sees that a hold has ended sees what was written under it.
    store.compaction_holds.load(Ordering::Acquire) > 0
}

/// See [`Db::hold_compactions`](crate::Db::hold_compactions).
pub(crate) fn hold_compactions(store: &Store) {
    store.compaction_holds.fetch_add(1, Ordering::AcqRel);
}

/// Ends a hold.
pub(crate) fn release_compactions(store: &Store) {
    store.compaction_holds.fetch_sub(1, Ordering::AcqRel);
    store.live_trees().iter().for_each(|tree| store.compaction_wanted(tree));
}

/// Waits until nothing is due or running, and what is obsolete is removed.
pub(crate) fn wait_until_idle(store: &Store) -> Result<()> {
    store.health.check_write()?;
    for tree in store.live_trees() {
        store.compaction_wanted(&tree);
    }
    store.wait_until(|| store.flushes.is_idle() && (is_held(store) || store.compactions.is_idle()))?;
    purge(store);
    Ok(())
}

/// Merges all tables of `tree` down to the bottom level, on the calling thread.
pub(crate) fn compact_all(store: &Arc<Store>, tree: &Arc<Tree>) -> Result<()> {
    // A compaction that began before may still keep what a snapshot needed that is gone by now, so what it writes is
    // to be rewritten too: the limit below which tables are comes after it.
    let begun_before: Vec<u64> = tree.shape.lock().running().iter().flat_map(|job| job.inputs.clone()).collect();
    store.wait_until(|| {
        let shape = tree.shape.lock();
        !shape.running().iter().flat_map(|job| &job.inputs).any(|number| begun_before.contains(number))
    })?;
    let request = ManualRequest {
        smallest: None,
        largest: None,
        through_seqno: store.visible(),
        below_number: store.versions.next_file_number(),
        rewrite_all: false,
    };
    loop {
        let seen = store.signal.generation();
        store.health.check_write()?;
        match Job::step(store, tree, &request, flush_first) {
            Step::Run(job) => {
                let done = ran(job).inspect_err(|error| store.health.fail("compaction", error));
                store.signal.notify();
                done?;
            }
            Step::Blocked => store.signal.wait(seen),
            Step::Done => break,
        }
    }
    store.compaction_wanted(tree);
    Ok(())
}
