//! Which cluster, which topics, and how.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::ClientConfig;
use siltstone::KeyspaceName;

use super::topics;
use crate::error::{Error, Result};

/// The longest prefix of topics, in bytes: what a name may have leaves room for a keyspace's.
const MAX_PREFIX_BYTES: usize = 100;

/// What no setting may change: the commits' reader and writer agree on it.
pub(super) const COMMITS_PARTITION: i32 = 0;

/// Where a [`KafkaSink`](crate::KafkaSink) writes and a [`KafkaSource`](crate::KafkaSource) reads.
///
/// ```
/// use std::time::Duration;
/// use siltstone_changelog::KafkaOptions;
/// let options = KafkaOptions::new("localhost:9092", "orders.state")?
///     .replication_factor(3)
///     .delete_retention(Duration::from_secs(24 * 3600))
///     .client("compression.type", "zstd")
///     .client("security.protocol", "SSL");
/// # let _ = options;
/// # Ok::<(), siltstone_changelog::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct KafkaOptions {
    brokers: String,
    pub(super) prefix: String,
    pub(super) partitions: i32,
    pub(super) partition: Option<i32>,
    pub(super) replication_factor: i32,
    pub(super) min_compaction_lag: Duration,
    pub(super) delete_retention: Duration,
    pub(super) retention: BTreeMap<String, Duration>,
    pub(super) topic_settings: BTreeMap<String, String>,
    pub(super) request_timeout: Duration,
    transaction_timeout: Duration,
    client_settings: BTreeMap<String, String>,
}

impl KafkaOptions {
    /// The cluster that `brokers` (`host:port`, separated by commas) belong to, and what the names of all topics begin
    /// with: `prefix._commits` is the topic of commits, `prefix.keyspace` that of a keyspace. One database has one prefix.
    ///
    /// # Errors
    /// `InvalidArgument` unless the prefix has 1 to 100 letters, digits, dots, hyphens and underscores.
    pub fn new(brokers: impl Into<String>, prefix: impl Into<String>) -> Result<Self> {
        let prefix = prefix.into();
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        if !(1..=MAX_PREFIX_BYTES).contains(&prefix.len()) || !prefix.bytes().all(allowed) {
            return Err(Error::InvalidArgument(format!(
                "a prefix of topics has 1 to {MAX_PREFIX_BYTES} letters, digits, dots, hyphens and underscores, unlike {prefix:?}"
            )));
        }
        Ok(KafkaOptions {
            brokers: brokers.into(),
            prefix,
            partitions: 1,
            partition: None,
            replication_factor: -1,
            min_compaction_lag: Duration::from_secs(4 * 3600),
            delete_retention: Duration::from_secs(24 * 3600),
            retention: BTreeMap::new(),
            topic_settings: BTreeMap::new(),
            request_timeout: Duration::from_secs(30),
            transaction_timeout: Duration::from_secs(60),
            client_settings: BTreeMap::new(),
        })
    }

    /// How many partitions the keyspaces' topics are created with. Default 1.
    pub fn partitions(mut self, partitions: u32) -> Self {
        self.partitions = i32::try_from(partitions).unwrap_or(i32::MAX);
        self
    }

    /// The one partition that everything goes to, as a task's own (default: by the hash of each key).
    pub fn partition(mut self, partition: u32) -> Self {
        self.partition = Some(i32::try_from(partition).unwrap_or(i32::MAX));
        self
    }

    /// How many brokers hold each topic that is created. Default: as the cluster is set.
    pub fn replication_factor(mut self, replicas: u32) -> Self {
        self.replication_factor = i32::try_from(replicas).unwrap_or(i32::MAX);
        self
    }

    /// How long a record stays before compaction may drop it for a newer one of its key (`min.compaction.lag.ms`).
    /// Default 4 hours.
    pub fn min_compaction_lag(mut self, lag: Duration) -> Self {
        self.min_compaction_lag = lag;
        self
    }

    /// How long deletes are kept (`delete.retention.ms`), and so how old a position, and with it local state, may be to
    /// be of use. Default 1 day.
    pub fn delete_retention(mut self, retention: Duration) -> Self {
        self.delete_retention = retention;
        self
    }

    /// For a keyspace whose entries expire: its topic is created with `cleanup.policy=delete` and this retention instead
    /// of being compacted.
    pub fn retention(mut self, keyspace: impl Into<String>, retention: Duration) -> Self {
        self.retention.insert(keyspace.into(), retention);
        self
    }

    /// The topic of a keyspace.
    ///
    /// # Errors
    /// `InvalidArgument` if its name would be longer than Kafka takes.
    pub fn keyspace_topic(&self, keyspace: &KeyspaceName) -> Result<String> {
        topics::topic_of(&self.prefix, keyspace)
    }

    /// A setting that topics are created with, over what this library sets.
    pub fn topic(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.topic_settings.insert(name.into(), value.into());
        self
    }

    /// A setting of the client library: compression, TLS, SASL and the like. What exactly once and the order of records
    /// depend on cannot be set this way.
    pub fn client(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.client_settings.insert(name.into(), value.into());
        self
    }

    /// How long a request may take before it is an error that may be tried again. Default 30 s.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// How long a transaction may stay open before the broker aborts it. Default 60 s.
    pub fn transaction_timeout(mut self, timeout: Duration) -> Self {
        self.transaction_timeout = timeout;
        self
    }

    fn client_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        for (name, value) in &self.client_settings {
            config.set(name, value);
        }
        config.set("bootstrap.servers", &self.brokers);
        config
    }

    pub(super) fn admin_config(&self) -> ClientConfig {
        self.client_config()
    }

    pub(super) fn producer_config(&self) -> ClientConfig {
        let mut config = self.client_config();
        config
            .set("transactional.id", &self.prefix)
            .set("transaction.timeout.ms", self.transaction_timeout.as_millis().to_string())
            .set("enable.idempotence", "true")
            .set("acks", "all");
        config
    }

    pub(super) fn consumer_config(&self) -> ClientConfig {
        let mut config = self.client_config();
        let ours = [
            // So long the broker waits before it says that a partition ends here, and that is asked often.
            ("fetch.wait.max.ms", "20"),
            // So long the library fetches nothing once it is enough ahead of who reads. The default is a second, in which
            // most of what is ahead is read and applied.
            ("fetch.queue.backoff.ms", "10"),
        ];
        for (name, value) in ours.into_iter().filter(|(name, _)| !self.client_settings.contains_key(*name)) {
            config.set(name, value);
        }
        config
            // Nothing is committed in its name; the client library asks for one.
            .set("group.id", format!("{}.reader", self.prefix))
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("auto.offset.reset", "error")
            .set("enable.partition.eof", "true");
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_names_of_topics() {
        for bad in ["", "a b", "größe", &"x".repeat(101)] {
            assert!(matches!(KafkaOptions::new("b", bad), Err(Error::InvalidArgument(_))), "{bad}");
        }
    }

    #[test]
    fn what_exactly_once_depends_on_cannot_be_unset() {
        let options = KafkaOptions::new("here", "p").unwrap();
        let options =
            options.client("isolation.level", "read_uncommitted").client("acks", "0").client("ssl.ca.location", "x");
        let consumer = options.consumer_config();
        assert_eq!(consumer.get("isolation.level"), Some("read_committed"));
        let producer = options.producer_config();
        assert_eq!((producer.get("acks"), producer.get("ssl.ca.location")), (Some("all"), Some("x")));
    }
}
