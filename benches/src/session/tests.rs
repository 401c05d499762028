//! Right engines pass, wrong ones do not.

use std::sync::atomic::{AtomicU64, Ordering};

use clap::ValueEnum;

use super::*;
use crate::engines::{Accounts, Direction, Floor, Siltstone};

fn settings() -> Settings {
    Settings { keys: 5000, memory_mib: 16, threads: 2, ..Settings::default() }
}

fn lines<E: Engine>(workloads: &[Workload]) -> Result<Vec<Line>> {
    let dir = tempfile::tempdir().unwrap();
    let mut out = Vec::new();
    let steps: Vec<_> = workloads.iter().copied().map(Step::from).collect();
    run::<E>(&settings(), &steps, dir.path(), &mut out)?;
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
    Ok(String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

#[test]
fn every_workload_runs_and_counts_its_operations() {
    let mut workloads = Workload::value_variants().to_vec();
    workloads.extend([Workload::Overwrite, Workload::ReadRandom, Workload::Scan]);
    for lines in [lines::<Floor>(&workloads).unwrap(), lines::<Siltstone>(&workloads).unwrap()] {
        let measured: Vec<_> = lines
            .iter()
            .filter_map(|line| if let Line::Measured(measured) = line { Some(&**measured) } else { None })
            .collect();
        assert_eq!(measured.iter().map(|measured| measured.workload).collect::<Vec<_>>(), workloads);
        for measured in &measured {
            assert!(measured.ops > 0 && measured.seconds > 0.0 && measured.latencies.samples > 0, "{measured:?}");
            assert!(measured.caller_cpu_ns > 0 && measured.caller_cpu_ns <= measured.cpu_ns, "{measured:?}");
            assert!(measured.disk_bytes > 0, "{measured:?}");
        }
        let ops_of = |at: usize| measured[at].ops;
        let live_after_deletes = measured[4].live_bytes / 116;
        assert_eq!(ops_of(0), 5000);
        assert_eq!(ops_of(3), 5000 - live_after_deletes, "deletes");
        assert_eq!(ops_of(6), 500, "seeks");
        assert_eq!(ops_of(7), 2 * 5 * live_after_deletes, "two threads pass over what is left");
        assert_eq!(ops_of(11), 2 * 5 * 5000, "the overwrite brought the deleted keys back");
    }
}

/// What is wrong with a [`Faulty`] engine.
const FLIPS_A_BIT: u8 = 0;
const FORGETS_A_PUT: u8 = 1;
const KEEPS_THE_OLD: u8 = 2;
const MAKES_UP_A_KEY: u8 = 3;
const IGNORES_A_DELETE: u8 = 4;
const SKIPS_IN_SCANS: u8 = 5;
const ENDS_A_SCAN_EARLY: u8 = 6;
const FAILS: u8 = 7;

/// A floor that goes wrong once, at its 3,000th operation of a kind.
struct Faulty<const FAULT: u8> {
    inner: Floor,
    operations: AtomicU64,
}

impl<const FAULT: u8> Faulty<FAULT> {
    fn strikes(&self, fault: u8) -> bool {
        fault == FAULT && self.operations.fetch_add(1, Ordering::Relaxed) == 3000
    }
}

impl<const FAULT: u8> Engine for Faulty<FAULT> {
    const NAME: &'static str = "faulty";
    const NOTES: &'static str = "";

    fn open(dir: &Path, settings: &Settings) -> Result<Self> {
        Ok(Faulty { inner: Floor::open(dir, settings)?, operations: AtomicU64::new(0) })
    }

    fn reopen(dir: &Path, settings: &Settings) -> Result<Self> {
        Ok(Faulty { inner: Floor::reopen(dir, settings)?, operations: AtomicU64::new(0) })
    }

    fn put_batch(&self, puts: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        puts.iter().try_for_each(|(key, value)| self.put(key, value))
    }

    fn bulk_load<K: AsRef<[u8]>, V: AsRef<[u8]>>(&self, entries: impl Iterator<Item = (K, V)>) -> Result<u64> {
        let mut count = 0;
        for (key, value) in entries {
            self.put(key.as_ref(), value.as_ref())?;
            count += 1;
        }
        Ok(count)
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        if self.strikes(FORGETS_A_PUT) {
            return Ok(());
        }
        if self.strikes(FAILS) {
            return Err(Error::engine(Self::NAME, "no space left"));
        }
        let old = FAULT == KEEPS_THE_OLD && self.inner.get(key, |_| ())?.is_some();
        if old && self.strikes(KEEPS_THE_OLD) { Ok(()) } else { self.inner.put(key, value) }
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        // The only fault with deletes; there are some 2,500 of them.
        if FAULT == IGNORES_A_DELETE && self.operations.fetch_add(1, Ordering::Relaxed) == 1000 {
            return Ok(());
        }
        self.inner.delete(key)
    }

    fn get<R>(&self, key: &[u8], visit: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        if self.strikes(FLIPS_A_BIT) {
            let value = self.inner.get(key, <[u8]>::to_vec)?;
            return Ok(value.map(|mut value| {
                value[50] ^= 1;
                visit(&value)
            }));
        }
        if self.strikes(MAKES_UP_A_KEY) {
            return Ok(Some(visit(b"")));
        }
        self.inner.get(key, visit)
    }

    fn scan(
        &self,
        from: Option<&[u8]>,
        direction: Direction,
        limit: usize,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<()>,
    ) -> Result<u64> {
        if FAULT == ENDS_A_SCAN_EARLY && limit == usize::MAX {
            return self.inner.scan(from, direction, 4999, visit);
        }
        let skipping = |key: &[u8], value: &[u8]| if self.strikes(SKIPS_IN_SCANS) { Ok(()) } else { visit(key, value) };
        self.inner.scan(from, direction, limit, skipping)
    }

    fn settle(&self) -> Result<()> {
        self.inner.settle()
    }

    fn accounts(&self) -> Accounts {
        self.inner.accounts()
    }

    fn close(self) -> Result<()> {
        self.inner.close()
    }
}

fn refusal<const FAULT: u8>(workloads: &[Workload]) -> String {
    match lines::<Faulty<FAULT>>(workloads) {
        Ok(_) => panic!("fault {FAULT} went unnoticed"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_wrong_engine_cannot_finish() {
    use Workload::*;
    let all = [FillRandom, Overwrite, DeleteRandom, Overwrite, ReadRandom, ReadMissing, SeekRandom, Scan];
    let errors = [
        refusal::<FLIPS_A_BIT>(&all),
        refusal::<KEEPS_THE_OLD>(&[FillRandom, Overwrite, Scan]),
        refusal::<FORGETS_A_PUT>(&[FillSeq, Scan]),
        refusal::<FORGETS_A_PUT>(&[FillSeq, ScanReverse]),
        refusal::<MAKES_UP_A_KEY>(&[FillRandom, ReadMissing]),
        refusal::<IGNORES_A_DELETE>(&[FillRandom, DeleteRandom, Scan]),
        refusal::<SKIPS_IN_SCANS>(&[FillRandom, SeekRandom]),
        refusal::<SKIPS_IN_SCANS>(&[FillRandom, ScanReverse]),
        refusal::<ENDS_A_SCAN_EARLY>(&[FillRandom, Scan]),
    ];
    for error in &errors {
        assert!(error.starts_with("wrong answer: "), "{error}");
    }
    assert!(errors[0].contains("readrandom") && errors[1].contains("version 1"), "{errors:?}");
    let failed = refusal::<FAILS>(&all);
    assert!(failed == "faulty: fillrandom: no space left", "{failed}");
    assert!(refusal::<{ u8::MAX }>(&[ReadRandom]).contains("begin with fillrandom"));
}

#[test]
fn shares_cover_all_steps_once() {
    for (steps, threads) in [(0, 3), (1, 3), (10, 3), (12, 4), (u64::MAX, 7)] {
        let shares: Vec<_> = (0..threads).map(|number| share(steps, number, threads)).collect();
        assert_eq!((shares[0].start, shares[shares.len() - 1].end), (0, steps));
        assert!(shares.windows(2).all(|pair| pair[0].end == pair[1].start));
    }
}
