//! From a directory to a running database: lock, manifest, log replay, ready.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::background::{Pool, Signal, Work};
use crate::batch::{KeyspaceId, Op, Ops};
use crate::cache::BlockCache;
use crate::db::{Db, DbHandle};
use crate::error::{Error, Result};
use crate::fs::{FileLock, LockKind};
use crate::key::{SeqNo, Trailer, ValueKind};
use crate::maintenance::{Maintenance, Preparation};
use crate::memtable::{ArenaPool, Memtable};
use crate::metadata::Metadata;
use crate::name::KeyspaceName;
use crate::options::Options;
use crate::store::{Store, StoreParts, Trees};
use crate::sync::Mutex;
use crate::table::handle::{Purger, TableCache, TableCacheLimits, TableHandle, table_number, table_path};
use crate::tree::Tree;
use crate::version::edit::{Edit, LogFloor};
use crate::version::manifest::Manifest;
use crate::version::set::VersionSet;
use crate::version::state::{KeyspaceState, ManifestState};
use crate::version::version::Version;
use crate::wal::replay::{ReplayInput, Replayed, replay};
use crate::wal::{self, Wal, WalOptions, WalWriter};
use crate::write::commit::Writer;
use insert::Inserter;

mod gather;
mod insert;

/// The lock file.
const LOCK: &str = "LOCK";

/// How many times the memory there is tables are mapped.
const MAPPED_PER_MEMORY: u64 = 8;

/// The first log segment of a database.
pub(crate) const FIRST_SEGMENT: u64 = 1;

/// The id of the first keyspace.
const FIRST_KEYSPACE: KeyspaceId = 1;

impl Options {
    /// Opens the database in `directory`.
    ///
    /// # Errors
    /// `InvalidArgument` for an option out of bounds, `Locked` if another handle holds the directory,
    /// `UnsupportedVersion` for files of a newer release, `Corruption` for damaged ones, `Io` if the directory cannot
    /// be used or (read-only, or not to be created) holds no database.
    pub fn open(self, directory: impl AsRef<Path>) -> Result<Db> {
        self.check()?;
        let directory = directory.as_ref();
        let lock = lock(&self, directory)?;
        let opened = Opened::read(&self, directory)?;
        opened.start(self, directory, lock)
    }
}

pub(crate) fn lock(options: &Options, directory: &Path) -> Result<Box<dyn FileLock>> {
    let fs = &options.file_system;
    let path = directory.join(LOCK);
    let kind = if options.read_only { LockKind::Shared } else { LockKind::Exclusive };
    if !options.read_only && options.create_if_missing {
        fs.create_dir_all(directory).map_err(Error::io("creating the directory", directory))?;
    }
    fs.lock(&path, kind).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => Error::Locked { directory: directory.to_owned() },
        _ => Error::Io { action: "locking the directory", path, source: error },
    })
}

/// What the files say.
struct Opened {
    manifest: Manifest,
    state: ManifestState,
    metadata: Metadata,
    memtables: HashMap<KeyspaceId, Arc<Memtable>>,
    /// Keyspaces whose drop is in the log but did not reach the manifest.
    dropped: Vec<(KeyspaceId, SeqNo)>,
    /// The log's halves; none when opened read-only.
    log: Option<(Arc<Wal>, WalWriter)>,
    last_seqno: SeqNo,
    arenas: Arc<ArenaPool>,
}

impl Opened {
    fn read(options: &Options, directory: &Path) -> Result<Self> {
        let found = Manifest::open(options.file_system.clone(), directory, options.read_only)?;
        let limits = options.limits();
        let arenas = Arc::new(ArenaPool::new(limits.write_buffer_bytes, limits.buffer_bytes));
        match found {
            Some((manifest, state)) => Opened::recover(options, directory, manifest, state, arenas),
            None => Opened::create(options, directory, arenas),
        }
    }

    /// A new database. The log comes first, so that a directory with a manifest always has its log.
    fn create(options: &Options, directory: &Path, arenas: Arc<ArenaPool>) -> Result<Self> {
        if options.read_only || !options.create_if_missing {
            let source = io::Error::new(io::ErrorKind::NotFound, "there is no database");
            return Err(Error::Io { action: "opening", path: directory.to_owned(), source });
        }
        let database_id = new_database_id(directory);
        let fs = options.file_system.clone();
        let log = wal::create(fs.clone(), directory, database_id, FIRST_SEGMENT, 0, wal_options(options))?;
        let mut state = ManifestState::default();
        let edit = Edit {
            database_id: Some(database_id),
            next_keyspace_id: Some(FIRST_KEYSPACE),
            next_file_number: Some(1),
            log_floor: Some(LogFloor { segment: FIRST_SEGMENT, prev_seqno: 0 }),
            ..Edit::default()
        };
        state.apply(&edit).map_err(|reason| Error::corruption(directory, 0, reason))?;
        let manifest = Manifest::create(fs, directory, &state)?;
        Ok(Opened {
            manifest,
            state,
            metadata: Metadata::default(),
            memtables: HashMap::new(),
            dropped: Vec::new(),
            log: Some(log),
            last_seqno: 0,
            arenas,
        })
    }

    fn recover(
        options: &Options,
        directory: &Path,
        manifest: Manifest,
        state: ManifestState,
        arenas: Arc<ArenaPool>,
    ) -> Result<Self> {
        check_tables(options, directory, &state)?;
        let mut memory = Replay::new(options, &state, arenas.clone());
        let input = ReplayInput {
            database_id: state.database_id,
            floor_segment: state.log_floor.segment,
            synced_seqno: state.log_synced_seqno,
            prev_seqno_floor: state.log_floor.prev_seqno,
        };
        let fs = &options.file_system;
        let replayed = replay(&**fs, directory, &input, options.read_only, &mut |first, count, payload, file, at| {
            memory.record(first, count, payload).map_err(|reason| Error::corruption(file, at, reason))
        })?;
        if replayed.dropped_bytes > 0 {
            tracing::info!(bytes = replayed.dropped_bytes, "the end of the log was never synced and is not whole");
        }
        let last_seqno = replayed.last_logged_seqno.max(state.last_seqno);
        let Replay { inserter, dropped, metadata, .. } = memory;
        let memtables = inserter.finish();
        let log = Opened::continue_log(options, directory, &state, replayed, last_seqno)?;
        Ok(Opened { manifest, metadata, memtables, dropped, log, last_seqno, arenas, state })
    }

    fn continue_log(
        options: &Options,
        directory: &Path,
        state: &ManifestState,
        replayed: Replayed,
        last_seqno: SeqNo,
    ) -> Result<Option<(Arc<Wal>, WalWriter)>> {
        if options.read_only {
            return Ok(None);
        }
        let fs = options.file_system.clone();
        wal::open_after_replay(fs, directory, state.database_id, replayed, last_seqno, wal_options(options)).map(Some)
    }

    /// Builds the trees, starts the threads, and finishes what the log says but the manifest does not.
    fn start(self, options: Options, directory: &Path, lock: Box<dyn FileLock>) -> Result<Db> {
        let limits = options.limits();
        let block_cache = Arc::new(BlockCache::new(limits.block_cache_bytes));
        let purger = Arc::new(Purger::default());
        let memory_bytes = options.file_system.memory_bytes();
        // Far beyond memory; 8 GiB where that cannot be told.
        let mmap_limit_bytes = memory_bytes.unwrap_or(1 << 30).saturating_mul(MAPPED_PER_MEMORY);
        let tables = Arc::new(TableCache::new(
            options.file_system.clone(),
            directory.to_owned(),
            block_cache,
            TableCacheLimits {
                max_open_tables: options.max_open_tables,
                max_memory_bytes: limits.table_memory_bytes as u64,
                mmap_reads: options.mmap_reads,
                mmap_limit_bytes: options.mmap_limit_bytes.unwrap_or(mmap_limit_bytes),
                // What the budget leaves to the system's cache.
                cache_bytes: memory_bytes.map_or(u64::MAX, |bytes| bytes.saturating_sub(options.memory_bytes as u64)),
            },
            purger.clone(),
        ));
        let dropped: HashMap<KeyspaceId, SeqNo> = self.dropped.into_iter().collect();
        let trees = build_trees(&options, &self.state, &dropped, self.memtables, &tables, &self.arenas);
        let (wal, writer) = self.log.unzip();
        let read_only = options.read_only;
        let store = Arc::new(Store::new(StoreParts {
            directory: directory.to_owned(),
            versions: VersionSet::new(self.manifest, self.state),
            wal,
            tables,
            purger,
            arenas: self.arenas,
            metadata: self.metadata,
            trees,
            last_seqno: self.last_seqno,
            lock,
            options,
        }));
        if let Some(wal) = &store.wal {
            wal.note_ingested(store.versions.with_state(|state| state.ingested_seqno));
        }
        if !read_only {
            finish_drops(&store, dropped)?;
            remove_orphans(&store)?;
            crate::changes::restore_cursors(&store);
        }
        let writer = writer.map(|log| Arc::new(Writer::new(store.clone(), log)));
        let handle = DbHandle { store, writer, pools: Mutex::default(), catalog: Mutex::new(()) };
        handle.start_writing()?;
        Ok(Db::new(handle))
    }
}

/// How much callers' threads go before those that flush and compact, where they share processors: as `nice` counts it.
/// Measured with a writer and two background threads on two cores: 5 and 10 gave an eighth more puts than 0, and the
/// slowest overwrites were shorter with 5.
const NICENESS: i32 = 5;

impl DbHandle {
    fn start_threads(&self, writer: &Arc<Writer>) -> std::io::Result<()> {
        let store = &self.store;
        let start = |names: Vec<String>, niceness, signal: &Arc<Signal>, work: Arc<dyn Work>| {
            Pool::start(names, niceness, signal.clone(), work).map(|pool| self.pools.lock().push(pool))
        };
        let names = (0..store.options.background_threads).map(|number| format!("siltstone-{number}")).collect();
        start(names, NICENESS, &store.signal, Arc::new(Maintenance::new(store.clone(), writer.clone())))?;
        // It does little, and a writer may be about to wait for it.
        start(vec!["siltstone-ahead".to_owned()], 0, &store.ahead, Arc::new(Preparation::new(store.clone())))
    }

    fn start_writing(&self) -> Result<()> {
        let Some(writer) = &self.writer else { return Ok(()) };
        let trees = self.store.live_trees();
        writer.with_state(|state| trees.iter().for_each(|tree| state.add(tree.clone())));
        self.start_threads(writer).map_err(Error::io("starting background threads", &self.store.directory))?;
        // Opening flushes nothing by itself, unless what the log holds does not fit the memory this time.
        if self.store.memtable_bytes() >= self.store.limits.write_buffer_bytes / 2 {
            writer.with_state(|state| state.seal_full());
        }
        for tree in trees.iter().filter(|tree| !tree.view().version.levels()[0].is_empty()) {
            self.store.compaction_wanted(tree);
        }
        Ok(())
    }
}

/// Random, so that the log of one database is never taken for that of another; odd, so that it is never 0.
#[cfg(not(fuzzing))]
pub(crate) fn new_database_id(directory: &Path) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(directory) | 1
}

#[cfg(fuzzing)]
pub(crate) fn new_database_id(_directory: &Path) -> u64 {
    crate::fuzzing::DATABASE_ID
}

pub(crate) fn wal_options(options: &Options) -> WalOptions {
    WalOptions { segment_bytes: options.limits().wal_segment_bytes, max_retained_bytes: options.max_retained_wal_bytes }
}

/// Every table that the manifest names must be there, with the length it had.
fn check_tables(options: &Options, directory: &Path, state: &ManifestState) -> Result<()> {
    let listed = options.file_system.read_dir(directory).map_err(Error::io("listing the directory", directory))?;
    let lengths: HashMap<u64, u64> =
        listed.iter().filter_map(|entry| Some((table_number(&entry.name)?, entry.len))).collect();
    for meta in state.keyspaces.values().flat_map(|keyspace| keyspace.levels.iter().flatten()) {
        let reason = match lengths.get(&meta.number) {
            Some(&len) if len == meta.file_bytes => continue,
            Some(len) => format!("the table has {len} bytes instead of {}", meta.file_bytes),
            None => "the table is missing".to_owned(),
        };
        return Err(Error::corruption(&table_path(directory, meta.number), 0, reason));
    }
    Ok(())
}

/// A drop that was logged holds, also if the process died before the manifest said so; its tables are orphans from here
/// on.
fn finish_drops(store: &Store, dropped: HashMap<KeyspaceId, SeqNo>) -> Result<()> {
    if dropped.is_empty() {
        return Ok(());
    }
    let edit = Edit { dropped: dropped.into_iter().collect(), ..Edit::default() };
    store.versions.install(|_| Some(edit), || ()).map(|_| ())
}

/// Tables that no edit names: left over from a crash between writing and installing them.
fn remove_orphans(store: &Store) -> Result<()> {
    let (fs, directory) = (&store.options.file_system, &store.directory);
    let live: HashSet<u64> = store
        .live_trees()
        .iter()
        .flat_map(|tree| tree.view().version.tables().map(|handle| handle.meta.number).collect::<Vec<_>>())
        .collect();
    let listed = fs.read_dir(directory).map_err(Error::io("listing the directory", directory))?;
    for number in listed.iter().filter_map(|entry| table_number(&entry.name)).filter(|number| !live.contains(number)) {
        let path = table_path(directory, number);
        fs.remove_file(&path).map_err(Error::io("removing an orphan", &path))?;
    }
    crate::repair::remove_unfinished(&**fs, directory, listed.iter().map(|entry| &*entry.name))?;
    Ok(())
}

fn build_trees(
    options: &Options,
    state: &ManifestState,
    dropped: &HashMap<KeyspaceId, SeqNo>,
    mut memtables: HashMap<KeyspaceId, Arc<Memtable>>,
    tables: &Arc<TableCache>,
    arenas: &Arc<ArenaPool>,
) -> Trees {
    let mut trees = Trees::default();
    for (&id, keyspace) in &state.keyspaces {
        let name = KeyspaceName::from(keyspace.name.as_str());
        trees.names.insert(id, name.clone());
        if dropped.contains_key(&id) {
            continue;
        }
        let version = build_version(keyspace, tables);
        let active = memtables.remove(&id).unwrap_or_else(|| new_memtable(options, keyspace, arenas));
        let tree = Arc::new(Tree::new(id, name.clone(), keyspace.options.clone(), active, version));
        trees.by_name.insert(name, tree);
    }
    for (&id, dropped) in &state.dropped {
        trees.names.insert(id, KeyspaceName::from(dropped.name.as_str()));
    }
    trees
}

fn build_version(keyspace: &KeyspaceState, tables: &Arc<TableCache>) -> Version<TableHandle> {
    let levels = keyspace.levels.iter().enumerate();
    let handles = levels.flat_map(|(level, metas)| {
        metas.iter().map(move |meta| (level, TableHandle::new(meta.clone(), tables.clone())))
    });
    Version::empty().apply(handles.collect(), &[])
}

fn new_memtable(options: &Options, keyspace: &KeyspaceState, arenas: &Arc<ArenaPool>) -> Arc<Memtable> {
    Arc::new(Memtable::new(keyspace.options.memtable, options.limits().memtable_bytes, arenas))
}

/// Puts the log's operations back into memtables.
struct Replay<'s> {
    options: &'s Options,
    state: &'s ManifestState,
    arenas: Arc<ArenaPool>,
    inserter: Inserter,
    dropped: Vec<(KeyspaceId, SeqNo)>,
    metadata: Metadata,
}

impl<'s> Replay<'s> {
    fn new(options: &'s Options, state: &'s ManifestState, arenas: Arc<ArenaPool>) -> Self {
        let metadata = Metadata::from_encoded(&state.metadata);
        Replay {
            options,
            state,
            arenas,
            // As much as a segment of the log holds.
            inserter: Inserter::new(usize::try_from(options.limits().wal_segment_bytes).unwrap_or(usize::MAX)),
            dropped: Vec::new(),
            metadata,
        }
    }

    fn record(&mut self, first: SeqNo, count: u32, payload: &[u8]) -> Result<(), String> {
        let mut seqno = first;
        let end = first + SeqNo::from(count);
        for op in Ops::new(payload) {
            let op = op?;
            // Before it is inserted: the number of an operation too many may be one that cannot be.
            if seqno == end && !matches!(op, Op::Metadata { .. }) {
                return Err(format!("the record holds more operations than the {count} it states"));
            }
            match op {
                Op::Put { keyspace, key, value } => self.insert(keyspace, key, seqno, ValueKind::Put, value)?,
                Op::Delete { keyspace, key } => self.insert(keyspace, key, seqno, ValueKind::Delete, &[])?,
                Op::DropKeyspace { keyspace } => self.drop_keyspace(keyspace, seqno)?,
                Op::Metadata { name, value } => {
                    self.metadata.set(name, value, true);
                    continue;
                }
            }
            seqno += 1;
        }
        if seqno != end {
            return Err(format!("the record holds {} operations instead of {count}", seqno - first));
        }
        Ok(())
    }

    fn insert(
        &mut self,
        id: KeyspaceId,
        key: &[u8],
        seqno: SeqNo,
        kind: ValueKind,
        value: &[u8],
    ) -> Result<(), String> {
        let Some(keyspace) = self.state.keyspaces.get(&id) else { return self.check_was_dropped(id) };
        if seqno <= keyspace.flushed_seqno || self.dropped.iter().any(|(dropped, _)| *dropped == id) {
            return Ok(());
        }
        let (options, arenas) = (self.options, &self.arenas);
        let memtable = || new_memtable(options, keyspace, arenas);
        self.inserter.add(id, key, Trailer::new(seqno, kind), value, memtable);
        Ok(())
    }

    fn drop_keyspace(&mut self, id: KeyspaceId, seqno: SeqNo) -> Result<(), String> {
        if !self.state.keyspaces.contains_key(&id) {
            return self.check_was_dropped(id);
        }
        self.inserter.remove(id);
        self.dropped.push((id, seqno));
        Ok(())
    }

    /// Keyspaces are in the manifest before the log names them, and ids are never used again.
    fn check_was_dropped(&self, id: KeyspaceId) -> Result<(), String> {
        if (FIRST_KEYSPACE..self.state.next_keyspace_id).contains(&id) {
            return Ok(());
        }
        Err(format!("the record names keyspace {id}, which never was"))
    }
}

#[cfg(test)]
mod tests;
