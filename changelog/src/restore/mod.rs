//! [`Restore`]: a database from a log.

mod apply;
mod bulk;
mod chunk;
#[cfg(feature = "snapshot")]
mod from_snapshot;
mod progress;
mod read_ahead;
mod undo;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use siltstone::fs::{FileSystem, OsFileSystem};
use siltstone::{Clock, Db, Durability, KeyspaceOptions, Options, SystemClock, WriteBatch};

pub use self::progress::Progress;
use self::read_ahead::Until;
use crate::applier::Applier;
use crate::error::{Error, Result};
use crate::position::Position;
use crate::sink::Source;

/// The metadata entry that holds the source's position after the last batch that was applied, in a database that is
/// being restored and after.
pub const SOURCE_POSITION: &str = "changelog/source position";

/// The metadata entry that a database has while it is being restored.
const RESTORING: &str = "changelog/restoring";

/// How much of a log is sorted at once by default, in bytes of memory.
const CHUNK_BYTES: u64 = 128 << 20;

/// Who is told of progress.
type Report = Box<dyn FnMut(&Progress)>;

/// What [`Restore::run_to`] came to.
#[derive(Debug)]
#[non_exhaustive]
pub struct Restored {
    /// The database, open.
    pub db: Db,
    /// The position in the log that it stands for: where reading on would begin.
    pub position: Position,
    /// Which moment its state is of.
    pub moment: Moment,
}

/// The moment that a restored state is of.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Moment {
    /// The one that was asked for.
    Target {
        /// How many keys that were changed after it were written again with the value they had, or as deletes, so that the
        /// log says so too once this is shipped.
        undone_keys: u64,
    },
    /// The end of the log, because the one that was asked for cannot be restored.
    Newest {
        /// Why not.
        reason: String,
    },
}

/// Restores a database from a source. Large parts of a log are sorted and go straight into tables, keyspaces side by side,
/// while the next part is read; small ones are applied batch by batch, with the sequence numbers they had. The position is
/// stored with the data or behind it, and what is applied again changes nothing, so that the two cannot disagree whenever
/// the machine stops.
///
/// The directory must be empty or missing, or hold a restore that was interrupted, which then goes on.
///
/// ```
/// # let scratch = tempfile::tempdir().unwrap();
/// # let (local, again) = (scratch.path().join("local"), scratch.path().join("again"));
/// use siltstone_changelog::{MemorySink, Restore, ShipOptions, ship};
/// let db = siltstone::Db::open(&local)?;
/// let sink = MemorySink::new();
/// let shipper = ship(&db, sink.clone(), ShipOptions::new())?;
/// db.keyspace("words", Default::default())?.put("silt", "1")?;
/// let end = shipper.stop()?;
///
/// let restore = Restore::new(sink.source()).into(&again).on_progress(|progress| println!("{} batches", progress.batches));
/// let (restored, position) = restore.run()?;
/// assert_eq!((restored.last_seqno(), position), (db.last_seqno(), end));
/// # Ok::<(), siltstone_changelog::Error>(())
/// ```
#[must_use = "a restore does nothing until it is run"]
pub struct Restore<S> {
    source: S,
    directory: PathBuf,
    options: Options,
    /// Overrides that of the options, which cannot be asked for theirs.
    file_system: Option<Arc<dyn FileSystem>>,
    applier: Applier,
    reuse: bool,
    #[cfg(feature = "snapshot")]
    snapshots: Option<from_snapshot::Snapshots>,
    /// Where it is to end; see [`run_to`](Restore::run_to).
    until: Until,
    chunk_bytes: u64,
    interrupted: Arc<AtomicBool>,
    clock: Arc<dyn Clock>,
    on_progress: Option<Report>,
}

impl<S: Source> Restore<S> {
    /// A restore from `source`; say where [`into`](Restore::into).
    pub fn new(source: S) -> Self {
        Restore {
            source,
            directory: PathBuf::new(),
            options: Options::new(),
            file_system: None,
            applier: Applier::default(),
            reuse: false,
            #[cfg(feature = "snapshot")]
            snapshots: None,
            until: Until::Newest,
            chunk_bytes: CHUNK_BYTES,
            interrupted: Arc::default(),
            clock: Arc::new(SystemClock::default()),
            on_progress: None,
        }
    }

    /// The directory to restore into.
    #[allow(clippy::should_implement_trait, reason = "a builder's step, not a conversion")]
    pub fn into(self, directory: impl AsRef<Path>) -> Self {
        let options = self.options.clone();
        self.into_with(directory, options)
    }

    /// The directory to restore into, and the options to open the database with. For a filesystem other than the
    /// system's say so to [`file_system`](Restore::file_system) too.
    pub fn into_with(mut self, directory: impl AsRef<Path>, options: Options) -> Self {
        self.directory = directory.as_ref().to_owned();
        self.options = options;
        self
    }

    /// Where the database will live; default that of the options.
    pub fn file_system(mut self, file_system: Arc<dyn FileSystem>) -> Self {
        self.file_system = Some(file_system);
        self
    }

    /// The options that keyspace `name` is created with: they are not in the log.
    pub fn keyspace_options(mut self, name: impl AsRef<str>, options: KeyspaceOptions) -> Self {
        self.applier.set_options(name.as_ref().into(), options);
        self
    }

    /// Whether a log whose first change has a number above 1 is restored as far as it goes (default: no): its beginning
    /// was let go of, or the first writes were made with [`Durability::NoLog`](siltstone::Durability::NoLog) and are in
    /// no log.
    pub fn allow_partial(mut self, allow: bool) -> Self {
        self.applier.allow_partial = allow;
        self
    }

    /// Whether state that an earlier restore, standby or task left in the directory is brought up to date instead of being
    /// refused (default: no). Where it cannot be, because the log is another one or no longer holds what came after it, that
    /// is [`Error::Stale`], which says why.
    pub fn reuse(mut self, reuse: bool) -> Self {
        self.reuse = reuse;
        self
    }

    /// How much of the log is gathered, sorted and written as tables at once, in bytes of memory; twice of it is in memory
    /// at a time. 0: every batch is applied by itself. Default 128 MiB.
    pub fn chunk_bytes(mut self, bytes: u64) -> Self {
        self.chunk_bytes = bytes;
        self
    }

    /// Calls `report` about every MiB of keys and values, where they are sorted after each chunk, and at the end.
    pub fn on_progress(mut self, report: impl FnMut(&Progress) + 'static) -> Self {
        self.on_progress = Some(Box::new(report));
        self
    }

    /// Ends the run with [`Error::Interrupted`] soon after `flag` is set; another run goes on from there.
    pub fn interrupt_on(mut self, flag: Arc<AtomicBool>) -> Self {
        self.interrupted = flag;
        self
    }

    /// What tells the time; default the system's monotonic clock.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Restores everything up to the end of the log and makes it durable; the database, open, and the position it
    /// stands for.
    ///
    /// # Errors
    /// `NotEmpty`; `InvalidArgument` if no directory was given; `Partial` if the log does not begin at the first
    /// change; `Interrupted`; whatever the source says; errors of the database. What was restored by then stays, and
    /// another run goes on from there.
    pub fn run(mut self) -> Result<(Db, Position)> {
        let (db, position, newest) = self.open()?;
        let (position, _) = self.apply_from(&db, position, newest)?;
        finish(&db, &position)?;
        Ok((db, position))
    }

    /// Restores the state of the moment that `target` stands for: a position that a program committed together with its
    /// inputs, say. What lies after it in the log is undone, for whoever reads the log as well once the database is
    /// shipped there again.
    ///
    /// Where that cannot be, because the log does not hold the target or compaction has been at what lies before it,
    /// everything is restored, and [`Restored::moment`] says why. State that is [reused](Restore::reuse) has to be of the
    /// target or of a moment before it.
    ///
    /// # Errors
    /// As [`run`](Restore::run); `Stale` for state that is ahead of the target; `Mismatch` for a target in another log.
    ///
    /// ```
    /// # let scratch = tempfile::tempdir().unwrap();
    /// # let (local, again) = (scratch.path().join("local"), scratch.path().join("again"));
    /// use siltstone_changelog::{MemorySink, Moment, Restore, ShipOptions, ship};
    /// let db = siltstone::Db::open(&local)?;
    /// let sink = MemorySink::new();
    /// let shipper = ship(&db, sink.clone(), ShipOptions::new())?;
    /// let words = db.keyspace("words", Default::default())?;
    /// words.put("silt", "1")?;
    /// let committed = shipper.flush()?;
    /// words.put("silt", "2")?;
    /// words.put("clay", "1")?;
    /// shipper.stop()?; // the machine is lost before these are committed
    ///
    /// let restored = Restore::new(sink.source()).into(&again).run_to(&committed)?;
    /// assert_eq!(restored.moment, Moment::Target { undone_keys: 2 });
    /// let words = restored.db.keyspace("words", Default::default())?;
    /// assert_eq!(words.get("silt")?.unwrap(), "1");
    /// assert!(words.get("clay")?.is_none());
    /// # Ok::<(), siltstone_changelog::Error>(())
    /// ```
    pub fn run_to(mut self, target: &Position) -> Result<Restored> {
        let reason = match self.source.read(target) {
            Ok(_) if self.source.is_exact(target)? => None,
            Ok(_) => Some(format!("compaction has replaced what {target} stands for")),
            Err(error @ Error::PositionOutOfRange { .. }) => Some(error.to_string()),
            Err(error) => return Err(error),
        };
        if let Some(reason) = reason {
            let (db, position, newest) = self.open()?;
            return self.run_to_newest(db, position, newest, reason);
        }
        self.until = match self.source.seqno_at(target)? {
            Some(seqno) => Until::Seqno(seqno),
            None => Until::Position(target.clone()),
        };
        let (db, position, newest) = self.open()?;
        let here = db.last_seqno();
        if matches!(self.until, Until::Seqno(target) if here > target) {
            let reason = format!("it goes up to sequence number {here}, and so is ahead of {target}");
            return Err(Error::Stale { directory: self.directory.clone(), reason });
        }
        // A restore that was interrupted may be ahead of its position, which only numbers can tell.
        let is_at_position = here == 0 || self.until != Until::Position(position.clone()) || !is_restoring(&db);
        let is_there = self.until == Until::Seqno(here) || (*target == position && is_at_position);
        let (position, is_met) =
            if is_there { (position, true) } else { self.apply_from(&db, position, newest.clone())? };
        if !is_met {
            let reason = format!("no batch of the log ends at {target}");
            return self.run_to_newest(db, position, newest, reason);
        }
        let (undone_keys, end) = undo::undo(&db, &mut self.applier, self.source.read(&position)?)?;
        let position = end.unwrap_or(position);
        finish(&db, &position)?;
        Ok(Restored { db, position, moment: Moment::Target { undone_keys } })
    }

    fn run_to_newest(mut self, db: Db, position: Position, newest: Position, reason: String) -> Result<Restored> {
        tracing::warn!(%reason, "restoring to the end of the log");
        self.until = Until::Newest;
        let (position, _) = self.apply_from(&db, position, newest)?;
        finish(&db, &position)?;
        Ok(Restored { db, position, moment: Moment::Newest { reason } })
    }

    /// Opens the database, marked as being restored; where to go on, and the end of the log as it is now.
    pub(crate) fn open(&mut self) -> Result<(Db, Position, Position)> {
        if self.directory.as_os_str().is_empty() {
            return Err(Error::InvalidArgument("a restore needs a directory: say where with `into`".to_owned()));
        }
        let mut options = self.options.clone();
        match &self.file_system {
            Some(fs) => {
                check_directory(&**fs, &self.directory)?;
                options = options.file_system(fs.clone());
            }
            None => check_directory(&OsFileSystem, &self.directory)?,
        }
        let (oldest, newest) = self.source.bounds()?;
        self.applier.log_is_whole = self.source.holds_whole_state()?;
        #[cfg(feature = "snapshot")]
        let is_snapshot = self.download(&newest)?;
        let db = options.open(&self.directory)?;
        #[cfg(feature = "snapshot")]
        if is_snapshot {
            self.adopt(&db)?;
        }
        let position = self.begin(&db)?.unwrap_or(oldest);
        Ok((db, position, newest))
    }

    /// What is left of it for whoever goes on by themselves.
    pub(crate) fn into_parts(self) -> (S, Applier) {
        (self.source, self.applier)
    }

    /// Marks an empty database as being restored; where an interrupted restore had got.
    fn begin(&self, db: &Db) -> Result<Option<Position>> {
        if is_restoring(db) {
            return db.metadata(SOURCE_POSITION).map(Position::from_bytes).transpose();
        }
        if self.reuse
            && let Some(position) = db.metadata(SOURCE_POSITION)
        {
            let position = Position::from_bytes(position)?;
            self.check_reusable(&position)?;
            return Ok(Some(position));
        }
        if db.last_seqno() > 0 || !db.keyspaces().is_empty() || db.metadata(SOURCE_POSITION).is_some() {
            let reason = "it holds a database that is not an interrupted restore".to_owned();
            return Err(Error::NotEmpty { directory: self.directory.clone(), reason });
        }
        let mut begun = WriteBatch::new();
        begun.metadata(RESTORING, Some("1"));
        // On storage before the first keyspace is: those are durable at once, and would make it a database like any
        // other.
        db.write_with(begun, Durability::Synced)?;
        Ok(None)
    }

    /// Whether the log goes on where the state here ends.
    fn check_reusable(&self, position: &Position) -> Result<()> {
        match self.source.read(position) {
            Ok(_) => Ok(()),
            Err(error @ (Error::PositionOutOfRange { .. } | Error::Mismatch(_) | Error::InvalidArgument(_))) => {
                Err(Error::Stale { directory: self.directory.clone(), reason: error.to_string() })
            }
            Err(error) => Err(error),
        }
    }
}

/// Whether a restore was begun and did not end.
fn is_restoring(db: &Db) -> bool {
    db.metadata(RESTORING).is_some()
}

/// Notes how far the log is applied.
fn note_position(db: &Db, position: &Position) -> Result<()> {
    let mut note = WriteBatch::new();
    note.metadata(SOURCE_POSITION, Some(position.as_bytes()));
    db.write(note)?;
    Ok(())
}

/// The database is restored up to `position`, durably.
pub(crate) fn finish(db: &Db, position: &Position) -> Result<()> {
    let mut done = WriteBatch::new();
    done.metadata(RESTORING, None::<&str>).metadata(SOURCE_POSITION, Some(position.as_bytes()));
    db.write(done)?;
    db.sync()?;
    Ok(())
}

/// Refuses a directory with files that are not a database's, before anything is created in it. Whether a database is
/// one that may be restored into is for the database to say.
fn check_directory(fs: &dyn FileSystem, directory: &Path) -> Result<()> {
    let entries = match fs.read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(Error::io("listing the directory", directory))?,
    };
    let known = |name: &str| {
        let prefixes = ["LOCK", "CURRENT", "MANIFEST-", "RESTORING"];
        let suffixes = [".wal", ".spare", ".table", ".part"];
        prefixes.iter().any(|prefix| name.starts_with(prefix)) || suffixes.iter().any(|suffix| name.ends_with(suffix))
    };
    match entries.iter().find(|entry| !known(&entry.name)) {
        None => Ok(()),
        Some(entry) => {
            Err(Error::NotEmpty { directory: directory.to_owned(), reason: format!("it holds {:?}", entry.name) })
        }
    }
}
