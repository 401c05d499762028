//! Cursor retention: a tail or a pin never finds its segment recycled under it, and learns it when it was invalidated.

use std::path::Path;
use std::sync::Arc;

use super::explore::explore;
use crate::error::Error;
use crate::fs::{FileSystem, SimFileSystem};
use crate::key::SeqNo;
use crate::sync::thread;
use crate::wal::tail::Tail;
use crate::wal::{Wal, WalOptions, WalWriter, create};

const RECORDS: SeqNo = 8;

/// Two records fill a segment.
const RECORD_BYTES: usize = 1800;

fn payload(seqno: SeqNo) -> Vec<u8> {
    vec![seqno as u8; RECORD_BYTES]
}

fn new_log(max_retained_bytes: u64) -> (Arc<Wal>, WalWriter) {
    let (sim, dir) = (SimFileSystem::new(), Path::new("db"));
    sim.create_dir_all(dir).unwrap();
    create(Arc::new(sim), dir, 1, 1, 0, WalOptions { segment_bytes: 4096, max_retained_bytes }).unwrap()
}

/// Appends the records `from..=RECORDS`, with the next segment prepared ahead by itself now and then, and in the middle
/// metadata, which fills a segment alone.
fn write(wal: &Wal, mut writer: WalWriter, from: SeqNo) {
    for seqno in from..=RECORDS {
        if seqno == RECORDS / 2 {
            (0..4).for_each(|_| writer.append(seqno, 0, &payload(0)).unwrap());
        }
        writer.append(seqno, 1, &payload(seqno)).unwrap();
        writer.publish(seqno);
        if wal.needs_spare() {
            wal.prepare_spare().unwrap();
        }
    }
}

/// Lets go of whatever may go, as if everything were in tables, and prepares what may be prepared, until all was
/// written.
fn release(wal: &Wal) {
    loop {
        let mark = wal.mark();
        let last = mark.seqno();
        wal.prepare_spare().unwrap();
        if let Some(floor) = wal.plan_release(last, mark) {
            wal.sync_kept(floor.segment, mark).unwrap();
            wal.note_kept(mark);
            wal.release_below(floor.segment);
        }
        if last == RECORDS {
            return;
        }
        thread::yield_now();
    }
}

/// Starts a thread that writes the records from `from` on, and one that releases.
fn write_and_release(wal: &Arc<Wal>, writer: WalWriter, from: SeqNo) -> [thread::JoinHandle<()>; 2] {
    let (writing, releasing) = (wal.clone(), wal.clone());
    [thread::spawn(move || write(&writing, writer, from)), thread::spawn(move || release(&releasing))]
}

/// Reads on to the last record; `Err` with the number it was to read next if the tail was invalidated.
fn follow(tail: &mut Tail, from: SeqNo) -> Result<(), SeqNo> {
    for seqno in from..=RECORDS {
        loop {
            match tail.next() {
                Ok(Some(metadata)) if metadata.count == 0 => {}
                Ok(Some(record)) => {
                    assert_eq!((record.first_seqno, record.count), (seqno, 1), "the next record");
                    assert!(record.payload[..] == payload(seqno)[..], "the contents of another record");
                    break;
                }
                Ok(None) => thread::yield_now(),
                Err(Error::NotRetained { .. }) => return Err(seqno),
                Err(error) => panic!("record {seqno}: {error}"),
            }
        }
    }
    Ok(())
}

/// A tail that may hold back all it needs gets every record; segments are recycled behind it meanwhile.
#[test]
fn a_tail_reads_every_record_while_segments_are_recycled_behind_it() {
    explore(1500, || {
        let (wal, writer) = new_log(u64::MAX);
        let mut tail = wal.tail(1).unwrap();
        let threads = write_and_release(&wal, writer, 1);
        follow(&mut tail, 1).expect("a tail without a limit is never invalidated");
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        drop(tail);
        release(&wal);
        assert_eq!(wal.oldest_segment(), wal.active_segment(), "nothing holds the log any more");
    });
}

/// A tail that is opened beside a release begins where it was asked to, and goes on from there, or is refused.
#[test]
fn a_tail_opened_beside_a_release_has_its_segment_or_is_refused() {
    explore(1500, || {
        let (wal, writer) = new_log(u64::MAX);
        let threads = write_and_release(&wal, writer, 1);
        for _ in 0..3 {
            let from = wal.oldest_retained_seqno();
            match wal.tail(from) {
                Ok(mut tail) => follow(&mut tail, from).expect("a tail without a limit is never invalidated"),
                Err(Error::NotRetained { oldest, .. }) => assert!(oldest > from),
                Err(error) => panic!("from {from}: {error}"),
            }
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

/// A tail that may hold back next to nothing gets every record up to some point, then `NotRetained`, and never the
/// bytes of a file that is used again.
#[test]
fn a_tail_that_holds_back_too_much_is_told_and_reads_nothing_wrong() {
    explore(1500, || {
        let (wal, writer) = new_log(0);
        let mut tail = wal.tail(1).unwrap();
        let threads = write_and_release(&wal, writer, 1);
        if follow(&mut tail, 1).is_err() {
            assert!(matches!(tail.next(), Err(Error::NotRetained { .. })), "it stays so");
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

/// What a pin holds can be followed from there, until the pin moves on; a number that was let go is refused.
#[test]
fn a_pin_holds_the_log_until_it_moves_on() {
    explore(1500, || {
        let (wal, mut writer) = new_log(u64::MAX);
        for seqno in 1..=2 {
            writer.append(seqno, 1, &payload(seqno)).unwrap();
            writer.publish(seqno);
        }
        let pin = wal.pin(2).unwrap();
        let threads = write_and_release(&wal, writer, 3);
        let mut tail = wal.tail(2).expect("the pin holds it");
        pin.advance(RECORDS).unwrap();
        drop(pin);
        follow(&mut tail, 2).expect("the tail holds it itself");
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        release(&wal);
        assert!(matches!(wal.tail(1), Err(Error::NotRetained { .. })));
    });
}

/// A tail that waits is woken by the publication that it waits for: a wake-up lost would be a deadlock.
#[test]
fn a_waiting_tail_is_woken() {
    explore(2000, || {
        let (wal, writer) = new_log(u64::MAX);
        let mut tail = wal.tail(1).unwrap();
        let writing = thread::spawn({
            let wal = wal.clone();
            move || write(&wal, writer, 1)
        });
        for seqno in 1..=RECORDS {
            let record = loop {
                match tail.next().unwrap() {
                    Some(metadata) if metadata.count == 0 => {}
                    Some(record) => break record,
                    None => drop(tail.wait(std::time::Duration::MAX)),
                }
            };
            assert_eq!(record.first_seqno, seqno);
        }
        writing.join().unwrap();
    });
}
