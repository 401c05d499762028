//! Right engines pass, wrong ones do not.

use clap::ValueEnum;

use super::faulty::*;
use super::*;
use crate::engines::{Floor, Siltstone};
use crate::measure::Kind;
use Workload::*;

fn settings() -> Settings {
    Settings {
        keys: 5000,
        memory_mib: 16,
        threads: 2,
        operations: Some(5000),
        syncs: 200,
        seconds: 1,
        ..Settings::default()
    }
}

fn session<E: Engine>(settings: &Settings, workloads: &[Workload]) -> Result<Vec<Measurement>> {
    let dir = tempfile::tempdir().unwrap();
    let mut out = Vec::new();
    let steps: Vec<_> = workloads.iter().copied().map(Step::from).collect();
    let answer = run::<E>(settings, &steps, dir.path(), &mut out);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
    answer?;
    let lines = String::from_utf8(out).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str(line).unwrap());
    Ok(lines.filter_map(|line| if let Line::Measured(measured) = line { Some(*measured) } else { None }).collect())
}

/// Every workload, and scans that check what the others left.
const ALL: [Workload; 35] = [
    FillSeq,
    FillRandom,
    FillBatch,
    Scan,
    FillSync,
    Scan,
    ReadRandom,
    BulkLoad,
    Overwrite,
    ReadUncompacted,
    ReadRandom,
    ReadZipf,
    ReadMissing,
    SeekRandom,
    SeekReverse,
    DeleteRandom,
    Scan,
    ReadRandom,
    SeekReverse,
    YcsbA,
    YcsbB,
    YcsbC,
    YcsbD,
    ScanReverse,
    YcsbE,
    Scan,
    SeekRandom,
    YcsbF,
    MixGraph,
    Scan,
    ReadWhileWriting,
    Overwrite,
    Scan,
    DeleteRandom,
    Flush,
];

fn assert_measured(measured: &Measurement) {
    let kinds: Vec<_> = measured.kinds.iter().map(|kind| kind.kind).collect();
    assert_eq!(kinds, measured.workload.kinds());
    assert_eq!(measured.ops, measured.kinds.iter().map(|kind| kind.ops).sum::<u64>());
    for kind in &measured.kinds {
        assert!(kind.ops > 0 && kind.latencies.samples > 0 && !kind.latencies.curve_us.is_empty(), "{measured:?}");
        assert!(kind.latencies.max_us >= kind.latencies.p999_us.floor(), "{measured:?}");
    }
    assert!(measured.seconds > 0.0 && !measured.cut, "{measured:?}");
    assert!(measured.caller_cpu_ns > 0 && measured.cpu_ns > 0, "{measured:?}");
    assert!(measured.disk_bytes > 0 && measured.peak_disk_bytes >= measured.disk_bytes, "{measured:?}");
    assert_eq!(measured.user_bytes > 0, measured.workload.writes(), "{measured:?}");
    assert_eq!(measured.series.iter().map(|second| second.ops).sum::<u64>(), measured.ops, "{measured:?}");
    assert!(measured.harness_bytes >= 20_000);
}

fn every_workload_runs<E: Engine>() {
    let in_one_process = |workload: &&Workload| **workload != OpenAfterKill;
    assert!(Workload::value_variants().iter().filter(in_one_process).all(|workload| ALL.contains(workload)));
    let measured = session::<E>(&settings(), &ALL).unwrap();
    assert_eq!(measured.iter().map(|measured| measured.workload).collect::<Vec<_>>(), ALL);
    measured.iter().for_each(assert_measured);
    let live = |at: usize| measured[at].live_bytes / 116;
    let ops = |at: usize| measured[at].ops;
    assert_eq!((ops(0), ops(1), ops(2), ops(7)), (5000, 5000, 5000, 5000));
    assert_eq!((live(2), measured[2].user_bytes), (5000, 5000 * 116));
    assert_eq!((ops(4), ops(5)), (200, 2 * 5 * 200), "syncs, and two threads with five passes");
    assert_eq!(measured[4].durability, crate::settings::Durability::Synced);
    assert_eq!((ops(8), measured[8].settled, measured[9].settled), (15_000, false, true));
    assert_eq!((ops(10), ops(13), ops(14)), (5000, 500, 500));
    assert_eq!(ops(15), 5000 - live(15), "deletes");
    assert_eq!(measured[15].user_bytes, ops(15) * 16);
    assert_eq!(ops(16), 2 * 5 * live(15), "what is left");
    assert!((2_300..2_700).contains(&measured[19].kinds[0].ops), "half of YCSB A are gets");
    assert_eq!(live(22), live(21) + measured[22].kinds[1].ops, "YCSB D inserts");
    assert_eq!(ops(23), 2 * 5 * live(22));
    assert_eq!(live(24), live(23) + measured[24].kinds[1].ops, "YCSB E inserts");
    assert_eq!(measured[27].kinds[1].kind, Kind::Updates);
    let records = 5000 + measured[22].kinds[1].ops + measured[24].kinds[1].ops;
    assert_eq!((ops(31), live(31)), (3 * records, records), "the overwrite brought the deleted keys back");
    assert_eq!(ops(32), 2 * 5 * records);
    assert_eq!((ops(34), measured[34].live_bytes), (1, measured[33].live_bytes));
}

#[test]
fn every_workload_runs_on_the_floor() {
    every_workload_runs::<Floor>();
}

#[test]
fn every_workload_runs_on_siltstone() {
    every_workload_runs::<Siltstone>();
}

fn refusal<const FAULT: u8, const AFTER: u64>(workloads: &[Workload]) -> String {
    match session::<Faulty<FAULT, AFTER>>(&settings(), workloads) {
        Ok(_) => panic!("fault {FAULT} went unnoticed in {workloads:?}"),
        Err(error) => error.to_string(),
    }
}

/// The last of `workloads` has to notice the fault.
fn assert_caught<const FAULT: u8, const AFTER: u64>(workloads: &[Workload]) {
    let error = refusal::<FAULT, AFTER>(workloads);
    let last = workloads[workloads.len() - 1].name();
    assert!(error.starts_with(&format!("wrong answer: {last}: ")), "fault {FAULT}: {error}");
}

#[test]
fn wrong_gets_are_noticed() {
    for reads in [ReadRandom, ReadZipf, ReadUncompacted, ReadWhileWriting, YcsbA, YcsbB, YcsbC, YcsbD, MixGraph] {
        assert_caught::<FLIPS_A_BIT, 1000>(&[FillRandom, reads]);
        assert_caught::<MISSES_KEYS, 1000>(&[FillSeq, reads]);
    }
    assert_caught::<MAKES_UP_A_KEY, 3000>(&[FillRandom, ReadMissing]);
    assert_caught::<MISSES_KEYS, 1000>(&[FillRandom, DeleteRandom, ReadRandom]);
}

#[test]
fn old_values_are_noticed() {
    for writes in [ReadWhileWriting, YcsbA, YcsbB, MixGraph] {
        assert_caught::<ANSWERS_OLD_VALUES, 0>(&[FillRandom, writes]);
    }
    assert_caught::<ANSWERS_OLD_VALUES, 0>(&[FillRandom, Overwrite, ReadUncompacted]);
    let error = refusal::<KEEPS_THE_OLD, 14_000>(&[FillRandom, Overwrite, Scan]);
    assert!(error.contains("the value is that of version "), "{error}");
}

#[test]
fn wrong_scans_are_noticed() {
    for scans in [SeekRandom, SeekReverse, Scan, ScanReverse, YcsbE, MixGraph] {
        assert_caught::<SKIPS_IN_A_SCAN, 1000>(&[FillRandom, scans]);
        assert_caught::<LEAVES_OUT_IN_A_SCAN, 1000>(&[FillRandom, scans]);
        assert_caught::<FLIPS_A_BIT_IN_A_SCAN, 1000>(&[FillRandom, scans]);
    }
    assert_caught::<ENDS_SCANS_EARLY, 0>(&[FillRandom, Scan]);
    assert_caught::<ENDS_SCANS_EARLY, 0>(&[FillRandom, ScanReverse]);
    assert_caught::<SKIPS_IN_A_SCAN, 1000>(&[FillRandom, YcsbD, ScanReverse]);
}

#[test]
fn lost_writes_are_noticed() {
    assert_caught::<FORGETS_PUTS, 4999>(&[FillSeq, Scan]);
    assert_caught::<FORGETS_PUTS, 4999>(&[FillRandom, ScanReverse]);
    assert_caught::<FORGETS_PUTS, 199>(&[FillSync, Scan]);
    assert_caught::<TEARS_A_BATCH, 49>(&[FillBatch, Scan]);
    assert_caught::<LOSES_IN_A_LOAD, 4000>(&[BulkLoad, Scan]);
    assert_caught::<MISCOUNTS_A_LOAD, 0>(&[BulkLoad]);
    assert_caught::<FORGETS_PUTS, 19_999>(&[FillSeq, Overwrite, Scan]);
    assert_caught::<IGNORES_DELETES, 2000>(&[FillRandom, DeleteRandom, Scan]);
    assert_caught::<IGNORES_DELETES, 2000>(&[FillRandom, DeleteRandom, ReadRandom]);
    for writes in [ReadWhileWriting, YcsbA, YcsbB, YcsbD, YcsbE, MixGraph] {
        assert_caught::<FORGETS_PUTS, 5000>(&[FillRandom, writes]);
    }
    assert_caught::<FORGETS_UPDATES, 100>(&[FillRandom, YcsbF]);
    assert_caught::<UPDATES_BLINDLY, 100>(&[FillRandom, YcsbF]);
}

#[test]
fn failures_end_the_session_and_say_where() {
    let failed = refusal::<FAILS, 3000>(&[FillRandom, Scan]);
    assert_eq!(failed, "faulty: fillrandom: no space left");
    let failed = refusal::<FAILS, 6000>(&[FillRandom, YcsbA]);
    assert_eq!(failed, "faulty: ycsba: no space left");
    let failed = refusal::<FAILS, 6000>(&[FillRandom, ReadWhileWriting]);
    assert_eq!(failed, "faulty: readwhilewriting: no space left");
    let panicked = refusal::<PANICS, 6000>(&[FillRandom, YcsbA]);
    assert_eq!(panicked, "faulty: ycsba: panicked");
    assert!(refusal::<{ u8::MAX }, 0>(&[ReadRandom]).contains("begin with fillrandom"));
}

#[test]
fn what_a_workload_wrote_before_its_time_was_over_is_what_the_next_one_finds() {
    type Slow = Faulty<SLOW, 0>;
    let settings = Settings { phase_seconds: Some(1), scan_passes: 1, overwrite_passes: 100, threads: 1, ..settings() };
    for fill in [FillSeq, FillRandom, BulkLoad] {
        let measured = session::<Slow>(&settings, &[fill, ReadRandom, ReadZipf, Scan, Overwrite, ScanReverse]).unwrap();
        let written = measured[0].ops;
        assert!(measured[0].cut && (64..5000).contains(&written), "{:?}", measured[0]);
        assert_eq!(measured[0].live_bytes, written * 116);
        assert!(measured[1].ops > 0 && measured[2].ops > 0);
        assert_eq!(measured[3].ops, written);
        assert!(measured[4].cut && (64..written * 100).contains(&measured[4].ops), "{:?}", measured[4]);
        assert_eq!(measured[5].ops, written);
    }
    // Two threads, which end at different steps, and a scan that ends in the middle.
    let settings = Settings { scan_passes: 1 << 40, threads: 2, ..settings };
    let measured = session::<Slow>(&settings, &[FillRandom, Scan]).unwrap();
    assert!(measured[1].cut && measured[1].ops > measured[0].ops, "{:?}", measured[1]);
}
