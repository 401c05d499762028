//! Files for the next segments: prepared ahead, recycled when free, so that rolling costs no more than a header.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::format::{self, HEADER_BYTES, SegmentHeader};
use super::segment::{Backing, Segment};
use super::{FIRST_SEGMENT_BYTES, Wal};
use crate::error::{Error, Result};
use crate::fs::MappedFile;
use crate::key::SeqNo;
use crate::sync::atomic::{AtomicU64, Ordering};

/// How many released files are kept for reuse, beside the one that is prepared: each is space that holds no data.
const MAX_SPARES: usize = 1;

/// A new file is written once before its use if the log was synced more often than once in this many bytes of it: space
/// that is only reserved has to be marked as written by the first sync after it is used, which commits the filesystem's
/// journal and so costs about as much as writing some hundred KiB. (Ext4 and XFS work so.)
const WRITTEN_BYTES_A_SYNC: u64 = 256 << 10;

/// The unit in which the system makes mapped memory writable, on the machines we know; a larger one only warms more at
/// once.
const PAGE_BYTES: u64 = 4096;

/// Files that wait for their use as segments.
#[derive(Debug)]
pub(super) struct Spares {
    /// The number of the segment whose file is taken next. It is counted here because a roll lists its segment only
    /// after it took the file: a preparation that came in between would put another file in its place.
    next_number: u64,
    /// The next segment's file, already under its name, which is durable.
    prepared: Option<Box<dyn MappedFile>>,
    /// Released files of full size, under their spare names.
    waiting: Vec<(PathBuf, Box<dyn MappedFile>)>,
    /// How often the log was synced before the last preparation.
    syncs_before: u64,
}

impl Spares {
    /// Those of a log whose first segment is `number`: none yet.
    pub(super) fn behind(number: u64) -> Self {
        Spares { next_number: number + 1, prepared: None, waiting: Vec::new(), syncs_before: 0 }
    }
}

/// Writes to each page of a file that holds nothing yet: a page fault less under the commit lock later.
fn warm(file: &mut dyn MappedFile) -> io::Result<()> {
    (0..file.len()).step_by(PAGE_BYTES as usize).try_for_each(|offset| file.write_at(offset, &[0]))
}

impl Wal {
    /// Whether [`prepare_spare`](Wal::prepare_spare) has something to do. One relaxed load.
    #[inline]
    pub(crate) fn needs_spare(&self) -> bool {
        // Relaxed: a hint; the lock of the spares orders everything else.
        self.needs_spare.load(Ordering::Relaxed)
    }

    pub(super) fn wants_spare(&self) {
        // Relaxed: see `needs_spare`.
        self.needs_spare.store(true, Ordering::Relaxed);
    }

    /// Makes the next segment's file ready: recycled or new, under its name, its name and space durable and its pages
    /// writable. For a background thread; a roll that comes meanwhile waits for it.
    ///
    /// # Errors
    /// `Io`. The log itself goes on: the roll will try again.
    pub(crate) fn prepare_spare(&self) -> Result<()> {
        let mut spares = self.spares.lock();
        // Relaxed: see `needs_spare`.
        self.needs_spare.store(false, Ordering::Relaxed);
        if spares.prepared.is_some() {
            return Ok(());
        }
        let number = spares.next_number;
        let file_bytes = self.next_file_bytes(self.segments.lock().grown_bytes);
        let (mut file, is_new) = self.segment_file(&mut spares, number, file_bytes)?;
        // Relaxed: a figure.
        let syncs = self.sync_count.load(Ordering::Relaxed);
        let syncs_since = syncs - std::mem::replace(&mut spares.syncs_before, syncs);
        let mut prepare = || {
            warm(&mut *file)?;
            if is_new && file_bytes < syncs_since.saturating_mul(WRITTEN_BYTES_A_SYNC) {
                file.syncer().sync(0..file_bytes)?;
                // What was written back is write-protected again.
                warm(&mut *file)?;
            }
            Ok(())
        };
        prepare().map_err(Error::io("prepare log segment", &format::segment_path(&self.dir, number)))?;
        spares.prepared = Some(file);
        Ok(())
    }

    /// Where in a segment of `file_bytes` the next one is asked for: small first ones may be all a database ever needs.
    pub(super) fn spare_mark(&self, file_bytes: u64) -> u64 {
        if file_bytes <= FIRST_SEGMENT_BYTES { file_bytes / 2 } else { HEADER_BYTES }
    }

    /// The length of the segment after one of `grown_bytes`.
    fn next_file_bytes(&self, grown_bytes: u64) -> u64 {
        grown_bytes.saturating_mul(2).min(self.options.segment_bytes)
    }

    /// The file for segment `number`, the next one, with room for `least_bytes`; its name is durable. The prepared one
    /// if it is there and large enough.
    pub(super) fn take_segment_file(&self, number: u64, least_bytes: u64) -> Result<Box<dyn MappedFile>> {
        let mut spares = self.spares.lock();
        spares.next_number = number + 1;
        // Relaxed: see `needs_spare`.
        self.needs_spare.store(false, Ordering::Relaxed);
        match spares.prepared.take() {
            Some(file) if file.len() >= least_bytes => return Ok(file),
            Some(small) => self.set_aside(&mut spares, number, small),
            None => {}
        }
        let file_bytes = self.next_file_bytes(self.segments.lock().grown_bytes).max(least_bytes);
        self.segment_file(&mut spares, number, file_bytes).map(|(file, _)| file)
    }

    /// A file of `file_bytes` under the name of segment `number`, which is made durable, and whether it is a new one.
    fn segment_file(&self, spares: &mut Spares, number: u64, file_bytes: u64) -> Result<(Box<dyn MappedFile>, bool)> {
        let path = format::segment_path(&self.dir, number);
        let (file, is_new) = match spares.waiting.pop() {
            Some((spare, file)) if file.len() == file_bytes => {
                self.fs.rename(&spare, &path).map_err(Error::io("recycle log segment", &spare))?;
                (file, false)
            }
            other => {
                spares.waiting.extend(other);
                let file = self.fs.create_mapped(&path, file_bytes).map_err(Error::io("create log segment", &path))?;
                (file, true)
            }
        };
        self.fs.sync_dir(&self.dir).map_err(Error::io("sync directory", &self.dir))?;
        Ok((file, is_new))
    }

    /// Puts the prepared file of segment `number` to the spares, or leaves it to be replaced.
    fn set_aside(&self, spares: &mut Spares, number: u64, file: Box<dyn MappedFile>) {
        if file.len() != self.options.segment_bytes || spares.waiting.len() >= MAX_SPARES {
            return;
        }
        let (path, spare) = (format::segment_path(&self.dir, number), format::spare_path(&self.dir, number));
        match self.fs.rename(&path, &spare) {
            Ok(()) => spares.waiting.push((spare, file)),
            Err(error) => tracing::warn!(%error, path = %path.display(), "setting a log segment aside"),
        }
    }

    /// Keeps the file of a released segment for reuse, or removes it. The caller made sure that nobody reads it.
    pub(super) fn recycle(&self, segment: Segment, file: Box<dyn MappedFile>) -> Result<()> {
        let mut spares = self.spares.lock();
        if file.len() != self.options.segment_bytes || spares.waiting.len() >= MAX_SPARES {
            drop(spares);
            return self.remove(&segment);
        }
        let spare = format::spare_path(&self.dir, segment.number);
        self.fs.rename(&segment.path, &spare).map_err(Error::io("recycle log segment", &segment.path))?;
        spares.waiting.push((spare, file));
        Ok(())
    }

    /// Removes the file of a released segment.
    pub(super) fn remove(&self, segment: &Segment) -> Result<()> {
        self.fs.remove_file(&segment.path).map_err(Error::io("remove log segment", &segment.path))
    }

    /// Writes the header of segment `number` into its file. The records of the one before end at `prev_end`; 0 if there
    /// is none.
    pub(super) fn start_segment(
        &self,
        number: u64,
        prev_seqno: SeqNo,
        prev_end: u64,
        file: &mut dyn MappedFile,
    ) -> Result<Arc<Segment>> {
        let path = format::segment_path(&self.dir, number);
        let file_bytes = file.len();
        let header = SegmentHeader { segment: number, database_id: self.database_id, file_bytes, prev_seqno, prev_end };
        file.write_at(0, &header.encode()).map_err(Error::io("start log segment", &path))?;
        let (end, backing) = (AtomicU64::new(HEADER_BYTES), Backing::Mapped(file.syncer()));
        Ok(Arc::new(Segment { number, path, prev_seqno, file_bytes, end, backing }))
    }

    /// Bytes of files that wait for their use as segments.
    pub(super) fn spare_bytes(&self) -> u64 {
        let spares = self.spares.lock();
        spares.prepared.iter().chain(spares.waiting.iter().map(|(_, file)| file)).map(|file| file.len()).sum()
    }
}
