use super::*;
use crate::wal::tail::Tail;

fn drain(tail: &mut Tail) -> Records {
    let mut records = Records::new();
    while let Some(record) = tail.next().unwrap() {
        records.push((record.first_seqno, record.count, record.payload.to_vec()));
    }
    records
}

#[test]
fn a_tail_starts_anywhere_and_sees_what_is_published() {
    let fs = sim();
    let (wal, mut writer) = new_log(&fs, 4096);
    let expected = append(&mut writer, &wal, [1000; 20]);
    for from in 0..=21 {
        let mut tail = wal.tail(from).unwrap();
        assert_eq!(drain(&mut tail), expected[(from.max(1) - 1) as usize..], "from {from}");
        assert!(!tail.wait(Duration::ZERO));
    }
    assert!(matches!(wal.tail(22), Err(Error::InvalidArgument(_))));
    let mut tail = wal.tail(21).unwrap();
    writer.append(21, 5, b"five").unwrap();
    assert_eq!((tail.next().unwrap(), wal.last_logged_seqno()), (None, 25), "appended is not published");
    writer.append(26, 1, &[7; 4000]).unwrap();
    assert!(tail.next().unwrap().is_none());
    writer.publish(30);
    assert!(tail.wait(Duration::MAX));
    assert_eq!(drain(&mut wal.tail(23).unwrap())[0], (21, 5, b"five".to_vec()), "the whole record");
    assert_eq!(drain(&mut tail).len(), 2);
    assert!(wal.tail(31).unwrap().next().unwrap().is_none(), "numbers written without the log count");
    assert!(wal.tail(32).is_err());
}

#[test]
fn a_tail_reads_recovered_segments_too() {
    let fs = sim();
    let (wal, mut writer) = new_log(&fs, 4096);
    let mut expected = append(&mut writer, &wal, [1000; 10]);
    let (_, replayed) = read_with(&fs, input(0), false).unwrap();
    let (wal, mut writer) =
        open_after_replay(Arc::new(fs.clone()), dir(), DATABASE, replayed, 0, options(4096)).unwrap();
    let mut tail = wal.tail(1).unwrap();
    expected.extend(append(&mut writer, &wal, [300_000, 100, 1000]));
    assert_eq!(drain(&mut tail), expected);
}

#[test]
fn damage_under_a_tail_is_an_error_and_no_record() {
    let fs = sim();
    let (wal, mut writer) = new_log(&fs, 4096);
    append(&mut writer, &wal, [100; 3]);
    let mut tail = wal.tail(1).unwrap();
    fs.flip_bit(&dir().join("000001.wal"), 64 + 152 + 60, 3).unwrap();
    assert!(tail.next().unwrap().is_some());
    assert!(matches!(tail.next(), Err(Error::Corruption { offset: 216, .. })));
}

#[test]
fn a_tail_follows_a_writer_that_rolls_and_recycles() {
    let fs = sim();
    let (wal, mut writer) = new_log(&fs, 4096);
    let mut tail = wal.tail(1).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for seqno in 1..=3000u64 {
                writer.append(seqno, 1, &payload(seqno, seqno as usize % 500)).unwrap();
                writer.publish(seqno);
                if seqno % 50 == 0 {
                    wal.sync_through(seqno).unwrap();
                    if let Some(floor) = floor_segment(&wal, seqno) {
                        wal.release_below(floor);
                    }
                    wal.prepare_spare().unwrap();
                }
            }
        });
        for seqno in 1..=3000u64 {
            let record = loop {
                match tail.next().unwrap() {
                    Some(record) => break record,
                    None => assert!(tail.wait(Duration::from_secs(60)), "no record {seqno} came"),
                }
            };
            assert_eq!((record.first_seqno, &record.payload[..]), (seqno, &payload(seqno, seqno as usize % 500)[..]));
        }
        assert!(tail.next().unwrap().is_none());
    });
}

#[test]
fn pins_and_tails_hold_segments_back() {
    let fs = sim();
    let (wal, mut writer) = new_log(&fs, 4096);
    let early = wal.mark();
    append(&mut writer, &wal, [1000; 30]);
    assert_eq!(wal.plan_release(30, early), None, "nothing behind the mark goes");
    let pin = wal.pin(8).unwrap();
    let mut tail = wal.tail(5).unwrap();
    assert_eq!(floor_segment(&wal, 30), Some(2), "three records a segment");
    wal.release_below(2);
    assert_eq!((wal.oldest_segment(), wal.oldest_retained_seqno()), (2, 4));
    assert!(wal.retained_bytes() >= 8 * 4096);
    assert!(matches!(wal.tail(3), Err(Error::NotRetained { requested: 3, oldest: 4 })));
    assert!(matches!(wal.pin(1), Err(Error::NotRetained { requested: 1, oldest: 4 })));
    assert_eq!(drain(&mut tail).len(), 26);
    assert_eq!(floor_segment(&wal, 30), Some(3));
    pin.advance(20).unwrap();
    pin.advance(4).unwrap();
    assert_eq!(floor_segment(&wal, 12), Some(5), "no more than is flushed now");
    assert_eq!(floor_segment(&wal, 30), Some(7));
    assert!(wal.tail(12).is_err(), "what is planned is no longer offered");
    drop(pin);
    assert_eq!(floor_segment(&wal, 30), Some(10));
    drop(tail);
    wal.release_below(99);
    assert_eq!((wal.oldest_segment(), wal.retained_bytes(), segment_files(&fs).len()), (10, 0, 1));
}

/// Metadata logged behind the mark has no number of its own, so only its segment shows that it is not covered.
#[test]
fn the_segment_of_the_mark_stays() {
    let (wal, mut writer) = new_log(&sim(), 4096);
    append(&mut writer, &wal, [1000; 4]);
    let mark = wal.mark();
    (0..4).for_each(|_| writer.append(5, 0, &payload(0, 1000)).unwrap());
    assert_eq!((mark.segment(), wal.active_segment()), (2, 3));
    let floor = wal.plan_release(4, mark).unwrap();
    assert_eq!(floor, Floor { segment: 2, prev_seqno: 3 });
}

/// What the log that is kept holds is synced, and counts as synced, with all before it, once the manifest says so.
#[test]
fn only_the_kept_part_of_the_log_is_synced() {
    let fs = sim();
    let (wal, mut writer) = new_log(&fs, 4096);
    append(&mut writer, &wal, [1000; 11]);
    let mark = wal.mark();
    append(&mut writer, &wal, [1000; 5]);
    let floor = wal.plan_release(10, mark).unwrap();
    assert_eq!(floor, Floor { segment: 4, prev_seqno: 9 });
    wal.sync_kept(floor.segment, mark).unwrap();
    assert_eq!((wal.sync_count(), wal.synced_seqno()), (1, 0), "the manifest does not say so yet");
    let kept = ReplayInput { floor_segment: 4, prev_seqno_floor: 9, ..input(11) };
    let (records, replayed) = read_with(&fs.crash_clone(Keep::Nothing, 0), kept, true).unwrap();
    assert_eq!((records.len(), replayed.last_logged_seqno), (2, 11));
    wal.note_kept(mark);
    wal.sync_through(11).unwrap();
    assert_eq!((wal.sync_count(), wal.synced_seqno()), (1, 11));
    wal.sync_all().unwrap();
    assert_eq!((wal.sync_count(), wal.synced_seqno()), (4, 16), "the rest of the fourth segment and two more");
    wal.sync_kept(floor.segment, mark).unwrap();
    wal.note_kept(mark);
    assert_eq!((wal.sync_count(), wal.synced_seqno()), (4, 16), "an old mark takes nothing back");
}

/// Another flush may have planned more, and its tables not be in the manifest yet.
#[test]
fn a_plan_counts_on_nothing_that_others_planned() {
    let (wal, mut writer) = new_log(&sim(), 4096);
    append(&mut writer, &wal, [1000; 10]);
    assert_eq!(floor_segment(&wal, 10), Some(4));
    assert_eq!(floor_segment(&wal, 5), Some(2));
    assert_eq!(floor_segment(&wal, 2), None);
}

#[test]
fn a_cursor_that_holds_back_too_much_is_invalidated() {
    let fs = sim();
    let limits = WalOptions { segment_bytes: 4096, max_retained_bytes: 3 * 4096 };
    let (wal, mut writer) = create(Arc::new(fs.clone()), dir(), DATABASE, 1, 0, limits).unwrap();
    let (pin, mut slow) = (wal.pin(1).unwrap(), wal.tail(1).unwrap());
    assert!(slow.next().unwrap().is_none());
    append(&mut writer, &wal, [1000; 10]);
    wal.sync_through(10).unwrap();
    assert_eq!(plan(&wal, 10), None, "three segments of three are within bounds");
    let near = wal.pin(7).unwrap();
    assert!(slow.next().unwrap().is_some());
    append(&mut writer, &wal, [1000; 3]);
    wal.sync_through(13).unwrap();
    assert_eq!(floor_segment(&wal, 13), Some(3), "the pin at 7 may stay, those before go");
    for _ in 0..2 {
        assert!(matches!(slow.next(), Err(Error::NotRetained { requested: 2, oldest: 7 })));
        assert!(matches!(pin.advance(20), Err(Error::NotRetained { requested: 1, oldest: 7 })));
    }
    near.advance(8).unwrap();
    wal.release_below(3);
    append(&mut writer, &wal, [1000; 20]);
    assert!(slow.next().is_err());
}

#[test]
fn a_segment_that_somebody_reads_is_not_recycled() {
    let fs = sim();
    let limits = WalOptions { segment_bytes: 4096, max_retained_bytes: 0 };
    let (wal, mut writer) = create(Arc::new(fs.clone()), dir(), DATABASE, 1, 0, limits).unwrap();
    append(&mut writer, &wal, [1000; 9]);
    let reading = wal.tail(1).unwrap();
    wal.sync_through(9).unwrap();
    let floor = floor_segment(&wal, 9).unwrap();
    wal.release_below(floor);
    let spares: Vec<_> = fs.paths().into_iter().filter(|path| path.extension().is_some_and(|e| e == "spare")).collect();
    assert_eq!(spares, [dir().join("000002.spare")]);
    drop(reading);
}

#[test]
fn the_log_is_verified_while_it_is_let_go_of() {
    let fs = sim();
    let (wal, mut writer) = new_log(&fs, 4096);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                wal.verify().unwrap();
            }
        });
        for _ in 0..500 {
            append(&mut writer, &wal, [3000; 2]);
            wal.sync_all().unwrap();
            if let Some(floor) = floor_segment(&wal, wal.last_logged_seqno()) {
                wal.release_below(floor);
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_tail_whose_next_segment_lacks_its_beginning_says_so() {
    let fs = sim();
    let (wal, mut writer) = new_log(&fs, 4096);
    append(&mut writer, &wal, [1000; 3]);
    let mut tail = wal.tail(1).unwrap();
    assert_eq!(drain(&mut tail).len(), 3);
    append(&mut writer, &wal, [1000; 6]);
    wal.segments.lock().live.remove(1);
    assert!(matches!(tail.next(), Err(Error::Corruption { .. })));
}

#[test]
fn a_wait_ends_when_something_is_published_or_somebody_wakes_all() {
    let fs = sim();
    let (wal, mut writer) = new_log(&fs, 4096);
    let tail = wal.tail(1).unwrap();
    let waiting = || {
        while wal.waiting_tails.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        // Under the lock a waiter is counted, and the wait gives the lock back.
        drop(wal.tail_lock.lock());
    };
    std::thread::scope(|scope| {
        let woken = scope.spawn(|| tail.wait(Duration::MAX));
        waiting();
        wal.wake_tails();
        assert!(!woken.join().unwrap(), "there is nothing");
        let woken = scope.spawn(|| tail.wait(Duration::MAX));
        waiting();
        writer.append(1, 1, b"").unwrap();
        writer.publish(1);
        assert!(woken.join().unwrap());
    });
    assert_eq!(wal.waiting_tails.load(Ordering::SeqCst), 0);
}

#[test]
fn a_dropped_tail_or_pin_holds_nothing_back() {
    let fs = sim();
    let (wal, mut writer) = new_log(&fs, 4096);
    let (tail, pin) = (wal.tail(1).unwrap(), wal.pin(1).unwrap());
    append(&mut writer, &wal, [1000; 9]);
    wal.sync_all().unwrap();
    let others = [wal.tail(7).unwrap()];
    drop(tail);
    assert_eq!(plan(&wal, 9), None);
    drop(pin);
    assert_eq!(floor_segment(&wal, 9), Some(3), "only its own place is given up");
    drop(others);
    assert!(wal.segments.lock().cursors.is_empty());
}

#[test]
fn a_tail_needs_nothing_that_it_has_read() {
    let fs = sim();
    let (wal, mut writer) = new_log(&fs, 4096);
    append(&mut writer, &wal, [1000; 9]);
    wal.sync_all().unwrap();
    let mut tail = wal.tail(1).unwrap();
    tail.next().unwrap();
    tail.next().unwrap();
    assert_eq!(plan(&wal, 9), None, "the third record is in the first segment too");
    tail.next().unwrap();
    assert_eq!(floor_segment(&wal, 9), Some(2));
}

#[test]
fn an_intact_record_that_does_not_follow_is_damage_under_a_tail() {
    let [fs, other] = [sim(), sim()];
    let (wal, mut writer) = new_log(&fs, 4096);
    append(&mut writer, &wal, [40, 40]);
    let (_, mut writer) = new_log(&other, 4096);
    writer.append(1, 3, &payload(1, 40)).unwrap();
    writer.append(4, 1, &payload(4, 40)).unwrap();
    let path = dir().join("000001.wal");
    let second = (HEADER_BYTES + crate::wal::format::record_bytes(40)) as usize;
    let mut bytes = fs.read(&path).unwrap();
    bytes[second..].copy_from_slice(&other.read(&path).unwrap()[second..]);
    fs.write(&path, &bytes).unwrap();
    let mut tail = wal.tail(1).unwrap();
    assert!(tail.next().unwrap().is_some());
    assert!(matches!(tail.next(), Err(Error::Corruption { .. })));
}
