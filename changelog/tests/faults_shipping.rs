//! Faults at every call while shipping: of the sink's filesystem, of the database's, of the sink itself. What was
//! acknowledged stays true, what helps to be tried again is, and shipping goes on to the same end once nothing fails.

mod common;
#[path = "common/faults.rs"]
mod faults;

use std::sync::Arc;
use std::time::Duration;

use common::{ManualClock, Random, changes, db_path, eager, log_path, read_all, write_randomly};
use faults::{enumerate, faulty, record};
use siltstone::fs::{Fault, FaultFileSystem, Keep, Op, SimFileSystem};
use siltstone::{ChangeBatch, Clock, Db, Options, SeqNo};
use siltstone_changelog::{
    Error, FileSink, FileSinkOptions, FileSource, Position, Result, RetryPolicy, Sink, Source, ship,
};
use siltstone_tests::faults::Injection;

fn options(fs: &FaultFileSystem) -> Options {
    Options::new().memory_bytes(4 << 20).background_threads(1).file_system(Arc::new(fs.clone()))
}

fn sink(fs: &FaultFileSystem) -> Result<FileSink> {
    FileSink::open_with(log_path(), FileSinkOptions::new().segment_bytes(600).file_system(Arc::new(fs.clone())))
}

fn source(fs: &FaultFileSystem) -> FileSource {
    FileSource::open_on(Arc::new(fs.clone()), log_path())
}

/// How far shipping got: the last position and number acknowledged to the caller, and the error that ended it.
#[derive(Debug, Default)]
struct Shipped {
    acknowledged: Option<(Position, SeqNo)>,
    error: Option<Error>,
    db: Option<Db>,
}

/// Writes and ships until something fails.
fn work(
    local: &FaultFileSystem,
    make: impl FnOnce() -> Result<Box<dyn Sink>>,
    clock: &Arc<ManualClock>,
    shipped: &mut Shipped,
) -> Result<()> {
    let db = options(local).open(db_path())?;
    shipped.db = Some(db.clone());
    let shipper = ship(&db, make()?, eager(clock))?;
    let mut random = Random(7);
    for _ in 0..5 {
        write_randomly(&db, &mut random, 3)?;
        let last = db.last_seqno();
        shipped.acknowledged = Some((shipper.flush()?, last));
    }
    shipper.stop().map(drop)
}

fn run(local: &FaultFileSystem, make: impl FnOnce() -> Result<Box<dyn Sink>>, clock: &Arc<ManualClock>) -> Shipped {
    let mut shipped = Shipped::default();
    shipped.error = work(local, make, clock, &mut shipped).err();
    shipped
}

/// The error says what failed where, whoever met it.
fn assert_clear(error: &Error, what: &str) {
    match error {
        Error::Stopped(why) => assert_clear(why, what),
        Error::Io { path, .. } => assert!(path.starts_with(log_path()), "{what}: {error}"),
        Error::Engine(siltstone::Error::Io { path, .. }) => assert!(path.starts_with(db_path()), "{what}: {error}"),
        Error::Engine(siltstone::Error::ReadOnly { reason }) => {
            assert!(reason.contains("os error"), "{what}: {error}");
        }
        Error::Foreign { source, .. } => assert!(source.to_string().contains("/log"), "{what}: {error}"),
        other => panic!("{what}: {other:?}"),
    }
}

/// What the sink holds is a first part of what the database holds, with everything acknowledged; shipping goes on from
/// there to the end, which then survives a power cut.
fn check(
    local: &FaultFileSystem,
    (remote_sim, remote): (&SimFileSystem, &FaultFileSystem),
    shipped: &Option<(Position, SeqNo)>,
    what: &str,
) {
    let db = options(local).open(db_path()).unwrap_or_else(|error| panic!("{what}: {error}"));
    let held = read_all(&source(remote)).unwrap_or_else(|error| panic!("{what}: {error}"));
    let here = changes(&db);
    assert!(here.starts_with(&held), "{what}: the sink holds {} batches, the log {}", held.len(), here.len());
    if let Some((position, last)) = shipped {
        assert!(held.last().is_some_and(|batch| batch.last_seqno() >= *last), "{what}: acknowledged {last}");
        assert!(source(remote).read(position).is_ok(), "{what}: {position} is a position of the log");
    }
    let sink = sink(remote).unwrap_or_else(|error| panic!("{what}: {error}"));
    let shipper = ship(&db, sink, eager(&Arc::default())).unwrap_or_else(|error| panic!("{what}: {error}"));
    write_randomly(&db, &mut Random(8), 3).unwrap();
    shipper.stop().unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(read_all(&source(remote)).unwrap(), changes(&db), "{what}: after shipping on");
    let left = faulty(&remote_sim.crash_clone(Keep::Nothing, 0));
    let held = read_all(&source(&left)).unwrap_or_else(|error| panic!("{what}, and a power cut: {error}"));
    assert_eq!(held, changes(&db), "{what}: acknowledged, but lost by a power cut");
    let files = remote_sim.paths();
    let others =
        files.iter().filter(|path| path.starts_with(log_path()) && path.extension().is_none_or(|e| e != "log"));
    let others: Vec<_> = others.map(|path| path.to_string_lossy().into_owned()).collect();
    let expected = others.len() == 2 && others[0] == "/log/LOCK" && others[1].starts_with("/log/OWNER-");
    assert!(expected, "{what}: a file is left over: {others:?}");
}

/// Tries again whatever fails, as a caller may who knows that the device recovers.
struct Stubborn(FileSink);

fn retryable<T>(answer: Result<T>) -> Result<T> {
    answer.map_err(|error| Error::Foreign { source: Box::new(error), retryable: true })
}

impl Sink for Stubborn {
    fn append(&mut self, batch: &ChangeBatch) -> Result<()> {
        retryable(self.0.append(batch))
    }

    fn flush(&mut self) -> Result<Position> {
        retryable(self.0.flush())
    }

    fn last_seqno(&mut self) -> Result<Option<SeqNo>> {
        self.0.last_seqno()
    }
}

#[test]
fn every_call_of_the_sinks_filesystem_fails() {
    let mut reopens = 0;
    let points = enumerate(|injection| {
        let [local_sim, remote_sim] = [(); 2].map(|()| SimFileSystem::new());
        let (local, remote) = (faulty(&local_sim), faulty(&remote_sim));
        let clock = Arc::new(ManualClock::default());
        injection.plan(&remote);
        let shipped = run(&local, || Ok(Box::new(sink(&remote)?)), &clock);
        let Some(injected) = remote.injected() else { return false };
        let what = format!("{injection:?} of the sink's filesystem ({injected:?})");
        remote.clear();
        if let Some(error) = &shipped.error {
            assert_clear(error, &what);
        }
        let db = shipped.db.unwrap();
        assert_eq!(db.metrics().read_only_reason, None, "{what}: the sink is no part of the database");
        drop(db);
        let left_sim = remote_sim.crash_clone(Keep::Nothing, 0);
        let after_cut = (&left_sim, &faulty(&left_sim));
        let local_again = faulty(&local_sim.crash_clone(Keep::All, 0));
        check(&local_again, after_cut, &shipped.acknowledged, &format!("{what}, after a power cut"));
        check(&local, (&remote_sim, &remote), &shipped.acknowledged, &what);
        reopens += 2;
        true
    });
    println!("{points} calls of the sink's filesystem");
    record(points, reopens);
}

#[test]
fn every_call_of_the_sinks_filesystem_fails_and_is_tried_again() {
    let (mut reopens, mut ridden_out) = (0, 0);
    let points = enumerate(|injection| {
        let [local_sim, remote_sim] = [(); 2].map(|()| SimFileSystem::new());
        let (local, remote) = (faulty(&local_sim), faulty(&remote_sim));
        let clock = Arc::new(ManualClock::default());
        // Open first: who opens has nothing yet that is worth trying again for.
        let opened = sink(&remote).unwrap();
        injection.plan(&remote);
        let shipped = run(&local, || Ok(Box::new(Stubborn(opened))), &clock);
        let Some(injected) = remote.injected() else { return false };
        let what = format!("{injection:?}, tried again ({injected:?})");
        remote.clear();
        match &shipped.error {
            Some(error) => {
                assert_clear(error, &what);
                assert!(clock.now() >= RetryPolicy::default().max_elapsed, "{what}: given up after {:?}", clock.now());
            }
            None => {
                ridden_out += 1;
                assert!(clock.now() > Duration::ZERO, "{what}: it did not wait");
            }
        }
        drop(shipped.db);
        check(&local, (&remote_sim, &remote), &shipped.acknowledged, &what);
        reopens += 1;
        true
    });
    println!("{points} calls, {ridden_out} ridden out");
    assert!(ridden_out > points / 4);
    record(points, reopens);
}

/// Nothing is shipped that the database may lose: also where a sync fails and a later one would succeed.
#[test]
fn every_call_of_the_databases_filesystem_fails() {
    let mut reopens = 0;
    let points = enumerate(|injection| {
        let [local_sim, remote_sim] = [(); 2].map(|()| SimFileSystem::new());
        let (local, remote) = (faulty(&local_sim), faulty(&remote_sim));
        injection.plan(&local);
        let shipped = run(&local, || Ok(Box::new(sink(&remote)?)), &Arc::default());
        let Some(injected) = local.injected() else { return false };
        let what = format!("{injection:?} of the database's filesystem ({injected:?})");
        local.clear();
        let left = faulty(&local_sim.crash_clone(Keep::Nothing, 0));
        if let Some(error) = &shipped.error {
            assert_clear(error, &what);
        }
        drop(shipped.db);
        let remote_copy = remote_sim.crash_clone(Keep::All, 0);
        let copy = (&remote_copy, &faulty(&remote_copy));
        check(&left, copy, &shipped.acknowledged, &format!("{what}, after a power cut"));
        check(&local, (&remote_sim, &remote), &shipped.acknowledged, &what);
        reopens += 2;
        true
    });
    println!("{points} calls of the database's filesystem");
    record(points, reopens);
}

/// Fails one call of the sink, or that and all later ones: before it does anything, or after.
struct Flaky {
    sink: FileSink,
    calls: u64,
    at: u64,
    for_good: bool,
    late: bool,
    retryable: bool,
    waits: Vec<Duration>,
    clock: Arc<ManualClock>,
}

impl Flaky {
    fn call<T>(&mut self, call: impl FnOnce(&mut FileSink) -> Result<T>) -> Result<T> {
        self.calls += 1;
        if self.calls < self.at || (self.calls > self.at && !self.for_good) {
            return call(&mut self.sink);
        }
        self.assert_backs_off();
        if self.late {
            call(&mut self.sink)?;
        }
        Err(Error::Foreign { source: "/log is out of reach".into(), retryable: self.retryable })
    }

    /// Each wait is at least half of what doubling gives, up to the longest, but for the last.
    fn assert_backs_off(&mut self) {
        self.waits.push(self.clock.now());
        let policy = RetryPolicy::default();
        let waits: Vec<Duration> = self.waits.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let whole = &waits[..waits.len().saturating_sub(1)];
        for (n, wait) in whole.iter().enumerate() {
            let longest = policy.max_backoff.min(policy.initial_backoff * (1 << n.min(10)));
            assert!(*wait >= longest / 2 && *wait <= longest, "wait {n}: {wait:?} of {longest:?}");
        }
    }
}

impl Sink for Flaky {
    fn append(&mut self, batch: &ChangeBatch) -> Result<()> {
        self.call(|sink| sink.append(batch))
    }

    fn flush(&mut self) -> Result<Position> {
        self.call(FileSink::flush)
    }

    fn last_seqno(&mut self) -> Result<Option<SeqNo>> {
        self.call(FileSink::last_seqno)
    }
}

#[test]
fn every_call_of_the_sink_fails() {
    let (mut points, mut reopens) = (0, 0);
    for (for_good, late, retryable) in
        [(false, false, true), (false, true, true), (false, false, false), (true, false, true), (true, true, true)]
    {
        // Enough calls for the whole run: five rounds of up to three batches and a flush, after asking for the number.
        for at in 1..=14 {
            let [local_sim, remote_sim] = [(); 2].map(|()| SimFileSystem::new());
            let (local, remote) = (faulty(&local_sim), faulty(&remote_sim));
            let clock = Arc::new(ManualClock::default());
            let inner = sink(&remote).unwrap();
            let (waits, calls) = (Vec::new(), 0);
            let flaky = Flaky { sink: inner, calls, at, for_good, late, retryable, waits, clock: clock.clone() };
            let shipped = run(&local, || Ok(Box::new(flaky)), &clock);
            let what = format!("the sink fails at call {at}, for good: {for_good}, late: {late}, {retryable}");
            // Asking for its number is part of starting, which is for the caller to try again.
            let ridden_out = retryable && !for_good && at > 1;
            assert_eq!(shipped.error.is_none(), ridden_out, "{what}: {:?}", shipped.error);
            if let Some(error) = &shipped.error {
                assert_clear(error, &what);
            }
            let db = shipped.db.unwrap();
            assert_eq!(db.metrics().read_only_reason, None, "{what}");
            if let (Some((_, last)), Some(next)) = (&shipped.acknowledged, db.change_cursor("changelog")) {
                assert!(next > *last, "{what}: {last} was acknowledged, but the cursor is at {next}");
            }
            drop(db);
            check(&local, (&remote_sim, &remote), &shipped.acknowledged, &what);
            (points, reopens) = (points + 1, reopens + 1);
        }
    }
    record(points, reopens);
}

/// A log in a file whose last bytes are torn goes on in the next segment only behind whole records.
#[test]
fn a_segment_is_not_sealed_with_a_torn_end() {
    let remote_sim = SimFileSystem::new();
    let remote = faulty(&remote_sim);
    let mut sink = sink(&remote).unwrap();
    let batches: Vec<ChangeBatch> = (1..=3).map(|n| common::put(n, &"v".repeat(700))).collect();
    sink.append(&batches[0]).unwrap();
    // The record is written and synced; of the mark behind it only a part is.
    Injection { only: Some(Op::Append), at: 2, fault: Fault::ShortWrite, for_good: false }.plan(&remote);
    sink.flush().unwrap_err();
    remote.clear();
    sink.flush().unwrap();
    for batch in &batches[1..] {
        sink.append(batch).unwrap();
        sink.flush().unwrap();
    }
    assert_eq!(read_all(&source(&remote)).unwrap(), batches);
}

/// Who follows a log goes on where it was when the sink has put its records into a new file.
#[test]
fn a_follower_goes_on_after_a_failed_sync_and_a_new_sink() {
    let remote_sim = SimFileSystem::new();
    let remote = faulty(&remote_sim);
    let mut first = sink(&remote).unwrap();
    Injection { only: Some(Op::Sync), at: 1, fault: Fault::DroppedPages, for_good: false }.plan(&remote);
    first.append(&common::put(1, "a")).unwrap();
    first.flush().unwrap_err();
    drop(first);
    let source = source(&remote);
    let mut follower = source.read(&source.bounds().unwrap().0).unwrap();
    assert_eq!(follower.next().unwrap().unwrap().1, common::put(1, "a"));
    assert!(follower.next().is_none());
    let mut second = sink(&remote).unwrap();
    assert_eq!(second.last_seqno().unwrap(), Some(1));
    second.append(&common::put(2, "b")).unwrap();
    second.flush().unwrap();
    assert_eq!(follower.next().unwrap().unwrap().1, common::put(2, "b"));
    let left = remote_sim.crash_clone(Keep::Nothing, 0);
    assert_eq!(read_all(&common::file_source(&left)).unwrap(), [common::put(1, "a"), common::put(2, "b")]);
}
