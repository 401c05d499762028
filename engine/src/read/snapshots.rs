//! The sequence numbers that live snapshots hold.

use std::collections::BTreeMap;

use crate::key::SeqNo;
use crate::sync::Mutex;

/// Counts live snapshots by sequence number.
///
/// Invariant that compaction relies on: a snapshot registered after [`list`](SnapshotList::list) was taken has a
/// sequence number at or above every write that was visible at that time, because both read the visible number inside
/// the same lock.
#[derive(Debug, Default)]
pub(crate) struct SnapshotList {
    live: Mutex<BTreeMap<SeqNo, usize>>,
}

impl SnapshotList {
    /// Registers a snapshot at the number that `visible` answers inside the lock.
    pub(crate) fn acquire(&self, visible: impl FnOnce() -> SeqNo) -> SeqNo {
        let mut live = self.live.lock();
        let seqno = visible();
        *live.entry(seqno).or_insert(0) += 1;
        seqno
    }

    /// Ends one snapshot at `seqno`.
    pub(crate) fn release(&self, seqno: SeqNo) {
        let mut live = self.live.lock();
        if let Some(count) = live.get_mut(&seqno) {
            *count -= 1;
            if *count == 0 {
                live.remove(&seqno);
            }
        }
    }

    /// All live numbers, ascending.
    pub(crate) fn list(&self) -> Vec<SeqNo> {
        self.live.lock().keys().copied().collect()
    }

    /// The oldest live number.
    pub(crate) fn oldest(&self) -> Option<SeqNo> {
        self.live.lock().keys().next().copied()
    }

    /// How many snapshots are live.
    pub(crate) fn len(&self) -> usize {
        self.live.lock().values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_lives_until_its_last_snapshot_goes() {
        let list = SnapshotList::default();
        assert_eq!(list.acquire(|| 5), 5);
        list.acquire(|| 5);
        list.acquire(|| 0);
        assert_eq!((list.list(), list.len()), (vec![0, 5], 3));
        list.release(5);
        list.release(0);
        assert_eq!((list.oldest(), list.list()), (Some(5), vec![5]));
        list.release(5);
        assert_eq!(list.oldest(), None);
    }
}
