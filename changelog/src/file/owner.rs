//! Who may write a log.
//!
//! Each owner has a number, its epoch, and holds the lock of `OWNER-{epoch}` for as long as it lives. `LOCK` is held while
//! somebody becomes the owner. Who takes over from an owner that is still there first makes the file of its own epoch, and
//! only then reads what the log holds; and an owner acknowledges nothing before it has looked for such a file, after it
//! synced. So what was acknowledged is read, and what is not read is not acknowledged.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use siltstone::Clock;
use siltstone::fs::{FileLock, FileSystem, LockKind};

use crate::error::{Error, Result};

/// Held by whoever is becoming the owner.
const LOCK: &str = "LOCK";

/// How often a lock is asked for again that a reader may have held for a moment, to see whether its owner lives.
const TRIES: u32 = 5;
const TRY_AGAIN: Duration = Duration::from_millis(10);

/// The owner of a log, until it is dropped.
#[derive(Debug)]
pub(super) struct Owner {
    fs: Arc<dyn FileSystem>,
    directory: PathBuf,
    pub(super) epoch: u64,
    _lock: Box<dyn FileLock>,
}

/// Becoming the owner: nobody else does meanwhile.
#[derive(Debug)]
pub(super) struct Becoming {
    fs: Arc<dyn FileSystem>,
    directory: PathBuf,
    _lock: Box<dyn FileLock>,
}

impl Becoming {
    /// # Errors
    /// `Locked` if somebody else is at it; `Io`.
    pub(super) fn begin(fs: &Arc<dyn FileSystem>, directory: &Path, clock: &dyn Clock) -> Result<Self> {
        let lock = lock(fs, directory, &directory.join(LOCK), clock)?;
        Ok(Becoming { fs: fs.clone(), directory: directory.to_owned(), _lock: lock })
    }

    /// The owner, with an epoch above `newest_epoch` and above those of all owners before.
    ///
    /// # Errors
    /// `Locked` if there is an owner and `take_over` is not set; `Io`.
    pub(super) fn finish(&self, newest_epoch: u64, take_over: bool, clock: &dyn Clock) -> Result<Owner> {
        let epochs = owner_epochs(&self.fs, &self.directory)?;
        let newest_owner = epochs.iter().copied().max();
        // Held until the new owner is there, so that no reader takes the log for one without an owner.
        let before = match newest_owner {
            Some(epoch) if !take_over => {
                Some(lock(&self.fs, &self.directory, &owner_path(&self.directory, epoch), clock)?)
            }
            _ => None,
        };
        let epoch = newest_owner.unwrap_or(0).max(newest_epoch) + 1;
        let own = lock(&self.fs, &self.directory, &owner_path(&self.directory, epoch), clock)?;
        drop(before);
        for old in epochs {
            let path = owner_path(&self.directory, old);
            self.fs.remove_file(&path).map_err(Error::io("removing an earlier owner's lock", &path))?;
        }
        Ok(Owner { fs: self.fs.clone(), directory: self.directory.clone(), epoch, _lock: own })
    }
}

impl Owner {
    /// # Errors
    /// `Fenced` once there is a later owner; `Io`.
    pub(super) fn check(&self) -> Result<()> {
        let epochs = owner_epochs(&self.fs, &self.directory)?;
        if epochs.iter().any(|&epoch| epoch > self.epoch) {
            return Err(Error::Fenced { log: self.directory.display().to_string() });
        }
        Ok(())
    }
}

/// Whether somebody owns the log now.
pub(super) fn has_owner(fs: &Arc<dyn FileSystem>, directory: &Path) -> Result<bool> {
    let Some(epoch) = owner_epochs(fs, directory)?.into_iter().max() else { return Ok(false) };
    let path = owner_path(directory, epoch);
    match fs.lock(&path, LockKind::Shared) {
        Ok(_) => Ok(false),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock => Ok(true),
            // Removed since: by a later owner.
            io::ErrorKind::NotFound => Ok(true),
            _ => Err(Error::io("looking for the log's owner", &path)(error)),
        },
    }
}

fn owner_path(directory: &Path, epoch: u64) -> PathBuf {
    directory.join(format!("OWNER-{epoch:010}"))
}

fn owner_epochs(fs: &Arc<dyn FileSystem>, directory: &Path) -> Result<Vec<u64>> {
    let entries = match fs.read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Error::io("listing the log", directory))?,
    };
    Ok(entries.iter().filter_map(|entry| entry.name.strip_prefix("OWNER-")?.parse().ok()).collect())
}

fn lock(fs: &Arc<dyn FileSystem>, directory: &Path, path: &Path, clock: &dyn Clock) -> Result<Box<dyn FileLock>> {
    let mut tries = 1;
    loop {
        match fs.lock(path, LockKind::Exclusive) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && tries < TRIES => {
                tries += 1;
                clock.sleep(TRY_AGAIN);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(Error::Locked { directory: directory.to_owned() });
            }
            lock => return lock.map_err(Error::io("locking the log", path)),
        }
    }
}
