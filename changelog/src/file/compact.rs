//! Compaction by key: of each key the latest change is kept.
//!
//! A pass takes note of the keys in what is not clean, and then writes what lies before its end anew, the oldest first,
//! without changes that a later one replaces, and without deletes that were kept for long enough: whatever they deleted
//! is gone by then. The order of what is left stays, and what is left of a batch keeps the batch's last number. Each new
//! segment takes the place of those it was made of by one rename, so that a pass may end anywhere.
//!
//! If the keys of one segment do not fit in memory, the pass is done for one share of all keys after the other.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use siltstone::bytes::Bytes;
use siltstone::fs::FileSystem;
use siltstone::{ChangeBatch, SeqNo};

use super::chain::{Listing, SegmentName};
use super::format::SegmentHeader;
use super::latest::Latest;
use super::options::FileSinkOptions;
use super::owner::Owner;
use super::plan::{Plan, SegmentInfo, clean_segments};
use super::reader::{Decode, Next, SegmentReader};
use super::recover::remove_superseded;
use super::segment::Rewriting;
use crate::codec::{DecodeError, Encoded};
use crate::error::{Error, Result};
use crate::scan::LentChange;

/// What a compaction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Compacted {
    /// Segments that were written anew.
    pub segments: u64,
    /// Their length before, in bytes.
    pub bytes_before: u64,
    /// And after.
    pub bytes_after: u64,
    /// Changes that were left out, for later ones of their key, or as deletes that were kept for long enough.
    pub dropped_changes: u64,
}

impl Compacted {
    pub(super) fn add(&mut self, other: &Compacted) {
        self.segments += other.segments;
        self.bytes_before += other.bytes_before;
        self.bytes_after += other.bytes_after;
        self.dropped_changes += other.dropped_changes;
    }
}

/// The sealed segments of a log, in order.
pub(super) fn sealed_segments(fs: &Arc<dyn FileSystem>, directory: &Path) -> Result<Vec<SegmentInfo>> {
    let listing = Listing::read(fs, directory)?;
    let mut segments: Vec<SegmentInfo> = Vec::new();
    for name in listing.log() {
        let reader = SegmentReader::open(fs, directory, name)?;
        if let Some(before) = segments.last_mut().filter(|before| before.name.last_seqno.is_none()) {
            (before.last_seqno, before.sealed_ms) = (name.prev_seqno, reader.header.begun_ms);
        }
        segments.push(SegmentInfo {
            name,
            file_bytes: listing.file_bytes(name),
            last_seqno: name.last_seqno.unwrap_or(0),
            sealed_ms: reader.end.map_or(0, |end| end.sealed_ms),
            is_clean: reader.header.is_clean,
        });
    }
    // The last one is being written.
    segments.pop();
    Ok(segments)
}

/// Where and for whom a compaction is done.
pub(super) struct Compaction<'a> {
    pub(super) fs: &'a Arc<dyn FileSystem>,
    pub(super) directory: &'a Path,
    pub(super) options: &'a FileSinkOptions,
    pub(super) owner: &'a Owner,
    /// Whether to end early.
    pub(super) is_stopping: &'a dyn Fn() -> bool,
}

/// One pass over the log.
struct Pass {
    latest: Latest,
    /// So many segments from the first on are written anew.
    end: usize,
    /// The last number that was taken note of.
    clean_seqno: SeqNo,
    deletes_seqno: SeqNo,
    generation: u64,
    /// With it all keys have been looked at.
    is_last: bool,
    /// Which changes of the batch before are left; kept for its memory.
    kept: Vec<bool>,
}

impl Compaction<'_> {
    /// # Errors
    /// `Corruption` for damage that is met, `Io`, `Fenced`.
    pub(super) fn run(&self, plan: &Plan) -> Result<Compacted> {
        let mut compacted = Compacted::default();
        let mut shares = 1;
        let mut share = 0;
        while share < shares && !(self.is_stopping)() {
            // What it was done for so far has new names.
            let sealed = sealed_segments(self.fs, self.directory)?;
            let clean = clean_segments(&sealed);
            // Shares are of one segment's keys.
            let end = if shares > 1 { clean + 1 } else { plan.end }.min(sealed.len());
            let Some((latest, end, clean_seqno)) = self.note_keys(&sealed, clean..end, share, shares)? else {
                (share, shares) = (0, 2 * shares);
                continue;
            };
            share += 1;
            let listing = Listing::read(self.fs, self.directory)?;
            let generation = listing.segments.iter().map(|(name, _)| name.generation).max().unwrap_or(0) + 1;
            let deletes_seqno = plan.deletes_seqno;
            let is_last = share == shares;
            let pass = Pass { latest, end, clean_seqno, deletes_seqno, generation, is_last, kept: Vec::new() };
            self.rewrite(&sealed, clean, pass, &mut compacted)?;
        }
        Ok(compacted)
    }

    /// The keys of what is not clean; how many segments from the first on they reach over, and the last number of them.
    /// `None` if not even those of the first one fit in memory.
    fn note_keys(
        &self,
        sealed: &[SegmentInfo],
        dirty: Range<usize>,
        share: u64,
        shares: u64,
    ) -> Result<Option<(Latest, usize, SeqNo)>> {
        let mut latest = Latest::new(self.options.compaction_memory_bytes, share, shares);
        let mut clean_seqno = 0;
        for at in dirty.clone() {
            let mut reader = SegmentReader::open(self.fs, self.directory, sealed[at].name)?;
            let mut note = |batch: Encoded<'_>, _: &Bytes| {
                let mut seqno = batch.numbers.first;
                batch.lend(&mut |change| {
                    latest.note(seqno, change);
                    seqno += 1;
                })?;
                Ok((batch.numbers.last, latest.is_full()))
            };
            while let Some((last_seqno, is_full)) = next_batch(&mut reader, &mut note)? {
                clean_seqno = last_seqno;
                if is_full {
                    return Ok((at > dirty.start).then_some((latest, at, clean_seqno)));
                }
            }
        }
        Ok(Some((latest, dirty.end, clean_seqno)))
    }

    fn rewrite(&self, sealed: &[SegmentInfo], clean: usize, mut pass: Pass, compacted: &mut Compacted) -> Result<()> {
        let mut at = 0;
        while at < pass.end && !(self.is_stopping)() {
            // What is clean and what will not be yet are not put together.
            let end = if at < clean && !pass.is_last { clean } else { pass.end };
            at = self.rewrite_some(sealed, at..end, at < clean, &mut pass, compacted)?;
            // Behind the rename: they are not the log any more.
            self.owner.check()?;
            remove_superseded(self.fs, self.directory)?;
        }
        Ok(())
    }

    /// Whether a segment that batches were shipped to begins with the first change of a database.
    fn begins_at_one(&self, name: SegmentName) -> Result<bool> {
        let mut reader = SegmentReader::open(self.fs, self.directory, name)?;
        if reader.header.generation > 0 || reader.header.prev_seqno > 0 {
            return Ok(false);
        }
        Ok(next_batch(&mut reader, &mut |batch, _| Ok(batch.numbers.first))? == Some(1))
    }

    /// Makes one segment of some of those in `range`, from the first on; where the rest begins.
    fn rewrite_some(
        &self,
        sealed: &[SegmentInfo],
        range: Range<usize>,
        was_clean: bool,
        pass: &mut Pass,
        compacted: &mut Compacted,
    ) -> Result<usize> {
        let before = SegmentReader::open(self.fs, self.directory, sealed[range.start].name)?.header;
        let is_whole = range.start == 0 && (before.is_whole || self.begins_at_one(sealed[range.start].name)?);
        let header = SegmentHeader {
            epoch: 0,
            generation: pass.generation,
            clean_seqno: pass.clean_seqno,
            deletes_seqno: pass.deletes_seqno.max(before.deletes_seqno),
            is_clean: pass.is_last || was_clean,
            is_whole,
            ..before
        };
        let mut rewriting = Rewriting::begin(self.fs, self.directory, header)?;
        let mut epoch = 0;
        for at in range.clone() {
            let segment = &sealed[at];
            let mut reader = SegmentReader::open(self.fs, self.directory, segment.name)?;
            epoch = epoch.max(segment.name.epoch);
            let mut keep = |batch: Encoded<'_>, chunk: &Bytes| pass.rewrite_batch(batch, chunk, &mut rewriting);
            while let Some(dropped) = next_batch(&mut reader, &mut keep)? {
                compacted.dropped_changes += dropped?;
            }
            compacted.segments += 1;
            compacted.bytes_before += segment.file_bytes;
            if rewriting.file_bytes() >= self.options.segment_bytes || at + 1 == range.end {
                let allowed = || self.owner.check();
                compacted.bytes_after += rewriting.finish(segment.last_seqno, epoch, segment.sealed_ms, allowed)?;
                return Ok(at + 1);
            }
        }
        Ok(range.end)
    }
}

impl Pass {
    /// Adds what is left of a batch, if anything is; how many changes are not.
    fn rewrite_batch(
        &mut self,
        batch: Encoded<'_>,
        chunk: &Bytes,
        rewriting: &mut Rewriting,
    ) -> std::result::Result<Result<u64>, DecodeError> {
        let mut seqno = batch.numbers.first;
        let mut kept = std::mem::take(&mut self.kept);
        kept.clear();
        batch.lend(&mut |change| {
            kept.push(self.is_kept(seqno, change));
            seqno += 1;
        })?;
        let count = kept.iter().filter(|&&kept| kept).count();
        let appended = if count == kept.len() {
            rewriting.append_encoded(batch.bytes)
        } else if count > 0 {
            let batch = batch.to_batch(chunk)?;
            let left = batch.changes().iter().zip(&kept).filter(|(_, kept)| **kept).map(|(change, _)| change.clone());
            let left = ChangeBatch::new(batch.last_seqno() + 1 - count as u64, left.collect());
            left.map_err(Error::from).and_then(|left| rewriting.append(&left))
        } else {
            Ok(())
        };
        let dropped = (kept.len() - count) as u64;
        self.kept = kept;
        Ok(appended.map(|()| dropped))
    }

    fn is_kept(&mut self, seqno: SeqNo, change: LentChange<'_>) -> bool {
        let expired =
            !matches!(change, LentChange::Put { .. }) && seqno <= self.deletes_seqno && self.latest.covers(change);
        !expired && self.latest.is_latest(seqno, change)
    }
}

/// What `decode` makes of the next batch of a sealed segment.
fn next_batch<B>(reader: &mut SegmentReader, decode: &mut Decode<'_, B>) -> Result<Option<B>> {
    match reader.next_with(decode)? {
        Next::Batch(batch) => Ok(Some(batch)),
        Next::End => Ok(None),
        Next::Torn => Err(reader.damaged("a sealed segment is torn")),
    }
}

/// Lets go of the oldest segment.
pub(super) fn remove_oldest(fs: &Arc<dyn FileSystem>, directory: &Path, name: SegmentName) -> Result<()> {
    let path = name.path(directory);
    fs.remove_file(&path).map_err(Error::io("removing a segment", &path))?;
    // Before the next one is, so that no power cut leaves a gap.
    fs.sync_dir(directory).map_err(Error::io("syncing the log's directory", directory))
}
