//! [`KafkaSink`]: the writing end.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{Consumer, ConsumerContext, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use siltstone::{Change, ChangeBatch, KeyspaceName, SeqNo};

use super::client::{Deliveries, code, is_lost, kafka_error, requires_abort};
use super::commit::{COMMIT_KEYS, Commit, Extent};
use super::options::{COMMITS_PARTITION, KafkaOptions};
use super::position::Place;
use super::record::{HEADER, STAMP_BYTES, Stamp};
use super::source::newest_commit;
use super::topics::{Topics, commits_topic, topic_of};
use crate::error::{Error, Result};
use crate::position::Position;
use crate::sink::{Sink, is_new};

/// How long a full queue of the client library is waited for before it is looked at again.
const QUEUE_WAIT: Duration = Duration::from_millis(10);

/// What a record takes beside key, value and header, in bytes, at most: numbers of the record and of its batch.
const RECORD_OVERHEAD_BYTES: usize = 128;

/// The topic of a keyspace.
#[derive(Clone, Debug)]
struct Topic {
    name: String,
    /// The largest record it takes.
    max_message_bytes: usize,
}

/// A record of a topic that is none of the log's.
#[derive(Clone, Debug)]
struct Output {
    topic: String,
    partition: Option<i32>,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
}

/// How far a consumer has read.
struct Offsets {
    offsets: TopicPartitionList,
    group: ConsumerGroupMetadata,
}

/// Ships to Kafka: see [`KafkaOptions`] for where to. Whoever opens a sink of the same prefix later fences this one,
/// which then answers `Fenced`.
///
/// Everything between two flushes is one transaction. Batches that the log has already, by their numbers, it skips.
///
/// ```no_run
/// use siltstone_changelog::{KafkaOptions, KafkaSink, KafkaSource, Restore, ShipOptions, ship};
/// let options = KafkaOptions::new("localhost:9092", "orders.state")?;
/// let db = siltstone::Db::open("state")?;
/// let shipper = ship(&db, KafkaSink::open(options.clone())?, ShipOptions::new())?;
/// // ... and on another machine:
/// let (db, _position) = Restore::new(KafkaSource::open(options)?).into("state").run()?;
/// # Ok::<(), siltstone_changelog::Error>(())
/// ```
pub struct KafkaSink {
    options: KafkaOptions,
    /// With a thread that hears of deliveries: also while a call waits for them that does not look itself.
    producer: ThreadedProducer<Deliveries>,
    topics: Topics,
    known: HashMap<KeyspaceName, Topic>,
    /// What was committed last, and at which offset; before the first commit none.
    committed: Commit,
    commit_offset: Option<i64>,
    /// What the transaction that is open consists of, kept until it is committed: if it is lost all is sent again.
    open: Vec<ChangeBatch>,
    outputs: Vec<Output>,
    offsets: Option<Offsets>,
    /// How many of them were sent in the transaction that the broker knows of; it was begun if any was.
    sent: usize,
    begun: bool,
    /// All of it is at the broker, the commit at this offset too: only the end is missing.
    prepared: Option<(i64, Commit)>,
}

/// An error after which the same call may succeed.
fn foreign(error: KafkaError) -> Error {
    Error::Foreign { source: Box::new(error), retryable: true }
}

/// A producer whose id is this log's. Whatever another one of that id had not committed is aborted.
fn connect(options: &KafkaOptions) -> Result<ThreadedProducer<Deliveries>> {
    let error = |error| kafka_error(&options.prefix, error);
    let producer: ThreadedProducer<Deliveries> =
        options.producer_config().create_with_context(Deliveries::default()).map_err(error)?;
    producer.init_transactions(options.request_timeout).map_err(error)?;
    Ok(producer)
}

impl KafkaSink {
    /// Opens the log, making its topic of commits if that is missing. Whatever an earlier writer had not committed is
    /// gone, and the writer fenced.
    ///
    /// # Errors
    /// `InvalidArgument` for settings that the client library does not take; `UnsupportedVersion`, `Mismatch` for what is
    /// none of a log; `Foreign` if the cluster does not answer.
    pub fn open(options: KafkaOptions) -> Result<Self> {
        let topics = Topics::new(&options)?;
        topics.create_commits()?;
        let producer = connect(&options)?;
        // After the fencing: nobody commits any more but this one.
        let newest = newest_commit(&options)?;
        let (commit_offset, committed) = match newest {
            Some((offset, commit)) => (Some(offset), commit),
            None => (None, Commit { log: RandomState::new().hash_one("log"), ..Commit::default() }),
        };
        Ok(KafkaSink {
            options,
            producer,
            topics,
            known: HashMap::new(),
            committed,
            commit_offset,
            open: Vec::new(),
            outputs: Vec::new(),
            offsets: None,
            sent: 0,
            begun: false,
            prepared: None,
        })
    }

    /// The largest key and value together, in bytes, that the topic of `keyspace` takes, which is made if it is missing:
    /// what a [`LargeMessageGuard`](crate::store::LargeMessageGuard) is to keep out.
    ///
    /// # Errors
    /// `Foreign` if the cluster does not answer.
    pub fn max_message_bytes(&mut self, keyspace: &KeyspaceName) -> Result<usize> {
        Ok(self.topic(keyspace)?.max_message_bytes)
    }

    /// Adds a record of any topic to the transaction that the next flush commits: what a program puts out because of
    /// what it read. Without a partition the key decides.
    pub fn produce(&mut self, topic: &str, partition: Option<i32>, key: Option<&[u8]>, value: Option<&[u8]>) {
        let (topic, key, value) = (topic.to_owned(), key.map(<[u8]>::to_vec), value.map(<[u8]>::to_vec));
        self.outputs.push(Output { topic, partition, key, value });
    }

    /// Has the transaction that the next flush commits say that `consumer`'s group has read what comes before `offsets`, as
    /// if the consumer committed that. It must not commit by itself.
    ///
    /// # Errors
    /// `InvalidArgument` if the consumer has no group.
    pub fn send_offsets<C: ConsumerContext>(
        &mut self,
        consumer: &impl Consumer<C>,
        offsets: TopicPartitionList,
    ) -> Result<()> {
        let group = consumer
            .group_metadata()
            .ok_or_else(|| Error::InvalidArgument("the consumer is part of no group".to_owned()))?;
        self.offsets = Some(Offsets { offsets, group });
        Ok(())
    }

    fn error(&self, error: KafkaError) -> Error {
        tracing::debug!(%error, prefix = self.options.prefix, "the client library failed");
        kafka_error(&self.options.prefix, error)
    }

    fn topic(&mut self, keyspace: &KeyspaceName) -> Result<Topic> {
        if let Some(topic) = self.known.get(keyspace) {
            return Ok(topic.clone());
        }
        let name = topic_of(&self.options.prefix, keyspace)?;
        self.topics.create_keyspace(&name, keyspace)?;
        let max_message_bytes =
            self.topics.max_message_bytes(&name)?.saturating_sub(HEADER.len() + STAMP_BYTES + RECORD_OVERHEAD_BYTES);
        let topic = Topic { name, max_message_bytes };
        self.known.insert(keyspace.clone(), topic.clone());
        Ok(topic)
    }

    fn begin(&mut self) -> Result<()> {
        if !self.begun {
            self.producer.begin_transaction().map_err(|error| self.error(error))?;
            self.begun = true;
        }
        Ok(())
    }

    /// Sends what of the open batches was not sent yet.
    fn send_open(&mut self) -> Result<()> {
        while let Some(batch) = self.open.get(self.sent).cloned() {
            self.begin()?;
            self.send_batch(&batch)?;
            self.sent += 1;
        }
        Ok(())
    }

    fn send_batch(&mut self, batch: &ChangeBatch) -> Result<()> {
        for (change, seqno) in batch.changes().iter().zip(batch.first_seqno()..) {
            let stamp = Stamp { seqno, batch_last: batch.last_seqno() };
            match change {
                Change::Put { keyspace, key, value } => self.send(keyspace, key, Some(value), stamp)?,
                Change::Delete { keyspace, key } => self.send(keyspace, key, None, stamp)?,
                // Told by the commit.
                Change::DropKeyspace { .. } => {}
                other => {
                    return Err(Error::InvalidArgument(format!("a change that the log cannot hold yet: {other:?}")));
                }
            }
        }
        Ok(())
    }

    fn send(&mut self, keyspace: &KeyspaceName, key: &[u8], value: Option<&[u8]>, stamp: Stamp) -> Result<()> {
        let topic = self.topic(keyspace)?;
        let message_bytes = key.len() + value.map_or(0, <[u8]>::len);
        if message_bytes > topic.max_message_bytes {
            return Err(Error::TooLarge { message_bytes, max_message_bytes: topic.max_message_bytes });
        }
        let headers =
            OwnedHeaders::new_with_capacity(1).insert(Header { key: HEADER, value: Some(&stamp.encode()[..]) });
        let mut record = BaseRecord::<[u8], [u8]>::to(&topic.name).key(key).headers(headers);
        record.payload = value;
        record.partition = self.options.partition;
        self.enqueue(record)
    }

    /// Hands a record to the client library; waits while its queue is full.
    fn enqueue(&self, mut record: BaseRecord<'_, [u8], [u8]>) -> Result<()> {
        let deadline = Instant::now() + self.options.request_timeout;
        loop {
            let deliveries = self.producer.context();
            deliveries.sending();
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((error, refused)) => {
                    deliveries.not_sent();
                    let is_full = code(&error) == Some(RDKafkaErrorCode::QueueFull);
                    if !is_full || Instant::now() >= deadline {
                        return Err(self.error(error));
                    }
                    record = refused;
                    std::thread::sleep(QUEUE_WAIT);
                }
            }
        }
    }

    /// Sends everything that is left, waits until the broker has it, and sends what it comes to.
    fn prepare(&mut self) -> Result<()> {
        self.begin()?;
        self.send_open()?;
        for output in &self.outputs {
            let mut record = BaseRecord::<[u8], [u8]>::to(&output.topic);
            (record.key, record.payload) = (output.key.as_deref(), output.value.as_deref());
            record.partition = output.partition;
            self.enqueue(record)?;
        }
        let offsets = self.deliver()?;
        if let Some(Offsets { offsets, group }) = &self.offsets {
            let timeout = self.options.request_timeout;
            let sent = self.producer.send_offsets_to_transaction(offsets, group, timeout);
            sent.map_err(|error| self.error(error))?;
        }
        let commit = self.next_commit(offsets)?;
        let topic = commits_topic(&self.options.prefix);
        let (key, value) = ((commit.number % COMMIT_KEYS).to_le_bytes(), commit.encode());
        let mut record = BaseRecord::<[u8], [u8]>::to(&topic).key(&key).payload(&value);
        record.partition = Some(COMMITS_PARTITION);
        self.enqueue(record)?;
        let offsets = self.deliver()?;
        let Some(&(offset, _)) = offsets.get(&(topic, COMMITS_PARTITION)) else {
            return Err(Error::Mismatch("the broker did not say where the commit is".to_owned()));
        };
        self.prepared = Some((offset, commit));
        Ok(())
    }

    /// Waits until the broker has what was sent; where that is, if all of it got there.
    fn deliver(&self) -> Result<HashMap<(String, i32), (i64, i64)>> {
        let delivered = self.producer.context().wait(self.options.request_timeout);
        let delivered = delivered.map_err(|error| self.error(error))?;
        match delivered.failed {
            None => Ok(delivered.offsets),
            Some(error) => Err(self.error(error)),
        }
    }

    /// What the log holds with the open batches, whose records are where `offsets` says.
    fn next_commit(&self, mut offsets: HashMap<(String, i32), (i64, i64)>) -> Result<Commit> {
        let mut commit = Commit { number: self.committed.number + 1, ..self.committed.clone() };
        if let (1, Some(first)) = (commit.number, self.open.first()) {
            commit.begins_after = first.first_seqno() - 1;
        }
        for batch in &self.open {
            commit.last_seqno = batch.last_seqno();
            for (change, seqno) in batch.changes().iter().zip(batch.first_seqno()..) {
                let name = change.keyspace();
                if matches!(change, Change::DropKeyspace { .. }) {
                    commit.keyspaces.remove(name);
                    commit.drops.insert(name.clone(), seqno);
                } else if !commit.keyspaces.contains_key(name) {
                    let since_seqno = seqno - 1;
                    commit.keyspaces.insert(name.clone(), Extent { since_seqno, offsets: Vec::new() });
                }
            }
        }
        for (name, extent) in &mut commit.keyspaces {
            let topic = topic_of(&self.options.prefix, name)?;
            let delivered = offsets.extract_if(|(to, _), _| *to == topic).collect::<Vec<_>>();
            for ((_, partition), (first, end)) in delivered {
                extent.reach(partition, first, end);
            }
        }
        Ok(commit)
    }

    /// Ends the transaction.
    fn end(&mut self) -> std::result::Result<(), KafkaError> {
        if self.begun {
            self.producer.commit_transaction(self.options.request_timeout)?;
        }
        if let Some((offset, commit)) = self.prepared.take() {
            self.committed(offset, commit);
        }
        Ok(())
    }

    fn committed(&mut self, offset: i64, commit: Commit) {
        (self.commit_offset, self.committed) = (Some(offset), commit);
        self.open.clear();
        self.outputs.clear();
        self.offsets = None;
        (self.begun, self.sent) = (false, 0);
    }

    /// The transaction is lost: everything of it will be sent again.
    fn abort(&mut self) -> Result<()> {
        if self.begun
            && let Err(error) = self.producer.abort_transaction(self.options.request_timeout)
        {
            return if is_lost(&error) { self.renew() } else { Err(self.error(error)) };
        }
        // What is heard of it now is of no transaction that counts.
        let _ = self.producer.context().wait(self.options.request_timeout);
        (self.begun, self.sent, self.prepared) = (false, 0, None);
        Ok(())
    }

    /// Begins anew after a transaction of which nobody knows how it ended: the log says whether it was committed.
    ///
    /// # Errors
    /// `Fenced` if somebody else has committed since.
    fn renew(&mut self) -> Result<()> {
        self.producer = connect(&self.options)?;
        let prepared = self.prepared.take().map(|(_, commit)| commit);
        (self.begun, self.sent) = (false, 0);
        match newest_commit(&self.options)? {
            Some((offset, commit)) if Some(&commit) == prepared.as_ref() => {
                self.committed(offset, commit);
                Ok(())
            }
            newest if newest.as_ref().map_or(0, |(_, commit)| commit.number) == self.committed.number => Ok(()),
            _ => Err(Error::Fenced { log: self.options.prefix.clone() }),
        }
    }

    /// The last number that was taken, committed or not.
    fn taken_seqno(&self) -> SeqNo {
        self.open.last().map_or(self.committed.last_seqno, ChangeBatch::last_seqno)
    }

    fn position(&self) -> Result<Position> {
        let (commit, seqno) = (self.commit_offset.unwrap_or(0), self.committed.last_seqno);
        Place { log: self.committed.log, from_start: false, commit, seqno }.to_position()
    }
}

impl Sink for KafkaSink {
    fn append(&mut self, batch: &ChangeBatch) -> Result<()> {
        if !is_new(batch, self.taken_seqno())? {
            return Ok(());
        }
        // Its commit says how far it goes: nothing can join it.
        if self.prepared.is_some() {
            self.flush()?;
        }
        self.open.push(batch.clone());
        let sent = self.send_open();
        if sent.is_err() {
            // Part of it may have been sent, and it may come again, or never.
            self.open.pop();
            self.abort()?;
        }
        sent
    }

    fn flush(&mut self) -> Result<Position> {
        let is_empty = self.open.is_empty() && self.outputs.is_empty() && self.offsets.is_none();
        if is_empty && self.commit_offset.is_some() {
            return self.position();
        }
        if self.prepared.is_none()
            && let Err(error) = self.prepare()
        {
            self.abort()?;
            return Err(error);
        }
        // Asked again after a time-out, the broker says how the same end went.
        match self.end() {
            Ok(()) => self.position(),
            Err(error) if is_lost(&error) => {
                self.renew()?;
                // What was not committed is sent again when this is called again.
                if self.open.is_empty() { self.position() } else { Err(foreign(error)) }
            }
            Err(error) if requires_abort(&error) => {
                self.abort()?;
                Err(self.error(error))
            }
            Err(error) => Err(self.error(error)),
        }
    }

    fn last_seqno(&mut self) -> Result<Option<SeqNo>> {
        Ok(Some(self.committed.last_seqno))
    }
}

impl std::fmt::Debug for KafkaSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaSink").field("prefix", &self.options.prefix).finish_non_exhaustive()
    }
}
