//! One list of operations under many configurations: every history is the same, and the model's.
//!
//! The lists are those of the seeds from `SILTSTONE_SEED` (default 1) on, `SILTSTONE_METAMORPHIC_LISTS` of them
//! (default 6). A list that fails is reduced and printed as a test; put that here, run it, mend what it shows, and keep
//! it.

use std::ops::Bound;
use std::sync::Arc;

use siltstone::Durability;
use siltstone::fs::{FileSystem, Op};
use siltstone_tests::hook::{HookFileSystem, Moment};
use siltstone_tests::metamorphic::{self, Fault, Reduced, plan, run};
use siltstone_tests::model::Mistake;
use siltstone_tests::options::Config;
use siltstone_tests::steps::{Step, list};
use siltstone_tests::{configurations, evidence, source};

const LISTS: u64 = 6;
const SEED: u64 = 1;

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

#[test]
fn histories_are_the_same_under_every_configuration() {
    let seed = variable("SILTSTONE_SEED", SEED);
    println!("SILTSTONE_SEED={seed}");
    let lists = variable("SILTSTONE_METAMORPHIC_LISTS", LISTS);
    (seed..seed + lists).for_each(metamorphic::round);
    evidence::record("metamorphic_configurations", configurations::all().len() as u64);
}

// ---- the net has no holes: deliberate mistakes are found, reduced and printed ----

/// What is left of the first list of operations that `fit` that fails.
fn find_and_reduce(config: &Config, mistake: Option<Mistake>, fit: impl Fn(&Step) -> bool) -> Reduced {
    let failing = (1..20).find_map(|seed| {
        let mut steps = list(seed, 150);
        steps.retain(&fit);
        let planned = plan(config, seed, &steps);
        run(config, &planned, mistake).err().map(|fault: Fault| (planned, fault))
    });
    let (planned, fault) = failing.expect("some list of a few meets the mistake");
    metamorphic::reduced(config, &planned, &fault, mistake)
}

#[test]
fn a_wrong_answer_is_reduced_to_the_fewest_operations() {
    let found = find_and_reduce(&configurations::named("tiny"), Some(Mistake::KeepsDeleted), |_| true);
    let (keyspace, key) = (0, vec![]);
    let fewest = [Step::Put { keyspace, key: key.clone(), value: vec![] }, Step::Delete { keyspace, key }];
    assert_eq!(found.steps, fewest, "{}", found.fault.message);
    check_printed(&found.test);
}

#[test]
fn so_is_one_of_a_snapshot_under_a_configuration_that_reopens() {
    let found =
        find_and_reduce(&configurations::named("reopened between"), Some(Mistake::ForgetsInSnapshots), |_| true);
    let entries: usize = found.steps.iter().map(written).sum();
    assert_eq!((entries, found.steps.last()), (3, Some(&Step::TakeSnapshot)), "{}", found.test);
    assert!(found.steps.len() <= 4, "{}", found.test);
}

/// How many operations a step writes.
fn written(step: &Step) -> usize {
    match step {
        Step::Put { .. } => 1,
        Step::PutAll { entries, .. } | Step::Ingest { entries, .. } => entries.len(),
        Step::Write { batch: writes, .. } | Step::Apply { writes, .. } => writes.len(),
        _ => 0,
    }
}

#[test]
fn so_is_one_of_a_batch() {
    let found = find_and_reduce(&configurations::named("not logged"), Some(Mistake::CutsBatches), |_| true);
    assert_eq!(found.steps.len(), 1, "{}", found.test);
    assert!(
        matches!(&found.steps[0], Step::DeleteAll { keys, .. } if keys.len() == 5) || written(&found.steps[0]) == 5
    );
}

/// Panics where a table is read by the thread of a caller.
fn panicking(inner: Arc<dyn FileSystem>) -> Arc<dyn FileSystem> {
    let hook = |moment: &Moment<'_>| {
        let background = std::thread::current().name().is_some_and(|name| name.starts_with("siltstone"));
        let table = moment.path.extension().is_some_and(|extension| extension == "table");
        assert!(background || !table || moment.op != Op::Read, "a deliberate panic");
    };
    Arc::new(HookFileSystem::new(inner, hook))
}

#[test]
fn a_panic_inside_the_engine_is_reduced_as_well() {
    let config = Config { wrap: panicking, ..configurations::named("pread") };
    // Of these only a flush writes a table, and it is waited for: the list fails every time or never.
    let found = find_and_reduce(&config, None, |step| match step {
        Step::Put { value, .. } => value.len() < 100,
        _ => matches!(step, Step::Get { .. } | Step::Flush { .. } | Step::Range { .. } | Step::TakeSnapshot),
    });
    assert!(found.fault.message.ends_with("a deliberate panic"), "{}", found.fault.message);
    let fewest = [Step::Put { keyspace: 0, key: vec![], value: vec![] }, Step::Flush { keyspace: 0 }];
    assert_eq!(found.steps, fewest, "{}", found.test);
}

// ---- what is printed compiles: it stands here ----

/// The test has to stand in this file as it was printed.
fn check_printed(test: &str) {
    assert!(include_str!("metamorphic.rs").contains(test), "not in this file:\n{test}");
}

#[test]
#[rustfmt::skip]
fn reduced() {
    use siltstone_tests::steps::Step;
    siltstone_tests::metamorphic::replay(&siltstone_tests::configurations::named("tiny"), &[
        Step::Put { keyspace: 0, key: vec![], value: vec![] },
        Step::Delete { keyspace: 0, key: vec![] },
    ]);
}

#[test]
#[rustfmt::skip]
fn each_operation_as_printed() {
    use siltstone_tests::steps::Step;
    siltstone_tests::metamorphic::replay(&siltstone_tests::options::Config::seeded(3), &[
        Step::Put { keyspace: 1, key: b"a \"key\"\\\n\xff".to_vec(), value: vec![0; 9000] },
        Step::Delete { keyspace: 1, key: b"a \"key\"\\\n\xff".to_vec() },
        Step::Write { batch: vec![(0, b"a \"key\"\\\n\xff".to_vec(), Some(b"\x01\x02\x03".to_vec())), (2, vec![], None)], metadata: vec![(0, Some(b"a \"key\"\\\n\xff".to_vec())), (1, None)], durability: None },
        Step::Write { batch: vec![(0, b"a \"key\"\\\n\xff".to_vec(), Some(b"\x01\x02\x03".to_vec())), (2, vec![], None)], metadata: vec![], durability: Some(siltstone::Durability::NoLog) },
        Step::PutAll { keyspace: 1, entries: vec![(b"a \"key\"\\\n\xff".to_vec(), vec![]), (vec![120; 20], b"a \"key\"\\\n\xff".to_vec())] },
        Step::DeleteAll { keyspace: 1, keys: vec![b"a \"key\"\\\n\xff".to_vec(), vec![]] },
        Step::Ingest { keyspace: 1, entries: vec![(vec![], vec![120; 20]), (b"a \"key\"\\\n\xff".to_vec(), vec![])], unfollowed: true },
        Step::Apply { at: 2, writes: vec![(0, b"a \"key\"\\\n\xff".to_vec(), Some(b"\x01\x02\x03".to_vec())), (2, vec![], None)], metadata: vec![(1, b"m".to_vec())] },
        Step::ApplyDrop { at: 0, keyspace: 2, writes: vec![(0, b"a \"key\"\\\n\xff".to_vec(), Some(b"\x01\x02\x03".to_vec())), (2, vec![], None)], metadata: vec![(1, b"m".to_vec())] },
        Step::Get { keyspace: 1, key: b"a \"key\"\\\n\xff".to_vec() },
        Step::GetMany { keyspace: 1, keys: vec![b"a \"key\"\\\n\xff".to_vec()] },
        Step::Range { keyspace: 1, bounds: (std::ops::Bound::Included(b"a \"key\"\\\n\xff".to_vec()), std::ops::Bound::Excluded(vec![7; 600])), ends: 0xff },
        Step::Prefix { keyspace: 1, prefix: b"a".to_vec(), ends: 0xffffffffffffffff },
        Step::Iterate { keyspace: 1, ends: 0xff },
        Step::ApproximateLen { keyspace: 1 },
        Step::TakeSnapshot,
        Step::ReadSnapshot { which: 2, keyspace: 1, then: true, bounds: (std::ops::Bound::Unbounded, std::ops::Bound::Included(vec![])), ends: 0xff },
        Step::ReadSnapshotPrefix { which: 2, keyspace: 1, then: false, prefix: vec![], ends: 0xff },
        Step::GetSnapshot { which: 2, keyspace: 1, then: true, keys: vec![b"a \"key\"\\\n\xff".to_vec()] },
        Step::OpenIter { keyspace: 1, bounds: (std::ops::Bound::Included(b"a \"key\"\\\n\xff".to_vec()), std::ops::Bound::Excluded(vec![7; 600])) },
        Step::OpenSnapshotIter { which: 2, keyspace: 1, then: true },
        Step::AdvanceIter { which: 2, count: 3, ends: 255 },
        Step::DropIter { which: 2 },
        Step::DropSnapshot { which: 2 },
        Step::Metadata { name: 1 },
        Step::Changes { at: -3 },
        Step::OpenChanges { at: -3 },
        Step::FollowChanges { which: 2 },
        Step::DropChanges { which: 2 },
        Step::SetCursor { name: 0, at: -3, metadata: vec![(1, b"m".to_vec())] },
        Step::Cursor { name: 0 },
        Step::RemoveCursor { name: 0 },
        Step::Sync,
        Step::Flush { keyspace: 1 },
        Step::FlushAll,
        Step::Compact { keyspace: 1 },
        Step::WaitForCompaction,
        Step::Verify,
        Step::Metrics,
        Step::Replicate,
        Step::ListKeyspaces,
        Step::OpenKeyspace { keyspace: 1, default_options: true },
        Step::DropKeyspace { keyspace: 1, recreate: true },
        Step::CloseAndOpen,
        Step::DropAndOpen,
        Step::OpenReadOnly,
        Step::OpenTwice,
        Step::BadArguments { keyspace: 1 },
        Step::ForeignHandles { keyspace: 1 },
    ]);
}

/// An operation of every kind, with arguments of every shape.
fn each_operation() -> Vec<Step> {
    let key = || b"a \"key\"\\\n\xff".to_vec();
    let (keyspace, which, ends, then, at) = (1, 2, 0xff, true, -3);
    let bounds = || (Bound::Included(key()), Bound::Excluded(vec![7; 600]));
    let unbounded = || (Bound::Unbounded, Bound::Included(vec![]));
    let writes = || vec![(0, key(), Some(vec![1, 2, 3])), (2, vec![], None)];
    let metadata = || vec![(1, b"m".to_vec())];
    vec![
        Step::Put { keyspace, key: key(), value: vec![0; 9000] },
        Step::Delete { keyspace, key: key() },
        Step::Write { batch: writes(), metadata: vec![(0, Some(key())), (1, None)], durability: None },
        Step::Write { batch: writes(), metadata: vec![], durability: Some(Durability::NoLog) },
        Step::PutAll { keyspace, entries: vec![(key(), vec![]), (vec![b'x'; 20], key())] },
        Step::DeleteAll { keyspace, keys: vec![key(), vec![]] },
        Step::Ingest { keyspace, entries: vec![(vec![], vec![b'x'; 20]), (key(), vec![])], unfollowed: true },
        Step::Apply { at: 2, writes: writes(), metadata: metadata() },
        Step::ApplyDrop { at: 0, keyspace: 2, writes: writes(), metadata: metadata() },
        Step::Get { keyspace, key: key() },
        Step::GetMany { keyspace, keys: vec![key()] },
        Step::Range { keyspace, bounds: bounds(), ends },
        Step::Prefix { keyspace, prefix: b"a".to_vec(), ends: u64::MAX },
        Step::Iterate { keyspace, ends },
        Step::ApproximateLen { keyspace },
        Step::TakeSnapshot,
        Step::ReadSnapshot { which, keyspace, then, bounds: unbounded(), ends },
        Step::ReadSnapshotPrefix { which, keyspace, then: false, prefix: vec![], ends },
        Step::GetSnapshot { which, keyspace, then, keys: vec![key()] },
        Step::OpenIter { keyspace, bounds: bounds() },
        Step::OpenSnapshotIter { which, keyspace, then },
        Step::AdvanceIter { which, count: 3, ends },
        Step::DropIter { which },
        Step::DropSnapshot { which },
        Step::Metadata { name: 1 },
        Step::Changes { at },
        Step::OpenChanges { at },
        Step::FollowChanges { which },
        Step::DropChanges { which },
        Step::SetCursor { name: 0, at, metadata: metadata() },
        Step::Cursor { name: 0 },
        Step::RemoveCursor { name: 0 },
        Step::Sync,
        Step::Flush { keyspace },
        Step::FlushAll,
        Step::Compact { keyspace },
        Step::WaitForCompaction,
        Step::Verify,
        Step::Metrics,
        Step::Replicate,
        Step::ListKeyspaces,
        Step::OpenKeyspace { keyspace, default_options: true },
        Step::DropKeyspace { keyspace, recreate: true },
        Step::CloseAndOpen,
        Step::DropAndOpen,
        Step::OpenReadOnly,
        Step::OpenTwice,
        Step::BadArguments { keyspace },
        Step::ForeignHandles { keyspace },
    ]
}

#[test]
fn every_operation_prints_as_it_is_written() {
    check_printed(&source::test("each_operation_as_printed", &Config::seeded(3), &each_operation()));
}
