//! A log in Kafka: a topic for each keyspace, and one that says how far they belong together.
//!
//! A put is a record with the key and the value, a delete one without a value, so that a compacted topic keeps what a
//! restore needs. A header ([`record`]) carries the sequence number and where the batch ends. Everything between two
//! flushes is one transaction, whose last record is a *commit* ([`commit`]): in a topic of its own, it lists how far each
//! keyspace's topic goes. A reader begins with a commit and reads the other topics as far as that says, so it sees whole
//! transactions, which hold whole batches, however late the markers of a transaction get to the one or the other topic.
//!
//! A position names a commit. It is good as long as that commit is younger than tombstones are kept, since a reader that
//! comes later may have missed deletes; then only a whole restore will do.
//!
//! The writer's transactional id is made of the topics' prefix: who opens a sink later fences the one before, whatever
//! that had not committed is aborted, and its later writes fail with `Fenced`.

mod client;
mod commit;
mod merge;
mod options;
mod partition;
mod position;
mod record;
mod sink;
mod source;
mod topics;

pub use options::KafkaOptions;
pub use sink::KafkaSink;
pub use source::KafkaSource;
