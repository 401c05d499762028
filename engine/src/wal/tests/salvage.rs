//! What is salvaged of a damaged log.

use super::*;
use crate::damage::Damage;
use crate::wal::format::{HEADER_BYTES, SegmentHeader, record_bytes, segment_path};
use crate::wal::salvage::{Salvaged, database_id, salvage};

const PAYLOAD_BYTES: usize = 1000;

/// What a record takes: three fill a segment.
const RECORD_BYTES: u64 = 1048;

/// Nine records in three segments.
fn nine() -> (SimFileSystem, Records) {
    let fs = sim();
    let (wal, mut writer) = new_log(&fs, 4096);
    let records = append(&mut writer, &wal, [PAYLOAD_BYTES; 9]);
    assert_eq!((record_bytes(PAYLOAD_BYTES), segment_files(&fs).len()), (RECORD_BYTES, 3));
    (fs, records)
}

fn place_of(record: u64) -> u64 {
    HEADER_BYTES + record * RECORD_BYTES
}

struct Got {
    records: Records,
    salvaged: Salvaged,
}

impl Got {
    fn from(fs: &SimFileSystem, floor: u64, prev_seqno: Option<SeqNo>, synced_seqno: SeqNo) -> Got {
        let mut records = Records::new();
        let mut each = |first, count, payload: &[u8]| {
            records.push((first, count, payload.to_vec()));
            Ok(Ok(()))
        };
        let salvaged = salvage(fs, dir(), DATABASE, floor, prev_seqno, synced_seqno, &mut each).unwrap();
        Got { records, salvaged }
    }

    fn all(fs: &SimFileSystem) -> Got {
        Got::from(fs, 1, Some(0), 0)
    }

    fn numbers(&self) -> Vec<SeqNo> {
        self.records.iter().map(|record| record.0).collect()
    }

    /// Records, bytes and damage of each segment.
    fn segments(&self) -> Vec<(u64, u64, &[Damage])> {
        self.salvaged.segments.iter().map(|found| (found.records, found.bytes, &found.damage[..])).collect()
    }

    /// The only damage there is, in that segment.
    fn damage_in(&self, segment: usize) -> Damage {
        let damaged: Vec<_> =
            self.salvaged.segments.iter().enumerate().filter(|(_, found)| !found.damage.is_empty()).collect();
        let [(at, found)] = damaged[..] else { panic!("{:?}", self.salvaged) };
        assert_eq!((at, found.damage.len()), (segment, 1), "{:?}", self.salvaged);
        found.damage[0].clone()
    }
}

fn flip(fs: &SimFileSystem, segment: u64, offset: u64) {
    fs.flip_bit(&segment_path(dir(), segment), offset, 3).unwrap();
}

#[test]
fn an_intact_log_is_found_whole() {
    let (fs, expected) = nine();
    let got = Got::all(&fs);
    assert_eq!(got.records, expected);
    assert_eq!(got.segments(), [(3, 3 * RECORD_BYTES, &[][..]); 3]);
    let Salvaged { holes, has_gaps, last_seqno, next_segment, segments } = &got.salvaged;
    assert_eq!((&holes[..], *has_gaps, *last_seqno, *next_segment), (&[][..], false, 9, 4));
    assert_eq!(segments[1].path, segment_path(dir(), 2));
    assert_eq!(database_id(&fs, dir()).unwrap(), Some(DATABASE));
}

#[test]
fn from_the_floor_on() {
    let (fs, expected) = nine();
    let got = Got::from(&fs, 2, Some(3), 0);
    assert_eq!((&got.records[..], got.salvaged.holes.len()), (&expected[3..], 0));
    let nothing = Got::from(&fs, 4, Some(9), 0);
    assert_eq!((nothing.records.len(), nothing.salvaged.last_seqno, nothing.salvaged.next_segment), (0, 9, 4));
    let empty = Got::all(&sim());
    assert_eq!((empty.salvaged.last_seqno, empty.salvaged.next_segment, empty.salvaged.holes), (0, 0, vec![]));
}

#[test]
fn a_record_with_a_damaged_payload_is_left_out_by_its_header() {
    for (damaged, at) in [(4, place_of(0)), (5, place_of(1)), (6, place_of(2))] {
        let (fs, _) = nine();
        flip(&fs, 2, at + 48 + 500);
        let got = Got::all(&fs);
        assert_eq!(got.numbers(), (1..=9).filter(|&n| n != damaged).collect::<Vec<_>>());
        let expected = Damage::new(at, RECORD_BYTES, "the checksum of the record's payload does not fit");
        assert_eq!(got.damage_in(1), expected);
        assert_eq!(got.segments()[1].0, 2);
        assert_eq!((&got.salvaged.holes[..], got.salvaged.last_seqno), (&[(damaged, damaged)][..], 9));
    }
}

#[test]
fn behind_a_damaged_header_the_next_one_is_searched_for() {
    for (damaged, at) in [(4, place_of(0)), (5, place_of(1))] {
        let (fs, _) = nine();
        flip(&fs, 2, at + 20);
        let got = Got::all(&fs);
        assert_eq!(got.numbers(), (1..=9).filter(|&n| n != damaged).collect::<Vec<_>>());
        let Damage { offset, bytes, .. } = got.damage_in(1);
        assert_eq!((offset, bytes), (at, RECORD_BYTES));
        assert_eq!(got.salvaged.holes, [(damaged, damaged)]);
    }
    // The last one of a segment may as well be its end: the next segment says what is missing.
    let (fs, _) = nine();
    flip(&fs, 2, place_of(2) + 20);
    let got = Got::all(&fs);
    assert!(got.segments().iter().all(|(.., damage)| damage.is_empty()));
    assert_eq!((&got.salvaged.holes[..], got.salvaged.last_seqno), (&[(6, 6)][..], 9));
}

#[test]
fn several_records_in_a_row_are_one_hole_each() {
    let (fs, _) = nine();
    (0..3).for_each(|record| flip(&fs, 2, place_of(record) + 48));
    let got = Got::all(&fs);
    assert_eq!(got.numbers(), [1, 2, 3, 7, 8, 9]);
    assert_eq!((got.segments()[1].2.len(), &got.salvaged.holes[..]), (3, &[(4, 6)][..]));
}

#[test]
fn what_is_missing_at_the_end_is_known_by_header_or_manifest() {
    let (fs, _) = nine();
    flip(&fs, 3, place_of(2) + 48);
    let got = Got::all(&fs);
    assert_eq!((&got.salvaged.holes[..], got.salvaged.last_seqno), (&[(9, 9)][..], 9), "its header is intact");
    let (fs, _) = nine();
    flip(&fs, 3, place_of(2) + 20);
    let unknown = Got::all(&fs);
    assert_eq!((&unknown.salvaged.holes[..], unknown.salvaged.last_seqno), (&[][..], 8));
    let synced = Got::from(&fs, 1, Some(0), 9);
    assert_eq!((&synced.salvaged.holes[..], synced.salvaged.last_seqno), (&[(9, 9)][..], 9));
    let synced_before = Got::from(&fs, 1, Some(0), 8);
    assert_eq!((&synced_before.salvaged.holes[..], synced_before.salvaged.last_seqno), (&[][..], 8));
}

#[test]
fn a_record_that_is_cut_off_is_damaged_to_the_end_of_the_file() {
    let (fs, _) = nine();
    let path = segment_path(dir(), 3);
    let bytes = fs.read(&path).unwrap();
    fs.write(&path, &bytes[..place_of(2) as usize + 148]).unwrap();
    let got = Got::all(&fs);
    assert_eq!(got.damage_in(2), Damage::new(place_of(2), 148, "the record reaches past the end of the file"));
    assert_eq!(got.salvaged.holes, [(9, 9)]);
}

#[test]
fn records_say_what_was_synced_before_them() {
    for damage in [None, Some(place_of(2) + 48)] {
        let fs = sim();
        let (wal, mut writer) = new_log(&fs, 4096);
        append(&mut writer, &wal, [PAYLOAD_BYTES; 2]);
        wal.sync_all().unwrap();
        append(&mut writer, &wal, [PAYLOAD_BYTES; 1]);
        drop((wal, writer));
        // Only the last one says that the others were synced, and they are gone.
        let path = segment_path(dir(), 1);
        let mut bytes = fs.read(&path).unwrap();
        bytes[place_of(0) as usize..place_of(2) as usize].fill(0);
        fs.write(&path, &bytes).unwrap();
        damage.inspect(|&at| flip(&fs, 1, at));
        let got = Got::from(&fs, 1, None, 0);
        let missing = if damage.is_some() { (1, 3) } else { (1, 2) };
        assert_eq!((&got.salvaged.holes[..], got.salvaged.last_seqno), (&[missing][..], 3), "{damage:?}");
    }
}

#[test]
fn a_missing_segment_is_a_hole_if_what_came_before_is_known() {
    let (fs, _) = nine();
    fs.remove_file(&segment_path(dir(), 1)).unwrap();
    assert_eq!(Got::all(&fs).salvaged.holes, [(1, 3)]);
    assert_eq!(Got::from(&fs, 1, None, 0).salvaged.holes, []);
    assert_eq!(Got::from(&fs, 1, Some(2), 0).salvaged.holes, [(3, 3)]);
    fs.remove_file(&segment_path(dir(), 2)).unwrap();
    assert_eq!((Got::all(&fs).numbers(), Got::all(&fs).salvaged.holes), (vec![7, 8, 9], vec![(1, 6)]));
}

#[test]
fn numbers_that_were_never_logged_are_a_gap_and_no_hole() {
    let fs = sim();
    let (_wal, mut writer) = new_log(&fs, 4096);
    for (first, count) in [(1, 2), (3, 0), (3, 1), (7, 3)] {
        writer.append(first, count, b"x").unwrap();
    }
    let got = Got::all(&fs);
    assert_eq!(got.records.iter().map(|record| record.1).collect::<Vec<_>>(), [2, 0, 1, 3], "metadata as well");
    assert!(got.salvaged.has_gaps);
    assert_eq!((&got.salvaged.holes[..], got.salvaged.last_seqno), (&[][..], 9));
}

#[test]
fn a_damaged_segment_header_costs_no_record() {
    let (fs, expected) = nine();
    flip(&fs, 1, 9);
    let got = Got::all(&fs);
    assert_eq!(got.records, expected);
    assert_eq!(got.damage_in(0), Damage::new(0, HEADER_BYTES, "no intact segment header"));
    assert_eq!(database_id(&fs, dir()).unwrap(), Some(DATABASE), "by the next one");
    fs.write(&segment_path(dir(), 1), &[7; 20]).unwrap();
    let got = Got::all(&fs);
    assert_eq!(got.damage_in(0), Damage::new(0, 20, "no intact segment header"));
    assert_eq!((got.numbers(), got.salvaged.holes), ((4..=9).collect(), vec![(1, 3)]));
    (1..=3).for_each(|number| fs.write(&segment_path(dir(), number), &[]).unwrap());
    assert_eq!(database_id(&fs, dir()).unwrap(), None);
}

#[test]
fn a_segment_is_what_its_header_says() {
    let (fs, expected) = nine();
    fs.rename(&segment_path(dir(), 2), &segment_path(dir(), 8)).unwrap();
    let got = Got::all(&fs);
    assert_eq!(got.records, expected);
    assert_eq!(got.damage_in(1), Damage::new(16, 0, "it is segment 2 under another name"));
    assert_eq!(got.salvaged.next_segment, 9, "the name is taken");
    assert_eq!(Got::from(&fs, 3, Some(6), 0).numbers(), [7, 8, 9], "the floor is about what it is");
    // Named like an old one, it is the newest.
    fs.rename(&segment_path(dir(), 3), &segment_path(dir(), 2)).unwrap();
    assert_eq!((Got::all(&fs).records, Got::all(&fs).salvaged.next_segment), (expected, 9));
}

#[test]
fn records_that_come_again_are_left_out() {
    let (fs, expected) = nine();
    fs.write(&segment_path(dir(), 5), &fs.read(&segment_path(dir(), 1)).unwrap()).unwrap();
    let got = Got::all(&fs);
    assert_eq!(got.records, expected);
    let again: Vec<_> = got.salvaged.segments[1].damage.iter().map(|damage| (damage.offset, damage.bytes)).collect();
    assert_eq!(again, [(16, 0), (place_of(0), RECORD_BYTES), (place_of(1), RECORD_BYTES), (place_of(2), RECORD_BYTES)]);
    assert!(got.salvaged.segments[1].damage[1].reason.contains("repeats numbers"));
}

#[test]
fn a_segment_of_another_database_is_left_out() {
    let (fs, _) = nine();
    let path = segment_path(dir(), 3);
    let mut bytes = fs.read(&path).unwrap();
    let header = SegmentHeader { segment: 3, database_id: 77, file_bytes: 4096, prev_seqno: 6, prev_end: 0 };
    bytes[..HEADER_BYTES as usize].copy_from_slice(&header.encode());
    fs.write(&path, &bytes).unwrap();
    let damage = Got::all(&fs).damage_in(2);
    assert_eq!(damage, Damage::new(24, bytes.len() as u64, "the segment belongs to another database"));
}

#[test]
fn what_the_caller_cannot_read_is_damage_too() {
    let (fs, _) = nine();
    let mut each = |first, _, _: &[u8]| Ok(if first == 5 { Err("not five".to_owned()) } else { Ok::<(), String>(()) });
    let salvaged = salvage(&fs, dir(), DATABASE, 1, Some(0), 0, &mut each).unwrap();
    let second = &salvaged.segments[1];
    assert_eq!((second.records, second.bytes), (2, 2 * RECORD_BYTES));
    assert_eq!(second.damage, [Damage::new(place_of(1), RECORD_BYTES, "not five")]);
}
