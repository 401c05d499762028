//! [`Scan`]: batches that are lent, not given.

use siltstone::{Change, ChangeBatch, KeyspaceName, SeqNo};

use crate::error::Result;
use crate::position::Position;
use crate::sink::Batches;

/// A change of a batch that is lent; see [`Change`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LentChange<'a> {
    /// A value was put.
    Put {
        /// Into which keyspace.
        keyspace: &'a KeyspaceName,
        /// Under which key.
        key: &'a [u8],
        /// The value.
        value: &'a [u8],
    },
    /// A key was deleted.
    Delete {
        /// From which keyspace.
        keyspace: &'a KeyspaceName,
        /// The key.
        key: &'a [u8],
    },
    /// A keyspace was dropped with all it held.
    DropKeyspace {
        /// Which.
        keyspace: &'a KeyspaceName,
    },
}

/// The numbers of a batch's changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// The sequence number of the first change.
    pub first: SeqNo,
    /// The sequence number of the last change.
    pub last: SeqNo,
}

/// Reads a log batch by batch, and lends out what each holds: for those who put it elsewhere at once, as a restore does.
/// Nothing need be allocated for a batch then. See [`Source::scan`](crate::Source::scan).
pub trait Scan: Send {
    /// Calls `take` with each change of the next batch, in order; its numbers, or `None` at the end of what is there.
    ///
    /// # Errors
    /// As an item of [`Source::read`](crate::Source::read), and it is the last one. What was taken of the batch then is no
    /// batch.
    fn next(&mut self, take: &mut dyn FnMut(LentChange<'_>)) -> Result<Option<Numbers>>;

    /// The position after the last batch that was read.
    ///
    /// # Errors
    /// Whatever keeps the source from telling.
    fn position(&self) -> Result<Position>;
}

/// Lends out what is given.
pub(crate) struct Lending {
    batches: Batches,
    position: Position,
}

impl Lending {
    pub(crate) fn new(batches: Batches, from: &Position) -> Self {
        Lending { batches, position: from.clone() }
    }
}

impl Scan for Lending {
    fn next(&mut self, take: &mut dyn FnMut(LentChange<'_>)) -> Result<Option<Numbers>> {
        let Some((position, batch)) = self.batches.next().transpose()? else { return Ok(None) };
        self.position = position;
        Ok(Some(lend_all(&batch, take)))
    }

    fn position(&self) -> Result<Position> {
        Ok(self.position.clone())
    }
}

/// Lends what a batch holds; its numbers.
pub(crate) fn lend_all(batch: &ChangeBatch, take: &mut dyn FnMut(LentChange<'_>)) -> Numbers {
    batch.changes().iter().filter_map(lend).for_each(take);
    Numbers { first: batch.first_seqno(), last: batch.last_seqno() }
}

/// None for a kind of change that a later engine knows.
fn lend(change: &Change) -> Option<LentChange<'_>> {
    Some(match change {
        Change::Put { keyspace, key, value } => LentChange::Put { keyspace, key, value },
        Change::Delete { keyspace, key } => LentChange::Delete { keyspace, key },
        Change::DropKeyspace { keyspace } => LentChange::DropKeyspace { keyspace },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn what_is_given_is_lent_with_its_numbers_and_positions() {
        let changes = vec![
            Change::Put { keyspace: "a".into(), key: "k".into(), value: "v".into() },
            Change::Delete { keyspace: "b".into(), key: "l".into() },
            Change::DropKeyspace { keyspace: "c".into() },
        ];
        let batch = ChangeBatch::new(7, changes).unwrap();
        let position = Position::from_number;
        let items = vec![Ok((position(2), batch)), Err(Error::InvalidArgument("the end".to_owned()))];
        let mut scan = Lending::new(Box::new(items.into_iter()), &position(1));
        assert_eq!(scan.position().unwrap(), position(1));
        let mut taken = Vec::new();
        let numbers = scan.next(&mut |change| taken.push(format!("{change:?}"))).unwrap();
        assert_eq!((numbers, scan.position().unwrap()), (Some(Numbers { first: 7, last: 9 }), position(2)));
        assert_eq!(taken.len(), 3);
        assert_eq!(taken[1], format!("{:?}", LentChange::Delete { keyspace: &"b".into(), key: b"l" }));
        assert!(scan.next(&mut |_| {}).is_err());
    }
}
