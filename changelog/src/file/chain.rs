//! The names of a log's files, and which of the files are the log.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use siltstone::SeqNo;
use siltstone::fs::FileSystem;

use crate::error::{Error, Result};

/// No segment begins beyond, as no write of a database has a larger number.
const MAX_SEQNO: SeqNo = (1 << 56) - 1;

/// How the names of owners' locks begin.
pub(super) const OWNER: &str = "OWNER-";

/// What a segment's name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct SegmentName {
    /// The last number before it.
    pub(super) prev_seqno: SeqNo,
    /// Where its range ends, if compaction made it; else it goes as far as its batches do.
    pub(super) last_seqno: Option<SeqNo>,
    /// Whose batches it holds, the latest of them: each owner of the log has a larger number than the one before.
    pub(super) epoch: u64,
    /// Tells apart what compaction made of the same range.
    pub(super) generation: u64,
}

impl SegmentName {
    /// A segment that batches are shipped to.
    pub(super) fn shipped(prev_seqno: SeqNo, epoch: u64) -> Self {
        SegmentName { prev_seqno, last_seqno: None, epoch, generation: 0 }
    }

    pub(super) fn path(&self, directory: &Path) -> PathBuf {
        directory.join(self.to_string())
    }

    /// The name that these characters are, if they are one: one spelling for each.
    fn parse(file: &str) -> Option<Self> {
        let parts: Vec<&str> = file.strip_suffix(".log")?.split('-').collect();
        let number = |at: usize, digits: usize| {
            let part = parts.get(at)?;
            let plain = part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit());
            part.parse::<u64>().ok().filter(|_| plain)
        };
        let seqno = |at| number(at, 20).filter(|&seqno| seqno <= MAX_SEQNO);
        match parts.len() {
            2 => Some(SegmentName::shipped(seqno(0)?, number(1, 10)?)),
            4 => {
                let (prev_seqno, last_seqno) = (seqno(0)?, seqno(1).filter(|&last| Some(last) > seqno(0))?);
                let (epoch, generation) = (number(2, 10)?, number(3, 10)?);
                Some(SegmentName { prev_seqno, last_seqno: Some(last_seqno), epoch, generation })
            }
            _ => None,
        }
    }
}

impl std::fmt::Display for SegmentName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.last_seqno {
            None => write!(f, "{:020}-{:010}.log", self.prev_seqno, self.epoch),
            Some(last) => {
                write!(f, "{:020}-{last:020}-{:010}-{:010}.log", self.prev_seqno, self.epoch, self.generation)
            }
        }
    }
}

/// What is in a log's directory.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// The segment files, and how long they are, in no order.
    pub(super) segments: Vec<(SegmentName, u64)>,
    /// The epochs of those who own the log or did.
    pub(super) owners: Vec<u64>,
}

impl Listing {
    /// Of a directory that is missing nothing.
    ///
    /// # Errors
    /// `Io`; `UnsupportedVersion` for a log file with another kind of name: another release's log is not taken for none.
    pub(super) fn read(fs: &Arc<dyn FileSystem>, directory: &Path) -> Result<Self> {
        let entries = match fs.read_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Listing::default()),
            entries => entries.map_err(Error::io("listing the log", directory))?,
        };
        let mut listing = Listing::default();
        for entry in entries {
            if let Some(epoch) = entry.name.strip_prefix(OWNER) {
                listing.owners.extend(epoch.parse::<u64>().ok());
            } else if let Some(name) = SegmentName::parse(&entry.name) {
                listing.segments.push((name, entry.len));
            } else if entry.name.ends_with(".log") {
                let reason = "no segment that this release writes has such a name".to_owned();
                return Err(Error::UnsupportedVersion { file: directory.join(&entry.name), reason });
            }
        }
        Ok(listing)
    }

    /// The segments that are the log, in order.
    pub(super) fn log(&self) -> Vec<SegmentName> {
        chain(self.segments.iter().map(|&(name, _)| name))
    }

    /// How long a segment's file is.
    pub(super) fn file_bytes(&self, name: SegmentName) -> u64 {
        self.segments.iter().find(|&&(other, _)| other == name).map_or(0, |&(_, bytes)| bytes)
    }
}

/// Of all segments those that are the log, in order.
///
/// Where a later owner's first segment begins, whatever earlier owners wrote ends: a segment of theirs that reaches
/// beyond does not count. Of what is left, a segment that lies within the range of one that compaction made does not count
/// either.
fn chain(names: impl Iterator<Item = SegmentName>) -> Vec<SegmentName> {
    let mut names: Vec<SegmentName> = names.collect();
    // By where they begin, those of the largest range and the latest first.
    names.sort_unstable_by_key(|name| {
        let last = name.last_seqno.unwrap_or(0);
        (name.prev_seqno, std::cmp::Reverse((last, name.epoch, name.generation)))
    });
    let takers = take_overs(&names);
    let mut covered_seqno = 0;
    names.retain(|name| {
        let reaches = name.last_seqno.map_or(name.prev_seqno, |last| last - 1);
        let takers = &takers[..takers.partition_point(|&(prev_seqno, _)| prev_seqno <= reaches)];
        if takers.last().is_some_and(|&(_, epoch)| epoch > name.epoch) {
            return false;
        }
        // Several at one place: the first of them stands for the others.
        let within = name.prev_seqno < covered_seqno;
        covered_seqno = covered_seqno.max(name.last_seqno.unwrap_or(0));
        !within
    });
    // An owner's empty segment and another one of its own at the same place are of no two owners.
    names.dedup_by_key(|name| name.prev_seqno);
    names
}

/// Where segments begin, and the largest epoch of those up to there.
fn take_overs(sorted: &[SegmentName]) -> Vec<(SeqNo, u64)> {
    let newest = sorted.iter().scan(0, |newest, name| {
        *newest = name.epoch.max(*newest);
        Some((name.prev_seqno, *newest))
    });
    newest.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shipped(prev_seqno: SeqNo, epoch: u64) -> SegmentName {
        SegmentName::shipped(prev_seqno, epoch)
    }

    fn rewritten(prev_seqno: SeqNo, last_seqno: SeqNo, epoch: u64, generation: u64) -> SegmentName {
        SegmentName { prev_seqno, last_seqno: Some(last_seqno), epoch, generation }
    }

    fn check(names: &[SegmentName], expected: &[SegmentName]) {
        // In whatever order a directory lists them.
        for turned in 0..names.len().max(1) {
            let turned = names.iter().cycle().skip(turned).take(names.len()).copied();
            assert_eq!(chain(turned), expected);
        }
    }

    #[test]
    fn names_round_trip_and_have_one_spelling() {
        for name in [shipped(0, 1), shipped(42, 7), rewritten(3, 9, 1, 2), rewritten(0, MAX_SEQNO, 9_999_999_999, 1)] {
            assert_eq!(SegmentName::parse(&name.to_string()), Some(name));
        }
        for other in [
            "42.log",
            "LOCK",
            "00000000000000000042.log",
            "00000000000000000042-0000000001.tmp",
            "00000000000000000042-1.log",
            "+0000000000000000042-0000000001.log",
            "99999999999999999999-0000000001.log",
            "00000000000000000042-00000000000000000042-0000000001-0000000001.log",
            "00000000000000000042-00000000000000000041-0000000001-0000000001.log",
            "00000000000000000042-00000000000000000043-0000000001.log",
        ] {
            assert_eq!(SegmentName::parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_rewritten_segment_stands_for_what_lies_within_its_range() {
        let (a, b, c) = (shipped(0, 1), shipped(10, 1), shipped(20, 1));
        check(&[a, b, c], &[a, b, c]);
        check(&[a, b, c, rewritten(0, 10, 1, 1)], &[rewritten(0, 10, 1, 1), b, c]);
        check(&[a, b, c, rewritten(0, 20, 1, 1)], &[rewritten(0, 20, 1, 1), c]);
        check(
            &[rewritten(0, 10, 1, 1), rewritten(10, 20, 1, 2), c],
            &[rewritten(0, 10, 1, 1), rewritten(10, 20, 1, 2), c],
        );
        check(
            &[rewritten(0, 10, 1, 1), rewritten(0, 20, 1, 2), rewritten(10, 20, 1, 1), c],
            &[rewritten(0, 20, 1, 2), c],
        );
        check(&[rewritten(0, 20, 1, 3), rewritten(0, 20, 1, 2), c], &[rewritten(0, 20, 1, 3), c]);
    }

    #[test]
    fn a_later_owner_ends_what_earlier_ones_wrote() {
        let taken = shipped(10, 2);
        check(&[shipped(0, 1), shipped(10, 1), taken], &[shipped(0, 1), taken]);
        check(&[shipped(0, 1), shipped(10, 1), shipped(15, 1), taken], &[shipped(0, 1), taken]);
        // What an earlier owner compacted of its own later segments, and of those before.
        check(&[rewritten(0, 15, 1, 4), shipped(0, 1), shipped(10, 1), taken], &[shipped(0, 1), taken]);
        check(&[rewritten(0, 10, 1, 4), shipped(0, 1), shipped(15, 1), taken], &[rewritten(0, 10, 1, 4), taken]);
        // Also once nothing but compacted segments tell of it.
        let names = [rewritten(0, 10, 1, 1), rewritten(10, 20, 2, 1), shipped(20, 2), rewritten(0, 18, 1, 5)];
        check(&names, &[rewritten(0, 10, 1, 1), rewritten(10, 20, 2, 1), shipped(20, 2)]);
        // The later one's own go on.
        check(&[shipped(0, 1), taken, shipped(15, 1), shipped(20, 2)], &[shipped(0, 1), taken, shipped(20, 2)]);
        check(
            &[shipped(0, 1), taken, rewritten(0, 20, 2, 1), shipped(20, 2)],
            &[rewritten(0, 20, 2, 1), shipped(20, 2)],
        );
        // A third takes over from within what the second wrote.
        check(&[shipped(0, 1), taken, shipped(20, 2), shipped(20, 3)], &[shipped(0, 1), taken, shipped(20, 3)]);
        check(&[], &[]);
    }
}
