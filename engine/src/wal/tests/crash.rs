use super::*;

/// What the outside knows of a log: what the manifest would say, durably, and what was promised.
#[derive(Clone, Debug)]
struct Known {
    manifest: ReplayInput,
    appended: Records,
    synced_seqno: SeqNo,
}

/// Writes, syncs, prepares, releases and recycles until the power goes.
fn work(wal: &Arc<Wal>, writer: &mut WalWriter, known: &mut Known) -> Result<()> {
    for step in 0..40u64 {
        let first = wal.last_logged_seqno() + 1 + if step % 7 == 3 { 5 } else { 0 };
        let (count, bytes) = (1 + step as u32 % 3, [90, 700, 1300, 5000][step as usize % 4]);
        // Appended before it is known: with everything kept it may be there although the call failed.
        known.appended.push((first, count, payload(first, bytes)));
        if let Err(error) = writer.append(first, count, &payload(first, bytes)) {
            known.appended.pop();
            return Err(error);
        }
        writer.publish(wal.last_logged_seqno());
        if step % 5 == 4 {
            wal.sync_through(first)?;
            known.synced_seqno = wal.synced_seqno();
        }
        if step % 4 == 1 {
            wal.prepare_spare()?;
        }
        if step % 10 == 9 {
            known.manifest.synced_seqno = wal.synced_seqno();
            let flushed = wal.synced_seqno();
            if let Some(floor) = floor_segment(wal, flushed) {
                known.manifest.floor_segment = floor;
                known.manifest.prev_seqno_floor = flushed;
                wal.release_below(floor);
            }
        }
    }
    Ok(())
}

fn check(known: &Known, fs: &SimFileSystem, keep: Keep, what: &str) -> Replayed {
    let (records, replayed) = read_with(fs, known.manifest, true).unwrap_or_else(|error| panic!("{what}: {error}"));
    let start = records.first().map_or(known.appended.len(), |first| {
        known.appended.iter().position(|record| record == first).unwrap_or_else(|| panic!("{what}: invented {first:?}"))
    });
    assert!(known.appended[start..].starts_with(&records), "{what}: no prefix");
    let unflushed = known.appended.iter().find(|(first, ..)| *first > known.manifest.prev_seqno_floor);
    if let (Some(first), Some(oldest)) = (records.first(), unflushed) {
        assert!(first.0 <= oldest.0, "{what}: begins with {}, not {}", first.0, oldest.0);
    }
    let last = replayed.last_logged_seqno;
    assert!(last >= known.synced_seqno, "{what}: {last} of {}", known.synced_seqno);
    let everything = known.appended.last().map_or(0, |(first, count, _)| first + u64::from(*count) - 1);
    assert!(keep != Keep::All || last == everything, "{what}: {last} of {everything}");
    replayed
}

/// Recovers with a power cut at every call of the recovery, then goes on writing.
fn recover(known: &Known, fs: &SimFileSystem, seed: u64, what: &str) {
    for stop in 0.. {
        let cut = fs.crash_clone(Keep::All, 0);
        cut.stop_after(stop);
        let result = read_with(&cut, known.manifest, false).and_then(|(_, replayed)| {
            open_after_replay(Arc::new(cut.clone()), dir(), DATABASE, replayed, 0, options(4096))
        });
        let done = result.is_ok();
        let after = cut.crash_clone(if done { Keep::All } else { Keep::Some }, seed);
        let what = format!("{what}, recovery stopped after {stop}");
        check(known, &after, Keep::Some, &what);
        if done {
            let (_, replayed) = read_with(&after, known.manifest, false).unwrap();
            let (wal, mut writer) =
                open_after_replay(Arc::new(after.clone()), dir(), DATABASE, replayed, 0, options(4096)).unwrap();
            let mut known = known.clone();
            known.appended.retain(|(first, ..)| *first <= wal.last_logged_seqno());
            known.synced_seqno = wal.synced_seqno();
            work(&wal, &mut writer, &mut known).unwrap();
            check(&known, &after.crash_clone(Keep::Some, seed), Keep::Some, &what);
            return;
        }
    }
}

#[test]
fn a_power_cut_at_every_call_leaves_a_prefix_with_everything_synced() {
    let fs = sim();
    let start = fs.call_count();
    for stop in start.. {
        let fs = sim();
        fs.stop_after(stop);
        let mut known = Known { manifest: input(0), appended: Vec::new(), synced_seqno: 0 };
        let created = create(Arc::new(fs.clone()), dir(), DATABASE, 1, 0, options(4096));
        let result = created.and_then(|(wal, mut writer)| work(&wal, &mut writer, &mut known));
        for (keep, seeds) in [(Keep::Nothing, 0..1), (Keep::All, 0..1), (Keep::Some, stop * 4..stop * 4 + 4)] {
            for seed in seeds {
                let what = format!("stopped after {stop}, {keep:?}, seed {seed}");
                let after = fs.crash_clone(keep, seed);
                check(&known, &after, keep, &what);
                if stop % 3 == 0 && seed % 4 == 0 {
                    recover(&known, &after, seed, &what);
                }
            }
        }
        if result.is_ok() {
            assert!(known.manifest.floor_segment > 5, "the work releases and recycles");
            return;
        }
    }
}

#[test]
fn a_failure_of_any_call_leaves_everything_that_was_appended() {
    for fault in [Fault::Io, Fault::NoSpace, Fault::ShortWrite] {
        for n in 1.. {
            let fs = sim();
            let faulty = FaultFileSystem::new(Arc::new(fs.clone()));
            faulty.fail_at(n, fault);
            let mut known = Known { manifest: input(0), appended: Vec::new(), synced_seqno: 0 };
            let created = create(Arc::new(faulty), dir(), DATABASE, 1, 0, options(4096));
            let result = created.and_then(|(wal, mut writer)| work(&wal, &mut writer, &mut known));
            let what = format!("call {n} failed with {fault:?}");
            check(&known, &fs, Keep::All, &what);
            check(&known, &fs.crash_clone(Keep::Nothing, 0), Keep::Nothing, &what);
            if result.is_ok() {
                break;
            }
            assert!(matches!(result, Err(Error::Io { .. })), "{what}");
        }
    }
}

/// Opens the log that `fs` holds for writing, whatever the manifest knows of it.
fn reopen(fs: &FaultFileSystem, sim: &SimFileSystem, synced_seqno: SeqNo) -> (Arc<Wal>, WalWriter) {
    let (_, replayed) = read_with(sim, input(synced_seqno), false).unwrap();
    open_after_replay(Arc::new(fs.clone()), dir(), DATABASE, replayed, 0, options(4096)).unwrap()
}

/// A process dies when it has begun a segment and written nothing to it, or only metadata, after everything before was
/// synced. The next one writes on in another segment: the one between must be on storage too.
#[test]
fn a_segment_without_numbers_is_synced_before_what_follows_it() {
    for metadata in [false, true] {
        let sim = sim();
        let fs = FaultFileSystem::new(Arc::new(sim.clone()));
        let (wal, mut writer) = new_log(&sim, 4096);
        append(&mut writer, &wal, [3000]);
        wal.sync_all().unwrap();
        if metadata {
            writer.append(2, 0, &payload(2, 2000)).unwrap();
        } else {
            let mut file = sim.create_mapped(&format::segment_path(dir(), 2), 4096).unwrap();
            wal.start_segment(2, 1, wal.total_bytes(), file.as_mut()).unwrap();
        }
        drop((wal, writer));
        let (wal, mut writer) = reopen(&fs, &sim, 1);
        assert_eq!((wal.synced_seqno(), wal.active_segment()), (1, 3));
        append(&mut writer, &wal, [10]);
        wal.sync_through(2).unwrap();
        let left = sim.crash_clone(Keep::Nothing, 0);
        let (records, _) = read_with(&left, input(2), true).unwrap();
        assert_eq!(records.len(), 2 + usize::from(metadata), "metadata: {metadata}");
    }
}

/// A sync fails and the system drops the pages, which it then counts as clean. The process is started again, and what it
/// says is synced must be on storage all the same.
#[test]
fn what_a_failed_sync_left_unwritten_is_written_by_the_next_process() {
    let sim = sim();
    let fs = FaultFileSystem::new(Arc::new(sim.clone()));
    let (wal, mut writer) = create(Arc::new(fs.clone()), dir(), DATABASE, 1, 0, options(4096)).unwrap();
    let mut expected = append(&mut writer, &wal, [100, 3000, 3000, 100]);
    fs.only(Op::MappedSync);
    fs.fail_at(1, Fault::DroppedPages);
    assert!(wal.sync_all().is_err());
    drop((wal, writer));
    fs.clear();
    let (wal, mut writer) = reopen(&fs, &sim, 0);
    expected.extend(append(&mut writer, &wal, [10]));
    wal.sync_through(5).unwrap();
    assert_eq!(read(&sim.crash_clone(Keep::Nothing, 0)), expected);
}

/// Nothing needs the file of a released segment.
#[test]
fn what_cannot_be_removed_or_set_aside_stays() {
    for op in [Op::Remove, Op::Rename] {
        let sim = sim();
        let fs = FaultFileSystem::new(Arc::new(sim.clone()));
        let (wal, mut writer) = create(Arc::new(fs.clone()), dir(), DATABASE, 1, 0, options(4096)).unwrap();
        append(&mut writer, &wal, [3000; 6]);
        wal.sync_all().unwrap();
        fs.only(op);
        fs.fail_from(1, Fault::Io);
        let floor = floor_segment(&wal, 6).unwrap();
        wal.release_below(floor);
        assert_eq!(wal.oldest_segment(), floor);
        append(&mut writer, &wal, [3000, 5000]);
        wal.sync_all().unwrap();
        assert_eq!(wal.synced_seqno(), 8);
    }
}
