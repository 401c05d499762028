//! Carrying out a plan: merge the inputs, write the outputs, install the change.
//!
//! A large job is cut into key ranges that several threads can work on (RocksDB: subcompactions). Nothing of it shows
//! until the last range is written; then one edit replaces inputs by outputs.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::background::Part;
use crate::compaction::leveled;
use crate::compaction::manual::{ManualRequest, ManualStep, pick_range};
use crate::compaction::output::{Outputs, Written, remove_tables};
use crate::compaction::plan::Plan;
use crate::compaction::retention::Retention;
use crate::compaction::score::{LeveledOptions, Scores};
use crate::compaction::shape::Shape;
use crate::cursor::Cursor;
use crate::error::{Error, Result};
use crate::key::{MAX_SEQNO, SeqNo};
use crate::read::merge::MergeCursor;
use crate::read::view::Source;
use crate::store::Store;
use crate::sync::{Condvar, Mutex};
use crate::table::TableMeta;
use crate::table::handle::TableHandle;
use crate::table::iterator::TableCursor;
use crate::table::level_iterator::LevelCursor;
use crate::tree::Tree;
use crate::version::amplification::CompactionWork;
use crate::version::edit::{Edit, KeyspaceEdit};
use crate::version::version::{Level, Version};

/// How many keys of each input table are looked at to cut a job into ranges of about the same size.
const SAMPLES_A_TABLE: usize = 16;

/// What runs between pieces of a job, so that more urgent work need not wait for its end.
pub(crate) type Pause = fn(&Store) -> Result<()>;

/// One compaction of a tree, shared by the threads that work on it.
#[derive(Debug)]
pub(crate) struct Job {
    store: Arc<Store>,
    tree: Arc<Tree>,
    plan: Plan,
    options: LeveledOptions,
    version: Arc<Version<TableHandle>>,
    /// Taken after the inputs were fixed: see `Retention`.
    snapshots: Vec<SeqNo>,
    pause: Pause,
    ranges: Mutex<Ranges>,
    range_done: Condvar,
}

/// The key ranges of a job: which are to be begun, how many are not finished, and what came out.
#[derive(Debug, Default)]
struct Ranges {
    waiting: VecDeque<KeyRange>,
    unfinished: usize,
    outputs: Vec<(usize, Vec<TableMeta>, Written)>,
    error: Option<Error>,
}

/// From `start` (inclusive) to `end` (exclusive); `None` is unbounded.
#[derive(Clone, Debug)]
struct KeyRange {
    ordinal: usize,
    start: Option<Bytes>,
    end: Option<Bytes>,
}

/// A job that was picked: its inputs are marked as busy until this goes. Not shared, so that the mark ends with the job
/// and not when the last helping thread lets go of it.
#[derive(Debug)]
pub(crate) struct Started {
    job: Arc<Job>,
}

/// What a step of a manual compaction found.
pub(crate) enum Step {
    Run(Started),
    Blocked,
    Done,
}

/// The picker's options for a keyspace.
pub(crate) fn picker_options(store: &Store, tree: &Tree) -> LeveledOptions {
    LeveledOptions::new(&tree.options(), store.limits.memtable_bytes as u64)
}

/// The scores of a tree as it is now.
pub(crate) fn scores(store: &Store, tree: &Tree) -> (Scores, LeveledOptions) {
    let options = picker_options(store, tree);
    let scores = Scores::new(&tree.shape.lock(), &options);
    (scores, options)
}

impl Job {
    /// The most urgent compaction of `tree`, if there is one.
    pub(crate) fn pick(store: &Arc<Store>, tree: &Arc<Tree>, pause: Pause) -> Option<Started> {
        if tree.is_dropped() {
            return None;
        }
        let options = picker_options(store, tree);
        let mut shape = tree.shape.lock();
        let oldest = store.snapshots.oldest().unwrap_or(u64::MAX);
        let plan = leveled::pick(&shape, &options, oldest)?;
        Some(Job::start(store, tree, plan, options, &mut shape, pause))
    }

    /// The next step of a compaction that a caller asked for.
    pub(crate) fn step(store: &Arc<Store>, tree: &Arc<Tree>, request: &ManualRequest, pause: Pause) -> Step {
        if tree.is_dropped() {
            return Step::Done;
        }
        let options = picker_options(store, tree);
        let mut shape = tree.shape.lock();
        match pick_range(&shape, &options, request) {
            ManualStep::Done => Step::Done,
            ManualStep::Blocked => Step::Blocked,
            ManualStep::Run(plan) => Step::Run(Job::start(store, tree, plan, options, &mut shape, pause)),
        }
    }

    fn start(
        store: &Arc<Store>,
        tree: &Arc<Tree>,
        plan: Plan,
        options: LeveledOptions,
        shape: &mut Shape,
        pause: Pause,
    ) -> Started {
        shape.start(plan.running());
        // The version that the shape is of: both change under the lock that is held here.
        let version = tree.view().version.clone();
        let job = Arc::new(Job {
            snapshots: store.snapshots.list(),
            store: store.clone(),
            tree: tree.clone(),
            plan,
            options,
            version,
            pause,
            ranges: Mutex::default(),
            range_done: Condvar::new(),
        });
        Started { job }
    }

    fn run(self: &Arc<Self>) -> Result<()> {
        tracing::debug!(keyspace = %self.tree.name, plan = ?self.plan.kind, level = self.plan.level, to = self.plan.output_level, "compaction");
        if self.plan.trivial_move {
            return self.install_move();
        }
        self.split()?;
        self.offer();
        while self.run_part() {}
        let (tables, written) = self.collect()?;
        self.install_outputs(tables, written)
    }

    /// Cuts the job into ranges of about the same size, as many as there are threads, as long as each is worth it.
    fn split(&self) -> Result<()> {
        let bytes = self.plan.input_bytes + self.plan.output_input_bytes;
        let worth = bytes / self.options.target_table_bytes.saturating_mul(2).max(1);
        let parts = (self.store.options.background_threads as u64).min(worth).max(1) as usize;
        let cuts = if parts > 1 { self.cuts(parts)? } else { Vec::new() };
        let starts = std::iter::once(None).chain(cuts.iter().cloned().map(Some));
        let ends = cuts.iter().cloned().map(Some).chain(std::iter::once(None));
        let ranges = starts.zip(ends).enumerate().map(|(ordinal, (start, end))| KeyRange { ordinal, start, end });
        let mut state = self.ranges.lock();
        state.waiting = ranges.collect();
        state.unfinished = state.waiting.len();
        Ok(())
    }

    /// Keys that cut the inputs into `parts` parts: quantiles of keys sampled from each table's index, weighted by its
    /// size.
    fn cuts(&self, parts: usize) -> Result<Vec<Bytes>> {
        let mut samples: Vec<(Bytes, u64)> = Vec::new();
        for handle in self.inputs().chain(self.output_inputs()) {
            let weight = handle.meta.file_bytes / SAMPLES_A_TABLE as u64;
            let keys = handle.table_arc()?.sample_keys(SAMPLES_A_TABLE);
            samples.extend(keys.into_iter().map(|key| (key, weight)));
        }
        samples.sort_unstable();
        let total: u64 = samples.iter().map(|(_, weight)| weight).sum();
        let mut cuts: Vec<Bytes> = Vec::new();
        let mut below = 0;
        for (key, weight) in samples {
            let next_cut = total / parts as u64 * (cuts.len() as u64 + 1);
            if below >= next_cut && cuts.len() + 1 < parts && cuts.last() != Some(&key) {
                cuts.push(key);
            }
            below += weight;
        }
        Ok(cuts)
    }

    /// Lets idle threads take ranges.
    fn offer(self: &Arc<Self>) {
        if self.ranges.lock().unfinished > 1 {
            self.store.parts.lock().push_back(self.clone());
            self.store.signal.notify();
        }
    }

    /// Waits for the ranges that other threads took.
    fn collect(&self) -> Result<(Vec<TableMeta>, Written)> {
        let mut ranges = self.ranges.lock();
        while ranges.unfinished > 0 {
            self.range_done.wait(&mut ranges);
        }
        let mut outputs = std::mem::take(&mut ranges.outputs);
        let error = ranges.error.take();
        drop(ranges);
        self.store.parts.lock().retain(|part| !std::ptr::addr_eq(Arc::as_ptr(part), self));
        outputs.sort_unstable_by_key(|(ordinal, ..)| *ordinal);
        let written = outputs.iter().fold(Written::default(), |sum, (_, _, written)| sum + *written);
        let tables: Vec<TableMeta> = outputs.into_iter().flat_map(|(_, tables, _)| tables).collect();
        match error {
            None => Ok((tables, written)),
            Some(error) => {
                remove_tables(&self.store, tables.iter().map(|meta| meta.number));
                Err(error)
            }
        }
    }

    fn run_range(&self, range: &KeyRange) -> Result<(Vec<TableMeta>, Written)> {
        let store = &*self.store;
        let mut cursor = MergeCursor::new(self.sources()?);
        match &range.start {
            None => cursor.seek_to_first()?,
            Some(start) => cursor.seek(start, MAX_SEQNO)?,
        }
        let mut retention = Retention::new(self.snapshots.clone(), self.plan.bottom);
        let mut outputs = Outputs::new(store, &self.tree, self.flushed_seqno()?, &self.options, &self.plan);
        // Inside level 0 an older table beside the inputs may hold the key as well as any level below.
        let in_level0 = self.plan.output_level == 0;
        let mut exists_below =
            |key: &[u8]| in_level0 || self.version.key_range_may_exist_below(self.plan.output_level, key);
        let mut pause = || {
            if store.signal.is_stopping() || self.tree.is_dropped() { Err(Error::Closed) } else { (self.pause)(store) }
        };
        let end = range.end.as_deref();
        let written = outputs.write_all(&mut cursor, end, &mut retention, &mut exists_below, &mut pause);
        outputs.finish_after(written)
    }

    fn sources(&self) -> Result<Vec<Source>> {
        let mut sources = Vec::new();
        if self.plan.level == 0 {
            let inputs: Vec<_> = self.inputs().cloned().collect();
            // The tables of one ingest are one run, see `Version::level0_runs`.
            for run in inputs.chunk_by(|a, b| a.meta.max_seqno == b.meta.max_seqno) {
                sources.push(match run {
                    [handle] => Source::Table(TableCursor::for_compaction(handle.table_arc()?)),
                    run => Source::Level(LevelCursor::for_compaction(Level::disjoint(run.to_vec()))),
                });
            }
        } else {
            sources.push(Source::Level(LevelCursor::for_compaction(Level::disjoint(self.inputs().cloned().collect()))));
        }
        if !self.plan.output_inputs.is_empty() {
            sources.push(Source::Level(LevelCursor::for_compaction(Level::disjoint(
                self.output_inputs().cloned().collect(),
            ))));
        }
        Ok(sources)
    }

    /// What the inputs say was in tables when they were written, at the most.
    fn flushed_seqno(&self) -> Result<SeqNo> {
        let mut flushed =
            self.inputs().chain(self.output_inputs()).map(|handle| Ok(handle.table_arc()?.flushed_seqno()));
        flushed.try_fold(0, |most, flushed: Result<SeqNo>| Ok(most.max(flushed?)))
    }

    fn inputs(&self) -> impl Iterator<Item = &Arc<TableHandle>> {
        self.handles(self.plan.level, &self.plan.inputs)
    }

    fn output_inputs(&self) -> impl Iterator<Item = &Arc<TableHandle>> {
        self.handles(self.plan.output_level, &self.plan.output_inputs)
    }

    /// The handles of some tables of a level, in the level's order.
    fn handles<'j>(&'j self, level: usize, numbers: &'j [u64]) -> impl Iterator<Item = &'j Arc<TableHandle>> {
        let (smallest, largest) = (&self.plan.smallest, &self.plan.largest);
        let tables = self.version.run(level, smallest, largest);
        tables.iter().filter(move |handle| numbers.contains(&handle.meta.number))
    }

    fn install_move(&self) -> Result<()> {
        let moved: Vec<Arc<TableHandle>> = self.inputs().cloned().collect();
        let metas = moved.iter().map(|handle| handle.meta.clone()).collect();
        self.install(metas, moved, &[])?;
        self.tree.amplification.record_move(self.plan.output_level, self.plan.input_bytes);
        Ok(())
    }

    fn install_outputs(&self, tables: Vec<TableMeta>, written: Written) -> Result<()> {
        let handles = tables.iter().map(|meta| TableHandle::new(meta.clone(), self.store.tables.clone())).collect();
        let inputs: Vec<_> = self.inputs().chain(self.output_inputs()).cloned().collect();
        let written_bytes = tables.iter().map(|meta| meta.file_bytes).sum();
        self.install(tables, handles, &inputs)?;
        let work = CompactionWork {
            read_bytes: self.plan.input_bytes,
            read_output_level_bytes: self.plan.output_input_bytes,
            written_bytes,
            upper_entries: self.inputs().map(|handle| handle.meta.entries).sum(),
            merged_entries: written.entries_read,
            dropped_shadowed: written.shadowed,
            dropped_tombstones: written.tombstones_dropped,
            tombstone_ages: written.tombstone_ages,
        };
        self.tree.amplification.record_compaction(self.plan.output_level, &work);
        Ok(())
    }

    /// Replaces the inputs by `handles`; `obsolete` are the files that are then of no use.
    fn install(
        &self,
        tables: Vec<TableMeta>,
        handles: Vec<Arc<TableHandle>>,
        obsolete: &[Arc<TableHandle>],
    ) -> Result<()> {
        let plan = &self.plan;
        let gone =
            |level: usize, numbers: &[u64]| numbers.iter().map(move |&number| (level, number)).collect::<Vec<_>>();
        let mut removed = gone(plan.level, &plan.inputs);
        removed.extend(gone(plan.output_level, &plan.output_inputs));
        let numbers: Vec<u64> = removed.iter().map(|(_, number)| *number).collect();
        let added: Vec<_> = tables.into_iter().map(|meta| (plan.output_level, meta)).collect();
        let leveled: Vec<_> = handles.iter().map(|handle| (plan.output_level, handle.clone())).collect();
        let keyspace = KeyspaceEdit { id: self.tree.id, flushed_seqno: None, removed, added };
        // A compaction on a caller's thread may come to its end after the database was closed.
        let installed = self.store.tenure.during(|| {
            self.store.versions.install(
                |state| {
                    let live = state.keyspaces.contains_key(&self.tree.id);
                    live.then(|| Edit { keyspaces: vec![keyspace], ..Edit::default() })
                },
                || self.tree.install(&[], leveled, &numbers),
            )
        })??;
        let unused = if installed.is_some() { obsolete } else { &handles };
        unused.iter().for_each(|handle| handle.mark_obsolete());
        Ok(())
    }
}

impl Part for Job {
    fn run_part(&self) -> bool {
        let Some(range) = self.ranges.lock().waiting.pop_front() else { return false };
        // A panic must not leave the other threads waiting for this range.
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.run_range(&range)));
        let done = done.unwrap_or_else(|_| Err(Error::InvalidArgument("a compaction panicked".to_owned())));
        let mut ranges = self.ranges.lock();
        match done {
            Ok((tables, written)) => ranges.outputs.push((range.ordinal, tables, written)),
            Err(error) => {
                ranges.unfinished -= ranges.waiting.len();
                ranges.waiting.clear();
                ranges.error.get_or_insert(error);
            }
        }
        ranges.unfinished -= 1;
        self.range_done.notify_all();
        true
    }
}

impl Started {
    /// Carries the plan out; idle threads may help.
    ///
    /// # Errors
    /// What stopped it (`Closed` when the database is closing); nothing has changed then.
    pub(crate) fn run(self) -> Result<()> {
        self.job.run()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        self.job.tree.shape.lock().finish(&self.job.plan.running());
    }
}
