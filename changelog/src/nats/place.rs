//! Positions in this log.

use siltstone::SeqNo;

use crate::error::{Error, Result};
use crate::position::Position;

/// Everything up to `seqno` was read; the batch with that number, or what came before it, begins in the message at
/// `sequence` of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// When the stream was created, in nanoseconds since 1970: tells it from one of the same name.
    pub(super) stream: u64,
    pub(super) sequence: u64,
    pub(super) seqno: SeqNo,
}

impl Place {
    pub(super) fn to_position(self) -> Result<Position> {
        let Place { stream, sequence, seqno } = self;
        Position::from_bytes(format!("stream {stream} sequence {sequence} seqno {seqno}"))
    }

    /// # Errors
    /// `InvalidArgument` for what [`to_position`](Self::to_position) never made.
    pub(super) fn of(position: &Position) -> Result<Place> {
        let text = position.to_string();
        let foreign = || Error::InvalidArgument(format!("{text:.80} is not a position of a log in JetStream"));
        let place = parse(&text).ok_or_else(foreign)?;
        if place.to_position()? == *position { Ok(place) } else { Err(foreign()) }
    }
}

fn parse(text: &str) -> Option<Place> {
    let (stream, rest) = text.strip_prefix("stream ")?.split_once(" sequence ")?;
    let (sequence, seqno) = rest.split_once(" seqno ")?;
    Some(Place { stream: stream.parse().ok()?, sequence: sequence.parse().ok()?, seqno: seqno.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_round_trip_and_nothing_else_is_one() {
        let place = Place { stream: 1, sequence: 2, seqno: 3 };
        assert_eq!(Place::of(&place.to_position().unwrap()).unwrap(), place);
        for bad in ["17", "stream 1 sequence 2 seqno 03", "stream 1 sequence 2"] {
            assert!(Place::of(&Position::from_bytes(bad).unwrap()).is_err(), "{bad}");
        }
    }
}
