//! Files for the next segments: prepared ahead, recycled when free, so that rolling costs no more than a header.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
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

/// How many files of full size are made ready ahead: enough for what a writer fills while the background waits for
/// storage. Before the log has grown up it is one, since a small database may never need it.
const PREPARED: usize = 3;

/// The log is synced often if that was more than once in this many bytes of it. Then a new file is written to storage once
/// before its use: space that is only reserved has to be marked as written by the first sync after it is used, which
/// commits the filesystem's journal and so costs about as much as writing some hundred KiB. (Ext4 and XFS work so.) Else
/// it is [filled](MappedFile::fill): measured for 16 MiB on ext4, it is writable after 2.6 ms instead of 14, and after a
/// sync again in 0.4 ms instead of 6 to 13; but each sync writes 2 MiB, which took two thirds of 8,300 synced puts a second.
const WRITTEN_BYTES_A_SYNC: u64 = 256 << 10;

/// The unit in which the system makes mapped memory writable, on the machines we know; a larger one only warms more at
/// once.
const PAGE_BYTES: u64 = 4096;

/// A released file under its spare name.
type Spare = (PathBuf, Box<dyn MappedFile>);

/// Files that wait for their use as segments.
#[derive(Debug)]
pub(super) struct Spares {
    /// The number of the segment whose file is taken next. It is counted here because a roll lists its segment only
    /// after it took the file: a preparation that came in between would put another file in its place.
    next_number: u64,
    /// The files of the next segments, in order, already under their names, which are durable.
    prepared: VecDeque<Box<dyn MappedFile>>,
    /// The file behind those is being made, without the lock: who finds one ready need not wait for the next.
    is_making: bool,
    /// The last segment that a file was begun for. It may be there also if it could not be made ready, or not be removed.
    last_begun: u64,
    /// Released files of full size.
    waiting: Vec<Spare>,
    /// How often the log was synced before the last preparation.
    syncs_before: u64,
    /// How often the files were given back.
    given_back: u64,
}

impl Spares {
    /// Those of a log whose first segment is `number`: none yet.
    pub(super) fn behind(number: u64) -> Self {
        Spares {
            next_number: number + 1,
            prepared: VecDeque::new(),
            is_making: false,
            last_begun: number,
            waiting: Vec::new(),
            syncs_before: 0,
            given_back: 0,
        }
    }

    /// A released file of this length, if there is one.
    fn take_waiting(&mut self, file_bytes: u64) -> Option<Spare> {
        self.waiting.pop_if(|(_, file)| file.len() == file_bytes)
    }
}

/// The file that is being made ready; whatever comes of it, the next may be made when this is dropped.
pub(super) struct Making<'w> {
    wal: &'w Wal,
    number: u64,
    file_bytes: u64,
    /// How often the log was synced since the last one was begun.
    syncs_since: u64,
    spare: Option<Spare>,
    made: Option<Box<dyn MappedFile>>,
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        let mut spares = self.wal.spares.lock();
        spares.prepared.extend(self.made.take());
        spares.is_making = false;
        self.wal.spare_made.notify_all();
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

    /// Whether a roll would find a file.
    pub(super) fn has_prepared(&self) -> bool {
        !self.spares.lock().prepared.is_empty()
    }

    pub(super) fn wants_spare(&self) {
        // Relaxed: see `needs_spare`.
        self.needs_spare.store(true, Ordering::Relaxed);
    }

    /// Makes the files of the next segments ready: recycled or new, under their names, names and space durable and pages
    /// writable. For a background thread; a roll that comes meanwhile waits for the file that is being made.
    ///
    /// # Errors
    /// `Io`. The log itself goes on: the roll will try again.
    pub(crate) fn prepare_spare(&self) -> Result<()> {
        // Relaxed: see `needs_spare`.
        self.needs_spare.store(false, Ordering::Relaxed);
        let (asked_in, syncs_since) = {
            let mut spares = self.spares.lock();
            // Relaxed: a figure.
            let syncs = self.sync_count.load(Ordering::Relaxed);
            (spares.given_back, syncs - std::mem::replace(&mut spares.syncs_before, syncs))
        };
        while let Some(making) = self.begin_spare(asked_in, syncs_since) {
            self.make_spare(making)?;
        }
        Ok(())
    }

    /// What is to be made next, if it is time for it, nobody else is at it, and files were given back `asked_in` times so
    /// far: what was asked for before is not wanted any more.
    pub(super) fn begin_spare(&self, asked_in: u64, syncs_since: u64) -> Option<Making<'_>> {
        let mut spares = self.spares.lock();
        let before_bytes = spares.prepared.back().map(|file| file.len());
        let file_bytes = before_bytes.unwrap_or_else(|| self.next_file_bytes(self.segments.lock().grown_bytes));
        let wanted = if file_bytes == self.options.segment_bytes { PREPARED } else { 1 };
        if spares.is_making || spares.prepared.len() >= wanted || spares.given_back != asked_in {
            return None;
        }
        spares.is_making = true;
        let number = spares.next_number + spares.prepared.len() as u64;
        spares.last_begun = spares.last_begun.max(number);
        Some(Making { wal: self, number, file_bytes, syncs_since, spare: spares.take_waiting(file_bytes), made: None })
    }

    fn make_spare(&self, mut making: Making<'_>) -> Result<()> {
        let Making { number, file_bytes, syncs_since, .. } = making;
        let is_synced_often = file_bytes < syncs_since.saturating_mul(WRITTEN_BYTES_A_SYNC);
        if let Some((path, _)) = making.spare.take_if(|(_, file)| is_synced_often && file.is_filled()) {
            self.fs.remove_file(&path).map_err(Error::io("remove log segment", &path))?;
        }
        let is_new = making.spare.is_none();
        let mut file = self.segment_file(making.spare.take(), number, file_bytes)?;
        let mut prepare = || {
            if is_new && !is_synced_often {
                file.fill()?;
            }
            warm(&mut *file)?;
            if is_new && is_synced_often {
                file.syncer().sync(0..file_bytes)?;
                // What was written back is write-protected again.
                warm(&mut *file)?;
            }
            Ok(())
        };
        prepare().map_err(Error::io("prepare log segment", &format::segment_path(&self.dir, number)))?;
        making.made = Some(file);
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
        // What is being made is this segment's, or in the way of what has to take its place.
        while spares.is_making && spares.prepared.front().is_none_or(|file| file.len() < least_bytes) {
            self.spare_made.wait(&mut spares);
        }
        spares.next_number = number + 1;
        // Relaxed: see `needs_spare`.
        self.needs_spare.store(false, Ordering::Relaxed);
        match spares.prepared.pop_front() {
            Some(file) if file.len() >= least_bytes => return Ok(file),
            Some(small) => {
                self.discard_prepared(&mut spares, number + 1)?;
                self.set_aside(&mut spares, number, small);
            }
            None => {}
        }
        let file_bytes = self.next_file_bytes(self.segments.lock().grown_bytes).max(least_bytes);
        let spare = spares.take_waiting(file_bytes);
        self.segment_file(spare, number, file_bytes)
    }

    /// A file of `file_bytes` under the name of segment `number`, which is made durable: the spare one, or a new one.
    fn segment_file(&self, spare: Option<Spare>, number: u64, file_bytes: u64) -> Result<Box<dyn MappedFile>> {
        let path = format::segment_path(&self.dir, number);
        let file = match spare {
            Some((spare, file)) => {
                self.fs.rename(&spare, &path).map_err(Error::io("recycle log segment", &spare))?;
                file
            }
            None => self.fs.create_mapped(&path, file_bytes).map_err(Error::io("create log segment", &path))?,
        };
        self.fs.sync_dir(&self.dir).map_err(Error::io("sync directory", &self.dir))?;
        Ok(file)
    }

    /// Removes what is there for the segments from `first` on: the newest first, durably, so that there is never one
    /// behind a gap.
    #[cold]
    fn discard_prepared(&self, spares: &mut Spares, first: u64) -> Result<()> {
        spares.prepared.clear();
        while spares.last_begun >= first {
            self.remove_durably(&format::segment_path(&self.dir, spares.last_begun))?;
            spares.last_begun -= 1;
        }
        Ok(())
    }

    fn remove_durably(&self, path: &Path) -> Result<()> {
        match self.fs.remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove log segment", path)(error)),
            _ => self.fs.sync_dir(&self.dir).map_err(Error::io("sync directory", &self.dir)),
        }
    }

    /// Removes all files that wait for their use as segments. Under the commit lock: no roll takes one meanwhile.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn give_back_spares(&self) -> Result<()> {
        let mut spares = self.spares.lock();
        while spares.is_making {
            self.spare_made.wait(&mut spares);
        }
        // Relaxed: see `needs_spare`.
        self.needs_spare.store(false, Ordering::Relaxed);
        spares.given_back += 1;
        let next = spares.next_number;
        self.discard_prepared(&mut spares, next)?;
        while let Some((path, file)) = spares.waiting.pop() {
            drop(file);
            self.fs.remove_file(&path).map_err(Error::io("remove log segment", &path))?;
        }
        Ok(())
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

    /// Which of the prepared files are filled, in order.
    #[cfg(test)]
    pub(super) fn filled(&self) -> Vec<bool> {
        self.spares.lock().prepared.iter().map(|file| file.is_filled()).collect()
    }

    /// Bytes of files that wait for their use as segments.
    pub(super) fn spare_bytes(&self) -> u64 {
        let spares = self.spares.lock();
        spares.prepared.iter().chain(spares.waiting.iter().map(|(_, file)| file)).map(|file| file.len()).sum()
    }
}
