//! Whole batches out of the records of several partitions.

use std::collections::VecDeque;

use rdkafka::Message;
use siltstone::{Change, ChangeBatch, KeyspaceName, SeqNo, Slice};

use super::commit::Commit;
use super::partition::{PartReader, Reader, header, refused};
use super::record::Stamp;
use crate::error::{Error, Result};

/// A change and where it belongs.
struct Stamped {
    stamp: Stamp,
    change: Change,
}

/// One partition of a keyspace.
struct Input {
    keyspace: KeyspaceName,
    /// Records up to this number are not asked for, or of an earlier keyspace of the name.
    after_seqno: SeqNo,
    records: PartReader,
    /// The next record.
    head: Option<Stamped>,
}

impl Input {
    /// Moves on to the next record.
    fn advance(&mut self, reader: &Reader) -> Result<()> {
        self.head = None;
        let keyspace = &self.keyspace;
        loop {
            let read = self.records.next(reader, |part, message| -> Result<Stamped> {
                let stamp = Stamp::decode(header(message))
                    .map_err(|reason| refused(&part.topic, part.partition, message.offset(), reason))?;
                let (keyspace, key) = (keyspace.clone(), Slice::from(message.key().unwrap_or_default()));
                let change = match message.payload() {
                    Some(value) => Change::Put { keyspace, key, value: Slice::from(value) },
                    None => Change::Delete { keyspace, key },
                };
                Ok(Stamped { stamp, change })
            })?;
            match read.transpose()? {
                Some(stamped) if stamped.stamp.seqno <= self.after_seqno => {}
                head => {
                    self.head = head;
                    return Ok(());
                }
            }
        }
    }
}

/// The batches of a stretch of the log, in order.
pub(super) struct Merge {
    inputs: Vec<Input>,
    /// Drops that are yet to come, in order.
    drops: VecDeque<(SeqNo, KeyspaceName)>,
    begun: bool,
}

impl Merge {
    /// The batches after `after_seqno` in the parts of `commit` that `parts` reads, each with the keyspace it is of.
    pub(super) fn new(commit: &Commit, parts: Vec<(KeyspaceName, PartReader)>, after_seqno: SeqNo) -> Self {
        let input = |(keyspace, records): (KeyspaceName, PartReader)| {
            let since_seqno = commit.keyspaces.get(&keyspace).map_or(0, |extent| extent.since_seqno);
            Input { keyspace, after_seqno: after_seqno.max(since_seqno), records, head: None }
        };
        let mut drops: Vec<_> = commit.drops.iter().map(|(name, &seqno)| (seqno, name.clone())).collect();
        drops.retain(|&(seqno, _)| seqno > after_seqno);
        drops.sort_unstable();
        Merge { inputs: parts.into_iter().map(input).collect(), drops: drops.into(), begun: false }
    }

    /// The next batch: what is left of one, under its last numbers.
    pub(super) fn next(&mut self, reader: &Reader) -> Result<Option<ChangeBatch>> {
        if !std::mem::replace(&mut self.begun, true) {
            self.inputs.iter_mut().try_for_each(|input| input.advance(reader))?;
        }
        let next_put = self.first().map(|(_, stamp)| stamp);
        if let Some(&(seqno, _)) = self.drops.front()
            && next_put.is_none_or(|stamp| seqno < stamp.seqno)
            && let Some((seqno, keyspace)) = self.drops.pop_front()
        {
            return Ok(Some(ChangeBatch::single(seqno, Change::DropKeyspace { keyspace })?));
        }
        let Some(stamp) = next_put else { return Ok(None) };
        let mut changes = Vec::new();
        while let Some((input, here)) = self.first().filter(|(_, here)| here.seqno <= stamp.batch_last) {
            if here.batch_last != stamp.batch_last {
                return Err(Error::Mismatch(format!(
                    "change {} is of the batch that ends with {}, and of the one that ends with {}",
                    here.seqno, here.batch_last, stamp.batch_last
                )));
            }
            changes.extend(self.inputs[input].head.take().map(|stamped| stamped.change));
            self.inputs[input].advance(reader)?;
        }
        let first_seqno = stamp.batch_last + 1 - changes.len() as u64;
        Ok(Some(ChangeBatch::new(first_seqno, changes)?))
    }

    /// The input whose record comes next.
    fn first(&self) -> Option<(usize, Stamp)> {
        let heads = self.inputs.iter().enumerate();
        heads.filter_map(|(at, input)| Some((at, input.head.as_ref()?.stamp))).min_by_key(|(_, stamp)| stamp.seqno)
    }
}
