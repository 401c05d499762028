//! [`Task`]: state that changes exactly once for each input.
//!
//! Between two commits everything that is written is held in memory. A commit makes one batch of it, together with how
//! far the inputs were read, appends that to the log, waits until the log has it for good, and then applies it here. So
//! the log holds whole commits, and the database what the log comes to, or less: whatever happens, what is missing here
//! is read from there, and the inputs are read on from where the last commit says. Nothing has to be undone.

mod overlay;
mod store;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use siltstone::{Change, ChangeBatch, Clock, Db, KeyspaceName, KeyspaceOptions, Slice, SystemClock};

use crate::error::{Error, Result};
use crate::position::Position;
use crate::restore::{Restore, SOURCE_POSITION};
use crate::retry::{Backoff, RetryPolicy, sleep};
use crate::sink::{Sink, Source};

use overlay::Overlay;
pub use store::TaskStore;

/// The keyspace that says how far the inputs were read.
pub const INPUTS_KEYSPACE: &str = "changelog inputs";

/// How far each input was read, by its name, in whatever way suits who reads it.
pub type Inputs = BTreeMap<String, Slice>;

/// How a [`Task`] is opened.
#[derive(Clone, Debug)]
pub struct TaskOptions {
    max_uncommitted_bytes: usize,
    max_message_bytes: usize,
    retry: RetryPolicy,
    clock: Arc<dyn Clock>,
}

impl Default for TaskOptions {
    fn default() -> Self {
        TaskOptions {
            max_uncommitted_bytes: 64 << 20,
            max_message_bytes: usize::MAX,
            retry: RetryPolicy::default(),
            clock: Arc::new(SystemClock::default()),
        }
    }
}

impl TaskOptions {
    /// The defaults.
    pub fn new() -> Self {
        TaskOptions::default()
    }

    /// From how much on [`Task::wants_commit`] says so, in bytes of memory: keys, values and 128 a write. Default 64 MiB.
    pub fn max_uncommitted_bytes(mut self, bytes: usize) -> Self {
        self.max_uncommitted_bytes = bytes;
        self
    }

    /// The largest key and value together that the log takes, in bytes: what is larger is refused when it is written.
    /// Default: whatever the database takes.
    pub fn max_message_bytes(mut self, bytes: usize) -> Self {
        self.max_message_bytes = bytes;
        self
    }

    /// How failed calls of the sink are tried again.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// What tells the time; default the system's monotonic clock.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }
}

/// What stores and their task share.
#[derive(Debug)]
struct Shared {
    overlay: Mutex<Overlay>,
    /// Why nothing can be committed any more.
    failed: Mutex<Option<Arc<Error>>>,
    max_message_bytes: usize,
}

impl Shared {
    fn check(&self) -> Result<()> {
        match &*self.failed.lock() {
            None => Ok(()),
            Some(error) => Err(Error::Stopped(error.clone())),
        }
    }
}

/// The state of a program that reads inputs and changes what it knows: each input counts once, also when the process is
/// killed or the machine is lost at any moment.
///
/// ```
/// use siltstone_changelog::store::KeyValueStore;
/// use siltstone_changelog::{FileSink, FileSource, Inputs, Restore, Task, TaskOptions};
/// # let scratch = tempfile::tempdir().unwrap();
/// # let (local, log) = (scratch.path().join("local"), scratch.path().join("log"));
/// # let input = ["silt", "stone", "silt"];
/// let open = || {
///     let restore = Restore::new(FileSource::open(&log)).into(&local).reuse(true);
///     Task::open(restore, || FileSink::open(&log), TaskOptions::new())
/// };
/// let mut task = open()?;
/// let counts = task.store("counts", Default::default())?;
/// let begin = task.inputs().get("words").map_or(0, |position| position.len());
/// for (number, word) in input.iter().enumerate().skip(begin) {
///     let count = counts.get(word.as_bytes())?.map_or(0, |count| count[0]);
///     counts.put(word.as_bytes(), &[count + 1])?;
///     task.commit(Inputs::from([("words".to_owned(), vec![b'.'; number + 1].into())]))?;
/// }
/// drop((task, counts));
///
/// let task = open()?; // nothing is read twice
/// assert_eq!(task.inputs()["words"].len(), 3);
/// assert_eq!(task.store("counts", Default::default())?.get(b"silt")?.unwrap(), [2]);
/// # Ok::<(), siltstone_changelog::Error>(())
/// ```
#[derive(Debug)]
pub struct Task<K> {
    db: Db,
    sink: K,
    options: TaskOptions,
    shared: Arc<Shared>,
    inputs: Inputs,
}

impl<K: Sink> Task<K> {
    /// Opens the log with `open_sink`, which fences whoever owned it before, then does what is left of `restore`: all of it
    /// on a new machine, and on one that has [reusable](Restore::reuse) state what is missing there.
    ///
    /// # Errors
    /// What `open_sink` and [`Restore::run`] say; `Mismatch` if the database and the log do not belong together.
    pub fn open<S: Source>(
        restore: Restore<S>,
        open_sink: impl FnOnce() -> Result<K>,
        options: TaskOptions,
    ) -> Result<Self> {
        let mut sink = open_sink()?;
        // What it holds already is part of the log, whoever had it acknowledged.
        sink.flush()?;
        let (db, _) = restore.run()?;
        let (held, here) = (sink.last_seqno()?, db.last_seqno());
        if held.is_some_and(|held| held != here) {
            return Err(Error::Mismatch(format!(
                "the log goes up to sequence number {}, what it restored to {here}",
                held.unwrap_or_default()
            )));
        }
        let inputs = read_inputs(&db)?;
        let shared = Shared {
            overlay: Mutex::default(),
            failed: Mutex::new(None),
            max_message_bytes: options.max_message_bytes,
        };
        Ok(Task { db, sink, options, shared: Arc::new(shared), inputs })
    }

    /// The store `name`, created with `options` if it is missing.
    ///
    /// # Errors
    /// As [`Db::keyspace`]; `InvalidArgument` for the keyspace of the inputs.
    pub fn store(&self, name: impl AsRef<str>, options: KeyspaceOptions) -> Result<TaskStore> {
        if name.as_ref() == INPUTS_KEYSPACE {
            return Err(Error::InvalidArgument(format!("the keyspace {INPUTS_KEYSPACE:?} is the task's own")));
        }
        Ok(TaskStore { shared: self.shared.clone(), keyspace: self.db.keyspace(name, options)? })
    }

    /// How far the inputs were read that the last commit counted: reading goes on from there.
    pub fn inputs(&self) -> &Inputs {
        &self.inputs
    }

    /// What was committed, for reading: what is written to it past the stores is refused by the next commit.
    pub fn db(&self) -> &Db {
        &self.db
    }

    /// The log's writing end, for what it can do beside this.
    pub fn sink(&mut self) -> &mut K {
        &mut self.sink
    }

    /// Whether so much was written since the last commit that it is time for one.
    pub fn wants_commit(&self) -> bool {
        self.shared.overlay.lock().bytes() >= self.options.max_uncommitted_bytes
    }

    /// Forgets what was written since the last commit: the inputs since then will be read again.
    pub fn rollback(&mut self) {
        self.shared.overlay.lock().clear();
    }

    /// Commits everything that was written since the last commit, and that the inputs were read as far as `inputs` says
    /// (others stay where they were). When it answers, all of it is in the log for good.
    ///
    /// # Errors
    /// `Fenced` if another owner has taken over, what else the sink says when trying again is of no use, and what the
    /// database says. The task takes nothing more then: open it anew.
    pub fn commit(&mut self, inputs: Inputs) -> Result<Position> {
        self.commit_with(inputs, |_| Ok(()))
    }

    /// As [`commit`](Self::commit), after `before` has given the sink what is to become part of the same transaction, if
    /// the sink has such: outputs, a consumer's offsets.
    ///
    /// # Errors
    /// As [`commit`](Self::commit), and what `before` says.
    pub fn commit_with(&mut self, inputs: Inputs, before: impl FnOnce(&mut K) -> Result<()>) -> Result<Position> {
        self.shared.check()?;
        let committed = self.log(&inputs, before).and_then(|(batch, position)| {
            let mut overlay = self.shared.overlay.lock();
            if let Some(batch) = batch {
                self.db.apply(&batch, &[(SOURCE_POSITION, position.as_bytes())])?;
            }
            overlay.clear();
            Ok(position)
        });
        match committed {
            Ok(position) => {
                self.inputs.extend(inputs);
                Ok(position)
            }
            Err(error) => {
                let error = Arc::new(error);
                *self.shared.failed.lock() = Some(error.clone());
                Err(Error::Stopped(error))
            }
        }
    }

    /// Puts what is to be committed into the log, for good.
    fn log(
        &mut self,
        inputs: &Inputs,
        before: impl FnOnce(&mut K) -> Result<()>,
    ) -> Result<(Option<ChangeBatch>, Position)> {
        let mut changes = self.shared.overlay.lock().changes();
        let keyspace = KeyspaceName::from(INPUTS_KEYSPACE);
        let moved = inputs.iter().filter(|&(name, position)| self.inputs.get(name) != Some(position));
        changes.extend(moved.map(|(name, position)| Change::Put {
            keyspace: keyspace.clone(),
            key: Slice::from(name.as_str()),
            value: position.clone(),
        }));
        let batch = match changes.is_empty() {
            true => None,
            false => Some(ChangeBatch::new(self.db.last_seqno() + 1, changes)?),
        };
        before(&mut self.sink)?;
        if let Some(batch) = &batch {
            self.retry(|sink| sink.append(batch))?;
        }
        Ok((batch, self.retry(Sink::flush)?))
    }

    fn retry<R>(&mut self, mut call: impl FnMut(&mut K) -> Result<R>) -> Result<R> {
        let mut backoff = Backoff::new(self.options.retry);
        loop {
            let error = match call(&mut self.sink) {
                Err(error) if error.is_retryable() => error,
                answer => return answer,
            };
            let Some(wait) = backoff.failed(self.options.clock.now()) else { return Err(error) };
            tracing::warn!(%error, ?wait, "the sink failed, trying again");
            sleep(&*self.options.clock, wait, || false);
        }
    }
}

fn read_inputs(db: &Db) -> Result<Inputs> {
    let mut inputs = Inputs::new();
    for entry in db.keyspace(INPUTS_KEYSPACE, KeyspaceOptions::default())?.iter() {
        let (name, position) = entry?;
        inputs.insert(String::from_utf8_lossy(&name).into_owned(), position);
    }
    Ok(inputs)
}
