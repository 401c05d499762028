//! [`LogCleaner`]: the thread that compacts and removes sealed segments.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use parking_lot::{Condvar, Mutex};

use super::chain::Listing;
pub use super::compact::Compacted;
use super::compact::{Compaction, remove_oldest, sealed_segments};
use super::options::FileSinkOptions;
use super::owner::Owner;
use super::plan::{expired, is_due, plan};
use crate::background::give_way;
use crate::error::{Error, Result};

/// What was done with a log's sealed segments since its sink was opened.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct CleanerStatus {
    /// Compactions.
    pub compactions: u64,
    /// All that they did together.
    pub compacted: Compacted,
    /// Segments that were let go of.
    pub removed_segments: u64,
    /// Their length, in bytes.
    pub removed_bytes: u64,
    /// What the last try said, if it failed; the next one comes when the next segment is sealed.
    pub error: Option<Arc<Error>>,
}

/// A handle on what is done with the sealed segments of a [`FileSink`](crate::FileSink): they are compacted by key, and let
/// go of, in a thread of its own that begins with the first segment that is sealed.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// use siltstone_changelog::FileSink;
/// let sink = FileSink::open(dir.path())?;
/// let cleaner = sink.cleaner();
/// let compacted = cleaner.compact()?;
/// assert_eq!(compacted.dropped_changes, 0, "nothing is sealed yet");
/// # Ok::<(), siltstone_changelog::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct LogCleaner {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    directory: PathBuf,
    options: FileSinkOptions,
    /// As long as the sink is there.
    owner: Weak<Owner>,
    /// One at a time.
    cleaning: Mutex<()>,
    state: Mutex<State>,
    woken: Condvar,
}

/// How much everybody else goes before the compaction of the log, as `nice` counts it: nobody waits for it.
const NICENESS: i32 = 10;

#[derive(Debug, Default)]
struct State {
    status: CleanerStatus,
    is_running: bool,
    /// At least so much is sealed and not compacted.
    dirty_bytes: u64,
    /// Something was sealed since the last look.
    is_woken: bool,
    is_stopping: bool,
}

impl LogCleaner {
    /// # Errors
    /// As [`sealed_segments`].
    pub(super) fn new(directory: &Path, options: &FileSinkOptions, owner: &Arc<Owner>) -> Result<Self> {
        let shared = Shared {
            directory: directory.to_owned(),
            options: options.clone(),
            owner: Arc::downgrade(owner),
            cleaning: Mutex::default(),
            state: Mutex::default(),
            woken: Condvar::new(),
        };
        let cleaner = LogCleaner { shared: Arc::new(shared) };
        // What was sealed before.
        let listing = Listing::read(&options.file_system, directory)?;
        let log = listing.log();
        let sealed = log.split_last().map_or(&[][..], |(_, sealed)| sealed);
        let dirty = sealed.iter().filter(|name| name.last_seqno.is_none());
        cleaner.sealed(dirty.map(|&name| listing.file_bytes(name)).sum());
        Ok(cleaner)
    }

    /// What was done so far.
    pub fn status(&self) -> CleanerStatus {
        self.shared.state.lock().status.clone()
    }

    /// Compacts what may be compacted, in this thread, however little it is.
    ///
    /// # Errors
    /// `Corruption` for damage that is met, `Io`, `Fenced`; `InvalidArgument` once the sink is dropped.
    pub fn compact(&self) -> Result<Compacted> {
        self.shared.compact(|_| true)
    }

    /// Tells that a segment of so many bytes was sealed; once there may be something to do, the thread, which begins with
    /// the first time.
    pub(super) fn sealed(&self, file_bytes: u64) {
        let options = &self.shared.options;
        let mut state = self.shared.state.lock();
        state.dirty_bytes += file_bytes;
        let may_compact = options.compaction && state.dirty_bytes >= options.min_dirty_bytes;
        if !may_compact && options.retain_bytes.is_none() && options.retain_for.is_none() {
            return;
        }
        state.is_woken = true;
        self.shared.woken.notify_all();
        if !std::mem::replace(&mut state.is_running, true) {
            let shared = self.shared.clone();
            let thread = std::thread::Builder::new().name("siltstone-clean".to_owned());
            if let Err(error) = thread.spawn(move || shared.run()) {
                state.is_running = false;
                tracing::warn!(%error, "no thread to compact the log, trying again with the next segment");
            }
        }
    }

    /// Ends the thread, and waits for that.
    pub(super) fn stop(&self) {
        let mut state = self.shared.state.lock();
        state.is_stopping = true;
        self.shared.woken.notify_all();
        while state.is_running {
            self.shared.woken.wait(&mut state);
        }
    }
}

/// The thread, until it ends in whatever way: the sink waits for that.
struct Running<'s>(&'s Shared);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.state.lock().is_running = false;
        self.0.woken.notify_all();
    }
}

impl Shared {
    fn run(&self) {
        let _running = Running(self);
        give_way(NICENESS);
        while self.wait() {
            let done = self.compact(|due| due).and_then(|_| self.remove_expired());
            let mut state = self.state.lock();
            state.status.error = match done {
                Ok(()) => None,
                Err(error) => {
                    tracing::warn!(%error, "compaction of the log failed, trying again with the next segment");
                    Some(Arc::new(error))
                }
            };
        }
    }

    /// Waits until something is sealed; false if it is time to end.
    fn wait(&self) -> bool {
        let mut state = self.state.lock();
        while !state.is_woken && !state.is_stopping {
            self.woken.wait(&mut state);
        }
        state.is_woken = false;
        !state.is_stopping
    }

    fn is_stopping(&self) -> bool {
        self.state.lock().is_stopping
    }

    fn owner(&self) -> Result<Arc<Owner>> {
        self.owner.upgrade().ok_or_else(|| Error::InvalidArgument("the log's sink was dropped".to_owned()))
    }

    /// Compacts as long as there is something to and `wanted` says so, which is told whether it is due.
    fn compact(&self, wanted: impl Fn(bool) -> bool) -> Result<Compacted> {
        let (owner, options) = (self.owner()?, &self.options);
        let _one = self.cleaning.lock();
        let compaction = Compaction {
            fs: &options.file_system,
            directory: &self.directory,
            options,
            owner: &owner,
            is_stopping: &|| self.is_stopping(),
        };
        let mut all = Compacted::default();
        while !self.is_stopping() {
            let sealed = sealed_segments(&options.file_system, &self.directory)?;
            let plan = plan(&sealed, options, options.now_ms());
            let Some(plan) = plan.filter(|plan| wanted(options.compaction && is_due(&sealed, plan, options))) else {
                break;
            };
            let compacted = compaction.run(&plan)?;
            tracing::debug!(?compacted, "compacted the log");
            all.add(&compacted);
            let mut state = self.state.lock();
            state.dirty_bytes = 0;
            state.status.compactions += 1;
            state.status.compacted.add(&compacted);
        }
        Ok(all)
    }

    fn remove_expired(&self) -> Result<()> {
        let (owner, options) = (self.owner()?, &self.options);
        let _one = self.cleaning.lock();
        let sealed = sealed_segments(&options.file_system, &self.directory)?;
        let expired = &sealed[..expired(&sealed, options, options.now_ms())];
        owner.check()?;
        for segment in expired {
            remove_oldest(&options.file_system, &self.directory, segment.name)?;
            let mut state = self.state.lock();
            state.status.removed_segments += 1;
            state.status.removed_bytes += segment.file_bytes;
        }
        Ok(())
    }
}
