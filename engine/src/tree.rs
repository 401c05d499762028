//! The LSM tree of one keyspace: what its handles, the commit path and the background share.

use std::sync::Arc;

use crate::batch::KeyspaceId;
use crate::compaction::shape::Shape;
use crate::error::{Error, Result};
use crate::key::SeqNo;
use crate::memtable::Memtable;
use crate::moment::Moment;
use crate::name::KeyspaceName;
use crate::options::KeyspaceOptions;
use crate::read::view::View;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{ArcSwap, Guard};
use crate::table::handle::TableHandle;
use crate::version::amplification::Amplification;
use crate::version::version::Version;

/// No drop has happened.
const NOT_DROPPED: u64 = u64::MAX;

/// One keyspace's tree.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) id: KeyspaceId,
    pub(crate) name: KeyspaceName,
    options: ArcSwap<KeyspaceOptions>,
    view: ArcSwap<View>,
    /// Held while the view is replaced, so that no replacement is lost. Short: nothing is read or written under it.
    replacing: Mutex<()>,
    /// The sequence number of the drop.
    dropped_at: AtomicU64,
    /// Held by the one flush of this tree: sealed memtables are flushed oldest first.
    pub(crate) flushing: Mutex<()>,
    /// What was true when a memtable was last sealed. Set, under the commit lock, before that memtable is among the
    /// view's sealed ones: who finds it there finds its moment here, or a later one.
    pub(crate) sealed_at: Mutex<Option<Moment>>,
    /// The tables of the view's version as the picker sees them, and the compactions that are under way. Taken inside
    /// `replacing`, never around it.
    pub(crate) shape: Mutex<Shape>,
    pub(crate) amplification: Amplification,
    /// Set by the first write that was not logged: closing must not lose it.
    pub(crate) unlogged: AtomicBool,
    /// How hard this tree's debt presses on writers; see `write::pressure`.
    pub(crate) pressure: AtomicU64,
}

impl Tree {
    pub(crate) fn new(
        id: KeyspaceId,
        name: KeyspaceName,
        options: KeyspaceOptions,
        active: Arc<Memtable>,
        version: Version<TableHandle>,
    ) -> Self {
        let shape = Shape::of(&version, options.pick_order);
        Tree {
            id,
            name,
            options: ArcSwap::from_pointee(options),
            view: ArcSwap::from_pointee(View { active, sealed: Vec::new(), version: Arc::new(version) }),
            replacing: Mutex::new(()),
            dropped_at: AtomicU64::new(NOT_DROPPED),
            flushing: Mutex::new(()),
            sealed_at: Mutex::new(None),
            shape: Mutex::new(shape),
            amplification: Amplification::default(),
            unlogged: AtomicBool::new(false),
            pressure: AtomicU64::new(0),
        }
    }

    pub(crate) fn options(&self) -> Arc<KeyspaceOptions> {
        self.options.load_full()
    }

    pub(crate) fn set_options(&self, options: KeyspaceOptions) {
        self.shape.lock().set_order(options.pick_order);
        self.options.store(Arc::new(options));
    }

    /// The current view, for the length of one call: no lock and no shared reference count.
    #[inline]
    pub(crate) fn view(&self) -> Guard<Arc<View>> {
        self.view.load()
    }

    /// The current view, to be kept.
    pub(crate) fn view_arc(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Replaces the view by what `change` makes of the current one.
    pub(crate) fn update_view(&self, change: impl FnOnce(&View) -> View) {
        let _one_at_a_time = self.replacing.lock();
        let next = change(&self.view.load());
        self.view.store(Arc::new(next));
    }

    /// Puts `active` in front and the memtable that was active among the sealed ones.
    pub(crate) fn seal(&self, active: Arc<Memtable>) {
        self.update_view(|view| View {
            active,
            sealed: view.memtables().cloned().collect(),
            version: view.version.clone(),
        });
    }

    /// Takes `flushed` out of the sealed memtables, and in the version puts `added` in the place of the tables whose
    /// numbers are in `removed`, in one step: no reader misses a key or finds it twice.
    pub(crate) fn install(&self, flushed: &[Arc<Memtable>], added: Vec<(usize, Arc<TableHandle>)>, removed: &[u64]) {
        let metas = added.iter().map(|(level, table)| (*level, Arc::new(table.meta.clone()))).collect();
        let _one_at_a_time = self.replacing.lock();
        let view = self.view.load();
        let gone = |memtable: &Arc<Memtable>| flushed.iter().any(|other| Arc::ptr_eq(other, memtable));
        let next = View {
            active: view.active.clone(),
            sealed: view.sealed.iter().filter(|memtable| !gone(memtable)).cloned().collect(),
            version: Arc::new(view.version.apply(added, removed)),
        };
        // Both together: who picks sees the shape of the version that it then reads.
        let mut shape = self.shape.lock();
        self.view.store(Arc::new(next));
        shape.install(metas, removed);
    }

    /// Lets go of everything the tree holds (it was dropped, or the database was closed); live iterators keep their own
    /// views.
    pub(crate) fn clear(&self, empty: Arc<Memtable>) {
        self.update_view(|_| View { active: empty, sealed: Vec::new(), version: Arc::new(Version::empty()) });
        *self.shape.lock() = Shape::empty(self.options().pick_order);
    }

    /// Marks the tree dropped by the operation `seqno`.
    pub(crate) fn mark_dropped(&self, seqno: SeqNo) {
        // Release pairs with the acquire in `check_live`: who sees the mark sees what came before the drop.
        self.dropped_at.store(seqno, Ordering::Release);
    }

    pub(crate) fn is_dropped(&self) -> bool {
        self.dropped_at.load(Ordering::Acquire) != NOT_DROPPED
    }

    /// # Errors
    /// `KeyspaceDropped` for a reader at `seqno` (a snapshot from before the drop reads on).
    #[inline]
    pub(crate) fn check_live(&self, seqno: SeqNo) -> Result<()> {
        if seqno < self.dropped_at.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(Error::KeyspaceDropped { name: self.name.to_string() })
    }
}
