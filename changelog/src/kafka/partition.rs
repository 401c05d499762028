//! Reading a partition, as far as a commit says.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer, DefaultConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers};
use rdkafka::{Message, Offset, TopicPartitionList};

use super::client::{is_missing, kafka_error};
use super::options::KafkaOptions;
use super::record::{HEADER, Refused};
use crate::error::{Error, Result};

/// How long one look for records waits.
const POLL: Duration = Duration::from_millis(100);

/// A part of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) topic: String,
    pub(super) partition: i32,
    /// Its offsets.
    pub(super) first: i64,
    pub(super) end: i64,
}

/// Reads the records of parts of partitions; of each in order.
pub(super) struct Reader {
    consumer: Arc<BaseConsumer>,
    options: KafkaOptions,
}

/// How many records are read at most between two calls of the client library for its own work.
const SERVE_RECORDS: u32 = 1024;

/// The records of one part.
pub(super) struct PartReader {
    queue: PartitionQueue<DefaultConsumerContext>,
    part: Part,
    timeout: Duration,
    prefix: String,
    is_done: bool,
    /// Since the client library was called for its own work.
    read_records: u32,
}

impl Reader {
    pub(super) fn new(options: &KafkaOptions) -> Result<Self> {
        let consumer: BaseConsumer =
            options.consumer_config().create().map_err(|error| kafka_error(&options.prefix, error))?;
        Ok(Reader { consumer: Arc::new(consumer), options: options.clone() })
    }

    pub(super) fn error(&self, error: KafkaError) -> Error {
        kafka_error(&self.options.prefix, error)
    }

    /// The first offset of a partition and the one behind the last; none if its topic is missing.
    pub(super) fn bounds(&self, topic: &str, partition: i32) -> Result<Option<(i64, i64)>> {
        match self.consumer.fetch_watermarks(topic, partition, self.options.request_timeout) {
            Err(error) if is_missing(&error) => Ok(None),
            bounds => bounds.map(Some).map_err(|error| self.error(error)),
        }
    }

    /// Begins to read `parts`, and no others any more.
    pub(super) fn read(&self, parts: &[Part]) -> Result<Vec<PartReader>> {
        let mut assignment = TopicPartitionList::with_capacity(parts.len());
        let mut readers = Vec::with_capacity(parts.len());
        for part in parts {
            let from = Offset::Offset(part.first);
            assignment.add_partition_offset(&part.topic, part.partition, from).map_err(|error| self.error(error))?;
        }
        for part in parts {
            let queue = self.consumer.split_partition_queue(&part.topic, part.partition).ok_or_else(|| {
                Error::Mismatch(format!(
                    "the client library does not know partition {} of {}",
                    part.partition, part.topic
                ))
            })?;
            let (timeout, prefix) = (self.options.request_timeout, self.options.prefix.clone());
            let is_done = part.first >= part.end;
            readers.push(PartReader { queue, part: part.clone(), timeout, prefix, is_done, read_records: 0 });
        }
        self.consumer.assign(&assignment).map_err(|error| self.error(error))?;
        Ok(readers)
    }

    /// Has the client library do its own work, and tell of what does not concern one partition only.
    pub(super) fn serve(&self) -> Result<()> {
        match self.consumer.poll(Duration::ZERO) {
            Some(Err(KafkaError::PartitionEOF(_))) | None => Ok(()),
            Some(Err(error)) => Err(self.error(error)),
            Some(Ok(_)) => Ok(()),
        }
    }
}

impl PartReader {
    /// The next record, or `None` at the end of the part.
    pub(super) fn next<R>(
        &mut self,
        reader: &Reader,
        read: impl FnOnce(&Part, &BorrowedMessage<'_>) -> R,
    ) -> Result<Option<R>> {
        let mut waited_since = None;
        while !self.is_done {
            // What is there is taken without waiting: each other call has its price, and there is one for each record.
            let polled = match self.queue.poll(Duration::ZERO) {
                Some(polled) if self.read_records < SERVE_RECORDS => Some(polled),
                polled => {
                    self.read_records = 0;
                    reader.serve()?;
                    polled.or_else(|| self.queue.poll(POLL))
                }
            };
            match polled {
                Some(Ok(message)) if message.offset() < self.part.end => {
                    self.is_done = message.offset() + 1 == self.part.end;
                    self.read_records += 1;
                    return Ok(Some(read(&self.part, &message)));
                }
                // What belongs to the part is behind this one, or compaction and aborted writes left nothing at its end.
                Some(Ok(_) | Err(KafkaError::PartitionEOF(_))) => self.is_done = true,
                Some(Err(error)) => return Err(kafka_error(&self.prefix, error)),
                None if waited_since.get_or_insert_with(Instant::now).elapsed() >= self.timeout => {
                    let source = format!("no answer about {} for {:?}", self.part.topic, self.timeout).into();
                    return Err(Error::Foreign { source, retryable: true });
                }
                None => {}
            }
        }
        Ok(None)
    }
}

/// The bytes of this log's header.
pub(super) fn header<'m>(message: &'m BorrowedMessage<'_>) -> Option<&'m [u8]> {
    message.headers()?.iter().find(|header| header.key == HEADER)?.value
}

/// Why the record at `offset` of `topic` is none of a log.
pub(super) fn refused(topic: &str, partition: i32, offset: i64, refused: Refused) -> Error {
    let file = format!("{topic}/{partition}").into();
    match refused {
        Refused::Newer(version) => {
            Error::UnsupportedVersion { file, reason: format!("record {offset} has format version {version}") }
        }
        Refused::Malformed(reason) => {
            Error::Corruption { file, offset: offset.unsigned_abs(), reason: reason.to_owned() }
        }
    }
}
