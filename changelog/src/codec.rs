//! A batch as bytes that stand for themselves: keyspaces by name, so that they mean the same to another database. For
//! sinks of one's own.
//!
//! `first seqno | number of names | (length | name)* | number of changes | change*`, where a change is `kind: u8 |
//! index of its keyspace's name`, followed by `key length | key` for a delete (0), that and `value length | value` for
//! a put (1), and nothing for the drop of a keyspace (16). All numbers but the kind are LEB128. Other kinds are left
//! for later releases.

use siltstone::bytes::Bytes;
use siltstone::{Change, ChangeBatch, KeyspaceName, MAX_SEQNO, Slice};

use crate::error::{Error, Result};
use crate::scan::{LentChange, Numbers};

const KIND_DELETE: u8 = 0;
const KIND_PUT: u8 = 1;
const KIND_DROP_KEYSPACE: u8 = 16;

/// The least a change takes, in bytes; bounds what is allocated for a count that was read.
const MIN_CHANGE_BYTES: usize = 2;

/// Why bytes are not a batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Nothing that [`encode`] ever makes.
    #[error("{0}")]
    Malformed(&'static str),
    /// A kind of change that a newer release introduced.
    #[error("a change of kind {0}, which this release does not know")]
    UnknownKind(u8),
}

/// Appends the encoding of `batch` to `out`.
///
/// # Errors
/// `InvalidArgument` for a kind of change that this release of the changelog does not know; `out` is left as it was.
///
/// ```
/// use siltstone::{Change, ChangeBatch};
/// use siltstone_changelog::codec;
/// let put = Change::Put { keyspace: "words".into(), key: "silt".into(), value: "1".into() };
/// let batch = ChangeBatch::new(7, vec![put])?;
/// let mut bytes = Vec::new();
/// codec::encode(&batch, &mut bytes)?;
/// assert_eq!(codec::decode(&bytes).unwrap(), batch);
/// # Ok::<(), siltstone_changelog::Error>(())
/// ```
pub fn encode(batch: &ChangeBatch, out: &mut Vec<u8>) -> Result<()> {
    let start = out.len();
    let (one, several);
    let names: &[&KeyspaceName] = match batch.changes() {
        [only] => {
            one = [only.keyspace()];
            &one
        }
        changes => {
            several = names(changes);
            &several
        }
    };
    write_number(out, batch.first_seqno());
    write_number(out, names.len() as u64);
    names.iter().for_each(|name| write_bytes(out, name.as_bytes()));
    write_number(out, batch.changes().len() as u64);
    let mut index = 0;
    for change in batch.changes() {
        // Runs of changes to one keyspace are the rule.
        if names[index] != change.keyspace() {
            index = names.iter().position(|name| *name == change.keyspace()).unwrap_or(0);
        }
        match change {
            Change::Put { key, value, .. } => {
                begin(out, KIND_PUT, index);
                write_bytes(out, key);
                write_bytes(out, value);
            }
            Change::Delete { key, .. } => {
                begin(out, KIND_DELETE, index);
                write_bytes(out, key);
            }
            Change::DropKeyspace { .. } => begin(out, KIND_DROP_KEYSPACE, index),
            other => {
                out.truncate(start);
                return Err(Error::InvalidArgument(format!("a change that the log cannot hold yet: {other:?}")));
            }
        }
    }
    Ok(())
}

/// The batch that `bytes` stand for.
///
/// # Errors
/// See [`DecodeError`]; never a panic, whatever the bytes.
pub fn decode(bytes: &[u8]) -> Result<ChangeBatch, DecodeError> {
    Decoder::default().decode(&Bytes::new(), bytes)
}

/// Decodes many batches, with little that is allocated for each.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    /// Of the batch before. Mostly they are those of the next one too.
    names: Vec<KeyspaceName>,
}

impl Decoder {
    /// As [`decode`]. Keys and values that are not short share the memory of `owner`, if `bytes` lie in there.
    pub(crate) fn decode(&mut self, owner: &Bytes, bytes: &[u8]) -> Result<ChangeBatch, DecodeError> {
        self.open(bytes)?.to_batch(owner)
    }

    /// Decodes what comes before the changes.
    pub(crate) fn open<'a>(&'a mut self, bytes: &'a [u8]) -> Result<Encoded<'a>, DecodeError> {
        let mut rest = Input(bytes);
        let first = rest.number()?;
        self.read_names(&mut rest)?;
        let count = rest.number()?;
        let last = first.checked_add(count.wrapping_sub(1)).filter(|&last| count > 0 && first > 0 && last <= MAX_SEQNO);
        let last = last.ok_or(DecodeError::Malformed("impossible sequence numbers"))?;
        Ok(Encoded { numbers: Numbers { first, last }, bytes, names: &self.names, rest })
    }

    fn read_names(&mut self, input: &mut Input<'_>) -> Result<(), DecodeError> {
        let mut count = 0;
        for _ in 0..input.number()? {
            let name = input.bytes()?;
            if self.names.get(count).is_none_or(|known| known.as_bytes() != name) {
                let name = std::str::from_utf8(name).map_err(|_| DecodeError::Malformed("a name is not UTF-8"))?;
                self.names.truncate(count);
                self.names.push(name.into());
            }
            count += 1;
        }
        self.names.truncate(count);
        Ok(())
    }
}

/// A batch whose changes are not decoded yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Encoded<'a> {
    pub(crate) numbers: Numbers,
    /// All of it.
    pub(crate) bytes: &'a [u8],
    names: &'a [KeyspaceName],
    rest: Input<'a>,
}

impl Encoded<'_> {
    /// Gives each change to `take`, in order; some of them also where the rest is malformed.
    pub(crate) fn lend(mut self, take: &mut dyn FnMut(LentChange<'_>)) -> Result<(), DecodeError> {
        for _ in self.numbers.first..=self.numbers.last {
            take(self.rest.change(self.names)?);
        }
        self.end()
    }

    /// See [`Decoder::decode`].
    pub(crate) fn to_batch(mut self, owner: &Bytes) -> Result<ChangeBatch, DecodeError> {
        let Numbers { first, last } = self.numbers;
        let own = |change: LentChange<'_>| match change {
            LentChange::Put { keyspace, key, value } => Change::Put {
                keyspace: keyspace.clone(),
                key: Slice::share(owner, key),
                value: Slice::share(owner, value),
            },
            LentChange::Delete { keyspace, key } => {
                Change::Delete { keyspace: keyspace.clone(), key: Slice::share(owner, key) }
            }
            LentChange::DropKeyspace { keyspace } => Change::DropKeyspace { keyspace: keyspace.clone() },
        };
        let batch = if first == last {
            ChangeBatch::single(first, own(self.rest.change(self.names)?))
        } else {
            let most = self.rest.0.len() / MIN_CHANGE_BYTES;
            let mut changes =
                Vec::with_capacity(usize::try_from(last - first).map_or(most, |count| most.min(count + 1)));
            for _ in first..=last {
                changes.push(own(self.rest.change(self.names)?));
            }
            ChangeBatch::new(first, changes)
        };
        self.end()?;
        batch.map_err(|_| DecodeError::Malformed("impossible sequence numbers"))
    }

    fn end(&self) -> Result<(), DecodeError> {
        if self.rest.0.is_empty() { Ok(()) } else { Err(DecodeError::Malformed("bytes behind the last change")) }
    }
}

/// The distinct keyspaces of a batch, in order of appearance: few, so a list does.
fn names(changes: &[Change]) -> Vec<&KeyspaceName> {
    let mut names: Vec<&KeyspaceName> = Vec::new();
    for change in changes {
        let name = change.keyspace();
        if names.last() != Some(&name) && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn begin(out: &mut Vec<u8>, kind: u8, index: usize) {
    out.push(kind);
    write_number(out, index as u64);
}

pub(crate) fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    write_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub(crate) fn write_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// What is left to decode.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> Result<u8, DecodeError> {
        let (&byte, rest) = self.0.split_first().ok_or(DecodeError::Malformed("cut off"))?;
        self.0 = rest;
        Ok(byte)
    }

    pub(crate) fn number(&mut self) -> Result<u64, DecodeError> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                break;
            }
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(DecodeError::Malformed("a number of more than 64 bits"))
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(DecodeError::Malformed("cut off"))?;
        self.0 = rest;
        Ok(bytes)
    }

    fn change(&mut self, names: &'a [KeyspaceName]) -> Result<LentChange<'a>, DecodeError> {
        let kind = self.byte()?;
        // Before the rest of it: only the kinds known here are known to begin with a name.
        if !matches!(kind, KIND_PUT | KIND_DELETE | KIND_DROP_KEYSPACE) {
            return Err(DecodeError::UnknownKind(kind));
        }
        let index = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        let keyspace = names.get(index).ok_or(DecodeError::Malformed("a keyspace without a name"))?;
        Ok(match kind {
            KIND_PUT => LentChange::Put { keyspace, key: self.bytes()?, value: self.bytes()? },
            KIND_DELETE => LentChange::Delete { keyspace, key: self.bytes()? },
            _ => LentChange::DropKeyspace { keyspace },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> ChangeBatch {
        let put = |name: &str, value: &[u8]| Change::Put {
            keyspace: name.into(),
            key: Slice::from(b"key"),
            value: Slice::copy_from_slice(value),
        };
        let delete = Change::Delete { keyspace: "größe".into(), key: Slice::from(b"") };
        let drop = Change::DropKeyspace { keyspace: "a".into() };
        ChangeBatch::new(300, vec![put("a", b""), put("größe", &[7; 200]), put("a", b"v"), delete, drop]).unwrap()
    }

    #[test]
    fn batches_round_trip() {
        let mut bytes = vec![1, 2, 3];
        encode(&batch(), &mut bytes).unwrap();
        assert_eq!(decode(&bytes[3..]).unwrap(), batch());
    }

    #[test]
    fn a_decoder_shares_what_it_is_given_and_knows_names_anew() {
        let mut encoded = Vec::new();
        encode(&batch(), &mut encoded).unwrap();
        let first_bytes = encoded.len();
        let other = Change::DropKeyspace { keyspace: "größe".into() };
        let other = ChangeBatch::single(400, other).unwrap();
        encode(&other, &mut encoded).unwrap();
        let (owner, mut decoder) = (Bytes::from(encoded), Decoder::default());
        let first = decoder.decode(&owner, &owner[..first_bytes]).unwrap();
        assert_eq!(first, batch());
        let Change::Put { value, .. } = &first.changes()[1] else { panic!("{first:?}") };
        assert!(owner.as_ptr_range().contains(&value.as_ptr()), "a value of 200 bytes is not copied");
        assert_eq!(decoder.decode(&owner, &owner[first_bytes..]).unwrap(), other);
        assert_eq!(decoder.decode(&owner, &owner[..first_bytes]).unwrap(), batch());
    }

    #[test]
    fn every_truncation_is_refused_and_every_flip_decodes_or_gives_a_reason() {
        let mut bytes = Vec::new();
        encode(&batch(), &mut bytes).unwrap();
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len]).is_err(), "{len} bytes");
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(decode(&flipped).ok(), Some(batch()), "bit {bit}");
        }
    }

    #[test]
    fn a_later_kind_says_so_and_a_huge_count_allocates_nothing() {
        assert_eq!(decode(&[1, 1, 1, b'k', 1, 2, 0, 0]), Err(DecodeError::UnknownKind(2)));
        let huge = [1, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
        assert_eq!(decode(&huge), Err(DecodeError::Malformed("cut off")));
    }
}
