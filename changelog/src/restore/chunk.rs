//! Reading ahead of what is applied, in chunks.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Scope;

use siltstone::{Change, ChangeBatch, SeqNo};

use crate::error::Result;
use crate::position::Position;
use crate::sink::Batches;

/// How much is read for a chunk if nothing is sorted, in bytes of memory.
const UNSORTED_BYTES: u64 = 4 << 20;

/// What a change takes in memory beside key and value, about, in bytes: a batch of its own, its position, and its place
/// among those that are sorted.
const CHANGE_BYTES: u64 = 176;

/// A stretch of a log.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    /// Each with the position after it.
    pub(super) batches: Vec<(Position, ChangeBatch)>,
    /// In memory.
    pub(super) bytes: u64,
    /// It is the drop of a keyspace, which is a chunk of its own.
    pub(super) is_drop: bool,
    /// The position after everything that was read, also of what was left out.
    pub(super) end: Option<Position>,
    /// Where it was to end was met.
    pub(super) is_last: bool,
}

/// How a log is read into chunks.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    /// How large a chunk is to become, in bytes of memory; 0: nothing will be sorted.
    pub(super) chunk_bytes: u64,
    /// What goes up to here is left out.
    pub(super) after_seqno: SeqNo,
    pub(super) until: Until,
}

/// Where to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// At the end of the log.
    Newest,
    /// Behind this number.
    Seqno(SeqNo),
    /// At this position.
    Position(Position),
}

impl Reading {
    /// Reads `batches` in a thread of its own, one chunk ahead.
    pub(super) fn spawn<'scope>(self, scope: &'scope Scope<'scope, '_>, batches: Batches) -> Receiver<Result<Chunk>> {
        let (sender, receiver) = sync_channel(0);
        scope.spawn(move || {
            if let Err(error) = self.send(batches, &sender) {
                // Who does not listen any more has an error of its own.
                let _ = sender.send(Err(error));
            }
        });
        receiver
    }

    fn send(self, batches: Batches, sender: &SyncSender<Result<Chunk>>) -> Result<()> {
        let full_bytes = if self.chunk_bytes == 0 { UNSORTED_BYTES } else { self.chunk_bytes };
        // False if nobody listens any more.
        let send = |chunk: &mut Chunk| {
            (chunk.end.is_none() && !chunk.is_last) || sender.send(Ok(std::mem::take(chunk))).is_ok()
        };
        let mut chunk = Chunk::default();
        for next in batches {
            let (position, batch) = match next {
                Ok(next) => next,
                // What came before it is applied all the same.
                Err(error) => {
                    send(&mut chunk);
                    return Err(error);
                }
            };
            if matches!(self.until, Until::Seqno(until) if batch.last_seqno() > until) {
                chunk.is_last = true;
                break;
            }
            let is_drop = matches!(batch.changes(), [Change::DropKeyspace { .. }]);
            let is_new = batch.last_seqno() > self.after_seqno;
            if is_drop && is_new && !chunk.batches.is_empty() && !send(&mut chunk) {
                return Ok(());
            }
            chunk.is_last = match &self.until {
                Until::Newest => false,
                Until::Seqno(until) => batch.last_seqno() == *until,
                Until::Position(until) => *until == position,
            };
            chunk.end = Some(position.clone());
            if is_new {
                chunk.bytes += batch.user_bytes() + CHANGE_BYTES * batch.changes().len() as u64;
                chunk.is_drop = is_drop;
                chunk.batches.push((position, batch));
            }
            if chunk.is_last {
                break;
            }
            if (chunk.is_drop || chunk.bytes >= full_bytes) && !send(&mut chunk) {
                return Ok(());
            }
        }
        send(&mut chunk);
        Ok(())
    }
}
