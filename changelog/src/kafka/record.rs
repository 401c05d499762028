//! What a record says beside key and value.
//!
//! Header `siltstone`: `version u8 | sequence number u64 | last number of its batch u64`, little-endian. Numbers of a
//! batch follow each other in the order in which its changes apply, so that what compaction left of a batch still does.

use siltstone::SeqNo;

/// The header's name.
pub(super) const HEADER: &str = "siltstone";

/// The version this release writes, and the newest it reads.
const VERSION: u8 = 1;

/// Its length, in bytes.
pub(super) const STAMP_BYTES: usize = 17;

/// Where a change belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) seqno: SeqNo,
    pub(super) batch_last: SeqNo,
}

/// Why a record is none of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// A newer release wrote it.
    Newer(u8),
    /// Nothing that was ever written here.
    Malformed(&'static str),
}

impl Stamp {
    pub(super) fn encode(self) -> [u8; STAMP_BYTES] {
        let mut bytes = [VERSION; STAMP_BYTES];
        bytes[1..9].copy_from_slice(&self.seqno.to_le_bytes());
        bytes[9..].copy_from_slice(&self.batch_last.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: Option<&[u8]>) -> Result<Stamp, Refused> {
        let bytes = bytes.ok_or(Refused::Malformed("it has no header of this log"))?;
        match bytes.first() {
            Some(&version) if version > VERSION => return Err(Refused::Newer(version)),
            Some(&VERSION) => {}
            _ => return Err(Refused::Malformed("its header has no version")),
        }
        let (Some(seqno), Some(batch_last), STAMP_BYTES) = (number(bytes, 1), number(bytes, 9), bytes.len()) else {
            return Err(Refused::Malformed("its header is cut off"));
        };
        if seqno == 0 || seqno > batch_last {
            return Err(Refused::Malformed("its number is not one of its batch"));
        }
        Ok(Stamp { seqno, batch_last })
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_round_trip_and_everything_else_is_refused() {
        let stamp = Stamp { seqno: 7, batch_last: 9 };
        let bytes = stamp.encode();
        assert_eq!(Stamp::decode(Some(&bytes)), Ok(stamp));
        for len in 0..bytes.len() {
            assert!(matches!(Stamp::decode(Some(&bytes[..len])), Err(Refused::Malformed(_))), "{len}");
        }
        assert!(Stamp::decode(None).is_err());
        assert_eq!(Stamp::decode(Some(&[2])), Err(Refused::Newer(2)));
        assert!(Stamp::decode(Some(&Stamp { seqno: 10, batch_last: 9 }.encode())).is_err());
    }
}
