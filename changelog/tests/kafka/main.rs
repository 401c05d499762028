//! Shipping to a real Kafka broker, and what comes back.

mod broker;
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/process.rs"]
mod process;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use broker::Broker;
use common::{Random, changes, contents, put, read_all, without_empty, write_randomly};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use siltstone::{Change, ChangeBatch, Db, Options, WriteBatch};
use siltstone_changelog::{
    Error, KafkaOptions, KafkaSink, KafkaSource, Moment, Position, Restore, ShipOptions, Shipper, Sink, Source, ship,
};

const SEED: u64 = 20_261_130;

/// The broker that tests share which leave it alone.
fn shared() -> Option<&'static Mutex<Broker>> {
    static BROKER: OnceLock<Option<Mutex<Broker>>> = OnceLock::new();
    BROKER.get_or_init(|| Broker::start().map(Mutex::new)).as_ref()
}

/// A log of its own on the shared broker.
fn options() -> Option<KafkaOptions> {
    static LOGS: AtomicUsize = AtomicUsize::new(0);
    let address = shared()?.lock().unwrap().address();
    let prefix = format!("test{}", LOGS.fetch_add(1, Ordering::Relaxed));
    Some(KafkaOptions::new(address, prefix).unwrap().replication_factor(1))
}

/// A database that keeps its whole log, and ships it.
struct Shipping {
    db: Db,
    shipper: Shipper,
    random: Random,
    _directory: tempfile::TempDir,
}

impl Shipping {
    fn to(options: &KafkaOptions) -> Self {
        println!("seed {SEED}");
        let directory = tempfile::tempdir().unwrap();
        let db = Options::new().memory_bytes(16 << 20).open(directory.path()).unwrap();
        let shipper = ship(&db, KafkaSink::open(options.clone()).unwrap(), ShipOptions::new()).unwrap();
        Shipping { db, shipper, random: Random(SEED), _directory: directory }
    }

    fn write(&mut self, batches: u64) {
        write_randomly(&self.db, &mut self.random, batches).unwrap();
    }

    /// What the log restores is what is here.
    fn check(&self, options: &KafkaOptions) -> Position {
        let directory = tempfile::tempdir().unwrap();
        let restore = Restore::new(KafkaSource::open(options.clone())).into(directory.path());
        let (again, position) = restore.run().unwrap();
        assert_eq!(without_empty(contents(&again)), without_empty(contents(&self.db)));
        assert_eq!(again.last_seqno(), self.db.last_seqno());
        position
    }
}

fn everything(options: &KafkaOptions) -> Vec<ChangeBatch> {
    read_all(&KafkaSource::open(options.clone())).unwrap()
}

#[test]
fn what_is_shipped_is_restored_and_shipping_goes_on_after_a_restart() {
    let Some(options) = options() else { return };
    let mut shipping = Shipping::to(&options);
    shipping.write(400);
    let end = shipping.shipper.flush().unwrap();
    assert_eq!(shipping.check(&options), end);
    shipping.shipper.stop().unwrap();
    // Another writer of the same database goes on where the first was.
    let sink = KafkaSink::open(options.clone()).unwrap();
    shipping.shipper = ship(&shipping.db, sink, ShipOptions::new()).unwrap();
    shipping.write(30);
    shipping.shipper.flush().unwrap();
    shipping.check(&options);
    let batches = everything(&options);
    assert!(batches.windows(2).all(|pair| pair[0].last_seqno() < pair[1].first_seqno()));
}

#[test]
fn keys_spread_over_partitions_come_back_in_whole_batches() {
    let Some(options) = options() else { return };
    let options = options.partitions(4);
    let shipping = Shipping::to(&options);
    let ks = |name: &str| shipping.db.keyspace(name, Default::default()).unwrap();
    let (a, b) = (ks("a"), ks("größe.1_x"));
    for round in 0..300u32 {
        let key = |number: u32| format!("key{:03}", number % 200);
        let mut both = WriteBatch::new();
        both.put(&a, key(round), "1").put(&b, key(round * 7), round.to_string()).delete(&a, key(round * 13));
        shipping.db.write(both).unwrap();
    }
    shipping.shipper.flush().unwrap();
    shipping.check(&options);
    assert_eq!(everything(&options), changes(&shipping.db));
}

#[test]
fn a_later_writer_fences_an_earlier_one() {
    let Some(options) = options() else { return };
    let mut old = KafkaSink::open(options.clone()).unwrap();
    old.append(&put(1, "old")).unwrap();
    old.flush().unwrap();
    old.append(&put(2, "lost")).unwrap();
    let mut new = KafkaSink::open(options.clone()).unwrap();
    assert_eq!(new.last_seqno().unwrap(), Some(1), "what was not committed is gone");
    new.append(&put(2, "new")).unwrap();
    let end = new.flush().unwrap();
    assert!(matches!(old.flush(), Err(Error::Fenced { .. })));
    assert_eq!(everything(&options), [put(1, "old"), put(2, "new")]);
    assert_eq!(KafkaSource::open(options).bounds().unwrap().1, end);
}

#[test]
fn a_reader_sees_whole_transactions_only_and_follows_the_log() {
    let Some(options) = options() else { return };
    let mut sink = KafkaSink::open(options.clone()).unwrap();
    let source = KafkaSource::open(options.clone());
    sink.append(&put(1, "a")).unwrap();
    let first = sink.flush().unwrap();
    let mut batches = source.read(&source.bounds().unwrap().0).unwrap();
    assert_eq!(batches.next().unwrap().unwrap(), (first.clone(), put(1, "a")));
    sink.append(&put(2, "b")).unwrap();
    sink.append(&put(3, "c")).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(batches.next().is_none(), "nothing of this was committed");
    let second = sink.flush().unwrap();
    let (middle, batch) = batches.next().unwrap().unwrap();
    assert_eq!(batch, put(2, "b"));
    assert_eq!(batches.next().unwrap().unwrap(), (second.clone(), put(3, "c")));
    assert!(batches.next().is_none());
    // A reader that stopped in the middle of a transaction goes on there.
    let rest: Vec<_> = source.read(&middle).unwrap().map(Result::unwrap).collect();
    assert_eq!(rest, [(second.clone(), put(3, "c"))]);
    assert!(source.read(&second).unwrap().next().is_none());
}

#[test]
fn an_oversize_value_is_refused_with_the_topics_own_limit() {
    let Some(options) = options() else { return };
    let mut sink = KafkaSink::open(options.topic("max.message.bytes", "2000")).unwrap();
    let limit = sink.max_message_bytes(&"ks".into()).unwrap();
    assert!((1000..2000).contains(&limit), "{limit}");
    let batch = |seqno, bytes: usize| {
        let put = Change::Put { keyspace: "ks".into(), key: "k".into(), value: vec![7; bytes].into() };
        ChangeBatch::new(seqno, vec![put]).unwrap()
    };
    sink.append(&batch(1, limit - 1)).unwrap();
    sink.flush().unwrap();
    assert!(matches!(sink.append(&batch(2, limit)), Err(Error::TooLarge { .. })));
    // Nothing of it is left in the way.
    sink.append(&batch(2, 5)).unwrap();
    sink.flush().unwrap();
}

#[test]
fn positions_of_another_log_and_those_that_are_too_old_are_refused() {
    let (Some(options), Some(others)) = (options(), options()) else { return };
    let position = |options: &KafkaOptions| {
        let mut sink = KafkaSink::open(options.clone()).unwrap();
        sink.append(&put(1, "a")).unwrap();
        sink.flush().unwrap()
    };
    let (ours, theirs) = (position(&options), position(&others));
    let source = KafkaSource::open(options.clone());
    assert!(matches!(source.read(&theirs).map(drop), Err(Error::Mismatch(_))));
    let foreign = Position::from_bytes("17").unwrap();
    assert!(matches!(source.read(&foreign).map(drop), Err(Error::InvalidArgument(_))));
    assert!(source.read(&ours).is_ok());
    let forgetful = KafkaSource::open(options.delete_retention(Duration::ZERO));
    assert!(matches!(forgetful.read(&ours).map(drop), Err(Error::PositionOutOfRange { .. })));
    // A whole restore needs no old deletes.
    assert!(forgetful.read(&forgetful.bounds().unwrap().0).is_ok());
}

#[test]
fn a_topic_that_was_deleted_and_made_anew_is_noticed() {
    let Some(options) = options() else { return };
    let mut sink = KafkaSink::open(options.clone()).unwrap();
    (1..20).for_each(|seqno| sink.append(&put(seqno, "a")).unwrap());
    sink.flush().unwrap();
    drop(sink);
    let source = KafkaSource::open(options.clone());
    assert_eq!(read_all(&source).unwrap().len(), 19);
    let address = shared().unwrap().lock().unwrap().address();
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", address).create().unwrap();
    let topic = options.keyspace_topic(&"words".into()).unwrap();
    let deleting = admin.delete_topics(&[&topic], &AdminOptions::new());
    assert!(futures_executor::block_on(deleting).unwrap()[0].is_ok());
    std::thread::sleep(Duration::from_secs(1));
    assert!(read_all(&source).is_err(), "the topic is missing");
    // The writer makes it anew.
    KafkaSink::open(options.clone()).unwrap().max_message_bytes(&"words".into()).unwrap();
    let error = read_all(&source).unwrap_err();
    assert!(matches!(&error, Error::Mismatch(reason) if reason.contains("made anew")), "{error}");
}

#[test]
fn what_compaction_left_restores_the_same() {
    let Some(options) = options() else { return };
    let options = options
        .min_compaction_lag(Duration::ZERO)
        .topic("segment.ms", "100")
        .topic("segment.bytes", "1048576")
        .topic("min.cleanable.dirty.ratio", "0.01");
    let mut shipping = Shipping::to(&options);
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        shipping.write(200);
        shipping.shipper.flush().unwrap();
        let count = |batches: &[ChangeBatch]| batches.iter().map(|batch| batch.changes().len()).sum::<usize>();
        let (kept, written) = (count(&everything(&options)), count(&changes(&shipping.db)));
        // What drops let go of is not read either.
        if kept < written / 4 {
            break;
        }
        assert!(Instant::now() < deadline, "the broker compacts nothing: {kept} of {written}");
    }
    shipping.check(&options);
}

#[test]
fn what_lies_after_a_committed_position_is_undone() {
    let Some(options) = options() else { return };
    let mut shipping = Shipping::to(&options);
    shipping.write(200);
    let committed = shipping.shipper.flush().unwrap();
    let expected = without_empty(contents(&shipping.db));
    let ks = shipping.db.keyspace("ks0", Default::default()).unwrap();
    for n in 0..50 {
        ks.put(format!("key{:03}", n * 3), "later").unwrap();
        ks.delete(format!("key{:03}", n * 3 + 1)).unwrap();
    }
    shipping.shipper.stop().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let restore = Restore::new(KafkaSource::open(options.clone())).into(directory.path());
    let restored = restore.run_to(&committed).unwrap();
    assert_eq!(restored.moment, Moment::Target { undone_keys: 100 });
    assert!(without_empty(contents(&restored.db)) == expected);
    let sink = KafkaSink::open(options.clone()).unwrap();
    ship(&restored.db, sink, ShipOptions::new()).unwrap().stop().unwrap();
    let again = tempfile::tempdir().unwrap();
    let (again, _) = Restore::new(KafkaSource::open(options.clone())).into(again.path()).run().unwrap();
    assert!(without_empty(contents(&again)) == expected, "who reads the topics sees the same");
    // What may have been compacted since is not gone back to.
    let forgetful = KafkaSource::open(options.min_compaction_lag(Duration::ZERO));
    let directory = tempfile::tempdir().unwrap();
    let newest = Restore::new(forgetful).into(directory.path()).run_to(&committed).unwrap();
    assert!(matches!(newest.moment, Moment::Newest { .. }), "{:?}", newest.moment);
}

/// The example, as a user runs it: a process that is killed again and again, and an oracle.
#[test]
fn each_word_of_a_topic_counts_once_though_the_worker_is_killed() {
    if shared().is_none() {
        return;
    }
    let address = shared().unwrap().lock().unwrap().address();
    let this = std::env::current_exe().unwrap();
    let example = this.ancestors().nth(2).unwrap().join("examples/kafka_state");
    assert!(example.exists(), "{}: build it first, as tests/brokers/run does", example.display());
    let output = std::process::Command::new(example).arg(address).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    let kills: u32 = said.split("killed ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok()).unwrap();
    assert!(kills >= 2, "{said}");
}

#[test]
fn a_broker_that_restarts_or_hangs_delays_shipping_and_loses_nothing() {
    let Some(mut broker) = Broker::start() else { return };
    let options = KafkaOptions::new(broker.address(), "state").unwrap().replication_factor(1);
    let options = options.request_timeout(Duration::from_secs(10));
    let mut shipping = Shipping::to(&options);
    let words = shipping.db.keyspace("words", Default::default()).unwrap();
    let mut write = |count: u32| (0..count).for_each(|_| drop(words.put(shipping.random.next().to_be_bytes(), "1")));
    write(100);
    shipping.shipper.flush().unwrap();
    for _ in 0..2 {
        broker.kill();
        write(100);
        std::thread::sleep(Duration::from_secs(2));
        assert!(shipping.shipper.lag() > 0);
        broker.go_on();
        write(100);
        shipping.shipper.flush().unwrap();
    }
    broker.freeze();
    write(100);
    std::thread::sleep(Duration::from_secs(60));
    assert!(shipping.shipper.lag() > 0);
    broker.thaw();
    shipping.shipper.flush().unwrap();
    shipping.check(&options);
    assert_eq!(everything(&options), changes(&shipping.db), "each batch is there once");
}
