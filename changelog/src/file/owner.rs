//! Who may write a log.
//!
//! Each owner has a number, its epoch, and holds the lock of `OWNER-{epoch}` for as long as it lives. `LOCK` is held while
//! somebody becomes the owner. Who takes over from an owner that is still there first removes that one's file, and only
//! then reads what the log holds; and an owner acknowledges nothing before it has looked, after it synced, whether its
//! file is still there. So what was acknowledged is read, and what is not read is not acknowledged.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use siltstone::Clock;
use siltstone::fs::{FileLock, FileSystem, LockKind};

use super::chain::{Listing, OWNER};
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

    /// The owner, with an epoch above all that `listing` knows.
    ///
    /// # Errors
    /// `Locked` if there is an owner and `take_over` is not set; `Io`.
    pub(super) fn finish(&self, listing: &Listing, take_over: bool, clock: &dyn Clock) -> Result<Owner> {
        let lock = |epoch| lock(&self.fs, &self.directory, &owner_path(&self.directory, epoch), clock);
        // Held until the new owner is there, so that no reader takes the log for one without an owner.
        let before =
            if take_over { Vec::new() } else { listing.owners.iter().copied().map(lock).collect::<Result<_>>()? };
        let known = listing.segments.iter().map(|(name, _)| name.epoch).chain(listing.owners.iter().copied());
        let epoch = known.max().unwrap_or(0) + 1;
        let own = lock(epoch)?;
        drop(before);
        for &old in &listing.owners {
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
        let path = owner_path(&self.directory, self.epoch);
        match self.fs.open(&path) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(Error::Fenced { log: self.directory.display().to_string() })
            }
            Err(error) => Err(Error::io("looking whether the log is still ours", &path)(error)),
        }
    }
}

/// Whether one of `owners` lives.
pub(super) fn is_owned(fs: &Arc<dyn FileSystem>, directory: &Path, owners: &[u64]) -> Result<bool> {
    for &epoch in owners {
        let path = owner_path(directory, epoch);
        match fs.lock(&path, LockKind::Shared) {
            Ok(_) => {}
            // Held; or removed since, by a later owner.
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotFound) => {
                return Ok(true);
            }
            Err(error) => return Err(Error::io("looking for the log's owner", &path)(error)),
        }
    }
    Ok(false)
}

fn owner_path(directory: &Path, epoch: u64) -> PathBuf {
    directory.join(format!("{OWNER}{epoch:010}"))
}

fn lock(fs: &Arc<dyn FileSystem>, directory: &Path, path: &Path, clock: &dyn Clock) -> Result<Box<dyn FileLock>> {
    for _ in 0..TRIES {
        match fs.lock(path, LockKind::Exclusive) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => clock.sleep(TRY_AGAIN),
            lock => return lock.map_err(Error::io("locking the log", path)),
        }
    }
    Err(Error::Locked { directory: directory.to_owned() })
}
