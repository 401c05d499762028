//! Keep or drop: the only place that decides which versions and tombstones a flush or a compaction leaves out.
//!
//! Live snapshots cut the sequence numbers into strata: all versions of a key that the same oldest snapshot (or only
//! the latest view) can see lie in one stratum, and only the newest of a stratum can ever be read. So, per user key and
//! newest first:
//! - a version is dropped if a newer one of its key is in the same stratum;
//! - a tombstone is dropped if it lies in the oldest stratum (whatever it hides in this input is then dropped with it)
//!   and no older table can hold the key;
//! - a kept value in the oldest stratum at the bottom gets sequence number 0: everyone who will ever read may see it,
//!   and zeros take no space.

use crate::key::{SeqNo, Trailer, ValueKind};

/// What to do with a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Write it, with this trailer.
    Keep(Trailer),
    /// A newer version in the same stratum hides it.
    DropShadowed,
    /// A tombstone with nothing left to hide.
    DropTombstone,
}

/// Decides version after version; call [`Retention::next_key`] before the first version of each user key.
#[derive(Debug)]
pub(crate) struct Retention {
    /// Sequence numbers of the live snapshots, ascending, no duplicates.
    snapshots: Vec<SeqNo>,
    /// Whether nothing older than the input exists for any of its keys.
    bottom: bool,
    /// The stratum of the key's previous (newer) version.
    previous_stratum: Option<usize>,
}

impl Retention {
    /// `snapshots`: of all live snapshots, taken *after* the input was fixed. `bottom`: no table below the output can
    /// hold any key of the input.
    pub(crate) fn new(snapshots: Vec<SeqNo>, bottom: bool) -> Self {
        debug_assert!(snapshots.is_sorted());
        Retention { snapshots, bottom, previous_stratum: None }
    }

    /// The versions from now on belong to another user key.
    #[inline]
    pub(crate) fn next_key(&mut self) {
        self.previous_stratum = None;
    }

    /// Decides on the next older version of the current key. `exists_below` answers whether a table below the output,
    /// or one beside it that is older than the input, can hold the key; it is asked only for tombstones that could go.
    #[inline]
    pub(crate) fn decide(&mut self, trailer: Trailer, exists_below: impl FnOnce() -> bool) -> Verdict {
        let stratum = self.stratum(trailer.seqno());
        if self.previous_stratum.replace(stratum) == Some(stratum) {
            return Verdict::DropShadowed;
        }
        if stratum > 0 {
            return Verdict::Keep(trailer);
        }
        if trailer.is_delete() && (self.bottom || !exists_below()) {
            return Verdict::DropTombstone;
        }
        if self.bottom && trailer.is_put() {
            return Verdict::Keep(Trailer::new(0, ValueKind::Put));
        }
        Verdict::Keep(trailer)
    }

    /// Which snapshots see a version: the index of the oldest snapshot at or above it; the latest view comes last.
    #[inline]
    fn stratum(&self, seqno: SeqNo) -> usize {
        if self.snapshots.is_empty() { 0 } else { self.snapshots.partition_point(|&s| s < seqno) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn put(seqno: SeqNo) -> Trailer {
        Trailer::new(seqno, ValueKind::Put)
    }
    fn delete(seqno: SeqNo) -> Trailer {
        Trailer::new(seqno, ValueKind::Delete)
    }

    fn run(snapshots: &[SeqNo], bottom: bool, below: bool, versions: &[Trailer]) -> Vec<Trailer> {
        let mut retention = Retention::new(snapshots.to_vec(), bottom);
        retention.next_key();
        versions
            .iter()
            .filter_map(|&t| match retention.decide(t, || below) {
                Verdict::Keep(t) => Some(t),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn without_snapshots_only_the_newest_stays() {
        assert_eq!(run(&[], false, true, &[put(9), put(5), delete(3)]), [put(9)]);
        assert_eq!(run(&[], true, false, &[put(9), put(5)]), [put(0)]);
    }

    #[test]
    fn a_tombstone_stays_while_something_older_may_exist() {
        assert_eq!(run(&[], false, true, &[delete(9), put(5)]), [delete(9)]);
        assert_eq!(run(&[], false, false, &[delete(9), put(5)]), []);
        assert_eq!(run(&[], true, false, &[delete(9), put(5)]), []);
    }

    #[test]
    fn a_tombstone_above_a_snapshot_stays_because_an_older_version_stays() {
        assert_eq!(run(&[7], true, false, &[delete(9), put(5)]), [delete(9), put(0)]);
        assert_eq!(run(&[9], true, false, &[delete(9), put(5)]), []);
        assert_eq!(run(&[0], true, false, &[delete(9), put(5)]), [delete(9)], "a snapshot before the first write");
    }

    #[test]
    fn keys_are_decided_on_apart_from_each_other() {
        let mut retention = Retention::new(vec![], false);
        retention.next_key();
        assert_eq!(retention.decide(put(9), || false), Verdict::Keep(put(9)));
        assert_eq!(retention.decide(put(8), || false), Verdict::DropShadowed);
        retention.next_key();
        assert_eq!(retention.decide(put(7), || false), Verdict::Keep(put(7)));
        retention.next_key();
        assert_eq!(retention.decide(delete(6), || false), Verdict::DropTombstone);
    }

    #[test]
    fn tables_below_are_asked_only_for_tombstones_that_could_go() {
        let decide = |snapshots: &[SeqNo], bottom, trailer| {
            let mut retention = Retention::new(snapshots.to_vec(), bottom);
            retention.decide(trailer, || panic!("asked"))
        };
        assert_eq!(decide(&[], false, put(9)), Verdict::Keep(put(9)));
        assert_eq!(decide(&[5], false, delete(9)), Verdict::Keep(delete(9)));
        assert_eq!(decide(&[], true, delete(9)), Verdict::DropTombstone);
    }

    /// Whatever is dropped, every live snapshot and the latest view read the same as before.
    #[test]
    fn every_reader_reads_the_same_before_and_after() {
        let read = |versions: &[Trailer], at: SeqNo| {
            versions.iter().find(|t| t.seqno() <= at).filter(|t| t.is_put()).map(|_| ())
        };
        let which = |versions: &[Trailer], at: SeqNo| versions.iter().position(|t| t.seqno() <= at);
        for kinds in 0u32..1 << 5 {
            for snapshot_bits in 0u32..1 << 6 {
                for bottom in [false, true] {
                    let versions: Vec<Trailer> =
                        (1..=5).rev().map(|s| if kinds >> (s - 1) & 1 == 1 { put(s) } else { delete(s) }).collect();
                    let snapshots: BTreeSet<SeqNo> = (0..6).filter(|s| snapshot_bits >> s & 1 == 1).collect();
                    let snapshots: Vec<SeqNo> = snapshots.into_iter().collect();
                    let mut retention = Retention::new(snapshots.clone(), bottom);
                    retention.next_key();
                    // Pair each kept trailer with its original, so that sequence number 0 keeps its identity.
                    let kept: Vec<(Trailer, Trailer)> = versions
                        .iter()
                        .filter_map(|&t| match retention.decide(t, || !bottom) {
                            Verdict::Keep(new) => Some((new, t)),
                            _ => None,
                        })
                        .collect();
                    let new: Vec<Trailer> = kept.iter().map(|k| k.0).collect();
                    for at in snapshots.iter().copied().chain([MAX]) {
                        assert_eq!(read(&versions, at), read(&new, at), "{versions:?} {snapshots:?} at {at}");
                        if let (Some(before), Some(after)) = (which(&versions, at), which(&new, at)) {
                            assert_eq!(versions[before], kept[after].1, "the same version, not merely some put");
                        }
                    }
                }
            }
        }
    }
    const MAX: SeqNo = crate::key::MAX_SEQNO;
}
