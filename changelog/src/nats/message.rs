//! What a message holds.
//!
//! Header `Siltstone`: `version kind first last writer part parts`, in decimal: the first and last sequence numbers of
//! what it holds (0 of a claim), which claim its writer made, and which of how many parts it is. Payload: for each batch
//! its length, LEB128, and the batch as [`codec`](crate::codec) encodes it; of a part a piece of that.

use bytes::Bytes;
use siltstone::{ChangeBatch, KeyspaceName, SeqNo};

use crate::codec::{self, DecodeError, Decoder, Input, write_number};
use crate::error::Result;

/// The header's name.
pub(super) const HEADER: &str = "Siltstone";

/// The version this release writes, and the newest it reads.
const VERSION: u32 = 1;

/// What a message says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) first: SeqNo,
    pub(super) last: SeqNo,
    pub(super) writer: u64,
    pub(super) part: u32,
    pub(super) parts: u32,
}

/// Why a message is none of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// A newer release wrote it.
    Newer(u32),
    /// Nothing that was ever written here.
    Malformed(&'static str),
}

impl Stamp {
    /// Of a claim: a writer's first message.
    pub(super) fn claim(writer: u64) -> Self {
        Stamp { first: 0, last: 0, writer, part: 1, parts: 1 }
    }

    pub(super) fn is_claim(&self) -> bool {
        self.last == 0
    }

    pub(super) fn encode(&self) -> String {
        let Stamp { first, last, writer, part, parts } = self;
        format!("{VERSION} {first} {last} {writer} {part} {parts}")
    }

    pub(super) fn decode(text: Option<&str>) -> Result<Stamp, Refused> {
        let mut fields = text.ok_or(Refused::Malformed("it has no header of this log"))?.split(' ');
        let mut number = || fields.next().and_then(|field| field.parse::<u64>().ok());
        let version = number().ok_or(Refused::Malformed("its header has no version"))?;
        if version > VERSION.into() {
            return Err(Refused::Newer(u32::try_from(version).unwrap_or(u32::MAX)));
        }
        let [first, last, writer, part, parts] = std::array::from_fn(|_| number());
        let small = |number: Option<u64>| number.and_then(|number| u32::try_from(number).ok());
        let (Some(first), Some(last), Some(writer), Some(part), Some(parts), None) =
            (first, last, writer, small(part), small(parts), fields.next())
        else {
            return Err(Refused::Malformed("its header is cut off"));
        };
        if first > last || part == 0 || part > parts {
            return Err(Refused::Malformed("its header contradicts itself"));
        }
        Ok(Stamp { first, last, writer, part, parts })
    }

    /// Where the first part is, of a message whose last part is at `sequence`: each follows the one before it.
    pub(super) fn first_part(&self, sequence: u64) -> u64 {
        (sequence + 1).saturating_sub(self.parts.into())
    }

    /// By which the server knows a message that comes twice.
    pub(super) fn id(&self) -> String {
        let Stamp { first, last, writer, part, .. } = self;
        format!("{writer} {first} {last} {part}")
    }
}

/// Batches that become one message.
#[derive(Debug, Default)]
pub(super) struct Draft {
    /// The one keyspace they are of, or several.
    pub(super) keyspace: Option<KeyspaceName>,
    pub(super) first: SeqNo,
    pub(super) last: SeqNo,
    pub(super) bytes: Vec<u8>,
}

/// The keyspace that all of a batch is in.
fn only_keyspace(batch: &ChangeBatch) -> Option<&KeyspaceName> {
    let (first, rest) = batch.changes().split_first()?;
    rest.iter().all(|change| change.keyspace() == first.keyspace()).then(|| first.keyspace())
}

impl Draft {
    /// Whether a batch goes to the same subject.
    pub(super) fn suits(&self, batch: &ChangeBatch) -> bool {
        self.bytes.is_empty() || self.keyspace.as_ref() == only_keyspace(batch)
    }

    /// Adds a batch that suits.
    pub(super) fn push(&mut self, batch: &ChangeBatch) -> Result<()> {
        let mut encoded = Vec::new();
        codec::encode(batch, &mut encoded)?;
        if self.bytes.is_empty() {
            (self.keyspace, self.first) = (only_keyspace(batch).cloned(), batch.first_seqno());
        }
        write_number(&mut self.bytes, encoded.len() as u64);
        self.bytes.extend_from_slice(&encoded);
        self.last = batch.last_seqno();
        Ok(())
    }

    /// Its messages, none larger than `max_bytes`.
    pub(super) fn into_messages(self, writer: u64, max_bytes: usize) -> Vec<(Stamp, Bytes)> {
        let payload = Bytes::from(self.bytes);
        let parts = payload.len().div_ceil(max_bytes).max(1);
        let part = |part: usize| {
            let bytes = payload.slice(part * max_bytes..payload.len().min((part + 1) * max_bytes));
            let (part, parts) = (part as u32 + 1, parts as u32);
            (Stamp { first: self.first, last: self.last, writer, part, parts }, bytes)
        };
        (0..parts).map(part).collect()
    }
}

/// The batches of a whole payload, whose memory they share.
pub(super) fn batches(payload: &Bytes) -> Result<Vec<ChangeBatch>, DecodeError> {
    let mut input = Input(payload);
    let (mut batches, mut decoder) = (Vec::new(), Decoder::default());
    while !input.0.is_empty() {
        batches.push(decoder.decode(payload, input.bytes()?)?);
    }
    Ok(batches)
}

#[cfg(test)]
mod tests {
    use siltstone::Change;

    use super::*;

    fn batch(seqno: SeqNo, keyspaces: &[&str], value_bytes: usize) -> ChangeBatch {
        let put = |keyspace: &&str| Change::Put {
            keyspace: (*keyspace).into(),
            key: "key".into(),
            value: vec![7; value_bytes].into(),
        };
        ChangeBatch::new(seqno, keyspaces.iter().map(put).collect()).unwrap()
    }

    #[test]
    fn stamps_round_trip_and_everything_else_is_refused() {
        let stamp = Stamp { first: 3, last: 9, writer: 17, part: 2, parts: 3 };
        assert_eq!(Stamp::decode(Some(&stamp.encode())), Ok(stamp));
        assert!(Stamp::claim(5).is_claim() && !stamp.is_claim());
        for bad in ["", "x", "1", "1 3 9 17 2", "1 3 9 17 2 3 4", "1 9 3 17 2 3", "1 3 9 17 4 3", "1 3 9 17 0 3"] {
            assert!(matches!(Stamp::decode(Some(bad)), Err(Refused::Malformed(_))), "{bad}");
        }
        assert_eq!(Stamp::decode(Some("2 other things")), Err(Refused::Newer(2)));
        assert!(Stamp::decode(None).is_err());
    }

    #[test]
    fn batches_of_one_keyspace_share_a_message_and_large_ones_come_in_parts() {
        let (a, b, both) = (batch(1, &["a"], 10), batch(2, &["b"], 10), batch(3, &["a", "b"], 10));
        let mut draft = Draft::default();
        assert!(draft.suits(&both));
        draft.push(&a).unwrap();
        assert!(draft.suits(&a) && !draft.suits(&b) && !draft.suits(&both));
        let large = batch(5, &["a"], 1000);
        draft.push(&large).unwrap();
        let messages = draft.into_messages(7, 300);
        assert!(messages.len() > 3 && messages.iter().all(|(_, bytes)| bytes.len() <= 300));
        let whole = Bytes::from(messages.iter().map(|(_, bytes)| &bytes[..]).collect::<Vec<_>>().concat());
        assert_eq!(batches(&whole).unwrap(), [a, large]);
        for (at, (stamp, _)) in messages.iter().enumerate() {
            assert_eq!((stamp.first, stamp.last, stamp.part), (1, 5, at as u32 + 1));
        }
        assert!(batches(&whole.slice(..whole.len() - 1)).is_err());
    }
}
