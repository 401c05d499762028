//! Reading ahead of what is applied, in chunks.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Scope;

use siltstone::SeqNo;

use super::chunk::Chunk;
use crate::error::Result;
use crate::position::Position;
use crate::scan::Scan;

/// How much is read for a chunk if nothing is sorted, in bytes of memory.
const UNSORTED_BYTES: u64 = 4 << 20;

/// A chunk that is smaller than this part of a whole one is applied batch by batch: it makes a small table.
const SMALL_CHUNK: u64 = 16;

/// How a log is read into chunks.
#[derive(Clone, Debug)]
pub(super) struct ReadAhead {
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

impl ReadAhead {
    /// Reads in a thread of its own, one chunk ahead.
    pub(super) fn spawn<'scope>(
        self,
        scope: &'scope Scope<'scope, '_>,
        scan: Box<dyn Scan>,
    ) -> Receiver<Result<Chunk>> {
        let (sender, receiver) = sync_channel(0);
        scope.spawn(move || self.run(scan, &sender));
        receiver
    }

    fn run(&self, mut scan: Box<dyn Scan>, sender: &SyncSender<Result<Chunk>>) {
        // Who does not listen any more has an error of its own.
        let mut send = |chunk| sender.send(Ok(chunk)).is_ok();
        let mut chunk = Chunk::default();
        if let Err(error) = self.read(&mut *scan, &mut chunk, &mut send) {
            // What came before it is applied all the same.
            chunk.forget_batch();
            chunk.end = scan.position().ok();
            if chunk.is_empty() || send(chunk) {
                let _ = sender.send(Err(error));
            }
        }
    }

    /// Reads to the end, or until `send` answers no: nobody listens any more.
    fn read(&self, scan: &mut dyn Scan, chunk: &mut Chunk, send: &mut dyn FnMut(Chunk) -> bool) -> Result<()> {
        loop {
            let before = if matches!(self.until, Until::Seqno(_)) { Some(scan.position()?) } else { None };
            let Some(numbers) = scan.next(&mut |change| chunk.push(change))? else { break };
            if matches!(self.until, Until::Seqno(until) if numbers.last > until) {
                chunk.forget_batch();
                (chunk.end, chunk.is_last) = (before, true);
                send(std::mem::take(chunk));
                return Ok(());
            }
            if numbers.last <= self.after_seqno {
                chunk.forget_batch();
            } else {
                if chunk.begins_drop() {
                    let drop = chunk.split_off();
                    let sorted = std::mem::replace(chunk, drop);
                    if !sorted.is_empty() && !send(sorted) {
                        return Ok(());
                    }
                    chunk.is_drop = true;
                }
                let position = if self.is_small(chunk) { Some(scan.position()?) } else { None };
                chunk.end_batch(numbers, position);
            }
            chunk.is_last = match &self.until {
                Until::Newest => false,
                Until::Seqno(until) => numbers.last == *until,
                Until::Position(until) => *until == scan.position()?,
            };
            if chunk.is_last || self.is_full(chunk) {
                let is_last = chunk.is_last;
                chunk.end = Some(scan.position()?);
                if !send(std::mem::take(chunk)) || is_last {
                    return Ok(());
                }
            }
        }
        chunk.end = Some(scan.position()?);
        send(std::mem::take(chunk));
        Ok(())
    }

    /// Whether what is there so far would make small tables only, and so is not to be sorted.
    fn is_small(&self, chunk: &Chunk) -> bool {
        self.chunk_bytes == 0 || chunk.is_drop || chunk.memory_bytes() < self.chunk_bytes / SMALL_CHUNK
    }

    fn is_full(&self, chunk: &Chunk) -> bool {
        let full_bytes = if self.chunk_bytes == 0 { UNSORTED_BYTES } else { self.chunk_bytes };
        chunk.memory_bytes() >= full_bytes || chunk.is_drop
    }
}
