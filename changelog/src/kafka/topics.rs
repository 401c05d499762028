//! Topics: their names, and making them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_executor::block_on;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use siltstone::KeyspaceName;

use super::client::kafka_error;
use super::options::KafkaOptions;
use crate::error::{Error, Result};
use crate::names::escaped;

/// The longest name of a topic that Kafka takes, in bytes.
const MAX_TOPIC_BYTES: usize = 249;

/// The topic's setting that bounds a record, and its name at the broker.
const MAX_MESSAGE: &str = "max.message.bytes";

/// The topic of commits. No keyspace's is called so.
pub(super) fn commits_topic(prefix: &str) -> String {
    format!("{prefix}._commits")
}

/// The topic of a keyspace: bytes other than letters, digits and hyphens are an underscore and two hexadecimal digits. So
/// no two keyspaces have the same topic, whatever their prefixes: what is behind the last dot is the keyspace.
pub(super) fn topic_of(prefix: &str, keyspace: &KeyspaceName) -> Result<String> {
    let topic = format!("{prefix}.{}", escaped(keyspace));
    if topic.len() > MAX_TOPIC_BYTES {
        return Err(Error::InvalidArgument(format!(
            "the topic {topic:?} of keyspace {keyspace:?} would have {} bytes, where Kafka takes at most {MAX_TOPIC_BYTES}",
            topic.len()
        )));
    }
    Ok(topic)
}

/// How long is waited before the broker is asked again about a topic that it does not know yet.
const TOPIC_WAIT: Duration = Duration::from_millis(50);

/// Makes topics and asks about them.
pub(super) struct Topics {
    admin: AdminClient<DefaultClientContext>,
    options: KafkaOptions,
}

impl Topics {
    pub(super) fn new(options: &KafkaOptions) -> Result<Self> {
        let admin = options.admin_config().create().map_err(|error| kafka_error(&options.prefix, error))?;
        Ok(Topics { admin, options: options.clone() })
    }

    fn requests(&self) -> AdminOptions {
        let timeout = Some(self.options.request_timeout);
        AdminOptions::new().request_timeout(timeout).operation_timeout(timeout)
    }

    /// Makes the topic of commits, if it is missing.
    pub(super) fn create_commits(&self) -> Result<()> {
        let mut settings = self.compacted();
        // Old ones go as soon as there are newer ones of their key, and so many take long to come.
        settings.insert("min.compaction.lag.ms".to_owned(), "0".to_owned());
        self.create(&commits_topic(&self.options.prefix), 1, &settings)
    }

    /// Makes the topic of a keyspace, if it is missing.
    pub(super) fn create_keyspace(&self, topic: &str, keyspace: &KeyspaceName) -> Result<()> {
        let mut settings = match self.options.retention.get(keyspace.as_str()) {
            Some(retention) => BTreeMap::from([
                ("cleanup.policy".to_owned(), "delete".to_owned()),
                ("retention.ms".to_owned(), milliseconds(*retention)),
            ]),
            None => self.compacted(),
        };
        settings.extend(self.options.topic_settings.clone());
        self.create(topic, self.options.partitions, &settings)
    }

    fn compacted(&self) -> BTreeMap<String, String> {
        let (lag, retention) = (self.options.min_compaction_lag, self.options.delete_retention);
        [
            ("cleanup.policy", "compact".to_owned()),
            ("min.compaction.lag.ms", milliseconds(lag)),
            ("delete.retention.ms", milliseconds(retention)),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    fn create(&self, topic: &str, partitions: i32, settings: &BTreeMap<String, String>) -> Result<()> {
        let replication = TopicReplication::Fixed(self.options.replication_factor);
        let mut new = NewTopic::new(topic, partitions, replication);
        for (name, value) in settings {
            new = new.set(name, value);
        }
        let answers =
            block_on(self.admin.create_topics([&new], &self.requests())).map_err(|error| self.error(error))?;
        match answers.into_iter().next() {
            Some(Err((_, code))) if code != RDKafkaErrorCode::TopicAlreadyExists => {
                Err(self.error(KafkaError::AdminOp(code)))
            }
            _ => Ok(()),
        }
    }

    /// The largest record that a topic takes, in bytes. A topic that was made just now is not known to every broker at
    /// once.
    pub(super) fn max_message_bytes(&self, topic: &str) -> Result<usize> {
        let deadline = Instant::now() + self.options.request_timeout;
        loop {
            match self.setting(topic, MAX_MESSAGE)?.and_then(|value| value.parse().ok()) {
                Some(bytes) => return Ok(bytes),
                None if Instant::now() < deadline => std::thread::sleep(TOPIC_WAIT),
                None => {
                    let source =
                        format!("the broker does not say how large a record of the topic {topic} may be").into();
                    return Err(Error::Foreign { source, retryable: true });
                }
            }
        }
    }

    /// A topic's setting, as far as the broker knows it.
    fn setting(&self, topic: &str, name: &str) -> Result<Option<String>> {
        let asked = [ResourceSpecifier::Topic(topic)];
        let answers =
            block_on(self.admin.describe_configs(&asked, &self.requests())).map_err(|error| self.error(error))?;
        match answers.into_iter().next() {
            Some(Ok(resource)) => Ok(resource.get(name).and_then(|entry| entry.value.clone())),
            Some(Err(RDKafkaErrorCode::UnknownTopicOrPartition)) | None => Ok(None),
            Some(Err(code)) => Err(self.error(KafkaError::AdminOp(code))),
        }
    }

    fn error(&self, error: KafkaError) -> Error {
        kafka_error(&self.options.prefix, error)
    }
}

fn milliseconds(duration: Duration) -> String {
    duration.as_millis().min(i64::MAX as u128).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_keyspaces_have_different_topics() {
        let topic = |name: &str| topic_of("app", &name.into()).unwrap();
        assert_eq!(topic("words"), "app.words");
        assert_eq!(topic("größe_1"), "app.gr_c3_b6_c3_9fe_5f1");
        assert_eq!(topic("a.b"), "app.a_2eb");
        assert_ne!(topic("_commits"), commits_topic("app"));
        assert!(topic_of("app", &"ö".repeat(100)[..].into()).is_err());
    }
}
