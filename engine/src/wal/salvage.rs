//! What a damaged log still holds: every record that checks out, before and behind what does not.
//!
//! Behind damage the next record is found by its header, whose checksum is seeded with database and segment, so that
//! neither a value nor what a recycled file held before passes for one. What is missing shows in the chain: each header
//! says which record it follows.

use std::path::{Path, PathBuf};

use super::format::{self, HEADER_BYTES, RECORD_ALIGN, SegmentHeader};
use super::segment::SegmentReader;
use crate::damage::Damage;
use crate::error::{Error, Result};
use crate::fs::FileSystem;
use crate::key::SeqNo;

/// Is called with a record's first sequence number, count of writes and payload; answers why it is no record.
pub(crate) type EachRecord<'a> = dyn FnMut(SeqNo, u32, &[u8]) -> Result<std::result::Result<(), String>> + 'a;

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Salvaged {
    /// The segments, in order.
    pub(crate) segments: Vec<SalvagedSegment>,
    /// Numbers of logged writes that are missing: the first and the last of each hole.
    pub(crate) holes: Vec<(SeqNo, SeqNo)>,
    /// Writes that were never logged took numbers between those of the records.
    pub(crate) has_gaps: bool,
    /// The last number that the log is known to have given; 0 if it gave none.
    pub(crate) last_seqno: SeqNo,
    /// A number above that of every segment.
    pub(crate) next_segment: u64,
}

/// One file.
#[derive(Debug)]
pub(crate) struct SalvagedSegment {
    /// Its path.
    pub(crate) path: PathBuf,
    /// Records that check out.
    pub(crate) records: u64,
    /// Bytes of these.
    pub(crate) bytes: u64,
    /// What does not.
    pub(crate) damage: Vec<Damage>,
}

/// A segment file, by what it says it is.
struct Found {
    number: u64,
    path: PathBuf,
    damage: Option<Damage>,
}

/// The database that the log in `dir` belongs to, by the first intact segment header.
///
/// # Errors
/// `Io`.
pub(crate) fn database_id(fs: &dyn FileSystem, dir: &Path) -> Result<Option<u64>> {
    for (number, path) in list(fs, dir)? {
        let mut reader = SegmentReader::open(fs, &path, number, 0)?;
        let file_bytes = reader.file_bytes()?;
        if let Some((_, id)) = raw_header(&mut reader, file_bytes)? {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

fn list(fs: &dyn FileSystem, dir: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let entries = fs.read_dir(dir).map_err(Error::io("list directory", dir))?;
    let numbers = entries.iter().filter_map(|entry| format::segment_number(&entry.name));
    let mut found: Vec<_> = numbers.map(|number| (number, format::segment_path(dir, number))).collect();
    found.sort_unstable();
    Ok(found)
}

/// Reads every segment in `dir` from number `floor` on. `synced_seqno`: every record up to it was synced, as the
/// manifest says. `prev_seqno`: the last number logged before the floor, if it is known.
///
/// # Errors
/// `UnsupportedVersion`; `Io`; the first error of `each`.
pub(crate) fn salvage(
    fs: &dyn FileSystem,
    dir: &Path,
    database_id: u64,
    floor: u64,
    prev_seqno: Option<SeqNo>,
    synced_seqno: SeqNo,
    each: &mut EachRecord<'_>,
) -> Result<Salvaged> {
    let mut run = Run { salvaged: Salvaged::default(), floor: prev_seqno, last: None, synced_seqno };
    let mut segments = Vec::new();
    for (number, path) in list(fs, dir)? {
        run.salvaged.next_segment = run.salvaged.next_segment.max(number.saturating_add(1));
        segments.push(identify(fs, database_id, number, path)?);
    }
    segments.sort_by_key(|found| found.number);
    for found in segments.into_iter().filter(|found| found.number >= floor) {
        run.salvaged.next_segment = run.salvaged.next_segment.max(found.number.saturating_add(1));
        let segment = run.segment(fs, database_id, found, each)?;
        run.salvaged.segments.push(segment);
    }
    Ok(run.finish())
}

/// Which segment a file is: as its header says, if that is intact and of this database, else as it is named.
fn identify(fs: &dyn FileSystem, database_id: u64, named: u64, path: PathBuf) -> Result<Found> {
    let mut reader = SegmentReader::open(fs, &path, named, database_id)?;
    let file_bytes = reader.file_bytes()?;
    Ok(match raw_header(&mut reader, file_bytes)? {
        Some((number, id)) if id == database_id && number != named => {
            let damage = Damage::new(16, 0, format!("it is segment {number} under another name"));
            Found { number, path, damage: Some(damage) }
        }
        Some((_, id)) if id == database_id => Found { number: named, path, damage: None },
        Some(_) => {
            let damage = Damage::new(24, file_bytes, "the segment belongs to another database");
            Found { number: named, path, damage: Some(damage) }
        }
        None => {
            let damage = Damage::new(0, file_bytes.min(HEADER_BYTES), "no intact segment header");
            Found { number: named, path, damage: Some(damage) }
        }
    })
}

struct Run {
    salvaged: Salvaged,
    /// The last number logged before the first segment, if it is known.
    floor: Option<SeqNo>,
    /// The last number of the last record.
    last: Option<SeqNo>,
    /// The most that the manifest and all headers prove.
    synced_seqno: SeqNo,
}

impl Run {
    fn segment(
        &mut self,
        fs: &dyn FileSystem,
        database_id: u64,
        found: Found,
        each: &mut EachRecord<'_>,
    ) -> Result<SalvagedSegment> {
        let mut segment =
            SalvagedSegment { path: found.path.clone(), records: 0, bytes: 0, damage: Vec::from_iter(found.damage) };
        let mut reader = SegmentReader::open(fs, &found.path, found.number, database_id)?;
        let limit = reader.file_bytes()?;
        if let Ok(Ok(header)) = reader.header(limit) {
            self.follow(header.prev_seqno, None);
        }
        let mut offset = HEADER_BYTES;
        // Where the records stop being readable, until one is found behind it: or else it is the end.
        let mut lost: Option<(u64, &'static str)> = None;
        while offset < limit {
            let reason = match reader.record(offset, limit)? {
                Ok(record) if self.last.is_some_and(|last| record.header.first_seqno <= last) => {
                    "the record repeats numbers that are taken"
                }
                Ok(record) => {
                    if let Some((from, reason)) = lost.take() {
                        segment.damage.push(Damage::new(from, offset - from, reason));
                    }
                    let header = &record.header;
                    match each(header.first_seqno, header.count, &record.payload)? {
                        Ok(()) => {
                            segment.records += 1;
                            segment.bytes += header.record_bytes();
                        }
                        Err(reason) => segment.damage.push(Damage::new(offset, header.record_bytes(), reason)),
                    }
                    self.follow(header.prev_seqno, Some(header.first_seqno));
                    self.last = Some(header.last_seqno());
                    self.synced_seqno = self.synced_seqno.max(header.synced_seqno);
                    offset += header.record_bytes();
                    continue;
                }
                Err(reason) => reason,
            };
            let (from, reason) = *lost.get_or_insert((offset, reason));
            // A header that is intact says how long its record is and which numbers are lost with it.
            match reader.record_header(offset, limit)? {
                Some(header) => {
                    let bytes = header.record_bytes().min(limit - offset);
                    segment.damage.push(Damage::new(from, offset + bytes - from, reason));
                    lost = None;
                    self.synced_seqno = self.synced_seqno.max(header.synced_seqno);
                    self.salvaged.last_seqno = self.salvaged.last_seqno.max(header.last_seqno());
                    offset += header.record_bytes();
                }
                None => offset += RECORD_ALIGN,
            }
        }
        Ok(segment)
    }

    /// Notes what is missing before a record that follows number `prev`, or before a segment that does.
    fn follow(&mut self, prev: SeqNo, first: Option<SeqNo>) {
        if let Some(last) = self.last.or(self.floor)
            && prev > last
        {
            self.salvaged.holes.push((last + 1, prev));
        }
        self.salvaged.has_gaps |= first.is_some_and(|first| first != prev + 1);
        self.last = Some(self.last.unwrap_or(prev).max(prev));
    }

    fn finish(mut self) -> Salvaged {
        let last = self.last.or(self.floor);
        let proven = self.synced_seqno.max(self.salvaged.last_seqno);
        if let Some(last) = last.filter(|last| proven > *last) {
            self.salvaged.holes.push((last + 1, proven));
        }
        self.salvaged.last_seqno = proven.max(last.unwrap_or(0));
        self.salvaged
    }
}

/// Number and database of a segment whose header is intact, whatever it was expected to be.
fn raw_header(reader: &mut SegmentReader, limit: u64) -> Result<Option<(u64, u64)>> {
    let Some(bytes) = reader.header_bytes(limit)? else { return Ok(None) };
    let (number, database_id) = format::stated(&bytes);
    let header = SegmentHeader::decode(&bytes, number, database_id, &reader.path)?;
    Ok(header.ok().map(|_| (number, database_id)))
}
