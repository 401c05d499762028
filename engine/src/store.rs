//! What all parts of an open database share, below the public handles and the commit path.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use crate::background::{Part, Signal};
use crate::batch::KeyspaceId;
use crate::compaction::rate::RateLimiter;
use crate::error::Result;
use crate::fs::FileLock;
use crate::health::Health;
use crate::key::SeqNo;
use crate::memtable::{ArenaPool, Memtable};
use crate::metadata::Metadata;
use crate::moment::Moment;
use crate::name::KeyspaceName;
use crate::options::{KeyspaceOptions, Limits, Options};
use crate::read::snapshots::SnapshotList;
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Mutex, RwLock};
use crate::table::handle::{Purger, TableCache};
use crate::tenure::Tenure;
use crate::tree::Tree;
use crate::version::set::VersionSet;
use crate::wal::Wal;
use crate::wal::retention::RetentionPin;

/// See the module.
#[derive(Debug)]
pub(crate) struct Store {
    /// Tells this open database from any other of the process: a batch remembers whose handles it was built with.
    pub(crate) instance: u64,
    pub(crate) directory: PathBuf,
    pub(crate) options: Options,
    pub(crate) limits: Limits,
    pub(crate) health: Health,
    pub(crate) signal: Arc<Signal>,
    /// Tells the thread that prepares log and memory.
    pub(crate) ahead: Arc<Signal>,
    /// It was told, and has not looked since.
    preparation_asked: AtomicBool,
    /// The last published sequence number: what is at or below it is complete in the memtables and tables.
    visible: AtomicU64,
    pub(crate) snapshots: SnapshotList,
    pub(crate) trees: RwLock<Trees>,
    pub(crate) versions: VersionSet,
    /// The log; none when opened read-only.
    pub(crate) wal: Option<Arc<Wal>>,
    pub(crate) tables: Arc<TableCache>,
    pub(crate) purger: Arc<Purger>,
    pub(crate) arenas: Arc<ArenaPool>,
    /// All memtables of live keyspaces together, active and sealed.
    memtable_bytes: AtomicUsize,
    pub(crate) metadata: Metadata,
    pub(crate) compaction_rate: Option<RateLimiter>,
    pub(crate) flushes: TreeQueue,
    pub(crate) compactions: TreeQueue,
    /// As long as there are any, no compaction begins by itself.
    pub(crate) compaction_holds: AtomicUsize,
    /// How many iterators are live.
    pub(crate) iterators: AtomicUsize,
    /// Compactions whose parts idle threads can take.
    pub(crate) parts: Mutex<VecDeque<Arc<dyn Part>>>,
    /// The log kept for each durable change cursor; `None` for one that was lost.
    pub(crate) cursors: Mutex<HashMap<String, Option<RetentionPin>>>,
    /// Ends before `lock` is let go of.
    pub(crate) tenure: Arc<Tenure>,
    pub(crate) lock: Mutex<Option<Box<dyn FileLock>>>,
}

/// What [`Store::new`] is made of, where it is not made anew.
pub(crate) struct StoreParts {
    pub(crate) directory: PathBuf,
    pub(crate) options: Options,
    pub(crate) versions: VersionSet,
    pub(crate) wal: Option<Arc<Wal>>,
    pub(crate) tables: Arc<TableCache>,
    pub(crate) purger: Arc<Purger>,
    pub(crate) arenas: Arc<ArenaPool>,
    pub(crate) metadata: Metadata,
    pub(crate) trees: Trees,
    pub(crate) last_seqno: SeqNo,
    pub(crate) lock: Box<dyn FileLock>,
}

/// The keyspaces.
#[derive(Debug, Default)]
pub(crate) struct Trees {
    pub(crate) by_name: BTreeMap<KeyspaceName, Arc<Tree>>,
    /// Names of every keyspace that the log or a handle may speak of, dropped ones included.
    pub(crate) names: HashMap<KeyspaceId, KeyspaceName>,
    /// Dropped keyspaces that a snapshot may still read, with the sequence number of the drop.
    pub(crate) dropped: Vec<(SeqNo, Arc<Tree>)>,
}

// Of `std`: a static is no part of any model.
static INSTANCES: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);

impl Store {
    /// What is true now; see [`Moment`].
    pub(crate) fn moment(&self, wal: &Wal) -> Moment {
        Moment::now(self.visible(), &self.metadata, wal)
    }

    /// Makes ready what writers will need next, log and memory, if it is time for that; whether it was.
    pub(crate) fn prepare_ahead(&self) -> bool {
        // Before what is needed is looked at; pairs with the exchange in `ask_for_preparation`: who needs something
        // either is seen below or asks anew.
        self.preparation_asked.swap(false, Ordering::AcqRel);
        let is_low = self.arenas.is_low();
        if is_low {
            self.arenas.prepare();
        }
        self.prepare_log() || is_low
    }

    /// Tells the thread that prepares, once, when log or memtables will soon go on in what is to be made ready.
    #[inline]
    pub(crate) fn ask_for_preparation(&self) {
        let is_needed = self.arenas.is_low() || self.wal.as_ref().is_some_and(|wal| wal.needs_spare());
        if is_needed && !self.preparation_asked.swap(true, Ordering::AcqRel) {
            self.ahead.notify();
        }
    }

    fn prepare_log(&self) -> bool {
        let Some(wal) = self.wal.as_ref().filter(|wal| wal.needs_spare()) else { return false };
        if let Err(error) = wal.prepare_spare() {
            // Nothing is in doubt: the roll makes its segment itself, or is the one to fail.
            tracing::warn!(%error, "preparing a log segment");
        }
        true
    }

    pub(crate) fn new(parts: StoreParts) -> Self {
        let health = if parts.options.read_only { Health::read_only() } else { Health::default() };
        let memtables =
            parts.trees.by_name.values().map(|tree| tree.view().memtables().map(|m| m.bytes()).sum::<usize>());
        Store {
            instance: INSTANCES.fetch_add(1, Ordering::Relaxed), // only has to be unique
            directory: parts.directory,
            limits: parts.options.limits(),
            health,
            signal: Arc::default(),
            ahead: Arc::default(),
            preparation_asked: AtomicBool::new(false),
            visible: AtomicU64::new(parts.last_seqno),
            snapshots: SnapshotList::default(),
            versions: parts.versions,
            wal: parts.wal,
            tables: parts.tables,
            purger: parts.purger,
            arenas: parts.arenas,
            memtable_bytes: AtomicUsize::new(memtables.sum()),
            metadata: parts.metadata,
            compaction_rate: parts.options.compaction_bytes_per_second.map(RateLimiter::new),
            flushes: TreeQueue::default(),
            compactions: TreeQueue::default(),
            compaction_holds: AtomicUsize::new(0),
            iterators: AtomicUsize::new(0),
            parts: Mutex::default(),
            cursors: Mutex::default(),
            tenure: Arc::default(),
            lock: Mutex::new(Some(parts.lock)),
            trees: RwLock::new(parts.trees),
            options: parts.options,
        }
    }

    /// The last published sequence number. Load it after the view: then the view holds the newest version that the
    /// number admits.
    #[inline]
    pub(crate) fn visible(&self) -> SeqNo {
        // Acquire pairs with the release in `publish`: the memtable entries up to the number are complete.
        self.visible.load(Ordering::Acquire)
    }

    /// Makes everything up to `seqno` visible; only under the commit lock.
    #[inline]
    pub(crate) fn publish(&self, seqno: SeqNo) {
        self.visible.store(seqno, Ordering::Release);
    }

    /// A view of `tree` and a sequence number such that the view holds every write up to it: what a multi-key read
    /// needs.
    pub(crate) fn consistent(&self, tree: &Tree) -> (Arc<crate::read::view::View>, SeqNo) {
        loop {
            let view = tree.view_arc();
            let seqno = self.visible();
            if Arc::ptr_eq(&view, &tree.view()) {
                return (view, seqno);
            }
        }
    }

    /// An empty memtable to write to. What it takes already counts, since all of its bytes are taken off again when it
    /// is flushed.
    pub(crate) fn new_memtable(&self, options: &KeyspaceOptions) -> Arc<Memtable> {
        let memtable = self.uncounted_memtable(options);
        self.grow_memtables(memtable.bytes());
        memtable
    }

    /// A memtable that stays empty, in a tree that is dropped or closed; it does not count.
    pub(crate) fn uncounted_memtable(&self, options: &KeyspaceOptions) -> Arc<Memtable> {
        Arc::new(Memtable::new(options.memtable, self.limits.memtable_bytes, &self.arenas))
    }

    /// Counts memory that memtables took; the new total.
    #[inline]
    pub(crate) fn grow_memtables(&self, bytes: usize) -> usize {
        // Relaxed: a counter; writers that meet the limit wait under a lock.
        self.memtable_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes
    }

    pub(crate) fn shrink_memtables(&self, bytes: usize) {
        self.memtable_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn memtable_bytes(&self) -> usize {
        self.memtable_bytes.load(Ordering::Relaxed)
    }

    /// All live keyspaces.
    pub(crate) fn live_trees(&self) -> Vec<Arc<Tree>> {
        self.trees.read().by_name.values().cloned().collect()
    }

    pub(crate) fn name_of(&self, id: KeyspaceId) -> KeyspaceName {
        self.trees.read().names.get(&id).cloned().unwrap_or_else(|| KeyspaceName::from(format!("#{id}")))
    }

    /// Asks the background to flush a tree's sealed memtables.
    pub(crate) fn flush_wanted(&self, tree: &Arc<Tree>) {
        self.flushes.push(tree);
        self.signal.notify();
    }

    /// Asks the background to look whether a tree wants compaction.
    pub(crate) fn compaction_wanted(&self, tree: &Arc<Tree>) {
        self.compactions.push(tree);
        self.signal.notify();
    }

    /// Waits until `done`, the database fails, or it is closed.
    ///
    /// # Errors
    /// `Closed`, or `ReadOnly` with the failure.
    pub(crate) fn wait_until(&self, mut done: impl FnMut() -> bool) -> Result<()> {
        loop {
            let seen = self.signal.generation();
            if done() {
                return Ok(());
            }
            self.health.check_write()?;
            self.signal.wait(seen);
        }
    }

    /// Opens every table that a live iterator may still need: after the close the directory may get another owner, who
    /// removes files as it likes.
    pub(crate) fn pin_for_iterators(&self) {
        if self.iterators.load(Ordering::Acquire) > 0 {
            self.tables.open_all();
        }
    }

    /// Ends a snapshot, and lets dropped keyspaces go that no older snapshot can read any more.
    pub(crate) fn release_snapshot(&self, seqno: SeqNo) {
        self.snapshots.release(seqno);
        if self.trees.read().dropped.is_empty() {
            return;
        }
        self.release_dropped();
    }

    /// Clears the dropped keyspaces that no live snapshot can read.
    pub(crate) fn release_dropped(&self) {
        let oldest = self.snapshots.oldest().unwrap_or(SeqNo::MAX);
        let mut trees = self.trees.write();
        let (keep, free): (Vec<_>, Vec<_>) = trees.dropped.drain(..).partition(|(at, _)| oldest < *at);
        trees.dropped = keep;
        drop(trees);
        for (_, tree) in free {
            self.discard(&tree);
        }
    }

    /// Lets go of a dropped tree's memtables and tables; the files go when the last reader does.
    fn discard(&self, tree: &Tree) {
        let view = tree.view_arc();
        tree.clear(self.uncounted_memtable(&tree.options()));
        for handle in view.version.tables() {
            handle.mark_obsolete();
        }
    }
}

/// Trees that wait for background work, each at most once, and how many are being worked on.
#[derive(Debug, Default)]
pub(crate) struct TreeQueue {
    inner: Mutex<Waiting>,
    len: AtomicUsize,
}

#[derive(Debug, Default)]
struct Waiting {
    trees: VecDeque<Arc<Tree>>,
    ids: HashSet<KeyspaceId>,
    in_progress: usize,
}

/// A tree taken off the queue; the work on it ends with this.
#[derive(Debug)]
pub(crate) struct InProgress<'q> {
    queue: &'q TreeQueue,
    pub(crate) tree: Arc<Tree>,
}

impl Drop for InProgress<'_> {
    fn drop(&mut self) {
        self.queue.inner.lock().in_progress -= 1;
    }
}

impl TreeQueue {
    pub(crate) fn push(&self, tree: &Arc<Tree>) {
        let mut inner = self.inner.lock();
        if inner.ids.insert(tree.id) {
            inner.trees.push_back(tree.clone());
            self.len.store(inner.trees.len(), Ordering::Relaxed);
        }
    }

    pub(crate) fn pop(&self) -> Option<InProgress<'_>> {
        let mut inner = self.inner.lock();
        let tree = inner.trees.pop_front()?;
        inner.ids.remove(&tree.id);
        inner.in_progress += 1;
        self.len.store(inner.trees.len(), Ordering::Relaxed);
        Some(InProgress { queue: self, tree })
    }

    /// Whether no tree waits; may be a moment old.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        // Relaxed: a hint; who needs certainty asks `is_idle`.
        self.len.load(Ordering::Relaxed) == 0
    }

    /// Whether no tree waits or is being worked on.
    pub(crate) fn is_idle(&self) -> bool {
        let inner = self.inner.lock();
        inner.trees.is_empty() && inner.in_progress == 0
    }
}
