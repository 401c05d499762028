//! The write-ahead log.

use std::path::Path;
use std::sync::Arc;

use crate::Result;
use crate::fs::OsFileSystem;
use crate::wal::{self, Wal, WalOptions, WalWriter};

/// A log and its only writer, without an engine around it.
#[derive(Debug)]
pub struct Log {
    wal: Arc<Wal>,
    writer: WalWriter,
}

impl Log {
    /// A new log in `dir`, an existing and empty directory. Segments double from 256 KiB to `segment_bytes` (4 KiB or
    /// more).
    ///
    /// # Errors
    /// `Io`.
    pub fn create(dir: &Path, segment_bytes: u64) -> Result<Self> {
        let options = WalOptions { segment_bytes, max_retained_bytes: 0 };
        let (wal, writer) = wal::create(Arc::new(OsFileSystem), dir, 1, 1, 0, options)?;
        Ok(Log { wal, writer })
    }

    /// Appends and publishes a record of one write.
    ///
    /// # Errors
    /// `Io`, after which the log takes no more.
    #[inline]
    pub fn append(&mut self, payload: &[u8]) -> Result<()> {
        let seqno = self.wal.last_logged_seqno() + 1;
        self.writer.append(seqno, 1, payload)?;
        self.writer.publish(seqno);
        Ok(())
    }

    /// Makes everything appended so far durable.
    ///
    /// # Errors
    /// `Io`, which sticks.
    #[inline]
    pub fn sync(&self) -> Result<()> {
        self.wal.sync_through(self.wal.last_logged_seqno())
    }

    /// Lets go of all segments but the active one, as if their writes were in tables, and makes the next one ready:
    /// recycled if there are full-grown ones, with its pages warm.
    ///
    /// # Errors
    /// `Io`.
    pub fn recycle(&self) -> Result<()> {
        self.wal.sync_all()?;
        if let Some(floor) = self.wal.plan_release(self.wal.last_logged_seqno(), self.wal.mark()) {
            self.wal.release_below(floor.segment);
        }
        self.wal.prepare_spare()
    }

    /// Reads back and checks every record that was not let go of; how many there are.
    ///
    /// # Errors
    /// `Corruption`, `Io`.
    pub fn verify(&self) -> Result<u64> {
        self.wal.verify()
    }
}
