//! [`SnapshotStore`]: making, listing, restoring and removing snapshots.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use parking_lot::Mutex;
use siltstone::{Clock, Db, SystemClock};
use tokio::runtime::Runtime;
use url::Url;

use super::blobs::{self, foreign, retry};
use super::index::{FileEntry, Index, SnapshotInfo};
use crate::error::{Error, Result};
use crate::retry::RetryPolicy;

/// The file that makes a directory a database: it comes last.
const CURRENT: &str = "CURRENT";

/// How snapshots are made.
#[derive(Clone, Debug)]
pub struct SnapshotOptions {
    parallel: usize,
    retry: RetryPolicy,
    grace: Duration,
}

impl Default for SnapshotOptions {
    fn default() -> Self {
        SnapshotOptions { parallel: 4, retry: RetryPolicy::default(), grace: Duration::from_secs(24 * 3600) }
    }
}

impl SnapshotOptions {
    /// The defaults.
    pub fn new() -> Self {
        SnapshotOptions::default()
    }

    /// How many files are on their way at a time; each takes up to 24 MiB of memory. At least 1. Default 4.
    pub fn parallel(mut self, files: usize) -> Self {
        self.parallel = files.max(1);
        self
    }

    /// How failed requests are tried again. Default: up to 15 minutes.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// How old a blob that no snapshot names has to be before [`SnapshotStore::prune`] removes it: longer than an upload
    /// takes. Default 1 day.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }
}

/// What an upload did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Uploaded {
    /// The snapshot.
    pub snapshot: SnapshotInfo,
    /// Files that were not there yet.
    pub files: usize,
    /// Tables among them.
    pub tables: usize,
    /// Their length, in bytes.
    pub bytes: u64,
}

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pruned {
    /// Snapshots.
    pub snapshots: usize,
    /// Blobs that no snapshot named any more.
    pub blobs: usize,
}

/// Snapshots of one database in an object store.
///
/// ```
/// use siltstone_changelog::SnapshotStore;
/// # let scratch = tempfile::tempdir().unwrap();
/// # let path = |name: &str| scratch.path().join(name);
/// let db = siltstone::Db::open(path("db"))?;
/// db.keyspace("words", Default::default())?.put("silt", "1")?;
/// let store = SnapshotStore::in_directory(path("snapshots"))?;
/// let made = store.upload(&db, path("checkpoint"))?;
///
/// store.restore(&store.list()?.last().unwrap().id, path("again"))?;
/// let again = siltstone::Db::open(path("again"))?;
/// assert_eq!(again.last_seqno(), made.snapshot.seqno);
/// assert_eq!(again.keyspace("words", Default::default())?.get("silt")?.unwrap(), "1");
/// # Ok::<(), siltstone_changelog::Error>(())
/// ```
#[derive(Debug)]
pub struct SnapshotStore {
    store: Arc<dyn ObjectStore>,
    prefix: ObjectPath,
    /// The root of a store that is a directory: it leaves it to us to make durable what is in there.
    local: Option<PathBuf>,
    options: SnapshotOptions,
    runtime: Runtime,
    clock: Arc<dyn Clock>,
    /// What tables are, by name, length and time of writing: they never change, so they are read once.
    known: Mutex<HashMap<(String, u64, SystemTime), FileEntry>>,
}

impl SnapshotStore {
    /// Snapshots in a directory, which is created if it is missing.
    ///
    /// # Errors
    /// `Io`.
    pub fn in_directory(directory: impl AsRef<Path>) -> Result<Self> {
        let directory = directory.as_ref();
        std::fs::create_dir_all(directory).map_err(Error::io("creating the directory of snapshots", directory))?;
        let store = LocalFileSystem::new_with_prefix(directory).map_err(foreign)?;
        let mut snapshots = SnapshotStore::on(Arc::new(store), "", SnapshotOptions::new())?;
        snapshots.local = Some(directory.to_owned());
        Ok(snapshots)
    }

    /// Snapshots where `url` says: `file:///..`, and with the features for them `s3://bucket/prefix`, `gs://..`, `az://..`.
    /// `settings` are those of the object store, such as `aws_endpoint` or `aws_access_key_id`.
    ///
    /// # Errors
    /// `InvalidArgument` for an URL or a setting that is not understood.
    pub fn at(
        url: &str,
        settings: impl IntoIterator<Item = (String, String)>,
        options: SnapshotOptions,
    ) -> Result<Self> {
        let refused = |reason: String| Error::InvalidArgument(format!("{url:?} is no place for snapshots: {reason}"));
        let parsed = Url::parse(url).map_err(|error| refused(error.to_string()))?;
        let (store, prefix) =
            object_store::parse_url_opts(&parsed, settings).map_err(|error| refused(error.to_string()))?;
        let mut snapshots = SnapshotStore::on(Arc::from(store), prefix.as_ref(), options)?;
        snapshots.local = (parsed.scheme() == "file").then(|| PathBuf::from("/"));
        Ok(snapshots)
    }

    /// Snapshots under `prefix` of any object store.
    ///
    /// # Errors
    /// `Foreign` if no thread can be started.
    pub fn on(store: Arc<dyn ObjectStore>, prefix: &str, options: SnapshotOptions) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("siltstone-snapshot")
            .enable_all()
            .build()
            .map_err(|error| Error::Foreign { source: Box::new(error), retryable: false })?;
        let clock = Arc::new(SystemClock::default());
        let prefix = ObjectPath::from(prefix);
        Ok(SnapshotStore { store, prefix, local: None, options, runtime, clock, known: Mutex::default() })
    }

    fn blob(&self, name: &str) -> ObjectPath {
        self.prefix.clone().join("blobs").join(name)
    }

    fn index(&self, id: &str) -> ObjectPath {
        self.prefix.clone().join("snapshots").join(format!("{id}.json"))
    }

    /// Makes an object durable that was just put there.
    fn settle(&self, object: &ObjectPath) -> Result<()> {
        let Some(root) = &self.local else { return Ok(()) };
        let path = root.join(object.as_ref());
        for path in [Some(&*path), path.parent()].into_iter().flatten() {
            let synced = std::fs::File::open(path).and_then(|file| file.sync_all());
            synced.map_err(Error::io("syncing a snapshot", path))?;
        }
        Ok(())
    }

    /// Makes a snapshot of `db`, by way of a checkpoint in `scratch`: an empty or missing directory, on the database's
    /// device if its tables are not to be copied, which is gone afterwards. Tables that an earlier snapshot has are not
    /// uploaded again, and what an interrupted upload got there is not either.
    ///
    /// # Errors
    /// As [`Db::checkpoint`]; `Foreign` if the object store fails for too long.
    pub fn upload(&self, db: &Db, scratch: impl AsRef<Path>) -> Result<Uploaded> {
        let scratch = scratch.as_ref();
        let seqno = db.checkpoint(scratch)?;
        let uploaded = self.upload_files(scratch, seqno);
        let removed = std::fs::remove_dir_all(scratch).map_err(Error::io("removing a checkpoint", scratch));
        let uploaded = uploaded?;
        removed.map(|()| uploaded)
    }

    fn upload_files(&self, directory: &Path, seqno: u64) -> Result<Uploaded> {
        let files = self.describe_all(directory)?;
        let created = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.runtime.block_on(async {
            let there: HashSet<String> = self.names("blobs").await?.into_iter().map(|(name, _)| name).collect();
            let missing: Vec<&FileEntry> = files.iter().filter(|file| !there.contains(&file.blob())).collect();
            let sending = stream::iter(&missing).map(|file| async move {
                let (path, blob) = (directory.join(&file.name), self.blob(&file.blob()));
                retry(self.options.retry, &*self.clock, || blobs::upload(&self.store, &path, &blob)).await?;
                self.settle(&blob)
            });
            sending.buffer_unordered(self.options.parallel).try_collect::<()>().await?;
            let (count, bytes) = (missing.len(), missing.iter().map(|file| file.bytes).sum());
            let tables = missing.iter().filter(|file| is_table(&file.name)).count();
            let index = Index::new(created.as_millis() as u64, seqno, files);
            let (path, payload) = (self.index(&index.id()), PutPayload::from(index.encode()?));
            retry(self.options.retry, &*self.clock, || async {
                self.store.put(&path, payload.clone()).await.map(drop).map_err(foreign)
            })
            .await?;
            self.settle(&path)?;
            Ok(Uploaded { snapshot: index.info(), files: count, tables, bytes })
        })
    }

    fn describe_all(&self, directory: &Path) -> Result<Vec<FileEntry>> {
        let io = |error| Error::io("listing a checkpoint", directory)(error);
        let mut files = Vec::new();
        for entry in std::fs::read_dir(directory).map_err(io)? {
            let entry = entry.map_err(io)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let written = entry.metadata().map_err(io)?;
            let key = (name.clone(), written.len(), written.modified().map_err(io)?);
            let known = self.known.lock().get(&key).cloned();
            let file = match known {
                Some(file) => file,
                None => blobs::describe(&entry.path(), &name)?,
            };
            if is_table(&name) {
                self.known.lock().insert(key, file.clone());
            }
            files.push(file);
        }
        files.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(files)
    }

    /// The names of all objects in a folder, and when they were written.
    async fn names(&self, folder: &str) -> Result<Vec<(String, SystemTime)>> {
        let folder = self.prefix.clone().join(folder);
        retry(self.options.retry, &*self.clock, || async {
            let found = self.store.list(Some(&folder)).map_ok(|object| {
                let name = object.location.filename().unwrap_or_default().to_owned();
                (name, SystemTime::from(object.last_modified))
            });
            found.try_collect().await.map_err(foreign)
        })
        .await
    }

    async fn read_index(&self, id: &str) -> Result<Index> {
        let path = self.index(id);
        let bytes = retry(self.options.retry, &*self.clock, || async {
            self.store.get(&path).await.map_err(foreign)?.bytes().await.map_err(foreign)
        })
        .await?;
        Index::decode(path.as_ref(), &bytes)
    }

    async fn ids(&self) -> Result<Vec<String>> {
        let names = self.names("snapshots").await?;
        let mut ids: Vec<String> =
            names.into_iter().filter_map(|(name, _)| name.strip_suffix(".json").map(str::to_owned)).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// All snapshots, the newest last.
    ///
    /// # Errors
    /// `Corruption`, `UnsupportedVersion`, `Foreign`.
    pub fn list(&self) -> Result<Vec<SnapshotInfo>> {
        self.runtime.block_on(async {
            let mut snapshots = Vec::new();
            for id in self.ids().await? {
                snapshots.push(self.read_index(&id).await?.info());
            }
            Ok(snapshots)
        })
    }

    /// Downloads a snapshot into `directory`, which must be empty or missing, or hold a download of it that was
    /// interrupted: what is there and right is not downloaded again. Then it is a database.
    ///
    /// # Errors
    /// `Corruption` if a file is not what was uploaded; `Io`; `Foreign`, which a snapshot that is not there is too.
    pub fn restore(&self, id: &str, directory: impl AsRef<Path>) -> Result<SnapshotInfo> {
        let directory = directory.as_ref();
        let io = |error| Error::io("creating the directory of a snapshot", directory)(error);
        std::fs::create_dir_all(directory).map_err(io)?;
        self.runtime.block_on(async {
            let index = self.read_index(id).await?;
            let (last, files): (Vec<&FileEntry>, Vec<&FileEntry>) =
                index.files.iter().partition(|file| file.name == CURRENT);
            for files in [files, last] {
                let coming = stream::iter(files).map(|file| async move {
                    let blob = self.blob(&file.blob());
                    retry(self.options.retry, &*self.clock, || blobs::download(&self.store, &blob, file, directory))
                        .await
                });
                coming.buffer_unordered(self.options.parallel).try_collect::<()>().await?;
                std::fs::File::open(directory).and_then(|directory| directory.sync_all()).map_err(io)?;
            }
            Ok(index.info())
        })
    }

    /// Removes all but the newest `keep` snapshots, and the blobs that no snapshot names any more.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    pub fn prune(&self, keep: usize) -> Result<Pruned> {
        self.runtime.block_on(async {
            let mut ids = self.ids().await?;
            let kept = ids.split_off(ids.len().saturating_sub(keep));
            for id in &ids {
                self.delete(&self.index(id)).await?;
            }
            let mut named = HashSet::new();
            for id in &kept {
                named.extend(self.read_index(id).await?.files.iter().map(FileEntry::blob));
            }
            let old = SystemTime::now().checked_sub(self.options.grace).unwrap_or(SystemTime::UNIX_EPOCH);
            let mut blobs = self.names("blobs").await?;
            blobs.retain(|(name, written)| !named.contains(name) && *written <= old);
            for (name, _) in &blobs {
                self.delete(&self.blob(name)).await?;
            }
            Ok(Pruned { snapshots: ids.len(), blobs: blobs.len() })
        })
    }

    async fn delete(&self, path: &ObjectPath) -> Result<()> {
        retry(self.options.retry, &*self.clock, || async {
            match self.store.delete(path).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(foreign(error)),
            }
        })
        .await
    }
}

fn is_table(name: &str) -> bool {
    name.ends_with(".table")
}
