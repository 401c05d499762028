//! Positions in this log.

use siltstone::SeqNo;

use crate::error::{Error, Result};
use crate::position::Position;

/// Where a reader is: everything up to `seqno` was read, by way of the commit at `commit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Which log it is.
    pub(super) log: u64,
    /// Whether the topics are being read from their beginnings, as far as the commit says; else from where it ends.
    pub(super) from_start: bool,
    /// The offset of the commit, in its topic.
    pub(super) commit: i64,
    pub(super) seqno: SeqNo,
}

impl Place {
    pub(super) fn to_position(self) -> Result<Position> {
        let Place { log, from_start, commit, seqno } = self;
        let way = if from_start { "up to" } else { "after" };
        Position::from_bytes(format!("log {log:016x} {way} commit {commit} seqno {seqno}"))
    }

    /// # Errors
    /// `InvalidArgument` for what [`to_position`](Self::to_position) never made.
    pub(super) fn of(position: &Position) -> Result<Place> {
        let text = position.to_string();
        let foreign = || Error::InvalidArgument(format!("{text:.80} is not a position of a log in Kafka"));
        let place = parse(&text).ok_or_else(foreign)?;
        // What else could be read as the same place is none of ours.
        if place.to_position()? == *position { Ok(place) } else { Err(foreign()) }
    }
}

fn parse(text: &str) -> Option<Place> {
    let (log, rest) = text.strip_prefix("log ")?.split_once(' ')?;
    let (way, rest) = rest.split_once(" commit ")?;
    let (commit, seqno) = rest.split_once(" seqno ")?;
    let from_start = match way {
        "up to" => true,
        "after" => false,
        _ => return None,
    };
    let log = u64::from_str_radix(log, 16).ok()?;
    Some(Place { log, from_start, commit: commit.parse().ok()?, seqno: seqno.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_round_trip_and_nothing_else_is_one() {
        let place = Place { log: 0xfeed, from_start: true, commit: 17, seqno: 400 };
        for place in [place, Place { from_start: false, ..place }] {
            assert_eq!(Place::of(&place.to_position().unwrap()).unwrap(), place);
        }
        for bad in ["17", "log feed up to commit 17 seqno 400", "log 000000000000feed at commit 17 seqno 400"] {
            assert!(Place::of(&Position::from_bytes(bad).unwrap()).is_err(), "{bad}");
        }
    }
}
