//! One atomic change of the database's durable state.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::batch::KeyspaceId;
use crate::key::{MAX_KEY_BYTES, MAX_SEQNO, SeqNo};
use crate::options::KeyspaceOptions;
use crate::table::TableMeta;
use crate::varint::{read_bytes, write_bytes, write_varint};

use super::fields::{number, number_u32, numbers, present, read_fields, required, set_once, write_field, write_number};
use super::{LEVELS, keyspace_options};

/// Where replay of the log begins: the oldest segment that still matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogFloor {
    /// The segment's number.
    pub(crate) segment: u64,
    /// The last sequence number that was logged before it.
    pub(crate) prev_seqno: SeqNo,
}

/// One change of the durable state. What is absent stays as it is.
///
/// The parts apply in the order in which they are declared: keyspaces come into being before their tables change, and
/// go after that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Edit {
    /// Names the database; set once, at its creation.
    pub(crate) database_id: Option<u64>,
    /// New keyspaces, ids ascending.
    pub(crate) created: Vec<KeyspaceCreated>,
    /// Options that hold from now on.
    pub(crate) options_changed: Vec<(KeyspaceId, KeyspaceOptions)>,
    /// Changes of live keyspaces' trees.
    pub(crate) keyspaces: Vec<KeyspaceEdit>,
    /// Keyspaces that were dropped, each at a sequence number. Their names stay known until they are forgotten.
    pub(crate) dropped: Vec<(KeyspaceId, SeqNo)>,
    /// Dropped keyspaces that nothing refers to any more, the log included.
    pub(crate) forgotten: Vec<KeyspaceId>,
    /// The id that the next keyspace gets. Creating one raises it too.
    pub(crate) next_keyspace_id: Option<KeyspaceId>,
    /// The number that the next file gets. Adding a table raises it too.
    pub(crate) next_file_number: Option<u64>,
    /// The highest sequence number known to be used. Every other sequence number in an edit raises it too.
    pub(crate) last_seqno: Option<SeqNo>,
    /// Where replay of the log begins from now on.
    pub(crate) log_floor: Option<LogFloor>,
    /// Every logged record up to this number is known to be on storage.
    pub(crate) log_synced_seqno: Option<SeqNo>,
    /// The last number that an ingest took: the log holds nothing of it, so no follower may begin at or before it.
    pub(crate) ingested_seqno: Option<SeqNo>,
    /// All metadata, in the place of what was there.
    pub(crate) metadata: Option<BTreeMap<String, Vec<u8>>>,
}

/// A new keyspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyspaceCreated {
    /// Never used before.
    pub(crate) id: KeyspaceId,
    /// Not the name of a live keyspace.
    pub(crate) name: String,
    /// How its tree is shaped.
    pub(crate) options: KeyspaceOptions,
}

/// What changes in one keyspace's tree. Removals come before additions, so that a table can change its level.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeyspaceEdit {
    /// A live keyspace.
    pub(crate) id: KeyspaceId,
    /// Every write to the keyspace up to this number is in its tables.
    pub(crate) flushed_seqno: Option<SeqNo>,
    /// Level and number of tables that are gone.
    pub(crate) removed: Vec<(usize, u64)>,
    /// Level and description of new tables.
    pub(crate) added: Vec<(usize, TableMeta)>,
}

/// The numbers of the fields. They are on disk.
mod tag {
    use super::required;

    pub(super) const DATABASE_ID: u64 = required(1);
    pub(super) const NEXT_KEYSPACE_ID: u64 = required(2);
    pub(super) const NEXT_FILE_NUMBER: u64 = required(3);
    pub(super) const LAST_SEQNO: u64 = required(4);
    pub(super) const LOG_FLOOR: u64 = required(5);
    pub(super) const LOG_SYNCED_SEQNO: u64 = required(6);
    pub(super) const CREATED: u64 = required(7);
    pub(super) const OPTIONS_CHANGED: u64 = required(8);
    pub(super) const DROPPED: u64 = required(9);
    pub(super) const FORGOTTEN: u64 = required(10);
    pub(super) const KEYSPACE: u64 = required(11);
    pub(super) const METADATA: u64 = required(12);
    pub(super) const INGESTED_SEQNO: u64 = required(13);

    /// Fields of a keyspace's description and changes.
    pub(super) const ID: u64 = required(1);
    pub(super) const NAME: u64 = required(2);
    pub(super) const OPTIONS: u64 = required(3);
    pub(super) const FLUSHED_SEQNO: u64 = required(4);
    pub(super) const REMOVED: u64 = required(5);
    pub(super) const ADDED: u64 = required(6);

    /// Fields of a table. The counts are one field of six numbers, the last relative to the fifth.
    pub(super) const COUNTS: u64 = required(1);
    pub(super) const SMALLEST: u64 = required(2);
    pub(super) const LARGEST: u64 = required(3);
    pub(super) const LEVEL: u64 = required(4);
    pub(super) const NUMBER: u64 = required(5);
}

impl Edit {
    /// Whether it changes nothing.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        *self == Edit::default()
    }

    /// The encoding; empty for an empty edit.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let singles = [
            (tag::DATABASE_ID, self.database_id),
            (tag::NEXT_KEYSPACE_ID, self.next_keyspace_id.map(u64::from)),
            (tag::NEXT_FILE_NUMBER, self.next_file_number),
            (tag::LAST_SEQNO, self.last_seqno),
            (tag::LOG_SYNCED_SEQNO, self.log_synced_seqno),
            (tag::INGESTED_SEQNO, self.ingested_seqno),
        ];
        for (tag, value) in singles {
            if let Some(value) = value {
                write_number(&mut out, tag, value);
            }
        }
        if let Some(floor) = self.log_floor {
            write_field(&mut out, tag::LOG_FLOOR, &varints(&[floor.segment, floor.prev_seqno]));
        }
        if let Some(metadata) = &self.metadata {
            write_field(&mut out, tag::METADATA, &encode_metadata(metadata));
        }
        for created in &self.created {
            let mut content = options_of(created.id, &created.options);
            write_field(&mut content, tag::NAME, created.name.as_bytes());
            write_field(&mut out, tag::CREATED, &content);
        }
        for (id, options) in &self.options_changed {
            write_field(&mut out, tag::OPTIONS_CHANGED, &options_of(*id, options));
        }
        for &(id, seqno) in &self.dropped {
            write_field(&mut out, tag::DROPPED, &varints(&[id.into(), seqno]));
        }
        for &id in &self.forgotten {
            write_number(&mut out, tag::FORGOTTEN, id.into());
        }
        for keyspace in &self.keyspaces {
            write_field(&mut out, tag::KEYSPACE, &keyspace.encode());
        }
        out
    }

    /// Reads what [`encode`](Edit::encode) wrote. Nothing is allocated that is not in `input`.
    ///
    /// # Errors
    /// The reason, if `input` is anything else.
    pub(crate) fn decode(input: &[u8]) -> Result<Edit, String> {
        let mut edit = Edit::default();
        read_fields(input, |tag, content| {
            match tag {
                tag::DATABASE_ID => return set_once(&mut edit.database_id, number(content)?),
                tag::NEXT_KEYSPACE_ID => return set_once(&mut edit.next_keyspace_id, number_u32(content)?),
                tag::NEXT_FILE_NUMBER => return set_once(&mut edit.next_file_number, number(content)?),
                tag::LAST_SEQNO => return set_once(&mut edit.last_seqno, seqno(number(content)?)?),
                tag::LOG_SYNCED_SEQNO => return set_once(&mut edit.log_synced_seqno, seqno(number(content)?)?),
                tag::INGESTED_SEQNO => return set_once(&mut edit.ingested_seqno, seqno(number(content)?)?),
                tag::LOG_FLOOR => {
                    let [segment, prev_seqno] = numbers(content)?;
                    return set_once(&mut edit.log_floor, LogFloor { segment, prev_seqno: seqno(prev_seqno)? });
                }
                tag::METADATA => return set_once(&mut edit.metadata, decode_metadata(content)?),
                tag::CREATED => edit.created.push(KeyspaceCreated::decode(content)?),
                tag::OPTIONS_CHANGED => {
                    let (id, _, options) = decode_options(content)?;
                    edit.options_changed.push((id, options));
                }
                tag::DROPPED => {
                    let [id, at] = numbers(content)?;
                    edit.dropped.push((keyspace_id(id)?, seqno(at)?));
                }
                tag::FORGOTTEN => edit.forgotten.push(number_u32(content)?),
                tag::KEYSPACE => edit.keyspaces.push(KeyspaceEdit::decode(content)?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(edit)
    }
}

fn encode_metadata(metadata: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let mut content = Vec::new();
    for (name, value) in metadata {
        write_bytes(&mut content, name.as_bytes());
        write_bytes(&mut content, value);
    }
    content
}

fn decode_metadata(mut input: &[u8]) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let mut metadata = BTreeMap::new();
    while !input.is_empty() {
        let pair = read_bytes(&mut input).zip(read_bytes(&mut input));
        let (name, value) = pair.ok_or("metadata that is cut off")?;
        let name = std::str::from_utf8(name).map_err(|_| "a metadata name that is not UTF-8")?;
        metadata.insert(name.to_owned(), value.to_vec());
    }
    Ok(metadata)
}

impl KeyspaceCreated {
    fn decode(input: &[u8]) -> Result<Self, String> {
        let (id, name, options) = decode_options(input)?;
        Ok(KeyspaceCreated { id, name: present(name, "a keyspace's name")?, options })
    }
}

fn options_of(id: KeyspaceId, options: &KeyspaceOptions) -> Vec<u8> {
    let mut content = Vec::new();
    write_number(&mut content, tag::ID, id.into());
    let mut encoded = Vec::new();
    keyspace_options::encode(options, &mut encoded);
    write_field(&mut content, tag::OPTIONS, &encoded);
    content
}

fn decode_options(input: &[u8]) -> Result<(KeyspaceId, Option<String>, KeyspaceOptions), String> {
    let (mut id, mut name, mut options) = (None, None, None);
    read_fields(input, |tag, content| match tag {
        tag::ID => set_once(&mut id, number_u32(content)?),
        tag::NAME => {
            let text = std::str::from_utf8(content).map_err(|_| "a keyspace's name is not UTF-8")?;
            set_once(&mut name, text.to_owned())
        }
        tag::OPTIONS => set_once(&mut options, keyspace_options::decode(content)?),
        _ => Ok(false),
    })?;
    Ok((present(id, "a keyspace's id")?, name, present(options, "a keyspace's options")?))
}

impl KeyspaceEdit {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        write_number(&mut out, tag::ID, self.id.into());
        if let Some(seqno) = self.flushed_seqno {
            write_number(&mut out, tag::FLUSHED_SEQNO, seqno);
        }
        for &(level, number) in &self.removed {
            write_field(&mut out, tag::REMOVED, &varints(&[level as u64, number]));
        }
        for (level, meta) in &self.added {
            write_field(&mut out, tag::ADDED, &encode_table(*level, meta));
        }
        out
    }

    fn decode(input: &[u8]) -> Result<Self, String> {
        let mut id = None;
        let mut edit = KeyspaceEdit::default();
        read_fields(input, |tag, content| {
            match tag {
                tag::ID => return set_once(&mut id, number_u32(content)?),
                tag::FLUSHED_SEQNO => return set_once(&mut edit.flushed_seqno, seqno(number(content)?)?),
                tag::REMOVED => {
                    let [at, number] = numbers(content)?;
                    edit.removed.push((level(at)?, number));
                }
                tag::ADDED => edit.added.push(decode_table(content)?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        edit.id = present(id, "a keyspace's id")?;
        Ok(edit)
    }
}

fn encode_table(level: usize, meta: &TableMeta) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + meta.smallest.len() + meta.largest.len());
    write_number(&mut out, tag::LEVEL, level as u64);
    write_number(&mut out, tag::NUMBER, meta.number);
    let counts = [
        meta.file_bytes,
        meta.user_bytes,
        meta.entries,
        meta.tombstones,
        meta.min_seqno,
        meta.max_seqno - meta.min_seqno,
    ];
    write_field(&mut out, tag::COUNTS, &varints(&counts));
    write_field(&mut out, tag::SMALLEST, &meta.smallest);
    write_field(&mut out, tag::LARGEST, &meta.largest);
    out
}

fn decode_table(input: &[u8]) -> Result<(usize, TableMeta), String> {
    let (mut at, mut table, mut counts, mut smallest, mut largest) = (None, None, None, None, None);
    read_fields(input, |tag, content| match tag {
        tag::LEVEL => set_once(&mut at, level(number(content)?)?),
        tag::NUMBER => set_once(&mut table, number(content)?),
        tag::COUNTS => set_once(&mut counts, numbers::<6>(content)?),
        tag::SMALLEST => set_once(&mut smallest, key(content)?),
        tag::LARGEST => set_once(&mut largest, key(content)?),
        _ => Ok(false),
    })?;
    let number = present(table, "a table's number")?;
    let [file_bytes, user_bytes, entries, tombstones, min_seqno, span] = present(counts, "a table's counts")?;
    let smallest = present(smallest, "a table's smallest key")?;
    let largest = present(largest, "a table's largest key")?;
    let max_seqno = min_seqno.checked_add(span).ok_or("a table's sequence numbers overflow")?;
    let meta = TableMeta {
        number,
        file_bytes,
        user_bytes,
        entries,
        tombstones,
        smallest,
        largest,
        min_seqno,
        max_seqno: seqno(max_seqno)?,
    };
    check_table(&meta)?;
    Ok((present(at, "a table's level")?, meta))
}

/// Whether a table can be as `meta` says.
///
/// # Errors
/// The reason why not.
pub(super) fn check_table(meta: &TableMeta) -> Result<(), String> {
    let number = meta.number;
    if meta.smallest > meta.largest {
        return Err(format!("table {number} has its smallest key after its largest"));
    }
    if meta.tombstones > meta.entries || meta.entries == 0 {
        return Err(format!("table {number} has {} tombstones in {} entries", meta.tombstones, meta.entries));
    }
    if meta.min_seqno > meta.max_seqno || meta.max_seqno > MAX_SEQNO {
        return Err(format!("table {number} has sequence numbers {}..={}", meta.min_seqno, meta.max_seqno));
    }
    Ok(())
}

fn varints(values: &[u64]) -> Vec<u8> {
    let mut out = Vec::with_capacity(values.len() * 5);
    for &value in values {
        write_varint(&mut out, value);
    }
    out
}

fn keyspace_id(n: u64) -> Result<KeyspaceId, String> {
    KeyspaceId::try_from(n).map_err(|_| format!("keyspace id {n} does not fit 32 bits"))
}

fn level(n: u64) -> Result<usize, String> {
    usize::try_from(n).ok().filter(|level| *level < LEVELS).ok_or_else(|| format!("level {n} is out of range"))
}

fn seqno(n: u64) -> Result<SeqNo, String> {
    if n <= MAX_SEQNO { Ok(n) } else { Err(format!("sequence number {n} is out of range")) }
}

fn key(content: &[u8]) -> Result<Bytes, String> {
    if content.len() > MAX_KEY_BYTES {
        return Err(format!("a key of {} bytes", content.len()));
    }
    Ok(Bytes::copy_from_slice(content))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::version::testing::table;

    fn full() -> Edit {
        let created = KeyspaceCreated { id: 3, name: "orders".into(), options: KeyspaceOptions::new().level_ratio(8) };
        let keyspace = KeyspaceEdit {
            id: 3,
            flushed_seqno: Some(900),
            removed: vec![(0, 11), (6, 12)],
            added: vec![(0, table(20, b"", b"\xff\xff", 800, 900)), (6, table(21, b"a", b"a", 1, MAX_SEQNO))],
        };
        Edit {
            database_id: Some(u64::MAX),
            created: vec![created],
            options_changed: vec![(3, KeyspaceOptions::new())],
            keyspaces: vec![keyspace, KeyspaceEdit { id: 9, ..Default::default() }],
            dropped: vec![(4, 700), (5, 0)],
            forgotten: vec![1, 2],
            next_keyspace_id: Some(4),
            next_file_number: Some(22),
            last_seqno: Some(MAX_SEQNO),
            log_floor: Some(LogFloor { segment: 7, prev_seqno: 650 }),
            log_synced_seqno: Some(0),
            ingested_seqno: Some(899),
            metadata: Some(BTreeMap::from([("".to_owned(), vec![1]), ("position".to_owned(), vec![])])),
        }
    }

    #[test]
    fn every_part_round_trips() {
        assert_eq!(Edit::decode(&full().encode()), Ok(full()));
        assert!(Edit::default().is_empty() && !full().is_empty());
        assert_eq!(Edit::default().encode(), b"");
        assert_eq!(Edit::decode(b""), Ok(Edit::default()));
    }

    #[test]
    fn truncations_lose_whole_fields_or_are_refused() {
        let bytes = full().encode();
        for len in 0..bytes.len() {
            if let Ok(edit) = Edit::decode(&bytes[..len]) {
                assert_eq!(edit.encode().len(), len, "a cut at {len} must fall between fields");
            }
        }
    }

    #[test]
    fn no_changed_byte_is_taken_as_the_same_edit() {
        let bytes = full().encode();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                assert_ne!(Edit::decode(&damaged), Ok(full()), "byte {at}, bit {bit}");
            }
        }
    }

    #[test]
    fn declared_lengths_are_checked_before_use() {
        for content in
            [&[0xff; 9][..], &[tag::CREATED as u8, 0xff, 0xff, 0xff, 0xff, 0x0f], &[tag::KEYSPACE as u8, 4, 1]]
        {
            assert!(Edit::decode(content).is_err());
        }
    }

    #[test]
    fn impossible_tables_are_refused() {
        let refused = |change: fn(&mut TableMeta)| {
            let mut meta = table(1, b"a", b"b", 1, 2);
            change(&mut meta);
            decode_table(&encode_table(0, &meta)).is_err()
        };
        assert!(!refused(|_| ()));
        assert!(refused(|meta| meta.smallest = Bytes::from_static(b"c")));
        assert!(refused(|meta| meta.tombstones = meta.entries + 1));
        assert!(refused(|meta| (meta.entries, meta.tombstones) = (0, 0)));
        assert!(refused(|meta| meta.max_seqno = MAX_SEQNO + 1));
        assert!(refused(|meta| meta.largest = Bytes::from(vec![b'z'; MAX_KEY_BYTES + 1])));
        assert!(decode_table(&encode_table(LEVELS, &table(1, b"a", b"b", 1, 2))).is_err());
    }

    #[test]
    fn tables_at_the_bounds_are_possible() {
        let allowed = |change: fn(&mut TableMeta)| {
            let mut meta = table(1, b"a", b"b", 1, 2);
            change(&mut meta);
            check_table(&meta)?;
            decode_table(&encode_table(LEVELS - 1, &meta)).map(|decoded| assert_eq!(decoded, (LEVELS - 1, meta)))
        };
        assert_eq!(allowed(|meta| meta.tombstones = meta.entries), Ok(()));
        assert_eq!(allowed(|meta| meta.largest = meta.smallest.clone()), Ok(()));
        assert_eq!(allowed(|meta| meta.largest = Bytes::from(vec![b'z'; MAX_KEY_BYTES])), Ok(()));
        assert_eq!(allowed(|meta| (meta.min_seqno, meta.max_seqno) = (MAX_SEQNO, MAX_SEQNO)), Ok(()));
        let check =
            |min_seqno, max_seqno| check_table(&TableMeta { min_seqno, max_seqno, ..table(1, b"a", b"b", 1, 2) });
        assert!(check(3, 2).is_err() && check(0, MAX_SEQNO + 1).is_err());
    }
}
