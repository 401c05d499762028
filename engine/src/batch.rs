//! [`WriteBatch`] and its encoding, which is also the payload of a WAL record.
//!
//! Encoding, operation after operation (varints are LEB128, see `docs/format.md`): `kind: u8 | keyspace id: varint |
//! key length: varint | key | value length: varint | value`; a delete has no value part; a keyspace drop has neither
//! key nor value. A metadata entry is `17 | name length | name | 0` (removed) or `17 | name length | name | 1 | value
//! length | value`; it has no sequence number. The other operations are numbered `first`, `first + 1`, and so on.

use crate::error::{Error, Result};
use crate::key::{MAX_KEY_BYTES, MAX_VALUE_BYTES};
use crate::varint::{read_varint, write_bytes, write_varint};

/// The number of a keyspace; never reused within a database.
pub(crate) type KeyspaceId = u32;

/// The largest batch, in encoded bytes: a value of the largest size and its key fit, and a log record's length stays in
/// 32 bits.
pub(crate) const MAX_BATCH_BYTES: usize = 2 * MAX_VALUE_BYTES - 1;

/// Operation kinds in the encoding. 2 to 5 are reserved as in [`crate::key::ValueKind`].
const OP_DELETE: u8 = 0;
const OP_PUT: u8 = 1;
const OP_DROP_KEYSPACE: u8 = 16;
const OP_METADATA: u8 = 17;

/// The longest name of a metadata entry, in bytes.
pub(crate) const MAX_METADATA_NAME_BYTES: usize = 255;

/// The longest metadata value, in bytes.
pub(crate) const MAX_METADATA_VALUE_BYTES: usize = 4096;

/// Writes to any keyspaces of one database that become visible and durable together.
///
/// Operations apply in order: the last one on a key wins. Building a batch never fails; what is not allowed (a key over
/// 65,535 bytes, a value over 1 GiB, handles of two databases, 2 GiB in total) is remembered and answered by
/// [`Db::write`](crate::Db::write), which then writes nothing.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = siltstone::Db::open(dir.path())?;
/// # let accounts = db.keyspace("accounts", Default::default())?;
/// # let audit = db.keyspace("audit", Default::default())?;
/// let mut batch = siltstone::WriteBatch::new();
/// batch.put(&accounts, "alice", "90").put(&accounts, "bob", "110").put(&audit, "0001", "alice -> bob: 10");
/// assert_eq!(batch.len(), 3);
/// db.write(batch)?; // all three, or none
/// # Ok::<(), siltstone::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct WriteBatch {
    pub(crate) encoded: Vec<u8>,
    pub(crate) count: u32,
    /// The database all handles so far belong to (0: none yet).
    pub(crate) database: u64,
    refused: Option<String>,
}

impl WriteBatch {
    /// An empty batch.
    pub fn new() -> Self {
        WriteBatch::default()
    }

    /// How many operations were added; metadata does not count.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.encoded.is_empty()
    }

    /// How many bytes the batch takes in the log.
    pub fn encoded_bytes(&self) -> usize {
        self.encoded.len()
    }

    /// Empties the batch and keeps its memory for reuse.
    pub fn clear(&mut self) {
        self.encoded.clear();
        self.count = 0;
        self.database = 0;
        self.refused = None;
    }

    #[inline]
    pub(crate) fn put_in(&mut self, database: u64, id: KeyspaceId, key: &[u8], value: &[u8]) {
        if !self.admit(database, key.len(), value.len()) {
            return;
        }
        encode_put(&mut self.encoded, id, key, value);
        self.count += 1;
    }

    #[inline]
    pub(crate) fn delete_in(&mut self, database: u64, id: KeyspaceId, key: &[u8]) {
        if !self.admit(database, key.len(), 0) {
            return;
        }
        encode_delete(&mut self.encoded, id, key);
        self.count += 1;
    }

    /// Adds a change of the database's metadata: small named values that are kept beside the keyspaces and written in
    /// the same batch as the data they speak of, such as the position up to which some input was consumed. `None`
    /// removes the entry. It takes no sequence number, is not part of [`Db::changes`](crate::Db::changes) and is read
    /// with [`Db::metadata`](crate::Db::metadata). Name: 1 to 255 bytes; value: at most 4,096 bytes.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = siltstone::Db::open(dir.path())?;
    /// # let counts = db.keyspace("counts", Default::default())?;
    /// let mut batch = siltstone::WriteBatch::new();
    /// batch.put(&counts, "silt", "1").metadata("input position", Some("4711"));
    /// db.write(batch)?; // data and position cannot disagree, whenever the machine stops
    /// assert_eq!(db.metadata("input position").unwrap(), "4711");
    /// # Ok::<(), siltstone::Error>(())
    /// ```
    pub fn metadata<V: AsRef<[u8]>>(&mut self, name: &str, value: Option<V>) -> &mut Self {
        let value = value.as_ref().map(AsRef::as_ref);
        let value_bytes = value.map_or(0, <[u8]>::len);
        let allowed = (1..=MAX_METADATA_NAME_BYTES).contains(&name.len()) && !name.contains(char::is_control);
        if !allowed || value_bytes > MAX_METADATA_VALUE_BYTES {
            self.refused.get_or_insert_with(|| {
                format!(
                    "a metadata name has 1 to {MAX_METADATA_NAME_BYTES} bytes and no control character, its value at most \
                     {MAX_METADATA_VALUE_BYTES} bytes, unlike {name:?} with {value_bytes}"
                )
            });
            return self;
        }
        self.metadata_in(name, value);
        self
    }

    /// Adds a change of metadata, without the checks on what users may name their entries.
    pub(crate) fn metadata_in(&mut self, name: &str, value: Option<&[u8]>) {
        self.encoded.push(OP_METADATA);
        write_bytes(&mut self.encoded, name.as_bytes());
        self.encoded.push(u8::from(value.is_some()));
        if let Some(value) = value {
            write_bytes(&mut self.encoded, value);
        }
    }

    pub(crate) fn drop_keyspace(&mut self, id: KeyspaceId) {
        self.encoded.push(OP_DROP_KEYSPACE);
        write_varint(&mut self.encoded, id.into());
        self.count += 1;
    }

    /// The first thing that was not allowed, if any.
    pub(crate) fn check(&self) -> Result<()> {
        match &self.refused {
            Some(reason) => Err(Error::InvalidArgument(reason.clone())),
            None => Ok(()),
        }
    }

    #[inline]
    fn admit(&mut self, database: u64, key_bytes: usize, value_bytes: usize) -> bool {
        let foreign = self.database != database && self.database != 0;
        let total_bytes = self.encoded.len().saturating_add(key_bytes).saturating_add(value_bytes);
        self.database = database;
        if foreign || key_bytes > MAX_KEY_BYTES || value_bytes > MAX_VALUE_BYTES || total_bytes > MAX_BATCH_BYTES - 32 {
            self.refuse(foreign, key_bytes, value_bytes);
            return false;
        }
        self.refused.is_none()
    }

    #[cold]
    fn refuse(&mut self, foreign: bool, key_bytes: usize, value_bytes: usize) {
        let reason = if foreign {
            "a batch may hold keyspaces of one database only".to_owned()
        } else {
            match check_lengths(key_bytes, value_bytes) {
                Err(Error::InvalidArgument(reason)) => reason,
                _ => format!("a batch may hold at most {MAX_BATCH_BYTES} bytes"),
            }
        };
        self.refused.get_or_insert(reason);
    }
}

/// Checks a key's and a value's length against what is allowed.
///
/// # Errors
/// `InvalidArgument` that names the limit.
pub(crate) fn check_lengths(key_bytes: usize, value_bytes: usize) -> Result<()> {
    if key_bytes > MAX_KEY_BYTES {
        return Err(Error::InvalidArgument(format!("a key may have at most {MAX_KEY_BYTES} bytes, not {key_bytes}")));
    }
    if value_bytes > MAX_VALUE_BYTES {
        return Err(Error::InvalidArgument(format!(
            "a value may have at most {MAX_VALUE_BYTES} bytes, not {value_bytes}"
        )));
    }
    Ok(())
}

#[inline]
pub(crate) fn encode_put(out: &mut Vec<u8>, id: KeyspaceId, key: &[u8], value: &[u8]) {
    out.reserve(key.len() + value.len() + 16);
    out.push(OP_PUT);
    write_varint(out, id.into());
    write_varint(out, key.len() as u64);
    out.extend_from_slice(key);
    write_varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

#[inline]
pub(crate) fn encode_delete(out: &mut Vec<u8>, id: KeyspaceId, key: &[u8]) {
    out.reserve(key.len() + 16);
    out.push(OP_DELETE);
    write_varint(out, id.into());
    write_varint(out, key.len() as u64);
    out.extend_from_slice(key);
}

/// One decoded operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op<'a> {
    Put { keyspace: KeyspaceId, key: &'a [u8], value: &'a [u8] },
    Delete { keyspace: KeyspaceId, key: &'a [u8] },
    DropKeyspace { keyspace: KeyspaceId },
    Metadata { name: &'a str, value: Option<&'a [u8]> },
}

/// Decodes a batch's operations; every length is checked, so that any bytes give operations or one reason, never a
/// panic.
#[derive(Clone, Debug)]
pub(crate) struct Ops<'a> {
    rest: &'a [u8],
}

impl<'a> Ops<'a> {
    pub(crate) fn new(encoded: &'a [u8]) -> Self {
        Ops { rest: encoded }
    }

    /// How many encoded bytes are left.
    #[inline]
    pub(crate) fn remaining_bytes(&self) -> usize {
        self.rest.len()
    }

    #[inline]
    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(read_varint(&mut self.rest)?).ok()?;
        let (bytes, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(bytes)
    }

    #[inline]
    fn op(&mut self) -> Option<Op<'a>> {
        let (&kind, rest) = self.rest.split_first()?;
        self.rest = rest;
        if kind == OP_METADATA {
            return self.metadata();
        }
        let keyspace = KeyspaceId::try_from(read_varint(&mut self.rest)?).ok()?;
        match kind {
            OP_PUT => Some(Op::Put { keyspace, key: self.key()?, value: self.bytes()? }),
            OP_DELETE => Some(Op::Delete { keyspace, key: self.key()? }),
            OP_DROP_KEYSPACE => Some(Op::DropKeyspace { keyspace }),
            _ => None,
        }
    }

    fn metadata(&mut self) -> Option<Op<'a>> {
        let name = std::str::from_utf8(self.bytes()?).ok()?;
        let (&present, rest) = self.rest.split_first()?;
        self.rest = rest;
        let value = match present {
            0 => None,
            1 => Some(self.bytes()?),
            _ => return None,
        };
        Some(Op::Metadata { name, value })
    }

    #[inline]
    fn key(&mut self) -> Option<&'a [u8]> {
        self.bytes().filter(|key| key.len() <= MAX_KEY_BYTES)
    }
}

impl<'a> Iterator for Ops<'a> {
    type Item = Result<Op<'a>, &'static str>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let op = self.op().ok_or("an operation that cannot be decoded");
        if op.is_err() {
            self.rest = &[];
        }
        Some(op)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::MAX_KEY_BYTES;

    #[test]
    fn operations_round_trip() {
        let mut batch = WriteBatch::new();
        let long = vec![7; MAX_KEY_BYTES];
        batch.put_in(1, 3, b"", b"v");
        batch.put_in(1, 300, &long, b"");
        batch.delete_in(1, 70_000, b"k");
        batch.drop_keyspace(9);
        batch.metadata("position", Some("12")).metadata("gone", None::<&str>);
        assert_eq!(batch.len(), 4, "metadata takes no number");
        assert!(batch.check().is_ok());
        let ops: Vec<_> = Ops::new(&batch.encoded).map(Result::unwrap).collect();
        assert_eq!(
            ops,
            [
                Op::Put { keyspace: 3, key: b"", value: b"v" },
                Op::Put { keyspace: 300, key: &long, value: b"" },
                Op::Delete { keyspace: 70_000, key: b"k" },
                Op::DropKeyspace { keyspace: 9 },
                Op::Metadata { name: "position", value: Some(b"12") },
                Op::Metadata { name: "gone", value: None },
            ]
        );
    }

    #[test]
    fn what_is_not_allowed_is_remembered_and_adds_nothing() {
        let mut batch = WriteBatch::new();
        batch.put_in(1, 1, &vec![0; MAX_KEY_BYTES + 1], b"");
        batch.put_in(1, 1, b"k", b"v");
        assert!(matches!(batch.check(), Err(Error::InvalidArgument(reason)) if reason.contains("65535")));
        batch.clear();
        assert!(batch.check().is_ok());
        batch.put_in(1, 1, b"k", b"v");
        batch.put_in(2, 1, b"k", b"v");
        assert!(matches!(batch.check(), Err(Error::InvalidArgument(reason)) if reason.contains("one database")));
    }

    #[test]
    fn every_truncation_and_flip_decodes_or_gives_a_reason() {
        let mut batch = WriteBatch::new();
        batch.put_in(1, 3, b"key", b"value");
        batch.delete_in(1, 4, b"key");
        batch.metadata("position", Some("12"));
        for len in 0..batch.encoded.len() {
            Ops::new(&batch.encoded[..len]).for_each(drop);
        }
        for at in 0..batch.encoded.len() {
            for bit in 0..8 {
                let mut flipped = batch.encoded.clone();
                flipped[at] ^= 1 << bit;
                Ops::new(&flipped).for_each(drop);
            }
        }
    }
}
