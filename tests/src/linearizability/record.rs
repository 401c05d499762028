//! Recording histories of concurrent calls against a real database, flushes and compactions under way.

use std::ops::Bound;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rand::RngExt;
use rand::rngs::StdRng;
use siltstone::{Db, Keyspace, SeqNo, Slice, Snapshot, WriteBatch};

use super::numbers::{Numbered, Numbers};
use super::{Call, Calls, Effect, KeyNumber, ValueNumber};
use crate::options::{Config, KEYSPACES};
use crate::runner::name;
use crate::steps::rng;

/// How many keys the calls are about; key `k` is in keyspace `k % 3`.
pub const KEYS: usize = 6;

/// How many threads call.
pub const THREADS: usize = 4;

/// How many calls each of them makes in one history.
pub const CALLS: usize = 60;

/// Which calls a history is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// Puts, deletes and gets of single keys, which are checked key by key.
    Single,
    /// Also batches, `get_many`, ranges and snapshots, which are about several keys.
    Several,
}

/// A database with its clock of moments and its source of values.
struct Recorder {
    db: Db,
    keyspaces: Vec<Keyspace>,
    clock: AtomicU64,
    next_value: AtomicU64,
}

/// What one thread recorded.
#[derive(Default)]
struct Recorded {
    calls: Vec<Call>,
    numbered: Vec<Numbered>,
}

fn key(number: KeyNumber) -> String {
    format!("key {number}")
}

/// The bytes that stand for a value: up to 3 KiB, all of them made from its number.
fn value(number: ValueNumber) -> Vec<u8> {
    let bytes = 4 + number.wrapping_mul(2_654_435_761) as usize % 3000;
    number.to_le_bytes().into_iter().cycle().take(bytes).collect()
}

/// The number of a value that was read; panics if the bytes are not those that were written.
fn number(found: Option<&Slice>) -> ValueNumber {
    let Some(found) = found else { return 0 };
    let number = found.first_chunk().copied().map_or(0, ValueNumber::from_le_bytes);
    assert!(found[..] == value(number)[..], "these bytes were never written: {found:?}");
    number
}

impl Recorder {
    fn open(path: &Path, config: &Config) -> Self {
        let db = config.options.clone().open(path).unwrap();
        let open = |n: usize| db.keyspace(name(n), config.keyspaces[n].clone()).unwrap();
        let keyspaces = (0..KEYSPACES).map(open).collect();
        Recorder { db, keyspaces, clock: AtomicU64::new(0), next_value: AtomicU64::new(1) }
    }

    fn keyspace_of(&self, key: KeyNumber) -> &Keyspace {
        &self.keyspaces[key % KEYSPACES]
    }

    fn new_value(&self) -> ValueNumber {
        self.next_value.fetch_add(1, Ordering::Relaxed) as ValueNumber
    }

    fn moment(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    /// What `call` answers, between the moments around it.
    fn time<R>(&self, call: impl FnOnce() -> R) -> (u64, R, u64) {
        let invoked = self.moment();
        let answer = call();
        (invoked, answer, self.moment())
    }

    fn write(&self, to: &mut Recorded, name: &'static str, entries: &[(KeyNumber, ValueNumber)]) {
        let (invoked, seqno, responded) = match *entries {
            [(at, 0)] => self.time(|| self.keyspace_of(at).delete(key(at)).unwrap()),
            [(at, number)] => self.time(|| self.keyspace_of(at).put(key(at), value(number)).unwrap()),
            _ => self.write_batch(entries),
        };
        let numbers = Numbers::Written { first: seqno + 1 - entries.len() as SeqNo, last: seqno };
        to.numbered.push(Numbered { invoked, responded, numbers, entries: entries.to_vec() });
        to.calls.push(Call { name, invoked, responded, effect: Effect::Write(entries.to_vec()) });
    }

    fn write_batch(&self, entries: &[(KeyNumber, ValueNumber)]) -> (u64, SeqNo, u64) {
        let mut batch = WriteBatch::new();
        for &(at, number) in entries {
            match number {
                0 => batch.delete(self.keyspace_of(at), key(at)),
                _ => batch.put(self.keyspace_of(at), key(at), value(number)),
            };
        }
        self.time(|| self.db.write(batch).unwrap())
    }

    fn get(&self, to: &mut Recorded, at: KeyNumber) {
        let (invoked, found, responded) = self.time(|| self.keyspace_of(at).get(key(at)).unwrap());
        let effect = Effect::Read(vec![(at, number(found.as_ref()))]);
        to.calls.push(Call { name: "get", invoked, responded, effect });
    }

    /// Reads a whole keyspace at once, by `get_many` or by a range from either end.
    fn read_keyspace(&self, to: &mut Recorded, rng: &mut StdRng) {
        let which = rng.random_range(0..KEYSPACES);
        let (keyspace, keys) = (&self.keyspaces[which], (which..KEYS).step_by(KEYSPACES));
        let names: Vec<String> = keys.clone().map(key).collect();
        if rng.random() {
            let (invoked, found, responded) = self.time(|| keyspace.get_many(&names).unwrap());
            let found = keys.zip(found.iter().map(|value| number(value.as_ref()))).collect();
            return to.calls.push(Call { name: "get_many", invoked, responded, effect: Effect::Read(found) });
        }
        let bounds = (Bound::Included(&names[0]), Bound::Included(&names[names.len() - 1]));
        // A point in time: that of the call, however late it is read.
        let (invoked, iter, responded) = self.time(|| keyspace.range::<&String>(bounds));
        std::thread::yield_now();
        let entries: Vec<_> = if rng.random() {
            iter.map(|entry| entry.unwrap()).collect()
        } else {
            iter.rev().map(|entry| entry.unwrap()).collect()
        };
        let of = |at: KeyNumber| entries.iter().find(|(found, _)| *found == key(at)).map(|(_, value)| value);
        let found: Vec<_> = keys.map(|at| (at, number(of(at)))).collect();
        assert_eq!(found.iter().filter(|(_, value)| *value > 0).count(), entries.len(), "{entries:?}");
        to.calls.push(Call { name: "range", invoked, responded, effect: Effect::Read(found) });
    }

    fn read_all(&self, snapshot: &Snapshot) -> Vec<(KeyNumber, ValueNumber)> {
        let get = |at| number(snapshot.get(self.keyspace_of(at), key(at)).unwrap().as_ref());
        (0..KEYS).map(|at| (at, get(at))).collect()
    }

    fn read_snapshot(&self, to: &mut Recorded) {
        let (invoked, snapshot, responded) = self.time(|| self.db.snapshot());
        std::thread::yield_now();
        let found = self.read_all(&snapshot);
        let numbers = Numbers::Seen { at: snapshot.seqno() };
        to.numbered.push(Numbered { invoked, responded, numbers, entries: found.clone() });
        to.calls.push(Call { name: "snapshot", invoked, responded, effect: Effect::Read(found) });
    }

    fn call(&self, to: &mut Recorded, mix: Mix, rng: &mut StdRng) {
        let at = rng.random_range(0..KEYS);
        let value = if rng.random_bool(0.2) { 0 } else { self.new_value() };
        let kinds = if mix == Mix::Single { 55 } else { 100 };
        match rng.random_range(0..kinds) {
            0..25 => self.write(to, if value == 0 { "delete" } else { "put" }, &[(at, value)]),
            25..55 => self.get(to, at),
            55..75 => {
                let other = (at + rng.random_range(1..KEYS)) % KEYS;
                self.write(to, "batch", &[(at, value), (other, self.new_value())]);
            }
            75..90 => self.read_keyspace(to, rng),
            _ => self.read_snapshot(to),
        }
        if rng.random_bool(0.2) {
            std::thread::yield_now();
        }
    }

    /// What nobody has to wait for, at random, until `done`.
    fn upkeep(&self, done: &AtomicBool, rng: &mut StdRng) {
        while !done.load(Ordering::Acquire) {
            let keyspace = &self.keyspaces[rng.random_range(0..KEYSPACES)];
            match rng.random_range(0..10) {
                0..5 => keyspace.flush().unwrap(),
                5..7 => keyspace.compact().unwrap(),
                7 => self.db.sync().unwrap(),
                _ => self.db.wait_for_compaction().unwrap(),
            }
        }
    }

    /// Runs all threads once; what they called, and the numbers that they learned.
    fn record(&self, mix: Mix, seed: u64) -> (Calls, Vec<Numbered>) {
        let initial = self.read_all(&self.db.snapshot()).into_iter().map(|(_, value)| value).collect();
        let (barrier, done) = (Barrier::new(THREADS), AtomicBool::new(false));
        let run = |thread: usize| {
            let (mut recorded, rng) = (Recorded::default(), &mut rng(seed << 8 | thread as u64));
            barrier.wait();
            (0..CALLS).for_each(|_| self.call(&mut recorded, mix, rng));
            recorded
        };
        let recorded: Vec<Recorded> = std::thread::scope(|scope| {
            let callers: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || run(thread))).collect();
            scope.spawn(|| self.upkeep(&done, &mut rng(seed << 8 | 0xff)));
            let answers: Vec<_> = callers.into_iter().map(|caller| caller.join()).collect();
            done.store(true, Ordering::Release);
            answers.into_iter().map(|answer| answer.expect("a caller panicked")).collect()
        });
        let (threads, numbered): (_, Vec<_>) = recorded.into_iter().map(|r| (r.calls, r.numbered)).unzip();
        let mut last = Recorded::default();
        self.read_snapshot(&mut last);
        let mut calls = Calls { initial, threads };
        calls.threads.push(last.calls);
        (calls, numbered.into_iter().flatten().chain(last.numbered).collect())
    }
}

/// Records and checks `histories` histories of a database whose configuration is drawn from `seed`; answers how many
/// calls they hold.
///
/// # Panics
/// On the first violation, with the seed and the calls.
pub fn histories(seed: u64, mix: Mix, histories: u64) -> u64 {
    let rng = &mut rng(seed);
    let config = Config::random(rng);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let recorder = Recorder::open(directory.path(), &config);
    let mut count = 0;
    for history in 0..histories {
        let what = format!("histories({seed}, {mix:?}, ..), history {history}, {config:?}");
        let before = recorder.db.last_seqno();
        let (calls, numbered) = recorder.record(mix, seed << 16 | history);
        let last_seqno = recorder.db.last_seqno();
        calls.check().unwrap_or_else(|reason| panic!("{what}: not linearizable: {reason}"));
        super::numbers::check(&calls.initial, before, last_seqno, &numbered)
            .unwrap_or_else(|reason| panic!("{what}: {reason}"));
        count += calls.len() as u64;
    }
    let report = recorder.db.verify();
    assert!(report.is_ok(), "histories({seed}, {mix:?}, ..): {report}");
    recorder.db.close().unwrap();
    count
}
