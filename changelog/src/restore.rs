//! [`Restore`]: a database from a log.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use siltstone::fs::{FileSystem, OsFileSystem};
use siltstone::{Db, Durability, KeyspaceOptions, Options, WriteBatch};

use crate::applier::Applier;
use crate::error::{Error, Result};
use crate::position::Position;
use crate::sink::Source;

/// The metadata entry that holds the source's position after the last batch that was applied, in a database that is
/// being restored and after.
pub const SOURCE_POSITION: &str = "changelog/source position";

/// The metadata entry that a database has while it is being restored.
const RESTORING: &str = "changelog/restoring";

/// How many bytes of keys and values, or batches, lie between two reports of progress.
const REPORT_BYTES: u64 = 1 << 20;
const REPORT_BATCHES: u64 = 4096;

/// Who is told of progress.
type Report = Box<dyn FnMut(&Progress)>;

/// How far a restore has got.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Progress {
    /// Batches applied by this run.
    pub batches: u64,
    /// Changes in them.
    pub changes: u64,
    /// Bytes of keys and values in them.
    pub user_bytes: u64,
    /// The position after the last of them.
    pub position: Position,
    /// The end of the log, as of when the run began.
    pub newest: Position,
}

/// Restores a database from a source: every batch is applied with the sequence numbers it had, together with the
/// position after it, so that data and position cannot disagree whenever the machine stops.
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

    /// Calls `report` about every MiB of keys and values, and at the end.
    pub fn on_progress(mut self, report: impl FnMut(&Progress) + 'static) -> Self {
        self.on_progress = Some(Box::new(report));
        self
    }

    /// Restores everything up to the end of the log and makes it durable; the database, open, and the position it
    /// stands for.
    ///
    /// # Errors
    /// `NotEmpty`; `InvalidArgument` if no directory was given; `Partial` if the log does not begin at the first
    /// change; whatever the source says; errors of the database. What was restored by then stays, and another run goes
    /// on from there.
    pub fn run(mut self) -> Result<(Db, Position)> {
        let (db, position, newest) = self.open()?;
        let progress = Progress { batches: 0, changes: 0, user_bytes: 0, position, newest };
        let position = self.apply_all(&db, progress)?;
        finish(&db, &position)?;
        Ok((db, position))
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
        let db = options.open(&self.directory)?;
        let position = self.begin(&db)?.unwrap_or(oldest);
        Ok((db, position, newest))
    }

    /// What is left of it for whoever goes on by themselves.
    pub(crate) fn into_parts(self) -> (S, Applier) {
        (self.source, self.applier)
    }

    /// Marks an empty database as being restored; where an interrupted restore had got.
    fn begin(&self, db: &Db) -> Result<Option<Position>> {
        if db.metadata(RESTORING).is_some() {
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

    fn apply_all(&mut self, db: &Db, mut progress: Progress) -> Result<Position> {
        let mut reported = (0, 0);
        for batch in self.source.read(&progress.position)? {
            let (position, batch) = batch?;
            self.applier.apply(db, &batch, &position)?;
            progress.batches += 1;
            progress.changes += batch.changes().len() as u64;
            progress.user_bytes += batch.user_bytes();
            progress.position = position;
            if progress.user_bytes - reported.0 >= REPORT_BYTES || progress.batches - reported.1 >= REPORT_BATCHES {
                reported = (progress.user_bytes, progress.batches);
                self.report(&progress);
            }
        }
        self.report(&progress);
        Ok(progress.position)
    }

    fn report(&mut self, progress: &Progress) {
        if let Some(report) = &mut self.on_progress {
            report(progress);
        }
    }
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
        let prefixes = ["LOCK", "CURRENT", "MANIFEST-"];
        let suffixes = [".wal", ".spare", ".table"];
        prefixes.iter().any(|prefix| name.starts_with(prefix)) || suffixes.iter().any(|suffix| name.ends_with(suffix))
    };
    match entries.iter().find(|entry| !known(&entry.name)) {
        None => Ok(()),
        Some(entry) => {
            Err(Error::NotEmpty { directory: directory.to_owned(), reason: format!("it holds {:?}", entry.name) })
        }
    }
}
