//! What a transaction says when it ends: how far each keyspace's topic goes.
//!
//! Value: `version u8 | log u64 | number of the commit | number before the first that was shipped | last
//! sequence number | number of keyspaces | keyspace* | number of drops | drop*`. A
//! keyspace is `name | number after which it began | number of partitions | (first offset | end offset)*`, a drop
//! `name | sequence number`, the last one of each name. The log is little-endian, other numbers are LEB128, names `length | UTF-8`.

use std::collections::BTreeMap;

use siltstone::{KeyspaceName, SeqNo};

use super::record::Refused;
use crate::codec::{DecodeError, Input, write_bytes, write_number};

const VERSION: u8 = 1;

/// Commits take turns with this many keys, so that compaction keeps about as many of them: a reader that is behind finds
/// where it was, and the newest one never goes.
pub(super) const COMMIT_KEYS: u64 = 4096;

/// Of a partition that has none.
const NO_RECORDS: (i64, i64) = (0, 0);

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Commit {
    /// Tells this log from every other, and from one of the same name before it was deleted.
    pub(super) log: u64,
    /// Counts commits, from 1.
    pub(super) number: u64,
    /// What came before this number's successor was never shipped.
    pub(super) begins_after: SeqNo,
    pub(super) last_seqno: SeqNo,
    pub(super) keyspaces: BTreeMap<KeyspaceName, Extent>,
    /// When keyspaces of these names were dropped the last time.
    pub(super) drops: BTreeMap<KeyspaceName, SeqNo>,
}

/// Where the records of a keyspace lie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Extent {
    /// Records up to this number are of an earlier keyspace of this name.
    pub(super) since_seqno: SeqNo,
    /// By partition: the offset of its first record, and that behind its last.
    pub(super) offsets: Vec<(i64, i64)>,
}

impl Extent {
    /// Records of `partition` from offset `first` on, up to `end`, belong to it too.
    pub(super) fn reach(&mut self, partition: i32, first: i64, end: i64) {
        let at = usize::try_from(partition).unwrap_or_default();
        if at >= self.offsets.len() {
            self.offsets.resize(at + 1, NO_RECORDS);
        }
        let place = &mut self.offsets[at];
        *place = if *place == NO_RECORDS { (first, end) } else { (place.0, place.1.max(end)) };
    }
}

impl Commit {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.log.to_le_bytes());
        write_number(&mut out, self.number);
        write_number(&mut out, self.begins_after);
        write_number(&mut out, self.last_seqno);
        write_number(&mut out, self.keyspaces.len() as u64);
        for (name, extent) in &self.keyspaces {
            write_bytes(&mut out, name.as_bytes());
            write_number(&mut out, extent.since_seqno);
            write_number(&mut out, extent.offsets.len() as u64);
            for &(first, end) in &extent.offsets {
                write_number(&mut out, first as u64);
                write_number(&mut out, end as u64);
            }
        }
        write_number(&mut out, self.drops.len() as u64);
        for (name, seqno) in &self.drops {
            write_bytes(&mut out, name.as_bytes());
            write_number(&mut out, *seqno);
        }
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Commit, Refused> {
        match bytes.first() {
            Some(&VERSION) => {}
            Some(&version) if version > VERSION => return Err(Refused::Newer(version)),
            _ => return Err(Refused::Malformed("a commit without a version")),
        }
        decode_rest(&bytes[1..]).map_err(|error| match error {
            DecodeError::Malformed(reason) => Refused::Malformed(reason),
            DecodeError::UnknownKind(_) => Refused::Malformed("a kind where there is none"),
        })
    }
}

fn decode_rest(bytes: &[u8]) -> Result<Commit, DecodeError> {
    let (log, rest) = bytes.split_first_chunk().ok_or(DecodeError::Malformed("cut off"))?;
    let mut input = Input(rest);
    let (log, number, begins_after) = (u64::from_le_bytes(*log), input.number()?, input.number()?);
    let mut commit = Commit { log, number, begins_after, last_seqno: input.number()?, ..Commit::default() };
    for _ in 0..input.number()? {
        let name = input.name()?;
        let mut extent = Extent { since_seqno: input.number()?, offsets: Vec::new() };
        for _ in 0..input.number()? {
            extent.offsets.push((input.offset()?, input.offset()?));
        }
        commit.keyspaces.insert(name, extent);
    }
    for _ in 0..input.number()? {
        let name = input.name()?;
        commit.drops.insert(name, input.number()?);
    }
    if input.0.is_empty() { Ok(commit) } else { Err(DecodeError::Malformed("bytes behind the last drop")) }
}

impl Input<'_> {
    fn name(&mut self) -> Result<KeyspaceName, DecodeError> {
        let name = std::str::from_utf8(self.bytes()?).map_err(|_| DecodeError::Malformed("a name is not UTF-8"))?;
        Ok(name.into())
    }

    fn offset(&mut self) -> Result<i64, DecodeError> {
        i64::try_from(self.number()?).map_err(|_| DecodeError::Malformed("an offset beyond all"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit() -> Commit {
        let extent = |since_seqno| Extent { since_seqno, offsets: vec![(0, 17), (3, 400)] };
        Commit {
            log: 0xfeed,
            number: 5,
            begins_after: 2,
            last_seqno: 300,
            keyspaces: [("a".into(), extent(0)), ("größe".into(), extent(7))].into(),
            drops: [("b".into(), 299)].into(),
        }
    }

    #[test]
    fn commits_round_trip_and_no_part_of_one_is_one() {
        let bytes = commit().encode();
        assert_eq!(Commit::decode(&bytes), Ok(commit()));
        for len in 0..bytes.len() {
            assert!(Commit::decode(&bytes[..len]).is_err(), "{len} bytes");
        }
        assert_eq!(Commit::decode(&[2]), Err(Refused::Newer(2)));
        assert!(Commit::decode(&[&bytes[..], &[0]].concat()).is_err());
    }
}
