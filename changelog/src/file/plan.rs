//! What is due for a log's sealed segments: a pure function of what they say about themselves.

use siltstone::SeqNo;

use super::chain::SegmentName;
use super::options::FileSinkOptions;

/// A segment as compaction and retention see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentInfo {
    pub(super) name: SegmentName,
    pub(super) file_bytes: u64,
    /// The last number of its range.
    pub(super) last_seqno: SeqNo,
    /// Since 1970.
    pub(super) sealed_ms: u64,
    /// No key is in it or before it twice.
    pub(super) is_clean: bool,
}

/// A compaction to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// So many segments from the first on are clean.
    pub(super) clean: usize,
    /// So many segments from the first on may be compacted.
    pub(super) end: usize,
    /// Deletes up to this number have been kept for long enough; 0: none has.
    pub(super) deletes_seqno: SeqNo,
}

/// The compaction of `sealed` segments, in order, if there is something that is not compacted and may be.
pub(super) fn plan(sealed: &[SegmentInfo], options: &FileSinkOptions, now_ms: u64) -> Option<Plan> {
    let millis = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let older = |age| sealed.iter().take_while(move |segment| segment.sealed_ms.saturating_add(age) <= now_ms);
    let clean = clean_segments(sealed);
    let end = older(millis(options.min_compaction_lag)).count();
    let deletes_seqno = older(millis(options.delete_retention)).last().map_or(0, |segment| segment.last_seqno);
    (end > clean).then_some(Plan { clean, end, deletes_seqno })
}

/// How many segments from the first on are clean.
pub(super) fn clean_segments(sealed: &[SegmentInfo]) -> usize {
    sealed.iter().take_while(|segment| segment.is_clean).count()
}

/// Whether so much is not compacted that it is time to.
pub(super) fn is_due(sealed: &[SegmentInfo], plan: &Plan, options: &FileSinkOptions) -> bool {
    let bytes = |segments: &[SegmentInfo]| segments.iter().map(|segment| segment.file_bytes).sum::<u64>();
    let (dirty, all) = (bytes(&sealed[plan.clean..plan.end]), bytes(&sealed[..plan.end]));
    dirty >= options.min_dirty_bytes && dirty as f64 >= options.min_dirty_ratio * all as f64
}

/// How many of the oldest segments are not to be kept any longer.
pub(super) fn expired(sealed: &[SegmentInfo], options: &FileSinkOptions, now_ms: u64) -> usize {
    let mut bytes: u64 = sealed.iter().map(|segment| segment.file_bytes).sum();
    let too_old = |segment: &SegmentInfo| {
        let age = now_ms.saturating_sub(segment.sealed_ms);
        options.retain_for.is_some_and(|kept| u128::from(age) > kept.as_millis())
    };
    let expired = sealed.iter().take_while(|segment| {
        let goes = too_old(segment) || options.retain_bytes.is_some_and(|kept| bytes > kept);
        bytes -= segment.file_bytes;
        goes
    });
    expired.count()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Segments of ten numbers and 100 bytes, sealed a second after one another.
    fn sealed(clean: usize, count: usize) -> Vec<SegmentInfo> {
        let segment = |at: usize| SegmentInfo {
            name: SegmentName::shipped(10 * at as u64, 1),
            file_bytes: 100,
            last_seqno: 10 * at as u64 + 10,
            sealed_ms: 1000 * at as u64,
            is_clean: at < clean,
        };
        (0..count).map(segment).collect()
    }

    fn options() -> FileSinkOptions {
        FileSinkOptions::new().min_dirty_bytes(200).min_dirty_ratio(0.5).delete_retention(Duration::from_secs(2))
    }

    #[test]
    fn what_is_clean_and_what_is_young_is_left_alone() {
        let lag = options().min_compaction_lag(Duration::from_secs(1));
        assert_eq!(plan(&sealed(1, 4), &lag, 3500), Some(Plan { clean: 1, end: 3, deletes_seqno: 20 }));
        assert_eq!(plan(&sealed(3, 4), &lag, 3500), None, "the fourth is too young");
        assert_eq!(plan(&sealed(4, 4), &options(), 9000), None);
        assert_eq!(plan(&[], &options(), 9000), None);
        // A clock that went back makes everything young.
        assert_eq!(plan(&sealed(0, 4), &options(), 0).map(|plan| plan.deletes_seqno), Some(0));
    }

    #[test]
    fn it_is_due_when_enough_and_a_large_enough_part_is_dirty() {
        let due = |clean, count| {
            let sealed = sealed(clean, count);
            plan(&sealed, &options(), 99_000).is_some_and(|plan| is_due(&sealed, &plan, &options()))
        };
        assert!(!due(0, 1), "too little");
        assert!(due(0, 2) && due(2, 4));
        assert!(!due(3, 5), "two of five");
    }

    #[test]
    fn the_oldest_go_by_bytes_and_by_age() {
        let sealed = sealed(0, 5);
        assert_eq!(expired(&sealed, &options(), 99_000), 0);
        assert_eq!(expired(&sealed, &options().retain_bytes(250), 0), 3);
        assert_eq!(expired(&sealed, &options().retain_bytes(0), 0), 5);
        assert_eq!(expired(&sealed, &options().retain_for(Duration::from_secs(2)), 3500), 2);
        assert_eq!(expired(&sealed, &options().retain_for(Duration::from_secs(2)), 0), 0, "a clock that went back");
    }
}
