//! How fast a log in Kafka becomes a database again, beside a consumer that does nothing with what it reads.

use std::time::{Duration, Instant};

use siltstone_changelog::rdkafka::consumer::{BaseConsumer, Consumer};
use siltstone_changelog::rdkafka::{ClientConfig, Offset, TopicPartitionList};
use siltstone_changelog::{KafkaOptions, KafkaSink, KafkaSource, Restore, ShipOptions, ship};

use super::{Bench, Entries, Figures, failed};
use crate::error::{Error, Result};

/// How long the broker may take to answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A log on a broker.
pub(super) struct Log {
    address: String,
    options: KafkaOptions,
}

impl Log {
    /// Ships all entries to a log of its own.
    pub(super) fn prepare(bench: &Bench, entries: &Entries, address: &str) -> Result<Log> {
        let prefix = format!("bench{}", std::process::id());
        let options = KafkaOptions::new(address, prefix).map_err(failed)?.replication_factor(1);
        let db = bench.open("origin")?;
        let sink = KafkaSink::open(options.clone()).map_err(failed)?;
        let shipper = ship(&db, sink, ShipOptions::new()).map_err(failed)?;
        bench.fill(&db.keyspace("ks", Default::default()).map_err(failed)?, entries)?;
        shipper.stop().map_err(failed)?;
        Ok(Log { address: address.to_owned(), options })
    }

    /// Reads the topic, and restores from it; thousand records a second.
    pub(super) fn measure(&self, bench: &Bench) -> Result<Figures> {
        let records = |began: Instant| bench.keys as f64 / began.elapsed().as_secs_f64() / 1e3;
        let began = Instant::now();
        self.consume(bench.keys)?;
        let consumed = records(began);
        let began = Instant::now();
        let source = KafkaSource::open(self.options.clone());
        let restore = Restore::new(source).into_with(bench.fresh("restored")?, bench.options());
        let (db, _) = restore.run().map_err(failed)?;
        let restored = records(began);
        let found = db.keyspace("ks", Default::default()).map_err(failed)?.iter().count() as u64;
        if found != bench.keys {
            return Err(Error::WrongAnswer(format!("{found} of {} records were restored", bench.keys)));
        }
        Ok(vec![
            ("bare consumer, thousand records/s", consumed),
            ("restored, thousand records/s", restored),
            ("restored / consumed", restored / consumed),
        ])
    }

    /// With the client library's own settings, but for what it sees of transactions, and for the second for which it stops
    /// fetching now and then.
    fn consume(&self, records: u64) -> Result<()> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.address).set("group.id", "bare").set("enable.auto.commit", "false");
        config.set("isolation.level", "read_committed").set("fetch.queue.backoff.ms", "10");
        let consumer: BaseConsumer = config.create().map_err(failed)?;
        let mut assignment = TopicPartitionList::new();
        let topic = self.options.keyspace_topic(&"ks".into()).map_err(failed)?;
        assignment.add_partition_offset(&topic, 0, Offset::Beginning).map_err(failed)?;
        consumer.assign(&assignment).map_err(failed)?;
        for _ in 0..records {
            consumer.poll(TIMEOUT).ok_or_else(|| failed("the broker does not answer"))?.map_err(failed)?;
        }
        Ok(())
    }
}
