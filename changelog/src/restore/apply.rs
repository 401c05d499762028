//! Applying a log to the database that is restored: what is large is sorted, what is small goes batch by batch.

use std::sync::atomic::Ordering;
use std::time::Duration;

use siltstone::{CompactionHold, Db, SeqNo};

use super::chunk::Chunk;
use super::progress::Progress;
use super::read_ahead::ReadAhead;
use super::{Restore, bulk};
use crate::error::{Error, Result};
use crate::figures;
use crate::position::Position;
use crate::sink::Source;

/// How many bytes of keys and values, or batches, lie between two reports of progress where batches are applied one by one.
const REPORT_BYTES: u64 = 1 << 20;
const REPORT_BATCHES: u64 = 4096;

/// So many chunks are merged together at most: each may have become a sorted run of its own.
const HELD_CHUNKS: u32 = 24;

impl<S: Source> Restore<S> {
    /// Applies the log from `position` on, as far as it is to go; how far that was, and whether it was to end there.
    pub(super) fn apply_from(&mut self, db: &Db, position: Position, newest: Position) -> Result<(Position, bool)> {
        let scan = self.source.scan(&position)?;
        let (began, begun_seqno) = (self.clock.now(), db.last_seqno());
        let mut progress = Progress {
            batches: 0,
            changes: 0,
            user_bytes: 0,
            position,
            seqno: begun_seqno,
            newest_seqno: self.source.seqno_at(&newest)?,
            newest,
            elapsed: Duration::ZERO,
            begun_seqno,
        };
        let reading = ReadAhead { chunk_bytes: self.chunk_bytes, after_seqno: begun_seqno, until: self.until.clone() };
        let mut is_met = false;
        let mut holding = Holding::default();
        std::thread::scope(|scope| {
            // Dropped at an error, which ends the reading.
            for chunk in reading.spawn(scope, scan) {
                let chunk = chunk?;
                holding.before(db, chunk.is_sorted())?;
                is_met = chunk.is_last;
                self.apply_chunk(db, chunk, &mut progress, began)?;
            }
            Ok::<(), Error>(())
        })?;
        progress.elapsed = self.clock.now().saturating_sub(began);
        self.report(&progress);
        Ok((progress.position, is_met))
    }

    fn apply_chunk(&mut self, db: &Db, chunk: Chunk, progress: &mut Progress, began: Duration) -> Result<()> {
        if chunk.is_sorted() {
            bulk::apply(&mut self.applier, db, &chunk)?;
            progress.add(chunk.batch_count(), chunk.entries().len(), chunk.user_bytes(), chunk.last_seqno());
            progress.position = chunk.end.unwrap_or_else(|| progress.position.clone());
            return self.applied(progress, began);
        }
        let end = chunk.end.clone();
        let mut reported = (progress.user_bytes, progress.batches);
        chunk.for_each_batch(|batch, position| {
            self.applier.apply(db, batch, position)?;
            progress.add(1, batch.changes().len(), batch.user_bytes(), batch.last_seqno());
            progress.position = position.clone();
            if progress.user_bytes - reported.0 >= REPORT_BYTES || progress.batches - reported.1 >= REPORT_BATCHES {
                reported = (progress.user_bytes, progress.batches);
                self.applied(progress, began)?;
            }
            Ok(())
        })?;
        // What was left out at the end.
        progress.position = end.unwrap_or_else(|| progress.position.clone());
        Ok(())
    }

    /// Says how far it is, and asks whether to go on.
    fn applied(&mut self, progress: &mut Progress, began: Duration) -> Result<()> {
        progress.elapsed = self.clock.now().saturating_sub(began);
        self.report(progress);
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(Error::Interrupted { position: progress.position.clone() });
        }
        Ok(())
    }

    fn report(&mut self, progress: &Progress) {
        if let Some(report) = &mut self.on_progress {
            report(progress);
        }
    }
}

/// Keeps compactions back while chunks are sorted into tables: all of them are merged together then, and not again and
/// again.
#[derive(Debug, Default)]
struct Holding {
    hold: Option<CompactionHold>,
    chunks: u32,
}

impl Holding {
    fn before(&mut self, db: &Db, is_sorted: bool) -> Result<()> {
        if !is_sorted {
            self.hold = None;
            return Ok(());
        }
        self.chunks += 1;
        if self.chunks > HELD_CHUNKS {
            (self.hold, self.chunks) = (None, 0);
            db.wait_for_compaction()?;
        }
        self.hold.get_or_insert_with(|| db.hold_compactions());
        Ok(())
    }
}

impl Progress {
    fn add(&mut self, batches: usize, changes: usize, user_bytes: u64, last_seqno: SeqNo) {
        figures::restored(changes as u64, user_bytes);
        self.batches += batches as u64;
        self.changes += changes as u64;
        self.user_bytes += user_bytes;
        self.seqno = last_seqno;
    }
}
